# SPDX-License-Identifier: Apache-2.0
"""Runs that are stopped in any way, and resumed: their files are those of a run that was not stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from red_thing import START, STEP, frames

from instance_flow.commands.cli import main
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.bags import RAW
from instance_flow.replay.journal import FOLDER, FRAMES_PER_SNAPSHOT, Journal
from instance_flow.replay.session import locked

pytest.importorskip("rosbags")

COUNT = 2 * FRAMES_PER_SNAPSHOT + 30
LOOP = FRAMES_PER_SNAPSHOT + 20
"""Here the stamps begin anew."""

SIGNALLED = """
import os, sys
from instance_flow.formats import bags
from instance_flow.commands.cli import main

images, at, number = bags.BagImages.images, int(sys.argv.pop(1)), int(sys.argv.pop(1))

def signalled(self, refuse):
    for image in images(self, refuse):
        if image.number == at:
            os.kill(os.getpid(), number)
        yield image

bags.BagImages.images = signalled
sys.exit(main())
"""
"""The command, in which a signal comes just before a certain image: at the same place on every machine."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The red object again and again to the right; a loop, a pause, and an image that cannot be used."""
    path = tmp_path_factory.mktemp("recording") / "long.mcap"
    with BagWriter(path) as bag:
        for k in range(COUNT):
            stamp = START + k % LOOP * STEP + (100 * STEP if k > LOOP + 40 else 0)
            bag.write_image("/camera", frames(8)[k % 8], stamp, received=10**18 + k * STEP)
            if k == LOOP + 10:
                types, broken = bag.typestore.types, np.zeros(4, np.uint8)
                message = types[RAW](bag.header(stamp, ""), 1, 1, "sparkling", 0, 4, broken)
                bag.write_message("/camera", message, 10**18 + k * STEP + 1)
    return path


def command(source: Path, model: Path, out: Path, *options: str) -> list[str]:
    return ["run", str(source), "--model", str(model), "--out", str(out), "--json", "--no-video", *options]


def run_until(at: int, number: int, arguments: list[str]) -> int:
    """Run in a process to which the signal comes before image ``at``; gives its exit code."""
    process = [sys.executable, "-c", SIGNALLED, str(at), str(number), *arguments]
    return subprocess.run(process, capture_output=True, check=False, timeout=300).returncode


def contents(out: Path) -> dict[str, bytes]:
    """What has to be the same; latencies and the pictures of the report are not among it."""
    return {name: (out / name).read_bytes() for name in ("results.json", "tracks.jsonl", "tracks.mcap")}


