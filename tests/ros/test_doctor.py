# SPDX-License-Identifier: Apache-2.0
"""What the doctor makes of a graph, situation by situation; and its look at real nodes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import time_ns
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import RED, draw
from instance_flow_msgs.msg import TrackedInstanceArray
from probe import Probe, to_header, to_message
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from instance_flow.commands import cli
from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding
from instance_flow.formats.depth_messages import compress
from instance_flow.spatial.pairing import PairingReport
from instance_flow_ros import frames
from instance_flow_ros.bridge import ImageBridge
from instance_flow_ros.depth_findings import Beside, DepthSeen
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

NODE, CAMERA = "/instance_flow", "/camera/driver"
SECONDS = 4.0

RECEIVED = Received(90, 30.0, "640 x 480 rgb8", age=0.012)


def graph(
    node: Node | None = None,
    topics: dict[str, Topic] | None = None,
    names: tuple[str, ...] = (NODE, CAMERA),
    **rest: Any,
) -> Graph:
    """A node that subscribes to /image, which a camera publishes, with changes."""
    node = node or Node(NODE, "active", {"/image": IMAGE})
    topics = {"/image": Topic({CAMERA: IMAGE}, RECEIVED)} if topics is None else topics
    return Graph(5.0, nodes=(node,), topics=topics, names=names, **rest)


def image(**changes: Any) -> dict[str, Topic]:
    """The camera's topic, where other images come."""
    return {"/image": Topic({CAMERA: IMAGE}, Received(**{**vars(RECEIVED), **changes}))}


INFO = "sensor_msgs/msg/CameraInfo"
DEPTH_TOPIC = Beside("depth", "/depth", "depth", IMAGE, {CAMERA: IMAGE}, 40)
CALIBRATION = Beside("camera_info", "/camera_info", "calibration", INFO, {CAMERA: INFO}, 50)
PAIRED, APART = PairingReport(40, 40, 2, (), ()), PairingReport(40, 0, 40, (0.3, 0.31, 0.32), ())


def deep(depth: dict[str, Any] | None = None, calibration: dict[str, Any] | None = None, **changes: Any) -> Graph:
    """A node with depth, of which something is changed."""
    beside = (replace(DEPTH_TOPIC, **depth or {}), replace(CALIBRATION, **calibration or {}))
    usual = {"frames": ("optical", "optical"), "valid": 0.9, "pairs": PAIRED, "tolerance": 0.02}
    return graph(depths=(DepthSeen(NODE, beside, **{**usual, **changes}),))


ELSEWHERE = {"/camera/image_raw": Topic({CAMERA: IMAGE})}
PACKED = {"/camera/image_raw/compressed": Topic({CAMERA: COMPRESSED_IMAGE})}
SIMULATED = Node(NODE, "active", {"/image": IMAGE}, use_sim_time=True)

