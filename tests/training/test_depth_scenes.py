# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes in metres, and what the runtime makes of their depth."""

from __future__ import annotations

import numpy as np
import pytest

from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.measure import measure
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
