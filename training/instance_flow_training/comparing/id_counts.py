# SPDX-License-Identifier: Apache-2.0
"""What becomes of single ids on a long clip: how many are given, and which end up on more than one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instance_flow.structures import LabelMap, Tracks
from instance_flow_training.worlds.synthetic import Clip


@dataclass(frozen=True)
class IdCounts:
    """objects: true ones that are ever visible.   ids: given in all, ghosts included.

    shared: ids that stood on two or more true objects.   handovers: how often an id went from one to another.
    """

    objects: int
    ids: int
    shared: int
    handovers: int


def count_ids(clip: Clip, frames: Sequence[Tracks]) -> IdCounts:
    """An id stands on the true object that its mask covers with an IoU of at least one half, or on none."""
    owners: dict[int, list[int]] = {}
    for frame, labels in zip(frames, clip.labels, strict=True):
        for identity, owner in zip(frame.ids.tolist(), _owners(frame, labels), strict=True):
            owners.setdefault(identity, []).extend([owner] if owner else [])
    return IdCounts(
        objects=len(np.setdiff1d(clip.labels, [0])),
        ids=len(owners),
        shared=sum(len(set(row)) > 1 for row in owners.values()),
        handovers=sum(int(np.count_nonzero(np.diff(row))) for row in owners.values()),
    )


def _owners(frame: Tracks, labels: LabelMap) -> list[int]:
    """The label of the true object under each of the frame's ids, 0 = none."""
    true_areas = np.bincount(labels.ravel())
    found = []
    for identity, area in zip(frame.ids.tolist(), frame.areas.tolist(), strict=True):
        common = np.bincount(labels[frame.label_map == identity], minlength=len(true_areas))
        common[0] = 0
        best = int(common.argmax())
        union = area + true_areas[best] - common[best]
        found.append(best if 2 * common[best] >= union and common[best] else 0)
    return found
