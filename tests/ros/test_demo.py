# SPDX-License-Identifier: Apache-2.0
"""`make demo`, with a small model and a short recording."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from blobs import BLUE, RED, draw, write_model
from rosbags.highlevel import AnyReader

from instance_flow.formats.bag_writer import BagWriter

DEMO = Path(__file__).parents[2] / "ros2_ws" / "demo" / "live.py"
FRAMES = 12


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEG images; see record."""
    return record(tmp_path_factory.mktemp("bag") / "discs.mcap", "jpeg")


def record(path: Path, kind: str) -> Path:
    """Record two discs that pass one another, 20 images per second."""
    with BagWriter(path) as bag:
        for step in range(FRAMES):
            image, stamp = draw([(54 + step, 30, RED), (66 - step, 60, BLUE)]), 10**9 + step * 50_000_000
            if kind == "raw":
                bag.write_image("/camera/image_raw", image, stamp, frame_id="camera")
            else:
                bag.write_jpeg("/camera/image_raw/compressed", image, stamp, frame_id="camera")
    return path


def run_demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_demo_answers_images_and_leaves_its_files(blobs_model: Path, kind: str, tmp_path: Path) -> None:
    done = run_demo(
        "--bag", record(tmp_path / "discs.mcap", kind), "--model", blobs_model, "--out", tmp_path, "--compare"
    )
    assert done.returncode == 0, done.stderr
    table = dict(line.split(maxsplit=1) for line in done.stdout.replace("frames ", "frames_").splitlines())
    answered = int(table["frames_answered"].split()[0])
    assert (int(table["frames_sent"]), table["ids"], table["provider"]) == (FRAMES, "2", "cpu")
    assert answered > FRAMES // 2
    assert f"the same tracks in all {answered} frames" in done.stdout
    assert (tmp_path / "overlay.mp4").stat().st_size > 1000
    assert (tmp_path / "contact_sheet.png").stat().st_size > 1000
    with AnyReader([tmp_path / "tracks.mcap"]) as reader:
        assert reader.message_count == answered
        assert {connection.msgtype for connection in reader.connections} == {
            "instance_flow_msgs/msg/TrackedInstanceArray"
        }


def test_demo_tells_why_the_node_did_not_start(recording: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "foreign.onnx", describe=False)
    done = run_demo("--bag", recording, "--model", tmp_path / "foreign.onnx", "--out", tmp_path)
    assert done.returncode == 1
    assert "the node did not start" in done.stderr
    assert "not one of instance-flow" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_tells_that_the_node_is_gone(blobs_model: Path, recording: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(DEMO), "--bag", str(recording), "--model", str(blobs_model), "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline() == "the node is active\n"
        for child in Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split():
            if "instance_flow_node" in Path(f"/proc/{child}/cmdline").read_text():
                os.kill(int(child), signal.SIGTERM)
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "the node ended with exit code 0" in errors
    assert "Traceback" not in errors


def test_no_recording_is_told(tmp_path: Path, blobs_model: Path) -> None:
    done = run_demo("--bag", tmp_path / "none.mcap", "--model", blobs_model, "--out", tmp_path)
    assert (done.returncode, "none.mcap: no such file" in done.stderr) == (1, True)
