# SPDX-License-Identifier: Apache-2.0
"""The command as a user runs it, with an ONNX model that follows one red object: files, tables, errors, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from red_thing import HEIGHT, WIDTH, frames, lines_of, write_source

from instance_flow.commands.cli import main
from instance_flow.commands.values import parse_settings
from instance_flow.formats.rle import decode
from instance_flow.formats.video import open_source
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth
from instance_flow.settings import AssemblyConfig

COMMAND = [sys.executable, "-c", "import sys; from instance_flow.commands.cli import main; sys.exit(main())"]


@pytest.mark.parametrize("name", ["clip", "clip.mp4", "clip.mcap"], ids=["pictures", "video", "bag"])
def test_run(tmp_path: Path, model: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path / name, frames())
    out = tmp_path / "new" / "out"

    assert main(["run", str(source), "--model", str(model), "--out", str(out), "--provider", "cpu"]) == 0

    written = {"results.json", "tracks.jsonl", "overlay.mp4", "contact_sheet.png", "report.html"}
    assert {path.name for path in out.iterdir()} == written | ({"tracks.mcap"} if name == "clip.mcap" else set())
    (result,) = json.loads((out / "results.json").read_text())
    assert (result["video_id"], result["category_id"], len(result["segmentations"])) == (1, 1, 6)
    for number, segmentation in enumerate(result["segmentations"]):
        found = np.argwhere(decode(segmentation)).mean(axis=0)
        np.testing.assert_allclose(found, (43.5, 27.5 + 8 * number), atol=2)
    table = lines_of(out / "tracks.jsonl")
    assert [line["frame"] for line in table] == [line["number"] for line in table] == list(range(6))
    assert [[track["id"] for track in line["tracks"]] for line in table] == [[1]] * 6
    assert [track["state"] for line in table for track in line["tracks"]] == ["new", *["tracked"] * 5]
    assert table[0]["tracks"][0]["kept"] is None
    assert table[5]["tracks"][0]["kept"]["reference_frame"] in range(5)
    assert len(list(open_source(out / "overlay.mp4"))) == 6
    assert cv2.imread(str(out / "contact_sheet.png")) is not None
    said = capsys.readouterr().out
    for row in ("provider", "frames", "objects", "ids", "latency p50 ms", "latency p95 ms", "results.json"):
        assert row in said


def test_velocity_needs_a_source_that_knows_the_time(tmp_path: Path, model: Path) -> None:
    for name, expected in (("clip.mcap", 80.0), ("clip", None)):
        source = write_source(tmp_path / name, frames())
        assert main(["run", str(source), "--model", str(model), "--out", str(tmp_path / "out"), "--no-video"]) == 0
        (track,) = lines_of(tmp_path / "out" / "tracks.jsonl")[5]["tracks"]
        assert track["velocity"]["x"] == (expected if expected is None else pytest.approx(expected, abs=4))


def test_run_options(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path / "clip", frames())
    monkeypatch.chdir(tmp_path)
    options = [
        "--max-frames",
        "3",
        "--no-video",
        "--no-report",
        "--json",
        "--set",
        "max_instances=5",
        "--set",
        "references=2",
    ]
    assert main(["run", str(source), "--model", str(model), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["objects"], report["ids"], report["provider"]) == (3, 3, 1, "cpu")
    assert report["latency_p50_ms"] <= report["latency_p95_ms"]
    assert report["files"] == ["out/clip/results.json", "out/clip/tracks.jsonl", "out/clip/contact_sheet.png"]
    assert sorted(report["files"]) == sorted(str(path) for path in Path("out/clip").iterdir())


def test_panels_and_report(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path / "clip <1>", frames())
    out = tmp_path / "out"
    assert main(["run", str(source), "--model", str(model), "--out", str(out), "--panels", "--no-video"]) == 0
    pictures = [frame.image for frame in open_source(out / "panels.mp4")]
    sheet = cv2.imread(str(out / "panels.png"))
    assert len(pictures) == 6
    assert sheet is not None
    height, width = pictures[0].shape[:2]
    assert sheet.shape[:2] == (3 * (height + 4) + 4, width + 8), "three of the panels, one under the other"
    html = (out / "report.html").read_text()
    for said in ("clip &lt;1&gt;", "red thing", "cpu", "0.15, as the model says", np.__version__):
        assert said in html
    said = capsys.readouterr().out
    for name in ("panels.mp4", "panels.png", "report.html"):
        assert str(out / name) in said


def test_a_source_whose_name_is_no_text(tmp_path: Path, model: Path) -> None:
    """Linux takes any bytes for a name; a process of its own, as the terminal's encoding is at stake."""
    name = os.fsdecode(b"clip \xff")
    try:
        write_source(tmp_path / "clip", frames(2)).rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    command = [*COMMAND, "run", name, "--model", str(model), "--out", "out"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    refused = subprocess.run(command[:-2], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "this name is not UTF-8" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert "<h1>clip ?</h1>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert r"clip \udcff" in done.stdout


def test_several_scales(tmp_path: Path, model: Path) -> None:
    source = write_source(tmp_path / "clip", frames())
    out = tmp_path / "out"
    options = ["--model", str(model), "--out", str(out), "--no-video", "--scales", "0.5", "1", "1.5"]
    assert main(["run", str(source), *options]) == 0
    lines = lines_of(out / "tracks.jsonl")
    assert [[track["id"] for track in line["tracks"]] for line in lines] == [[1]] * 6
    assert "scale 0.5 1 1.5" in (out / "report.html").read_text()


def test_the_video_id_is_that_of_the_ground_truth(tmp_path: Path, model: Path) -> None:
    source = write_source(tmp_path / "clip", frames(2))
    command = ["run", str(source), "--model", str(model), "--out", str(tmp_path / "out"), "--video-id", "42"]
    assert main([*command, "--no-video"]) == 0
    assert [r["video_id"] for r in json.loads((tmp_path / "out" / "results.json").read_text())] == [42]


def test_a_threshold_that_nothing_passes(tmp_path: Path, model: Path) -> None:
    source = write_source(tmp_path / "clip", frames())
    out = tmp_path / "out"
    settings = ["--set", "center_threshold=1.0"]
    assert main(["run", str(source), "--model", str(model), "--out", str(out), *settings]) == 0
    assert json.loads((out / "results.json").read_text()) == []
    assert "No object was found in any frame" in (out / "report.html").read_text()


def test_results_of_a_run_can_be_evaluated(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path / "clip", frames())
    assert main(["run", str(source), "--model", str(model), "--out", str(tmp_path / "out"), "--no-video"]) == 0
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text())
    truth = GroundTruth(
        (Video(1, HEIGHT, WIDTH, 6),), (Category(1, "red"),), (Annotation(1, 1, 1, result["segmentations"]),)
    )
    write_ground_truth(tmp_path / "truth.json", truth)
    capsys.readouterr()

    command = ["evaluate", str(tmp_path / "truth.json"), str(tmp_path / "out" / "results.json")]
    assert main([*command, "--json", str(tmp_path / "numbers.json")]) == 0

    said = capsys.readouterr().out
    assert "AP50" in said
    assert "HOTA" in said
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["AP"] == pytest.approx(1.0)
    assert numbers["IDSW"] == 0


def test_info(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["numpy"] == np.__version__
    assert report["model"]["class_names"] == ["red"]
    assert report["providers"]["cpu"] == "works"
    assert main(["info", str(model)]) == 0
    said = capsys.readouterr().out
    assert "red thing" in said
    assert f"{HEIGHT}, {WIDTH}" in said


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says when it ends with code 2: one line, no traceback."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("instance-flow: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("rclpy", "playing a bag needs ROS 2, but rclpy does not import"),
        ("instance_flow_ros", "playing a bag needs our ROS workspace, but instance_flow_ros does not import"),
    ],
)
def test_play_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, missing: str, message: str
) -> None:
    write_source(tmp_path / "bag.mcap", frames(2))
    for name in ("rclpy", "instance_flow_ros", "instance_flow_ros.player"):
        monkeypatch.setitem(sys.modules, name, None if name.startswith(missing) else ModuleType(name))
    error = error_of(["play", str(tmp_path / "bag.mcap")], capsys)
    assert message in error
    assert "source ros2_ws/install/setup.bash" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SOURCE", "--model", "gone.onnx"], "gone.onnx: no such model file"),
        (["SOURCE", "--model", "SOURCE/00000.png"], "not a readable ONNX model"),
        (["gone.mp4"], "gone.mp4: no such file or folder"),
        (["SOURCE", "--topic", "/camera"], "is not a bag, so it has no topic /camera"),
        (["SOURCE", "--set", "colour=1"], "setting 'colour=1' is not key=value with a key out of center_threshold,"),
        (["SOURCE", "--set", "references"], "setting 'references' is not key=value"),
        (["SOURCE", "--set", "references=1.5"], "setting references needs a whole number, not '1.5'"),
        (["SOURCE", "--set", "max_distance=far"], "setting max_distance needs a number, not 'far'"),
        (["SOURCE", "--set", "max_distance=7"], "max_distance is 7.0; it must be a number from 0.0 to 1.0"),
        (["SOURCE", "--set", "references=9"], "references is 9, but this model takes at most 4"),
        (["SOURCE", "--out", "SOURCE/00000.png"], "00000.png is a file, but --out needs a folder"),
        (["SOURCE", "--out", "SOURCE/00000.png/out"], "00000.png is a file, but --out needs a folder"),
        (["SOURCE", "--all-topics"], "is not a bag, so it has no topics"),
        (["gone.mcap", "--all-topics"], "gone.mcap: no such file or folder"),
        (["SOURCE", "--as-live", "5"], "only a bag says when its images arrived"),
        (["SOURCE", "--ground-truth", "truth.json"], "so it needs --as-live RATE"),
        (["SOURCE", "--scales", "1", "0"], "scales are [1.0, 0.0]; give at least one, each above 0"),
    ],
    ids=[
        "no such model",
        "no model at all",
        "no such source",
        "topic of a folder",
        "unknown setting",
        "setting without value",
        "fraction",
        "word",
        "out of range",
        "too many references",
        "out is a file",
        "out is in a file",
        "all topics of a folder",
        "all topics of nothing",
        "a folder as live",
        "ground truth for nothing",
        "no size at all",
    ],
)
def test_bad_input_to_run(
    tmp_path: Path, model: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "clip", frames(2))
    options = [option.replace("SOURCE", str(source)) for option in options]
    if "--model" not in options:
        options += ["--model", str(model)]
    if "--out" not in options:
        options += ["--out", str(tmp_path / "out")]
    assert message in error_of(["run", *options], capsys)
    assert not (tmp_path / "out").exists()


