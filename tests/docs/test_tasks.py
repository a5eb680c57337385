# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/tasks, followed from top to bottom in an empty folder: every command line of their blocks is run as
it stands there. Only cameras and addresses are others, and what would take minutes is made small. Python blocks are run
by test_commands.py, too."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from red_thing import INFO, red_network, write_source
from rtsp_server import rtsp_server, write_h264

from instance_flow_training.config import load_config
from instance_flow_training.weights.checkpoint import save_weights
from instance_flow_training.weights.initialise import build_network

sys.path.insert(0, str(Path(__file__).parent))

from manual import BLOCKS, ROOT, SHELL, Block, commands_of, main_of

HEIGHT, WIDTH = 384, 640
"""Of the video, in which the line and the zone of count.md lie."""
BOX = 200
"""Left edge of the object in the first picture."""

ELSEWHERE = {
    "pip install": "tests/deploy/test_packaging.py",
    "make setup": ".github/workflows/ci.yml",
    "source ros2_ws/install/setup.bash": ".github/workflows/ci.yml",
    "ros2 launch": "tests/ros/test_launch.py",
    "instance-flow doctor --topic": "tests/ros/test_doctor.py",
    "instance-flow play": "tests/ros/test_player.py",
    "instance-flow-export runs/mine": "training/instance_flow_training/own_labels.py",
}
"""What needs a network, ROS or minutes, by its beginning, and the file that does the same; the training before has
exported this run by that very command, which takes longer than all that is run here."""

SYSTEM = ("mkdir", "ffmpeg")
"""Programs of the system, run where they are installed."""
_TINY = "--from tiny.safetensors --size 96x64 --set data.workers=0 --set threads=1"
SMALL = {
    "instance-flow-train --data export.zip --time": f"{_TINY} --time 1s",
    "instance-flow-train --data export.zip ": f"{_TINY} --dry-run",  # It reads all of them, and takes two steps.
    "instance-flow run": "--size 96x64",
    "python docs/examples/": "--model car.onnx",
}
"""What keeps a command small, by its beginning."""
LIVE = "--duration 0.5"

LEFT = {
    "train": ["labels.png", "runs/mine/model.onnx", "runs/mine/results.html", "out/VIDEO/report.html", "val.html"],
    "annotate": ["pictures", "labels.png", "mine/instances.json", "out/VIDEO/results.json"],
    "webcam": ["out"],
    "count": [],
    "robot": ["out/BAG/report.html"],
}
"""The pages, and what they say is there afterwards."""


def object_in(number: int) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """Picture of a red object on grey that moves to the right, across the line and through the zone; x0, y0, x1, y1."""
    x, y = BOX + 12 * number, 220
    image = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    image[y : y + 64, x : x + 96] = (220, 30, 30)
    return image, (x, y, x + 96, y + 64)


