# SPDX-License-Identifier: Apache-2.0
"""Polygons to run lengths, pixel for pixel as COCO's tools fill them, since data sets are measured with those.

Each corner is rounded to a grid five times finer than the pixels. The outline is walked along that grid, one step of
the longer side at a time; where the walk passes the middle of a pixel column, the column changes between outside and
inside from that row on. (Behaviour of rleFrPoly in github.com/cocodataset/cocoapi, common/maskApi.c.) Only the steps
that pass such a middle within the image are taken, so that a corner far outside costs no more than any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from instance_flow.formats.rle import RunLengths, runs_between

_FINER = 5
_FARTHEST = 2**20
_MOST_CROSSINGS = 2**22
"""Columns that the outlines of one mask may cross, each as often as it is crossed: 32 MB."""


def polygons_to_run_lengths(polygons: Sequence[ArrayLike], height: int, width: int) -> RunLengths:
    """Give the run lengths (uint32) of the union of ``polygons``, each a flat list x0, y0, x1, y1, ... in pixels.

    Raises ValueError for a polygon of fewer than 3 points, an odd number of coordinates, or one that is not finite, and
    for outlines that are too long.
    """
    crossings: list[NDArray[np.int64]] = []
    room = _MOST_CROSSINGS
    for polygon in polygons:
        crossings.append(_crossings(_corners(polygon), height, width, room))
        room -= len(crossings[-1])
        if room < 0:
            raise ValueError(
                f"the outlines of a mask cross more than {_MOST_CROSSINGS} columns of pixels; give its run lengths"
            )
    return runs_between(_union([_edges(found) for found in crossings], height * width), height * width)


def _edges(crossings: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending positions at which pixels turn outside to inside or back: those that are crossed an odd number of
    times."""
    positions, times = np.unique(crossings, return_counts=True)
    return positions[times % 2 == 1]


def _union(outlines: Sequence[NDArray[np.int64]], total: int) -> NDArray[np.int64]:
    """Edges of what lies inside of any outline, by its edges; the last inside may reach to the end, ``total``."""
    if len(outlines) == 1:
        return outlines[0]
    closed = [np.append(edges, total) if len(edges) % 2 else edges for edges in outlines]
    positions = np.concatenate([edges[0::2] for edges in closed] + [edges[1::2] for edges in closed])
    steps = np.ones(len(positions), np.int64)
    steps[len(positions) // 2 :] = -1
    places, where = np.unique(positions, return_inverse=True)
    depths = np.cumsum(np.bincount(where, steps, len(places)))
    return places[np.diff(depths > 0, prepend=False)]


def _corners(polygon: Any) -> NDArray[np.int64]:
    try:
        flat = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a polygon is a list of numbers x0, y0, x1, y1, ...") from None
    if flat.ndim != 1 or len(flat) < 6 or len(flat) % 2:
        raise ValueError(f"a polygon is a flat list of at least 3 points x, y, but this one has shape {flat.shape}")
    if not (np.abs(flat) < _FARTHEST).all():
        raise ValueError("a polygon has a coordinate that is not finite, or far outside any image")
    return np.trunc(_FINER * flat.reshape(-1, 2) + 0.5).astype(np.int64)


@njit(cache=True, nogil=True)
def _crossings(corners: NDArray[np.int64], height: int, width: int, most: int) -> NDArray[np.int64]:
    """Give the column-major pixel positions at which the closed outline turns outside to inside or back; at most one
    more than ``most``."""
    found = np.empty(64, np.int64)
    count = 0
    for k in range(len(corners)):
        x0, y0 = corners[k, 0], corners[k, 1]
        x1, y1 = corners[(k + 1) % len(corners), 0], corners[(k + 1) % len(corners), 1]
        wide, high = abs(x1 - x0), abs(y1 - y0)
        # Rounding is done from the lower end of the longer side, so that both ways along an edge meet the same points.
        backwards = x0 > x1 if wide >= high else y0 > y1
        from_x, from_y, to_x, to_y = (x1, y1, x0, y0) if backwards else (x0, y0, x1, y1)
        middle = max(-(-(min(x0, x1) - _FINER // 2) // _FINER), 0) * _FINER + _FINER // 2
        for column in range(middle, min(max(x0, x1), width * _FINER), _FINER):
            # The lower end of the step from this column of the grid to the next one.
            if wide >= high:
                slope = (to_y - from_y) / wide
                y = min(
                    int(from_y + slope * (column - from_x) + 0.5), int(from_y + slope * (column + 1 - from_x) + 0.5)
                )
            else:
                y = from_y + _step_across(column, from_x, (to_x - from_x) / high, high) - 1
            if count == len(found):
                found = np.concatenate((found, np.empty_like(found)))
            row = (y + 0.5) / _FINER - 0.5
            found[count] = column // _FINER * height + int(np.ceil(min(max(row, 0.0), float(height))))
            count += 1
            if count > most:
                return found[:count]
    return found[:count]


@njit(cache=True, nogil=True)
def _step_across(column: int, from_x: int, slope: float, steps: int) -> int:
    """The first step of a steep edge that ends on the other side of the line between a column and the next one."""
    step = min(max(int((column + 0.5 - from_x) / slope), 1), steps)
    while step > 1 and (int(from_x + slope * (step - 1) + 0.5) > column) == (slope > 0):
        step -= 1
    while (int(from_x + slope * step + 0.5) > column) != (slope > 0):
        step += 1
    return step
