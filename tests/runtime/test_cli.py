# SPDX-License-Identifier: Apache-2.0
"""The command as a user runs it, with an ONNX model that follows one red object: files, tables, errors, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.bags import BagWriter
from instance_flow.cli import main, parse_settings
from instance_flow.network import write_metadata
from instance_flow.pipeline import AssemblyConfig
from instance_flow.rle import decode
from instance_flow.structures import ModelInfo
from instance_flow.video import VideoWriter, open_source
from instance_flow.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth

onnx = pytest.importorskip("onnx")

HEIGHT, WIDTH = 96, 128
INFO = ModelInfo(name="red thing", class_names=("red",), input_size=(HEIGHT, WIDTH))


def red_network(info: ModelInfo = INFO) -> bytes:
    """An ONNX model that finds the red pixels, takes them for one object, and remembers its center as its features."""
    make = onnx.helper.make_node
    nodes = [
        make("Slice", ["image", "from", "to", "axes", "steps"], ["cells"]),
        make("Cast", ["cells"], ["colours"], to=onnx.TensorProto.FLOAT),
        make("Split", ["colours"], ["red", "green", "blue"], axis=3, num_outputs=3),
        make("Sub", ["red", "green"], ["redness"]),
        make("Greater", ["redness", "limit"], ["is_red"]),
        make("Cast", ["is_red"], ["foreground_4d"], to=onnx.TensorProto.FLOAT),
        make("Squeeze", ["foreground_4d", "axes_0_3"], ["foreground"]),
        make("Sub", ["one", "foreground"], ["background"]),
        make("Unsqueeze", ["background", "axis_0"], ["background_1"]),
        make("Unsqueeze", ["foreground", "axis_0"], ["foreground_1"]),
        make("Concat", ["background_1", "foreground_1"], ["semantic"], axis=0),
        make("Mul", ["foreground", "zero"], ["zeros"]),
        make("Add", ["zeros", "one"], ["ones"]),
        make("ReduceSum", ["foreground", "axes_0_1"], ["area"], keepdims=0),
        make("Max", ["area", "one"], ["at_least_one"]),
    ]
    for axis, name in enumerate("yx"):
        nodes += [
            make("CumSum", ["ones", f"index_{axis}"], [name], exclusive=1),
            make("Mul", [name, "foreground"], [f"{name}_inside"]),
            make("ReduceSum", [f"{name}_inside", "axes_0_1"], [f"{name}_sum"], keepdims=0),
            make("Div", [f"{name}_sum", "at_least_one"], [f"{name}_center"]),
            make("Sub", [f"{name}_center", name], [f"{name}_offset"]),
            make("Unsqueeze", [f"{name}_offset", "axis_0"], [f"{name}_offset_1"]),
            make("Mul", [f"{name}_offset", f"{name}_offset"], [f"{name}_square"]),
            make("Slice", ["red", "zero_2", "far_2", "axes_1_2", "steps_4"], [f"grid_{name}"]),
            make("Transpose", [f"grid_{name}"], [f"grid_{name}_t"], perm=[0, 3, 1, 2]),
            make("Mul", [f"grid_{name}_t", "zero"], [f"grid_{name}_zero"]),
            make("Add", [f"grid_{name}_zero", f"{name}_center"], [f"features_{axis}"]),
            make("ReduceMean", [f"reference_features_{axis}", "axes_1_2_3"], [f"{name}_before"]),
            make("Sub", [f"{name}_before", name], [f"{name}_reference"]),
        ]
    nodes += [
        make("Concat", ["y_offset_1", "x_offset_1"], ["offset"], axis=0),
        make("Concat", ["y_reference", "x_reference"], ["reference_offset"], axis=1),
        make("Add", ["y_square", "x_square"], ["distance"]),
        make("Div", ["distance", "minus_eight"], ["exponent"]),
        make("Exp", ["exponent"], ["center"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "from": np.array([2, 2]), "to": np.array([2**31, 2**31]), "axes": np.array([1, 2]), "steps": np.array([4, 4]),
        "zero_2": np.array([0, 0]), "far_2": np.array([2**31, 2**31]), "axes_1_2": np.array([1, 2]),
        "steps_4": np.array([4, 4]), "axes_0_3": np.array([0, 3]), "axis_0": np.array([0]),
        "axes_0_1": np.array([0, 1]), "axes_1_2_3": np.array([1, 2, 3]), "index_0": np.array(0), "index_1": np.array(1),
        "limit": np.array(60, np.float32), "zero": np.array(0, np.float32), "one": np.array(1, np.float32),
        "minus_eight": np.array(-8, np.float32),
    }  # fmt: skip
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    grid = ["h16", "w16"]
    inputs = [value("image", onnx.TensorProto.UINT8, [1, "H", "W", 3])]
    inputs += [value(f"reference_features_{level}", kind, ["R", 1, *grid]) for level in (0, 1)]
    results = [value("semantic", kind, [2, "h", "w"]), value("center", kind, ["h", "w"])]
    results += [value("offset", kind, [2, "h", "w"]), value("reference_offset", kind, ["R", 2, "h", "w"])]
    results += [value(f"features_{level}", kind, [1, 1, *grid]) for level in (0, 1)]
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(nodes, "red", inputs, results, arrays)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, write_metadata(info))
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "red.onnx"
    path.write_bytes(red_network())
    return path


def frames(count: int = 6) -> list[NDArray[np.uint8]]:
    """A red square of 24 pixels that moves 8 pixels to the right per frame, on gray."""
    images = []
    for number in range(count):
        image = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
        image[32:56, 16 + 8 * number : 40 + 8 * number] = (220, 30, 30)
        images.append(image)
    return images


def write_source(path: Path, images: list[NDArray[np.uint8]]) -> Path:
    if path.suffix == ".mp4":
        with VideoWriter(path, 10) as video:
            for image in images:
                video.write(image)
    elif path.suffix == ".mcap":
        with BagWriter(path) as bag:
            for number, image in enumerate(images):
                bag.write_image("/camera", image, 10**18 + number * 10**8)
    else:
        path.mkdir()
        for number, image in enumerate(images):
            cv2.imwrite(str(path / f"{number:05}.png"), image[..., ::-1])
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["clip", "clip.mp4", "clip.mcap"], ids=["pictures", "video", "bag"])
def test_run(tmp_path: Path, model: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path / name, frames())
    out = tmp_path / "new" / "out"

    assert main(["run", str(source), "--model", str(model), "--out", str(out), "--provider", "cpu"]) == 0

    written = {"results.json", "tracks.jsonl", "overlay.mp4", "contact_sheet.png", "report.html"}
    assert {path.name for path in out.iterdir()} == written
    (result,) = json.loads((out / "results.json").read_text())
    assert (result["video_id"], result["category_id"], len(result["segmentations"])) == (1, 1, 6)
    for number, segmentation in enumerate(result["segmentations"]):
        found = np.argwhere(decode(segmentation)).mean(axis=0)
        np.testing.assert_allclose(found, (43.5, 27.5 + 8 * number), atol=2)
    table = lines_of(out / "tracks.jsonl")
    assert [line["frame"] for line in table] == list(range(6))
    assert [[track["id"] for track in line["tracks"]] for line in table] == [[1]] * 6
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
    start = "import sys; from instance_flow.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "run", name, "--model", str(model), "--out", "out"]
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


def test_frames_that_go_bad_leave_no_files(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(tmp_path / "clip"), "--model", str(model), "--out", str(tmp_path / "out")]
    write_source(tmp_path / "clip", [*frames(2), frames(1)[0][:64]])
    assert "frame 2 (00002.png) is 128 x 64, but the frames before it are 128 x 96" in error_of(arguments, capsys)
    (tmp_path / "clip" / "00001.png").write_text("text")
    assert "00001.png: cannot be read as a picture" in error_of(arguments, capsys)
    assert list((tmp_path / "out").iterdir()) == []


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
    assert "install onnxruntime-gpu" in json.loads(capsys.readouterr().out)["providers"]["cuda"]
    arguments = ["run", str(write_source(tmp_path / "clip", frames(1))), "--model", str(model), "--provider", "cuda"]
    assert "install onnxruntime-gpu" in error_of(arguments, capsys)


def test_bad_model_to_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such model file" in error_of(["info", str(tmp_path / "gone.onnx")], capsys)


@pytest.mark.parametrize(
    "arguments", [[], ["walk"], ["run"], ["run", "x", "--max-frames", "0"], ["run", "x", "--video-id", "-1"]], ids=str
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: instance-flow" in capsys.readouterr().err


def test_settings_keep_their_types() -> None:
    assert parse_settings([]) == AssemblyConfig()
    settings = parse_settings(["max_instances=7", "max_distance=0.25", "max_distance=0.5"])
    assert settings == AssemblyConfig(max_instances=7, max_distance=0.5)
    assert isinstance(settings.max_instances, int)


def test_a_broken_video_is_one_line_and_nothing_of_ffmpeg(tmp_path: Path, model: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    command = [sys.executable, "-c", "import sys; from instance_flow.cli import main; sys.exit(main())"]
    command += ["run", str(tmp_path / "broken.mp4"), "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "broken.mp4: cannot be read as a video" in done.stderr


def test_ctrl_c_leaves_whole_files_of_the_frames_so_far(tmp_path: Path, model: Path) -> None:
    """The last picture is a FIFO: the run waits in it, and so is surely in its midst when the signal comes."""
    source = write_source(tmp_path / "clip", frames(3))
    os.mkfifo(source / "00003.png")
    command = [sys.executable, "-c", "import sys; from instance_flow.cli import main; sys.exit(main())"]
    command += ["run", str(source), "--model", str(model), "--out", str(tmp_path / "out"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with (source / "00003.png").open("wb") as pipe:  # opens when the run has come to read it
        process.send_signal(signal.SIGINT)
        pipe.write((source / "00000.png").read_bytes())
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "")
    report = json.loads(said)
    assert (report["frames"], report["interrupted"]) == (4, True)
    assert len(lines_of(tmp_path / "out" / "tracks.jsonl")) == 4
    assert len(list(open_source(tmp_path / "out" / "overlay.mp4"))) == 4
    assert "The run was interrupted" in (tmp_path / "out" / "report.html").read_text()
    assert all(len(r["segmentations"]) == 4 for r in json.loads((tmp_path / "out" / "results.json").read_text()))
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
