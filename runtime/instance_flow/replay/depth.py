# SPDX-License-Identifier: Apache-2.0
"""The images of a bag, each with the depth, the calibration and the transforms that were recorded beside it.

The bag is read once. An image is held back until what belongs to it has come, as the live node does with a long
``depth_wait``: for ``_AHEAD`` seconds of the recording and ``_HELD`` images at most.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from instance_flow.formats.bag_writer import CAMERA_INFO, TRANSFORMS
from instance_flow.formats.bags import COMPRESSED, RAW, BagMessage, BagTopic, bag_topics
from instance_flow.formats.depth_messages import RAW_DEPTH
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.stamps import to_nanoseconds
from instance_flow.formats.video import BagSource, Frame, Refuse, Source, raise_refused
from instance_flow.replay.settings import DepthSettings
from instance_flow.spatial.inputs import DepthInput, add_transforms
from instance_flow.spatial.measure import depth_problem
from instance_flow.spatial.pairing import DepthRequest
from instance_flow.spatial.transforms import TransformBuffer
from instance_flow.structures import SourceError

TF, TF_STATIC = "/tf", "/tf_static"

_AHEAD, _HELD = 2.0, 64
_PERIOD = 256
"""Images that are summed up at a time, so that a long bag takes no more memory than a short one."""
_LATE = "a replay looks ahead for 2 s, so record both at the same time"
_LISTED = 1000
"""Characters of a list of topics in a message."""
_REGISTERED = ("aligned", "registered")
"""Parts of the names of topics of registered depth, as RealSense's, Kinect's and image_proc's."""
_TRANSPORTS = ("/compressedDepth", "/compressed")

_log = logging.getLogger("instance_flow")


@dataclass(frozen=True)
class DepthTopics:
    """Where depth and calibrations of one camera are in a bag. depth_info: empty where depth is registered."""

    depth: str
    camera_info: str
    depth_info: str = ""

    def facts(self) -> dict[str, str]:
        """By their names, for summary and report."""
        facts = {"depth_topic": self.depth, "camera_info": self.camera_info, "depth_camera_info": self.depth_info}
        return {name: topic for name, topic in facts.items() if topic}


@dataclass
class _Side:
    """What one camera's images are given beside them, and what went wrong with that.

    placing: the first reason why a frame with depth could not be placed.
    """

    input: DepthInput
    problem: str = ""
    placing: str = ""
    count: int = 0
    missing: int = 0

    def sum_up(self) -> None:
        """End a period. The first problem of the run is kept."""
        self.input.placed(self.placing)
        problem = self.input.report().problem
        self.problem = self.problem or problem


@dataclass(frozen=True)
class _Held:
    """An image that waits for what belongs to it. request: None where it cannot be used anyway."""

    one: BagMessage
    topics: DepthTopics
    side: _Side
    request: DepthRequest | None = field(default=None)

    def is_settled(self) -> bool:
        return self.request is None or self.side.input.is_settled(self.request, self.one.message.header.frame_id)


