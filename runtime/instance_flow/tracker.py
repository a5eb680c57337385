# SPDX-License-Identifier: Apache-2.0
"""Identity over time: which id each object of a frame gets, why, and which class its track has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instance_flow.matching import Matches
from instance_flow.memory import Reference
from instance_flow.structures import NEW, FloatArray, Instances, IntArray


@dataclass(frozen=True)
class Identities:
    """Per object of a frame (M rows).

    ids, class_ids, ages: (M,) int64, as in ``structures.Tracks``.
    reference_frames: (M,) int64 frame index of the reference that gave the id, NEW if none.
    distances: (M,) float32 cells, NaN if new.
    motion: (M, 2) float32 cells moved since ``motion_since`` (M,) int64, an index into the references, -1 if unknown.
    """

    ids: IntArray
    class_ids: IntArray
    ages: IntArray
    reference_frames: IntArray
    distances: FloatArray
    motion: FloatArray
    motion_since: IntArray


@dataclass
class _Track:
    """first_frame: frame index of the id's first appearance.   votes: (C,) float64, sum of its class probabilities."""

    first_frame: int
    votes: NDArray[np.float64]


class Tracker:
    """Gives ids, starting at 1 and never twice, and accumulates each id's class votes (section III-C-3)."""

    def __init__(self) -> None:
        self._next_id = 1
        self._tracks: dict[int, _Track] = {}

    def __len__(self) -> int:
        """Number of identities that a reference may still hand on."""
        return len(self._tracks)

    def update(
        self, instances: Instances, matches: Matches, references: Sequence[Reference], frame_index: int
    ) -> Identities:
        """Give every object of one frame the identity that it was matched to, or a new one."""
        ids = matches.ids.copy()
        for row in np.flatnonzero(ids == 0):
            ids[row] = self._next_id
            self._next_id += 1
        self._vote(ids, instances, frame_index)
        self._forget(ids, references)
        frames = np.array([*(r.frame_index for r in references), NEW], np.int64)
        motion, since = _motion(ids, instances, references)
        return Identities(
            ids=ids,
            class_ids=np.array([self._tracks[i].votes.argmax() for i in ids], np.int64),
            ages=np.array([frame_index - self._tracks[i].first_frame for i in ids], np.int64),
            reference_frames=frames[matches.reference],
            distances=matches.distance,
            motion=motion,
            motion_since=since,
        )

    def _vote(self, ids: IntArray, instances: Instances, frame_index: int) -> None:
        for row, identity in enumerate(ids):
            votes = instances.class_scores[row].astype(np.float64)
            track = self._tracks.setdefault(int(identity), _Track(frame_index, np.zeros_like(votes)))
            track.votes += votes

    def _forget(self, ids: IntArray, references: Sequence[Reference]) -> None:
        """Drop ids that stand in no reference any more: nothing can ever claim them again."""
        alive = {int(i) for i in ids}.union(*(r.ids.tolist() for r in references))
        for identity in self._tracks.keys() - alive:
            del self._tracks[identity]

    def clear(self) -> None:
        """Start again with id 1."""
        self._next_id = 1
        self._tracks.clear()


def _motion(ids: IntArray, instances: Instances, references: Sequence[Reference]) -> tuple[FloatArray, IntArray]:
    """How far each object came since the latest reference that it stood in: minus its instance flow."""
    motion = np.full((len(ids), 2), np.nan, np.float32)
    since = np.full(len(ids), -1, np.int64)
    latest = sorted(range(len(references)), key=lambda r: references[r].frame_index)
    for r in latest:
        seen = np.isin(ids, references[r].ids)
        motion[seen] = -instances.flows[r][seen]
        since[seen] = r
    return motion, since
