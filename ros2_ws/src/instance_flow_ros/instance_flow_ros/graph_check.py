# SPDX-License-Identifier: Apache-2.0
"""Look at a ROS graph for some seconds and print what is wrong with it, for `instance-flow doctor`.

python -m instance_flow_ros.graph_check --seconds 5
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import product
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node as RosNode
from rclpy.node import NodeNameNonExistentError
from rclpy.qos import qos_profile_sensor_data
from rclpy.task import Future
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CompressedImage, Image

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.image_encodings import decode_compressed
from instance_flow.formats.stamps import to_nanoseconds
from instance_flow.spatial.transforms import TransformBuffer
from instance_flow_ros import frames, middleware
from instance_flow_ros.bridge import choose_bridge, to_rgb
from instance_flow_ros.command_node import command_node
from instance_flow_ros.depth_watch import DepthSettings, DepthWatch
from instance_flow_ros.diagnostics import ONLY, TOPIC
from instance_flow_ros.graph import full_name, node_of, qos_problem
from instance_flow_ros.graph_findings import (
    COMPRESSED_IMAGE,
    IMAGE,
    Graph,
    Mismatch,
    Node,
    Received,
    Status,
    Topic,
    judge,
)
from instance_flow_ros.parameters import NONE, needs_transforms

_NAME = "_instance_flow_doctor"
_KINDS = {IMAGE: Image, COMPRESSED_IMAGE: CompressedImage}
_MOST_TOPICS = 4
"""Most topics to subscribe to where none is named: more would load the network."""

_PARAMETERS = ("use_sim_time", "depth", "depth_registered", "target_frame", "depth_tolerance", "transform_tolerance")

_PERIOD = 0.2
_DEPTH = 100
"""Every node of a robot writes to /diagnostics; those of ours must not be lost among them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings as JSON, on one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to look (default: %(default)g)")
    parser.add_argument("--topic", help="topic of images to subscribe to; those of the nodes unless given")
    options = parser.parse_args(arguments)
    try:
        validate_topic_name(options.topic or "any")
    except InvalidTopicNameException:
        parser.error(f"{options.topic!r} is no name of a topic")
    middleware.prepare()
    graph = inspect_graph(options.seconds, options.topic)
    sys.stdout.write(f"{json.dumps([asdict(finding) for finding in judge(graph)])}\n")
    return 0


def inspect_graph(seconds: float, topic: str | None = None) -> Graph:
    """Look at the graph of the environment's domain. topic: of images, checked even if no node subscribes to it."""
    with command_node(_NAME) as node:
        executor = SingleThreadedExecutor(context=node.context)
        try:
            observer = _Observer(node, topic)
            executor.add_node(node)
            deadline = monotonic() + seconds
            while (now := monotonic()) < deadline:
                executor.spin_once(timeout_sec=min(_PERIOD, deadline - now))
            return observer.graph(seconds)
        finally:
            executor.shutdown()


@dataclass
class _Listener:
    """What came on one topic so far. stamps: nanoseconds, of those images that have one.

    watches: called with each image and the size (height, width) of the first, None where that could not be read.
    """

    node: RosNode
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    description: str = ""
    error: str = ""
    stamps: list[int] = field(default_factory=list)
    age: float | None = None
    size: tuple[int, int] | None = None
    watches: list[Callable[[Any, tuple[int, int] | None], None]] = field(default_factory=list)

    def receive(self, message: Image | CompressedImage) -> None:
        self.last = monotonic()
        if not self.count:
            self.first = self.last
            self._read(message)
        self.count += 1
        stamp = to_nanoseconds(message.header.stamp)
        if stamp is not None:
            self.stamps.append(stamp)
            self.age = (self.node.get_clock().now().nanoseconds - stamp) * 1e-9
        for watch in self.watches:
            watch(message, self.size)

    def received(self) -> Received:
        rate = (self.count - 1) / (self.last - self.first) if self.last > self.first else 0.0
        backwards = self.stamps != sorted(self.stamps)
        return Received(self.count, rate, self.description, self.error, self.age, backwards)

    def _read(self, message: Image | CompressedImage) -> None:
        try:
            if isinstance(message, CompressedImage):
                encoding, pixels = message.format, decode_compressed(message.data)
            else:
                encoding, pixels = message.encoding, to_rgb(choose_bridge(), message)
        except ValueError as error:
            self.error = str(error)
            return
        self.size = pixels.shape[0], pixels.shape[1]
        self.description = f"{pixels.shape[1]} x {pixels.shape[0]} {shown(encoding)}"


