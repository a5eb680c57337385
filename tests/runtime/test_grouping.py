# SPDX-License-Identifier: Apache-2.0
"""Grouping against brute-force formulas on random input, and against cases drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.assembly.grouping import (
    all_finite,
    class_means,
    find_centers,
    foreground_margin,
    group_pixels,
    offset_map,
    remove_stray_pixels,
)

RANDOM_INPUTS = 1000


def brute_force_centers(
    heat: NDArray[np.float32], foreground: NDArray[np.bool_], kernel: int, threshold: float, most: int
) -> list[tuple[float, int, int]]:
    visible = np.where(foreground, heat, -np.inf)
    r = kernel // 2
    found = []
    for y, x in zip(*np.nonzero(foreground), strict=True):
        window = visible[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1]
        if heat[y, x] > threshold and heat[y, x] == window.max():
            found.append((float(heat[y, x]), int(y), int(x)))
    return sorted(found, key=lambda item: (-item[0], item[1:]))[:most]


def test_centers_equal_brute_force_on_random_input() -> None:
    rng = np.random.default_rng(0)
    for _ in range(RANDOM_INPUTS):
        shape = tuple(rng.integers(1, 24, 2))
        heat = rng.random(shape, dtype=np.float32)
        foreground = rng.random(shape) < rng.random()
        kernel, threshold, most = int(rng.choice([1, 3, 5, 11])), float(rng.random()), int(rng.integers(1, 12))
        centers, scores = find_centers(heat, foreground, kernel, threshold, most)
        expected = brute_force_centers(heat, foreground, kernel, threshold, most)
        assert [(s, int(y), int(x)) for s, (y, x) in zip(scores.tolist(), centers, strict=True)] == expected


def grid(text: str) -> NDArray[np.float32]:
    """Digits are heat in tenths, dots are zero."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in text.split()], np.float32) / np.float32(10)


CENTERS = {
    "two peaks": ("..... .9... ..... ...8. .....", 3, [(1, 1), (3, 3)]),
    "one window": ("..... .9... ..... ...8. .....", 5, [(1, 1)]),
    "corner": ("9.... ..... ..... ..... ....7", 3, [(0, 0), (4, 4)]),
    "flat peak is one": ("..... .99.. .99.. ..... .....", 3, [(1, 1)]),
    "below threshold": ("..... .1... ..... ..... .....", 3, []),
    "at the threshold": ("..... .2... ..... ..... .....", 3, []),
}


@pytest.mark.parametrize(("drawing", "kernel", "expected"), CENTERS.values(), ids=CENTERS)
def test_centers_drawn_by_hand(drawing: str, kernel: int, expected: list[tuple[int, int]]) -> None:
    heat = grid(drawing)
    centers, _scores = find_centers(heat, np.ones_like(heat, bool), kernel, 0.2, 10)
    assert [tuple(center) for center in centers.astype(int).tolist()] == expected


def test_background_heat_neither_counts_nor_suppresses() -> None:
    heat = grid("..... .97.. ..... ..... .....")
    foreground = np.ones((5, 5), bool)
    foreground[1, 1] = False
    centers, _ = find_centers(heat, foreground, 3, 0.15, 10)
    assert centers.tolist() == [[1, 2]]


def test_pixels_go_to_the_nearest_center_on_random_input() -> None:
    rng = np.random.default_rng(1)
    for _ in range(RANDOM_INPUTS):
        h, w = rng.integers(1, 20, 2)
        count = int(rng.integers(0, 12))
        offset = rng.normal(0, 6, (2, h, w)).astype(np.float32)
        centers = (rng.random((count, 2)) * (h, w)).astype(np.float32)
        foreground = rng.random((h, w)) < 0.6
        labels = group_pixels(offset, foreground, centers)
        assert labels.dtype == np.int32
        if not count:
            assert not labels.any()
            continue
        warped = np.mgrid[:h, :w].astype(np.float32) + offset
        distance = ((warped[None] - centers[:, :, None, None]) ** 2).sum(1)
        np.testing.assert_array_equal(labels, np.where(foreground, distance.argmin(0) + 1, 0))


CENTERS_OF_GROUPS = {
    "in one row": np.stack([np.full(9, 4.0), np.arange(9) * 3.0], 1),
    "in one column": np.stack([np.arange(9) * 3.0, np.full(9, 4.0)], 1),
    "on one spot": np.full((5, 2), 6.0),
    "two and two": np.array([[9, 9], [3, 3], [9, 9], [3, 3]]),
    "out of the map": np.array([[-40, 5], [5, 90], [12, 12]]),
}


