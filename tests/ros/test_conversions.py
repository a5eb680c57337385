# SPDX-License-Identifier: Apache-2.0
"""Messages say what the tracks say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from instance_flow_msgs.msg import Instance3D, RunLengthMask, TrackedInstance, TrackedInstanceArray
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.messages import to_class_table, to_instance_array, to_label_pixels, to_tracks
from instance_flow.network.installation import message_definitions
from instance_flow.structures import NEW, SPATIAL_STATES, STATES, ModelInfo, Tracks
from instance_flow_ros.conversions import TYPES

HEADER = Header(stamp=Time(sec=3, nanosec=4), frame_id="camera")


def make_tracks(label_map: np.ndarray, seed: int = 0) -> Tracks:
    """Tracks for a label map of ids, all other numbers by chance; the first object is new, every second has depth."""
    rng = np.random.default_rng(seed)
    ids = np.unique(label_map[label_map > 0]).astype(np.int64)
    boxes = []
    for track in ids:
        rows, columns = np.nonzero(label_map == track)
        boxes.append([columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1])
    unknown = np.arange(len(ids)) == 0
    placed = np.arange(len(ids)) % 2 == 1
    turns = Rotation.random(max(len(ids), 1), random_state=seed).as_matrix()[: len(ids)]

    def in_space(*shape: int) -> np.ndarray:
        numbers = rng.standard_normal((len(ids), *shape))
        numbers[~placed] = np.nan
        return numbers.astype(np.float32)

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
        states=rng.integers(0, 3, len(ids)),
        ages=rng.integers(0, 9, len(ids)),
        age_seconds=np.where(unknown, np.nan, rng.random(len(ids))),
        reference_frames=np.where(unknown, NEW, 6),
        distances=np.where(unknown, np.nan, rng.random(len(ids))).astype(np.float32),
        velocity_covariances=rng.random((len(ids), 2, 2), np.float32),
        spatial_states=np.where(placed, 0, 1 + np.arange(len(ids)) % (len(SPATIAL_STATES) - 1)),
        points=np.where(placed, rng.integers(1, 256, len(ids)), 0),
        positions=in_space(3),
        spatial_velocities=in_space(3),
        spatial_covariances=in_space(6, 6),
        box_centers=in_space(3),
        extents=in_space(3),
        rotations=np.where(placed[:, None, None], turns, np.nan).astype(np.float32),
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
    message = to_instance_array(TYPES, tracks, HEADER, ("red", "blue"))
    back = deserialize_message(serialize_message(message), TrackedInstanceArray)
    assert back.header == HEADER
    assert [i.class_name for i in back.instances] == [("red", "blue")[k] for k in tracks.class_ids]
    for field in dataclasses.fields(Tracks):
        values = getattr(to_tracks(back), field.name), getattr(tracks, field.name)
        if field.name == "rotations":  # They go as quaternions.
            np.testing.assert_allclose(*values, atol=1e-6, err_msg=field.name)
        else:
            np.testing.assert_array_equal(*values, field.name)


def test_x_and_y_are_not_swapped() -> None:
    tracks = make_tracks(np.pad([[1, 1, 1]], ((2, 0), (1, 0))))
    tracks = dataclasses.replace(tracks, centers=np.array([[2, 3]], "f4"), velocities=np.array([[-5, 6]], "f4"))
    instance = to_instance_array(TYPES, tracks, HEADER, ("red", "blue")).instances[0]
    assert (instance.center.y, instance.center.x, instance.velocity.y, instance.velocity.x) == (2, 3, -5, 6)
    assert (instance.box.x, instance.box.y, instance.box.width, instance.box.height) == (1, 2, 3, 1)
    assert (instance.mask.x, instance.mask.y, instance.mask.width, instance.mask.height) == (1, 2, 3, 1)
    assert list(instance.mask.runs) == [0, 3]


def test_what_is_in_metres_is_in_the_frame_that_is_named() -> None:
    turn = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    tracks = dataclasses.replace(
        make_tracks(np.array([[1, 2, 2]])),
        positions=np.array([[np.nan] * 3, [1, 2, 3]], "f4"),
        velocity_covariances=np.array([np.diag((4, 9))] * 2, "f4"),
        rotations=np.array([turn, turn], "f4"),
    )
    message = to_instance_array(TYPES, tracks, HEADER, ("red", "blue"))
    assert message.spatial_frame_id == "camera"
    assert to_instance_array(TYPES, tracks, HEADER, ("red", "blue"), 0, "odom").spatial_frame_id == "odom"
    unknown, placed = (instance.spatial for instance in message.instances)
    assert (unknown.state, unknown.points, np.isnan(unknown.position.x)) == (Instance3D.NO_DEPTH, 0, True)
    assert (placed.position.x, placed.position.y, placed.position.z) == (1, 2, 3)
    turned = placed.box.orientation
    np.testing.assert_allclose((turned.x, turned.y, turned.z, turned.w), (0, 0, 0.5**0.5, 0.5**0.5), atol=1e-6)
    assert message.instances[0].velocity_covariance.tolist() == [9, 0, 0, 4]  # x before y


@pytest.mark.parametrize("label_map", LABEL_MAPS.values(), ids=LABEL_MAPS.keys())
def test_label_image_and_label_agree(label_map: np.ndarray) -> None:
    pixels = to_label_pixels(label_map.astype(np.int32))
    message = to_instance_array(TYPES, make_tracks(label_map), HEADER, ("red", "blue"))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels == 0, label_map == 0)
    for instance in message.instances:
        assert instance.label == (instance.id - 1) % 65535 + 1
        assert (pixels[label_map == instance.id] == instance.label).all()


def test_definitions_of_the_runtime_are_those_that_ros_has_built() -> None:
    folder = Path(get_package_share_directory("instance_flow_msgs")) / "msg"
    built = {f"instance_flow_msgs/msg/{file.stem}": file.read_text() for file in folder.glob("*.msg")}
    assert message_definitions() == built


def test_bag_of_messages_is_read_without_ros(tmp_path: Path) -> None:
    message = to_instance_array(TYPES, make_tracks(LABEL_MAPS["random"]), HEADER, ("red", "blue"))
    with BagWriter(tmp_path / "bag.mcap") as bag:
        bag.register(message_definitions())
        kind = "instance_flow_msgs/msg/TrackedInstanceArray"
        bag.write_serialized("/instances", kind, serialize_message(message), 1)
    with AnyReader([tmp_path / "bag.mcap"]) as reader:
        connection, _, data = next(reader.messages())
        back: Any = reader.deserialize(data, connection.msgtype)
    assert [i.id for i in back.instances] == [i.id for i in message.instances]
    assert [list(i.mask.runs) for i in back.instances] == [list(i.mask.runs) for i in message.instances]


SCORES = np.array([0.5, 0.9, 0.1, 0.5], np.float32)
"""Of four objects, whose masks take 8 bytes each: a run of 0 outside and one of the pixels inside."""


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        pytest.param(0, [True, True, True, True], id="no_bound"),
        pytest.param(32, [True, True, True, True], id="all_fit"),
        pytest.param(31, [True, True, False, True], id="lowest_score_goes"),
        pytest.param(23, [True, True, False, False], id="of_equal_scores_the_later_goes"),
        pytest.param(8, [False, True, False, False], id="one_fits"),
        pytest.param(7, [False, False, False, False], id="none_fits"),
    ],
)
def test_mask_budget_leaves_out_whole_masks(budget: int, kept: list[bool]) -> None:
    label_map = np.repeat([[1, 0, 2, 0, 3, 0, 4]], 3, axis=0)
    tracks = dataclasses.replace(make_tracks(label_map), scores=SCORES)
    whole = to_instance_array(TYPES, tracks, HEADER, ("red", "blue"))
    message = to_instance_array(TYPES, tracks, HEADER, ("red", "blue"), budget)
    assert [i.has_mask for i in message.instances] == kept
    for instance, full in zip(message.instances, whole.instances, strict=True):
        assert instance.mask == (full.mask if instance.has_mask else RunLengthMask())
        assert (instance.id, instance.box, instance.area) == (full.id, full.box, full.area)
    shown = np.where(np.isin(label_map, tracks.ids[kept]), label_map, 0)
    np.testing.assert_array_equal(to_tracks(message).label_map, shown)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"id": 2**31}, "track id 2147483648; ids are numbers from 1 to 2147483647", id="id of 32 bits"),
        pytest.param({"id": 2**64 - 1}, "track id 18446744073709551615", id="id of 64 bits"),
        pytest.param({"id": 0}, "track id 0", id="id of the background"),
        pytest.param({"mask": RunLengthMask(x=6, y=0, width=2, height=1, runs=[0, 2])}, "not lie", id="mask outside"),
        pytest.param({"mask": RunLengthMask(x=0, y=0, width=2, height=1, runs=[9])}, "sum to 9", id="other runs"),
    ],
)
def test_a_message_that_is_no_frames_tracks_is_refused(changes: dict[str, Any], message: str) -> None:
    damaged = to_instance_array(TYPES, make_tracks(np.repeat([[1, 0, 2, 0, 3, 0, 4]], 3, axis=0)), HEADER, ("a", "b"))
    for name, value in changes.items():
        setattr(damaged.instances[1], name, value)
    with pytest.raises(ValueError, match=message):
        to_tracks(damaged)


def test_a_message_of_an_image_for_all_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="100000 x 100000 pixels; at most 67108864"):
        to_tracks(TrackedInstanceArray(height=100_000, width=100_000))


def test_constants_of_the_message_are_the_states_of_tracks() -> None:
    assert [getattr(TrackedInstance, name.upper()) for name in STATES] == list(range(len(STATES)))
    assert TrackedInstance.NO_REFERENCE == NEW
    named = [getattr(Instance3D, name.upper().replace(" ", "_")) for name in SPATIAL_STATES]
    assert named == list(range(len(SPATIAL_STATES)))


def test_class_table() -> None:
    info = ModelInfo("blobs", ("red", "blue"), (96, 128), weights_sha256="00ff")
    table = to_class_table(TYPES, info, HEADER)
    assert (table.header, table.model, table.weights_sha256) == (HEADER, "blobs", "00ff")
    assert list(table.class_names) == ["red", "blue"]
