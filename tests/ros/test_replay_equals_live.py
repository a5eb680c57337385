# SPDX-License-Identifier: Apache-2.0
"""The bag that `instance-flow run BAG` writes holds the very messages that the live node sends for the same images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blobs import BLUE, RED, draw
from instance_flow_msgs.msg import ClassTable, Instance3D, TrackedInstance
from numpy.typing import NDArray
from plain import plain
from probe import Probe, ProbeCamera, to_header, values
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from instance_flow.commands import cli
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.image_encodings import decode_compressed
from instance_flow.network.installation import bundled_model_path
from instance_flow.replay.tracks_bag import FORMS
from instance_flow.spatial.camera import CameraModel
from instance_flow.structures import Image as Pixels

SECOND = 10**9
TOPIC = "/camera/image_raw"
REPOSITORY = Path(__file__).parents[2]
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

Make = Callable[[Path], Path]


def scene(step: int, size: tuple[int, int] = (96, 128)) -> Pixels:
    """Two discs that pass one another; a third comes and goes."""
    discs = [(20 + 5 * step, 30, RED), (100 - 6 * step, 60, BLUE), (64, 48, RED)]
    return draw(discs[: 2 + (step % 4 == 1)], size)


def stamp_of(step: int) -> int:
    return SECOND + step * SECOND // 15


def raw_file(folder: Path) -> Path:
    with BagWriter(folder / "raw.mcap") as bag:
        for step in range(12):
            bag.write_image(TOPIC, scene(step), stamp_of(step), frame_id="camera")
    return folder / "raw.mcap"


def jpeg_folder(folder: Path) -> Path:
    with BagWriter(folder / "jpeg", storage="sqlite3") as bag:
        for step in range(12):
            bag.write_jpeg(f"{TOPIC}/compressed", scene(step), stamp_of(step), frame_id="camera")
    return folder / "jpeg"


def trouble(folder: Path) -> Path:
    """A pause, an image that cannot be used, one without a stamp, another encoding and size; and all of it twice."""
    with BagWriter(folder / "trouble.mcap") as bag:
        for received, step in enumerate([*range(12)] * 2, start=1):
            image, encoding, stamp = scene(step), "rgb8", stamp_of(step) + (4 * SECOND if step > 4 else 0)
            if step == 2:
                cut_off = bag.typestore.types["sensor_msgs/msg/Image"](
                    bag.header(stamp, "camera"), 96, 128, "rgb8", 0, 384, np.zeros(99, np.uint8)
                )
                bag.write_message(TOPIC, cut_off, received * SECOND)
                continue
            if step == 3:
                stamp = 0
            if step in (7, 8):
                image, encoding = image[:, :, ::-1], "bgr8"
            if step > 9:
                image = scene(step, (64, 160))
            bag.write_image(TOPIC, image, stamp, encoding=encoding, received=received * SECOND)
    return folder / "trouble.mcap"


def real_video(folder: Path) -> Path:
    frames = REPOSITORY.parent / "shared" / "real" / "videos" / "JPEGImages" / "cows"
    if not frames.is_dir():
        pytest.skip("no ../shared folder on this machine")
    with BagWriter(folder / "cows.mcap") as bag:
        for step, file in enumerate(sorted(frames.iterdir())[:16]):
            bag.write_image(TOPIC, decode_compressed(file.read_bytes()), stamp_of(step), frame_id="camera")
    return folder / "cows.mcap"


def recording(folder: Path) -> Path:
    """The beginning of the demo's recording."""
    with AnyReader([REPOSITORY / "ros2_ws" / "demo" / "demo.mcap"]) as whole, BagWriter(folder / "demo.mcap") as bag:
        for connection, received, data in islice(whole.messages(), 16):
            bag.write_serialized(connection.topic, connection.msgtype, bytes(data), received)
    return folder / "demo.mcap"


