# SPDX-License-Identifier: Apache-2.0
"""Matching between frames: instance flow (Eq. 3) and the identity that it leads to (Eq. 5, or by all evidence)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.structures import FloatArray, IntArray, LabelMap

NEAREST, MEAN = "nearest", "mean"
POLICIES = (NEAREST, MEAN)
FLOW_ERROR = 1 / 62
"""What flow misses by where the pixels of an object agree on it, as a fraction of sqrt(height * width) of the map."""
LOOK_WEIGHT, LOOK_GAIN = 2.0, 20.0
MOTION_WEIGHT = 0.5
MOTION_ERROR = 5.0
"""How far an object strays in one frame from where its last motion would take it, in units of the flow's own error."""
LOST_COST = 3.0
"""Evidence against an identity that no reference shows, in place of the flow's."""


class Matches(NamedTuple):
    """What M objects were matched to.

    ids: (M,) int64, 0 = a new identity is due.
    reference: (M,) int64 index into the references, -1 if new, or if no reference shows the identity.
    distance: (M,) float32 in cells, NaN where there is no reference.
    """

    ids: IntArray
    reference: IntArray
    distance: FloatArray


@dataclass(frozen=True)
class KnownIdentities:
    """K identities that an object may still be.

    ids: (K,) int64.   looks: (K, 512) float32, see ``appearance``.
    expected: (K, 2) float32 cells where the identity would be if it went on as it last did.
    gaps: (K,) int64 frames since it was seen.
    """

    ids: IntArray
    looks: FloatArray
    expected: FloatArray
    gaps: IntArray


@njit(cache=True, nogil=True)
def _flows(offset: FloatArray, reference_offset: FloatArray, labels: LabelMap, count: int) -> tuple:  # type: ignore[type-arg]
    references, _, h, w = reference_offset.shape
    sums = np.zeros((references, count, 2), np.float64)
    squares = np.zeros((references, count), np.float64)
    pixels = np.zeros(count, np.float64)
    for y in range(h):
        for x in range(w):
            m = labels[y, x] - 1
            if 0 <= m < count:
                pixels[m] += 1
                for r in range(references):
                    for axis in range(2):
                        residual = reference_offset[r, axis, y, x] - offset[axis, y, x]
                        sums[r, m, axis] += residual
                        squares[r, m] += residual * residual
    flows = np.zeros((references, count, 2), np.float32)
    spreads = np.zeros((references, count), np.float32)
    for r in range(references):
        for m in range(count):
            if pixels[m] > 0:
                y, x = sums[r, m, 0] / pixels[m], sums[r, m, 1] / pixels[m]
                flows[r, m, 0], flows[r, m, 1] = y, x
                spreads[r, m] = np.sqrt(max(squares[r, m] / pixels[m] - y * y - x * x, 0.0))
    return flows, spreads


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
    return flows_and_spreads(offset, reference_offset, labels, count)[0]


def flows_and_spreads(
    offset: FloatArray, reference_offset: FloatArray, labels: LabelMap, count: int
) -> tuple[FloatArray, FloatArray]:
    """``instance_flows``, and how far the pixels of each object disagree on its flow: (R, M) float32, the root of the
    residual's variance over both axes, in cells. Where they disagree the flow is more often wrong."""
    offset = np.ascontiguousarray(offset, np.float32)
    reference_offset = np.ascontiguousarray(reference_offset, np.float32)
    labels = np.ascontiguousarray(labels, np.int32)
    size = labels.shape
    if offset.shape != (2, *size) or reference_offset.shape[1:] != (2, *size):
        raise ValueError(
            f"labels {size}: offset {offset.shape} must be (2, h, w) and "
            f"reference_offset {reference_offset.shape} (R, 2, h, w)"
        )
    flows, spreads = _flows(offset, reference_offset, labels, count)
    return flows, spreads


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
    compared = _compare(centers, flows, reference_centers, reference_ids)
    cost = compared.nearest if policy == NEAREST else compared.mean
    return _assign(cost, max_distance, compared.ids, compared)