@pytest.fixture(scope="module")
def uninterrupted(recording: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert main(command(recording, model, out)) == 0
    return contents(out)


@pytest.mark.parametrize(
    ("stops", "taken_over"),
    [
        ([(FRAMES_PER_SNAPSHOT + 45, signal.SIGKILL)], FRAMES_PER_SNAPSHOT),
        ([(10, signal.SIGKILL)], 0),
        ([(FRAMES_PER_SNAPSHOT + 1, signal.SIGKILL), (COUNT - 2, signal.SIGKILL)], 2 * FRAMES_PER_SNAPSHOT),
        ([(LOOP + 5, signal.SIGINT)], LOOP + 6),
        ([(LOOP + 5, signal.SIGINT), (10, signal.SIGINT)], LOOP + 6),
        ([(30, signal.SIGTERM), (60, signal.SIGKILL), (90, signal.SIGINT)], 90),
    ],
    ids=[
        "killed",
        "killed before the first snapshot",
        "killed twice",
        "Ctrl-C",
        "Ctrl-C again while it catches up",
        "SIGTERM, killed, Ctrl-C",
    ],
)
def test_a_run_goes_on_where_it_was_stopped(
    tmp_path: Path,
    recording: Path,
    model: Path,
    uninterrupted: dict[str, bytes],
    stops: list[tuple[int, signal.Signals]],
    taken_over: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = command(recording, model, tmp_path / "out")
    for at, number in stops:
        code = run_until(at, number, arguments)
        assert code == (-number if number == signal.SIGKILL else 128 + number)
        left = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
        assert left == {FOLDER} or number != signal.SIGKILL or len(stops) > 1, "nothing half-written has a final name"
    capsys.readouterr()
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.get("frames_taken_over", 0) == taken_over
    assert (report["frames"], report["refused"], len(report["breaks"])) == (COUNT, 1, 2)
    assert contents(tmp_path / "out") == uninterrupted
    written = {*uninterrupted, "contact_sheet.png", "report.html"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == written, "the journal and all leftovers are gone"


def test_a_stopped_run_leaves_files_that_can_be_read(tmp_path: Path, recording: Path, model: Path) -> None:
    from rosbags.highlevel import AnyReader

    assert run_until(20, signal.SIGTERM, command(recording, model, tmp_path)) == 143
    assert len((tmp_path / "tracks.jsonl").read_text().splitlines()) == 21
    with AnyReader([tmp_path / "tracks.mcap"]) as reader:
        assert reader.message_count == 22
    assert {len(result["segmentations"]) for result in json.loads((tmp_path / "results.json").read_text())} == {21}


@pytest.mark.parametrize(
    "other",
    [["--set", "max_distance=0.2"], ["--max-gap", "1"], ["--scales", "1", "0.5"], ["--as-live", "3"]],
    ids=["setting", "gap", "scales", "as live"],
)
def test_a_run_of_anything_else_begins_anew(
    tmp_path: Path,
    recording: Path,
    model: Path,
    other: list[str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert run_until(10, signal.SIGINT, command(recording, model, tmp_path)) == 130
    assert main([*command(recording, model, tmp_path, *other), "--max-frames", "4"]) == 0
    assert "frames_taken_over" not in json.loads(capsys.readouterr().out)
    said = [record.message for record in caplog.records if "another source, model or settings" in record.message]
    assert len(said) == 1


def test_cameras_go_on_together(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "two.mcap"
    with BagWriter(path) as bag:
        for k in range(90):
            topic, image = ("/left/image", frames(8)[k % 8]) if k % 3 else ("/right/image", frames(8)[k % 8][:, ::-1])
            bag.write_image(topic, image, START + k * STEP)
    arguments = [str(path), "--all-topics"]
    assert main([*command(path, model, tmp_path / "whole"), *arguments[1:]]) == 0
    stopped = [*command(path, model, tmp_path / "out"), *arguments[1:]]
    # Images are counted per topic: this is the right camera's 27th or the left one's, whichever comes first.
    assert run_until(27, signal.SIGKILL, stopped) == -signal.SIGKILL
    assert main(stopped) == 0
    for name in ("left", "right"):
        assert contents(tmp_path / "out" / name) == contents(tmp_path / "whole" / name)


def test_a_run_as_live_goes_on(
    tmp_path: Path, recording: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two streams take turns in one journal: the frames that the slower machine manages, and all of them."""
    options = ["--no-report", "--as-live", "7"]
    whole, stopped = (command(recording, model, tmp_path / name, *options) for name in ("whole", "out"))
    assert run_until(COUNT - 3, signal.SIGKILL, stopped) == -signal.SIGKILL
    reports = []
    for arguments in (stopped, whole):
        assert main(arguments) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0]["frames_taken_over"] == 2 * FRAMES_PER_SNAPSHOT
    assert reports[0]["as_live"] == reports[1]["as_live"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_runs_do_not_write_into_one_folder(
    tmp_path: Path, recording: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts: dict[str, Any] = {}
    out = tmp_path / "out"
    with Journal(out / FOLDER, facts):
        for options in ([], ["--panels"]):
            assert main(command(recording, model, out, *options)) == 2
            assert f"{out}: another run is writing there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("held", "options", "out"),
    [("out/front", ["--all-topics"], "out"), ("out", ["--topic", "/front"], "out")],
    ids=["a camera's folder within", "the folder itself"],
)
def test_every_camera_s_folder_is_held(
    tmp_path: Path, model: Path, held: str, options: list[str], out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of one camera into a folder that another run has for one of its cameras would lose either's files."""
    with BagWriter(tmp_path / "two.mcap") as bag:
        for topic in ("/front", "/rear"):
            bag.write_image(topic, np.zeros((64, 96, 3), np.uint8), 10**18)
    with locked(tmp_path / held):
        assert main(command(tmp_path / "two.mcap", model, tmp_path / out, *options)) == 2
    assert f"{tmp_path / held}: another run is writing there" in capsys.readouterr().err
    assert main(command(tmp_path / "two.mcap", model, tmp_path / out, *options)) == 0
