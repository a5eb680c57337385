# SPDX-License-Identifier: Apache-2.0
"""Depth through the whole pipeline: places and velocities of tracked objects, and results when depth is wrong."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from instance_flow import Pipeline, Tracks
from instance_flow.overlap import Overlap
from instance_flow.spatial.camera import CameraModel
from instance_flow.stream import Stream
from instance_flow.structures import SPATIAL_STATES, unknown_in_space
from instance_flow_training.worlds.depth_scenes import DepthClip, DepthSceneConfig, generate_depth_clip
from instance_flow_training.worlds.oracle import OracleNetwork

FRAMES = 12
IN_SPACE = tuple(unknown_in_space(0))


@pytest.fixture(scope="module")
def clip() -> DepthClip:
    return generate_depth_clip(4, DepthSceneConfig(size=(96, 128), frames=FRAMES, rate=10, objects=3))


def camera(clip: DepthClip, t: int, posed: bool = True) -> CameraModel:
    return CameraModel(clip.matrix, clip.distortion, size=(96, 128), pose=clip.poses[t] if posed else None)


def run(clip: DepthClip, stream: Stream, frames: range, posed: bool = True) -> list[Tracks]:
    return [
        stream.step(clip.images[t], int(clip.stamps[t]), depth=clip.depths[t], camera=camera(clip, t, posed))
        for t in frames
    ]


FIELDS = tuple(spec.name for spec in fields(Tracks))


def assert_same(one: Tracks, other: Tracks, names: tuple[str, ...] = FIELDS) -> None:
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_objects_are_placed_and_move_as_they_do_in_the_world(clip: DepthClip) -> None:
    """Seen from a camera that moves and turns; boxes of up to 0.9 m are placed by the side that is seen."""
    tracks = run(clip, Stream(Pipeline(OracleNetwork(clip.clip()))), range(FRAMES))
    placed = 0
    for t, frame in enumerate(tracks):
        for row, identity in enumerate(frame.ids.tolist()):
            label = int(np.bincount(clip.labels[t][frame.label_map == identity]).argmax())
            if SPATIAL_STATES[frame.spatial_states[row]] != "measured":
                continue
            assert np.linalg.norm(frame.positions[row] - clip.positions[t, label - 1]) < 1.0
            assert np.isnan(frame.spatial_velocities[row]).any() == (frame.ages[row] == 0)
            if frame.ages[row] > 8:
                miss = frame.spatial_velocities[row] - clip.velocities[t, label - 1]
                sigma = np.sqrt(np.diag(frame.spatial_covariances[row])[3:])
                assert (np.abs(miss) < 3 * sigma + 0.25).all()
                placed += 1
    assert placed > 4


def test_without_a_pose_answers_are_in_the_optical_frame(clip: DepthClip) -> None:
    frame = run(clip, Stream(Pipeline(OracleNetwork(clip.clip()))), range(1), posed=False)[0]
    for identity, position in zip(frame.ids, frame.positions, strict=True):
        label = int(np.bincount(clip.labels[0][frame.label_map == identity]).argmax())
        np.testing.assert_allclose(position, clip.surfaces(0)[label - 1], atol=0.15)


K = np.array([[120.0, 0, 64], [0, 120, 48], [0, 0, 1]])
BAD: dict[str, tuple[Any, Any, str]] = {
    "no depth": (None, CameraModel(K), "no depth"),
    "no camera": (np.ones((96, 128), np.float32), None, "bad camera"),
    "zero K": (np.ones((96, 128), np.float32), CameraModel(np.zeros((3, 3))), "bad camera"),
    "another size": (np.ones((48, 64), np.float32), CameraModel(K), "size mismatch"),
    "another type": (np.ones((96, 128), np.int32), CameraModel(K), "bad depth"),
    "all zero": (np.zeros((96, 128), np.uint16), CameraModel(K), "too few points"),
    "all 65535": (np.full((96, 128), 65535, np.uint16), CameraModel(K), "too few points"),
    "all NaN": (np.full((96, 128), np.nan, np.float32), CameraModel(K), "too few points"),
    "millimetres as metres": (np.full((96, 128), 2000, np.float32), CameraModel(K), "too far"),
}


def test_bad_depth_in_the_midst_of_a_stream_leaves_the_2d_answer_as_it_was(clip: DepthClip) -> None:
    """One stream meets each of them in turn, between two good frames; the other one never sees any depth."""
    flat, stream = Stream(Pipeline(OracleNetwork(clip.clip()))), Stream(Pipeline(OracleNetwork(clip.clip())))
    in_image = tuple(f.name for f in fields(Tracks) if f.name not in IN_SPACE or f.name == "velocity_covariances")
    wrong = list(BAD.values())
    for t in range(FRAMES):
        depth, model, state = wrong[t - 1] if 0 < t <= len(wrong) else (clip.depths[t], camera(clip, t), "measured")
        plain = flat.step(clip.images[t], int(clip.stamps[t]))
        found = stream.step(clip.images[t], int(clip.stamps[t]), depth=depth, camera=model)
        assert_same(found, plain, in_image)
        assert {SPATIAL_STATES[k] for k in plain.spatial_states} == {"no depth"}
        if state != "measured":
            assert {SPATIAL_STATES[k] for k in found.spatial_states} == {state}
            assert np.isnan(found.positions).all()
            assert np.isnan(found.spatial_covariances).all()
            assert bool(stream.pipeline.spatial_problem) == (state in ("bad camera", "bad depth", "size mismatch"))
    assert np.isfinite(found.positions).any()
    assert np.isfinite(found.spatial_velocities).any(), "the filter went on over the gap"
    assert stream.pipeline.spatial_problem == ""


def test_while_depth_is_missing_the_covariance_grows(clip: DepthClip) -> None:
    def last(missing: int) -> Tracks:
        stream = Stream(Pipeline(OracleNetwork(clip.clip())))
        for t in range(FRAMES):
            there = t < FRAMES - 1 - missing or t == FRAMES - 1
            frame = stream.step(
                clip.images[t], int(clip.stamps[t]), depth=clip.depths[t] if there else None, camera=camera(clip, t)
            )
        return frame

    seen, unseen = last(0), last(6)
    ok = (seen.spatial_states == 0) & (seen.ages == FRAMES - 1)
    assert ok.any()
    assert (unseen.spatial_covariances[ok, 3, 3] > 1.2 * seen.spatial_covariances[ok, 3, 3]).all()


def test_instance_flow_starts_the_velocity_with_the_first_depth() -> None:
    """A camera that stands still, an object that is followed in the image for 6 frames before depth comes."""
    still = DepthSceneConfig(
        size=(96, 128), frames=8, rate=10, objects=1, camera_speed=0, camera_turn=0, distance=(3, 3)
    )
    clip = generate_depth_clip(3, still)
    stream = Stream(Pipeline(OracleNetwork(clip.clip())))
    for t in range(8):
        depth = clip.depths[t] if t == 7 else None
        frame = stream.step(clip.images[t], int(clip.stamps[t]), depth=depth, camera=camera(clip, t, posed=False))
    truth = clip.poses[7, :3, :3].T @ clip.velocities[7, 0]
    assert frame.spatial_velocities[0, 0] == pytest.approx(truth[0], abs=0.3)
    deviations = np.sqrt(np.diag(frame.spatial_covariances[0]))
    assert deviations[3] < deviations[5] / 2, "how fast it comes nearer is not known yet"


def test_without_stamps_there_are_positions_but_no_velocities(clip: DepthClip) -> None:
    pipeline = Pipeline(OracleNetwork(clip.clip()))
    for t in range(3):
        frame = pipeline.step(clip.images[t], depth=clip.depths[t], camera=camera(clip, t))
    assert np.isfinite(frame.positions).any()
    assert np.isnan(frame.spatial_velocities).all()


def test_a_snapshot_holds_how_objects_move(clip: DepthClip) -> None:
    network = OracleNetwork(clip.clip())
    whole = run(clip, Stream(Pipeline(network)), range(FRAMES))
    stream = Stream(Pipeline(network))
    for t in range(FRAMES):
        assert_same(run(clip, stream, range(t, t + 1))[0], whole[t])
        state = stream.snapshot()
        stream = Stream(Pipeline(network))
        stream.restore(state)


def test_the_overlapped_stream_gives_the_same(clip: DepthClip) -> None:
    whole = run(clip, Stream(Pipeline(OracleNetwork(clip.clip()))), range(4))
    overlap = Overlap(Stream(Pipeline(OracleNetwork(clip.clip()))))
    for t in range(4):
        pending = overlap.begin(clip.images[t], int(clip.stamps[t]))
        assert_same(overlap.finish(pending, depth=clip.depths[t], camera=camera(clip, t)), whole[t])


def test_tracks_without_depth_are_unknown(clip: DepthClip) -> None:
    tracks = Pipeline(OracleNetwork(clip.clip())).step(clip.images[0])
    nothing: dict[str, Any] = dict.fromkeys(IN_SPACE)
    bare = replace(tracks, **nothing)
    for name, array in unknown_in_space(len(tracks)).items():
        np.testing.assert_array_equal(getattr(bare, name), array)
        assert getattr(tracks, name).shape == array.shape
        assert getattr(tracks, name).dtype == array.dtype
