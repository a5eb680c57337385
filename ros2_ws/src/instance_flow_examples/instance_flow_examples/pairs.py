# SPDX-License-Identifier: Apache-2.0
"""Messages of two topics that belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class StampPairs:
    """Brings together the two messages that have exactly the same stamp, whichever of them comes first.

    An instance-flow node copies the stamp of the image, so that nothing nearly right needs to be sought. Where
    message_filters is installed, its TimeSynchronizer does the same.

    on_pair: called with (first, second).   kept: messages that wait for their partner at most; the oldest is dropped.
    """

    def __init__(self, on_pair: Callable[[Any, Any], None], kept: int = 30) -> None:
        self._on_pair = on_pair
        self._kept = kept
        self._waiting: dict[tuple[int, int], dict[str, Any]] = {}

    def add_first(self, message: Any) -> None:
        """Take a message of the first topic."""
        self._add("first", message)

    def add_second(self, message: Any) -> None:
        """Take a message of the second topic."""
        self._add("second", message)

    def _add(self, topic: str, message: Any) -> None:
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        found = {**self._waiting.pop(stamp, {}), topic: message}
        if len(found) == 2:
            self._on_pair(found["first"], found["second"])
            return
        self._waiting[stamp] = found
        if len(self._waiting) > self._kept:
            del self._waiting[next(iter(self._waiting))]
