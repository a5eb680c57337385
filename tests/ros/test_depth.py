# SPDX-License-Identifier: Apache-2.0
"""The node in metres: depth and calibration beside the images, and what happens where they are wrong or missing."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import BLUE, RED, SIZE, draw
from diagnostic_msgs.msg import DiagnosticStatus
from instance_flow_msgs.msg import Instance3D, TrackedInstanceArray
from numpy.typing import NDArray
from probe import Probe, ProbeCamera, to_header, to_message, values
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from instance_flow_ros import frames
from instance_flow_ros.bridge import ImageBridge

SECOND = 10**9
FOCAL, CENTER = 100.0, (63.5, 47.5)
K = (FOCAL, 0.0, CENTER[0], 0.0, FOCAL, CENTER[1], 0.0, 0.0, 1.0)
DISCS = [(30, 40, RED), (90, 50, BLUE)]
PICTURE = draw(DISCS)
DEPTHS = (1500, 3000)
"""Millimetres of the two discs, in front of a wall at 5 m."""
INFO_TOPIC, DEPTH_TOPIC, CLOUD = "camera_info", "depth", "instance_flow/objects_cloud"
MANY = QoSProfile(depth=10)


def depth_image(kind: Any = np.uint16) -> NDArray[Any]:
    """Depth of the discs and of the wall."""
    depth = np.full(SIZE, 5000, np.uint16)
    for (x, y, _), millimetres in zip(DISCS, DEPTHS, strict=True):
        cv2.circle(depth, (x, y), 12, millimetres, -1)  # type: ignore[call-overload]
    return depth if kind is np.uint16 else (depth / 1000).astype(kind)


def raw(depth: NDArray[Any], stamp: int) -> Image:
    encoding = {np.dtype(np.uint16): "16UC1", np.dtype(np.float32): "32FC1", np.dtype(np.uint8): "8UC1"}[depth.dtype]
    return ImageBridge().cv2_to_imgmsg(depth, encoding, to_header(stamp))


def info(stamp: int, k: Any = K, **fields: Any) -> CameraInfo:
    size = {"height": SIZE[0], "width": SIZE[1]}
    return CameraInfo(header=to_header(stamp), k=np.array(k, np.float64), distortion_model="plumb_bob", **size | fields)


class Rig:
    """A camera with depth: the probe's images, and publishers of what belongs to them."""

    def __init__(self, probe: Probe, prefix: str = "", kind: type = Image, depth_topic: str = DEPTH_TOPIC) -> None:
        self.probe = probe
        self.depths = probe.node.create_publisher(kind, f"{prefix}{depth_topic}", MANY)
        self.infos = probe.node.create_publisher(CameraInfo, f"{prefix}{INFO_TOPIC}", MANY)
        self.camera = ProbeCamera(probe, prefix.rstrip("/")) if prefix else probe.camera
        probe.until(self.depths.get_subscription_count, "a subscription to our depth")
        probe.until(self.infos.get_subscription_count, "a subscription to our calibration")

    def ask(self, stamp: int, depth: Any, calibration: CameraInfo | None) -> TrackedInstanceArray:
        """The answer to an image whose depth and calibration were sent before it."""
        for publisher, message in ((self.infos, calibration), (self.depths, depth)):
            if message is not None:
                publisher.publish(message)
        return self.camera.ask(to_message(PICTURE, stamp))

    def until(self, answered: Callable[[TrackedInstanceArray], bool], message: Callable[[int], Any], k: Any = K) -> Any:
        """Send frames, with the depth of each by ``message``, until an answer is as it should be, and give that."""
        # The three topics are not ordered, so that a depth may come after its image was answered.
        for _ in range(100):
            stamp = next(STAMPS)
            answer = self.ask(stamp, message(stamp), info(stamp, k))
            if answered(answer):
                return answer
        raise AssertionError(f"a hundred frames, and the last answer is {[i.spatial for i in answer.instances]}")


