# SPDX-License-Identifier: Apache-2.0
"""Frames spread evenly over a stream of unknown length."""

from __future__ import annotations

import numpy as np

from instance_flow.structures import Image


class EvenSamples:
    """Keeps at most twice as many pictures as are wanted: every one at first, then ever wider steps."""

    def __init__(self, count: int):
        self._count, self._step = count, 1
        self._kept: list[tuple[int, Image]] = []

    def accepts(self, frame_index: int) -> bool:
        """True where this frame's picture is worth making."""
        return frame_index % self._step == 0

    def add(self, frame_index: int, picture: Image) -> None:
        """Take the picture of a frame that is wanted; frames come in order."""
        self._kept.append((frame_index, picture))
        if len(self._kept) == 2 * self._count:
            self._kept, self._step = self._kept[::2], 2 * self._step

    def chosen(self) -> list[tuple[int, Image]]:
        """At most ``count`` frame indices and pictures, the first frame among them, in order."""
        if not self._kept:
            return []
        places = np.unique(np.linspace(0, len(self._kept) - 1, self._count).round().astype(int))
        return [self._kept[k] for k in places]
