# SPDX-License-Identifier: Apache-2.0
"""Eq. 4 in numpy: as it is first written down, and as fast as we could make it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from baselines.scene import make_layout
from baselines.timing import CPU, Row, measure
from instance_flow.assembly.grouping import group_pixels
from instance_flow.benchmark.scenes import STRIDE
from instance_flow.benchmark.suite import OBJECTS, SIZES, size_name
from instance_flow.structures import FloatArray, LabelMap

_BLOCK = 8192
_BLOCK_OF_TABLE = 1024  # more, and numpy's BLAS would take a second thread
_FEW = 24


def group_naively(offset: FloatArray, foreground: NDArray[np.bool_], centers: FloatArray) -> LabelMap:
    """Center by center over the whole map; arguments and result as of ``group_pixels``."""
    y, x = np.mgrid[: foreground.shape[0], : foreground.shape[1]]
    target_y, target_x = y + offset[0], x + offset[1]
    least = np.full(foreground.shape, np.inf)
    labels = np.zeros(foreground.shape, np.int32)
    for m, (center_y, center_x) in enumerate(centers):
        distance = np.sqrt((target_y - center_y) ** 2 + (target_x - center_x) ** 2)
        closer = foreground & (distance < least)
        least[closer] = distance[closer]
        labels[closer] = m + 1
    return labels


def group_in_blocks(offset: FloatArray, foreground: NDArray[np.bool_], centers: FloatArray) -> LabelMap:
    """The best of several vectorised ways: foreground alone, in blocks that stay in the cache; as ``group_pixels``.

    Of two centers that are as near but for rounding either may be taken.
    """
    labels = np.zeros(foreground.shape, np.int32)
    if len(centers):
        pixels = np.flatnonzero(foreground)
        y, x = np.divmod(pixels.astype(np.int32), np.int32(foreground.shape[1]))
        middle = centers.mean(0)  # float32 rounds less when numbers are small
        target_y = offset[0].reshape(-1)[pixels] + y - middle[0]
        target_x = offset[1].reshape(-1)[pixels] + x - middle[1]
        nearest = _by_running_least if len(centers) <= _FEW else _by_table
        found = nearest(target_y.astype(np.float32), target_x.astype(np.float32), centers - middle)
        labels.reshape(-1)[pixels] = found + 1
    return labels


def _by_running_least(y: FloatArray, x: FloatArray, centers: FloatArray) -> NDArray[np.intp]:
    """Keep the least distance so far, center by center: fastest for a few."""
    nearest = np.zeros(len(y), np.intp)
    buffers = [np.empty(_BLOCK, np.float32) for _ in range(3)]
    for start in range(0, len(y), _BLOCK):
        part = slice(start, start + _BLOCK)
        dy, dx, least = (buffer[: len(y[part])] for buffer in buffers)
        least.fill(np.inf)
        for m, (center_y, center_x) in enumerate(centers):
            np.subtract(y[part], center_y, out=dy)
            np.subtract(x[part], center_x, out=dx)
            np.multiply(dy, dy, out=dy)
            np.multiply(dx, dx, out=dx)
            np.add(dy, dx, out=dy)
            nearest[part][dy < least] = m
            np.minimum(dy, least, out=least)
    return nearest


def _by_table(y: FloatArray, x: FloatArray, centers: FloatArray) -> NDArray[np.intp]:
    """|c|^2 - 2 p c of all pairs of a block by one matrix product; |p|^2 is the same for all: fastest for many."""
    points = np.stack([y, x, np.ones(len(y), np.float32)], 1)
    factors = np.stack([-2 * centers[:, 0], -2 * centers[:, 1], (centers**2).sum(1)])
    nearest = np.empty(len(y), np.intp)
    table = np.empty((_BLOCK_OF_TABLE, len(centers)), np.float32)
    for start in range(0, len(y), _BLOCK_OF_TABLE):
        block = points[start : start + _BLOCK_OF_TABLE]
        distances = np.dot(block, factors, out=table[: len(block)])
        distances.argmin(1, out=nearest[start : start + _BLOCK_OF_TABLE])
    return nearest


def grouping_rows(
    repetitions: int, counts: Sequence[int] = OBJECTS, sizes: Sequence[tuple[int, int]] = SIZES
) -> dict[str, Row]:
    """Time both against ours, CPU time on one thread, on maps of stride 4 and on maps as large as the image.

    counts: numbers of objects.   sizes: (height, width) of images.
    """
    rows = {}
    for (height, width), objects, stride in product(sizes, counts, (STRIDE, 1)):
        layout = make_layout(objects, (height // stride, width // stride))
        maps = layout.offset, layout.foreground, layout.centers
        name = f"grouping {objects} objects {size_name((height, width))}{' full resolution' if stride == 1 else ''}"
        for kind, group in (("naive numpy", group_naively), ("best numpy", group_in_blocks)):
            rows[f"{name}: {kind}"] = measure(partial(group_pixels, *maps), partial(group, *maps), repetitions)[CPU]
    return rows