@pytest.mark.parametrize(
    ("make", "bundled", "settings"),
    [
        pytest.param(raw_file, False, {}, id="raw_mcap"),
        pytest.param(jpeg_folder, False, {}, id="jpeg_sqlite3_folder"),
        pytest.param(trouble, False, {}, id="gap_loop_and_corrupt_images"),
        pytest.param(trouble, False, {"pipelined": True}, id="gap_loop_and_corrupt_images_pipelined"),
        pytest.param(real_video, True, {}, id="real_video"),
        pytest.param(recording, True, {}, id="demo"),
    ],
)
def test_messages_are_the_same(
    start: Callable[..., Probe], blobs_model: Path, make: Make, bundled: bool, settings: dict[str, Any], tmp_path: Path
) -> None:
    bag, model, out = make(tmp_path), bundled_model_path() if bundled else blobs_model, tmp_path / "out"
    command = ["run", str(bag), "--model", str(model), "--out", str(out), "--provider", "cpu"]
    assert cli.main([*command, "--no-video", "--no-report"]) == 0
    with AnyReader([out / FORMS["mcap"]]) as reader:
        replayed = {
            topic: [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(connections)]
            for topic, connections in ((c.topic, [c]) for c in reader.connections)
        }
    answers, table = feed(start, model, bag, settings)
    offline = replayed["/instance_flow/instances"]
    assert [plain(answer) for answer in answers] == [plain(message) for message in offline]
    assert {instance.state for answer in answers for instance in answer.instances} >= {
        TrackedInstance.NEW,
        TrackedInstance.TRACKED,
    }
    (offline_table,) = replayed["/instance_flow/class_table"]
    assert {**plain(table), "header": None} == {**plain(offline_table), "header": None}  # Its stamp is the node's own.


LENS = CameraModel(np.array([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]]))


def depth_of(step: int) -> NDArray[np.uint16]:
    """Millimetres: the discs of a scene come nearer, in front of a wall with a hole in the depth."""
    picture = scene(step).astype(np.int64)
    depth = np.where(picture[..., 0] > 99, 3000 - 40 * step, np.where(picture[..., 2] > 99, 2000 - 25 * step, 6000))
    depth[:, ::17] = 0
    return depth.astype(np.uint16)


def raw_depth(folder: Path) -> Path:
    """Each depth with its image's stamp, and recorded behind it."""
    with BagWriter(folder / "raw_depth.mcap") as bag:
        for step in range(12):
            bag.write_image(TOPIC, scene(step), stamp_of(step), frame_id="camera")
            bag.depth("/camera/depth/image_raw", depth_of(step), stamp_of(step), "camera")
            bag.camera_info("/camera/camera_info", LENS, (96, 128), stamp_of(step), "camera")
    return folder / "raw_depth.mcap"


def compressed_depth(folder: Path) -> Path:
    """In metres, 5 ms later than each image."""
    with BagWriter(folder / "packed_depth.mcap") as bag:
        for step in range(12):
            stamp, metres = stamp_of(step), (depth_of(step) / 1000).astype(np.float32)
            bag.camera_info("/camera/camera_info", LENS, (96, 128), stamp, "camera")
            bag.write_jpeg(f"{TOPIC}/compressed", scene(step), stamp, frame_id="camera")
            bag.compressed_depth("/camera/depth/image_raw/compressedDepth", metres, stamp + SECOND // 200, "camera")
    return folder / "packed_depth.mcap"


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        pytest.param(raw_depth, {}, id="raw_depth"),
        pytest.param(compressed_depth, {"pipelined": True, "object_speed": 1.0}, id="compressed_depth_pipelined"),
    ],
)
def test_messages_in_metres_are_the_same(
    start: Callable[..., Probe], blobs_model: Path, make: Make, settings: dict[str, Any], tmp_path: Path
) -> None:
    bag, out = make(tmp_path), tmp_path / "out"
    command = ["run", str(bag), "--depth", "--model", str(blobs_model), "--out", str(out), "--provider", "cpu"]
    options = [text for name in settings.keys() - {"pipelined"} for text in ("--set", f"{name}={settings[name]}")]
    assert cli.main([*command, "--no-video", "--no-report", *options]) == 0
    with AnyReader([out / FORMS["mcap"]]) as reader:
        connections = [c for c in reader.connections if c.topic == "/instance_flow/instances"]
        offline = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(connections)]
    answers = feed_with_depth(start, blobs_model, bag, settings)
    assert [plain(answer) for answer in answers] == [plain(message) for message in offline]
    in_space = [instance.spatial for answer in answers for instance in answer.instances]
    assert len(in_space) >= 24
    assert {one.state for one in in_space} == {Instance3D.MEASURED}
    assert all(np.isfinite(one.velocity.x) for one in in_space[-2:])


