# SPDX-License-Identifier: Apache-2.0
"""What `instance-flow doctor` says of a ROS graph: pure functions from what was seen (graph_check) to findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding
from instance_flow_ros.depth_findings import (
    INSTALL_TRANSFORMS,
    NO_TRANSFORMS,
    DepthSeen,
    judge_depth,
    no_publisher,
    other_types,
    several_publishers,
)

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

_COMPRESSED = "/compressed"
_OLDEST, _YOUNGEST = 1.0, -0.1
"""Seconds between stamp and arrival beyond which the clocks of camera and node must differ."""

_PROFILE = "give the driver the Fast DDS profile for images (see there), or more network"


@dataclass(frozen=True)
class Node:
    """An instance-flow node. state: label of its lifecycle state, "" = no answer.

    inputs: topics of images that it subscribes to, and the type that it expects there.
    needs_transforms: whether its parameters ask for frames to be looked up.
    """

    name: str
    state: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    use_sim_time: bool = False
    needs_transforms: bool = False


@dataclass(frozen=True)
class Received:
    """Images that came on a topic. description: size and encoding of the first; error: why it cannot be read.

    rate: per second.   age: seconds between stamp and arrival of the last, None without a stamp.
    backwards: whether a stamp was before the one before it.
    """

    count: int
    rate: float = 0.0
    description: str = ""
    error: str = ""
    age: float | None = None
    backwards: bool = False


@dataclass(frozen=True)
class Topic:
    """A topic of images. publishers: type by full name of the node.   received: None where it was not subscribed to."""

    publishers: Mapping[str, str]
    received: Received | None = None


@dataclass(frozen=True)
class Mismatch:
    """A publisher and a subscriber of a topic whose QoS keeps them apart, and why. Full names of nodes."""

    topic: str
    publisher: str
    subscriber: str
    reason: str


@dataclass(frozen=True)
class Status:
    """What a node says of itself on /diagnostics. level: 0 OK, 1 WARN, 2 ERROR, 3 STALE.

    topics: what it listens to, by its own names, once it is configured.
    """

    name: str
    level: int
    message: str
    topics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """All that was seen within some seconds.

    names: full names of all nodes, one that runs twice twice.   asked: the topic that the user asked for.
    topics: of images, those that our nodes publish or take for depth left out.
    depths: what came beside the images of each camera that has depth.   has_transforms: whether tf2_msgs is installed.
    """

    seconds: float
    asked: str | None = None
    names: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    topics: Mapping[str, Topic] = field(default_factory=dict)
    mismatches: tuple[Mismatch, ...] = ()
    statuses: tuple[Status, ...] = ()
    has_clock: bool = False
    depths: tuple[DepthSeen, ...] = ()
    has_transforms: bool = True


def judge(graph: Graph) -> list[Finding]:
    """Give the findings on a graph."""
    if not graph.nodes:
        found = f"no instance-flow node within {graph.seconds:g} s, {len(graph.names)} other nodes"
        advice = "Start it with `ros2 launch instance_flow_ros instance_flow.launch.py`, with the ROS_DOMAIN_ID of this"
        findings = [Finding(WARNING, "ROS graph", found, f"{advice} shell.")]
    else:
        findings = [finding for node in graph.nodes for finding in _judge_node(node, graph)]
    if graph.asked is not None and not _publishers(graph.asked, graph):
        findings.append(_judge_silence(graph.asked, "it has no publisher", graph))
    simulated = any(node.use_sim_time for node in graph.nodes)
    for name, topic in graph.topics.items():
        if topic.received is not None and topic.publishers:
            findings.append(_judge_received(name, topic.received, graph.seconds, simulated))
    findings += [finding for seen in graph.depths for finding in judge_depth(seen, graph.seconds)]
    findings += [_judge_mismatch(mismatch, graph) for mismatch in graph.mismatches]
    return findings + [_judge_status(status) for status in graph.statuses]


def _judge_node(node: Node, graph: Graph) -> list[Finding]:
    findings = [_judge_state(node)]
    if graph.names.count(node.name) > 1:
        advice = "End all but one, or give each a name of its own with `-r __node:=...`."
        findings.append(Finding(PROBLEM, node.name, f"runs {graph.names.count(node.name)} times", advice))
    if node.use_sim_time and not graph.has_clock:
        advice = "Play the bag with --clock, or set use_sim_time to false."
        findings.append(Finding(PROBLEM, node.name, "use_sim_time is set, but /clock has no publisher", advice))
    if node.needs_transforms and not graph.has_transforms:
        findings.append(Finding(PROBLEM, node.name, NO_TRANSFORMS, INSTALL_TRANSFORMS))
    return findings + [_judge_input(node.name, name, expected, graph) for name, expected in node.inputs.items()]


def _judge_state(node: Node) -> Finding:
    if node.state == "active":
        return Finding(OK, node.name, "active")
    if not node.state:
        advice = "It is loading a model, or hangs: see its log."
        return Finding(WARNING, node.name, "runs, but does not say in which state", advice)
    steps = {"unconfigured": ("configure", "activate"), "inactive": ("activate",)}.get(node.state, ())
    commands = ", then ".join(f"`ros2 lifecycle set {node.name} {step}`" for step in steps)
    advice = f"Run {commands}; its log says why, if that fails." if commands else "Start it again."
    return Finding(WARNING, node.name, f"{node.state}: it is not subscribed to images", advice)


def _judge_input(node: str, name: str, expected: str, graph: Graph) -> Finding:
    """Whether a topic has one publisher, of the type that a node expects."""
    publishers = _publishers(name, graph)
    if not publishers:
        return _judge_silence(name, no_publisher(node), graph)
    others, found = other_types(node, expected, publishers)
    if others:
        readable = [kind for kind in others if kind in (IMAGE, COMPRESSED_IMAGE)]
        advice = f"Start the node with `{_remapping(name, readable[0])}`." if readable else "Name a topic of images."
        return Finding(PROBLEM, name, found, advice)
    if len(publishers) > 1:
        found = f"{several_publishers(publishers)}: their images are mixed into one stream"
        return Finding(WARNING, name, found, "Give each camera a topic, and the node a list of cameras.")
    return Finding(OK, name, f"from {', '.join(publishers)} to {node}")


def _judge_silence(name: str, found: str, graph: Graph) -> Finding:
    """The finding for a topic without publishers; names the topics that have some."""
    elsewhere = {other: topic for other, topic in graph.topics.items() if topic.publishers}
    if not elsewhere:
        advice = "Start the camera, with the ROS_DOMAIN_ID of this shell."
        return Finding(PROBLEM, name, f"{found}, nor images anywhere else", advice)
    first, topic = next(iter(elsewhere.items()))
    advice = f"Start the node with `{_remapping(first, next(iter(topic.publishers.values())))}`."
    return Finding(PROBLEM, name, f"{found}; there are images on {', '.join(elsewhere)}", advice)


def _publishers(name: str, graph: Graph) -> Mapping[str, str]:
    return graph.topics[name].publishers if name in graph.topics else {}


def _remapping(topic: str, kind: str) -> str:
    """Options of the node for a topic; image_transport appends the transport to the name of the topic."""
    if kind == COMPRESSED_IMAGE:
        usual = topic.endswith(_COMPRESSED)
        name = f"image:={topic.removesuffix(_COMPRESSED)}" if usual else f"image{_COMPRESSED}:={topic}"
        return f"--ros-args -p image_transport:=compressed -r {name}"
    return f"--ros-args -r image:={topic}"


def _judge_received(name: str, received: Received, seconds: float, simulated: bool) -> Finding:
    check = f"images on {name}"
    if not received.count:
        advice = f"See that the driver runs; if it does, {_PROFILE}."
        return Finding(PROBLEM, check, f"none came within {seconds:g} s, though there is a publisher", advice)
    if received.error:
        return Finding(
            PROBLEM, check, f"cannot be read: {received.error}", "Set another encoding in the camera's driver."
        )
    found = f"{received.rate:.1f} Hz, {received.description}"
    if received.age is None:
        advice = "Let the driver set them: without, velocities are unknown and nothing can be synchronised."
        return Finding(WARNING, check, f"{found}, stamps are 0", advice)
    if received.backwards:
        advice = "Look for a second publisher, or a bag that plays in a loop: ids begin at 1 again each time."
        return Finding(WARNING, check, f"{found}, stamps run backwards", advice)
    if not simulated and not _YOUNGEST <= received.age <= _OLDEST:
        side = "behind" if received.age > 0 else "ahead of"
        advice = "Synchronise the clocks (chrony); for a recording, play it with --clock and set use_sim_time."
        return Finding(
            WARNING, check, f"{found}, stamps are {abs(received.age):.1f} s {side} this machine's clock", advice
        )
    return Finding(OK, check, f"{found}, {received.age * 1e3:.0f} ms old")


def _judge_mismatch(mismatch: Mismatch, graph: Graph) -> Finding:
    found = f"{mismatch.subscriber} receives nothing from {mismatch.publisher}: {mismatch.reason}"
    if mismatch.subscriber in {node.name for node in graph.nodes}:
        policy = f"qos_overrides.{mismatch.topic}.subscription"
        advice = f"Ask for no more than is offered: set {policy}.reliability (or .durability) of the node."
    else:
        advice = f"Ask for no more than is offered in {mismatch.subscriber}."
    return Finding(PROBLEM, f"QoS on {mismatch.topic}", found, advice)


def _judge_status(status: Status) -> Finding:
    level = (OK, WARNING)[status.level] if status.level < 2 else PROBLEM
    advice = "" if level == OK else "The node's log says more."
    return Finding(level, "/diagnostics", f"{status.name}: {status.message}", advice)