def cvat_export(path: Path, first: int, count: int) -> None:
    """As CVAT exports a task for images, with its pictures."""
    images = ""
    with zipfile.ZipFile(path, "w") as export:
        for number in range(first, first + count):
            image, (x0, y0, x1, y1) = object_in(number)
            export.writestr(f"images/{number:05}.png", cv2.imencode(".png", image[..., ::-1])[1].tobytes())
            polygon = f'<polygon label="car" points="{x0},{y0};{x1},{y0};{x1},{y1};{x0},{y1}"/>'
            images += f'<image id="{number}" name="{number:05}.png" width="{WIDTH}" height="{HEIGHT}">{polygon}</image>'
        meta = "<meta><task><labels><label><name>car</name></label></labels></task></meta>"
        export.writestr("annotations.xml", f"<annotations><version>1.1</version>{meta}{images}</annotations>")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a reader has before the first command: a video, a bag, exports of a labelling tool."""
    images = [object_in(number)[0] for number in range(12)]
    write_source(tmp_path / "VIDEO.mp4", images)
    (tmp_path / "BAG").mkdir()
    write_source(tmp_path / "BAG/0.mcap", images[:3])
    for name, first, count in (("export", 0, 5), ("other", 5, 3), ("second", 8, 3), ("labels", 20, 2)):
        cvat_export(tmp_path / f"{name}.zip", first, count)
    (tmp_path / "car.onnx").write_bytes(red_network(replace(INFO, class_names=("car",), input_size=(HEIGHT, WIDTH))))
    # In place of the bundled weights, on which a step of training takes seconds.
    config = load_config(ROOT / "tests/tiny.toml", ["model.center_sigmoid=true", "loss.focal_center=true"])
    save_weights(tmp_path / "tiny.safetensors", build_network(config, 1), config, ("car",), 3)
    for name in ("docs", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cameras(place: Path) -> Iterator[dict[str, str]]:
    """Addresses of cameras here, by what the pages call theirs: MJPEG by HTTP, and RTSP."""
    write_h264(place / "camera.mp4", [object_in(number)[0] for number in range(12)] * 4)
    program = [sys.executable, str(ROOT / "tests/runtime/stream_server.py")]
    with rtsp_server(place) as rtsp, subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        camera = f"http://127.0.0.1:{int(process.stdout.readline())}/camera"
        yield {
            "0": camera,
            "/dev/video2": camera,
            "http://HOST:8080/stream.mjpg": camera,
            "rtsp://USER:PASSWORD@HOST/PATH": f"{rtsp}/camera.mp4",
        }
        process.terminate()


def longest(table: dict[str, str], text: str) -> str:
    """What a table has for the longest beginning of a text that it knows; empty where it knows none."""
    return max(((len(key), value) for key, value in table.items() if text.startswith(key)), default=(0, ""))[1]


def follow(text: str, cameras: dict[str, str]) -> None:
    """Run a command line in this process, as a shell would; raises AssertionError where it does not end well."""
    words = shlex.split(text)
    live = words[0] == "instance-flow" and any(word in cameras for word in words)
    words = [cameras.get(word, word) if live else word for word in words]
    words += shlex.split(f"{longest(SMALL, text)} {LIVE if live else ''}")
    if "--serve" in words:
        words.insert(words.index("--serve") + 1, "0")  # Any port that is free.
    if words[0] == "python":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
    elif words[0] in SYSTEM:
        if shutil.which(words[0]):
            assert subprocess.run(words, check=False, capture_output=True).returncode == 0, text
    else:
        assert main_of(words[0])(words[1:]) == 0, text


def blocks_of_page(name: str) -> list[Block]:
    return [block for block in BLOCKS if block.page == f"docs/tasks/{name}.md" and block.kind in (*SHELL, "text")]


def pattern_of(line: str) -> str:
    """What a line of a page's output looks like: frames and ids are others here."""
    return re.sub(r"(frame|car) \d+", r"\1 \\d+", line)


@pytest.mark.parametrize("page", LEFT)
def test_a_page_is_followed(
    page: str, place: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    cameras = request.getfixturevalue("cameras") if page == "webcam" else {}
    if page == "annotate":  # It takes the model of the round before.
        (place / "runs/mine").mkdir(parents=True)
        shutil.copyfile(place / "car.onnx", place / "runs/mine/model.onnx")
    for block in blocks_of_page(page):
        if block.kind == "text":
            printed = capsys.readouterr().out
            assert [line for line in block.lines if not re.search(pattern_of(line), printed)] == [], printed
        for text in commands_of(block):
            print(f"# {text}")
            if not longest(ELSEWHERE, text):
                follow(text, cameras)
    assert [name for name in LEFT[page] if not (place / name).exists()] == []


def test_every_page_is_followed_and_what_is_not_run_is_tested_elsewhere() -> None:
    assert sorted(LEFT) == sorted(path.stem for path in (ROOT / "docs/tasks").glob("*.md"))
    assert [file for file in ELSEWHERE.values() if not (ROOT / file).is_file()] == []
