# SPDX-License-Identifier: Apache-2.0
"""ROS 2 bags without ROS: the images of one or several topics. ``bag_messages`` has all, ``bag_writer`` makes new ones.

It needs rosbags (``pip install "instance-flow[bags]"``). A bag is a .mcap file, a .db3 file, or a folder of either,
with or without its metadata.yaml. Times are integer nanoseconds. Everything that is wrong with a bag is a SourceError.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instance_flow.formats.bag_files import (
    METADATA,
    compare_counts,
    ending_by_content,
    is_ros1,
    is_storage,
    listed_files,
    open_files,
    read_metadata,
    ros1_advice,
    storage_files,
    unpack_message,
    unreadable,
)
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.image_encodings import decode_compressed, decode_raw
from instance_flow.formats.stamps import stamp_problem, to_nanoseconds
from instance_flow.structures import Image, SourceError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader
    from rosbags.typesys.store import Typestore

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"

_RATE_SAMPLE = 30
_LISTED = 1000
"""Characters of a list of topics in a message."""
_VIDEO = {
    "foxglove_msgs/msg/CompressedVideo": "foxglove's tools",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": "`ros2 run image_transport republish ffmpeg raw`",
}
"""Types of video in a bag, and what turns it into images."""

_log = logging.getLogger("instance_flow")

Refuse = Callable[[str, int, str], None]
"""Called with topic, number and reason for an image that cannot be used."""


@dataclass(frozen=True)
class BagTopic:
    """What a topic of a bag holds. messages: their number.

    encoding: of the first image, or its format where it is compressed; empty for all else, and where it is damaged.
    """

    message_type: str
    messages: int
    encoding: str

    @property
    def measures(self) -> bool:
        """Whether its images are depth or labels rather than pictures."""
        return self.encoding in ("16UC1", "32FC1") or "compressedDepth" in self.encoding


@dataclass(frozen=True)
class BagMessage:
    """One message as it was recorded. number: its place among those of a topic of images, -1 of any other topic.

    message: None where it is damaged; ``problem`` says how.
    """

    topic: str
    received: int
    number: int
    message: Any
    problem: str


@dataclass(frozen=True)
class BagImage:
    """One image message: stamp of its header, time it was received, frame of its header, (H, W, 3) uint8 RGB.

    stamp: None where it says nothing (``stamps``).   time: seconds and nanoseconds as they stand in the header.
    encoding: of a raw image, or the format of a compressed one.
    number: its place among the images of its topic, from 0.
    """

    stamp: int | None
    received: int
    frame_id: str
    image: Image
    encoding: str
    topic: str
    number: int
    time: tuple[int, int]


def is_bag(path: Path) -> bool:
    """Whether the path looks like a ROS 2 bag; whether it can be read is not checked."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(storage_files(path))
    return is_storage(path) or bool(ending_by_content(path))


def image_topics(path: Path) -> dict[str, int]:
    """Names of the topics of images in a bag, each with its number of messages."""
    with open_bag(path) as readers:
        return _count_messages(connection for connection in _connections(readers) if _is_image(connection))


def bag_topics(path: Path) -> dict[str, BagTopic]:
    """All topics of a bag."""
    with open_bag(path) as readers:
        return _topics(readers)


