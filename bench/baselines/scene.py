# SPDX-License-Identifier: Apache-2.0
"""Made maps, as a good network would give them: M ellipses in rows and columns, 35 % of the image in all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instance_flow.benchmark.scenes import CLASSES, COVERED, STRIDE
from instance_flow.structures import FloatArray, IntArray, LabelMap, Prediction

REFERENCES = 4
WINDOW = 41
"""Of the centers, in pixels of the image: the paper's. Smaller images than 640x384 take a smaller one."""
THRESHOLD = 0.15
MOST_CENTERS = 200

_OFFSET_ERROR = 0.3
_HEAT_RADIUS = 2.0
_LARGEST_FLOW = 6.0


@dataclass(frozen=True)
class Layout:
    """Where the objects are, in cells of a map (h, w), whatever its stride.

    labels: (h, w) int32, 0 = background, m + 1 = object m.   centers: (M, 2) float32.
    offset: (2, h, w) float32 to the object's center, with some error.
    """

    labels: LabelMap
    centers: FloatArray
    offset: FloatArray

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """(h, w) bool."""
        return self.labels > 0


@dataclass(frozen=True)
class MapScene:
    """One frame of an image of ``size`` (height, width), in maps of ``stride``.

    window: of the centers, in pixels.   cell_window: the same in cells.
    classes: (M,) int64.   flows: (R, M, 2) float32 cells, as they truly are.
    prediction: of ``CLASSES`` classes and R references; its features are None.
    """

    size: tuple[int, int]
    stride: int
    window: int
    cell_window: int
    layout: Layout
    classes: IntArray
    flows: FloatArray
    prediction: Prediction


def make_layout(objects: int, cells: tuple[int, int], seed: int = 0) -> Layout:
    """Put M ellipses into a map of ``cells`` (h, w)."""
    rng = np.random.default_rng(seed)
    h, w = cells
    columns = max(1, round(float(np.sqrt(objects * w / h))))
    spacing = np.array([h / np.ceil(objects / columns), w / columns])
    place = np.stack(np.divmod(np.arange(objects), columns), 1)
    centers = ((place + 0.5) * spacing - 0.5 + rng.uniform(-0.05, 0.05, (objects, 2)) * spacing).astype(np.float32)
    labels = np.zeros(cells, np.int32)
    offset = rng.normal(0, _OFFSET_ERROR, (2, *cells)).astype(np.float32)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    reach = spacing * np.sqrt(COVERED * h * w / (np.pi * objects * spacing.prod()))
    for m, center in enumerate(centers):
        inside = ((y - center[0]) / reach[0]) ** 2 + ((x - center[1]) / reach[1]) ** 2 < 1
        labels[inside] = m + 1
        offset[0][inside] += center[0] - y[inside]
        offset[1][inside] += center[1] - x[inside]
    return Layout(labels, centers, offset)


def make_scene(objects: int, size: tuple[int, int], stride: int = STRIDE, seed: int = 0) -> MapScene:
    """Make the maps of M objects in an image of ``size`` (height, width), multiples of ``stride``."""
    rng = np.random.default_rng(seed + 1)
    layout = make_layout(objects, (size[0] // stride, size[1] // stride), seed)
    classes = rng.integers(0, CLASSES, objects)
    flows = rng.uniform(-_LARGEST_FLOW, _LARGEST_FLOW, (REFERENCES, objects, 2)).astype(np.float32)
    of_label = np.concatenate([np.zeros((REFERENCES, 1, 2), np.float32), flows], 1)
    shift = np.moveaxis(of_label[:, layout.labels], -1, 1)
    noise = rng.normal(0, _OFFSET_ERROR, shift.shape).astype(np.float32)
    prediction = Prediction(
        _semantic(layout, classes, rng), _heat(layout), layout.offset, layout.offset + shift + noise, None
    )
    window = WINDOW * min(1.0, float(np.sqrt(size[0] * size[1] / (384 * 640))))
    return MapScene(size, stride, _odd(window), _odd(window / stride), layout, classes, flows, prediction)


def _odd(window: float) -> int:
    return 2 * round((window - 1) / 2) + 1


def _semantic(layout: Layout, classes: IntArray, rng: np.random.Generator) -> FloatArray:
    """Class probabilities (CLASSES + 1, h, w), channel 0 = background, surest inside."""
    logits = rng.normal(0, 0.5, (CLASSES + 1, *layout.labels.shape)).astype(np.float32)
    channels = np.concatenate([[0], classes + 1])[layout.labels]
    logits += 6 * (channels == np.arange(CLASSES + 1)[:, None, None])
    exponential = np.exp(logits)
    return np.asarray(exponential / exponential.sum(0), np.float32)


def _heat(layout: Layout) -> FloatArray:
    """(h, w), the closer to a center the hotter, no two peaks alike."""
    y, x = np.mgrid[: layout.labels.shape[0], : layout.labels.shape[1]].astype(np.float32)
    heat = np.zeros(layout.labels.shape, np.float32)
    for m, (cy, cx) in enumerate(layout.centers):
        peak = 1 - 0.5 * m / len(layout.centers)
        heat = np.maximum(heat, peak * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * _HEAT_RADIUS**2)))
    return heat.astype(np.float32)
