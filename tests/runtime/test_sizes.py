# SPDX-License-Identifier: Apache-2.0
"""Images of any size and shape: masks, boxes and centers come back in their pixels, whichever way they were fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from instance_flow import AssemblyConfig, Pipeline, Tracks
from instance_flow.assembly.preprocess import fit
from instance_flow.settings import FITS
from instance_flow.structures import Image, ModelInfo, Prediction

SIZES = [(1, 1), (2, 1), (1, 5000), (5000, 1), (31, 17), (17, 31), (3, 2000), (719, 1277)]
SECOND = 10**9


class Halves:
    """Sees what is red as one object and what is blue as another, both without motion."""

    info = ModelInfo(name="halves", class_names=("red", "blue"), input_size=(96, 160))

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        cells = image[::4, ::4].astype(np.float32)  # the corner of a cell is in the picture, its middle may be padding
        difference = (cells[..., 0] - cells[..., 2]) / 510
        masks = [difference > 0.1, difference < -0.1]
        semantic = np.stack([~(masks[0] | masks[1]), *masks]).astype(np.float32)
        center, offset = np.zeros(cells.shape[:2], np.float32), np.zeros((2, *cells.shape[:2]), np.float32)
        for mask in masks:
            if mask.any():
                places = np.argwhere(mask)
                middle = places[np.abs(places - places.mean(0)).sum(1).argmin()]
                center[tuple(middle)] = 1
                offset[:, mask] = (middle - places).T
        return Prediction(semantic, center, offset, np.repeat(offset[None], len(references), axis=0), None)


def two_halves(height: int, width: int) -> tuple[Image, np.ndarray]:
    """Red before the middle of the longer side, blue behind it; and the distance of each pixel to that edge."""
    y, x = np.mgrid[:height, :width]
    distance = (x + 0.5 - width / 2) if width >= height else (y + 0.5 - height / 2)
    distance = distance - 1.0 * (height == width == 1)  # a single pixel is all red
    return np.where(distance[..., None] < 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8), distance


def check(tracks: Tracks, size: tuple[int, int]) -> None:
    """Fail unless rows and label map say the same, within an image of this size."""
    assert tracks.label_map.shape == size
    assert set(np.unique(tracks.label_map)) - {0} == set(tracks.ids.tolist())
    for row, track_id in enumerate(tracks.ids):
        ys, xs = np.nonzero(tracks.label_map == track_id)
        assert tracks.areas[row] == len(ys)
        assert tracks.boxes[row].tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
    assert np.isfinite(tracks.centers).all()


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_objects_come_back_in_the_pixels_of_the_image(size: tuple[int, int], how: str) -> None:
    image, distance = two_halves(*size)
    pipeline = Pipeline(Halves(), AssemblyConfig(resize=how))
    first, second = pipeline.step(image, SECOND), pipeline.step(image, 2 * SECOND)
    scale = np.array(fit(image, Halves.info.input_size, how).scale)
    cell = 4 / scale[1 if size[1] >= size[0] else 0]
    red, blue = distance < -cell, distance > cell
    for tracks in (first, second):
        check(tracks, size)
        of_class = dict(zip(tracks.class_ids.tolist(), tracks.ids.tolist(), strict=True))
        assert (tracks.label_map[red] == of_class.get(0)).all()
        assert (tracks.label_map[blue] == of_class.get(1)).all()
        assert (tracks.label_map > 0).all()
        outside = np.maximum(-tracks.centers, tracks.centers - np.array(size) + 1)
        assert (outside <= 4 / scale).all()
    assert len(first) == (1 if size == (1, 1) else 2)
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_allclose(second.velocities, 0, atol=1e-3)


@pytest.fixture(scope="module")
def bundled(bundled_model: Path) -> Pipeline:
    return Pipeline.load(bundled_model, provider="cpu")


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_bundled_model_takes_any_size(bundled: Pipeline, size: tuple[int, int], how: str) -> None:
    scene = np.full((240, 400, 3), (90, 120, 80), np.uint8)
    for x, colour in ((90, (200, 40, 40)), (220, (40, 60, 210)), (330, (230, 200, 30))):
        cv2.circle(scene, (x, 120), 45, colour, -1, cv2.LINE_AA)
    image = np.asarray(cv2.resize(scene, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    bundled.configure(AssemblyConfig(resize=how))
    bundled.reset()
    for stamp in (SECOND, 2 * SECOND):
        check(bundled.step(image, stamp), size)
