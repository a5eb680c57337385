# SPDX-License-Identifier: Apache-2.0
"""Areas and common pixels of masks, against decoded masks."""

from __future__ import annotations

import numpy as np
import pytest

from instance_flow.evaluation.overlaps import ABSENT, measure_overlaps
from instance_flow.formats.rle import compress, decode, run_lengths
from instance_flow.formats.ytvis import Annotation, Result, Video

HEIGHT, WIDTH = 3, 2
VIDEO = Video(1, HEIGHT, WIDTH, 1)
EVERY_MASK = [np.array(list(f"{k:06b}"), np.uint8).reshape(HEIGHT, WIDTH) for k in range(2 ** (HEIGHT * WIDTH))]
PLAIN = [{"size": [HEIGHT, WIDTH], "counts": run_lengths(mask).tolist()} for mask in EVERY_MASK]
TEXTS = [{"size": [HEIGHT, WIDTH], "counts": compress(mask["counts"])} for mask in PLAIN]
BYTES = [{**mask, "counts": str(mask["counts"]).encode()} for mask in TEXTS]
PADDED = [{**mask, "counts": [0, 0, *mask["counts"], 0, 0, 0]} for mask in PLAIN]
SOURCES = ("truth", "results")


@pytest.mark.parametrize("predicted", [PLAIN, TEXTS, BYTES, PADDED], ids=["plain", "text", "bytes", "runs of zero"])
def test_every_pair_of_all_masks_of_six_pixels(predicted: list[dict[str, object]]) -> None:
    annotations = [Annotation(k, 1, 1, [mask]) for k, mask in enumerate(PLAIN)]
    results = [Result(k, 1, 1, 1.0, [mask]) for k, mask in enumerate(predicted)]
    overlaps = measure_overlaps(VIDEO, annotations, results, SOURCES)
    pixels = np.array(EVERY_MASK, np.int64).reshape(len(EVERY_MASK), -1)
    np.testing.assert_array_equal(overlaps.common, [pixels @ pixels.T])
    np.testing.assert_array_equal(overlaps.true_areas, pixels.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(overlaps.predicted_areas, overlaps.true_areas)


def test_pairs_of_different_groups_are_not_counted() -> None:
    full = PLAIN[-1]
    annotations = [Annotation(k, 1, k, [full]) for k in range(2)]
    results = [Result(k, 1, k, 1.0, [full]) for k in range(3)]
    groups = np.array([7, 2]), np.array([2, 7, 2])
    overlaps = measure_overlaps(VIDEO, annotations, results, SOURCES, groups)
    assert overlaps.common.tolist() == [[[0, 6, 0], [6, 0, 6]]]


def test_frames_in_every_form_and_without_a_mask() -> None:
    video = Video(1, HEIGHT, WIDTH, 5)
    upper_left = [[0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]]
    track = [None, PLAIN[0], PLAIN[-1], TEXTS[-1], upper_left]
    overlaps = measure_overlaps(video, [Annotation(1, 1, 1, track)], [Result(0, 1, 1, 1.0, track[::-1])], SOURCES)
    assert decode(PLAIN[0]).sum() == 0
    assert overlaps.true_areas.tolist() == [[ABSENT, 0, 6, 6, 1]]
    assert overlaps.predicted_areas.tolist() == [[1, 6, 6, 0, ABSENT]]
    assert overlaps.common.ravel().tolist() == [0, 0, 6, 0, 0]
    assert overlaps.video_ious().tolist() == [[6 / 20]]
    assert overlaps.frame_ious().ravel().tolist() == [0, 0, 1, 0, 0]