def test_an_offset_map_is_the_inverse_of_grouping() -> None:
    labels = np.array([[1, 1, 0], [0, 2, 2], [3, 3, 4]], np.uint8)
    centers = np.array([[0, 0.5], [1, 1.5], [np.nan, np.nan]], np.float32)
    offset = offset_map(labels, centers)
    assert offset.dtype == np.float32
    assert offset[:, 1, 1].tolist() == [0, 0.5], "(dy, dx), and pixel + offset = center"
    assert not offset[:, labels == 0].any(), "background"
    assert np.isnan(offset[:, labels > 2]).all(), "a center that is unknown, and one that has no row"
    np.testing.assert_array_equal(group_pixels(np.nan_to_num(offset), labels > 0, centers[:2])[:2], labels[:2])


@pytest.mark.parametrize("centers", CENTERS_OF_GROUPS.values(), ids=CENTERS_OF_GROUPS)
def test_of_equally_near_centers_the_first_gets_the_pixel(centers: NDArray[np.float64]) -> None:
    offset = np.random.default_rng(4).integers(-9, 10, (2, 24, 28)).astype(np.float32)
    warped = np.mgrid[:24, :28] + offset
    distance = ((warped[None] - centers[:, :, None, None]) ** 2).sum(1)
    labels = group_pixels(offset, np.ones((24, 28), bool), centers.astype(np.float32))
    np.testing.assert_array_equal(labels, distance.argmin(0) + 1)


def test_offsets_that_are_not_finite_lead_to_the_first_center() -> None:
    offset = np.zeros((2, 1, 4), np.float32)
    offset[0, 0, 1:] = np.nan, np.inf, -np.inf
    labels = group_pixels(offset, np.ones((1, 4), bool), np.array([[0, 90], [0, 0]], np.float32))
    assert labels.tolist() == [[2, 1, 1, 1]]


NUMBERS = np.random.default_rng(5).normal(size=(3, 70, 90)).astype(np.float32)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", [0, 9000, -1])
def test_one_value_that_is_not_finite_is_found(value: float, place: int) -> None:
    assert all_finite(NUMBERS)
    array = NUMBERS.copy()
    array.flat[place] = value
    assert not all_finite(array)


def test_the_largest_numbers_and_none_at_all_are_finite() -> None:
    assert all_finite(np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max, 0.0, -0.0, 1e-45], np.float32))
    assert all_finite(np.zeros((0, 2, 4, 4), np.float32))
    assert all_finite(np.where(np.arange(90) % 2, NUMBERS, np.nan).astype(np.float32)[:, :, 1::2])


def test_class_means_equal_numpy() -> None:
    rng = np.random.default_rng(2)
    semantic = rng.random((5, 9, 7), dtype=np.float32)
    labels = rng.integers(0, 4, (9, 7)).astype(np.int32)
    means = class_means(semantic, labels, 4)
    for row in range(3):
        np.testing.assert_allclose(means[row], semantic[1:, labels == row + 1].mean(1), rtol=1e-5)
    assert not means[3].any()


def test_foreground_is_where_the_arg_max_is_not_background() -> None:
    logits = np.random.default_rng(3).normal(size=(6, 40, 40))
    semantic = np.exp(logits) / np.exp(logits).sum(0)
    margin = foreground_margin(semantic.astype(np.float32))
    np.testing.assert_array_equal(margin > 0, semantic.argmax(0) > 0)
    np.testing.assert_allclose(margin, logits[1:].max(0) - logits[0], atol=1e-4)


def test_an_even_window_is_refused() -> None:
    with pytest.raises(ValueError, match="odd positive"):
        find_centers(np.zeros((4, 4), np.float32), np.ones((4, 4), bool), 4, 0.1, 5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, h, w\)"):
        group_pixels(np.zeros((2, 4, 4), np.float32), np.ones((4, 5), bool), np.zeros((1, 2), np.float32))


# One row of pixels, all of the object whose center is cell 10: where each offset leads, and the labels that are left.
STRAYS = {
    "all at the center": ([10] * 16, 1.0, [1] * 16),
    "within the root of the area, 4 cells": ([14] * 16, 1.0, [1] * 16),
    "beyond it": ([14.1] * 8 + [10] * 8, 1.0, [0] * 8 + [1] * 8),
    "twice as far allowed": ([14.1] * 8 + [10] * 8, 2.0, [1] * 16),
    "a few cells are always near enough": ([13.9] * 2 + [10] * 14, 0.1, [1] * 16),
}


@pytest.mark.parametrize(("leads", "most", "left"), STRAYS.values(), ids=STRAYS)
def test_stray_pixels_are_background(leads: list[float], most: float, left: list[int]) -> None:
    x = np.arange(16)
    offset = np.stack([np.zeros((1, 16)), (np.array(leads) - x)[None]]).astype(np.float32)
    labels = np.ones((1, 16), np.int32)
    remove_stray_pixels(offset, labels, np.array([[0, 10]], np.float32), most)
    assert labels[0].tolist() == left
