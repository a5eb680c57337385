# SPDX-License-Identifier: Apache-2.0
"""Which frames a slower machine manages, counted by hand; what the others cost, against truth that is known."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from red_thing import HEIGHT, START, STEP, WIDTH, frames, lines_of, write_source

from instance_flow.commands import run
from instance_flow.commands.cli import main
from instance_flow.formats import rle
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.video import Frame
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, load_ground_truth, write_ground_truth
from instance_flow.replay.as_live import LiveComparison, chosen_frames, survivors
from instance_flow.structures import SourceError, Tracks

SECOND = 10**9
TENTH = SECOND // 10


def at(*tenths: float, camera: int = 0) -> list[tuple[int, int]]:
    return [(round(time * TENTH), camera) for time in tenths]


@pytest.mark.parametrize(
    ("arrivals", "rate", "expected"),
    [
        ([], 10, []),
        (at(0), 1, [0]),
        (at(0, 1, 2, 3), 100, [0, 1, 2, 3]),
        (at(0, 1, 2, 3), 10, [0, 1, 2, 3]),
        (at(0, 1, 2, 3, 4, 5), 5, [0, 2, 4, 5]),
        (at(0, 1, 2, 3, 4, 5, 6), 10 / 2.5, [0, 2, 5, 6]),
        (at(0, 1, 2, 3, 4, 5), 0.1, [0, 5]),
        (at(0, 0.1, 0.2, 5, 5.1), 10, [0, 2, 3, 4]),
        (at(0, 0, 0, 0), 10, [3]),
        (sorted(at(0, 1, 2, 3) + at(0, 1, 2, 3, camera=1)), 20, [0, 1, 2, 3, 4, 5, 6, 7]),
        (sorted(at(0, 1, 2, 3) + at(0.5, 1.5, 2.5, 3.5, camera=1)), 10, [0, 1, 4, 5, 6, 7]),
        (sorted(at(0, 1, 2, 3, 4, 5) + at(0, 1, 2, 3, 4, 5, camera=1)), 10, [0, 3, 4, 7, 8, 11, 10]),
        (sorted(at(0, 1, 2, 3, 4, 5) + at(0.5, camera=1)), 10, [0, 1, 3, 4, 5, 6]),
    ],
    ids=[
        "nothing",
        "one",
        "much faster",
        "just as fast",
        "half as fast",
        "two of five",
        "busy until the end",
        "a burst and a pause",
        "all at once",
        "two cameras, fast enough",
        "two cameras in turn share what one would need",
        "two cameras at once share what one would need",
        "a camera with one frame gets its turn",
    ],
)
def test_survivors(arrivals: list[tuple[int, int]], rate: float, expected: list[int]) -> None:
    assert survivors(arrivals, rate) == expected


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match="a number above 0 is needed"):
        survivors([], rate)


def test_frames_are_chosen_per_camera() -> None:
    arrivals = sorted(at(0, 1, 2, 3, 4, 5) + at(0, 1, 2, 3, 4, 5, camera=1))
    assert chosen_frames(arrivals, 10) == [frozenset({0, 2, 4, 5}), frozenset({1, 3, 5})]


def test_no_more_are_managed_than_there_is_time_for() -> None:
    """On arrivals at random: the work that is begun fits, one frame after the other, and the last frame is seen."""
    rng = np.random.default_rng(0)
    for rate in (3.0, 10.0, 40.0):
        times = np.cumsum(rng.integers(1, SECOND // 10, 300)).tolist()
        chosen = survivors([(time, 0) for time in times], rate)
        assert chosen == sorted(set(chosen))
        assert chosen[-1] == 299
        assert len(chosen) <= (times[-1] - times[0]) * rate / SECOND + 2


def tracks_of(frame: int, *placed: tuple[int, int]) -> Tracks:
    """Squares of 4 pixels: (id, x)."""
    label_map = np.zeros((8, 40), np.int32)
    for track_id, x in placed:
        label_map[2:6, x : x + 4] = track_id
    ids = np.array(sorted(track_id for track_id, _ in placed), np.int64)
    count = len(ids)
    score = np.full(count, 0.5, np.float32)
    return Tracks(
        frame_index=frame,
        label_map=label_map,
        ids=ids,
        class_ids=np.zeros(count, np.int64),
        scores=score,
        semantic_scores=score,
        center_scores=score,
        centers=np.zeros((count, 2), np.float32),
        boxes=np.zeros((count, 4), np.float32),
        areas=np.full(count, 16, np.int64),
        velocities=np.zeros((count, 2), np.float32),
        states=np.zeros(count, np.int64),
        ages=np.zeros(count, np.int64),
        age_seconds=np.zeros(count),
        reference_frames=np.zeros(count, np.int64),
        distances=np.full(count, np.nan, np.float32),
    )


def frame(number: int, height: int = 8) -> Frame:
    return Frame(np.zeros((height, 40, 3), np.uint8), number, "", "", number=number)


def square(x: int) -> dict[str, object]:
    mask: NDArray[np.uint8] = np.zeros((8, 40), np.uint8)
    mask[2:6, x : x + 4] = 1
    return dict(rle.encode(mask))


def compare(live_ids: list[int], chosen: list[int]) -> LiveComparison:
    """One square that moves 2 pixels per frame; the full run calls it 1, the slower machine so at each chosen frame."""
    comparison = LiveComparison(chosen)
    with ExitStack() as stack:
        live, full = stack.enter_context(comparison.live()), stack.enter_context(comparison.full())
        for number in range(8):
            full(frame(number), tracks_of(number, (1, 2 * number)))
        for place, (number, track_id) in enumerate(zip(chosen, live_ids, strict=True)):
            live(frame(number), tracks_of(place, (track_id, 2 * number)))
    return comparison


@pytest.mark.parametrize(
    ("ids", "switches", "idf1"),
    [([1, 1, 1, 1], 0, 1.0), ([7, 7, 7, 7], 0, 1.0), ([1, 1, 2, 2], 1, 0.5), ([1, 2, 1, 2], 3, 0.5)],
    ids=["kept", "kept under another name", "lost once", "back and forth"],
)
def test_cost_against_the_full_run(ids: list[int], switches: int, idf1: float) -> None:
    cost = compare(ids, [0, 2, 4, 6]).cost(8)["against_full_run"]
    assert (cost["IDSW"], cost["IDF1"]) == (switches, pytest.approx(idf1))


def test_cost_against_the_truth_is_that_of_the_frames_worked_on() -> None:
    """The truth has a second object, which neither finds, and other ids change in frames that are not compared."""
    annotations = (
        Annotation(1, 5, 1, [square(2 * k) for k in range(8)]),
        Annotation(2, 5, 1, [square(30) if k % 2 == 0 else None for k in range(8)]),
        Annotation(3, 6, 1, [square(0)] * 8),
    )
    truth = GroundTruth((Video(5, 8, 40, 8), Video(6, 8, 40, 8)), (Category(1, "square"),), annotations)
    cost = compare([1, 1, 2, 2], [0, 2, 4, 6]).cost(8, truth, 5)["against_ground_truth"]
    assert (cost["as_live"]["IDSW"], cost["full_run"]["IDSW"]) == (1, 0)
    assert cost["full_run"]["IDF1"] == pytest.approx(2 * 4 / (8 + 4))


def test_frames_that_a_stopped_run_did_not_reach_cost_nothing() -> None:
    comparison = LiveComparison(range(0, 100, 2))
    with comparison.live() as live, comparison.full() as full:
        for number in range(6):
            full(frame(number), tracks_of(number, (1, 2 * number)))
            if number % 2 == 0:
                live(frame(number), tracks_of(number // 2, (1, 2 * number)))
    assert comparison.cost(6)["against_full_run"]["IDF1"] == 1


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (Video(2, 8, 40, 8), "has no video with the id 1; give its id by --video-id"),
        (Video(1, 8, 40, 6), "video 1 has 6 frames of 40 x 8, but at least 7 frames of 40 x 8 were run"),
        (Video(1, 9, 40, 8), "has 8 frames of 40 x 9, but at least 7 frames of 40 x 8"),
    ],
    ids=["another id", "too short", "another size"],
)
def test_truth_of_something_else(video: Video, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        compare([1, 1, 1, 1], [0, 2, 4, 6]).cost(8, GroundTruth((video,), (), ()))


def test_a_bag_as_live(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten frames per second on a machine that manages five: every second one, and its own tracks in all files."""
    pytest.importorskip("rosbags")
    source, out = write_source(tmp_path / "clip.mcap", frames(7)), tmp_path / "out"
    masks = [None] * 7
    pictures = tuple(f"clip/{k}.jpg" for k in range(7))
    videos = Video(1, HEIGHT, WIDTH, 7), Video(4, HEIGHT, WIDTH, 7, pictures)
    truth = GroundTruth(videos, (Category(1, "red"),), (Annotation(1, 4, 1, masks),))
    write_ground_truth(tmp_path / "truth.json", truth)
    command = ["run", str(source), "--model", str(model), "--out", str(out), "--json", "--no-video", "--as-live", "5"]
    assert main([*command, "--ground-truth", str(tmp_path / "truth.json")]) == 0

    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["ids"]) == (4, 1)
    facts = report["as_live"]
    assert (facts["rate"], facts["frames"], facts["dropped"]) == (5, 7, 3)
    assert facts["against_full_run"] == {"IDSW": 0, "IDF1": 1, "HOTA": 1, "AssA": 1}
    assert set(facts["against_ground_truth"]) == {"as_live", "full_run"}
    (result,) = json.loads((out / "results.json").read_text())
    assert result["video_id"] == 4
    assert [mask is not None for mask in result["segmentations"]] == [True, False, True, False, True, False, True]
    page = (out / "report.html").read_text()
    assert "As live" in page
    assert "dropped" in page


