# SPDX-License-Identifier: Apache-2.0
"""Messages say what the tracks say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from instance_flow_msgs.msg import TrackedInstanceArray
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from instance_flow.structures import NEW, Tracks
from instance_flow_ros.conversions import to_instance_array, to_label_pixels, to_nanoseconds, to_tracks

HEADER = Header(stamp=Time(sec=3, nanosec=4), frame_id="camera")


def make_tracks(label_map: np.ndarray, seed: int = 0) -> Tracks:
    """Tracks for a label map of ids, all other numbers by chance; the first object is new."""
    rng = np.random.default_rng(seed)
    ids = np.unique(label_map[label_map > 0]).astype(np.int64)
    boxes = []
    for track in ids:
        rows, columns = np.nonzero(label_map == track)
        boxes.append([columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1])
    unknown = np.arange(len(ids)) == 0
    return Tracks(
        frame_index=7,
        label_map=label_map.astype(np.int32),
        ids=ids,
        class_ids=rng.integers(0, 2, len(ids)),
        scores=rng.random(len(ids), np.float32),
        semantic_scores=rng.random(len(ids), np.float32),
        center_scores=rng.random(len(ids), np.float32),
        centers=rng.random((len(ids), 2), np.float32),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        areas=np.array([np.count_nonzero(label_map == track) for track in ids], np.int64),
        velocities=np.where(unknown[:, None], np.nan, rng.random((len(ids), 2))).astype(np.float32),
        ages=rng.integers(0, 9, len(ids)),
        reference_frames=np.where(unknown, NEW, 6),
        distances=np.where(unknown, np.nan, rng.random(len(ids))).astype(np.float32),
    )


LABEL_MAPS = {
    "empty": np.zeros((4, 5)),
    "one_pixel": np.pad([[3]], ((1, 2), (2, 0))),
    "whole_image": np.full((4, 5), 1),
    "corners": np.array([[1, 0, 0, 2], [0, 0, 0, 0], [2, 0, 0, 1]]),
    "interleaved": np.arange(48).reshape(6, 8) % 3,
    "random": np.random.default_rng(1).integers(0, 9, (33, 21)),
    "large_ids": np.array([[65535, 65536], [0, 131071]]),
}


@pytest.mark.parametrize("label_map", LABEL_MAPS.values(), ids=LABEL_MAPS.keys())
def test_tracks_survive_the_wire(label_map: np.ndarray) -> None:
    tracks = make_tracks(label_map)
    message = to_instance_array(tracks, HEADER, ("red", "blue"))
    back = deserialize_message(serialize_message(message), TrackedInstanceArray)
    assert back.header == HEADER
    assert [i.class_name for i in back.instances] == [("red", "blue")[k] for k in tracks.class_ids]
    for field in dataclasses.fields(Tracks):
        np.testing.assert_array_equal(getattr(to_tracks(back), field.name), getattr(tracks, field.name), field.name)


def test_x_and_y_are_not_swapped() -> None:
    tracks = make_tracks(np.pad([[1, 1, 1]], ((2, 0), (1, 0))))
    tracks = dataclasses.replace(tracks, centers=np.array([[2, 3]], "f4"), velocities=np.array([[-5, 6]], "f4"))
    instance = to_instance_array(tracks, HEADER, ("red", "blue")).instances[0]
    assert (instance.center.y, instance.center.x, instance.velocity.y, instance.velocity.x) == (2, 3, -5, 6)
    assert (instance.box.x, instance.box.y, instance.box.width, instance.box.height) == (1, 2, 3, 1)
    assert (instance.mask.x, instance.mask.y, instance.mask.width, instance.mask.height) == (1, 2, 3, 1)
    assert list(instance.mask.runs) == [0, 3]


@pytest.mark.parametrize("label_map", LABEL_MAPS.values(), ids=LABEL_MAPS.keys())
def test_label_image_and_label_agree(label_map: np.ndarray) -> None:
    pixels = to_label_pixels(label_map.astype(np.int32))
    message = to_instance_array(make_tracks(label_map), HEADER, ("red", "blue"))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels == 0, label_map == 0)
    for instance in message.instances:
        assert instance.label == (instance.id - 1) % 65535 + 1
        assert (pixels[label_map == instance.id] == instance.label).all()


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [((0, 0), None), ((0, 5), 5), ((2, 3), 2_000_000_003)],
    ids=["never_set", "first_second", "usual"],
)
def test_stamp_in_nanoseconds(stamp: tuple[int, int], expected: int | None) -> None:
    assert to_nanoseconds(Header(stamp=Time(sec=stamp[0], nanosec=stamp[1]))) == expected


def test_bag_of_messages_is_read_without_ros(tmp_path: Path) -> None:
    from ament_index_python.packages import get_package_share_directory
    from rosbags.highlevel import AnyReader

    from instance_flow.bags import BagWriter

    message = to_instance_array(make_tracks(LABEL_MAPS["random"]), HEADER, ("red", "blue"))
    folder = Path(get_package_share_directory("instance_flow_msgs")) / "msg"
    with BagWriter(tmp_path / "bag.mcap") as bag:
        bag.register({f"instance_flow_msgs/msg/{file.stem}": file.read_text() for file in folder.glob("*.msg")})
        kind = "instance_flow_msgs/msg/TrackedInstanceArray"
        bag.write_serialized("/instances", kind, serialize_message(message), 1)
    with AnyReader([tmp_path / "bag.mcap"]) as reader:
        connection, _, data = next(reader.messages())
        back: Any = reader.deserialize(data, connection.msgtype)
    assert [i.id for i in back.instances] == [i.id for i in message.instances]
    assert [list(i.mask.runs) for i in back.instances] == [list(i.mask.runs) for i in message.instances]


def test_detections_have_the_same_boxes_and_ids() -> None:
    pytest.importorskip("vision_msgs", reason="vision_msgs comes with an official ROS only")
    from instance_flow_ros.detections import to_detections

    message = to_instance_array(make_tracks(LABEL_MAPS["corners"]), HEADER, ("red", "blue"))
    found = to_detections(message)
    assert found.header == HEADER
    for detection, instance in zip(found.detections, message.instances, strict=True):
        hypothesis = detection.results[0].hypothesis
        assert (detection.header, detection.id) == (HEADER, str(instance.id))
        assert (hypothesis.class_id, hypothesis.score) == (instance.class_name, instance.score)
        assert (detection.bbox.size_x, detection.bbox.size_y) == (4.0, 3.0)
        assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (1.5, 1.0)
