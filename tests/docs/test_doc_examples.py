# SPDX-License-Identifier: Apache-2.0
"""docs/examples: each script runs on a small clip, as its docstring says, and the notebook cell by cell."""

from __future__ import annotations

import ast
import json
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from red_thing import HEIGHT, WIDTH, frames, red_network, write_source

from instance_flow.formats.rle import encode
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth

sys.path.insert(0, str(Path(__file__).parent))

from manual import ROOT

FOLDER = ROOT / "docs/examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
OF_OTHERS = ("cv2", "numpy", "supervision")


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VIDEO.mp4 of a red square that moves to the right and is away in frames 2 and 3, its pictures and labels."""
    images = frames()
    images[2:4] = [np.full_like(images[0], 110)] * 2
    write_source(tmp_path / "VIDEO.mp4", images)
    (tmp_path / "JPEGImages").mkdir()
    names = [path.name for path in sorted(write_source(tmp_path / "JPEGImages/a", images).iterdir())]
    masks = [encode(mask) if mask.any() else None for mask in ((i[..., 0] > 200).astype(np.uint8) for i in images)]
    video = Video(1, HEIGHT, WIDTH, len(images), tuple(f"a/{name}" for name in names))
    categories = Category(1, "blue"), Category(7, "red")
    write_ground_truth(tmp_path / "instances.json", GroundTruth((video,), categories, (Annotation(1, 1, 7, masks),)))
    (tmp_path / "red.onnx").write_bytes(red_network())
    (tmp_path / "no.mp4").write_text("no video")
    (tmp_path / "other.json").write_text((tmp_path / "instances.json").read_text().replace('"red"', '"cat"'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    if script.startswith("count_"):
        pytest.importorskip("supervision", reason="needs the extra compare")
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--model", "red.onnx"])
    runpy.run_path(str(FOLDER / script), run_name="__main__")


@pytest.mark.usefixtures("clip")
@pytest.mark.parametrize(
    ("script", "arguments", "printed"),
    [
        ("count_line.py", "VIDEO.mp4 62 0 62 96", ["frame 5: red 1 went in", "in 1, out 0"]),
        ("count_line.py", "VIDEO.mp4 62 96 62 0", ["frame 5: red 1 went out", "in 0, out 1"]),
        ("count_line.py", "VIDEO.mp4 62 60 62 96", ["in 0, out 0"]),  # it passes above the line
        (
            "count_zone.py",
            "VIDEO.mp4 30 0 62 0 62 96 30 96",
            [
                "frame 1: 1 in the zone: red 1\nframe 2: 0 in the zone\nframe 4: 1 in the zone: red 1\n"
                "frame 5: 0 in the zone\n1 objects in all, at most 1 at a time"
            ],
        ),
        ("count_zone.py", "VIDEO.mp4 0 90 128 90 64 96", ["0 objects in all, at most 0 at a time"]),  # below it
        (
            "follow_object.py",
            "VIDEO.mp4",
            ["1: red 1 is at 34, 42", "2: 1 is not seen", "is at 58, 42, back after 2"],
        ),
        ("follow_object.py", "VIDEO.mp4 --id 4", ["VIDEO.mp4: no object has the id 4"]),
        ("save_crops.py", "VIDEO.mp4 OUT", ["OUT: 1 objects"]),
        ("evaluate_model.py", "instances.json JPEGImages", ["AP", "red", "HOTA"]),
    ],
)
def test_example_prints(
    script: str,
    arguments: str,
    printed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, script, *arguments.split())
    out = capsys.readouterr().out
    assert [words for words in printed if words not in out] == [], out


def test_crop_shows_the_object_and_nothing_else(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "save_crops.py", "VIDEO.mp4", "OUT")
    picture = cv2.imread(str(clip / "OUT/1_red.png"), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert abs(np.array(picture.shape) - (24, 24, 4)).max() <= 8
    shown = picture[picture[..., 3] == 255]
    assert (shown[:, 2].astype(int) - shown[:, 1] > 60).mean() > 0.9


@pytest.mark.usefixtures("clip")
@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("follow_object.py", "no.mp4", "no.mp4: cannot be opened as a video"),
        ("count_zone.py", "no.mp4 0 0 9 0 9 9", "no.mp4: cannot be opened as a video"),
        ("count_zone.py", "VIDEO.mp4 0 0 9 9", "4 numbers are no zone; give x and y of three corners or more"),
        ("count_zone.py", "VIDEO.mp4 0 0 9 0 9 9 3", "7 numbers are no zone"),
        ("save_crops.py", "gone.mp4 OUT", "gone.mp4: cannot be opened as a video"),
        ("evaluate_model.py", "instances.json gone", "gone/a/00000.png: cannot be read as a picture"),
        ("evaluate_model.py", "other.json JPEGImages", "has none of the model's classes, red"),
    ],
)
def test_example_says_what_it_cannot_read(
    script: str, arguments: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, script, *arguments.split())


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in SCRIPTS])
def test_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 60
    said = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    (line,) = [line for line in said if line.startswith("python ")]
    assert shlex.split(line)[1] == str(path.relative_to(ROOT))


def test_every_example_is_in_the_index() -> None:
    index = (FOLDER / "README.md").read_text()
    nodes = ROOT / "ros2_ws/src/instance_flow_examples"
    scripts = [*nodes.glob("instance_flow_examples/*.py"), *nodes.glob("src/*.cpp"), *nodes.glob("include/*/*.hpp")]
    shared = ("__init__.py", "script.py")  # script.py is what obstacles and follow have in common
    paths = [*SCRIPTS, *FOLDER.glob("*.ipynb"), *(path for path in scripts if path.name not in shared)]
    assert len(paths) > 12
    assert [path.name for path in paths if f"[{path.name}](" not in index] == []


def test_notebook_runs_cell_by_cell_and_holds_no_outputs(clip: Path) -> None:
    cells = json.loads((FOLDER / "first_steps.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 4
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    names: dict[str, Any] = {}
    for number, cell in enumerate(code, 1):
        exec(compile("".join(cell["source"]), f"first_steps.ipynb, cell {number}", "exec"), names)
    assert (clip / "tracks.png").is_file()
    assert names["number"] == 6
