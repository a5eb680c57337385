# SPDX-License-Identifier: Apache-2.0
"""From the camera's image to the network's input, and from the network's cells back to the camera's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.structures import FloatArray, Image, LabelMap

LETTERBOX, STRETCH = FITS = ("letterbox", "stretch")

PADDING = 127
"""Grey that letterboxed borders are filled with: zero after the network's normalisation."""


@dataclass(frozen=True)
class Fit:
    """An image made to fit, and where it went.

    image: (H', W', 3) uint8, the network's input, the picture in its top left corner.
    size: (height, width) of the original.   scale: (y, x) input pixels per original pixel.
    """

    image: Image
    size: tuple[int, int]
    scale: tuple[float, float]


def check_image(image: Image) -> None:
    """Raises ValueError unless image is (H, W, 3) uint8 with at least one pixel."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"the image is a {type(image).__name__}; expected a numpy array (H, W, 3) uint8, RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"the image has shape {image.shape} and dtype {image.dtype}; expected (H, W, 3) uint8, RGB. "
            "Convert grey or alpha images first, for example with cv2.cvtColor"
        )


def fit(image: Image, input_size: tuple[int, int], how: str = LETTERBOX) -> Fit:
    """Bring an image (H, W, 3) uint8 RGB to ``input_size`` (height, width).

    how: one of ``FITS``; letterbox keeps its shape and pads it at the bottom and the right, stretch does not.
    """
    check_image(image)
    (height, width), (target_height, target_width) = image.shape[:2], input_size
    ratios = target_height / height, target_width / width
    if how == LETTERBOX:
        ratios = (min(ratios), min(ratios))
    new_height = min(target_height, max(1, round(height * ratios[0])))
    new_width = min(target_width, max(1, round(width * ratios[1])))
    scale = (new_height / height, new_width / width)
    if (new_height, new_width) != (height, width):
        method = cv2.INTER_AREA if min(ratios) < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (new_width, new_height), interpolation=method), np.uint8)
    if (new_height, new_width) != (target_height, target_width):
        padded = np.full((target_height, target_width, 3), PADDING, np.uint8)
        padded[:new_height, :new_width] = image
        image = padded
    return Fit(np.ascontiguousarray(image), (height, width), scale)


def cells_inside(fitted: Fit, stride: int) -> tuple[int, int]:
    """How many rows and columns of cells have their center in the picture rather than in the padding."""
    height, width = fitted.size
    rows, columns = height * fitted.scale[0] / stride, width * fitted.scale[1] / stride
    return max(1, round(rows)), max(1, round(columns))


def to_image(points: FloatArray, fitted: Fit, stride: int) -> FloatArray:
    """Points (..., 2) in cells to pixels of the original image; the center of cell 0 is at (stride - 1) / 2 pixels."""
    scale = np.array(fitted.scale, np.float32)
    return ((points + 0.5) * stride / scale - 0.5).astype(np.float32)


def vectors_to_image(vectors: FloatArray, fitted: Fit, stride: int) -> FloatArray:
    """Vectors (..., 2) in cells to pixels of the original image."""
    return (vectors * (stride / np.array(fitted.scale, np.float32))).astype(np.float32)


@njit(cache=True, nogil=True)
def _corners(size: int, cells: int, factor: float) -> tuple:  # type: ignore[type-arg]
    """For each pixel along an axis: the cell before it, the cell after it, and the weight of the latter."""
    before, after = np.empty(size, np.int64), np.empty(size, np.int64)
    weight = np.empty(size, np.float32)
    for i in range(size):
        position = min(max((i + 0.5) * factor - 0.5, 0.0), cells - 1.0)
        before[i] = int(position)
        after[i] = min(before[i] + 1, cells - 1)
        weight[i] = position - before[i]
    return before, after, weight


@njit(cache=True, nogil=True)
def _vote(candidates: LabelMap, weights: FloatArray) -> int:
    """The label with the largest sum of weights among four; 0 counts for nothing."""
    best, most = 0, np.float32(0.0)
    for i in range(4):
        if candidates[i] > 0:
            total = np.float32(0.0)
            for k in range(4):
                if candidates[k] == candidates[i]:
                    total += weights[k]
            if total > most:
                best, most = candidates[i], total
    return best


@njit(cache=True, nogil=True)
def _restore(
    margin: FloatArray, labels: LabelMap, count: int, height: int, width: int, factor_y: float, factor_x: float
) -> tuple:  # type: ignore[type-arg]
    out = np.zeros((height, width), np.int32)
    boxes = np.zeros((count, 4), np.int64)
    areas = np.zeros(count, np.int64)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = height, width, -1, -1
    y0, y1, wy = _corners(height, margin.shape[0], factor_y)
    x0, x1, wx = _corners(width, margin.shape[1], factor_x)
    near, weights = np.zeros(4, np.int32), np.zeros(4, np.float32)
    one = np.float32(1.0)
    for y in range(height):
        a, b, v = y0[y], y1[y], wy[y]
        for x in range(width):
            c, d, u = x0[x], x1[x], wx[x]
            near[0], near[1], near[2], near[3] = labels[a, c], labels[a, d], labels[b, c], labels[b, d]
            if near[0] == 0 and near[1] == 0 and near[2] == 0 and near[3] == 0:
                continue
            if near[0] == near[1] and near[0] == near[2] and near[0] == near[3]:
                label = near[0]
            else:
                weights[0], weights[1] = (one - v) * (one - u), (one - v) * u
                weights[2], weights[3] = v * (one - u), v * u
                value = weights[0] * margin[a, c] + weights[1] * margin[a, d]
                value += weights[2] * margin[b, c] + weights[3] * margin[b, d]
                if value <= 0:
                    continue
                label = _vote(near, weights)
            if label > 0:
                k = label - 1
                out[y, x] = label
                areas[k] += 1
                boxes[k, 0], boxes[k, 1] = min(boxes[k, 0], y), min(boxes[k, 1], x)
                boxes[k, 2], boxes[k, 3] = max(boxes[k, 2], y), max(boxes[k, 3], x)
    return out, areas, boxes


def restore_labels(
    margin: FloatArray, labels: LabelMap, count: int, fitted: Fit, stride: int
) -> tuple[LabelMap, NDArray[np.int64], FloatArray]:
    """Labels of cells to a label map in the original image's pixels, edges placed between cells.

    A pixel is foreground where the margin, interpolated bilinearly, is above 0, as the logits were in training; it gets
    the label with the most weight among the four cells around it.

    Args:
        margin: (h, w) float32, above 0 on foreground (``grouping.foreground_margin``).
        labels: (h, w) int32 of cells, 0 = background, k + 1 = row k of ``count`` objects.

    Returns:
        (H, W) int32 labels, (count,) int64 areas in pixels, (count, 4) float32 boxes x, y, width, height (0 if none).
    """
    height, width = fitted.size
    factors = fitted.scale[0] / stride, fitted.scale[1] / stride
    out, areas, corners = _restore(margin, labels, count, height, width, *factors)
    top, left, bottom, right = corners.T
    boxes = np.stack([left, top, right - left + 1, bottom - top + 1], 1)
    return out, areas, np.where(areas[:, None] > 0, boxes, 0).astype(np.float32)