SITUATIONS: dict[str, tuple[Graph, str, str, str]] = {
    "active": (graph(), NODE, OK, "active"),
    "fed": (graph(), "/image", OK, "from /camera/driver to /instance_flow"),
    "images": (graph(), "images on /image", OK, "30.0 Hz, 640 x 480 rgb8, 12 ms old"),
    "nothing runs": (Graph(5.0), "ROS graph", WARNING, "no instance-flow node within 5 s"),
    "unconfigured": (graph(Node(NODE, "unconfigured")), NODE, WARNING, "`ros2 lifecycle set /instance_flow configure`"),
    "inactive": (graph(Node(NODE, "inactive")), NODE, WARNING, "Run `ros2 lifecycle set /instance_flow activate`"),
    "finalized": (graph(Node(NODE, "finalized")), NODE, WARNING, "Start it again"),
    "no answer": (graph(Node(NODE, "")), NODE, WARNING, "does not say in which state"),
    "no publisher": (graph(topics={}), "/image", PROBLEM, "nor images anywhere else"),
    "topic known, publisher gone": (graph(topics={"/image": Topic({})}), "/image", PROBLEM, "Start the camera"),
    "near miss": (graph(topics=ELSEWHERE), "/image", PROBLEM, "--ros-args -r image:=/camera/image_raw`"),
    "near miss, compressed": (
        graph(topics=PACKED),
        "/image",
        PROBLEM,
        "-p image_transport:=compressed -r image:=/camera/image_raw`",
    ),
    "compressed for raw": (
        graph(topics={"/image": Topic({CAMERA: COMPRESSED_IMAGE})}),
        "/image",
        PROBLEM,
        "-p image_transport:=compressed -r image/compressed:=/image`",
    ),
    "another type": (
        graph(topics={"/image": Topic({CAMERA: "std_msgs/msg/String"})}),
        "/image",
        PROBLEM,
        "Name a topic of images",
    ),
    "two cameras": (
        graph(topics={"/image": Topic({CAMERA: IMAGE, "/other": IMAGE})}),
        "/image",
        WARNING,
        "/camera/driver and /other publish on it",
    ),
    "silence": (graph(topics=image(count=0)), "images on /image", PROBLEM, "none came within 5 s"),
    "cannot be read": (graph(topics=image(error="bad step")), "images on /image", PROBLEM, "bad step"),
    "no stamps": (graph(topics=image(age=None)), "images on /image", WARNING, "stamps are 0"),
    "stamps back": (graph(topics=image(backwards=True)), "images on /image", WARNING, "run backwards"),
    "stamps old": (graph(topics=image(age=7.2)), "images on /image", WARNING, "7.2 s behind this machine's clock"),
    "stamps ahead": (graph(topics=image(age=-3.0)), "images on /image", WARNING, "3.0 s ahead of this machine's clock"),
    "stamps of a bag": (graph(SIMULATED, image(age=1e8), has_clock=True), "images on /image", OK, "30.0 Hz"),
    "no clock": (graph(SIMULATED), NODE, PROBLEM, "/clock has no publisher"),
    "twice": (graph(names=(NODE, NODE)), NODE, PROBLEM, "runs 2 times"),
    "asked for, silent": (graph(asked="/other"), "/other", PROBLEM, "images on /image"),
    "QoS of the camera": (
        graph(mismatches=(Mismatch("/image", CAMERA, NODE, "Best effort publisher and reliable subscription"),)),
        "QoS on /image",
        PROBLEM,
        "set qos_overrides./image.subscription.reliability",
    ),
    "QoS of a listener": (
        graph(mismatches=(Mismatch("/instance_flow/instances", NODE, "/planner", "durability"),)),
        "QoS on /instance_flow/instances",
        PROBLEM,
        "Ask for no more than is offered in /planner",
    ),
    "tracking": (graph(statuses=(Status("instance_flow: stream", 0, "tracking"),)), "/diagnostics", OK, "tracking"),
    "node warns": (graph(statuses=(Status("instance_flow: stream", 1, "slow"),)), "/diagnostics", WARNING, "slow"),
    "node in error": (
        graph(statuses=(Status("instance_flow: stream", 2, "no model"),)),
        "/diagnostics",
        PROBLEM,
        "log",
    ),
    "depth": (deep(), "pairs with /depth", OK, "40 of 42 images have depth"),
    "depth without a publisher": (
        deep({"publishers": {}}),
        "depth on /depth",
        PROBLEM,
        "it has no publisher, so nothing is known in metres",
    ),
    "depth elsewhere": (
        deep({"publishers": {}, "elsewhere": ("/camera/depth",)}),
        "depth on /depth",
        PROBLEM,
        "-r depth:=/camera/depth`",
    ),
    "compressed depth for raw": (
        deep({"publishers": {CAMERA: COMPRESSED_IMAGE}}),
        "depth on /depth",
        PROBLEM,
        "set depth to raw or compressed",
    ),
    "depth is silent": (deep({"count": 0}), "depth on /depth", PROBLEM, "none came within 5 s"),
    "two send depth": (
        deep({"publishers": {CAMERA: IMAGE, "/b": IMAGE}}),
        "depth on /depth",
        WARNING,
        "and /b publish",
    ),
    "no calibration": (deep(None, {"publishers": {}}), "calibration on /camera_info", PROBLEM, "remap camera_info"),
    "wrong calibration": (
        deep(None, {"problem": "K is 0; calibrate the camera"}),
        "calibration on /camera_info",
        PROBLEM,
        "K is 0 Calibrate the camera.",
    ),
    "depth of another frame": (
        deep(frames=("optical", "depth_optical")),
        "depth on /depth",
        PROBLEM,
        "set depth_registered to false",
    ),
    "millimetres as metres": (deep(typical=1500.0), "depth on /depth", PROBLEM, "its median is 1500 m"),
    "nothing in depth": (deep(valid=0.0), "depth on /depth", PROBLEM, "no pixel has a depth"),
    "stamps never pair": (
        deep(pairs=APART),
        "depth on /depth",
        PROBLEM,
        "is +0.310 s Synchronize the two",
    ),
    "no transform": (
        deep(transforms="no transform of 'odom' was received; check its name"),
        "transforms",
        PROBLEM,
        "'odom' was received Check its name.",
    ),
    "no tf2_msgs": (
        graph(Node(NODE, "unconfigured", needs_transforms=True), has_transforms=False),
        NODE,
        PROBLEM,
        "apt install ros-$ROS_DISTRO-tf2-msgs",
    ),
}


