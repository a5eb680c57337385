# SPDX-License-Identifier: Apache-2.0
"""Run lengths against pycocotools on random masks, and by hand."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.formats import rle
from instance_flow.formats.polygon import polygons_to_run_lengths

# Columns of this mask, top to bottom: 010, 110, 011.
BY_HAND = np.array([[0, 1, 0], [1, 1, 1], [0, 0, 1]], np.uint8)
BY_HAND_RUNS = [1, 1, 1, 2, 2, 2]

FLOATS: Any = np.zeros((2, 2))
MAP = np.ones((2, 2), np.int32)
HALF_SIZE: Any = (2.5, 2)


def random_mask(height: int, width: int, density: float, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((height, width)) < density


def disc(height: int, width: int, radius: float) -> NDArray[np.bool_]:
    y, x = np.ogrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2


MASKS = {
    "empty": np.zeros((7, 5), np.uint8),
    "full": np.ones((7, 5), np.uint8),
    "one pixel": np.ones((1, 1), np.uint8),
    "one row": random_mask(1, 40, 0.5),
    "one column": random_mask(40, 1, 0.5),
    "first pixel": np.eye(4, dtype=np.uint8) * np.array([1, 0, 0, 0], np.uint8),
    "last pixel": np.eye(4, dtype=np.uint8) * np.array([0, 0, 0, 1], np.uint8),
    "by hand": BY_HAND,
    "disc": disc(120, 160, 40),
    "long runs": disc(720, 1280, 300),
    "left half": np.arange(64)[None, :].repeat(48, axis=0) < 32,
    "noise": random_mask(64, 48, 0.5),
    "dense noise": random_mask(64, 48, 0.97),
    "sparse noise": random_mask(64, 48, 0.01),
    "255 is an object too": disc(20, 30, 8).astype(np.uint8) * 255,
    "column-major array": np.asfortranarray(disc(20, 30, 8)),
    "cut out of a larger one": random_mask(64, 48, 0.3)[10:40:2, 5:44:3],
}


@pytest.fixture(params=list(MASKS.values()), ids=list(MASKS))
def mask(request: pytest.FixtureRequest) -> NDArray[np.uint8]:
    """One mask of 0 and 1, the pixels that the row of the table holds."""
    return request.param


def test_text_equals_pycocotools(mask: NDArray[np.uint8]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    expected = coco.encode(np.asfortranarray(mask != 0).astype(np.uint8))
    assert rle.encode(mask) == {"size": list(mask.shape), "counts": expected["counts"].decode()}


def test_every_form_decodes_to_the_same_mask(mask: NDArray[np.uint8]) -> None:
    size, text, runs = mask.shape, rle.encode(mask)["counts"], rle.run_lengths(mask)
    for counts in (text, text.encode(), runs, runs.tolist()):
        decoded = rle.decode({"size": size, "counts": counts})
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, mask != 0)
    np.testing.assert_array_equal(rle.from_run_lengths(runs, size), mask != 0)
    np.testing.assert_array_equal(rle.decompress(text), runs)


def test_area(mask: NDArray[np.uint8]) -> None:
    assert rle.area(rle.run_lengths(mask)) == (mask != 0).sum()


def test_run_lengths_by_hand() -> None:
    runs = rle.run_lengths(BY_HAND)
    assert runs.dtype == np.uint32
    assert runs.tolist() == BY_HAND_RUNS
    assert rle.run_lengths(1 - BY_HAND).tolist() == [0, *BY_HAND_RUNS]
    assert rle.run_lengths(np.zeros((0, 5), np.uint8)).tolist() == [0]


def test_zero_runs_in_the_middle_are_nothing() -> None:
    np.testing.assert_array_equal(rle.decode({"size": [3, 1], "counts": [0, 1, 0, 1, 1, 0]}), [[1], [1], [0]])


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64])
def test_label_run_lengths_equal_those_of_single_masks(dtype: type) -> None:
    labels: NDArray[np.integer[Any]] = np.random.default_rng(3).integers(0, 5, (31, 17)).repeat(3, axis=0).astype(dtype)
    ids = [4, 0, 9, 1]
    for track_id, runs in zip(ids, rle.label_run_lengths(labels, ids), strict=True):
        np.testing.assert_array_equal(runs, rle.run_lengths(labels == track_id))
    assert rle.label_run_lengths(labels, []) == []


def windows_of(labels: NDArray[np.integer[Any]], kind: str) -> NDArray[np.int64]:
    """One window left, top, right, bottom for each of the ids 1 to 4."""
    height, width = labels.shape
    if kind == "the whole map":
        return np.tile([0, 0, width, height], (4, 1))
    if kind == "boxes":
        places = [np.nonzero(labels == k) for k in (1, 2, 3, 4)]
        return np.array([(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in places])
    if kind == "full height":  # runs go on from one column to the next
        return np.tile([3, 0, width - 2, height], (4, 1))
    return {
        "cut through": np.array([[5, 5, 12, 9], [0, 0, 3, 3], [7, 2, 8, height], [2, 7, width, 8]]),
        "empty": np.array([[5, 5, 5, 9], [0, 0, 3, 0], [width, height, width, height], [0, 0, 0, 0]]),
    }[kind]


@pytest.mark.parametrize("kind", ["the whole map", "boxes", "full height", "cut through", "empty"])
@pytest.mark.parametrize("block", [1, 4, 30])
def test_window_run_lengths_equal_those_of_single_masks(kind: str, block: int) -> None:
    small = np.random.default_rng(6).integers(0, 5, (60, 60))
    small[:1, :4] = np.arange(1, 5)
    labels = small.repeat(block, axis=0)[:53].repeat(block, axis=1)[:, :150].astype(np.int32)
    ids, windows = np.array([3, 1, 4, 2]), windows_of(labels, kind)[[2, 0, 3, 1]]
    found = rle.window_run_lengths(labels, ids, windows)
    for track_id, (left, top, right, bottom), runs in zip(ids, windows, found, strict=True):
        assert runs.dtype == np.uint32
        np.testing.assert_array_equal(runs, rle.run_lengths(labels[top:bottom, left:right] == track_id))


def test_ids_beyond_31_bits() -> None:
    labels = np.array([[2**31, 0], [2**40, 2**31]], np.int64)
    found = [runs.tolist() for runs in rle.label_run_lengths(labels, [2**40, 2**31])]
    assert found == [[1, 1, 2], [0, 1, 2, 1]]


def test_windows_without_their_id_and_no_windows_at_all() -> None:
    labels = np.ones((6, 8), np.int32)
    assert [r.tolist() for r in rle.window_run_lengths(labels, [9, 1], [[1, 1, 4, 3], [0, 0, 8, 6]])] == [[6], [0, 48]]
    assert rle.window_run_lengths(labels, [], np.zeros((0, 4), int)) == []
    assert rle.window_run_lengths(labels, [], []) == []


POLYGONS = {
    "triangle": [[2.0, 3.0, 20.0, 5.0, 9.0, 30.0]],
    "square on pixel edges": [[2, 2, 8, 2, 8, 8, 2, 8]],
    "square on pixel centers": [[2.5, 2.5, 8.5, 2.5, 8.5, 8.5, 2.5, 8.5]],
    "beyond every side": [[-20, -5, 90, 10, 30, 80]],
    "crosses itself": [[0, 0, 30, 30, 30, 0, 0, 30]],
    "two that overlap": [[2, 2, 18, 2, 18, 18, 2, 18], [10, 10, 30, 10, 30, 30, 10, 30]],
    "no area": [[5, 5, 5, 5, 5, 5]],
    "far beyond two sides": [[20, 5, 1e6, 9, 1e6, -1e6]],
    "steep, from far above to far below": [[3, -9e5, 30, 9e5, 12, 9e5, 8.5, -9e5]],
    "back and forth across one column": [[12, 3, 13, 30, 12.3, 3, 12.9, 30, 12, 31]],
    "three, one in another": [[2, 2, 39, 2, 39, 35, 2, 35], [5, 5, 9, 5, 9, 9, 5, 9], [20, 20, 80, 20, 80, 80, 20, 80]],
    "outside": [[100, 100, 120, 100, 110, 120]],
    "many corners": [np.random.default_rng(5).uniform(-5, 45, 60).tolist()],
}


@pytest.mark.parametrize("polygons", POLYGONS.values(), ids=POLYGONS.keys())
def test_polygons_fill_the_pixels_that_pycocotools_fills(polygons: list[list[float]]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    floats = [[float(n) for n in polygon] for polygon in polygons]
    expected = coco.decode(coco.merge(coco.frPyObjects(floats, 37, 41)))
    runs = polygons_to_run_lengths(polygons, 37, 41)
    np.testing.assert_array_equal(rle.from_run_lengths(runs, (37, 41)), expected)


def test_random_polygons_fill_the_pixels_that_pycocotools_fills() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(8)
    for _ in range(300):
        size = rng.integers(1, 60, 2)
        height, width = (int(n) for n in size)
        polygons = [
            (
                rng.uniform(-0.5, 1.5, (int(rng.integers(3, 9)), 2)) * size[::-1] * rng.choice([1, 1, 3, 50, 3000])
            ).ravel()
            for _ in range(int(rng.integers(1, 4)))
        ]
        expected = coco.decode(coco.merge(coco.frPyObjects([p.tolist() for p in polygons], height, width)))
        runs = polygons_to_run_lengths(polygons, height, width)
        np.testing.assert_array_equal(rle.from_run_lengths(runs, (height, width)), expected)


def test_the_memory_of_a_polygon_does_not_grow_with_the_image() -> None:
    square = [2000, 2000, 2100, 2000, 2100, 2100, 2000, 2100]
    polygons_to_run_lengths([square], 8192, 8192)  # compiles
    tracemalloc.start()
    try:
        polygons_to_run_lengths([square, [n + 50 for n in square]], 8192, 8192)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


ZIGZAG = [[n % 2 * 8192, n % 97] for n in range(3000)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: polygons_to_run_lengths([np.ravel(ZIGZAG)] * 2, 8192, 8192),
            "cross more than 4194304 columns",
            id="endless outlines",
        ),
        pytest.param(lambda: polygons_to_run_lengths([[10**400] * 6], 9, 9), "list of numbers", id="400 digits"),
        pytest.param(
            lambda: rle.decode({"size": [46340, 46340], "counts": [46340**2]}), "at most 67108864 of", id="all memory"
        ),
        pytest.param(lambda: rle.run_lengths(np.zeros((2, 2, 2), bool)), "2 dimensions", id="three dimensions"),
        pytest.param(lambda: rle.run_lengths(np.zeros((2, 2), np.int32)), "bool or uint8, not int32", id="label map"),
        pytest.param(lambda: rle.label_run_lengths(FLOATS, [1]), "of integers", id="labels are floats"),
        pytest.param(lambda: rle.label_run_lengths(np.zeros((2, 2), np.int32), [1, 1]), "distinct", id="id twice"),
        pytest.param(lambda: rle.label_run_lengths(MAP, [2**64]), "whole numbers below 2.63", id="id of 65 bits"),
        pytest.param(
            lambda: rle.label_run_lengths(MAP, np.array([2**63], np.uint64)), "below 2.63", id="id of 64 bits"
        ),
        pytest.param(lambda: rle.label_run_lengths(MAP, [1.5]), "whole numbers", id="id of a fraction"),
        pytest.param(
            lambda: rle.window_run_lengths(MAP, [1], [[0, 0, 3, 2]]), r"\[0, 0, 3, 2\] .*within", id="too wide"
        ),
        pytest.param(lambda: rle.window_run_lengths(MAP, [1], [[1, 0, 0, 2]]), "within a map", id="right before left"),
        pytest.param(lambda: rle.window_run_lengths(MAP, [1], [[-1, 0, 1, 2]]), "within a map", id="window from -1"),
        pytest.param(
            lambda: rle.window_run_lengths(MAP, [1, 2], [[0, 0, 2, 2]]), r"\(2, 4\) integers", id="one window"
        ),
        pytest.param(lambda: rle.window_run_lengths(MAP, [1], [[0.0, 0, 1, 2]]), "float64", id="window of floats"),
        pytest.param(lambda: rle.from_run_lengths([3, 2], (2, 2)), "sum to 5 pixels.* has 4", id="wrong sum"),
        pytest.param(lambda: rle.from_run_lengths([1.5, 2.5], (2, 2)), "whole numbers", id="fractions"),
        pytest.param(lambda: rle.from_run_lengths([5, -1], (2, 2)), "one is -1", id="negative"),
        pytest.param(lambda: rle.from_run_lengths([4], (2, 2, 1)), "height, width", id="size of three"),
        pytest.param(lambda: rle.from_run_lengths([4], HALF_SIZE), "height, width", id="size not whole"),
        pytest.param(lambda: rle.decode({"counts": "04"}), 'keys "size" and "counts"', id="no size"),
        pytest.param(lambda: rle.decode({"size": [2, 2], "counts": None}), "whole numbers", id="no counts"),
        pytest.param(lambda: rle.decode({"size": [2, 2], "counts": [[1], [1, 2]]}), "whole numbers", id="nested"),
        pytest.param(lambda: rle.decode({"size": [2, 2], "counts": "14"}), "sum to 5", id="text of another sum"),
        pytest.param(lambda: rle.decode({"size": [2, 2], "counts": "0T"}), "damaged", id="text cut off"),
        pytest.param(lambda: rle.decode({"size": [2, 2], "counts": "0 4"}), "damaged", id="space in the text"),
        pytest.param(lambda: rle.decode({"size": [2, 2], "counts": "0é"}), "not ASCII", id="foreign letter"),
        pytest.param(lambda: rle.decode({"size": [2, 2], "counts": "0" + "o" * 40}), "damaged", id="endless number"),
        pytest.param(lambda: polygons_to_run_lengths([[1, 1, 2, 2]], 9, 9), "at least 3 points", id="two points"),
        pytest.param(lambda: polygons_to_run_lengths([[1, 1, 2, 2, np.nan, 3]], 9, 9), "not finite", id="NaN corner"),
        pytest.param(lambda: polygons_to_run_lengths([["a"] * 6], 9, 9), "list of numbers", id="letters"),
    ],
)
def test_wrong_input_is_one_clear_error(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