def test_a_source_without_one_good_frame_leaves_no_files(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(tmp_path / "clip"), "--model", str(model), "--out", str(tmp_path / "out")]
    write_source(tmp_path / "clip", frames(2))
    for name in ("00000.png", "00001.png"):
        (tmp_path / "clip" / name).write_text("text")
    assert "00000.png: cannot be read as a picture" in error_of(arguments, capsys)
    assert list((tmp_path / "out").iterdir()) == []


def test_files_that_a_run_does_not_write_do_not_stay(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_source(tmp_path / "clip.mcap", frames(2)), tmp_path / "out"
    (out / "tracks").mkdir(parents=True)
    (out / "tracks" / "notes.txt").write_text("no bag")
    command = ["run", str(source), "--model", str(model), "--out", str(out), "--json"]
    assert main([*command, "--panels", "--bag", "db3"]) == 0
    capsys.readouterr()
    assert main([*command, "--no-video"]) == 0
    report = json.loads(capsys.readouterr().out)
    gone = ["overlay.mp4", "panels.mp4", "panels.png", "tracks.db3"]
    assert report["removed"] == [str(out / name) for name in gone]
    assert not [name for name in gone if (out / name).exists()]
    assert (out / "tracks" / "notes.txt").exists(), "what is no file of ours stays"
    assert sorted(report["files"]) == sorted(str(path) for path in out.iterdir() if path.name != "tracks")


def test_a_folder_for_the_numbers_is_refused_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ground_truth(tmp_path / "truth", GroundTruth((Video(1, 8, 8, 1),), (Category(1, "red"),), ()))
    (tmp_path / "results").write_text("[]")
    arguments = ["evaluate", str(tmp_path / "truth"), str(tmp_path / "results"), "--json", str(tmp_path)]
    assert f"{tmp_path} is a folder, but --json needs a file" in error_of(arguments, capsys)


@pytest.mark.parametrize("which", ["truth", "results"])
def test_bad_input_to_evaluate(tmp_path: Path, which: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_ground_truth(tmp_path / "truth", GroundTruth((Video(1, 8, 8, 1),), (Category(1, "red"),), ()))
    (tmp_path / "results").write_text("[]")
    (tmp_path / which).write_text("{")
    assert str(tmp_path / which) in error_of(["evaluate", str(tmp_path / "truth"), str(tmp_path / "results")], capsys)


def test_a_provider_that_does_not_work_is_explained(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    assert main(["info", str(model), "--json"]) == 0
    assert "is the build for CPUs" in json.loads(capsys.readouterr().out)["providers"]["cuda"]
    arguments = ["run", str(write_source(tmp_path / "clip", frames(1))), "--model", str(model), "--provider", "cuda"]
    assert "put onnxruntime-gpu in its place" in error_of(arguments, capsys)


def test_bad_model_to_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such model file" in error_of(["info", str(tmp_path / "gone.onnx")], capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "x", "--max-frames", "0"],
        ["run", "x", "--video-id", "-1"],
        ["run", "x", "--as-live", "0"],
        ["run", "x", "--max-gap", "nan"],
        ["run", "x", "--max-gap", "3601"],
        ["run", "x", "--threads", "1025"],
        ["run", "x", "--provider", "tpu"],
        ["run", "x", "--topic", "/a", "--all-topics"],
        ["evaluate-bags", "truth", "folder"],
    ],
    ids=str,
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: instance-flow" in capsys.readouterr().err


def test_val_without_the_training_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "instance_flow_training.commands", None)
    assert main(["val", "model.onnx", "labels.zip"]) == 2
    assert "not installed; run `pip install . ./training` in instance-flow's checkout\n" in capsys.readouterr().err


def test_settings_keep_their_types() -> None:
    assert parse_settings([]) == AssemblyConfig()
    settings = parse_settings(["max_instances=7", "max_distance=0.25", "max_distance=0.5"])
    assert settings == AssemblyConfig(max_instances=7, max_distance=0.5)
    assert isinstance(settings.max_instances, int)


@pytest.mark.parametrize("command", [COMMAND, [sys.executable, "-m", "instance_flow"]], ids=["entry point", "module"])
def test_the_version_is_the_installed_one(command: list[str]) -> None:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"instance-flow {metadata.version('instance-flow')}\n"), done.stderr


