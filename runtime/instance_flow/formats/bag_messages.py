# SPDX-License-Identifier: Apache-2.0
"""All messages of a ROS 2 bag as they were recorded, whatever their types. ``bags`` reads the images among them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from instance_flow.formats.bag_files import unpack_message
from instance_flow.formats.bags import messages_of, open_bag
from instance_flow.formats.foreign_text import shown
from instance_flow.structures import SourceError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.rosbag2 import Reader

_LISTED = 1000
"""Characters of a list of topics in a message."""
_LAST_TIME = 2**63 - 1
"""Nanoseconds: the latest time that a bag can hold."""

_log = logging.getLogger("instance_flow")


@dataclass(frozen=True)
class Recorded:
    """One message as the bag holds it: CDR bytes, not packed. received: nanoseconds."""

    topic: str
    message_type: str
    received: int
    data: bytes


class BagMessages:
    """The messages of a bag, of any type, in the order of the recording. Iterate as often as wanted.

    topics: empty = all.   start, duration: seconds from the bag's first message on; None = to its end.
    Raises SourceError for a topic that is not in the bag, and where no message is left.

    Attributes:
        offered: what its publishers offered of QoS, by topic and type.
    """

    def __init__(
        self, path: Path | str, topics: Sequence[str] = (), start: float = 0.0, duration: float | None = None
    ) -> None:
        self.path = Path(path)
        with open_bag(self.path) as readers:
            connections = [connection for reader in readers for connection in reader.connections]
            there = {connection.topic for connection in connections}
            if unknown := [topic for topic in topics if topic not in there]:
                listing = shown(", ".join(map(shown, sorted(there))) or "none at all", _LISTED)
                raise SourceError(f"{self.path}: topic {shown(unknown[0])} is not in the bag; its topics: {listing}")
            self.offered: dict[tuple[str, str], list[Qos]] = {}
            for connection in connections:
                if not topics or connection.topic in topics:
                    profiles = self.offered.setdefault((connection.topic, connection.msgtype), [])
                    profiles += getattr(connection.ext, "offered_qos_profiles", ())
            first = min((one[1] for reader in readers for one in islice(reader.messages(), 1)), default=0)
            last = max((reader.end_time for reader in readers), default=0)
            self._from = min(first + _nanoseconds(start), _LAST_TIME)
            self._until = _LAST_TIME if duration is None else min(self._from + _nanoseconds(duration), _LAST_TIME)
            if next(self._window(readers), None) is None:
                until = "its end" if duration is None else f"{start + duration:g} s"
                long = f"the recording, which is {max(last - first, 0) / 1e9:.1f} s long"
                raise SourceError(f"{self.path}: no messages to play from {start:g} s to {until} of {long}")

    def __iter__(self) -> Iterator[Recorded]:
        """A message that cannot be unpacked is logged and left out."""
        with open_bag(self.path) as readers:
            for connection, received, data in self._window(readers):
                try:
                    whole = unpack_message(data)
                except ValueError as error:
                    _log.warning("%s: a message on %s is left out: %s", self.path, shown(connection.topic), error)
                    continue
                yield Recorded(connection.topic, connection.msgtype, received, whole)

    def _window(self, readers: list[Reader]) -> Iterator[tuple[Connection, int, bytes]]:
        return messages_of(readers, lambda one: (one.topic, one.msgtype) in self.offered, self._from, self._until)


def _nanoseconds(seconds: float) -> int:
    return round(min(seconds * 1e9, _LAST_TIME))
