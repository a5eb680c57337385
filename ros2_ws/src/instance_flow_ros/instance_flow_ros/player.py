# SPDX-License-Identifier: Apache-2.0
"""Publish a bag on its topics at the times of its recording. `instance-flow play` is the command.

Messages go out as the bytes that were recorded; nothing reads them, so a message of a type that has changed since is
published as it was.
"""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.validate_topic_name import validate_topic_name
from rosgraph_msgs.msg import Clock

from instance_flow.formats.bag_messages import BagMessages
from instance_flow.formats.bags import COMPRESSED, RAW
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.structures import InstanceFlowError
from instance_flow_ros import middleware
from instance_flow_ros.command_node import command_node

SENSOR, RELIABLE = "sensor", "reliable"

_CLOCK = "/clock"
_LAST_CLOCK = 2**31 * 10**9 - 1
"""Nanoseconds: what a time of ROS can hold; a bag can hold more."""
_SETTLE = 0.5
"""Seconds: the side that is found first sends into the void until the other one has found it, too."""
_ACKNOWLEDGED = 2.0
_NAP = 0.1
"""Seconds after which a waiting player looks whether it was told to end."""
_LONE, _SHORTEST = 1.0, 0.01
"""Seconds of the bag from one pass to the next: of a bag of one message, and at least."""
_DEPTH, _MOST = 10, 1000
_TYPE = re.compile(r"([a-z][a-z0-9_]*)/msg/([A-Za-z][A-Za-z0-9]*)")

_log = logging.getLogger("instance_flow")


@dataclass(frozen=True)
class Playing:
    """How to play. rate: 2 = twice as fast.   renamed: new names of topics.   clock: ticks a second, 0 = none.

    images: QoS of the images' topics: sensor, reliable or recorded.
    patience: most seconds to wait for a first subscriber.
    """

    rate: float
    loop: bool
    renamed: dict[str, str]
    images: str
    clock: float
    patience: float


@dataclass
class Played:
    """counts: messages published, by topic as it was published.   seconds: from the first to the last one.

    late, usually_late: seconds after its time that a message was published, at most and in the mean.
    """

    counts: dict[str, int]
    seconds: float = 0.0
    late: float = 0.0
    usually_late: float = 0.0


def play(messages: BagMessages, how: Playing, stopped: Callable[[], int]) -> Played:
    """Play to the end, or until ``stopped`` gives something.

    ValueError for a new name that no topic can have, InstanceFlowError where no topic can be published.
    """
    for name in how.renamed.values():
        _check_name(name)
    middleware.prepare()
    with command_node("instance_flow_player") as node:
        publishers = _publishers(node, messages, how)
        if not _wait_for_subscribers(publishers.values(), how.patience, stopped):
            _log.warning("%s: its topics have no subscribers yet; it is played all the same", messages.path)
        played = _Pass(publishers, how, _Ticks(node, how.clock), stopped).play(messages)
        for publisher in publishers.values():
            if not stopped():
                publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGED))
        return played


class _Ticks:
    """Publishes the bag's time; not at all for a rate of 0."""

    def __init__(self, node: Node, rate: float) -> None:
        self._publisher = node.create_publisher(Clock, _CLOCK, QoSProfile(depth=1)) if rate else None
        self._period = 1 / rate if rate else float("inf")
        self.due = time.monotonic()

    def publish(self, nanoseconds: int) -> None:
        if self._publisher is not None:
            seconds, rest = divmod(min(max(0, nanoseconds), _LAST_CLOCK), 10**9)
            self._publisher.publish(Clock(clock=Time(sec=seconds, nanosec=rest)))
        self.due = max(self.due + self._period, time.monotonic())


