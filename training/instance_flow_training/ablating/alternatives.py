# SPDX-License-Identifier: Apache-2.0
"""The other ways to keep identities that Table IV compares instance flow with, as matchers for ``Pipeline``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.grouping import group_pixels
from instance_flow.assembly.matching import NEAREST, Matches, cheapest_pairs, instance_flows, match_instances
from instance_flow.pipeline import MatchInput
from instance_flow.structures import FloatArray
from instance_flow.tracking.memory import Reference

MINIMUM_IOU = 0.1
MINIMUM_AFFINITY = 0.3
SAMPLES = 16
"""Points on a trajectory at which the affinity field is read."""
STANDSTILL = 1.0
"""Cells below which a trajectory has no direction to compare; such a pair is taken for the same object."""


def match_by_average(match_input: MatchInput) -> Matches:
    """Inter-frame offset averaged alone carries the center: right only where the mask is whole, for it is the flow plus
    the way from the mask's barycenter to the center."""
    instances, references = match_input.instances, match_input.references
    reference_offset = match_input.prediction.reference_offset
    # Without the intra-frame offset the mean residual is the mean of the inter-frame offset.
    flows = instance_flows(
        np.zeros_like(match_input.prediction.offset), reference_offset, instances.labels, len(instances)
    )
    return match_instances(
        instances.centers,
        flows,
        [r.centers for r in references],
        [r.ids for r in references],
        match_input.max_distance,
        NEAREST,
    )


def match_by_iou(match_input: MatchInput) -> Matches:
    """Inter-frame offset propagated by IoU (ViP-DeepLab): the newest reference's objects, grouped in this frame by the
    pixels that point to them, keep their ids on the objects that they overlap most."""
    instances, references = match_input.instances, match_input.references
    count = len(instances)
    none = Matches(np.zeros(count, np.int64), np.full(count, -1), np.full(count, np.nan, np.float32))
    if not references:
        return none
    newest = max(range(len(references)), key=lambda r: references[r].frame_index)
    reference = references[newest]
    if not len(reference.ids):
        return none
    carried = group_pixels(match_input.prediction.reference_offset[newest], instances.labels > 0, reference.centers)
    shape = (count + 1, len(reference.ids) + 1)
    common = np.bincount((instances.labels * shape[1] + carried).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    own, other = common.sum(1)[1:, None], common.sum(0)[None, 1:]
    iou = common[1:, 1:] / np.maximum(own + other - common[1:, 1:], 1)
    return _greedy(1.0 - iou, 1.0 - MINIMUM_IOU, [reference], [newest])


def trajectory_affinity(field: FloatArray, start: FloatArray, end: FloatArray) -> float:
    """Mean over the straight way from start to end (y, x) of the field (2, h, w) along that way's direction."""
    way = end - start
    length = float(np.hypot(*way))
    if length < STANDSTILL:
        return 1.0
    points = start + np.linspace(0, 1, SAMPLES)[:, None] * way
    limits = np.array(field.shape[1:]) - 1
    y, x = np.clip(np.rint(points), 0, limits).astype(int).T
    return float((field[:, y, x].T @ (way / length)).mean())


def match_by_affinity(match_input: MatchInput) -> Matches:
    """Line integral of the predicted direction field along the way between two centers (part affinity fields), for a
    network with ``flow = affinity``; of all references the best integral counts."""
    instances, references = match_input.instances, match_input.references
    costs = [
        np.array(
            [
                [1.0 - trajectory_affinity(field, here, there) for there in reference.centers]
                for here in instances.centers
            ],
            np.float64,
        ).reshape(len(instances), len(reference.ids))
        for field, reference in zip(match_input.prediction.reference_offset, references, strict=True)
    ]
    cost = np.concatenate([np.zeros((len(instances), 0)), *costs], 1)
    return _greedy(cost, 1.0 - MINIMUM_AFFINITY, references, range(len(references)))


def _greedy(cost: NDArray[np.float64], limit: float, references: Sequence[Reference], rows: Sequence[int]) -> Matches:
    """Lowest cost first, every object and every identity once; columns are all references' objects in a row."""
    ids = np.concatenate([np.zeros(0, np.int64), *(reference.ids for reference in references)])
    given_by = np.repeat(rows, [len(reference.ids) for reference in references])
    out = Matches(np.zeros(len(cost), np.int64), np.full(len(cost), -1), np.full(len(cost), np.nan, np.float32))
    for m, k in cheapest_pairs(cost, limit, ids):
        out.ids[m], out.reference[m], out.distance[m] = ids[k], given_by[k], cost[m, k]
    return out