def feed_with_depth(start: Callable[..., Probe], model: Path, bag: Path, settings: dict[str, Any]) -> list[Any]:
    """Send all of a bag to a real node, each image once the one before it is answered."""
    with AnyReader([bag]) as reader:
        kinds = {connection.topic: connection.msgtype for connection in reader.connections}
        sent: dict[str, list[bytes]] = {topic: [] for topic in kinds}
        for connection, _, data in reader.messages():
            sent[connection.topic].append(bytes(data))
    info = "/camera/camera_info"
    depth = next(topic for topic in kinds if "depth" in topic)
    image = next(topic for topic in kinds if topic not in (info, depth))
    compressed = image.endswith("/compressed")
    heard = {topic: f"/{bag.stem}{topic}" for topic in kinds}
    ours = {"depth/compressedDepth" if compressed else "depth": heard[depth], "camera_info": heard[info]}
    node = start(
        {"image": heard[image].removesuffix("/compressed"), **ours},
        model=model,
        provider="cpu",
        image_transport="compressed" if compressed else "raw",
        depth="compressed" if compressed else "raw",
        depth_wait=10.0,
        **settings,
        **{f"qos_overrides.{topic}.subscription.reliability": "reliable" for topic in heard.values()},
    )
    kind = CompressedImage if compressed else Image
    many = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
    depths = node.node.create_publisher(kind, heard[depth], many)
    infos = node.node.create_publisher(CameraInfo, heard[info], many)
    camera = ProbeCamera(node, message_type=kind, qos=RELIABLE, topic=heard[image])
    begin(node, camera.until_heard(), sent[image][0], kind)
    for publisher in (depths, infos):
        node.until(publisher.get_subscription_count, "a subscription to depth and calibration")
    for number, (picture, measured, calibration) in enumerate(zip(sent[image], sent[depth], sent[info], strict=True)):
        for _ in range(100):
            infos.publish(calibration)
            depths.publish(measured)
            camera.send(picture)
            node.until(partial(done, node, camera, number + 1), "an image answered")
            # Topics are not ordered. Later images wait for their depth, but nobody waits before any depth has come.
            if number or [one.spatial.state for one in camera.answers[0].instances] == [Instance3D.MEASURED] * 2:
                break
            assert node.call(Trigger, "reset", Trigger.Request()).success
            camera.answers.clear()
    return camera.answers


def feed(start: Callable[..., Probe], model: Path, bag: Path, settings: dict[str, Any]) -> tuple[list[Any], ClassTable]:
    """Send the images of a bag to a real node, each once the one before it is answered or refused."""
    with AnyReader([bag]) as reader:
        (connection,) = reader.connections
        messages = [bytes(data) for _, _, data in reader.messages()]
    compressed = connection.topic.endswith("/compressed")
    base = f"/{bag.stem}{TOPIC}"
    topic = f"{base}/compressed" if compressed else base
    node = start(
        {"image": base},
        model=model,
        provider="cpu",
        image_transport="compressed" if compressed else "raw",
        **settings,
        **{f"qos_overrides.{topic}.subscription.reliability": "reliable"},
    )
    camera = ProbeCamera(node, message_type=CompressedImage if compressed else Image, qos=RELIABLE, topic=topic)
    begin(node, camera.until_heard(), messages[0], CompressedImage if compressed else Image)
    for number, message in enumerate(messages, start=1):
        camera.send(message)
        node.until(partial(done, node, camera, number), "an image answered or refused")
    (table,) = node.until(node.listen(ClassTable, "instance_flow/class_table", LATCHED).copy, "the class table")
    return camera.answers, table


def begin(node: Probe, camera: ProbeCamera, message: bytes, message_type: type) -> None:
    """Have the node hear us, answer all that it has heard, and forget it."""
    for stamp in (1, 2):
        image = deserialize_message(message, message_type)
        image.header = to_header(stamp)
        camera.ask(image)
    assert node.call(Trigger, "reset", Trigger.Request()).success
    node.until(lambda: node.statuses, "diagnostics")
    camera.answers.clear()


def done(node: Probe, camera: ProbeCamera, images: int) -> bool:
    """Whether so many images are answered or refused."""
    return len(camera.answers) + int(values(node.statuses[-1])["frames refused"]) >= images
