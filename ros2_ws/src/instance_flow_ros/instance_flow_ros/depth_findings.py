# SPDX-License-Identifier: Apache-2.0
"""What `instance-flow doctor` says of depth, calibration and transforms: pure functions from what was seen
(depth_watch) to findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding
from instance_flow.spatial.pairing import PairingReport

NO_TRANSFORMS = "tf2_msgs is not installed, and target_frame and depth_registered: false need it"
INSTALL_TRANSFORMS = "Use a ROS installation (apt install ros-$ROS_DISTRO-tf2-msgs), or set neither of the two."

_FARTHEST = 100.0
"""Metres: what a robot's depth is less than, at the median, and what half of all millimetres are more than."""


@dataclass(frozen=True)
class Beside:
    """A topic beside the images of a camera.

    name: as the node calls it, for a remapping; what: it carries, in words; expected: its type.
    publishers: type by full name of the node.   elsewhere: other topics that may have been meant.
    count: messages that came.   problem: what is wrong with them, in one sentence.
    """

    name: str
    topic: str
    what: str
    expected: str
    publishers: Mapping[str, str]
    count: int = 0
    elsewhere: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class DepthSeen:
    """What came beside the images of one camera of a node.

    topics: depth, the calibration, and that of the depth camera where depth is not registered.
    frames: of the images and of depth, "" = none came.   registered: whether the node takes depth for registered.
    valid: share of the pixels that have a depth, None where none could be read.
    typical: median of the valid values of floating point, metres; NaN where they are integers or there are none.
    transforms: why frames cannot be looked up, in one sentence.
    """

    node: str
    topics: tuple[Beside, ...]
    frames: tuple[str, str] = ("", "")
    registered: bool = True
    valid: float | None = None
    typical: float = float("nan")
    pairs: PairingReport = field(default_factory=lambda: PairingReport(0, 0, 0, (), ()))
    tolerance: float = 0.0
    transforms: str = ""


def judge_depth(seen: DepthSeen, seconds: float) -> Iterator[Finding]:
    """Give the findings on what came beside images within some seconds."""
    for topic in seen.topics:
        yield _judge_topic(topic, seen.node, seconds)
    check = f"depth on {seen.topics[0].topic}"
    image, depth = seen.frames
    if seen.registered and image and depth and image != depth:
        found = f"it is in the frame '{depth}' and the images are in '{image}': it is not registered to them"
        advice = "Take the driver's registered (aligned) depth, or set depth_registered to false."
        yield Finding(PROBLEM, check, found, advice)
    if seen.typical > _FARTHEST:
        found = f"its median is {seen.typical:.0f} m: these are millimetres, but floating point is read as metres"
        yield Finding(PROBLEM, check, found, "Let the publisher divide by 1000, or send 16UC1.")
    if seen.valid == 0:
        found = "no pixel has a depth: all are 0, 65535, negative or not a number"
        yield Finding(PROBLEM, check, found, "See that nothing covers the depth camera, and that its projector is on.")
    if words := seen.pairs.problem(seen.tolerance):
        yield _sentence(check, words)
    elif seen.pairs.paired and not seen.topics[0].problem:
        total = seen.pairs.paired + seen.pairs.unpaired
        yield Finding(OK, f"pairs with {seen.topics[0].topic}", f"{seen.pairs.paired} of {total} images have depth")
    if seen.transforms:
        yield _sentence("transforms", seen.transforms)


def no_publisher(node: str) -> str:
    """What is found of a topic that only a node of ours uses."""
    return f"{node} subscribes to it, but it has no publisher"


def other_types(node: str, expected: str, publishers: Mapping[str, str]) -> tuple[list[str], str]:
    """Types on a topic that a node does not expect, and what is found of them; publishers as of ``Beside``."""
    others = sorted({kind for kind in publishers.values() if kind != expected})
    return others, f"{node} expects {expected}, but {', '.join(publishers)} sends {', '.join(others)}"


def several_publishers(publishers: Mapping[str, str]) -> str:
    """What is found of a topic with more than one publisher; publishers as of ``Beside``."""
    return f"{' and '.join(publishers)} publish on it"


def _judge_topic(topic: Beside, node: str, seconds: float) -> Finding:
    check = f"{topic.what} on {topic.topic}"
    if not topic.publishers:
        found = f"{no_publisher(node)}, so nothing is known in metres"
        if not topic.elsewhere:
            return Finding(PROBLEM, check, found, f"Let the camera's driver publish it, or remap {topic.name}.")
        found += f"; there is {', '.join(topic.elsewhere)}"
        return Finding(PROBLEM, check, found, f"Start the node with `-r {topic.name}:={topic.elsewhere[0]}`.")
    others, found = other_types(node, topic.expected, topic.publishers)
    if others:
        return Finding(
            PROBLEM, check, found, f"Remap {topic.name} to another topic, or set depth to raw or compressed."
        )
    if not topic.count:
        found = f"none came within {seconds:g} s, though there is a publisher"
        return Finding(PROBLEM, check, found, "See that the driver runs, and what is said here of QoS.")
    if len(topic.publishers) > 1:
        found = several_publishers(topic.publishers)
        return Finding(WARNING, check, found, "Let one of them publish, or remap the other.")
    return _sentence(check, topic.problem) if topic.problem else Finding(OK, check, f"{topic.count} came")


def _sentence(check: str, words: str) -> Finding:
    """A problem of a sentence whose last part, after a semicolon, says what to do."""
    found, _, advice = words.rpartition("; ")
    if not found:
        return Finding(PROBLEM, check, words, "Nothing is known in metres until then.")
    return Finding(PROBLEM, check, found, f"{advice[0].upper()}{advice[1:]}.")