class BagImages:
    """The images of one or several topics of a bag, in the order of the recording. Iterate as often as wanted.

    topic: one or several; may be left out where only one topic holds pictures.

    Attributes:
        topics: the topics, each with its number of messages; their sum is the length.   topic: the first of them.
        rates: their usual numbers of messages per second, 0 where there is but one.   rate: that of the first.
    """

    def __init__(self, path: Path | str, topic: str | Sequence[str] | None = None) -> None:
        self.path = Path(path)
        wanted = [topic] if isinstance(topic, str) else list(dict.fromkeys(topic or ()))
        with open_bag(self.path) as readers:
            self.topics = _choose_topics(self.path, readers, wanted)
            self.rates = {name: _usual_rate(_images(readers, [name])) for name in self.topics}
        self.topic = next(iter(self.topics))
        self.rate = self.rates[self.topic]

    def __len__(self) -> int:
        return sum(self.topics.values())

    def __iter__(self) -> Iterator[BagImage]:
        """Raises SourceError at the first image that cannot be used."""
        return self.images(self._raise)

    def images(self, refuse: Refuse) -> Iterator[BagImage]:
        """The images that can be used; ``refuse`` is called for every other one."""
        for one in self.messages():
            try:
                image = self.decode(one)
            except ValueError as error:
                refuse(one.topic, one.number, str(error))
                continue
            yield image

    def messages(self, beside: Collection[str] = ()) -> Iterator[BagMessage]:
        """The messages of the images, not decoded, and of the topics ``beside`` them, in the order of the recording."""
        types = typestore()
        numbers, reported = dict.fromkeys(self.topics, -1), set[str]()
        with open_bag(self.path) as readers:
            for connection, received, data in messages_of(
                readers, lambda one: one.topic in beside or (one.topic in self.topics and _is_image(one))
            ):
                topic, problem = connection.topic, ""
                message: Any = None
                if topic in numbers:
                    numbers[topic] += 1
                try:
                    message = _deserialize(types, connection, data)
                except ValueError as error:
                    problem = str(error)
                number = numbers.get(topic, -1)
                unsaid = message is not None and number >= 0 and topic not in reported
                if unsaid and (words := stamp_problem(message.header.stamp)):
                    reported.add(topic)
                    _log.warning("%s: image %d of %s: %s", self.path, number + 1, topic, words)
                yield BagMessage(topic, received, number, message, problem)

    def decode(self, one: BagMessage) -> BagImage:
        """The image of a message; ValueError where it cannot be used."""
        if one.message is None:
            raise ValueError(one.problem)
        image, header = _decode(one.message), one.message.header
        return BagImage(
            stamp=to_nanoseconds(header.stamp),
            received=one.received,
            frame_id=header.frame_id,
            image=image,
            encoding=_encoding(one.message),
            topic=one.topic,
            number=one.number,
            time=(int(header.stamp.sec), int(header.stamp.nanosec)),
        )

    def arrivals(self) -> list[tuple[int, str]]:
        """When each image was received, and its topic, in order."""
        with open_bag(self.path) as readers:
            return [(received, connection.topic) for connection, received, _ in _images(readers, self.topics)]

    def _raise(self, topic: str, number: int, reason: str) -> None:
        raise SourceError(f"{self.path}: image {number + 1} of {topic}: {reason}")


