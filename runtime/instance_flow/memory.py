# SPDX-License-Identifier: Apache-2.0
"""The one memory that decides which frames are references: the first and the most recent ones (section IV-A)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from instance_flow.structures import FloatArray, IntArray


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
    """At most ``capacity`` references: one anchor and the ``capacity - 1`` latest frames, each frame once.

    Without ``anchored`` all of them are the latest frames.

    The anchor is the first frame in which anything was seen; until then the newest frame stands in for it. It keeps one
    error from being handed on from frame to frame (Table III). Memory does not grow with the stream.
    """

    def __init__(self, capacity: int, anchored: bool = True):
        if capacity < 1:
            raise ValueError(f"the number of references is {capacity}; it must be at least 1")
        self.capacity, self._anchored = capacity, anchored
        self._anchor: Reference | None = None
        self._recent: deque[Reference] = deque(maxlen=capacity - anchored)

    @property
    def references(self) -> list[Reference]:
        """Anchor first, then the recent frames, oldest first."""
        anchor = [] if self._anchor is None else [self._anchor]
        return [*anchor, *(r for r in self._recent if r is not self._anchor)]

    def add(self, reference: Reference) -> None:
        """Remember the newest frame and forget the one that falls out."""
        if self._anchored and (self._anchor is None or not len(self._anchor.ids)):
            self._anchor = reference
        self._recent.append(reference)

    def clear(self) -> None:
        """Forget everything."""
        self._anchor = None
        self._recent.clear()
