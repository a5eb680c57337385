# SPDX-License-Identifier: Apache-2.0
"""The plainest baseline: identities handed on by mask IoU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.matching import cheapest_pairs
from instance_flow.structures import Image, IntArray, LabelMap, Tracks
from instance_flow_training.comparing.retracking import NO_ID

MINIMUM_IOU = 0.01
LOST_FRAMES = 10
"""Frames for which a track without a match keeps its last mask. Both numbers scored best on the seeds 500 to 541."""


class MaskIouTracker:
    """Implements ``retracking.Retracker``: greedy by mask IoU with the last masks of earlier tracks.

    lost_frames: for which a track without a match keeps its last mask.
    """

    def __init__(self, lost_frames: int = LOST_FRAMES) -> None:
        self._lost_frames = lost_frames
        self._memory: dict[int, tuple[int, NDArray[np.bool_]]] = {}
        self._next_id, self._time = 1, 0

    def update(self, frame: Tracks, image: Image) -> IntArray:  # noqa: ARG002
        """See ``retracking.Retracker``."""
        self._memory = {i: (t, mask) for i, (t, mask) in self._memory.items() if self._time - t <= self._lost_frames}
        known = np.array(list(self._memory), np.int64)
        ious = overlap(frame.label_map, frame.ids, [mask for _, mask in self._memory.values()])
        ids = np.full(len(frame), NO_ID, np.int64)
        for n, k in cheapest_pairs(-ious, -MINIMUM_IOU, known):
            ids[n] = known[k]
        for n in np.flatnonzero(ids == NO_ID).tolist():
            ids[n] = self._next_id
            self._next_id += 1
        self._memory.update(
            {int(new): (self._time, frame.label_map == old) for new, old in zip(ids, frame.ids, strict=True)}
        )
        self._time += 1
        return ids


def overlap(labels: LabelMap, ids: IntArray, others: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """IoU of every object in a label map with every remembered mask: (N, K)."""
    table = np.zeros((len(ids), len(others)))
    for n, identity in enumerate(ids):
        mask = labels == identity
        for k, other in enumerate(others):
            common = np.count_nonzero(mask & other)
            table[n, k] = common / (np.count_nonzero(mask) + np.count_nonzero(other) - common)
    return table
