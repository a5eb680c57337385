# SPDX-License-Identifier: Apache-2.0
"""Grouping within a frame: centers by non-maximum suppression, every foreground pixel to its nearest center (Eq. 4).

The kernels release the GIL and run on the caller's thread; they may be called from several threads at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.structures import FloatArray, LabelMap


@njit(cache=True, nogil=True)
def _row_maximum(heat: FloatArray, foreground: NDArray[np.bool_], radius: int) -> FloatArray:
    """Largest foreground heat within ``radius`` columns of each pixel: (h, w) f32, -inf where there is none.

    Each foreground pixel is spread over its window, so the cost follows the foreground, not the size of the map.
    """
    h, w = heat.shape
    out = np.full((h, w), -np.inf, np.float32)
    for y in range(h):
        for x in range(w):
            if foreground[y, x]:
                value = heat[y, x]
                for k in range(max(0, x - radius), min(w, x + radius + 1)):
                    if value > out[y, k]:
                        out[y, k] = value
    return out


@njit(cache=True, nogil=True)
def _is_peak(heat: FloatArray, foreground: NDArray[np.bool_], rows: FloatArray, y: int, x: int, radius: int) -> bool:
    """True where no foreground pixel of the window is hotter, nor an earlier one in raster order equally hot."""
    h, w = heat.shape
    value = heat[y, x]
    for i in range(max(0, y - radius), min(h, y + radius + 1)):
        if rows[i, x] > value:
            return False
        if rows[i, x] == value and i <= y:
            for k in range(max(0, x - radius), min(w, x + radius + 1)):
                if (i < y or k < x) and foreground[i, k] and heat[i, k] == value:
                    return False
    return True


@njit(cache=True, nogil=True)
def _peaks(heat: FloatArray, foreground: NDArray[np.bool_], radius: int, threshold: float) -> tuple:  # type: ignore[type-arg]
    """Rows, columns and heat of every center, in raster order."""
    h, w = heat.shape
    rows = _row_maximum(heat, foreground, radius)
    ys, xs, scores = [0 for _ in range(0)], [0 for _ in range(0)], [np.float32(0) for _ in range(0)]
    for y in range(h):
        for x in range(w):
            if foreground[y, x] and heat[y, x] > threshold and _is_peak(heat, foreground, rows, y, x, radius):
                ys.append(y)
                xs.append(x)
                scores.append(heat[y, x])
    return ys, xs, scores


def find_centers(
    heatmap: FloatArray, foreground: NDArray[np.bool_], kernel_size: int, threshold: float, max_centers: int
) -> tuple[FloatArray, FloatArray]:
    """Centers of the objects: the peaks of the heatmap on the foreground (section III-C-1).

    A center is a foreground pixel whose heat exceeds ``threshold`` and is the largest of the foreground pixels in the
    ``kernel_size`` x ``kernel_size`` window around it; of equal ones the first in raster order counts, so that a flat
    peak is one object.

    Args:
        heatmap: (h, w) float32.   foreground: (h, w) bool.
        kernel_size: odd window size in pixels of the map.

    Returns:
        centers (M, 2) float32 as (y, x) and scores (M,) float32, best first, at most ``max_centers``.

    Raises:
        ValueError: for an even or non-positive window, or arrays of other shapes.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}; it must be an odd positive number of pixels")
    heat = np.ascontiguousarray(heatmap, np.float32)
    mask = np.ascontiguousarray(foreground, np.bool_)
    if heat.ndim != 2 or mask.shape != heat.shape:
        raise ValueError(f"heatmap {heat.shape} and foreground {mask.shape} must both be (h, w)")
    ys, xs, heats = _peaks(heat, mask, kernel_size // 2, float(np.float32(threshold)))
    scores = np.array(heats, np.float32)
    best = np.argsort(-scores, kind="stable")[:max_centers]
    centers = np.stack([np.array(ys, np.float32), np.array(xs, np.float32)], 1)
    return centers[best], scores[best]


@njit(cache=True, nogil=True)
def _group(offset: FloatArray, foreground: NDArray[np.bool_], centers: FloatArray) -> LabelMap:
    _, h, w = offset.shape
    labels = np.zeros((h, w), np.int32)
    count = centers.shape[0]
    if count == 0:
        return labels
    for y in range(h):
        for x in range(w):
            if foreground[y, x]:
                cy = np.float32(y) + offset[0, y, x]
                cx = np.float32(x) + offset[1, y, x]
                labels[y, x] = nearest_center(cy, cx, centers) + 1
    return labels


@njit(cache=True, nogil=True, inline="always")
def nearest_center(y: float, x: float, centers: FloatArray) -> int:
    """Row of ``centers`` (M, 2), M > 0, that is nearest to (y, x); the first of equals."""
    best = 0
    least = np.float32(np.inf)
    for m in range(centers.shape[0]):
        dy = y - centers[m, 0]
        dx = x - centers[m, 1]
        distance = dy * dy + dx * dx
        if distance < least:
            least = distance
            best = m
    return best


def group_pixels(offset: FloatArray, foreground: NDArray[np.bool_], centers: FloatArray) -> LabelMap:
    """Give every foreground pixel to the center that its offset points nearest to (Eq. 4).

    Args:
        offset: (2, h, w) float32 (dy, dx) to the center, in pixels of the map.
        foreground: (h, w) bool.   centers: (M, 2) float32 (y, x); of equally near ones the first is taken.

    Returns:
        (h, w) int32 labels, 0 = background (everything if M = 0), m + 1 = row m of ``centers``.

    Raises:
        ValueError: for arrays of other shapes.
    """
    offset = np.ascontiguousarray(offset, np.float32)
    mask = np.ascontiguousarray(foreground, np.bool_)
    centers = np.ascontiguousarray(centers, np.float32).reshape(-1, 2)
    if offset.ndim != 3 or offset.shape[0] != 2 or offset.shape[1:] != mask.shape:
        raise ValueError(f"offset {offset.shape} must be (2, h, w) and foreground {mask.shape} the same (h, w)")
    return _group(offset, mask, centers)


@njit(cache=True, nogil=True)
def _class_means(semantic: FloatArray, labels: LabelMap, count: int) -> FloatArray:
    classes, h, w = semantic.shape[0] - 1, semantic.shape[1], semantic.shape[2]
    sums = np.zeros((count, classes), np.float64)
    pixels = np.zeros(count, np.float64)
    for y in range(h):
        for x in range(w):
            if labels[y, x] > 0:
                pixels[labels[y, x] - 1] += 1
                for c in range(classes):
                    sums[labels[y, x] - 1, c] += semantic[c + 1, y, x]
    out = np.zeros((count, classes), np.float32)
    for m in range(count):
        if pixels[m] > 0:
            for c in range(classes):
                out[m, c] = sums[m, c] / pixels[m]
    return out


def class_means(semantic: FloatArray, labels: LabelMap, count: int) -> FloatArray:
    """Mean class probabilities over each object's pixels, background left out: (count, C) float32, 0 if no pixels.

    Args: semantic (C + 1, h, w) float32, channel 0 = background; labels (h, w) int32, 0 = background, m + 1 = row m.
    """
    return _class_means(np.ascontiguousarray(semantic, np.float32), np.ascontiguousarray(labels, np.int32), count)


@njit(cache=True, nogil=True)
def _foreground_margin(semantic: FloatArray) -> FloatArray:
    channels, h, w = semantic.shape
    out = np.empty((h, w), np.float32)
    tiny = np.float32(1e-7)
    for y in range(h):
        for x in range(w):
            best = semantic[1, y, x]
            for c in range(2, channels):
                best = max(best, semantic[c, y, x])
            out[y, x] = np.log(best + tiny) - np.log(semantic[0, y, x] + tiny)
    return out


def foreground_margin(semantic: FloatArray) -> FloatArray:
    """log(best class) - log(background): (h, w) float32, above 0 where the arg-max is not background.

    The difference of log probabilities is the difference of the logits, so it may be interpolated between cells just as
    the logits were when the network was trained.
    """
    return _foreground_margin(np.ascontiguousarray(semantic, np.float32))
