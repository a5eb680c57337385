# SPDX-License-Identifier: Apache-2.0
"""Worlds of hundreds of frames: objects that come and go, and how often an id ends up on another object."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from instance_flow.pipeline import Pipeline
from instance_flow.structures import Tracks
from instance_flow_training.comparing.cli import main as validate
from instance_flow_training.comparing.id_counts import IdCounts, count_ids
from instance_flow_training.comparing.retracking import with_ids
from instance_flow_training.comparing.scoring import track_clip
from instance_flow_training.worlds.cli import main as make_world
from instance_flow_training.worlds.motion import MOST_OBJECTS
from instance_flow_training.worlds.oracle import OracleNetwork
from instance_flow_training.worlds.synthetic import SITUATIONS, Clip, World, WorldConfig, generate_clip

FRAMES = 240


@lru_cache(maxsize=3)
def stream(seed: int) -> Clip:
    return generate_clip(seed, "stream", WorldConfig(size=(48, 80), frames=FRAMES))


def visible(clip: Clip) -> np.ndarray:
    """(T, N) bool."""
    return np.stack([np.isin(np.arange(1, len(clip.class_ids) + 1), labels) for labels in clip.labels])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_objects_come_and_go_and_come_back(seed: int) -> None:
    seen = visible(stream(seed))
    first, last = seen.argmax(0), FRAMES - 1 - seen[::-1].argmax(0)
    shown = seen.any(0)
    later, earlier = first[shown] > FRAMES / 4, last[shown] < 3 * FRAMES / 4
    assert later.sum() >= 3
    assert earlier.sum() >= 3
    absences = [np.diff(np.flatnonzero(row)) - 1 for row in seen.T if row.any()]
    assert max(gaps.max(initial=0) for gaps in absences) > 10


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_of_the_first_frames_stays(seed: int) -> None:
    seen = visible(generate_clip(seed, "stream", WorldConfig(size=(48, 80), frames=600)))
    assert not (seen[:10].any(0) & seen[-100:].any(0)).any()


def test_a_longer_clip_has_more_objects_but_no_more_than_labels() -> None:
    counts = [len(World(0, "stream", WorldConfig(frames=frames)).class_ids) for frames in (60, 300, 600, 20_000)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2]
    assert counts[-1] == MOST_OBJECTS


def test_the_standing_situations_are_taken_in_turn_without_the_endless_one() -> None:
    assert "stream" not in SITUATIONS


def test_the_commands_know_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_world([str(tmp_path), "--situation", "stream", "--frames", "4", "--size", "80x48"]) == 0
    assert validate(["--oracle", "--clips", "1", "--frames", "12", "--situation", "stream", "--trackers", "flow"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "instance flow" in line] == ["all", "stream"]


def renamed(frames: list[Tracks], names: dict[int, int], since: int) -> list[Tracks]:
    return [
        with_ids(f, np.array([names.get(i, i) if f.frame_index >= since else i for i in f.ids.tolist()]))
        for f in frames
    ]


def test_ids_are_counted_by_the_objects_that_they_stand_on() -> None:
    square = np.zeros((3, 4, 20, 30), np.int32)
    square[0, :, 2:8, 2:8] = 1
    square[1, :, 10:16, 12:18] = 2
    square[2, 2:, 2:8, 20:26] = 3
    clip = replace(stream(0), images=np.zeros((4, 20, 30, 3), np.uint8), labels=square.sum(0), class_ids=np.arange(3))
    truth = track_clip(Pipeline(OracleNetwork(clip)), clip)
    assert count_ids(clip, truth) == IdCounts(objects=3, ids=3, shared=0, handovers=0)
    swapped = renamed(truth, {1: 2, 2: 1}, since=2)
    assert count_ids(clip, swapped) == IdCounts(objects=3, ids=3, shared=2, handovers=2)
    cut = renamed(truth, {1: 9}, since=3)
    assert count_ids(clip, cut) == IdCounts(objects=3, ids=4, shared=0, handovers=0)
    away = [replace(f, label_map=np.roll(f.label_map, 4, 1)) if f.frame_index == 1 else f for f in swapped]
    assert count_ids(clip, away) == IdCounts(objects=3, ids=3, shared=2, handovers=2)