def test_a_broken_video_is_one_line_and_nothing_of_ffmpeg(tmp_path: Path, model: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    command = [*COMMAND, "run", str(tmp_path / "broken.mp4"), "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "broken.mp4: this recording was not finished" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_leaves_whole_files_of_the_frames_so_far(tmp_path: Path, model: Path, number: int) -> None:
    """The last picture is a FIFO: the run waits in it, and so is surely in its midst when the signal comes."""
    source, out = write_source(tmp_path / "clip", frames(3)), tmp_path / "out"
    os.mkfifo(source / "00003.png")
    command = [*COMMAND, "run", str(source), "--model", str(model), "--out", str(out), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with (source / "00003.png").open("wb") as pipe:  # opens when the run has come to read it
        process.send_signal(number)
        pipe.write((source / "00000.png").read_bytes())
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (128 + number, "")
    report = json.loads(said)
    assert (report["frames"], report["interrupted"]) == (4, True)
    assert report["to_go_on"] == "run the same command again"
    assert len(lines_of(out / "tracks.jsonl")) == 4
    assert len(list(open_source(out / "overlay.mp4"))) == 4
    assert "The run was interrupted" in (out / "report.html").read_text()
    assert all(len(r["segmentations"]) == 4 for r in json.loads((out / "results.json").read_text()))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """As `| head` does: what is left to say is not an error."""
    write_ground_truth(tmp_path / "truth", GroundTruth((Video(1, 8, 8, 1),), (Category(1, "red"),), ()))
    (tmp_path / "results").write_text("[]")
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "evaluate", str(tmp_path / "truth"), str(tmp_path / "results")]
    command += ["--json", str(tmp_path / "numbers.json")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert json.loads((tmp_path / "numbers.json").read_text())["IDSW"] == 0