def test_the_machine_drops_frames_for_those_after_the_last_one_that_is_run(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a run is stopped early changes nothing about the frames before, so that another run may resume it."""
    pytest.importorskip("rosbags")
    source, out = write_source(tmp_path / "clip.mcap", frames(7)), tmp_path / "out"
    command = ["run", str(source), "--model", str(model), "--out", str(out), "--json", "--no-video", "--as-live", "5"]
    assert main([*command, "--max-frames", "4"]) == 0
    facts = json.loads(capsys.readouterr().out)["as_live"]
    assert (facts["frames"], facts["dropped"]) == (4, 2)
    assert [line["number"] for line in lines_of(out / "tracks.jsonl")] == [0, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["--video-id", "9"], "has no video with the id 9; give its id by --video-id", id="by_id"),
        pytest.param([], "no video has its pictures in a folder named clip; give its id by --video-id", id="by_name"),
    ],
)
def test_truth_without_the_video_is_told_before_the_work(
    options: list[str], words: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rosbags")
    source, out = write_source(tmp_path / "clip.mcap", frames(2)), tmp_path / "out"
    write_ground_truth(tmp_path / "truth.json", GroundTruth((Video(1, 8, 40, 2),), (Category(1, "red"),), ()))
    command = ["run", str(source), "--model", str(model), "--out", str(out), "--as-live", "5"]
    assert main([*command, "--ground-truth", str(tmp_path / "truth.json"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_the_truth_is_read_once_for_all_sources(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rosbags")
    names, read = ("a", "b"), list[Path]()
    videos = [Video(k, HEIGHT, WIDTH, 2, (f"{name}/0.jpg", f"{name}/1.jpg")) for k, name in enumerate(names, 1)]
    annotations = tuple(Annotation(k, k, 1, [None] * 2) for k in (1, 2))
    write_ground_truth(tmp_path / "truth.json", GroundTruth(tuple(videos), (Category(1, "red"),), annotations))
    bags = [str(write_source(tmp_path / f"{name}.mcap", frames(2))) for name in names]

    def load(path: Path) -> GroundTruth:
        read.append(path)
        return load_ground_truth(path)

    monkeypatch.setattr(run, "load_ground_truth", load)
    command = ["run", *bags, "--model", str(model), "--out", str(tmp_path / "out"), "--json", "--no-video"]
    assert main([*command, "--as-live", "5", "--ground-truth", str(tmp_path / "truth.json")]) == 0
    sources = json.loads(capsys.readouterr().out)["sources"]
    assert ["against_ground_truth" in summary["as_live"] for summary in sources.values()] == [True, True]
    ids = [json.loads((tmp_path / "out" / name / "results.json").read_text())[0]["video_id"] for name in names]
    assert (ids, read) == ([1, 2], [tmp_path / "truth.json"])


def test_a_damaged_truth_is_told_once_and_before_any_source(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rosbags")
    bags = [str(write_source(tmp_path / f"{name}.mcap", frames(2))) for name in ("a", "b")]
    (tmp_path / "truth.json").write_text("damaged")
    command = ["run", *bags, "--model", str(model), "--out", str(tmp_path / "out"), "--as-live", "5"]
    assert main([*command, "--ground-truth", str(tmp_path / "truth.json")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"instance-flow: error: {tmp_path / 'truth.json'}")
    assert not (tmp_path / "out").exists()


def test_cameras_share_the_machine(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rosbags")
    with BagWriter(tmp_path / "two.mcap") as bag:
        for k, image in enumerate(frames(6)):
            for topic in ("/left/image", "/right/image"):
                bag.write_image(topic, image, START + k * STEP)
    command = ["run", str(tmp_path / "two.mcap"), "--model", str(model), "--out", str(tmp_path / "out"), "--json"]
    assert main([*command, "--no-video", "--no-report", "--all-topics", "--as-live", "10"]) == 0
    cameras = json.loads(capsys.readouterr().out)["cameras"]
    assert {name: camera["as_live"]["dropped"] for name, camera in cameras.items()} == {"left": 2, "right": 3}
