# SPDX-License-Identifier: Apache-2.0
"""Which depth belongs to which image."""

from __future__ import annotations

from threading import Timer
from time import monotonic
from weakref import ref

import numpy as np
import pytest

from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.pairing import Calibrations, DepthPairing

MS = 10**6


def pairing(*stamps: int, tolerance: float = 0.02) -> DepthPairing:
    """Depth images with these stamps in milliseconds have come, each named after its stamp."""
    pairing = DepthPairing(tolerance)
    for stamp in stamps:
        pairing.add_depth(stamp * MS, stamp)
    return pairing


@pytest.mark.parametrize(
    ("before", "image", "after", "paired"),
    [
        pytest.param([100], 100, [], 100, id="same stamp"),
        pytest.param([], 100, [100], 100, id="comes while the network runs"),
        pytest.param([95], 100, [103], 103, id="a nearer one comes"),
        pytest.param([99], 100, [103], 99, id="a farther one comes"),
        pytest.param([98], 100, [102], 98, id="of two equally near ones the first"),
        pytest.param([80], 100, [], 80, id="at the tolerance"),
        pytest.param([79], 100, [121], None, id="beyond the tolerance"),
        pytest.param([], 100, [], None, id="none"),
        pytest.param([90, 100, 110], None, [], None, id="an image without a stamp"),
        pytest.param([5000, 100], 101, [], 100, id="after the clock ran back"),
        pytest.param([100], 100, [*range(200, 300)], 100, id="kept although a hundred came since"),
    ],
)
def test_the_nearest_depth_within_the_tolerance_belongs_to_an_image(
    before: list[int], image: int | None, after: list[int], paired: int | None
) -> None:
    pairs = pairing(*before)
    request = pairs.request(None if image is None else image * MS)
    for stamp in after:
        pairs.add_depth(stamp * MS, stamp)
    assert pairs.take(request) == paired


def test_depth_for_images_that_were_dropped_is_not_kept() -> None:
    pairs, depth = pairing(), np.zeros(1)
    request = pairs.request(100 * MS)
    pairs.add_depth(100 * MS, depth)
    kept = ref(depth)
    del depth
    for stamp in range(200, 220):
        pairs.add_depth(stamp * MS, stamp)
    assert request.depth is kept()
    del request
    assert kept() is None


@pytest.mark.parametrize(
    ("comes", "waits", "paired"),
    [
        pytest.param([(0.05, 100)], 5.0, 100, id="until it comes"),
        pytest.param([(0.05, 130)], 5.0, None, id="until a later one says that none will come"),
        pytest.param([(0.02, 95), (0.06, 101)], 5.0, 101, id="for the nearer one"),
        pytest.param([(0.4, 100)], 0.05, None, id="no longer than it is told"),
    ],
)
def test_waiting_for_depth(comes: list[tuple[float, int]], waits: float, paired: int | None) -> None:
    pairs = pairing(0)
    request = pairs.request(100 * MS)
    timers = [Timer(seconds, pairs.add_depth, (stamp * MS, stamp)) for seconds, stamp in comes]
    for timer in timers:
        timer.start()
    began = monotonic()
    assert pairs.take(request, began + waits) == paired
    assert monotonic() - began < 2
    for timer in timers:
        timer.join()


def test_there_is_no_wait_where_no_depth_ever_came() -> None:
    pairs, began = pairing(), monotonic()
    assert pairs.take(pairs.request(100 * MS), began + 5) is None
    assert monotonic() - began < 2


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [(50, 1), (100, 1), (150, 1), (160, 2), (200, 2), (None, 2)],
    ids=["before all", "first", "between", "at the change", "after the change", "without a stamp"],
)
def test_a_calibration_counts_from_its_stamp_on(stamp: int | None, expected: int) -> None:
    cameras = Calibrations()
    assert cameras.at(stamp) is None
    for when, focal in ((100, 1), (160, 2)):
        cameras.add(when * MS, CameraModel(np.diag((focal, focal, 1.0))))
    camera = cameras.at(None if stamp is None else stamp * MS)
    assert camera is not None
    assert camera.matrix[0, 0] == expected


def answered(pairs: DepthPairing, *images: int) -> DepthPairing:
    for image in images:
        pairs.take(pairs.request(image * MS))
    return pairs


def late() -> DepthPairing:
    pairs = pairing()
    for stamp in range(0, 300, 33):
        answered(pairs, stamp)
        pairs.add_depth(stamp * MS, stamp)
    return pairs


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        pytest.param(answered(pairing(0, 33), 0, 33), "", id="all paired"),
        pytest.param(answered(pairing(0, 33), 0, 33, 500), "", id="most paired"),
        pytest.param(answered(pairing(), 0, 33), "", id="no depth at all is the subscription's affair"),
        pytest.param(
            answered(pairing(3000, 3033), 0, 33), "(0.02 s) of an image: the median difference of their stamps is +2.98"
        ),
        pytest.param(answered(pairing(0), 1500), "is -1.500 s"),
        pytest.param(late(), "ms (median) after its image was answered; raise depth_wait"),
    ],
)
def test_the_report_says_why_images_have_no_depth(pairs: DepthPairing, words: str) -> None:
    problem = pairs.report().problem(0.02)
    assert words in problem
    assert bool(words) == bool(problem)
    assert pairs.report().unpaired == 0  # a period of its own


def test_after_clear_nothing_is_known() -> None:
    pairs = pairing(100)
    pairs.clear()
    assert pairs.take(pairs.request(100 * MS)) is None
