# SPDX-License-Identifier: Apache-2.0
"""Reference memory, identities over time, and the whole pipeline on the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
from drawn_clips import FRAMES, SITUATIONS, DrawnClip, TrueNetwork, score, track
from numpy.typing import NDArray

from instance_flow import AssemblyConfig, InstanceFlowError, Pipeline
from instance_flow.assembly.appearance import APPEARANCE_SIZE
from instance_flow.assembly.matching import Matches
from instance_flow.pipeline import Observation
from instance_flow.settings import POLICIES
from instance_flow.spatial import cloud, measure
from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.measure import SpatialConfig
from instance_flow.structures import LAST_ID, NEW, Image, Instances, ModelInfo, Prediction
from instance_flow.tracking.memory import Reference, ReferenceMemory
from instance_flow.tracking.tracker import Tracker


def reference(frame_index: int, ids: Sequence[int] = (1,)) -> Reference:
    return Reference(frame_index, None, None, np.zeros((len(ids), 2), np.float32), np.array(ids, np.int64))


MEMORIES = {
    "first frames": (4, [(0, [1]), (1, [1])], [0, 1]),
    "first and three latest": (4, [(t, [1]) for t in range(9)], [0, 6, 7, 8]),
    "anchor waits for something to see": (3, [(0, []), (1, []), (2, [1]), (3, [1]), (4, [1]), (5, [1])], [2, 4, 5]),
    "nothing seen yet": (3, [(0, []), (1, []), (2, [])], [2, 1]),
    "one reference": (1, [(0, [1]), (1, [1])], [0]),
}


@pytest.mark.parametrize(("capacity", "frames", "expected"), MEMORIES.values(), ids=MEMORIES)
def test_memory_keeps_the_anchor_and_the_latest(
    capacity: int, frames: list[tuple[int, list[int]]], expected: list[int]
) -> None:
    memory = ReferenceMemory(capacity)
    for frame_index, ids in frames:
        memory.add(reference(frame_index, ids))
    assert [r.frame_index for r in memory.references] == expected
    memory = memory.cleared()
    assert memory.references == []


def instances(centers: Sequence[tuple[float, float]], classes: Sequence[Sequence[float]], references: int) -> Instances:
    count = len(centers)
    return Instances(
        labels=np.zeros((1, 1), np.int32),
        centers=np.array(centers, np.float32).reshape(-1, 2),
        center_scores=np.ones(count, np.float32),
        class_scores=np.array(classes, np.float32).reshape(count, -1),
        flows=np.zeros((references, count, 2), np.float32),
        flow_std=np.zeros((references, count), np.float32),
        appearance=np.tile(np.eye(1, APPEARANCE_SIZE, dtype=np.float32), (count, 1)),
    )


def all_kept_as(identity: int) -> Matches:
    return Matches(np.array([identity]), np.array([-1 if identity == 0 else 0]), np.zeros(1, np.float32))


def test_a_stream_that_has_given_all_ids_says_so_and_goes_on_with_those_it_has() -> None:
    tracker = Tracker()
    tracker._next_id = LAST_ID
    one = instances([(5, 5)], [[1.0]], 0)
    assert tracker.update(one, all_kept_as(0), [], 0).ids.tolist() == [LAST_ID]
    with pytest.raises(InstanceFlowError, match=f"has given all ids up to {LAST_ID}; reset it"):
        tracker.update(one, all_kept_as(0), [], 1)
    seen = instances([(5, 5)], [[1.0]], 1)
    assert tracker.update(seen, all_kept_as(LAST_ID), [reference(0, [LAST_ID])], 1).ids.tolist() == [LAST_ID]


def test_class_is_decided_by_the_votes_of_all_frames() -> None:
    seen: list[Reference] = []
    tracker, classes = Tracker(), []
    for t, scores in enumerate([(0.9, 0.1), (0.4, 0.6), (0.45, 0.55), (0.0, 1.0)]):
        identities = tracker.update(instances([(5, 5)], [scores], len(seen)), all_kept_as(min(t, 1)), seen, t)
        seen = [Reference(t, None, None, np.array([[5, 5]], np.float32), identities.ids)]
        classes.append(int(identities.class_ids[0]))
        assert identities.ids.tolist() == [1]
        assert identities.ages.tolist() == [t]
    assert classes == [0, 0, 0, 1]


@pytest.mark.parametrize(("lost_frames", "most"), [(0, 1), (10, 11), (10_000, 101)], ids=str)
def test_ids_that_no_reference_holds_are_forgotten_and_never_used_again(lost_frames: int, most: int) -> None:
    tracker = Tracker(lost_frames)
    for t in range(150):
        identities = tracker.update(instances([(5, 5)], [(1.0,)], 0), all_kept_as(0), [], t)
        tracker.forget([Reference(t, None, None, np.array([[5, 5]], np.float32), identities.ids)], t)
        assert identities.ids.tolist() == [t + 1]
        assert len(tracker) == len(tracker.known(t + 1).ids) == min(t + 1, most)
    assert tracker.known(150).ids.tolist() == list(range(151 - most, 151))


def test_an_identity_is_expected_where_its_last_motion_takes_it() -> None:
    tracker = Tracker(10)
    assert tracker.known(0).expected.shape == (0, 2)
    for t, x in ((0, 5.0), (1, 7.0), (3, 15.0)):
        tracker.update(instances([(5, x)], [(1.0,)], 0), all_kept_as(min(t, 1)), [], t)
    known = tracker.known(5)
    assert known.gaps.tolist() == [2]
    np.testing.assert_allclose(known.expected, [[5, 21]])  # velocity 2, then the mean of 2 and 4


def test_an_id_taken_up_again_names_the_last_frame_that_saw_it() -> None:
    tracker = Tracker(10)
    tracker.update(instances([(5, 5)], [(1.0,)], 0), all_kept_as(0), [], 0)
    found = Matches(np.array([1]), np.array([-1]), np.array([np.nan], np.float32))
    identities = tracker.update(instances([(5, 5)], [(1.0,)], 0), found, [], 2)
    assert (identities.ids[0], identities.reference_frames[0], identities.ages[0]) == (1, 0, 2)
    assert np.isnan(identities.velocities).all()


@pytest.fixture(params=SITUATIONS.values(), ids=SITUATIONS)
def clip(request: pytest.FixtureRequest) -> DrawnClip:
    return request.param  # type: ignore[no-any-return]


def test_the_truth_scores_one(clip: DrawnClip) -> None:
    tracks = track(Pipeline(TrueNetwork(clip)), clip)
    for t, frame in enumerate(tracks):
        np.testing.assert_array_equal(frame.label_map > 0, clip.labels[t] > 0)
    assert score(clip, tracks) == (pytest.approx(1.0, abs=1e-12), 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_distances_alone_lose_just_what_no_reference_shows(clip: DrawnClip, policy: str) -> None:
    _, switches = score(clip, track(Pipeline(TrueNetwork(clip), AssemblyConfig(matching=policy)), clip))
    assert switches == clip.unreferenced_recoveries


def test_the_papers_settings_lose_just_what_no_reference_shows(clip: DrawnClip) -> None:
    seen: list[list[int]] = []
    # The network's centers are exact: its own window, none, merges no objects that hide each other.
    network = TrueNetwork(clip, min_score=1.0, confirm_frames=9)
    pipeline = Pipeline(network, replace(AssemblyConfig.paper(), center_window=0.0))
    pipeline.observer = lambda observed: seen.append([r.frame_index for r in observed.references])
    _, switches = score(clip, track(pipeline, clip))
    assert switches == clip.unreferenced_recoveries
    assert seen[4:] == [[0, t - 3, t - 2, t - 1] for t in range(4, FRAMES)]


def test_the_papers_window_is_41_of_640_pixels() -> None:
    """The hottest of three cells rules out the one that is 5 cells, 20 pixels, away, and not the one 6 cells away."""

    class Spots(NothingThere):
        info = replace(
            NothingThere.info, input_size=(640, 640), output_stride=4, center_window=0.0, center_threshold=0.9
        )

        def predict(self, _: Image, references: Sequence[int]) -> Prediction:
            center = np.zeros((160, 160), np.float32)
            center[80, [74, 80, 85]] = 0.2, 0.3, 0.2
            semantic = np.zeros((len(self.info.class_names) + 1, 160, 160), np.float32)
            semantic[1] = 1
            offset = np.zeros((2, 160, 160), np.float32)
            return Prediction(semantic, center, offset, np.zeros((len(references), *offset.shape), np.float32), 0)

    observed: list[Observation] = []
    pipeline = Pipeline(Spots(), AssemblyConfig.paper())
    pipeline.observer = observed.append
    pipeline.step(np.zeros((640, 640, 3), np.uint8))
    assert sorted(observed[0].instances.centers.tolist()) == [[80, 74], [80, 80]]


def test_tracks_keep_their_contract(clip: DrawnClip) -> None:
    tracks = track(Pipeline(TrueNetwork(clip)), clip)
    used: set[int] = set()
    last_seen: dict[int, int] = {}
    for t, frame in enumerate(tracks):
        assert frame.frame_index == t
        assert sorted(set(np.unique(frame.label_map)) - {0}) == frame.ids.tolist()
        new = frame.reference_frames == NEW
        np.testing.assert_array_equal(new, [i not in used for i in frame.ids])
        unmeasured = np.isnan(frame.distances)
        # An id that was out of sight and is found again moves as it did, within a wider covariance.
        np.testing.assert_array_equal(np.isnan(frame.velocities).any(1), frame.ages == 0)
        np.testing.assert_array_equal(np.isnan(frame.velocity_covariances).any((1, 2)), frame.ages == 0)
        for row in np.flatnonzero(unmeasured).tolist():
            assert frame.reference_frames[row] == last_seen.get(int(frame.ids[row]), NEW)
        last_seen.update(dict.fromkeys(frame.ids.tolist(), t))
        assert (frame.ages[new] == 0).all()
        used |= set(frame.ids.tolist())
        for row, identity in enumerate(frame.ids):
            ys, xs = np.nonzero(frame.label_map == identity)
            assert frame.areas[row] == len(ys)
            assert frame.boxes[row].tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_the_velocity_is_nearer_to_the_truth_than_one_flow_over_one_interval() -> None:
    """A curve, as a network sees it: centers within 0.3 cells, flows within one, and at times a flow of nonsense."""
    rng, tracker = np.random.default_rng(1), Tracker(10)
    seen: list[Reference] = []
    filtered, single = [], []
    for t in range(120):
        at = np.array([30 + 10 * np.sin(0.1 * t), 40 + 10 * np.cos(0.1 * t)])
        true = np.array([10 * np.cos(0.1 * t), -10 * np.sin(0.1 * t)])  # at 10 frames per second
        one = instances([tuple(at + 0.3 * rng.standard_normal(2))], [(1.0,)], len(seen))
        for r, reference in enumerate(seen):
            nonsense = rng.random() < 0.1
            one.flows[r, 0] = reference.features - at + rng.standard_normal(2) * (8 if nonsense else 1)
            one.flow_std[r, 0] = 4 if nonsense else 0.5
        identities = tracker.update(one, all_kept_as(min(t, 1)), seen, t, round(t * 1e8))
        if t:
            filtered.append(np.linalg.norm(identities.velocities[0] - true))
            single.append(np.linalg.norm(-10 * one.flows[-1, 0] - true))
        seen = [*seen, Reference(t, round(t * 1e8), at, one.centers, identities.ids)][-4:]
    assert np.median(filtered) < np.median(single) / 2
    assert np.quantile(filtered, 0.9) < np.quantile(single, 0.9) / 3


STEADY = {
    "even": [0.1 * t for t in range(20)],
    "uneven": [0.1 * t + 0.04 * (t % 2) for t in range(20)],
    "a gap": [0.1 * t + 0.9 * (t > 10) for t in range(20)],
    "fast": [0.01 * t for t in range(20)],
    "some without a time": [None if t % 5 == 4 else 0.1 * t for t in range(20)],
    "two with one time": [0.1 * (t - (t == 15)) for t in range(20)],
}


@pytest.mark.parametrize("seconds", STEADY.values(), ids=STEADY)
def test_a_steady_motion_is_found_whatever_the_stamps_are(seconds: list[float | None]) -> None:
    """(3, -8) cells per second; the flow of every reference is exact over its own interval."""
    tracker = Tracker(10)
    seen: list[Reference] = []
    for t, now in enumerate(seconds):
        at = (5 + 0.3 * t, 60 - 0.8 * t) if now is None else (5 + 3 * now, 60 - 8 * now)
        stamp = None if now is None else round(now * 1e9)
        one = instances([at], [(1.0,)], len(seen))
        for r, reference in enumerate(seen):
            one.flows[r, 0] = reference.centers[0] - one.centers[0]
        identities = tracker.update(one, all_kept_as(min(t, 1)), seen, t, stamp)
        assert np.isnan(identities.velocities).all() == (t == 0 or now is None)
        seen = [*seen, Reference(t, stamp, None, one.centers, identities.ids)][-4:]
    np.testing.assert_allclose(identities.velocities if now is not None else [[3, -8]], [[3, -8]], atol=0.3)


def test_no_id_depends_on_the_filter() -> None:
    """Without stamps there is none."""
    clip = SITUATIONS["crossing"]
    with_stamps, without = (Pipeline(TrueNetwork(clip)) for _ in range(2))
    for t, image in enumerate(clip.images):
        one, other = with_stamps.step(image, round(t * 1e8)), without.step(image)
        np.testing.assert_array_equal(one.label_map, other.label_map)
        np.testing.assert_array_equal(one.reference_frames, other.reference_frames)
        assert np.isnan(other.velocities).all()


def test_out_of_sight_the_velocity_grows_uncertain_until_it_is_unknown() -> None:
    found = []
    for gap in (1, 5, 20, 60):
        tracker = Tracker(100)
        for t in (*range(10), 9 + gap):
            identities = tracker.update(
                instances([(5, 5 + t)], [(1.0,)], 0), all_kept_as(min(t, 1)), [], t, round(t * 1e8)
            )
        found.append(identities.velocity_covariances[0, 0, 0])
    assert np.isfinite(found[:3]).all()
    assert (np.diff(found[:3]) > 0).all()


def test_a_clock_that_is_set_back_begins_the_motion_again() -> None:
    tracker = Tracker(100)
    velocities = []
    for t, seconds in enumerate([10.0, 10.1, 10.2, 1.0, 1.1, 1.2]):
        one = instances([(5, 5 + t)], [(1.0,)], 0)
        velocities.append(tracker.update(one, all_kept_as(min(t, 1)), [], t, round(seconds * 1e9)).velocities[0, 1])
    assert np.isnan(velocities[3])
    np.testing.assert_allclose(velocities[5], 10, atol=1)


def test_nothing_survives_a_reset() -> None:
    tracker = Tracker(10)
    for t in range(3):
        tracker.update(instances([(5, 5)], [(1.0,)], 0), all_kept_as(0), [], t)
    tracker.clear()
    assert len(tracker) == len(tracker.known(0).ids) == 0
    assert tracker.update(instances([(5, 5)], [(1.0,)], 0), all_kept_as(0), [], 0).ages.tolist() == [0]


def test_appearance_is_the_mean_of_all_sightings() -> None:
    tracker, seen = Tracker(10), np.eye(2, APPEARANCE_SIZE, dtype=np.float32)
    for t, kind in enumerate([0, 0, 0, 1]):
        now = replace(instances([(5, 5)], [(1.0,)], 0), appearance=seen[kind : kind + 1])
        tracker.update(now, all_kept_as(min(t, 1)), [], t)
    np.testing.assert_allclose(tracker.known(4).appearance @ seen.T, [[3 / np.sqrt(10), 1 / np.sqrt(10)]], rtol=1e-6)


def test_appearance_follows_the_light() -> None:
    tracker, seen = Tracker(10), np.eye(2, APPEARANCE_SIZE, dtype=np.float32)
    for t in range(150):
        now = replace(instances([(5, 5)], [(1.0,)], 0), appearance=seen[int(t >= 100)][None])
        tracker.update(now, all_kept_as(min(t, 1)), [], t)
    assert float((tracker.known(150).appearance @ seen.T)[0, 1]) > 0.9


def test_reset_starts_again_with_id_one(clip: DrawnClip) -> None:
    pipeline = Pipeline(TrueNetwork(clip))
    first = track(pipeline, clip)
    again = track(pipeline, clip)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.label_map, b.label_map)


class NothingThere:
    """A network that sees only background."""

    info = ModelInfo(name="nothing", class_names=("thing",), input_size=(32, 64))

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:
        h, w = image.shape[0] // 4, image.shape[1] // 4
        semantic = np.stack([np.ones((h, w)), np.zeros((h, w))]).astype(np.float32)
        offset = np.zeros((2, h, w), np.float32)
        return Prediction(
            semantic, np.ones((h, w), np.float32), offset, np.zeros((len(references), 2, h, w), np.float32), 0
        )


def test_distances_are_in_pixels_of_the_cameras_image() -> None:
    class OneCellBeside(NothingThere):
        """One object whose flow misses by one cell."""

        def predict(self, image: Image, references: Sequence[int]) -> Prediction:
            maps = super().predict(image, references)
            heat = np.zeros_like(maps.center)
            heat[4, 8] = 1
            maps.reference_offset[:, 1] += 1
            return replace(maps, semantic=maps.semantic[::-1].copy(), center=heat)

    pipeline = Pipeline(OneCellBeside())
    image = np.zeros((64, 128, 3), np.uint8)  # twice as large as the network's input, whose cells have 4 x 4 pixels
    pipeline.step(image)
    assert pipeline.step(image).distances.tolist() == [8.0]


def test_frames_without_objects_are_empty_tracks() -> None:
    pipeline = Pipeline(NothingThere())
    for t in range(6):
        tracks = pipeline.step(np.zeros((48, 64, 3), np.uint8))
        assert (tracks.frame_index, len(tracks), int(tracks.label_map.max())) == (t, 0, 0)
        assert tracks.label_map.shape == (48, 64)


class OneThing(NothingThere):
    """A network that takes the whole picture for one object."""

    info = ModelInfo(name="one", class_names=("thing",), input_size=(192, 320))

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:
        seen = super().predict(image, references)
        h, w = seen.center.shape
        center = np.zeros((h, w), np.float32)
        center[h // 9, w // 9] = 1
        return replace(seen, semantic=seen.semantic[::-1], center=center)


CAMERAS = [(192, 320), (720, 1280), (1080, 1920), (480, 640), (479, 641), (1000, 300), (101, 203), (48, 64)]


@pytest.mark.parametrize("shape", CAMERAS, ids=str)
def test_masks_reach_the_edges_of_letterboxed_frames(shape: tuple[int, int]) -> None:
    tracks = Pipeline(OneThing()).step(np.zeros((*shape, 3), np.uint8))
    assert (tracks.label_map == 1).all()
    assert tracks.boxes[0].tolist() == [0, 0, shape[1], shape[0]]
    assert tracks.areas[0] == shape[0] * shape[1]


@pytest.mark.parametrize("name", ["semantic", "center", "offset", "reference_offset"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_and_leave_the_stream_as_it_was(name: str, value: float) -> None:
    class Spoiled(OneThing):
        spoil = False

        def predict(self, image: Image, references: Sequence[int]) -> Prediction:
            seen = super().predict(image, references)
            broken = np.full_like(getattr(seen, name), value)
            return replace(seen, **{name: broken}) if self.spoil else seen

    network = Spoiled()
    pipeline = Pipeline(network)
    image = np.zeros((192, 320, 3), np.uint8)
    pipeline.step(image)
    network.spoil = True
    with pytest.raises(InstanceFlowError, match=name):
        pipeline.step(image)
    network.spoil = False
    tracks = pipeline.step(image)
    assert (tracks.frame_index, tracks.ids.tolist(), tracks.ages.tolist()) == (1, [1], [1])


def test_warm_up_runs_every_number_of_references_and_leaves_a_fresh_stream() -> None:
    seen = []

    class Counting(NothingThere):
        def predict(self, image: Image, references: Sequence[int]) -> Prediction:
            seen.append(len(references))
            return super().predict(image, references)

    observed: list[Observation] = []
    pipeline = Pipeline(Counting())
    pipeline.observer = observed.append
    pipeline.warmup((480, 640))
    assert not observed, "the noise of the warm-up is no frame"
    assert set(seen) == {0, 1, 2, 3, 4}
    assert pipeline.step(np.zeros((48, 64, 3), np.uint8)).frame_index == 0
    assert [seen.tracks.frame_index for seen in observed] == [0]


DEPTH = np.full((48, 64), 2.0, np.float32)
DEPTHS: dict[str, tuple[NDArray[Any], tuple[float, ...]]] = {
    "millimetres": ((1000 * DEPTH).astype(np.uint16), ()),
    "metres": (DEPTH, ()),
    "half precision": (DEPTH.astype(np.float16), ()),
    "double precision": (DEPTH.astype(np.float64), ()),
    "other byte order": ((1000 * DEPTH).astype(">u2"), ()),
    "read-only": (np.broadcast_to(DEPTH, (48, 64)), ()),
    "part of a wider image": (np.full((48, 200), 2.0, np.float32)[:, 20:84], ()),
    "lens with distortion": (DEPTH, (0.1, 0.0, 0.0, 0.0)),
    "fisheye, millimetres": ((1000 * DEPTH).astype(np.uint16), (0.01, 0.0, 0.0, 0.0)),
}


@pytest.mark.parametrize("settings", [SpatialConfig(), SpatialConfig(max_depth=20)], ids=["floats", "a whole number"])
@pytest.mark.parametrize(("depth", "distortion"), DEPTHS.values(), ids=DEPTHS)
def test_after_the_warm_up_no_depth_compiles_anything(
    depth: NDArray[Any], distortion: tuple[float, ...], settings: SpatialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels as a new process has them: with nothing compiled, but for what is in the cache."""
    kernels = ((measure, "_points"), (measure, "_percentiles"), (cloud, "_points"))
    for module, name in kernels:
        monkeypatch.setattr(module, name, numba.njit(cache=True, nogil=True)(getattr(module, name).py_func))
    pipeline = Pipeline(OneThing())
    pipeline.spatial = settings
    pipeline.warmup((48, 64), depth=True)
    warm = [getattr(module, name).signatures for module, name in kernels]
    matrix = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    camera = CameraModel(matrix, distortion, "equidistant" if 0.01 in distortion else "plumb_bob")
    tracks = pipeline.step(np.zeros((48, 64, 3), np.uint8), 0, depth=depth, camera=camera)
    assert tracks.positions[0, 2] == pytest.approx(2.0, abs=1e-3)
    points, owners = cloud.object_points(depth, tracks.label_map, camera, settings.max_depth)
    np.testing.assert_allclose(points[:, 2], 2.0, atol=1e-3)
    assert len(owners) == tracks.areas.sum()
    assert [getattr(module, name).signatures for module, name in kernels] == warm


def test_a_bad_image_leaves_the_stream_as_it_was() -> None:
    pipeline = Pipeline(NothingThere())
    pipeline.step(np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="expected"):
        pipeline.step(np.zeros((32, 64), np.uint8))
    assert pipeline.step(np.zeros((32, 64, 3), np.uint8)).frame_index == 1


BAD_SETTINGS = {
    "threshold above one": {"center_threshold": 1.5},
    "negative distance": {"max_distance": -0.1},
    "text": {"center_window": "wide"},
    "unknown matching": {"matching": "best"},
    "no instances": {"max_instances": 0},
    "half an instance": {"max_instances": 5.5},
    "true": {"references": True},
}


@pytest.mark.parametrize("settings", BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"it must be (a (whole )?number from|one of evidence, nearest, mean)"):
        replace(AssemblyConfig(), **settings)


def test_more_references_than_the_model_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 4"):
        Pipeline(NothingThere(), AssemblyConfig(references=5))
