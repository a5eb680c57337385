# SPDX-License-Identifier: Apache-2.0
"""Matching between frames: instance flow (Eq. 3) and the identity that it leads to (Eq. 5, or by all evidence)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.assembly.appearance import similarity
from instance_flow.assembly.assignment import assign, cheapest_pairs
from instance_flow.kernels.input import kernel_input
from instance_flow.kernels.label_stretches import stretch_end
from instance_flow.settings import NEAREST, POLICIES
from instance_flow.structures import FloatArray, IntArray, LabelMap, MatchCosts

DEFAULT_COSTS = MatchCosts()


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
    """The K identities that an object of this frame may be given.

    ids: (K,) int64.   appearance: (K, 512) float32, see ``appearance``.
    expected: (K, 2) float32 cells, the center extrapolated by the identity's last motion.
    gaps: (K,) int64 frames since it was seen.
    votes: (K, C) float64 sums of class probabilities, none where classes do not count.
    """

    ids: IntArray
    appearance: FloatArray
    expected: FloatArray
    gaps: IntArray
    votes: NDArray[np.float64] | None = None


@njit(cache=True, nogil=True)
def _flows(offset: FloatArray, reference_offset: FloatArray, labels: LabelMap, count: int) -> tuple:  # type: ignore[type-arg]
    references, _, h, w = reference_offset.shape
    sums = np.zeros((references, count, 3), np.float64)  # of dy, of dx, and of the squares of both
    pixels = np.zeros(count, np.float64)
    for y in range(h):
        x = 0
        while x < w:
            end = stretch_end(labels, y, x)
            m = labels[y, x] - 1
            if 0 <= m < count:
                pixels[m] += end - x
                for r in range(references):
                    total_y, total_x, squares = sums[r, m]
                    for k in range(x, end):
                        dy = reference_offset[r, 0, y, k] - offset[0, y, k]
                        dx = reference_offset[r, 1, y, k] - offset[1, y, k]
                        total_y += dy
                        total_x += dx
                        squares = squares + dy * dy + dx * dx
                    sums[r, m, 0], sums[r, m, 1], sums[r, m, 2] = total_y, total_x, squares
            x = end
    flows = np.zeros((references, count, 2), np.float32)
    flow_std = np.zeros((references, count), np.float32)
    for r in range(references):
        for m in range(count):
            if pixels[m] > 0:
                y, x = sums[r, m, 0] / pixels[m], sums[r, m, 1] / pixels[m]
                flows[r, m, 0], flows[r, m, 1] = y, x
                flow_std[r, m] = np.sqrt(max(sums[r, m, 2] / pixels[m] - y * y - x * x, 0.0))
    return flows, flow_std


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
    return flows_with_std(offset, reference_offset, labels, count)[0]


def flows_with_std(
    offset: FloatArray, reference_offset: FloatArray, labels: LabelMap, count: int
) -> tuple[FloatArray, FloatArray]:
    """``instance_flows``, and how far the pixels of each object disagree on its flow: (R, M) float32, the root of the
    residual's variance over both axes, in cells. Where they disagree the flow is more often wrong."""
    offset, reference_offset = kernel_input(offset, np.float32), kernel_input(reference_offset, np.float32)
    labels = kernel_input(labels, np.int32)
    size = labels.shape
    if offset.shape != (2, *size) or reference_offset.shape[1:] != (2, *size):
        raise ValueError(
            f"labels {size}: offset {offset.shape} must be (2, h, w) and "
            f"reference_offset {reference_offset.shape} (R, 2, h, w)"
        )
    flows, flow_std = _flows(offset, reference_offset, labels, count)
    return flows, flow_std


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
            smallest of the distances. MEAN, ours: their mean, so that one reference whose flow is wrong and leads to
            a look-alike is outvoted by the others.

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
    pairs = cheapest_pairs(cost, max_distance, compared.ids, compared.shown_by)
    return _matches(len(cost), pairs, compared.ids, compared)