class DepthSource:
    """A bag's frames with ``depth`` and ``calibration``; what is wrong with these ends nothing.

    Raises SourceError where the bag has not the topics, or several that may be meant, and ValueError for a source that
    is no bag.

    Attributes:
        topics: of each camera, in the order of ``cameras``.
    """

    def __init__(self, source: Source, path: Path | None, settings: DepthSettings) -> None:
        if not isinstance(source, BagSource):
            raise ValueError(f"--depth reads the depth that is recorded in a bag, but {path or source.name} is not one")
        self.name, self.length, self.rate, self.cameras = source.name, source.length, source.rate, source.cameras
        self._source, self._settings, self._now = source, settings, 0.0
        self._refused: set[str] = set()
        there = bag_topics(source.images.path)
        if settings.needs_transforms:
            _need_transforms(source.images.path, there)
        images = [camera.topic for camera in source.cameras]
        self.topics = [_find_topics(source.images.path, there, image, images, settings) for image in images]
        _check_distinct(source.images.path, images, self.topics)
        self._sides = self._new_sides()
        found = {topic for topics in self.topics for topic in topics.facts().values()} | {TF, TF_STATIC}
        self._types = {topic: there[topic].message_type for topic in found if topic in there}
        for image, topics in zip(images, self.topics, strict=True):
            if not settings.topic:
                _log.warning("%s: the depth of %s is read from %s", path, shown(image), shown(topics.depth))

    def __iter__(self) -> Iterator[Frame]:
        return self.frames(raise_refused)

    def frames(self, refuse: Refuse) -> Iterator[Frame]:
        """See Source."""
        self._sides = self._new_sides()
        takers, refusing = self._takers(), self._source.refusing(refuse)
        beside = zip(self.topics, self._sides, strict=True)
        sides = dict(zip((camera.topic for camera in self.cameras), beside, strict=True))
        held: deque[_Held] = deque()
        for one in self._source.images.messages(takers.keys() - sides.keys()):
            self._now = one.received / 1e9
            if (own := sides.get(one.topic)) is not None:
                held.append(_Held(one, *own, _request(one, own[1])))
            elif one.message is None:
                self._note(one.topic, one.problem)
            elif one.message.__msgtype__ != self._types[one.topic]:
                self._note(one.topic, f"it is a {shown(one.message.__msgtype__)}")
            else:
                for take in takers[one.topic]:
                    take(one.message)
            while held and (
                len(held) > _HELD or self._now - held[0].one.received / 1e9 > _AHEAD or held[0].is_settled()
            ):
                yield from self._released(held.popleft(), refusing)
        while held:
            yield from self._released(held.popleft(), refusing)

    def problem(self, camera: int) -> str:
        """What was wrong with the depth of a camera's frames so far, in one sentence; empty where nothing was."""
        side = self._sides[camera]
        side.sum_up()
        if side.missing and not side.problem:
            return (
                f"{side.missing} of {side.count} images have no depth image within depth_tolerance "
                f"({self._settings.depth_tolerance:g} s)"
            )
        return side.problem

    def _released(self, held: _Held, refuse: Callable[[str, int, str], None]) -> Iterator[Frame]:
        one, side = held.one, held.side
        try:
            image = self._source.images.decode(one)
        except ValueError as error:
            refuse(one.topic, one.number, str(error))
            return
        assert held.request is not None
        size = (image.image.shape[0], image.image.shape[1])
        depth, camera = side.input.take(held.request, image.frame_id, size)
        side.count += 1
        side.missing += depth is None
        problem = depth_problem(depth, camera, size)[1]
        if problem and camera is None:
            problem = f"the calibration on {shown(held.topics.camera_info)} begins more than 2 s after the images"
        side.placing = side.placing or problem
        if side.count % _PERIOD == 0:
            side.sum_up()
        yield replace(self._source.frame(image), depth=depth, calibration=camera)

    def _new_sides(self) -> list[_Side]:
        settings = self._settings
        self._frames = TransformBuffer(tolerance=settings.transform_tolerance) if settings.needs_transforms else None
        sides = []
        for _ in self.cameras:
            one = DepthInput(settings.registered, settings.target_frame, self._frames, lambda: self._now, _LATE)
            one.pairing.tolerance = settings.depth_tolerance
            sides.append(_Side(one))
        return sides

    def _takers(self) -> dict[str, list[Callable[[Any], None]]]:
        """Who takes the messages of each topic; one of calibrations may be of several cameras."""
        takers: dict[str, list[Callable[[Any], None]]] = {}
        for topics, side in zip(self.topics, self._sides, strict=True):
            takers.setdefault(topics.depth, []).append(side.input.add_depth)
            takers.setdefault(topics.camera_info, []).append(side.input.add_camera)
            if topics.depth_info:
                takers.setdefault(topics.depth_info, []).append(side.input.add_depth_camera)
        for topic in (TF, TF_STATIC) if self._frames is not None else ():
            if self._types.get(topic) == TRANSFORMS:
                takers[topic] = [partial(self._add_transforms, static=topic == TF_STATIC)]
        return takers

    def _add_transforms(self, message: Any, static: bool) -> None:
        assert self._frames is not None
        # If one that is needed is among them, the look-up says so.
        for problem in add_transforms(self._frames, message, static, self._refused):
            _log.warning("%s: %s", self._source.images.path, shown(problem, MESSAGE))

    def _note(self, topic: str, damage: str) -> None:
        for side, topics in zip(self._sides, self.topics, strict=True):
            if topic in (TF, TF_STATIC, *topics.facts().values()):
                side.problem = side.problem or f"a message of {shown(topic)} cannot be read: {damage}"


def _request(one: BagMessage, side: _Side) -> DepthRequest | None:
    return None if one.message is None else side.input.request(to_nanoseconds(one.message.header.stamp))


def _need_transforms(path: Path, there: Mapping[str, BagTopic]) -> None:
    if not any(
        there[topic].message_type == TRANSFORMS and there[topic].messages for topic in (TF, TF_STATIC) if topic in there
    ):
        raise SourceError(
            f"{path} has no transforms (messages on {TF} or {TF_STATIC}), which --target-frame and "
            "--depth-unregistered need; record them, too, or leave these options out"
        )


def _check_distinct(path: Path, images: list[str], topics: list[DepthTopics]) -> None:
    """One depth camera is of one camera, unless it is no other than that."""
    for k, one in enumerate(topics):
        for image, other in zip(images[:k], topics, strict=False):
            if one.depth == other.depth:
                raise SourceError(
                    f"{path}: {shown(one.depth)} would be the depth of both {shown(image)} and {shown(images[k])}; run "
                    "each by itself, with --topic and --depth"
                )