def match_by_evidence(
    centers: FloatArray,
    flows: FloatArray,
    spreads: FloatArray,
    looks: FloatArray,
    reference_centers: Sequence[FloatArray],
    reference_ids: Sequence[IntArray],
    known: KnownIdentities,
    unit: float,
    max_cost: float,
) -> Matches:
    """Identity of every object by all that speaks for it; ours, not the paper's.

    The cost of an identity is the mean over the references that show it of log(1 + (d / s)^2), with d of Eq. 5 and s
    how uncertain the flow is: a miss of thirty times s costs only twice what one of five times s does, so a single flow
    that went astray is outvoted, and an uncertain one has little say. To it comes how unlike the colours are, and, with
    little weight, how far the object is from where the identity's last motion would have taken it: that decides between
    look-alikes whom the flow confuses. An identity that no reference shows has a fixed cost in place of the flow's, so
    that an object that was hidden for long is known again by its colours. The lowest cost is served first, every object
    and every identity once.

    Args:
        centers, flows, reference_centers, reference_ids: as for ``match_instances``.
        spreads: (R, M) float32 cells (``flows_and_spreads``).   looks: (M, 512) float32 (``appearance.looks``).
        known: every identity of the references, and those lost that may still come back.
        unit: cells that a flow misses by even where all pixels agree.   max_cost: bound of the cost.
    """
    row_of = {int(identity): k for k, identity in enumerate(known.ids)}
    compared = _compare(centers, flows, reference_centers, reference_ids, unit + spreads)
    shown = [row_of[int(identity)] for identity in compared.ids]
    lost = np.setdiff1d(np.arange(len(known.ids)), shown)
    order = np.array([*shown, *lost], np.int64)
    likeness = np.clip(looks @ known.looks[order].T, 0.0, 1.0)
    cost = LOOK_WEIGHT * np.log1p(LOOK_GAIN * (1.0 - likeness))
    strayed = np.linalg.norm(centers[:, None, :] - known.expected[order][None, :, :], axis=-1)
    reach = MOTION_ERROR * unit * np.sqrt(known.gaps[order])
    cost += MOTION_WEIGHT * np.log1p((strayed / reach) ** 2)
    cost[:, : len(shown)] += compared.mean
    cost[:, len(shown) :] += LOST_COST
    return _assign(cost, max_cost, known.ids[order], compared)


def cheapest_pairs(
    cost: NDArray[np.floating[Any]], limit: float, identities: IntArray, rank: IntArray | None = None
) -> list[tuple[int, int]]:
    """Rows and columns of a cost table (M, K) of at most ``limit``, lowest first, every row and every identity once.

    identities: (K,) of the columns; may hold one several times.
    rank: (M, K), which of equal costs in a row comes first, before the order of the columns.
    """
    rows, columns = np.nonzero(cost <= limit)
    ranks = np.zeros(len(rows), np.int64) if rank is None else rank[rows, columns]
    order = np.lexsort((columns, ranks, rows, cost[rows, columns]))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for m, k in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        identity = int(identities[k])
        if m not in pairs and identity not in taken:
            pairs[m] = k
            taken.add(identity)
            if len(pairs) == min(cost.shape):
                break
    return list(pairs.items())


class _Compared(NamedTuple):
    """K identities in the order of their first reference, and per object and identity (M, K): the smallest distance
    over the references, the mean cost over those that show the identity, and which reference the smallest is from."""

    ids: IntArray
    nearest: FloatArray
    mean: FloatArray
    shown_by: IntArray


def _compare(
    centers: FloatArray,
    flows: FloatArray,
    reference_centers: Sequence[FloatArray],
    reference_ids: Sequence[IntArray],
    uncertainty: FloatArray | None = None,
) -> _Compared:
    """uncertainty: (R, M) cells; with it the cost is log(1 + (distance / uncertainty)^2), else the distance itself."""
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
        total[:, columns] += distance if uncertainty is None else np.log1p((distance / uncertainty[r][:, None]) ** 2)
        shown[columns] += 1
    return _Compared(np.array(identities, np.int64), nearest, total / shown, shown_by)


def _assign(cost: FloatArray, limit: float, identities: IntArray, compared: _Compared) -> Matches:
    """Lowest cost first, every object and every identity once; columns beyond the compared ones are lost identities."""
    count = len(cost)
    matches = Matches(np.zeros(count, np.int64), np.full(count, -1, np.int64), np.full(count, np.nan, np.float32))
    lost = cost.shape[1] - len(compared.ids)
    shown_by = np.pad(compared.shown_by, ((0, 0), (0, lost)), constant_values=-1)
    nearest = np.pad(compared.nearest, ((0, 0), (0, lost)), constant_values=np.nan)
    for m, k in cheapest_pairs(cost, limit, identities, shown_by):
        matches.ids[m], matches.reference[m], matches.distance[m] = identities[k], shown_by[m, k], nearest[m, k]
    return matches
