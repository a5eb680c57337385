# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes of exactly M moving objects, and a network that knows them: what the assembly costs, without a
network's time and without its errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.grouping import offset_map
from instance_flow.network.protocol import Network
from instance_flow.pictures.draw import colours
from instance_flow.structures import FloatArray, Image, LabelMap, ModelInfo, Prediction

POSES = 8
"""A scene's frames repeat after so many."""
STRIDE = 4
COVERED = 0.35
"""Part of the picture that its objects cover."""
CLASSES = 40
"""As YouTube-VIS has: the maps of the classes are the largest that grouping reads."""
NOWHERE = -1e4
"""Where the reference offset of an object leads that the reference does not show: out of any reach."""

_LEAST_SPACING = 5
"""Cells from object to object. Nearer ones would fall into each other's window of non-maximum suppression."""
_GROUND, _PLAY = 96, 0.8


@dataclass(frozen=True)
class Pose:
    """Where the objects are in one frame, in cells of the network's maps.

    labels: (h, w) int32, 0 = background, k + 1 = object k.   centers: (M, 2) float32 (y, x).
    """

    labels: LabelMap
    centers: FloatArray


class Scene:
    """M ellipses of as many colours on a jittered grid, each going round in a small circle of its own; none ever covers
    another. Together they cover about COVERED of the picture, so more objects are smaller ones.

    Args:
        size: (height, width) of the pictures, multiples of STRIDE.
        counts: objects in each pose; a pose with fewer has those of the lowest numbers.

    Raises:
        ValueError: as ``check_room``.
    """

    def __init__(self, size: tuple[int, int], counts: Sequence[int], seed: int = 0):
        self.size, self.counts = size, tuple(counts)
        rng = np.random.default_rng(seed)
        most = max(1, *counts)
        check_room(size, most)
        cells = size[0] // STRIDE, size[1] // STRIDE
        homes, spacing = _grid(most, cells)
        axes = spacing * min(0.9, float(np.sqrt(COVERED * np.prod(cells) / most / np.pi / np.prod(spacing / 2)))) / 2
        phases = rng.uniform(0, 2 * np.pi, most)
        self.poses = [
            _pose(
                homes[:count], (spacing / 2 - axes) * _PLAY, axes, phases[:count] + 2 * np.pi * t / len(counts), cells
            )
            for t, count in enumerate(counts)
        ]
        self._noise = rng.integers(-12, 13, (*size, 1), np.int16)

    @cached_property
    def images(self) -> list[Image]:
        """The pictures (H, W, 3) uint8 RGB of the poses; the top left pixel holds the number of the pose, by which
        ``ExactNetwork`` knows it."""
        return [self._image(number) for number in range(len(self.poses))]

    def _image(self, number: int) -> Image:
        labels = self.poses[number].labels
        paint = np.concatenate([np.full((1, 3), _GROUND, np.uint8), colours(np.arange(1, max(1, *self.counts) + 1))])
        shown = cv2.resize(labels.astype(np.uint16), self.size[::-1], interpolation=cv2.INTER_NEAREST)
        image = np.clip(paint[shown].astype(np.int16) + self._noise, 0, 255).astype(np.uint8)
        image[0, 0] = number
        return image


class ExactNetwork(Network):
    """For a scene: the maps that a perfect network would give, at STRIDE.

    Which pose an image shows is read from its top left pixel, so calls may come in any order and from any thread.
    """

    def __init__(self, scene: Scene):
        self.info = ModelInfo(
            name="exact maps",
            class_names=tuple(f"class {number}" for number in range(CLASSES)),
            input_size=scene.size,
            output_stride=STRIDE,
        )
        self._poses = scene.poses
        self._maps = [_maps(pose) for pose in scene.poses]

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:
        """Maps of the pose that the image shows; features are its number."""
        number = int(image[0, 0, 0]) % len(self._poses)
        pose, (semantic, center, offset) = self._poses[number], self._maps[number]
        towards = np.zeros((len(references), *offset.shape), np.float32)
        for row, reference in enumerate(references):
            towards[row] = np.nan_to_num(offset_map(pose.labels, self._poses[reference].centers), nan=NOWHERE)
        return Prediction(semantic, center, offset, towards, number)


def check_room(size: tuple[int, int], count: int) -> None:
    """Raises ValueError where so many objects do not fit into a picture of (height, width)."""
    _, spacing = _grid(max(1, count), (size[0] // STRIDE, size[1] // STRIDE))
    if spacing.min() < _LEAST_SPACING:
        raise ValueError(
            f"{count} objects do not fit into {size[1]}x{size[0]}, where each has {spacing.min() * STRIDE:.0f} pixels "
            f"and needs {_LEAST_SPACING * STRIDE}; give fewer objects or a larger size"
        )


def _grid(count: int, cells: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Places (count, 2) in cells, spread over the map, and the spacing (2,) between them."""
    columns = max(1, round(float(np.sqrt(count * cells[1] / cells[0]))))
    rows = -(-count // columns)
    spacing = np.array([cells[0] / rows, cells[1] / columns], np.float32)
    places = np.linspace(0, rows * columns, count, endpoint=False).astype(np.int64)
    return ((np.stack([places // columns, places % columns], 1) + 0.5) * spacing - 0.5).astype(np.float32), spacing


def _pose(
    homes: FloatArray, play: NDArray[Any], axes: NDArray[Any], turns: NDArray[Any], cells: tuple[int, int]
) -> Pose:
    centers = (homes + play * np.stack([np.sin(turns), np.cos(turns)], 1)).astype(np.float32).reshape(-1, 2)
    labels = np.zeros(cells, np.int32)
    ys, xs = np.mgrid[: cells[0], : cells[1]].astype(np.float32)
    for k, (y, x) in enumerate(centers):
        labels[((ys - y) / axes[0]) ** 2 + ((xs - x) / axes[1]) ** 2 <= 1] = k + 1
    return Pose(labels, centers)


def _maps(pose: Pose) -> tuple[FloatArray, FloatArray, FloatArray]:
    """semantic (C + 1, h, w), center (h, w) and offset (2, h, w)."""
    offset = offset_map(pose.labels, pose.centers)
    center = np.where(pose.labels > 0, np.exp(-(offset**2).sum(0) / 8), np.float32(0))
    classes = np.where(pose.labels > 0, 1 + (pose.labels - 1) % CLASSES, 0)
    semantic = np.full((CLASSES + 1, *pose.labels.shape), 0.1 / CLASSES, np.float32)
    np.put_along_axis(semantic, classes[None].astype(np.int64), 0.9, axis=0)
    return semantic, center, offset
