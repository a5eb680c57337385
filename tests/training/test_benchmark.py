# SPDX-License-Identifier: Apache-2.0
"""The comparison with mask-IoU tracking, and what counts as out of the references' reach."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from instance_flow.structures import Tracks
from instance_flow_training.benchmark import main, out_of_reach
from instance_flow_training.iou_tracking import REACH, retrack_by_iou
from instance_flow_training.synthetic import Clip


def frame(index: int, *squares: tuple[int, int, int]) -> Tracks:
    """Squares of 8 pixels as (id, y, x); only what the tracker looks at is filled in."""
    label_map = np.zeros((40, 60), np.int32)
    for identity, y, x in squares:
        label_map[y : y + 8, x : x + 8] = identity
    ids = np.array(sorted(s[0] for s in squares), np.int64)
    ints, floats, points = (
        np.zeros(len(ids), np.int64),
        np.zeros(len(ids), np.float32),
        np.zeros((len(ids), 2), np.float32),
    )
    boxes = np.zeros((len(ids), 4), np.float32)
    return Tracks(index, label_map, ids, ints, floats, floats, floats, points, boxes, ints, points, ints, ints, floats)


SITUATIONS = {
    "slow: kept": ([[(5, 4, 4)], [(9, 4, 6)]], [[1], [1]]),
    "jumped: new": ([[(5, 4, 4)], [(5, 4, 30)]], [[1], [2]]),
    "two, each its own": ([[(1, 4, 4), (2, 20, 4)], [(7, 20, 5), (8, 4, 5)]], [[1, 2], [2, 1]]),
    "hidden for two frames": ([[(1, 4, 4)], [], [], [(6, 4, 4)]], [[1], [], [], [1]]),
    "hidden for too long": ([[(1, 4, 4)], *[[]] * REACH, [(6, 4, 4)]], [[1], *[[]] * REACH, [2]]),
    "look-alikes swap": ([[(1, 4, 4), (2, 4, 16)], [(1, 4, 15), (2, 4, 5)]], [[1, 2], [2, 1]]),
}


@pytest.mark.parametrize(("squares", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_iou_tracking(squares: list[list[tuple[int, int, int]]], expected: list[list[int]]) -> None:
    frames = [frame(t, *now) for t, now in enumerate(squares)]
    tracked = retrack_by_iou(frames)
    for before, after, ids in zip(frames, tracked, expected, strict=True):
        assert after.ids.tolist() == ids
        for old, new in zip(before.ids, after.ids, strict=True):
            np.testing.assert_array_equal(after.label_map == new, before.label_map == old)


def seen(*frames: str) -> Clip:
    """Objects by letter a, b, ... in each frame."""
    labels = np.zeros((len(frames), 2, 4), np.int32)
    for t, objects in enumerate(frames):
        for letter in objects:
            row = ord(letter) - ord("a")
            labels[t, 0, row] = row + 1
    return Clip(np.zeros((*labels.shape, 3), np.uint8), labels, np.zeros(4, np.int64), 0, "mixed", 10.0)


REACHES = {
    "always there": (("a", "a", "a"), 0),
    "three frames away is in reach": (("b", "ab", "b", "b", "ab"), 0),
    "four frames away is not": (("b", "ab", "b", "b", "b", "ab"), 1),
    "four frames away, but in the anchor": (("ab", "ab", "b", "b", "b", "b", "ab"), 0),
    "the anchor is the first frame with objects": (("", "a", "", "", "", "", "a"), 0),
    "twice": (("b", "ab", "b", "b", "b", "ab", "b", "b", "b", "ab"), 2),
}


@pytest.mark.parametrize(("frames", "expected"), REACHES.values(), ids=REACHES)
def test_out_of_reach(frames: tuple[str, ...], expected: int) -> None:
    assert out_of_reach(seen(*frames), 4) == expected


def test_the_command_measures_the_oracle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--oracle", "--clips", "3", "--frames", "10", "--json", str(tmp_path / "n.json")]) == 0
    report = json.loads((tmp_path / "n.json").read_text())
    flow, iou = report["all"]["instance flow"], report["all"]["mask IoU"]
    assert flow["IDSW"] == report["all"]["out of reach"]
    assert iou["IDSW"] > 10 + 3 * flow["IDSW"]
    assert "crossing" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.onnx"]) == 2
    assert capsys.readouterr().err.startswith("instance-flow-validate: error: nowhere.onnx: no such model file")
