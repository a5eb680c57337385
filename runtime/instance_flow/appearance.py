# SPDX-License-Identifier: Apache-2.0
"""What an object looks like: the histogram of its colours, a hint for telling identities apart that no flow can."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.structures import FloatArray, Image, LabelMap

BINS = 8
LOOK_SIZE = BINS**3


@njit(cache=True, nogil=True)
def _histograms(image: Image, labels: LabelMap, count: int, stride: int) -> FloatArray:
    out = np.zeros((count, LOOK_SIZE), np.float32)
    h, w = labels.shape
    for y in range(h):
        for x in range(w):
            m = labels[y, x] - 1
            if 0 <= m < count:
                for i in range(y * stride, min((y + 1) * stride, image.shape[0])):
                    for j in range(x * stride, min((x + 1) * stride, image.shape[1])):
                        r, g, b = image[i, j, 0] >> 5, image[i, j, 1] >> 5, image[i, j, 2] >> 5
                        out[m, (r * BINS + g) * BINS + b] += np.float32(1.0)
    return out


def looks(image: Image, labels: LabelMap, count: int, stride: int) -> FloatArray:
    """Unit vectors (count, 512) float32, 0 for an object without pixels: square roots of 8 x 8 x 8 RGB histograms, so
    that the product of two is the Bhattacharyya coefficient of the histograms, 1 = the same colours.

    Args:
        image: (H, W, 3) uint8.   labels: (h, w) int32 of its cells of stride x stride pixels, m + 1 = object m.
    """
    histograms = _histograms(image, np.ascontiguousarray(labels, np.int32), count, stride)
    pixels = np.maximum(histograms.sum(1, keepdims=True), 1.0)
    return np.sqrt(histograms / pixels)


def blend(before: FloatArray, now: FloatArray, share: float) -> FloatArray:
    """A running mean of looks (512,), of unit length again; share: weight of ``now``."""
    mixed: NDArray[np.float32] = (1.0 - share) * before + share * now
    length = float(np.linalg.norm(mixed))
    return (mixed / length).astype(np.float32) if length > 0 else mixed
