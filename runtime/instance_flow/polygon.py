# SPDX-License-Identifier: Apache-2.0
"""Polygons to run lengths, pixel for pixel as COCO's tools fill them, since data sets are measured with those.

Each corner is rounded to a grid five times finer than the pixels. The outline is walked along that grid, one step of
the longer side at a time; where the walk passes the middle of a pixel column, the column changes between outside and
inside from that row on. (Behaviour of rleFrPoly in github.com/cocodataset/cocoapi, common/maskApi.c.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from instance_flow.rle import RunLengths, from_run_lengths, run_lengths, runs_between

_FINER = 5
_FARTHEST = 2**20


def polygons_to_run_lengths(polygons: Sequence[ArrayLike], height: int, width: int) -> RunLengths:
    """Give the run lengths (uint32) of the union of ``polygons``, each a flat list x0, y0, x1, y1, ... in pixels.

    Raises ValueError for a polygon of fewer than 3 points, an odd number of coordinates, or one that is not finite.
    """
    single = [_fill(_corners(polygon), height, width) for polygon in polygons]
    if len(single) == 1:
        return single[0]
    union = np.zeros((height, width), np.uint8)
    for runs in single:
        union |= from_run_lengths(runs, (height, width))
    return run_lengths(union)


def _corners(polygon: Any) -> NDArray[np.int64]:
    try:
        flat = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("a polygon is a list of numbers x0, y0, x1, y1, ...") from None
    if flat.ndim != 1 or len(flat) < 6 or len(flat) % 2:
        raise ValueError(f"a polygon is a flat list of at least 3 points x, y, but this one has shape {flat.shape}")
    if not (np.abs(flat) < _FARTHEST).all():
        raise ValueError("a polygon has a coordinate that is not finite, or far outside any image")
    return np.trunc(_FINER * flat.reshape(-1, 2) + 0.5).astype(np.int64)


def _fill(corners: NDArray[np.int64], height: int, width: int) -> RunLengths:
    positions, times = np.unique(_crossings(corners, height, width), return_counts=True)
    return runs_between(positions[times % 2 == 1], height * width)


@njit(cache=True, nogil=True)
def _crossings(corners: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """Give the column-major pixel positions at which the closed outline turns outside to inside or back."""
    found = np.empty(64, np.int64)
    count = 0
    last_x, last_y = corners[0, 0], corners[0, 1]
    for k in range(len(corners)):
        x0, y0 = corners[k, 0], corners[k, 1]
        x1, y1 = corners[(k + 1) % len(corners), 0], corners[(k + 1) % len(corners), 1]
        wide, high = abs(x1 - x0), abs(y1 - y0)
        steps = max(wide, high)
        # Rounding is done from the lower end of the longer side, so that both ways along an edge meet the same points.
        backwards = x0 > x1 if wide >= high else y0 > y1
        from_x, from_y, to_x, to_y = (x1, y1, x0, y0) if backwards else (x0, y0, x1, y1)
        slope_x = 1.0 if wide >= high else (to_x - from_x) / steps
        slope_y = 1.0 if wide < high else ((to_y - from_y) / steps if steps else 0.0)
        for step in range(steps + 1):
            along = steps - step if backwards else step
            x = from_x + along if wide >= high else int(from_x + slope_x * along + 0.5)
            y = from_y + along if wide < high else int(from_y + slope_y * along + 0.5)
            column = min(x, last_x)
            if x != last_x and column % _FINER == _FINER // 2 and 0 <= column < width * _FINER:
                row = (min(y, last_y) + 0.5) / _FINER - 0.5
                if count == len(found):
                    found = np.concatenate((found, np.empty_like(found)))
                found[count] = column // _FINER * height + int(np.ceil(min(max(row, 0.0), float(height))))
                count += 1
            last_x, last_y = x, y
    return found[:count]