def _find_topics(
    path: Path, there: Mapping[str, BagTopic], image: str, images: list[str], settings: DepthSettings
) -> DepthTopics:
    if settings.topic and len(images) > 1:
        raise ValueError(
            f"--depth {settings.topic} is the depth of one camera, but {len(images)} are run; choose one by --topic"
        )
    if settings.camera_info and len(images) > 1:
        raise ValueError(
            f"--camera-info {settings.camera_info} is of one camera, but {len(images)} are run; choose one by --topic"
        )
    depth = settings.topic or _find_depth(path, there, image, images, settings.registered)
    if depth == image or depth not in there or there[depth].message_type not in (RAW, COMPRESSED):
        found = "is that of the images" if depth == image else _found(there, depth, "depth images")
        raise SourceError(f"{path}: topic {shown(depth)} {found}; {_depth_listing(there, images)}")
    if not there[depth].messages:
        raise SourceError(f"{path}: topic {shown(depth)} has no messages; {_depth_listing(there, images)}")
    info = settings.camera_info or _beside(image)
    _check_info(path, there, info, f"of the images on {shown(image)}", "; name its topic by --camera-info TOPIC")
    depth_info = ""
    if not settings.registered:
        # Beside it, or below it as the node has it.
        places = [place for place in (_beside(depth), f"{_base(depth)}/camera_info") if place != info]
        depth_info = next((place for place in places if place in there), places[0])
        _check_info(path, there, depth_info, f"of the depth camera, beside {shown(depth)},", "")
    return DepthTopics(depth, info, depth_info)


def _find_depth(path: Path, there: Mapping[str, BagTopic], image: str, images: list[str], registered: bool) -> str:
    """The topic of depth that belongs to a topic of images by its name."""
    found = _candidates(there, images)
    if not found:
        raise SourceError(
            f"{path} has no topic that is depth by its name and type; name it by --depth TOPIC, after SOURCE; "
            f"{_depth_listing(there, images)}"
        )
    nearest = max(_common(image, topic) for topic in found)
    found = [topic for topic in found if _common(image, topic) == nearest]
    fit = [topic for topic in found if any(word in topic.lower() for word in _REGISTERED) == registered]
    found = fit or found
    found = [topic for topic in found if not (topic.endswith(_TRANSPORTS) and topic.rpartition("/")[0] in found)]
    if len(found) > 1:
        raise SourceError(
            f"{path} has several topics of depth that may belong to {shown(image)}; choose one by --depth TOPIC, after "
            f"SOURCE: {shown(', '.join(map(shown, found)), _LISTED)}"
        )
    return found[0]


def _candidates(there: Mapping[str, BagTopic], images: list[str]) -> list[str]:
    """Topics of depth: compressedDepth, and raw images of such an encoding with "depth" in their name."""
    return [
        topic
        for topic, about in there.items()
        if about.messages
        and topic not in images
        and (
            (about.message_type == RAW and about.encoding in RAW_DEPTH and "depth" in topic.lower())
            or (about.message_type == COMPRESSED and "compressedDepth" in about.encoding)
        )
    ]


def _depth_listing(there: Mapping[str, BagTopic], images: list[str]) -> str:
    found = _candidates(there, images) or [
        topic for topic, about in there.items() if about.message_type in (RAW, COMPRESSED) and topic not in images
    ]
    return f"topics that may be meant: {shown(', '.join(map(shown, found)) or 'none', _LISTED)}"


def _check_info(path: Path, there: Mapping[str, BagTopic], topic: str, whose: str, advice: str) -> None:
    if topic in there and there[topic].message_type == CAMERA_INFO and there[topic].messages:
        return
    infos = [name for name, about in there.items() if about.message_type == CAMERA_INFO and about.messages]
    listing = shown(", ".join(map(shown, infos)) or "none", _LISTED)
    raise SourceError(
        f"{path}: the calibration {whose} is expected on {shown(topic)}, which {_found(there, topic, 'CameraInfo')}"
        f"{advice}; topics of CameraInfo: {listing}"
    )


def _found(there: Mapping[str, BagTopic], topic: str, wanted: str) -> str:
    if topic not in there:
        return "is not in the bag"
    about = there[topic]
    return f"holds {shown(about.message_type)}, not {wanted}" if about.messages else "has no messages"


def _beside(topic: str) -> str:
    """``camera_info`` beside a topic of images."""
    return f"{_base(topic).rpartition('/')[0]}/camera_info"


def _base(topic: str) -> str:
    """A topic of images without what image_transport adds."""
    for transport in _TRANSPORTS:
        topic = topic.removesuffix(transport)
    return topic


def _common(one: str, other: str) -> int:
    """How many parts two topics have in common from the first on."""
    count = 0
    for a, b in zip(one.split("/"), other.split("/"), strict=False):
        if a != b:
            break
        count += 1
    return count