def match_by_evidence(
    centers: FloatArray,
    flows: FloatArray,
    flow_std: FloatArray,
    appearance: FloatArray,
    reference_centers: Sequence[FloatArray],
    reference_ids: Sequence[IntArray],
    known: KnownIdentities,
    unit: float,
    costs: MatchCosts = DEFAULT_COSTS,
    class_scores: FloatArray | None = None,
) -> Matches:
    """Identity of every object by all that speaks for it; ours, not the paper's.

    The cost of an identity is the mean over the references that show it of log(1 + (d / s)^2), with d of Eq. 5 and s
    how uncertain the flow is: a miss of thirty times s costs only twice what one of five times s does, so a single
    wrong flow is outvoted, and an uncertain one counts little. Added to it are the difference of the colours and, with
    little weight, the distance from where the identity's last motion would have taken it, which decides between
    look-alikes that the flow confuses. A class that differs from the identity's votes costs, too: one minus the
    Bhattacharyya coefficient of both distributions, so that mistaking a truck for a bus hardly counts. An identity that
    no reference shows has a fixed cost in place of the flow's, so that an object that was hidden for long is
    re-identified by appearance. One that was not seen for g frames costs log(g) more with ``gap_weight``: what is there
    is mostly found, so of two identities that an object had, the one that it had last is likelier. Matches are those
    whose costs' roots have the least sum over all objects, each object and each identity once; the root keeps a sure
    match from being given up for two mediocre ones.

    Args:
        centers, flows, reference_centers, reference_ids: as for ``match_instances``.
        flow_std: (R, M) float32 cells (``flows_with_std``).   appearance: (M, 512) float32.
        known: every identity of the references, and those lost that may still come back.
        unit: cells that a flow misses by even where all pixels agree.   costs: the other weights, and the bound.
        class_scores: (M, C) float32 mean class probabilities; needed where ``costs.class_weight`` is above 0.
    """
    compared = _compare(centers, flows, reference_centers, reference_ids, unit + flow_std)
    row_of = {identity: k for k, identity in enumerate(known.ids.tolist())}
    shown = [row_of[identity] for identity in compared.ids.tolist()]
    is_lost = np.ones(len(known.ids), np.bool_)
    is_lost[shown] = False
    order = np.array([*shown, *np.flatnonzero(is_lost).tolist()], np.int64)
    cost = costs.look_weight * np.log1p(costs.look_gain * (1.0 - similarity(appearance, known.appearance[order])))
    strayed = _distances(_points(centers), _points(known.expected[order]))
    cost += costs.motion_weight * _log_cost(strayed, costs.motion_error * unit * np.sqrt(known.gaps[order]))
    if costs.class_weight and class_scores is not None and known.votes is not None:
        votes = known.votes.reshape(len(order), class_scores.shape[1])[order]
        cost += costs.class_weight * (1.0 - _class_overlap(class_scores, votes))
    cost += costs.gap_weight * np.log(known.gaps[order])
    cost[:, : len(shown)] += compared.mean
    cost[:, len(shown) :] += costs.lost_cost
    return _matches(len(cost), _least_in_all(cost, costs.max_cost), known.ids[order], compared)


def _class_overlap(scores: FloatArray, votes: NDArray[np.float64]) -> FloatArray:
    """How alike the class distributions of M objects (M, C) and of K identities (K, C) are: (M, K), 1 = the same."""
    a, b = (np.sqrt(v / np.maximum(v.sum(1, keepdims=True), 1e-9), dtype=np.float32) for v in (scores, votes))
    return similarity(a, b)


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
    places: dict[int, int] = {}
    columns = [
        np.array([places.setdefault(identity, len(places)) for identity in np.asarray(ids).tolist()], np.int64)
        for ids in reference_ids
    ]
    shape = (len(centers), len(places))
    nearest, total = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    shown_by, shown = np.full(shape, -1, np.int64), np.zeros(len(places), np.float32)
    for r, others in enumerate(reference_centers):
        distance = _distances(_points(centers) + flows[r], _points(others))
        cost = distance if uncertainty is None else _log_cost(distance, uncertainty[r][:, None])
        _merge(distance, cost, columns[r], r, nearest, total, shown_by)
        shown[columns[r]] += 1
    total /= shown
    return _Compared(np.array(list(places), np.int64), nearest, total, shown_by)


def _log_cost(distance: FloatArray, unit: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """log(1 + (distance / unit)^2), with one new array: with hundreds of objects each one costs as much as the sum."""
    cost = distance / unit
    cost *= cost
    return np.log1p(cost, out=cost)


def _points(points: FloatArray) -> FloatArray:
    return np.asarray(points, np.float32).reshape(-1, 2)


def _distances(here: FloatArray, there: FloatArray) -> FloatArray:
    """Between points (M, 2) and others (N, 2): (M, N) float32."""
    return _lengths(kernel_input(here, np.float32), kernel_input(there, np.float32))


@njit(cache=True, nogil=True)
def _lengths(here: FloatArray, there: FloatArray) -> FloatArray:
    out = np.empty((len(here), len(there)), np.float32)
    for m in range(len(here)):
        y, x = here[m, 0], here[m, 1]
        for n in range(len(there)):
            dy, dx = y - there[n, 0], x - there[n, 1]
            out[m, n] = np.sqrt(dy * dy + dx * dx)
    return out


@njit(cache=True, nogil=True)
def _merge(
    distance: FloatArray,
    cost: FloatArray,
    columns: IntArray,
    reference: int,
    nearest: FloatArray,
    total: FloatArray,
    shown_by: IntArray,
) -> None:
    """Enter one reference's distances and costs (M, N) in the columns (N,) of the tables over all of them (M, K)."""
    for m in range(len(distance)):
        for n in range(len(columns)):
            k = columns[n]
            total[m, k] += cost[m, n]
            if distance[m, n] < nearest[m, k]:
                nearest[m, k], shown_by[m, k] = distance[m, n], reference


def _least_in_all(cost: FloatArray, limit: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of costs (M, K) so that the sum of their roots is least, where a row without a partner has
    the root of ``limit``; none is above it."""
    rows, columns = cost.shape
    alone = np.full((rows, rows), limit)
    # What is beyond the limit is beyond it by any amount.
    table = np.sqrt(np.concatenate([np.minimum(cost, 2 * limit + 1), alone], 1, dtype=np.float64))
    partners = enumerate(assign(table).tolist())
    return [(m, k) for m, k in partners if k < columns and cost[m, k] <= limit]


def _matches(count: int, pairs: Sequence[tuple[int, int]], identities: IntArray, compared: _Compared) -> Matches:
    """Of ``count`` objects with these identities; columns beyond the compared ones are lost identities."""
    matches = Matches(np.zeros(count, np.int64), np.full(count, -1, np.int64), np.full(count, np.nan, np.float32))
    for m, k in pairs:
        matches.ids[m] = identities[k]
        if k < len(compared.ids):
            matches.reference[m], matches.distance[m] = compared.shown_by[m, k], compared.nearest[m, k]
    return matches
