# SPDX-License-Identifier: Apache-2.0
"""From the camera's image to the network's input, and from the network's cells back to the camera's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from instance_flow.kernels.input import kernel_input
from instance_flow.settings import LETTERBOX
from instance_flow.structures import FloatArray, Image, LabelMap

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
    if (height, width) == (target_height, target_width):
        return Fit(np.ascontiguousarray(image), (height, width), scale)
    fitted = np.empty((target_height, target_width, 3), np.uint8)
    fitted[new_height:], fitted[:new_height, new_width:] = PADDING, PADDING
    picture = fitted[:new_height, :new_width]
    if (new_height, new_width) == (height, width):
        picture[:] = image
    else:
        method = cv2.INTER_AREA if min(ratios) < 1 else cv2.INTER_LINEAR
        cv2.resize(image, (new_width, new_height), dst=picture, interpolation=method)
    return Fit(fitted, (height, width), scale)


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
    """For each pixel along an axis: the cell before it, the cell after it, and the weight of the latter; and where each
    stretch of pixels between the same two cells begins, with ``size`` at the end."""
    before, after = np.empty(size, np.int64), np.empty(size, np.int64)
    weight = np.empty(size, np.float32)
    starts = np.empty(size + 1, np.int64)
    count = 0
    for i in range(size):
        position = min(max((i + 0.5) * factor - 0.5, 0.0), cells - 1.0)
        before[i] = int(position)
        after[i] = min(before[i] + 1, cells - 1)
        weight[i] = position - before[i]
        if i == 0 or before[i] != before[i - 1]:
            starts[count] = i
            count += 1
    starts[count] = size
    return before, after, weight, starts[: count + 1]


@njit(cache=True, nogil=True)
def _vote(p: int, q: int, r: int, s: int, wp: np.float32, wq: np.float32, wr: np.float32, ws: np.float32) -> int:
    """The label with the largest sum of weights among p, q, r, s, the first of equals; 0 counts for nothing."""
    zero = np.float32(0.0)
    best, most = 0, zero
    for i in range(4):
        label = p if i == 0 else (q if i == 1 else (r if i == 2 else s))
        if label > 0:
            total = wp if p == label else zero
            total += wq if q == label else zero
            total += wr if r == label else zero
            total += ws if s == label else zero
            if total > most:
                best, most = label, total
    return best


@njit(cache=True, nogil=True)
def _grow(boxes: NDArray[np.int64], k: int, top: int, left: int, bottom: int, right: int) -> None:
    """Make box k hold rows top to bottom and columns left to right, each without the last one."""
    boxes[k, 0], boxes[k, 1] = min(boxes[k, 0], top), min(boxes[k, 1], left)
    boxes[k, 2], boxes[k, 3] = max(boxes[k, 2], bottom), max(boxes[k, 3], right)


@njit(cache=True, nogil=True)
def _restore(
    margin: FloatArray, labels: LabelMap, values: LabelMap, factor_y: float, factor_x: float, out: LabelMap
) -> tuple:  # type: ignore[type-arg]
    """Fill ``out``, which holds zeros; give areas (M,) and boxes (M, 4) top, left, bottom, right.

    Pixels between the same four cells are done together: nothing where these are background, one value where they are
    of one object. Only at edges is there something to reckon for each pixel.
    """
    height, width = out.shape
    areas, boxes = np.zeros(len(values), np.int64), np.zeros((len(values), 4), np.int64)
    boxes[:, 0], boxes[:, 1] = height, width
    y0, y1, wy, tops = _corners(height, margin.shape[0], factor_y)
    x0, x1, wx, lefts = _corners(width, margin.shape[1], factor_x)
    one = np.float32(1.0)
    for i in range(len(tops) - 1):
        top, bottom, j = tops[i], tops[i + 1], 0
        a, b = y0[top], y1[top]
        while j < len(lefts) - 1:
            left = lefts[j]
            c, d = x0[left], x1[left]
            p, q, r, s = labels[a, c], labels[a, d], labels[b, c], labels[b, d]
            j += 1
            if p == q and p == r and p == s:
                while j < len(lefts) - 1:
                    c, d = x0[lefts[j]], x1[lefts[j]]
                    if labels[a, c] != p or labels[a, d] != p or labels[b, c] != p or labels[b, d] != p:
                        break
                    j += 1
                if p > 0:
                    out[top:bottom, left : lefts[j]] = values[p - 1]
                    areas[p - 1] += (bottom - top) * (lefts[j] - left)
                    _grow(boxes, p - 1, top, left, bottom, lefts[j])
                continue
            for y in range(top, bottom):
                v = wy[y]
                for x in range(left, lefts[j]):
                    u = wx[x]
                    wp, wq, wr, ws = (one - v) * (one - u), (one - v) * u, v * (one - u), v * u
                    value = wp * margin[a, c] + wq * margin[a, d]
                    value += wr * margin[b, c] + ws * margin[b, d]
                    k = _vote(p, q, r, s, wp, wq, wr, ws) - 1 if value > 0 else -1
                    if k >= 0:
                        out[y, x] = values[k]
                        areas[k] += 1
                        _grow(boxes, k, y, x, y + 1, x + 1)
    return areas, boxes


def restore_labels(
    margin: FloatArray, labels: LabelMap, count: int, fitted: Fit, stride: int, values: ArrayLike | None = None
) -> tuple[LabelMap, NDArray[np.int64], FloatArray]:
    """Labels of cells to a label map in the original image's pixels, edges placed between cells.

    A pixel is foreground where the margin, interpolated bilinearly, is above 0, as the logits were in training; it gets
    the label with the most weight among the four cells around it.

    Args:
        margin: (h, w) float32, above 0 on foreground (``grouping.foreground_margin``).
        labels: (h, w) int32 of cells, 0 = background, k + 1 = row k of ``count`` objects.
        values: (count,) integers, what is written for each row, as its track id; None = k + 1.

    Returns:
        (H, W) int32 labels or values, (count,) int64 areas in pixels, and (count, 4) float32 boxes x, y, width, height,
        0 for an object without a pixel.

    Raises:
        ValueError: when the number of values is not ``count``.
    """
    written = kernel_input(np.arange(1, count + 1) if values is None else values, np.int32)
    if written.shape != (count,):
        raise ValueError(f"values have shape {written.shape}; there must be one for each of {count} objects")
    out = np.zeros(fitted.size, np.int32)
    factor_y, factor_x = fitted.scale[0] / stride, fitted.scale[1] / stride
    areas, edges = _restore(
        kernel_input(margin, np.float32), kernel_input(labels, np.int32), written, factor_y, factor_x, out
    )
    top, left, bottom, right = edges.T
    boxes = np.stack([left, top, right - left, bottom - top], 1)
    return out, areas, np.where(areas[:, None] > 0, boxes, 0).astype(np.float32)
