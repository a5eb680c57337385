# SPDX-License-Identifier: Apache-2.0
"""Fitting an image to the network and masks back to the image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.assembly.preprocess import PADDING, cells_inside, fit, restore_labels, to_image
from instance_flow.settings import STRETCH

SIZE = (192, 320)
SHAPES = {
    "same": ((192, 320), (192, 320)),
    "twice": ((384, 640), (192, 320)),
    "4:3": ((480, 640), (192, 256)),
    "portrait": ((640, 360), (192, 108)),
    "tiny": ((6, 10), (192, 320)),
    "wide": ((100, 1000), (32, 320)),
}


@pytest.mark.parametrize(("shape", "picture"), SHAPES.values(), ids=SHAPES)
def test_letterbox_keeps_aspect_and_pads_bottom_right(shape: tuple[int, int], picture: tuple[int, int]) -> None:
    fitted = fit(np.full((*shape, 3), 200, np.uint8), SIZE)
    assert fitted.image.shape == (*SIZE, 3)
    inside = np.zeros(SIZE, bool)
    inside[: picture[0], : picture[1]] = True
    assert (fitted.image[inside] == 200).all()
    assert (fitted.image[~inside] == PADDING).all()
    assert cells_inside(fitted, 4) == (round(picture[0] / 4), round(picture[1] / 4))


BAD_IMAGES = {
    "list": [[1, 2], [3, 4]],
    "grey": np.zeros((4, 4), np.uint8),
    "float": np.zeros((4, 4, 3), np.float32),
    "alpha": np.zeros((4, 4, 4), np.uint8),
    "empty": np.zeros((0, 4, 3), np.uint8),
}


@pytest.mark.parametrize("image", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_an_image_of_another_kind_is_refused_in_one_sentence(image: object) -> None:
    with pytest.raises(ValueError, match=r"expected .*\(H, W, 3\) uint8, RGB"):
        fit(image, SIZE)  # type: ignore[arg-type]


def test_labels_at_stride_one_come_back_exactly() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (32, 64)).astype(np.int32)
    fitted = fit(np.zeros((32, 64, 3), np.uint8), (32, 64))
    out, areas, boxes = restore_labels(np.where(labels > 0, 1.0, -1.0).astype(np.float32), labels, 4, fitted, 1)
    np.testing.assert_array_equal(out, labels)
    assert areas.tolist() == [*(np.count_nonzero(labels == k) for k in (1, 2, 3)), 0]
    ys, xs = np.nonzero(labels == 2)
    assert boxes[1].tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
    assert boxes[3].tolist() == [0, 0, 0, 0]


def test_an_edge_falls_between_cells_where_the_margin_is_zero() -> None:
    margin = np.full((8, 8), -1.0, np.float32)
    margin[2:6, 2:6] = 3.0
    labels = (margin > 0).astype(np.int32)
    fitted = fit(np.zeros((32, 32, 3), np.uint8), (32, 32))
    out, _, boxes = restore_labels(margin, labels, 1, fitted, 4)
    # Between cell 1 (pixel 5.5, margin -1) and cell 2 (pixel 9.5, margin 3) the margin is 0 at pixel 6.5.
    assert boxes[0].tolist() == [7, 7, 18, 18]
    assert out[16].tolist() == [0] * 7 + [1] * 18 + [0] * 7


def test_a_margin_of_zero_is_background() -> None:
    fitted = fit(np.zeros((1, 3, 3), np.uint8), (1, 2), STRETCH)  # its middle pixel lies halfway between the cells
    out, _, _ = restore_labels(np.array([[1, -1]], np.float32), np.array([[1, 0]], np.int32), 1, fitted, 1)
    assert out.tolist() == [[1, 0, 0]]


def brute_force_restore(
    margin: NDArray[np.float32], labels: NDArray[np.int32], size: tuple[int, int], factors: tuple[float, float]
) -> NDArray[np.int32]:
    """The definition of ``restore_labels``, one pixel after the other."""
    out = np.zeros(size, np.int32)
    one = np.float32(1)
    for y, x in np.ndindex(size):
        at = [
            min(max((i + 0.5) * factor - 0.5, 0.0), cells - 1.0)
            for i, factor, cells in zip((y, x), factors, labels.shape, strict=True)
        ]
        (a, c), (v, u) = map(int, at), (np.float32(p - int(p)) for p in at)
        b, d = min(a + 1, labels.shape[0] - 1), min(c + 1, labels.shape[1] - 1)
        weights = [(one - v) * (one - u), (one - v) * u, v * (one - u), v * u]
        near = [(a, c), (a, d), (b, c), (b, d)]
        parts = [weight * margin[cell] for weight, cell in zip(weights, near, strict=True)]
        votes: dict[int, np.float32] = {}
        for weight, cell in zip(weights, near, strict=True):
            votes[int(labels[cell])] = votes.get(int(labels[cell]), np.float32(0)) + weight
        agreed = len(votes) == 1
        votes.pop(0, None)
        if votes and max(votes.values()) > 0 and (agreed or (parts[0] + parts[1]) + (parts[2] + parts[3]) > 0):
            out[y, x] = max(votes, key=lambda label: votes[label])
    return out


RESTORED = {
    "enlarged": ((12, 20), (48, 80)),
    "by no whole number": ((12, 20), (33, 101)),
    "same size": ((12, 20), (12, 20)),
    "made smaller": ((24, 40), (10, 13)),
    "one cell": ((1, 1), (9, 7)),
    "one pixel": ((12, 20), (1, 1)),
}


@pytest.mark.parametrize(("cells", "size"), RESTORED.values(), ids=RESTORED)
def test_restored_labels_equal_the_definition(cells: tuple[int, int], size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    fitted = fit(np.zeros((*size, 3), np.uint8), cells, STRETCH)
    for block in (1, 3):
        labels = np.kron(rng.integers(0, 4, cells), np.ones((block, block)))[: cells[0], : cells[1]].astype(np.int32)
        margin = np.where(labels > 0, rng.uniform(0, 2, cells), -rng.uniform(0, 2, cells)).astype(np.float32)
        expected = brute_force_restore(margin, labels, size, fitted.scale)
        values = np.array([70, 5, 900])
        out, areas, boxes = restore_labels(margin, labels, 3, fitted, 1, values)
        np.testing.assert_array_equal(out, np.array([0, *values])[expected])
        np.testing.assert_array_equal(restore_labels(margin, labels, 3, fitted, 1)[0], expected)
        assert areas.tolist() == [np.count_nonzero(expected == k) for k in (1, 2, 3)]
        for k in np.flatnonzero(areas):
            ys, xs = np.nonzero(expected == k + 1)
            assert boxes[k].tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_there_is_one_value_for_each_object() -> None:
    fitted = fit(np.zeros((8, 8, 3), np.uint8), (8, 8))
    with pytest.raises(ValueError, match=r"shape \(2,\).*each of 3"):
        restore_labels(np.zeros((8, 8), np.float32), np.zeros((8, 8), np.int32), 3, fitted, 1, [4, 5])


INSIDE = {
    # height and width of the image, of the network's input, and rows and columns of cells of 4 x 4 pixels
    "all of it": ((192, 320), (192, 320), (48, 80)),
    "two rows of pixels are half a row of cells": ((90, 320), (192, 320), (22, 80)),
    "three are most of one": ((91, 320), (192, 320), (23, 80)),
    "one is little of one": ((320, 89), (320, 192), (80, 22)),
    "a thread": ((1, 320), (192, 320), (1, 80)),
}


@pytest.mark.parametrize(("shape", "size", "cells"), INSIDE.values(), ids=INSIDE)
def test_cells_count_whose_center_is_in_the_picture(
    shape: tuple[int, int], size: tuple[int, int], cells: tuple[int, int]
) -> None:
    assert cells_inside(fit(np.zeros((*shape, 3), np.uint8), size), 4) == cells


def test_points_go_to_the_middle_of_their_cell() -> None:
    fitted = fit(np.zeros((384, 640, 3), np.uint8), SIZE)
    np.testing.assert_allclose(
        to_image(np.array([[0.0, 0.0], [1.0, 2.0]], np.float32), fitted, 4), [[3.5, 3.5], [11.5, 19.5]]
    )