class _ServiceCall:
    """A call of a service of a node, made once it can be."""

    def __init__(self, node: RosNode, kind: Any, name: str, request: Any) -> None:
        self._client = node.create_client(kind, name)
        self._request = request
        self._future: Future | None = None

    def ask(self) -> None:
        if self._future is None and self._client.service_is_ready():
            self._future = self._client.call_async(self._request)

    def response(self) -> Any:
        """The response, None while there is none."""
        return self._future.result() if self._future is not None and self._future.done() else None


class _Observer:
    """Asks what can only be asked while it spins: images, diagnostics, states. The rest is seen at the end."""

    def __init__(self, node: RosNode, topic: str | None) -> None:
        self._node = node
        self._topic = None if topic is None else node.resolve_topic_name(topic)
        self._listeners: dict[str, _Listener] = {}
        self._states: dict[str, _ServiceCall] = {}
        self._parameters: dict[str, _ServiceCall] = {}
        self._statuses: dict[str, Status] = {}
        self._depths: dict[str, DepthWatch] = {}
        self._buffers: dict[float, TransformBuffer] = {}
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, _DEPTH)
        node.create_timer(_PERIOD, self._ask)

    def graph(self, seconds: float) -> Graph:
        """Sum up what was seen."""
        nodes = tuple(self._describe(name) for name in self._own_nodes())
        names = [full_name(*found) for found in self._node.get_node_names_and_namespaces()]
        own = {node.name.lstrip("/") for node in nodes}
        senders = {topic: self._senders(topic) for topic in self._depth_topics()}
        kinds = {
            name: kinds[0]
            for name, kinds in self._node.get_topic_names_and_types()
            if name not in senders and self._publishers(name)
        }
        return Graph(
            seconds=seconds,
            asked=self._topic,
            names=tuple(sorted(name for name in names if not name.endswith(f"/{_NAME}"))),
            nodes=nodes,
            topics={
                name: Topic(publishers, self._listeners[name].received() if name in self._listeners else None)
                for name, publishers in self._image_topics().items()
                if name not in self._depth_topics()
            },
            mismatches=tuple(self._mismatches([node.name for node in nodes])),
            statuses=tuple(status for name, status in self._statuses.items() if name.split(": ")[0] in own),
            has_clock=self._node.count_publishers("/clock") > 0,
            depths=tuple(watch.seen(senders, kinds) for watch in self._depths.values()),
            has_transforms=frames.AVAILABLE,
        )

    def _own_nodes(self) -> list[str]:
        """Full names of instance-flow nodes: those with a lifecycle, ~/reset and ~/enable, in whatever state."""
        services = {name: kinds[0] for name, kinds in self._node.get_service_names_and_types()}
        expected = {"reset": "std_srvs/srv/Trigger", "enable": "std_srvs/srv/SetBool"}
        bases = [name.removesuffix("/get_state") for name in services if name.endswith("/get_state")]
        return sorted(
            base for base in bases if all(services.get(f"{base}/{own}") == kind for own, kind in expected.items())
        )

    def _ask(self) -> None:
        for name in self._own_nodes():
            if name not in self._states:
                self._states[name] = _ServiceCall(self._node, GetState, f"{name}/get_state", GetState.Request())
                request = GetParameters.Request(names=_PARAMETERS)
                self._parameters[name] = _ServiceCall(self._node, GetParameters, f"{name}/get_parameters", request)
            self._states[name].ask()
            self._parameters[name].ask()
        for name, status in self._statuses.items():
            if name not in self._depths:
                self._watch_depth(name, status.topics)
        for topic, kind in self._topics_to_receive().items():
            if topic not in self._listeners:
                listener = self._listeners[topic] = _Listener(self._node)
                self._node.create_subscription(_KINDS[kind], topic, listener.receive, qos_profile_sensor_data)

    def _watch_depth(self, status: str, topics: Mapping[str, str]) -> None:
        """Listen to what is beside the images of a camera of ours, if it has depth and its images are listened to."""
        name, _, camera = status.rpartition(": ")
        node = f"/{name}"
        parameters, listener = self._parameters_of(node), self._listeners.get(topics.get("image", ""))
        if len(topics) < 2 or not parameters or listener is None:
            return
        settings = DepthSettings(
            parameters["depth_registered"].bool_value,
            parameters["target_frame"].string_value,
            parameters["depth_tolerance"].double_value,
        )
        needed, tolerance = _needs_transforms(parameters), parameters["transform_tolerance"].double_value
        transforms = self._transforms(tolerance) if needed and frames.AVAILABLE else None
        beside = {name: topic for name, topic in topics.items() if name != "image"}
        prefix = "" if camera == ONLY else f"{camera}/"
        self._depths[status] = watch = DepthWatch(self._node, node, prefix, beside, settings, transforms)
        listener.watches.append(watch.on_image)

    def _depth_topics(self) -> set[str]:
        """Topics that our nodes take for depth, or for what belongs to it."""
        return {topic for s in self._statuses.values() for name, topic in s.topics.items() if name != "image"}

    def _transforms(self, tolerance: float) -> TransformBuffer:
        """The transforms that come, for all cameras with this tolerance."""
        if tolerance not in self._buffers:
            # The node itself logs those that it refuses.
            listener = frames.TransformListener(self._node, tolerance, log=lambda _: None)
            self._buffers[tolerance] = listener.buffer
        return self._buffers[tolerance]

    def _parameters_of(self, node: str) -> dict[str, Any]:
        """Values by name; empty while there is no answer."""
        answer = self._parameters[node].response() if node in self._parameters else None
        return {} if answer is None else dict(zip(_PARAMETERS, answer.values, strict=True))

    def _topics_to_receive(self) -> dict[str, str]:
        """Type by topic to subscribe to: the topic that was asked for, else those of our nodes, else some."""
        kinds = {
            topic: next(iter(publishers.values()))
            for topic, publishers in self._image_topics().items()
            if publishers and set(publishers.values()) <= set(_KINDS)
        }
        if self._topic is not None:
            return {topic: kind for topic, kind in kinds.items() if topic == self._topic}
        inputs = {topic for name in self._own_nodes() for topic in self._inputs(name)}
        received = inputs & set(kinds) or sorted(kinds)[:_MOST_TOPICS]
        return {topic: kinds[topic] for topic in received}

    def _image_topics(self) -> dict[str, dict[str, str]]:
        """Type by publisher, by topic of images; those that our own nodes publish are left out."""
        own = {topic for name in self._own_nodes() for topic in self._outputs(name)}
        topics = [name for name, kinds in self._node.get_topic_names_and_types() if set(kinds) & set(_KINDS)]
        return {name: self._senders(name) for name in topics if name not in own}

    def _senders(self, topic: str) -> dict[str, str]:
        """Type by publisher."""
        return {node_of(info): info.topic_type for info in self._publishers(topic)}

    def _publishers(self, topic: str) -> list[TopicEndpointInfo]:
        return list(self._node.get_publishers_info_by_topic(topic))

    def _inputs(self, node: str) -> dict[str, str]:
        """Type by topic of images that a node subscribes to, without depth; empty while the graph lacks it."""
        namespace, _, name = node.rpartition("/")
        with suppress(NodeNameNonExistentError):
            topics = self._node.get_subscriber_names_and_types_by_node(name, namespace or "/")
            depth = self._depth_topics()
            return {topic: kinds[0] for topic, kinds in topics if kinds[0] in _KINDS and topic not in depth}
        return {}

    def _outputs(self, node: str) -> list[str]:
        namespace, _, name = node.rpartition("/")
        with suppress(NodeNameNonExistentError):
            return [topic for topic, _ in self._node.get_publisher_names_and_types_by_node(name, namespace or "/")]
        return []

    def _describe(self, name: str) -> Node:
        state = self._states[name].response() if name in self._states else None
        parameters = self._parameters_of(name)
        label = "" if state is None else state.current_state.label
        simulated = bool(parameters) and parameters["use_sim_time"].bool_value
        return Node(name, label, self._inputs(name), simulated, bool(parameters) and _needs_transforms(parameters))

    def _mismatches(self, ours: Sequence[str]) -> Iterator[Mismatch]:
        """Publishers and subscribers with incompatible QoS, where one side is ours."""
        topics = {
            topic for name in ours for topic in (*self._inputs(name), *self._outputs(name))
        } | self._depth_topics()
        for topic in sorted(topics):
            subscribers = self._node.get_subscriptions_info_by_topic(topic)
            for publisher, subscriber in product(self._publishers(topic), subscribers):
                sender, hearer = node_of(publisher), node_of(subscriber)
                reason = qos_problem(publisher.qos_profile, subscriber.qos_profile)
                if reason and {sender, hearer} & set(ours):
                    yield Mismatch(topic, sender, hearer, reason)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            topics = {v.key.removeprefix(TOPIC): v.value for v in status.values if v.key.startswith(TOPIC)}
            topics = topics if "image" in topics else {}  # It may be of anybody.
            level = int.from_bytes(status.level, "big")
            self._statuses[status.name] = Status(status.name, level, status.message, topics)


def _needs_transforms(parameters: Mapping[str, Any]) -> bool:
    """Of the values of parameters as rclpy has them, where a node without the parameter has ""."""
    depth, target = parameters["depth"].string_value, parameters["target_frame"].string_value
    return needs_transforms(depth or NONE, parameters["depth_registered"].bool_value, target)


if __name__ == "__main__":
    sys.exit(main())
