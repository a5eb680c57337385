# SPDX-License-Identifier: Apache-2.0
"""The one memory that decides which frames are references: the first and the most recent ones (section IV-A)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import FloatArray, InstanceFlowError, IntArray
from instance_flow.tracking.snapshot import (
    Snapshot,
    pack_features,
    pack_stamp,
    take,
    take_counts,
    unpack_features,
    unpack_stamp,
)


@dataclass(frozen=True)
class Reference:
    """An earlier frame that identities can be inherited from.

    features: the network's own, perhaps on a device.   centers: (N, 2) float32 cells.   ids: (N,) int64.
    """

    frame_index: int
    stamp: int | None
    features: Any
    centers: FloatArray
    ids: IntArray


class ReferenceMemory:
    """At most ``capacity`` references: one anchor and the latest frames, each frame once.

    The anchor is the first frame in which anything was seen; until then the newest frame stands in for it. It keeps one
    error from being handed on from frame to frame (Table III), as long as the scene is still that of the anchor. On an
    endless stream it is not: flow over such a long time gives the ids of objects that left to similar ones. So an
    object that was out of sight for more than ``anchor_frames`` frames is removed from the anchor, and an anchor that
    has lost more than half of its objects is released: from then on all references are the latest frames
    (docs/streams.md). Which ids live is decided here alone; the tracker keeps what the references show.

    Memory does not grow with the stream. What a memory holds is never changed in place: a copy stays as it was.

    Args:
        anchored: False = all references are the latest frames from the start.
        anchor_frames: 0 = nothing is ever removed.
    """

    def __init__(self, capacity: int, anchored: bool = True, anchor_frames: int = 0):
        if capacity < 1:
            raise ValueError(f"the number of references is {capacity}; it must be at least 1")
        self.capacity, self.anchored, self._anchor_frames = capacity, anchored, anchor_frames
        self._recent: deque[Reference] = deque()
        self._seeks_anchor = anchored
        self._anchor: Reference | None = None
        self._away: IntArray = np.zeros(0, np.int64)  # of the anchor's objects: frames since each was seen
        self._anchor_objects = 0  # how many it had at first

    def cleared(self) -> ReferenceMemory:
        """An empty memory of the same kind; the next frame that shows anything is its anchor."""
        return ReferenceMemory(self.capacity, self.anchored, self._anchor_frames)

    @property
    def references(self) -> list[Reference]:
        """Anchor first, without the objects that were removed from it, then the recent frames, oldest first."""
        anchor = [] if self._anchor is None else [self._anchor]
        return [*anchor, *(r for r in self._recent if r is not self._anchor)]

    def add(self, reference: Reference) -> None:
        """Add the newest frame and evict the oldest recent one where there is no room for both."""
        if self._anchor is not None and len(self._anchor.ids):
            self._away = np.where(np.isin(self._anchor.ids, reference.ids), 0, self._away + 1)
            if self._anchor_frames:
                self._remove_from_anchor(self._away > self._anchor_frames)
        self._hold(reference)

    def _remove_from_anchor(self, gone: NDArray[np.bool_]) -> None:
        """For good, and from the same frame where it is a recent one too, so that both show the same ids."""
        assert self._anchor is not None
        if gone.any():
            left = replace(self._anchor, centers=self._anchor.centers[~gone], ids=self._anchor.ids[~gone])
            self._recent = deque((left if r is self._anchor else r for r in self._recent), self._recent.maxlen)
            self._anchor, self._away = left, self._away[~gone]
        if 2 * len(self._anchor.ids) < self._anchor_objects:
            self._anchor, self._seeks_anchor = None, False

    def resized(self, capacity: int, anchored: bool = True, anchor_frames: int = 0) -> ReferenceMemory:
        """A memory of another kind with the same references, as far as they fit; the newest ones stay."""
        memory = ReferenceMemory(capacity, anchored, anchor_frames)
        if anchored and self.anchored:
            memory._seeks_anchor, memory._anchor, memory._away = self._seeks_anchor, self._anchor, self._away
            memory._anchor_objects = self._anchor_objects
        for reference in sorted(self.references, key=lambda r: r.frame_index):
            memory._hold(reference)
        return memory

    def _hold(self, reference: Reference) -> None:
        if self._seeks_anchor and (self._anchor is None or not len(self._anchor.ids)):
            self._anchor, self._away = reference, np.zeros(len(reference.ids), np.int64)
            self._anchor_objects = len(reference.ids)
        room = self.capacity - (self._anchor is not None)
        self._recent = deque([*self._recent, reference], maxlen=room)

    def snapshot(self) -> Snapshot:
        """The references as plain arrays."""
        held = self.references
        out = {
            "memory.seeks_anchor": np.array(self._seeks_anchor),
            "memory.anchor_objects": np.array(self._anchor_objects),
            "memory.away": self._away.copy(),
            "memory.is_anchor": np.array([reference is self._anchor for reference in held], bool),
            "memory.is_recent": np.array([any(r is reference for r in self._recent) for reference in held], bool),
        }
        for r, reference in enumerate(held):
            out |= _pack(f"memory.{r}", reference)
        return out

    def restored(self, snapshot: Mapping[str, NDArray[Any]]) -> ReferenceMemory:
        """A memory of the same kind with the references of a snapshot.

        Raises InstanceFlowError where a part is missing, or is not what it should be.
        """
        is_anchor = take(snapshot, "memory.is_anchor", np.bool_, None)
        is_recent = take(snapshot, "memory.is_recent", np.bool_, len(is_anchor))
        if np.count_nonzero(is_anchor) > 1 or len(is_anchor) > self.capacity:
            raise InstanceFlowError("the snapshot is damaged: it has too many references; start the stream anew")
        held = [_unpack(f"memory.{r}", snapshot) for r in range(len(is_anchor))]
        memory = ReferenceMemory(self.capacity, self.anchored, self._anchor_frames)
        memory._anchor = next((held[r] for r in np.flatnonzero(is_anchor)), None)
        memory._seeks_anchor = bool(take(snapshot, "memory.seeks_anchor", np.bool_))
        memory._anchor_objects = int(take_counts(snapshot, "memory.anchor_objects"))
        memory._away = take_counts(snapshot, "memory.away", None if memory._anchor is None else len(memory._anchor.ids))
        memory._recent.extend(held[r] for r in np.flatnonzero(is_recent))
        return memory


def _pack(name: str, reference: Reference) -> Snapshot:
    return {
        f"{name}.frame_index": np.array(reference.frame_index),
        f"{name}.stamp": np.array(pack_stamp(reference.stamp)),
        f"{name}.centers": np.array(reference.centers),
        f"{name}.ids": np.array(reference.ids),
        **pack_features(f"{name}.features", reference.features),
    }


def _unpack(name: str, snapshot: Mapping[str, NDArray[Any]]) -> Reference:
    ids = take(snapshot, f"{name}.ids", np.integer, None)
    if len(np.unique(ids)) != len(ids):
        raise InstanceFlowError(f"the snapshot is damaged: {name!r} has an id twice; start the stream anew")
    return Reference(
        frame_index=int(take_counts(snapshot, f"{name}.frame_index")),
        stamp=unpack_stamp(take(snapshot, f"{name}.stamp", np.integer)),
        features=unpack_features(f"{name}.features", snapshot),
        centers=take(snapshot, f"{name}.centers", np.floating, len(ids), 2),
        ids=ids,
    )
