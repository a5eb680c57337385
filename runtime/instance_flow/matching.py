# SPDX-License-Identifier: Apache-2.0
"""Matching between frames: instance flow (Eq. 3) and the identity that it leads to (Eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from instance_flow.structures import FloatArray, IntArray, LabelMap

NEAREST, MEAN = "nearest", "mean"
POLICIES = (NEAREST, MEAN)


class Matches(NamedTuple):
    """What M objects were matched to.

    ids: (M,) int64, 0 = a new identity is due.   reference: (M,) int64 index into the references, -1 if new.
    distance: (M,) float32 in cells, NaN if new.
    """

    ids: IntArray
    reference: IntArray
    distance: FloatArray


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
    policy: str = NEAREST,
) -> Matches:
    """Identity of every object: the one whose center its flow leads nearest to (Eq. 5).

    Each object takes the identity with the smallest distance. Where two want one identity, the nearer gets it and the
    other its next best. Of equal distances the lower object, then the earlier reference, comes first.

    Args:
        centers: (M, 2) float32.   flows: (R, M, 2) float32.
        reference_centers: R arrays (N_r, 2) float32.   reference_ids: R arrays (N_r,) of ids > 0, none twice in one.
        max_distance: the paper's epsilon, in pixels of the same map; a distance equal to it still matches.
        policy: how far an identity is from an object when several references show it. NEAREST, the paper's: the
            smallest of the distances. MEAN, ours: their mean, so that one reference whose flow went astray and happens
            to hit a look-alike is outvoted by the others.

    Returns:
        For each object its id, the reference that shows this identity nearest to where the flow leads, and the distance
        there.

    Raises:
        ValueError: when the numbers of references differ, or for another policy.
    """
    if not len(flows) == len(reference_centers) == len(reference_ids):
        raise ValueError(
            f"{len(flows)} flows, {len(reference_centers)} reference centers and {len(reference_ids)} "
            "reference ids: there must be one of each per reference"
        )
    if policy not in POLICIES:
        raise ValueError(f"policy is {policy!r}; it must be one of {', '.join(POLICIES)}")
    count = len(centers)
    ids = np.zeros(count, np.int64)
    reference = np.full(count, -1, np.int64)
    distance = np.full(count, np.nan, np.float32)
    identities, nearest, mean, shown_by = _distances(centers, flows, reference_centers, reference_ids)
    cost = nearest if policy == NEAREST else mean
    rows, columns = np.nonzero(cost <= max_distance)
    order = np.lexsort((columns, shown_by[rows, columns], rows, cost[rows, columns]))
    taken = np.zeros(len(identities), bool)
    for m, k in zip(rows[order], columns[order], strict=True):
        if ids[m] == 0 and not taken[k]:
            ids[m], reference[m], distance[m] = identities[k], shown_by[m, k], nearest[m, k]
            taken[k] = True
    return Matches(ids, reference, distance)


def _distances(
    centers: FloatArray,
    flows: FloatArray,
    reference_centers: Sequence[FloatArray],
    reference_ids: Sequence[IntArray],
) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:
    """K identities in the order of their first reference, and per object and identity (M, K): the smallest distance
    over the references, the mean over those that show the identity, and which reference the smallest is from."""
    identities = list(dict.fromkeys(int(i) for ids in reference_ids for i in ids))
    column = {identity: k for k, identity in enumerate(identities)}
    shape = (len(centers), len(identities))
    nearest, total = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    shown_by, shown = np.full(shape, -1, np.int64), np.zeros(len(identities), np.float32)
    for r, (others, ids) in enumerate(zip(reference_centers, reference_ids, strict=True)):
        columns = [column[int(i)] for i in ids]
        warped = np.asarray(centers, np.float32).reshape(-1, 2) + flows[r]
        difference = warped[:, None, :] - np.asarray(others, np.float32).reshape(-1, 2)[None, :, :]
        distance = np.sqrt((difference**2).sum(-1))
        closer = distance < nearest[:, columns]
        shown_by[:, columns] = np.where(closer, r, shown_by[:, columns])
        nearest[:, columns] = np.minimum(nearest[:, columns], distance)
        total[:, columns] += distance
        shown[columns] += 1
    return np.array(identities, np.int64), nearest, total / shown, shown_by