class _Pass:
    """Passes through a bag. ``_first`` of the bag's time was played at ``_begun`` of time.monotonic()."""

    def __init__(
        self,
        publishers: dict[tuple[str, str], Publisher],
        how: Playing,
        ticks: _Ticks,
        stopped: Callable[[], int],
    ) -> None:
        self._publishers, self._how, self._ticks, self._stopped = publishers, how, ticks, stopped
        self._begun, self._first = 0.0, 0
        self._played = Played(dict.fromkeys((publisher.topic_name for publisher in publishers.values()), 0))

    def play(self, messages: BagMessages) -> Played:
        began, pause = None, 0.0
        while True:
            self._begun = time.monotonic() + pause
            counts, last = Counter[str](), 0
            for message in messages:
                publisher = self._publishers.get((message.topic, message.message_type))
                if publisher is None:
                    continue
                if not counts:
                    # Opening the bag is not playing it.
                    self._first, self._begun = message.received, max(self._begun, time.monotonic())
                due = self._begun + (message.received - self._first) * 1e-9 / self._how.rate
                if not self._sleep(due):
                    return self._summary(began)
                began = began or due
                publisher.publish(message.data)
                self._count(publisher.topic_name, time.monotonic() - due)
                counts[message.topic] += 1
                last = message.received
            if not self._how.loop or not counts:
                return self._summary(began)
            pause = _step(max(counts.values()), (last - self._first) * 1e-9) / self._how.rate

    def _sleep(self, due: float) -> bool:
        """Sleep until it is time; False where the player is told to end before."""
        while not self._stopped():
            now = time.monotonic()
            if now >= self._ticks.due:
                self._ticks.publish(self._first + round((now - self._begun) * self._how.rate * 1e9))
            if now >= due:
                return True
            time.sleep(max(0.0, min(due, self._ticks.due, now + _NAP) - now))
        return False

    def _count(self, topic: str, late: float) -> None:
        played = self._played
        played.counts[topic] += 1
        played.late = max(played.late, late)
        played.usually_late += late  # Their sum, until the summary.

    def _summary(self, began: float | None) -> Played:
        played = self._played
        played.seconds = 0.0 if began is None else time.monotonic() - began
        played.usually_late /= max(1, sum(played.counts.values()))
        return played


def _step(count: int, seconds: float) -> float:
    """Usual step between the ``count`` messages of the busiest topic. It also parts the last message of a pass from the
    first one of the next, which would come at once otherwise."""
    return max(seconds / (count - 1), _SHORTEST) if count > 1 else _LONE


def _check_name(topic: str) -> None:
    try:
        validate_topic_name(topic)
    except InvalidTopicNameException:
        raise ValueError(f"--remap: {topic!r} is not a topic's name; expected one such as /camera/image") from None


def _publishers(node: Node, messages: BagMessages, how: Playing) -> dict[tuple[str, str], Publisher]:
    """A publisher for each topic and type; what cannot be had is logged."""
    publishers, reasons = {}, []
    for (topic, kind), offered in messages.offered.items():
        name = how.renamed.get(topic, topic)
        try:
            if how.clock and node.resolve_topic_name(name) == _CLOCK:
                raise LookupError("--clock publishes on it")
            publishers[topic, kind] = node.create_publisher(_message_class(kind), name, _qos(kind, offered, how.images))
        except Exception as error:  # rclpy and what messages import have no common base.
            reason = " ".join(str(error).split())
            reasons.append(f"{shown(name)} ({shown(kind)}): {shown(reason)}")
    if not publishers:
        raise InstanceFlowError(f"{messages.path}: nothing can be played: {shown('; '.join(reasons), MESSAGE)}")
    for reason in reasons:
        _log.warning("%s: left out: %s", messages.path, reason)
    return publishers


def _message_class(kind: str) -> Any:
    """The class of a message type; LookupError or ImportError with the reason where there is none.

    A bag may name any package: none is imported but those that ROS knows.
    """
    found = _TYPE.fullmatch(kind)
    if found is None:
        raise LookupError("this is not a type of messages")
    package, name = found.groups()
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        raise LookupError(f"the package {package} is not installed or not sourced") from None
    module = importlib.import_module(f"{package}.msg")
    if not hasattr(module, name):
        raise LookupError(f"the package {package} here has no such message")
    return getattr(module, name)


def _qos(kind: str, offered: Sequence[Any], images: str) -> QoSProfile:
    """offered: profiles of the recorded publishers, as rosbags has them. One publisher now stands for all of them: it
    offers what the most demanding one did."""
    if kind in (RAW, COMPRESSED) and images == SENSOR:
        return qos_profile_sensor_data
    if kind in (RAW, COMPRESSED) and images == RELIABLE:
        return QoSProfile(depth=_DEPTH)
    weak = offered and all(one.reliability.name == "BEST_EFFORT" for one in offered)
    latched = any(one.durability.name == "TRANSIENT_LOCAL" for one in offered)
    # Each publisher of /tf_static kept its own last message. Recorders write 0 for what they did not know.
    depth = min(sum(max(one.depth, 0) for one in offered) or _DEPTH, _MOST)
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if weak else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _wait_for_subscribers(publishers: Iterable[Publisher], patience: float, stopped: Callable[[], int]) -> bool:
    """Whether a topic has a subscriber, or none was to be waited for."""
    deadline = time.monotonic() + patience
    while not stopped() and time.monotonic() < deadline:
        if any(publisher.get_subscription_count() for publisher in publishers):
            time.sleep(_SETTLE)
            return True
        time.sleep(_NAP)
    return bool(stopped()) or not patience
