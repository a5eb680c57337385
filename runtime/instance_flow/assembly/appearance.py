# SPDX-License-Identifier: Apache-2.0
"""What an object looks like: the histogram of its colours, a hint for telling identities apart that no flow can."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.kernels.input import kernel_input
from instance_flow.kernels.label_stretches import stretch_end
from instance_flow.structures import FloatArray, Image, LabelMap

BINS = 8
APPEARANCE_SIZE = BINS**3


@njit(cache=True, nogil=True)
def _histograms(image: Image, labels: LabelMap, count: int, stride: int) -> NDArray[np.int32]:
    """Pixels of every colour: (count, 512) int32."""
    out = np.zeros((count, APPEARANCE_SIZE), np.int32)
    h, w = labels.shape
    for y in range(h):
        x = 0
        while x < w:
            end = stretch_end(labels, y, x)
            m = labels[y, x] - 1
            if 0 <= m < count:
                for i in range(y * stride, min((y + 1) * stride, image.shape[0])):
                    for j in range(x * stride, min(end * stride, image.shape[1])):
                        r, g, b = image[i, j, 0] >> 5, image[i, j, 1] >> 5, image[i, j, 2] >> 5
                        out[m, (r * BINS + g) * BINS + b] += 1
            x = end
    return out


def appearance_vectors(image: Image, labels: LabelMap, count: int, stride: int) -> FloatArray:
    """Unit vectors (count, 512) float32, 0 for an object without pixels: square roots of 8 x 8 x 8 RGB histograms, so
    that the product of two is the Bhattacharyya coefficient of the histograms, 1 = the same colours.

    Args:
        image: (H, W, 3) uint8.   labels: (h, w) int32 of its cells of stride x stride pixels, m + 1 = object m.
    """
    counts = _histograms(kernel_input(image, np.uint8), kernel_input(labels, np.int32), count, stride)
    histograms = counts.astype(np.float32)
    pixels = np.maximum(histograms.sum(1, keepdims=True), 1.0)
    return np.sqrt(histograms / pixels)


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _products(vectors: FloatArray, others: FloatArray) -> FloatArray:
    out = np.empty((len(vectors), len(others)), np.float32)
    for start in range(0, len(vectors), 8):  # so many rows stay in the cache beside one of the others
        for k in range(len(others)):
            for m in range(start, min(start + 8, len(vectors))):
                product = np.float32(0.0)
                for i in range(vectors.shape[1]):
                    product += vectors[m, i] * others[k, i]
                out[m, k] = min(max(product, np.float32(0.0)), np.float32(1.0))
    return out


def similarity(vectors: FloatArray, others: FloatArray) -> FloatArray:
    """Bhattacharyya coefficients of the roots of distributions, (M, N) and (K, N): (M, K) float32, 0 = nothing in
    common, 1 = the same. Of the vectors of this module: how alike the colours are.

    ``vectors @ others.T`` would do this on all cores: where another process keeps them busy, its threads wait for each
    other for tens of milliseconds.
    """
    return _products(kernel_input(vectors, np.float32), kernel_input(others, np.float32))


def blend(before: FloatArray, now: FloatArray, share: float) -> FloatArray:
    """A running mean of vectors (512,), of unit length again; share: weight of ``now``."""
    mixed: NDArray[np.float32] = (1.0 - share) * before + share * now
    length = float(np.sqrt(mixed.dot(mixed)))
    return (mixed / length).astype(np.float32) if length > 0 else mixed
