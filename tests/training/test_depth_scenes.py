# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes in metres, and what the runtime makes of their depth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.formats.depth_messages import to_depth
from instance_flow.formats.ytvis import load_ground_truth
from instance_flow.replay.bag_matching import find_bags, match_bags
from instance_flow.spatial.camera import CameraModel, to_camera
from instance_flow.spatial.measure import measure
from instance_flow_training.worlds.cli import main
from instance_flow_training.worlds.depth_scenes import DepthClip, DepthSceneConfig, generate_depth_clip

SMALL = DepthSceneConfig(size=(96, 128), frames=4, rate=10)


@pytest.fixture(scope="module")
def clip() -> DepthClip:
    return generate_depth_clip(4, SMALL)


def test_the_middle_of_a_box_is_seen_where_its_place_projects(clip: DepthClip) -> None:
    seen = 0
    for t, pose in enumerate(clip.poses):
        inverse = np.linalg.inv(pose)
        for k, position in enumerate(clip.positions[t]):
            here = inverse[:3, :3] @ position + inverse[:3, 3]
            pixel = clip.matrix @ here / here[2]
            ys, xs = np.nonzero(clip.labels[t] == k + 1)
            if len(ys) > 100 and xs.min() > 0 and xs.max() < 127 and ys.min() > 0 and ys.max() < 95:
                assert abs(pixel[0] - xs.mean()) < 10
                assert abs(pixel[1] - ys.mean()) < 10
                assert abs(np.median(clip.true_depths[t][ys, xs]) - here[2]) < 0.8
                seen += 1
    assert seen > 4


def test_a_scene_is_a_function_of_its_seed_and_objects_keep_their_speed(clip: DepthClip) -> None:
    again = generate_depth_clip(4, SMALL)
    np.testing.assert_array_equal(clip.depths, again.depths)
    np.testing.assert_allclose(np.diff(clip.positions, axis=0), 0.1 * clip.velocities[1:], atol=1e-9)
    assert (generate_depth_clip(5, SMALL).depths != clip.depths).any()


@pytest.mark.parametrize("distortion", [(), (-0.25, 0.08, 0.001, -0.001, 0.0)], ids=["pinhole", "distorted"])
def test_objects_are_placed_within_what_the_covariance_says(distortion: tuple[float, ...]) -> None:
    clip = generate_depth_clip(4, DepthSceneConfig(size=(96, 128), frames=3, rate=10, distortion=distortion))
    camera, ratios = CameraModel(clip.matrix, distortion), []
    for t in range(3):
        ids = np.unique(clip.labels[t][clip.labels[t] > 0]).astype(np.int64)
        boxes = np.tile(np.array([0, 0, 128, 96], np.float32), (len(ids), 1))
        found = measure(clip.depths[t], clip.labels[t], ids, boxes, camera)
        miss = found.positions - clip.surfaces(t)[ids - 1]
        ok = found.states == 0
        ratios += np.einsum("ni,nij,nj->n", miss[ok], np.linalg.inv(found.covariances[ok]), miss[ok]).tolist()
        assert np.nanmax(np.abs(miss)) < 0.2
    assert len(ratios) > 8
    assert np.median(ratios) < 3