RIGHT = {
    "another frame is none where it is not registered": deep(frames=("a", "b"), registered=False),
    "far, but no millimetres": deep(typical=80.0),
    "no transforms needed": graph(has_transforms=False),
}


@pytest.mark.parametrize("seen", RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_no_problem(seen: Graph) -> None:
    assert not [finding for finding in judge(seen) if finding.status != OK]


@pytest.mark.parametrize(("seen", "check", "status", "words"), SITUATIONS.values(), ids=SITUATIONS)
def test_graph(seen: Graph, check: str, status: str, words: str) -> None:
    assert any(is_about(f, check, status, words) for f in judge(seen)), judge(seen)


def is_about(finding: Finding, check: str, status: str, words: str) -> bool:
    return (finding.check, finding.status) == (check, status) and words in f"{finding.found} {finding.advice}"


def findings_of(probe: Probe | None, *command: str) -> list[Finding]:
    """Run a command that prints findings as JSON, while the probe's timers publish."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if probe is not None:
        probe.until(lambda: process.poll() is not None, "the end of the look at the graph")
    report = json.loads(process.communicate()[0])
    return [Finding(**row) for row in (report["findings"] if isinstance(report, dict) else report)]


CHECK = (sys.executable, "-m", "instance_flow_ros.graph_check", "--seconds", str(SECONDS))


def publish(probe: Probe, message_type: type, topic: str, qos: QoSProfile, make: Callable[[], Any]) -> None:
    """Publish ten times a second as long as the probe spins."""
    publisher = probe.node.create_publisher(message_type, topic, qos)
    probe.node.create_timer(0.1, lambda: publisher.publish(make()))


def until_state(node: Probe, state: str) -> None:
    node.until(lambda: node.state() == state, f"state {state}")


def expect(findings: list[Finding], check: str, status: str, words: str) -> None:
    assert any(is_about(f, check, status, words) for f in findings), findings


def picture() -> Image:
    return to_message(draw([(30, 40, RED)]), time_ns())


def test_command_finds_a_node_that_is_well(start: Callable[..., Probe], blobs_model: Path) -> None:
    node = start(model=blobs_model, provider="cpu").until_active()
    node.node.create_timer(0.1, lambda: node.send(picture()))
    command = shutil.which("instance-flow")
    assert command is not None
    findings = findings_of(node, command, "doctor", "--json", "--listen", str(SECONDS), str(blobs_model))
    name = f"{node.node.get_namespace()}/instance_flow"
    topic = f"{node.node.get_namespace()}/image"
    expect(findings, "ROS 2", OK, "rclpy in Python")
    expect(findings, "messages", OK, "as this instance-flow has them")
    expect(findings, name, OK, "active")
    expect(findings, topic, OK, f"from {node.node.get_namespace()}/probe to {name}")
    expect(findings, f"images on {topic}", OK, "128 x 96 rgb8")
    expect(findings, "/diagnostics", OK, f"{name[1:]}: stream: tracking")
    assert not [f for f in findings if f.check.startswith("QoS")]


def test_nodes_with_a_trouble_each(start: Callable[..., Probe], blobs_model: Path) -> None:
    """QoS that does not fit; compressed images, without stamps, for a node that expects raw ones; never configured."""
    topic, packed = "/doctor/best_effort", "/doctor/packed"
    data = array("B", cv2.imencode(".jpg", draw([(30, 40, RED)]))[1].tobytes())
    override = {f"qos_overrides.{topic}.subscription.reliability": "reliable"}
    picky = start({"image": topic}, model=blobs_model, provider="cpu", **override)
    raw = start({"image": packed}, model=blobs_model, provider="cpu")
    idle = start(autostart=False, use_sim_time=True)
    publish(picky, Image, topic, qos_profile_sensor_data, picture)
    publish(
        picky,
        CompressedImage,
        packed,
        qos_profile_sensor_data,
        lambda: CompressedImage(header=to_header(0), format="jpeg", data=data),
    )
    for node, state in ((picky, "active"), (raw, "active"), (idle, "unconfigured")):
        until_state(node, state)
    findings = findings_of(picky, *CHECK)
    expect(findings, f"QoS on {topic}", PROBLEM, "eliab")
    expect(findings, f"QoS on {topic}", PROBLEM, f"set qos_overrides.{topic}.subscription.reliability")
    expect(findings, f"images on {topic}", OK, "128 x 96 rgb8")
    expect(findings, packed, PROBLEM, f"-p image_transport:=compressed -r image/compressed:={packed}`")
    expect(findings, f"images on {packed}", WARNING, "128 x 96 jpeg, stamps are 0")
    name = f"{idle.node.get_namespace()}/instance_flow"
    expect(findings, name, WARNING, f"`ros2 lifecycle set {name} configure`, then `ros2 lifecycle set {name} activate`")
    expect(findings, name, PROBLEM, "/clock has no publisher")


def test_node_on_a_topic_without_publisher_and_a_subscriber_that_asks_for_the_past(
    start: Callable[..., Probe], blobs_model: Path
) -> None:
    node = start({"image": "/doctor/typo"}, model=blobs_model, provider="cpu")
    until_state(node, "active")
    latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.listen(TrackedInstanceArray, "instance_flow/instances", latched)
    silent = f"{node.node.get_namespace()}/image"
    findings = findings_of(node, *CHECK, "--topic", silent)
    expect(findings, "/doctor/typo", PROBLEM, f"-r image:={silent}`")
    expect(findings, f"images on {silent}", PROBLEM, f"none came within {SECONDS:g} s")
    listener = f"{node.node.get_namespace()}/probe"
    expect(findings, f"QoS on {node.node.get_namespace()}/instance_flow/instances", PROBLEM, f"offered in {listener}")


K = (100.0, 0.0, 63.5, 0.0, 100.0, 47.5, 0.0, 0.0, 1.0)


def feed(
    probe: Probe,
    name: str,
    depth: np.ndarray,
    k: tuple[float, ...] | None = K,
    seconds: float = 0.0,
    frame: str = "camera_optical_frame",
    packed: bool = False,
) -> None:
    """Publish images with depth and calibration, None = without, ten times a second while the probe spins.

    seconds: from the stamp of an image to that of its depth.   frame: of the depth.   packed: as compressedDepth.
    """
    images = probe.node.create_publisher(Image, f"{name}/image", 10)
    kind, topic = (CompressedImage, "depth/compressedDepth") if packed else (Image, "depth")
    depths = probe.node.create_publisher(kind, f"{name}/{topic}", 10)
    infos = probe.node.create_publisher(CameraInfo, f"{name}/camera_info", 10) if k else None
    encoding = "16UC1" if depth.dtype == np.uint16 else "32FC1"

    def send() -> None:
        stamp = time_ns()
        header = to_header(stamp + round(seconds * 1e9))
        header.frame_id = frame
        if packed:
            form, data = f"{encoding}; compressedDepth png", array("B", compress(depth))
            depths.publish(CompressedImage(header=header, format=form, data=data))
        else:
            depths.publish(ImageBridge().cv2_to_imgmsg(depth, encoding, header))
        images.publish(to_message(draw([(30, 40, RED)]), stamp))
        if infos is not None:
            infos.publish(CameraInfo(header=to_header(stamp), k=np.array(k), height=96, width=128))

    probe.node.create_timer(0.1, send)


def test_cameras_with_depth_and_a_trouble_each(start: Callable[..., Probe], blobs_model: Path) -> None:
    names = ["well", "metres", "bare", "zero", "large", "late", "nothing"]
    node = start(model=blobs_model, provider="cpu", depth="raw", cameras=names)
    lost = start(model=blobs_model, provider="cpu", depth="raw", target_frame="odom")
    packed = start(model=blobs_model, provider="cpu", depth="compressed")
    right = np.full((96, 128), 1500, np.uint16)
    feed(node, "well", right)
    feed(node, packed.node.get_namespace(), right, packed=True)
    feed(node, "metres", right.astype(np.float32), frame="camera_depth_optical_frame")
    feed(node, "bare", right, None)
    feed(node, "stray", right)
    feed(node, "zero", right, (0.0,) * 9)
    feed(node, "large", np.full((192, 256), 1500, np.uint16))
    feed(node, "late", right, seconds=-100)
    feed(node, "nothing", np.zeros((96, 128), np.float32))
    until_state(node, "active")
    until_state(packed, "active")
    until_state(lost, "unconfigured")
    findings = findings_of(node, *CHECK)
    space = node.node.get_namespace()
    expect(findings, f"depth on {space}/well/depth", OK, "came")
    expect(findings, f"calibration on {space}/well/camera_info", OK, "came")
    expect(findings, f"pairs with {space}/well/depth", OK, "images have depth")
    expect(findings, f"pairs with {packed.node.get_namespace()}/depth/compressedDepth", OK, "images have depth")
    metres = f"depth on {space}/metres/depth"
    expect(findings, metres, PROBLEM, "its median is 1500 m: these are millimetres")
    expect(findings, metres, PROBLEM, "in the frame 'camera_depth_optical_frame' and the images are in 'camera_optical")
    bare = f"calibration on {space}/bare/camera_info"
    expect(findings, bare, PROBLEM, "it has no publisher, so nothing is known in metres")
    expect(findings, bare, PROBLEM, f"`-r bare/camera_info:={space}/stray/camera_info`")
    expect(findings, f"calibration on {space}/zero/camera_info", PROBLEM, "focal lengths 0 and 0")
    expect(findings, f"depth on {space}/large/depth", PROBLEM, "256 x 192 pixels and the image 128 x 96 Register the")
    expect(findings, f"depth on {space}/late/depth", PROBLEM, "the median difference of their stamps is -9")
    expect(findings, f"depth on {space}/nothing/depth", PROBLEM, "no pixel has a depth")
    if not frames.AVAILABLE:
        expect(findings, f"{lost.node.get_namespace()}/instance_flow", PROBLEM, "tf2_msgs is not installed")
    wrong = [f for f in findings if f.status == PROBLEM]
    assert not [f for f in wrong if "/well/" in f.check], wrong
    assert not [f for f in findings if f.check == f"images on {space}/metres/depth"], "depth taken for images"


def test_empty_graph() -> None:
    findings = findings_of(None, *CHECK[:-1], "1", "--topic", "doctor/none")
    expect(findings, "ROS graph", WARNING, "no instance-flow node")
    expect(findings, "/doctor/none", PROBLEM, "it has no publisher")


def test_topic_that_cannot_be_one_is_told(capfd: pytest.CaptureFixture[str], blobs_model: Path) -> None:
    assert cli.main(["doctor", "--listen", "1", "--topic", "two words", str(blobs_model)]) == 1
    assert "'two words' is no name of a topic" in capfd.readouterr().out