STAMPS = (tick * SECOND // 10 for tick in count(100))


def states(answer: TrackedInstanceArray) -> list[int]:
    return [instance.spatial.state for instance in answer.instances]


def measured(answer: TrackedInstanceArray) -> bool:
    return states(answer) == [Instance3D.MEASURED] * 2


def position(x: int, y: int, millimetres: int) -> NDArray[np.float64]:
    z = millimetres / 1000
    return np.array([(x - CENTER[0]) / FOCAL * z, (y - CENTER[1]) / FOCAL * z, z])


@pytest.fixture(scope="module")
def probe(start_for_all: Callable[..., Probe], blobs_model: Path) -> Probe:
    return start_for_all(model=blobs_model, provider="cpu", depth="raw", depth_wait=1.0).until_active()


@pytest.fixture(scope="module")
def the_rig(probe: Probe) -> Rig:
    return Rig(probe)


@pytest.fixture
def rig(the_rig: Rig) -> Rig:
    """The rig of all tests, its node without anything that came before."""
    assert the_rig.probe.call(Trigger, "reset", Trigger.Request()).success
    return the_rig


@pytest.mark.parametrize("kind", [np.uint16, np.float32], ids=["millimetres", "metres"])
def test_objects_are_where_they_were_drawn(rig: Rig, kind: Any) -> None:
    answer = rig.until(measured, of(depth_image(kind)))
    assert answer.spatial_frame_id == answer.header.frame_id
    for instance, (x, y, _), millimetres in zip(answer.instances, DISCS, DEPTHS, strict=True):
        found = instance.spatial
        at = np.array([found.position.x, found.position.y, found.position.z])
        np.testing.assert_allclose(at, position(x, y, millimetres), atol=0.03)
        assert found.points > 50
        diameter = 24 / FOCAL * millimetres / 1000
        np.testing.assert_allclose((found.extent.x, found.extent.y), diameter, atol=0.25 * diameter)
        covariance = np.array(found.covariance).reshape(6, 6)
        assert (np.linalg.eigvalsh(covariance[:3, :3]) > 0).all()
        turn = found.box.orientation
        assert np.hypot(np.hypot(turn.x, turn.y), np.hypot(turn.z, turn.w)) == pytest.approx(1)


def test_markers_and_points_show_the_same(rig: Rig) -> None:
    """They are published only to subscribers."""
    heard, points = rig.probe.listen(MarkerArray, "instance_flow/markers"), rig.probe.listen(PointCloud2, CLOUD)
    rig.until(lambda answer: bool(heard and points) and measured(answer), RIGHT)
    stamp = rig.camera.answers[-1].header.stamp
    rig.probe.until(
        lambda: heard[-1].markers[0].header.stamp == stamp == points[-1].header.stamp, "those of that image"
    )
    answer = rig.camera.answers[-1]
    first, *markers = heard[-1].markers
    assert first.action == Marker.DELETEALL
    for instance in answer.instances:
        box, name = (one for one in markers if one.id == instance.id and one.type != Marker.ARROW)
        assert (box.ns, box.type, box.pose) == ("boxes", Marker.CUBE, instance.spatial.box)
        assert (name.text, name.pose.position) == (f"{instance.class_name} {instance.id}", instance.spatial.position)
        assert box.header.frame_id == answer.spatial_frame_id
    cloud = points[-1]
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "id", "class_id"]
    kind = np.dtype([(field.name, "<u4" if "id" in field.name else "<f4") for field in cloud.fields])
    values_ = np.frombuffer(cloud.data.tobytes(), kind)
    assert cloud.width == len(values_) == sum(instance.area for instance in answer.instances)
    for instance in answer.instances:
        own = values_[values_["id"] == instance.id]
        assert (own["class_id"] == instance.class_id).all()
        place = instance.spatial.position
        np.testing.assert_allclose(
            (np.median(own["x"]), np.median(own["y"]), np.median(own["z"])), (place.x, place.y, place.z), atol=0.03
        )


def test_what_stands_still_has_no_velocity(rig: Rig) -> None:
    rig.until(measured, RIGHT)
    speeds = [0.0]
    for _ in range(10):
        stamp = next(STAMPS)
        answer = rig.ask(stamp, RIGHT(stamp), info(stamp))
        ways = [i.spatial.velocity for i in answer.instances]
        speeds = [float(np.linalg.norm((way.x, way.y, way.z))) for way in ways]
    assert max(speeds) < 0.1


def of(depth: NDArray[Any], seconds: float = 0.0) -> Callable[[int], Image]:
    """The same depth for every image, so many seconds later."""
    return lambda stamp: raw(depth, stamp + round(seconds * SECOND))


def filled(value: float, kind: Any = np.uint16, scale: int = 1) -> Callable[[int], Image]:
    return of(np.full((SIZE[0] * scale, SIZE[1] * scale), value, kind))


def empty(stamp: int) -> Image:
    return Image(header=to_header(stamp), height=96, width=128, step=256, encoding="16UC1")


NONE, SIZES, CAMERA = Instance3D.NO_DEPTH, Instance3D.SIZE_MISMATCH, Instance3D.BAD_CAMERA
DAMAGED, FEW, FAR = Instance3D.BAD_DEPTH, Instance3D.TOO_FEW_POINTS, Instance3D.TOO_FAR
RIGHT = of(depth_image())


