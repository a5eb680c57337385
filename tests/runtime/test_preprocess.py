# SPDX-License-Identifier: Apache-2.0
"""Fitting an image to the network and masks back to the image."""

from __future__ import annotations

import numpy as np
import pytest

from instance_flow.preprocess import PADDING, cells_inside, fit, restore_labels, to_image

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


def test_points_go_to_the_middle_of_their_cell() -> None:
    fitted = fit(np.zeros((384, 640, 3), np.uint8), SIZE)
    np.testing.assert_allclose(
        to_image(np.array([[0.0, 0.0], [1.0, 2.0]], np.float32), fitted, 4), [[3.5, 3.5], [11.5, 19.5]]
    )
