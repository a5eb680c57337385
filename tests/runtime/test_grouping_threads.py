# SPDX-License-Identifier: Apache-2.0
"""The kernels of grouping, matching and masks: from several threads at once, and on arrays of every form."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.assembly import appearance, grouping, matching, preprocess
from instance_flow.formats import rle

THREADS, ROUNDS, CELLS, STRIDE = 4, 8, (24, 40), 4
Form = Callable[[NDArray[Any]], NDArray[Any]]


def frame(seed: int, form: Form = np.asarray) -> list[NDArray[Any]]:
    """All that the kernels make of one random frame; form: of every array that is handed to them."""
    rng = np.random.default_rng(seed)
    h, w = CELLS
    semantic = form(rng.random((4, h, w), dtype=np.float32))
    offset = form(rng.normal(0, 4, (2, h, w)).astype(np.float32))
    reference_offset = form(rng.normal(0, 4, (3, 2, h, w)).astype(np.float32))
    image = form(rng.integers(0, 255, (h * STRIDE, w * STRIDE, 3), dtype=np.uint8))
    margin = form(grouping.foreground_margin(semantic))
    centers, scores = grouping.find_centers(form(rng.random((h, w), dtype=np.float32)), form(margin > 0), 7, 0.2, 50)
    labels = form(grouping.group_pixels(offset, form(margin > 0), form(centers)))
    count = len(centers)
    flows, flow_std = matching.flows_with_std(offset, reference_offset, labels, count)
    vectors = appearance.appearance_vectors(image, labels, count, STRIDE)
    fitted = preprocess.fit(image, (h * STRIDE, w * STRIDE))
    ids = form(rng.permutation(np.arange(1, 2 * count + 1))[:count])
    restored, areas, boxes = preprocess.restore_labels(margin, labels, count, fitted, STRIDE, ids)
    windows = np.tile([2, 3, w * STRIDE, h * STRIDE - 1], (count, 1))
    known = matching.KnownIdentities(ids, form(vectors[::-1].copy()), centers, np.ones(count, np.int64))
    matches = matching.match_by_evidence(
        form(centers), form(flows), flow_std, form(vectors), [form(centers)] * 3, [ids] * 3, known, 2.0
    )
    runs = rle.window_run_lengths(form(restored), ids, form(windows))
    means = grouping.class_means(semantic, labels, count)
    return [centers, scores, labels, means, flows, flow_std, vectors, restored, areas, boxes, *matches, *runs]


def test_several_threads_get_the_same_answers_as_one() -> None:
    expected = [frame(seed) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(frame, [*range(THREADS)] * ROUNDS))
    for seed, answer in enumerate(answers):
        for array, other in zip(answer, expected[seed % THREADS], strict=True):
            np.testing.assert_array_equal(array, other)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def with_gaps(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in a view of a larger array, as maps are from which padding was cut off."""
    larger = np.zeros((*array.shape[:-1], array.shape[-1] * 2 + 1), array.dtype)
    larger[..., : array.shape[-1] * 2 : 2] = array
    return larger[..., : array.shape[-1] * 2 : 2]


FORMS = {"read-only": read_only, "with gaps": with_gaps, "column-major": np.asfortranarray}
KERNELS: list[Any] = [
    *(grouping._peaks, grouping._group, grouping._class_means, grouping._foreground_margin, matching._flows),
    *(matching._lengths, matching._merge, appearance._histograms, appearance._products, preprocess._restore),
    *(rle._runs_of,),
]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_form_of_the_arrays_changes_nothing_and_compiles_nothing(form: Form) -> None:
    for array, other in zip(frame(1, form), frame(1), strict=True):
        np.testing.assert_array_equal(array, other)
    assert {kernel.__name__: len(kernel.signatures) for kernel in KERNELS} == {k.__name__: 1 for k in KERNELS}
