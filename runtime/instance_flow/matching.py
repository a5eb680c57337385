# SPDX-License-Identifier: Apache-2.0
"""Matching between frames: instance flow (Eq. 3) and the identity that it leads to (Eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.structures import FloatArray, IntArray, LabelMap


@njit(cache=True, nogil=True)
def _flows(offset: FloatArray, reference_offset: FloatArray, labels: LabelMap, count: int) -> FloatArray:
    references, _, h, w = reference_offset.shape
    sums = np.zeros((references, count, 2), np.float64)
    pixels = np.zeros(count, np.float64)
    for y in range(h):
        for x in range(w):
            m = labels[y, x] - 1
            if 0 <= m < count:
                pixels[m] += 1
                for r in range(references):
                    sums[r, m, 0] += reference_offset[r, 0, y, x] - offset[0, y, x]
                    sums[r, m, 1] += reference_offset[r, 1, y, x] - offset[1, y, x]
    out = np.zeros((references, count, 2), np.float32)
    for r in range(references):
        for m in range(count):
            if pixels[m] > 0:
                out[r, m, 0] = sums[r, m, 0] / pixels[m]
                out[r, m, 1] = sums[r, m, 1] / pixels[m]
    return out


def instance_flows(offset: FloatArray, reference_offset: FloatArray, labels: LabelMap, count: int) -> FloatArray:
    """Instance flow of every object for every reference: the mean offset residual over its pixels (Eq. 3).

    Args:
        offset: (2, h, w) float32.   reference_offset: (R, 2, h, w) float32, R may be 0.
        labels: (h, w) int32, 0 = background, m + 1 = object m.   count: M, number of objects.

    Returns:
        (R, M, 2) float32 (dy, dx) from the center here to the center in the reference; 0 for an object without pixels.

    Raises:
        ValueError: for arrays of other shapes.
    """
    offset = np.ascontiguousarray(offset, np.float32)
    reference_offset = np.ascontiguousarray(reference_offset, np.float32)
    labels = np.ascontiguousarray(labels, np.int32)
    size = labels.shape
    if offset.shape != (2, *size) or reference_offset.shape[1:] != (2, *size):
        raise ValueError(
            f"labels {size}: offset {offset.shape} must be (2, h, w) and "
            f"reference_offset {reference_offset.shape} (R, 2, h, w)"
        )
    return _flows(offset, reference_offset, labels, count)


def match_instances(
    centers: FloatArray,
    flows: FloatArray,
    reference_centers: Sequence[FloatArray],
    reference_ids: Sequence[IntArray],
    max_distance: float,
) -> tuple[IntArray, IntArray, FloatArray]:
    """Identity of every object: the one whose center, in any reference, its flow leads nearest to (Eq. 5).

    Each object takes the identity with the smallest distance over all objects of all references. Where two want one
    identity, the nearer gets it and the other its next best. Of equal distances the lower object, then the earlier
    reference and row, comes first.

    Args:
        centers: (M, 2) float32.   flows: (R, M, 2) float32.
        reference_centers: R arrays (N_r, 2) float32.   reference_ids: R arrays (N_r,) of ids > 0.
        max_distance: the paper's epsilon, in pixels of the same map; a distance equal to it still matches.

    Returns:
        ids (M,) int64, 0 = a new identity is due; reference (M,) int64, index of the reference that gave the id, -1 if
        none; distance (M,) float32, NaN if none.

    Raises:
        ValueError: when the numbers of references differ.
    """
    if not len(flows) == len(reference_centers) == len(reference_ids):
        raise ValueError(
            f"{len(flows)} flows, {len(reference_centers)} reference centers and {len(reference_ids)} "
            "reference ids: there must be one of each per reference"
        )
    count = len(centers)
    ids = np.zeros(count, np.int64)
    reference = np.full(count, -1, np.int64)
    distance = np.full(count, np.nan, np.float32)
    taken: set[int] = set()
    for m, r, n, d in _candidates(centers, flows, reference_centers, max_distance):
        identity = int(reference_ids[r][n])
        if ids[m] == 0 and identity not in taken:
            ids[m], reference[m], distance[m] = identity, r, d
            taken.add(identity)
    return ids, reference, distance


def _candidates(
    centers: FloatArray, flows: FloatArray, reference_centers: Sequence[FloatArray], max_distance: float
) -> list[tuple[int, int, int, float]]:
    """(object, reference, row, distance) of every pair within reach, nearest first."""
    found: list[tuple[int, int, int, float]] = []
    for r, others in enumerate(reference_centers):
        warped = np.asarray(centers, np.float32).reshape(-1, 2) + flows[r]
        difference = warped[:, None, :] - np.asarray(others, np.float32).reshape(-1, 2)[None, :, :]
        distances: NDArray[np.float32] = np.sqrt((difference**2).sum(-1))
        for m, n in zip(*np.nonzero(distances <= max_distance), strict=True):
            found.append((int(m), r, int(n), float(distances[m, n])))
    return sorted(found, key=lambda candidate: (candidate[3], *candidate[:3]))
