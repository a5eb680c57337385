# SPDX-License-Identifier: Apache-2.0
"""What a run remembers: curves and percentiles against numpy, gaps of tracks, and that it all stays small."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from instance_flow.report.run_statistics import BY_APPEARANCE, OLDER, Curve, Latencies, Recovery, Statistics
from instance_flow.report.samples import EvenSamples
from instance_flow.structures import NEW, Tracks


def tracks_of(frame: int, ids: list[int], references: list[int] | None = None, x: float = 0.0) -> Tracks:
    """Tracks at (0, x) with class id % 2, score 0.5; ``references`` (NEW unless given) kept them at 2 pixels."""
    count = len(ids)
    kept = np.array(references or [NEW] * count, np.int64)
    return Tracks(
        frame_index=frame,
        label_map=np.zeros((6, 8), np.int32),
        ids=np.array(ids, np.int64),
        class_ids=np.array(ids, np.int64) % 2,
        scores=np.full(count, 0.5, np.float32),
        semantic_scores=np.full(count, 0.5, np.float32),
        center_scores=np.ones(count, np.float32),
        centers=np.tile(np.array([0, x], np.float32), (count, 1)),
        boxes=np.ones((count, 4), np.float32),
        areas=np.ones(count, np.int64),
        velocities=np.zeros((count, 2), np.float32),
        states=np.zeros(count, np.int64),
        ages=np.zeros(count, np.int64),
        age_seconds=np.zeros(count),
        reference_frames=kept,
        distances=np.where(kept == NEW, np.nan, 2.0).astype(np.float32),
    )


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 1000], ids=str)
def test_a_curve_is_the_means_and_the_largest_of_its_steps(count: int) -> None:
    values, curve = np.random.default_rng(count).normal(size=count), Curve(capacity=8)
    for value in values:
        curve.add(float(value))
    parts = [values[k : k + curve.step] for k in range(0, count, curve.step)]
    np.testing.assert_allclose(curve.means, [part.mean() for part in parts])
    np.testing.assert_allclose(curve.largest, [part.max() for part in parts])
    assert len(parts) <= 8
    assert curve.step == 1 or len(parts) > 4


@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_a_curve_joins_its_steps_in_pairs(capacity: int) -> None:
    with pytest.raises(ValueError, match="must be even"):
        Curve(capacity)


@pytest.mark.parametrize("count", [1, 2, 10, 5000], ids=str)
@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
def test_percentiles(count: int, percent: float) -> None:
    seconds = np.random.default_rng(count).lognormal(-4, 1, count)
    latencies = Latencies()
    for value in seconds:
        latencies.add(value)
    expected = np.percentile(seconds, percent, method="inverted_cdf")
    assert latencies.percentile(percent) == pytest.approx(expected, rel=0.0051)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e9])
def test_absurd_latencies_count_as_the_nearest_that_can_be(seconds: float) -> None:
    latencies = Latencies()
    latencies.add(seconds)
    assert latencies.counts.sum() == 1
    assert math.isfinite(latencies.percentile(50))


def test_without_frames() -> None:
    statistics = Statistics()
    assert math.isnan(statistics.latency_ms(50))
    assert (statistics.frames, statistics.records, statistics.object_curve.means) == (0, [], [])


def test_a_track_with_gaps() -> None:
    statistics = Statistics()
    for frame, x in ((0, 0.0), (1, 3.0), (2, None), (3, 5.0), (4, None), (5, None), (6, 4.0)):
        ids, references = ([4], [NEW if frame == 0 else frame - 3 if frame == 3 else 0]) if x is not None else ([], [])
        statistics.add(tracks_of(frame, ids, references, x or 0.0), 0.02)
    (record,) = statistics.records
    assert record.spans == [(0, 1), (3, 3), (6, 6)]
    assert record.recoveries == [Recovery(3, 1, 0, 2.0), Recovery(6, 2, 0, 2.0)]
    assert (record.first, record.last, record.seen, record.longest_gap) == (0, 6, 4, 2)
    assert (record.path, record.mean_score, record.mean_distance) == (3 + 2 + 1, 0.5, 2.0)
    assert statistics.kept == {0: 1, 1: 1, 3: 1, OLDER: 1}


def test_what_kept_an_id() -> None:
    """Re-identified by appearance means that no reference showed it: it is not counted with the references."""
    statistics = Statistics()
    for frame, reference, distance in ((0, NEW, np.nan), (1, 0, 2.0), (9, 1, np.nan), (10, 1, 3.0)):
        statistics.add(replace(tracks_of(frame, [4], [reference]), distances=np.array([distance], np.float32)), 0.01)
    assert statistics.kept == {0: 1, 1: 1, BY_APPEARANCE: 1, OLDER: 1}


def test_totals() -> None:
    statistics = Statistics()
    statistics.add(tracks_of(0, [1, 2, 3]), 0.01)
    statistics.add(tracks_of(1, [2, 5], [0, NEW]), 0.01)
    assert (statistics.frames, statistics.objects, statistics.size) == (2, 5, (6, 8))
    assert statistics.ids == {1: 1, 2: 0, 3: 1, 5: 1}
    assert statistics.class_objects == {1: 3, 0: 2}
    assert statistics.scores.sum() == statistics.scores[20] == 5
    assert math.isnan(statistics.records[0].mean_distance)


def test_very_many_gaps_are_closed_the_smallest_first() -> None:
    statistics, frame = Statistics(), 0
    for number in range(200):
        statistics.add(tracks_of(frame, [1]), 0.01)
        frame += 50 if number == 100 else 2
    (record,) = statistics.records
    assert len(record.spans) == 64
    assert (record.first, record.last, record.seen, record.longest_gap) == (0, 198 * 2 + 50, 200, 49)
    assert any(after[0] - before[1] == 50 for before, after in zip(record.spans, record.spans[1:], strict=False))
    assert len(record.recoveries) == 12


def test_of_very_many_tracks_those_seen_most_are_kept() -> None:
    statistics = Statistics()
    for frame in range(900):
        statistics.add(tracks_of(frame, [1, *range(2 + 3 * frame, 5 + 3 * frame)]), 0.01)
    assert len(statistics.ids) == 2701
    assert 1 in {record.track_id for record in statistics.records}
    assert len(statistics.records) <= 2000


def test_of_very_many_tracks_those_seen_now_stay_whole() -> None:
    statistics = Statistics()
    for frame, ids in enumerate([range(1, 1999)] * 2 + [range(1999, 2002)] * 2):
        statistics.add(tracks_of(frame, list(ids)), 0.01)
    firsts = {record.track_id: record.first for record in statistics.records}
    assert [firsts[track_id] for track_id in (1999, 2000, 2001)] == [2, 2, 2]


@pytest.mark.parametrize("length", [0, 1, 5, 12, 13, 24, 1000], ids=str)
def test_samples_are_spread_over_a_stream_of_any_length(length: int) -> None:
    samples, pictures = EvenSamples(12), 0
    for frame in range(length):
        if samples.accepts(frame):
            samples.add(frame, np.full((1, 1, 3), frame % 256, np.uint8))
            pictures += 1
    frames = [frame for frame, _ in samples.chosen()]
    assert len(frames) == min(length, 12)
    assert frames[:1] == [0][:length]
    assert pictures < 24 + 12 * max(1, math.log2(length + 1))
    if length > 12:
        assert np.diff(frames).max() <= 2 * np.diff(frames).min()
        assert frames[-1] > length - length / 6
