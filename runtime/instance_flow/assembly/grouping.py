# SPDX-License-Identifier: Apache-2.0
"""Grouping within a frame: centers by non-maximum suppression, every foreground pixel to its nearest center (Eq. 4).

The kernels release the GIL and run on the caller's thread; they may be called from several threads at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.kernels.input import kernel_input
from instance_flow.kernels.label_stretches import stretch_end
from instance_flow.structures import FloatArray, LabelMap


@njit(cache=True, nogil=True)
def _is_peak(heat: FloatArray, foreground: NDArray[np.bool_], y: int, x: int, radius: int) -> bool:
    """True where no foreground pixel of the window is hotter, nor an earlier one in raster order equally hot."""
    h, w = heat.shape
    value = heat[y, x]
    for i in range(max(0, y - radius), min(h, y + radius + 1)):
        for k in range(max(0, x - radius), min(w, x + radius + 1)):
            if foreground[i, k] and (heat[i, k] > value or (heat[i, k] == value and (i < y or (i == y and k < x)))):
                return False
    return True


@njit(cache=True, nogil=True)
def _peaks(heat: FloatArray, foreground: NDArray[np.bool_], radius: int, threshold: float) -> FloatArray:
    """Row, column and heat of every center, in raster order: (M, 3) float32."""
    h, w = heat.shape
    side = radius + 1  # no two centers lie within a square of this side
    found = np.empty((-(-h // side) * -(-w // side), 3), np.float32)
    count = 0
    for y in range(h):
        for x in range(w):
            # Nearly every pixel has a hotter one beside it: only what is left is worth a look at its whole window.
            if (
                foreground[y, x]
                and heat[y, x] > threshold
                and _is_peak(heat, foreground, y, x, min(radius, 1))
                and _is_peak(heat, foreground, y, x, radius)
            ):
                found[count, 0], found[count, 1], found[count, 2] = y, x, heat[y, x]
                count += 1
    return found[:count].copy()


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
    heat, mask = kernel_input(heatmap, np.float32), kernel_input(foreground, np.bool_)
    if heat.ndim != 2 or mask.shape != heat.shape:
        raise ValueError(f"heatmap {heat.shape} and foreground {mask.shape} must both be (h, w)")
    peaks = _peaks(heat, mask, kernel_size // 2, float(np.float32(threshold)))
    best = peaks[np.argsort(-peaks[:, 2], kind="stable")[:max_centers]]
    return best[:, :2].copy(), best[:, 2].copy()


@njit(cache=True, nogil=True)
def _nearest(
    a: float, b: float, along: FloatArray, across: FloatArray, rows: NDArray[np.int64], start: int
) -> tuple[int, int]:
    """Row of the center nearest to (a, b), the lowest of equals, and its place; row 0 where (a, b) is not a number.

    along, across: (M,) the centers' coordinates on the two axes, ascending on the first.   rows: (M,) whose they are.
    start: the place to begin at; the search goes both ways until the first axis alone is too far off.
    """
    row, found, least = 0, start, np.float32(np.inf)
    for step in (1, -1):
        place = start if step > 0 else start - 1
        while 0 <= place < len(rows):
            da, db = a - along[place], b - across[place]
            if da * da > least and da * step < 0:
                break
            distance = da * da + db * db
            if distance < least or (distance == least and rows[place] < row):
                row, found, least = rows[place], place, distance
            place += step
    return row, found


@njit(cache=True, nogil=True)
def _group(
    offset: FloatArray,
    foreground: NDArray[np.bool_],
    along: FloatArray,
    across: FloatArray,
    rows: NDArray[np.int64],
    axis: int,
    labels: LabelMap,
) -> None:
    """Fill ``labels``; along, across, rows: as for ``_nearest``, by the axis on which the centers are sorted."""
    _, h, w = offset.shape
    place = 0
    for y in range(h):
        for x in range(w):
            if foreground[y, x]:
                cy, cx = np.float32(y) + offset[0, y, x], np.float32(x) + offset[1, y, x]
                a, b = (cy, cx) if axis == 0 else (cx, cy)
                # The neighbour's center is most often this pixel's too: no other is looked at for long.
                row, place = _nearest(a, b, along, across, rows, place)
                labels[y, x] = row + 1


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
    offset, mask = kernel_input(offset, np.float32), kernel_input(foreground, np.bool_)
    if offset.ndim != 3 or offset.shape[0] != 2 or offset.shape[1:] != mask.shape:
        raise ValueError(f"offset {offset.shape} must be (2, h, w) and foreground {mask.shape} the same (h, w)")
    labels = np.zeros(mask.shape, np.int32)
    centers = np.reshape(centers, (-1, 2)).astype(np.float32)
    if len(centers):
        # Sorted along the axis on which they lie farther apart, each pixel is compared with a few of them alone.
        axis = int(np.argmax(np.ptp(centers, axis=0)))
        rows = np.argsort(centers[:, axis], kind="stable")
        along, across = (kernel_input(centers[rows, a], np.float32) for a in (axis, 1 - axis))
        _group(offset, mask, along, across, kernel_input(rows, np.int64), axis, labels)
    return labels


def offset_map(labels: NDArray[np.integer[Any]], centers: FloatArray) -> FloatArray:
    """What ``group_pixels`` takes for these labels: (2, h, w) float32 from every pixel to the center of its object.

    With the frame's own centers this is the intra-frame offset, with those of a reference the inter-frame offset.
    labels: (h, w), 0 = background, m + 1 = object m.   centers: (M, 2) float32, NaN where unknown.
    The offset is 0 on background, and NaN where the center is unknown or has no row.
    """
    table = np.full((1 + max(len(centers), int(labels.max(initial=0))), 2), np.nan, np.float32)
    table[1 : len(centers) + 1] = centers
    places = np.mgrid[: labels.shape[0], : labels.shape[1]].astype(np.float32)
    return np.ascontiguousarray(np.where(labels > 0, table[labels].transpose(2, 0, 1) - places, np.float32(0)))


@njit(cache=True, nogil=True)
def _remove_stray_pixels(offset: FloatArray, labels: LabelMap, centers: FloatArray, most: float, least: float) -> None:
    areas = np.zeros(len(centers), np.int64)
    h, w = labels.shape
    for y in range(h):
        for x in range(w):
            if labels[y, x]:
                areas[labels[y, x] - 1] += 1
    for y in range(h):
        for x in range(w):
            m = labels[y, x] - 1
            if m >= 0:
                dy = y + offset[0, y, x] - centers[m, 0]
                dx = x + offset[1, y, x] - centers[m, 1]
                if dy * dy + dx * dx > max(most * most * areas[m], least * least):
                    labels[y, x] = 0


def remove_stray_pixels(
    offset: FloatArray, labels: LabelMap, centers: FloatArray, most: float, least: float = 4.0
) -> None:
    """Make pixels background whose offset leads far past the center that they were given to, in place. Ours.

    Eq. 4 gives every foreground pixel to the nearest center, however far: a false spot in a corner becomes a part of
    the only object, and its box spans the image.

    Args:
        offset, labels, centers: as for ``group_pixels``, labels being what it returned.
        most: farthest distance in units of the root of the object's area.   least: pixels that are always near enough.
    """
    kernel_centers = kernel_input(np.reshape(centers, (-1, 2)), np.float32)
    _remove_stray_pixels(kernel_input(offset, np.float32), labels, kernel_centers, most, least)


@njit(cache=True, nogil=True)
def _class_means(semantic: FloatArray, labels: LabelMap, count: int) -> FloatArray:
    classes, h, w = semantic.shape[0] - 1, semantic.shape[1], semantic.shape[2]
    sums = np.zeros((classes, count), np.float64)
    pixels = np.zeros(count, np.float64)
    for y in range(h):
        x = 0
        while x < w:
            end = stretch_end(labels, y, x)
            m = labels[y, x] - 1
            if 0 <= m < count:
                pixels[m] += end - x
                # Each class for a stretch of pixels: planes lie too far apart for going through all of them per pixel.
                for c in range(classes):
                    total = sums[c, m]
                    for k in range(x, end):
                        total += semantic[c + 1, y, k]
                    sums[c, m] = total
            x = end
    out = np.zeros((count, classes), np.float32)
    for m in range(count):
        if pixels[m] > 0:
            for c in range(classes):
                out[m, c] = sums[c, m] / pixels[m]
    return out


def class_means(semantic: FloatArray, labels: LabelMap, count: int) -> FloatArray:
    """Mean class probabilities over each object's pixels, background left out: (count, C) float32, 0 if no pixels.

    Args: semantic (C + 1, h, w) float32, channel 0 = background; labels (h, w) int32, 0 = background, m + 1 = row m.
    """
    return _class_means(kernel_input(semantic, np.float32), kernel_input(labels, np.int32), count)


@njit(cache=True, nogil=True)
def _foreground_margin(semantic: FloatArray) -> FloatArray:
    channels, h, w = semantic.shape
    out = np.empty((h, w), np.float32)
    tiny = np.float32(1e-7)
    for y in range(h):
        for x in range(w):
            out[y, x] = semantic[1, y, x]
        for c in range(2, channels):
            for x in range(w):
                out[y, x] = max(out[y, x], semantic[c, y, x])
        for x in range(w):
            out[y, x] = np.log(out[y, x] + tiny) - np.log(semantic[0, y, x] + tiny)
    return out


def foreground_margin(semantic: FloatArray) -> FloatArray:
    """log(best class) - log(background): (h, w) float32, above 0 where the arg-max is not background.

    The difference of log probabilities is the difference of the logits, so it may be interpolated between cells just as
    the logits were when the network was trained.
    """
    return _foreground_margin(kernel_input(semantic, np.float32))


@njit(cache=True, nogil=True)
def _all_finite(values: FloatArray) -> bool:
    for start in range(0, len(values), 4096):  # a loop that may be left at any number would go one by one
        part = values[start : start + 4096]
        others = 0
        for i in range(len(part)):
            others += part[i] - part[i] != np.float32(0.0)
        if others:
            return False
    return True


def all_finite(array: FloatArray) -> bool:
    """True where no value of a float32 array of any shape is NaN or infinite; it stops soon after the first one."""
    return bool(_all_finite(kernel_input(array, np.float32).reshape(-1)))
