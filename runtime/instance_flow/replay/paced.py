# SPDX-License-Identifier: Apache-2.0
"""A live stream's video: frames come at any time, a video shows them at a constant rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from instance_flow.formats.video import Frame
from instance_flow.replay.outputs import Add
from instance_flow.structures import Tracks

_LONGEST_HOLD = 2.0
"""Seconds of a pause that are kept in the video."""


@contextmanager
def paced(output: AbstractContextManager[Add], rate: float) -> Iterator[Add]:
    """Repeat frames or leave some out, so that a video of so many frames per second plays as fast as things happened.
    Of longer pauses 2 seconds are kept."""
    with output as add:
        before: int | None = None
        owed = 0.0

        def write(frame: Frame, tracks: Tracks) -> None:
            nonlocal before, owed
            if before is None or frame.stamp is None:
                owed = 1.0
            else:
                owed += min(max(0.0, (frame.stamp - before) / 1e9), _LONGEST_HOLD) * rate
            before = frame.stamp
            while owed >= 1.0:
                add(frame, tracks)
                owed -= 1.0

        yield write
