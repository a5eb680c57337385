# SPDX-License-Identifier: Apache-2.0
"""The baseline: the same masks, tracked by plain mask IoU instead of instance flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import IntArray, LabelMap, Tracks

MINIMUM_IOU = 0.1
REACH = 3
"""Frames for which a track without a match keeps its last mask: as far as the recent reference frames reach."""


def overlap(labels: LabelMap, ids: IntArray, others: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """IoU of every object in a label map with every remembered mask: (N, K)."""
    table = np.zeros((len(ids), len(others)))
    for n, identity in enumerate(ids):
        mask = labels == identity
        for k, other in enumerate(others):
            common = np.count_nonzero(mask & other)
            table[n, k] = common / (np.count_nonzero(mask) + np.count_nonzero(other) - common)
    return table


def retrack_by_iou(frames: Sequence[Tracks]) -> list[Tracks]:
    """Give the objects of each frame new ids by greedy mask IoU with the last masks of earlier tracks."""
    memory: dict[int, tuple[int, NDArray[np.bool_]]] = {}
    next_id, out = 1, []
    for t, frame in enumerate(frames):
        memory = {i: (seen, mask) for i, (seen, mask) in memory.items() if t - seen <= REACH}
        known = list(memory)
        ious = overlap(frame.label_map, frame.ids, [mask for _, mask in memory.values()])
        ids = np.zeros(len(frame), np.int64)
        while ious.size and ious.max() >= MINIMUM_IOU:
            n, k = np.unravel_index(ious.argmax(), ious.shape)
            ids[n] = known[k]
            ious[n, :], ious[:, k] = -1, -1
        fresh = np.flatnonzero(ids == 0)
        ids[fresh] = np.arange(next_id, next_id + len(fresh))
        next_id += len(fresh)
        lookup = np.zeros(int(frame.ids.max(initial=0)) + 1, np.int32)
        lookup[frame.ids] = ids
        labels = lookup[frame.label_map]
        memory.update({int(i): (t, labels == i) for i in ids})
        out.append(replace(frame, label_map=labels, ids=ids))
    return out