@pytest.mark.parametrize(
    ("message", "calibration", "state", "words"),
    [
        pytest.param(filled(2000, scale=2), {}, SIZES, "256 x 192 pixels and the image 128 x 96", id="another size"),
        pytest.param(filled(0), {}, FEW, "", id="all zero"),
        pytest.param(filled(np.nan, np.float32), {}, FEW, "", id="all NaN"),
        pytest.param(filled(-1, np.float32), {}, FEW, "", id="negative"),
        pytest.param(filled(65535), {}, FEW, "", id="65535"),
        pytest.param(of(depth_image().astype(np.float32)), {}, FAR, "", id="millimetres as metres"),
        pytest.param(filled(0, np.uint8), {}, DAMAGED, "encoding '8UC1'", id="encoding"),
        pytest.param(empty, {}, DAMAGED, "a depth image could not be read", id="no data"),
        pytest.param(of(depth_image(), 3.0), {}, NONE, "the median difference of their stamps is", id="seconds apart"),
        pytest.param(RIGHT, {"k": [0.0] * 9}, CAMERA, "focal lengths 0", id="zero K"),
        pytest.param(RIGHT, {"height": 480, "width": 640}, CAMERA, "640 x 480 pixels", id="K of another size"),
        pytest.param(RIGHT, {"binning_x": 2}, CAMERA, "binning", id="binning"),
    ],
)
def test_the_answer_in_pixels_goes_on_and_the_status_says_why(
    rig: Rig, message: Callable[[int], Image], calibration: dict[str, Any], state: int, words: str
) -> None:
    answer = None
    for _ in range(8):
        stamp = next(STAMPS)
        answer = rig.ask(stamp, message(stamp), info(stamp, **calibration))
        assert len(answer.instances) == 2
    assert answer is not None
    assert states(answer) == [state] * 2
    assert all(np.isnan(i.spatial.position.x) and np.isnan(i.spatial.velocity.x) for i in answer.instances)
    assert all(i.has_mask for i in answer.instances)
    status = said(rig, lambda: rig.ask(stamp := next(STAMPS), message(stamp), info(stamp, **calibration)), words)
    assert status.level == (DiagnosticStatus.WARN if words else DiagnosticStatus.OK)


def said(rig: Rig, frame: Callable[[], object], words: str) -> DiagnosticStatus:
    """A status of a period with frames that holds such words; where there are none, one that does not warn."""
    for _ in range(10):
        known = len(rig.probe.statuses)
        while len(rig.probe.statuses) == known:
            frame()
        status = rig.probe.statuses[-1]
        if (words and words in status.message) or (not words and status.message == "tracking"):
            return status
    raise AssertionError(f"expected {words!r}, but the status says {status.message!r}")


def test_depth_that_comes_late_holds_nothing_up(start: Callable[..., Probe], blobs_model: Path) -> None:
    """Also a node that has neither depth nor calibration; and a calibration that changes midway."""
    rig = Rig(start(model=blobs_model, provider="cpu", depth="raw").until_active())
    said(rig, lambda: rig.ask(next(STAMPS), None, None), "no depth images on")

    def late() -> None:
        stamp = next(STAMPS)
        assert states(rig.ask(stamp, None, info(stamp))) == [Instance3D.NO_DEPTH] * 2
        rig.depths.publish(raw(depth_image(), stamp))

    status = said(rig, late, "after its image was answered; raise depth_wait")
    assert values(status)["frames with depth"] == "0"
    assert rig.probe.set_parameter("depth_wait", 1.0)[0]
    rig.until(measured, RIGHT)
    twice = rig.until(
        lambda answer: measured(answer) and answer.instances[0].spatial.position.x > -0.3,
        RIGHT,
        [2 * FOCAL, *K[1:4], 2 * FOCAL, *K[5:]],
    )
    assert twice.instances[0].spatial.position.z == pytest.approx(DEPTHS[0] / 1000, abs=0.03)


def png(depth: NDArray[np.uint16], stamp: int) -> CompressedImage:
    data = array("B", bytes(12) + cv2.imencode(".png", depth)[1].tobytes())
    return CompressedImage(header=to_header(stamp), format="16UC1; compressedDepth png", data=data)


def test_compressed_depth_of_several_cameras_with_two_threads(start: Callable[..., Probe], blobs_model: Path) -> None:
    settings = {"cameras": ["front", "rear"], "pipelined": True, "depth": "compressed", "depth_wait": 1.0}
    probe = start(model=blobs_model, provider="cpu", **settings)
    probe.until(lambda: probe.state() == "active", "state active")
    for name, scale in (("front", 1), ("rear", 2)):
        rig = Rig(probe, f"{name}/", CompressedImage, "depth/compressedDepth")
        answer = rig.until(measured, lambda stamp: png(depth_image() // scale, stamp))  # noqa: B023
        z = [instance.spatial.position.z for instance in answer.instances]
        np.testing.assert_allclose(z, np.array(DEPTHS) / 1000 / scale, atol=0.03)


@pytest.mark.skipif(frames.AVAILABLE, reason="tf2_msgs is installed")
@pytest.mark.parametrize("setting", [{"target_frame": "odom"}, {"depth_registered": False}], ids=str)
def test_without_tf2_msgs_there_is_no_other_frame(
    start: Callable[..., Probe], blobs_model: Path, setting: dict[str, Any]
) -> None:
    probe = start(model=blobs_model, provider="cpu", depth="raw", **setting)
    probe.until_logged("need transforms, but tf2_msgs is not installed; a ROS installation has it")
    assert probe.state() == "unconfigured"
