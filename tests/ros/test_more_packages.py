# SPDX-License-Identifier: Apache-2.0
"""What the node does where tf2_msgs and vision_msgs are installed, as in a ROS installation; see packages/README.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; `make test` builds it for this file")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed; `make test` builds it for this file")

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, Quaternion, Transform, TransformStamped, Vector3
from instance_flow_msgs.msg import Instance3D
from probe import Probe, to_header
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, PointCloud2
from test_conversions import HEADER, LABEL_MAPS, make_tracks
from test_depth import (
    DEPTHS,
    DISCS,
    FOCAL,
    RIGHT,
    STAMPS,
    Rig,
    depth_image,
    info,
    measured,
    position,
    raw,
    said,
    states,
)
from test_doctor import CHECK, expect, feed, findings_of, until_state
from test_planner_examples import CAMERA, ODOM, Script, Thing, message_of
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2DArray, Detection3DArray

from instance_flow.doctor.finding import OK, PROBLEM
from instance_flow.formats.messages import to_instance_array
from instance_flow_ros.conversions import TYPES
from instance_flow_ros.detections import to_detections

SECOND = 10**9
MANY, LATCHED = QoSProfile(depth=100), QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
OPTICAL = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)
"""From the optical frame to x forward, y left, z up (REP 103)."""


def forward_left_up(place: np.ndarray) -> np.ndarray:
    x, y, z = place
    return np.array([z, -x, -y])


def placed(parent: str, child: str, stamp: int, place: Any = (0.0, 0.0, 0.0), turn: Quaternion | None = None) -> Any:
    x, y, z = map(float, place)
    transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=turn or Quaternion(w=1.0))
    header = to_header(stamp)
    header.frame_id = parent
    return TransformStamped(header=header, child_frame_id=child, transform=transform)


MOUNTED = placed("base", CAMERA, 0, (0, 0, 1), OPTICAL)


class MovingRig(Rig):
    """A camera 1 m above ``base``, which drives along x of ``odom`` at 1 m/s."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe)
        self.moving = probe.node.create_publisher(TFMessage, "/tf", MANY)
        self.static = probe.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        probe.until(self.moving.get_subscription_count, "a subscription to our transforms")
        probe.until(self.static.get_subscription_count, "a subscription to our static transforms")

    def mount(self) -> None:
        self.static.publish(TFMessage(transforms=[MOUNTED]))

    def drive(self, stamp: int) -> Any:
        """Transforms around a stamp; the depth of the discs, which stand still and come nearer."""
        for when in (stamp - SECOND // 20, stamp + SECOND // 20):
            self.moving.publish(TFMessage(transforms=[placed("odom", "base", when, (travelled(when), 0, 0))]))
        nearer = round((travelled(stamp) - self.start) * 1000)
        return raw(depth_image() - np.uint16(nearer), stamp)

    def drive_from_here(self, stamp: int) -> Any:
        """As ``drive``, with the discs at their first distance."""
        self.start = travelled(stamp)
        return self.drive(stamp)

    start = 0.0


def travelled(stamp: int) -> float:
    return stamp / SECOND


@pytest.fixture(scope="module")
def probe(start_for_all: Callable[..., Probe], blobs_model: Path) -> Probe:
    settings = {"depth": "raw", "depth_wait": 1.0, "target_frame": "odom"}
    return start_for_all(model=blobs_model, provider="cpu", **settings).until_active()


def test_places_are_in_the_target_frame_and_velocities_over_ground(probe: Probe) -> None:
    rig = MovingRig(probe)
    status = said(rig, lambda: rig.ask(stamp := next(STAMPS), RIGHT(stamp), info(stamp)), "no transform of the frame")
    assert status.level == DiagnosticStatus.WARN
    assert states(rig.camera.answers[-1]) == [Instance3D.BAD_CAMERA] * 2
    clouds = probe.listen(PointCloud2, "instance_flow/objects_cloud")
    rig.mount()
    rig.start = travelled(next(STAMPS))
    # Depth falls by 0.1 m a frame; the filter has settled after half a second, the nearer disc is still 0.7 m away.
    answers = [rig.ask(stamp, rig.drive(stamp), info(stamp)) for stamp in (next(STAMPS) for _ in range(8))]
    known = [answer for answer in answers if measured(answer)]
    assert len(known) >= 4, [states(answer) for answer in answers]
    last = known[-1]
    assert last.spatial_frame_id == "odom"
    assert last.header.frame_id == to_header(0).frame_id
    for instance, (x, y, _), millimetres in zip(last.instances, DISCS, DEPTHS, strict=True):
        stamp = last.header.stamp.sec * SECOND + last.header.stamp.nanosec
        z = millimetres - round((travelled(stamp) - rig.start) * 1000)
        expected = forward_left_up(position(x, y, z)) + np.array((travelled(stamp), 0, 1))
        at, way = instance.spatial.position, instance.spatial.velocity
        np.testing.assert_allclose((at.x, at.y, at.z), expected, atol=0.05)
        assert abs(way.x) < 0.3  # 1 m/s relative to the camera
    probe.until(lambda: clouds and clouds[-1].header.stamp == last.header.stamp, "the points of the last image")
    assert clouds[-1].header.frame_id == "odom"


def test_what_tf_does_not_know_leaves_only_the_metres_unknown(probe: Probe) -> None:
    rig = MovingRig(probe)
    rig.mount()
    rig.drive(next(STAMPS))

    def far_ahead() -> None:
        stamp = next(STAMPS) + 60 * SECOND
        rig.ask(stamp, RIGHT(stamp), info(stamp))

    assert "extrapolation into the future" in said(rig, far_ahead, "after the newest transform of 'base'").message
    assert states(rig.camera.answers[-1]) == [Instance3D.BAD_CAMERA] * 2


def test_detections_of_both_kinds_say_what_the_instances_say(probe: Probe) -> None:
    rig = MovingRig(probe)
    rig.mount()
    flat = probe.listen(Detection2DArray, "instance_flow/detections")
    deep = probe.listen(Detection3DArray, "instance_flow/detections_3d")
    rig.start = travelled(next(STAMPS))
    answer = rig.until(lambda answer: measured(answer) and bool(flat and deep), rig.drive_from_here)
    probe.until(lambda: flat[-1].header.stamp == deep[-1].header.stamp == answer.header.stamp, "those of that image")
    assert (flat[-1].header, deep[-1].header.frame_id) == (answer.header, "odom")
    for instance, box, solid in zip(answer.instances, flat[-1].detections, deep[-1].detections, strict=True):
        assert box.id == solid.id == str(instance.id)
        (result,) = solid.results
        assert (result.hypothesis.class_id, result.hypothesis.score) == (instance.class_name, instance.score)
        assert result.pose.pose.position == instance.spatial.position
        np.testing.assert_allclose(np.reshape(result.pose.covariance, (6, 6))[0, 0], instance.spatial.covariance[0])
        assert (solid.bbox.center, solid.bbox.size) == (instance.spatial.box, instance.spatial.extent)
        assert (box.bbox.size_x, box.bbox.size_y) == (instance.box.width, instance.box.height)


def test_depth_of_another_camera_is_registered(start: Callable[..., Probe], blobs_model: Path) -> None:
    """The depth camera is 10 cm to the right, and has twice the focal length."""
    node = start(model=blobs_model, provider="cpu", depth="raw", depth_wait=1.0, depth_registered=False).until_active()
    rig = Rig(node)
    infos = node.node.create_publisher(CameraInfo, "depth/camera_info", MANY)
    static = node.node.create_publisher(TFMessage, "/tf_static", LATCHED)
    node.until(infos.get_subscription_count, "a subscription to the calibration of the depth camera")
    wide = (192, 256)
    k = [2 * FOCAL, 0.0, 127.5, 0.0, 2 * FOCAL, 95.5, 0.0, 0.0, 1.0]
    depth = np.full(wide, 2000, np.uint16)

    def message(stamp: int) -> Any:
        seen = raw(depth, stamp)
        seen.header.frame_id = "depth_optical_frame"
        static.publish(TFMessage(transforms=[placed(to_header(0).frame_id, "depth_optical_frame", 0, (0.1, 0, 0))]))
        infos.publish(info(stamp, k, height=wide[0], width=wide[1]))
        return seen

    answer = rig.until(measured, message)
    for instance, (x, y, _) in zip(answer.instances, DISCS, strict=True):
        at = instance.spatial.position
        np.testing.assert_allclose((at.x, at.y, at.z), position(x, y, 2000), atol=0.03)


def test_doctor_finds_transforms_that_are_missing(start: Callable[..., Probe], blobs_model: Path) -> None:
    settings: dict[str, Any] = {"model": blobs_model, "provider": "cpu", "depth": "raw"}
    node = start(cameras=["front", "rear"], target_frame="doctor_odom", **settings)
    apart = start(depth_registered=False, **settings)
    depth = np.full((96, 128), 1500, np.uint16)
    for name in ("front", "rear"):
        feed(node, name, depth)
    feed(node, f"{apart.node.get_namespace()}", depth, frame="doctor_depth_frame")
    until_state(node, "active")
    until_state(apart, "active")
    findings = findings_of(node, *CHECK)
    expect(findings, "transforms", PROBLEM, "no transform of the frame 'doctor_odom' was received Check its name")
    expect(findings, "transforms", PROBLEM, "there is no transform from 'doctor_depth_frame' to")
    info_topic = f"{apart.node.get_namespace()}/depth/camera_info"
    expect(findings, f"calibration on {info_topic}", PROBLEM, "it has no publisher")
    assert not [f for f in findings if "is not registered to them" in f.found]
    static = node.node.create_publisher(TFMessage, "/tf_static", LATCHED)
    known = [("doctor_odom", "base"), (CAMERA, "doctor_depth_frame")]
    static.publish(TFMessage(transforms=[MOUNTED, *(placed(*frames, 0) for frames in known)]))
    findings = findings_of(node, *CHECK)
    expect(findings, f"pairs with {node.node.get_namespace()}/front/depth", OK, "images have depth")
    assert not [f for f in findings if f.check == "transforms"]


def test_goal_in_a_target_frame_is_seen_from_where_the_camera_is(tmp_path: Path) -> None:
    script = Script(tmp_path / "log", "follow.py", "/planner_tf", PoseStamped, "goal_update", {"id": 1, "distance": 1})
    try:
        thing = Thing(1, at=(1, 5, 0.5))
        script.until_logged(message_of(thing, frame=ODOM), "no goal: ")
        static = script.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        static.publish(TFMessage(transforms=[placed(ODOM, "base", 0, (1, 2, 0)), MOUNTED]))
        script.until_logged(message_of(thing, frame=ODOM, index=1), "following person 1")
        goal = script.answer(message_of(thing, frame=ODOM, index=2))
        at, turn = goal.pose.position, goal.pose.orientation
        assert goal.header.frame_id == ODOM
        np.testing.assert_allclose((at.x, at.y, at.z), (1, 4, 0.5), atol=1e-6)
        np.testing.assert_allclose((turn.x, turn.y, turn.z, turn.w), (0, 0, 0.5**0.5, 0.5**0.5), atol=1e-6)
    finally:
        script.close()


def test_detections_have_the_same_boxes_and_ids() -> None:
    message = to_instance_array(TYPES, make_tracks(LABEL_MAPS["corners"]), HEADER, ("red", "blue"))
    found = to_detections(message)
    assert found.header == HEADER
    for detection, instance in zip(found.detections, message.instances, strict=True):
        hypothesis = detection.results[0].hypothesis
        assert (detection.header, detection.id) == (HEADER, str(instance.id))
        assert (hypothesis.class_id, hypothesis.score) == (instance.class_name, instance.score)
        assert (detection.bbox.size_x, detection.bbox.size_y) == (4.0, 3.0)
        assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (1.5, 1.0)