@pytest.mark.parametrize("raw", [False, True], ids=["compressed", "raw"])
def test_the_command_writes_scenes_as_bags_with_their_truth(tmp_path: Path, raw: bool) -> None:
    """What the runtime reads of the bag is the scene, and the transforms lead from it to the truth in the world."""
    anyreader = pytest.importorskip("rosbags.highlevel")
    command = f"{tmp_path} --situation depth --seed 4 --frames 3 --size 128x96 --rate 10 --ytvis"
    assert main([*command.split(), "--raw" if raw else "--bag"]) == 0
    bag, truth = tmp_path / "0000_depth_4.mcap", json.loads((tmp_path / "0000_depth_4.json").read_bytes())
    assert match_bags(find_bags(tmp_path), load_ground_truth(tmp_path / "instances.json"), None).pairs.keys() == {
        bag.stem
    }
    scene = generate_depth_clip(4, replace(SMALL, frames=3))
    with anyreader.AnyReader([bag]) as reader:
        found: dict[str, list[Any]] = {}
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(reader.deserialize(data, connection.msgtype))
    image, depth = ("", "") if raw else ("/compressed", "/compressedDepth")
    topics = {"/camera/image_raw" + image, "/camera/depth/image_raw" + depth, "/camera/camera_info"}
    assert set(found) == topics | {"/camera/label_image", "/tf", "/tf_static"}
    (mount,) = found["/tf_static"]
    for t, frame in enumerate(truth["frames"]):
        message = found["/camera/depth/image_raw" + depth][t]
        np.testing.assert_array_equal(to_depth(message), scene.depths[t])
        np.testing.assert_array_equal(to_depth(found["/camera/label_image"][t]), scene.labels[t])
        camera = to_camera(found["/camera/camera_info"][t])
        np.testing.assert_array_equal(camera.matrix, scene.matrix)
        assert camera.problem((96, 128)) == ""
        stamps = [found[topic][t].header.stamp for topic in topics] + [found["/tf"][t].transforms[0].header.stamp]
        assert {stamp.sec * 10**9 + stamp.nanosec for stamp in stamps} == {frame["stamp"]}
        (robot,), (fixed,) = found["/tf"][t].transforms, mount.transforms
        assert (robot.header.frame_id, robot.child_frame_id) == ("world", fixed.header.frame_id)
        assert fixed.child_frame_id == message.header.frame_id
        pose = matrix(robot) @ matrix(fixed)
        np.testing.assert_allclose(pose, frame["pose"], atol=1e-9)
        for row, surface in zip(frame["objects"], scene.surfaces(t), strict=True):
            np.testing.assert_allclose(
                pose[:3, :3] @ row["camera"]["position"] + pose[:3, 3], row["world"]["position"], atol=1e-9
            )
            assert row["pixels"] == (scene.labels[t] == row["label"]).sum()
            assert (row["surface"] is None) == np.isnan(surface).any() == (row["pixels"] == 0)
    assert len(truth["objects"]) == 4


def test_a_topic_that_has_the_truth_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rosbags")
    command = f"{tmp_path} --situation depth --frames 1 --size 16x16 --raw --topic /camera/label_image"
    assert main(command.split()) == 2
    assert "the topic /camera/label_image is that of the scene's own label_image" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mcap"))


def matrix(transform: Any) -> NDArray[np.float64]:
    """As tf2 reads it: the rotation of a quaternion, by Rodrigues' formula."""
    shift, turn = transform.transform.translation, transform.transform.rotation
    x, y, z, w = turn.x, turn.y, turn.z, turn.w
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    out = np.eye(4)
    out[:3, :3] += 2 * w * cross + 2 * cross @ cross
    out[:3, 3] = shift.x, shift.y, shift.z
    return out


def test_velocities_from_the_camera_are_how_its_positions_change() -> None:
    """At 1000 frames per second differences tell; the camera drives and turns."""
    fast = generate_depth_clip(2, DepthSceneConfig(size=(16, 16), frames=200, rate=1000, camera_turn=0.5))
    positions, velocities = fast.from_camera()
    np.testing.assert_allclose(velocities[1:-1], (positions[2:] - positions[:-2]) * 500, atol=1e-5)
    turned = np.einsum("tji,tnj->tni", fast.poses[:, :3, :3], fast.velocities)
    assert np.abs(velocities - turned).max() > 0.3, "the camera's own motion is in them"


BAD_SCENES: dict[str, tuple[dict[str, Any], str]] = {
    "no frame": ({"frames": 0}, "frames is 0; it must be a whole number from 1"),
    "no object": ({"objects": 0}, "objects is 0; it must be a whole number from 1"),
    "a rate of nothing": ({"rate": 0}, "rate is 0; it must be a number above 0"),
    "the farthest first": ({"distance": (6.0, 2.0)}, "distance is [6.0, 2.0]; the first must be at most the second"),
    "behind the camera": (
        {"distance": (-1.0, 2.0)},
        "distance is [-1.0, 2.0]; it must be [nearest, farthest], numbers",
    ),
    "more holes than depth": ({"holes": 1.5}, "holes is 1.5; it must be a number from 0 to 1"),
    "farther than 16 bits": ({"max_range": 70.0}, "max_range is 70.0; it must be a number above 0 and at most 65"),
    "a lens of three": ({"distortion": (0.1, 0.0, 0.0)}, "distortion has 3 coefficients; OpenCV's models have one of"),
}


@pytest.mark.parametrize(("values", "message"), BAD_SCENES.values(), ids=BAD_SCENES)
def test_a_scene_that_there_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"must be|models") as caught:
        DepthSceneConfig(**values)
    assert message in str(caught.value)