def typestore() -> Typestore:
    """The standard message types; SourceError where rosbags is not installed."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise SourceError(
            'bags need the package rosbags; install it with: pip install "instance-flow[bags]"'
        ) from error
    return get_typestore(Stores.ROS2_JAZZY)


def _checked(path: Path) -> Path:
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if is_ros1(path):
        raise SourceError(f"{path}: a bag of ROS 1; {ros1_advice(path)}")
    if not is_bag(path):
        raise SourceError(
            f"{path} is not a ROS 2 bag; expected an MCAP file, an SQLite file (.db3), or a folder of them"
        )
    return path


@contextmanager
def open_bag(path: Path) -> Iterator[list[Reader]]:
    """Readers of the storage files of a bag; SourceError for all that is wrong with it, while it is open, too."""
    typestore()  # says what is missing
    metadata = read_metadata(path) if _checked(path).is_dir() else None
    files = listed_files(path, metadata) if path.is_dir() else [path]
    try:
        with ExitStack() as stack:
            readers = open_files(files, stack)
            compare_counts(path, metadata, _count_messages(iter(_connections(readers))))
            yield readers
    except SourceError:
        raise
    except Exception as error:  # Damaged bytes break a parser in any way there is.
        raise unreadable(path, error) from error


def messages_of(
    readers: list[Reader], accepts: Callable[[Connection], bool], start: int | None = None, stop: int | None = None
) -> Iterator[tuple[Connection, int, bytes]]:
    """Messages of the connections that are accepted, of all readers in the order of the recording.

    start, stop: nanoseconds; of messages received from start on and before stop; None = all.
    """
    streams = []
    for reader in readers:
        chosen = [connection for connection in reader.connections if accepts(connection)]
        if chosen:
            streams.append(reader.messages(chosen, start, stop))
    return heapq.merge(*streams, key=lambda message: message[1])


def _connections(readers: list[Reader]) -> list[Connection]:
    return [connection for reader in readers for connection in reader.connections]


def _is_image(connection: Connection) -> bool:
    return connection.msgtype in (RAW, COMPRESSED)


def _count_messages(connections: Iterator[Connection]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for connection in connections:
        counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    return dict(sorted(counts.items()))


def _topics(readers: list[Reader]) -> dict[str, BagTopic]:
    # Where a topic has messages of several types, those of images count.
    ordered = sorted(_connections(readers), key=_is_image)
    types = {connection.topic: connection.msgtype for connection in ordered}
    counts, store = _count_messages(iter(_connections(readers))), typestore()
    encodings: dict[str, str] = {}
    for topic in {connection.topic for connection in _connections(readers) if _is_image(connection)}:
        for connection, _, data in islice(_images(readers, [topic]), 1):
            with suppress(ValueError):  # An image that cannot be used is the reader's business.
                encodings[topic] = _encoding(_deserialize(store, connection, data))
    return {topic: BagTopic(types[topic], counts[topic], encodings.get(topic, "")) for topic in sorted(types)}


def _choose_topics(path: Path, readers: list[Reader], wanted: Sequence[str]) -> dict[str, int]:
    """The topics to read, each with its number of messages; none wanted = the only one of pictures that there is."""
    connections = _connections(readers)
    images = _count_messages(connection for connection in connections if _is_image(connection))
    types = {connection.topic: connection.msgtype for connection in connections}
    if not images:
        there = ", ".join(f"{shown(topic)} ({shown(kind)})" for topic, kind in sorted(types.items())) or "none at all"
        video = [topic for topic, kind in sorted(types.items()) if kind in _VIDEO]
        hint = (
            f". {shown(video[0])} is compressed video: decode it to images first, with {_VIDEO[types[video[0]]]}"
            if video
            else ""
        )
        raise SourceError(f"{path} has no topic of images; its topics: {shown(there, _LISTED)}{hint}")
    listing = shown(", ".join(f"{shown(topic)} ({count} images)" for topic, count in images.items()), _LISTED)
    for topic in wanted:
        if topic not in images:
            found = f"holds {shown(types[topic])}, not images" if topic in types else "is not in the bag"
            raise SourceError(f"{path}: topic {topic} {found}; topics of images: {listing}")
    filled = [topic for topic, count in images.items() if count]
    if not wanted and len(filled) > 1:
        beside = {topic for topic, there in _topics(readers).items() if there.measures}
        filled = [topic for topic in filled if topic not in beside] or filled
    if not wanted and len(filled) > 1:
        raise SourceError(f"{path} has several topics of images, choose one or more, or all of them: {listing}")
    chosen = wanted or (filled or list(images))[:1]
    for topic in chosen:
        if not images[topic]:
            raise SourceError(f"{path}: topic {topic} has no messages")
    return {topic: images[topic] for topic in chosen}


def _images(readers: list[Reader], topics: Iterable[str]) -> Iterator[tuple[Connection, int, bytes]]:
    wanted = set(topics)
    return messages_of(readers, lambda connection: connection.topic in wanted and _is_image(connection))


def _usual_rate(messages: Iterator[tuple[Connection, int, bytes]]) -> float:
    """Messages per second by the median step of the first ones, of their headers or else of their arrival."""
    types = typestore()
    times = []
    for connection, received, data in islice(messages, _RATE_SAMPLE):
        with suppress(ValueError):  # An image that cannot be used is the reader's business.
            header = _deserialize(types, connection, data).header
            times.append((to_nanoseconds(header.stamp) or 0, received))
    steps = np.diff(np.array(times, np.int64).reshape(-1, 2), axis=0)
    for column in steps.T:
        forward = column[column > 0]
        if forward.size:
            return float(1e9 / np.median(forward))
    return 0.0


def _deserialize(types: Typestore, connection: Connection, data: bytes) -> Any:
    whole = unpack_message(data)
    try:
        return types.deserialize_cdr(whole, connection.msgtype)
    except Exception as error:  # Damaged bytes break a parser in any way there is.
        raise ValueError(f"its {len(data)} bytes are no whole {shown(connection.msgtype)}") from error


def _decode(message: Any) -> Image:
    if message.__msgtype__ == COMPRESSED:
        return decode_compressed(message.data, message.format)
    return decode_raw(
        message.data, message.height, message.width, message.step, message.encoding, bool(message.is_bigendian)
    )


def _encoding(message: Any) -> str:
    return str(message.format if message.__msgtype__ == COMPRESSED else message.encoding)
