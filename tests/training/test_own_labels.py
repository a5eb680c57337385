# SPDX-License-Identifier: Apache-2.0
"""From labels to a model in one command, and what a model is worth on labels in any form."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from instance_flow.commands.cli import main as instance_flow
from instance_flow.formats.rle import encode
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video
from instance_flow.structures import SourceError
from instance_flow_training.comparing.frame_scores import score_frames
from instance_flow_training.comparing.judgement import Curve, Judgement
from instance_flow_training.comparing.scoring import TrackedVideos
from instance_flow_training.config import ConfigError, TrainConfig, apply, load_config
from instance_flow_training.data import label_sources
from instance_flow_training.data.conversion import packed_picture
from instance_flow_training.data.kept_labels import PARTS
from instance_flow_training.data.label_sources import open_labels, open_parts
from instance_flow_training.data.video_sets import read_video_set
from instance_flow_training.datasets import open_training_data
from instance_flow_training.network.detector import CLASSES
from instance_flow_training.own_labels import OwnLabels, finish, minutes_of, prepared
from instance_flow_training.own_settings import Machine, chosen, in_words
from instance_flow_training.train import main
from instance_flow_training.weights.checkpoint import load_checkpoint, save_checkpoint, save_weights
from instance_flow_training.weights.initialise import build_network, take_checkpoint
from instance_flow_training.worlds.synthetic import CLASS_NAMES, WorldConfig, generate_clip
from instance_flow_training.worlds.world_files import write_ytvis

TINY = Path(__file__).parents[1] / "tiny.toml"
SIZE = (32, 48)
Box = tuple[int, int, int, int]
Objects = Sequence[tuple[Box, int]]


def mask(box: Box) -> dict[str, Any]:
    drawn = np.zeros(SIZE, np.uint8)
    drawn[box[0] : box[2], box[1] : box[3]] = 1
    return encode(drawn)


def tracked(
    true: Sequence[tuple[Box, int]], found: Sequence[tuple[Box, int]], crowds: Sequence[Box] = ()
) -> TrackedVideos:
    """A still of classes cat 1 and dog 2; class 3 is one that the model does not have."""
    entries = [Annotation(k, 1, category, (mask(box),)) for k, (box, category) in enumerate(true, 1)]
    entries += [Annotation(90 + k, 1, 1, (mask(box),), is_crowd=True) for k, box in enumerate(crowds)]
    categories = (Category(1, "cat"), Category(2, "dog"), Category(3, "tree"))
    everything = GroundTruth((Video(1, *SIZE, 1, ("a.jpg",)),), categories, tuple(entries))
    known = tuple(entry for entry in entries if entry.category_id != 3)
    results = [
        {"video_id": 1, "category_id": category, "score": 0.9, "segmentations": [mask(box)]} for box, category in found
    ]
    truth = replace(everything, categories=categories[:2], annotations=known)
    return TrackedVideos(truth, everything, results, Path("nowhere"))


LEFT, RIGHT, HALF = (4, 4, 20, 16), (4, 24, 20, 40), (4, 4, 20, 12)
FRAMES = {
    "all right": ([(LEFT, 1), (RIGHT, 2)], [(LEFT, 1), (RIGHT, 2)], (), [[1, 0, 0], [0, 1, 0], [0, 0, 0]], 1.0),
    "nothing there, nothing found": ([], [], (), [[0, 0, 0]] * 3, 1.0),
    "rough": ([(LEFT, 1)], [(HALF, 1)], (), [[1, 0, 0], [0, 0, 0], [0, 0, 0]], 2 / 3),
    "another class": ([(LEFT, 1)], [(LEFT, 2)], (), [[0, 1, 0], [0, 0, 0], [0, 0, 0]], 0.0),
    "missed": ([(LEFT, 1), (RIGHT, 2)], [(LEFT, 1)], (), [[1, 0, 0], [0, 0, 1], [0, 0, 0]], 0.5),
    "ghost": ([(LEFT, 1)], [(LEFT, 1), (RIGHT, 2)], (), [[1, 0, 0], [0, 0, 0], [0, 1, 0]], 0.5),
    "found twice": ([(LEFT, 1)], [(HALF, 1), (LEFT, 1)], (), [[1, 0, 0], [0, 0, 0], [1, 0, 0]], 0.5),
    "on a region to ignore": ([(LEFT, 1)], [(LEFT, 1), (RIGHT, 2)], [RIGHT], [[1, 0, 0], [0, 0, 0], [0, 0, 0]], 1.0),
    "on a class that the model has not": ([(RIGHT, 3)], [(RIGHT, 2)], (), [[0, 0, 0]] * 3, 1.0),
}


@pytest.mark.parametrize(("true", "found", "crowds", "confusion", "quality"), FRAMES.values(), ids=FRAMES)
def test_what_is_found_in_a_frame(
    true: list[tuple[Box, int]],
    found: list[tuple[Box, int]],
    crowds: list[Box],
    confusion: list[list[int]],
    quality: float,
) -> None:
    scores = score_frames(tracked(true, found, crowds))
    assert scores.class_names == ("cat", "dog")
    assert scores.confusion.tolist() == confusion
    assert scores.frames[0].quality == pytest.approx(quality)
    assert len(scores.worst(5)) == (quality < 1)


TIMES = {"20m": 20, "90s": 1.5, "2h": 120, "1h30m": 90, " 5M ": 5}


@pytest.mark.parametrize(("text", "minutes"), TIMES.items())
def test_times(text: str, minutes: float) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "20", "0m", "m", "1m2h", "-5m", "soon"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write it as 20m, 90s or 1h30m"):
        minutes_of(text)


def test_detected_classes_are_matched_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the weights' own classes as trained, of others as the detector's authors did."""
    config = load_config(TINY, ["model.detector=yolox_nano", "model.object_tokens=16"])
    theirs, ours = build_network(config, 3), build_network(config, 3)
    assert theirs.detector is not None
    assert ours.detector is not None
    for level, layer in enumerate(theirs.detector.class_layers):
        layer.get_parameter("bias").data = torch.tensor([1.0, 2.0, 3.0]) + level
        theirs.detector.known[level, CLASSES.index("cup")] = 4.0 + level
    save_weights(tmp_path / "w.safetensors", theirs, config, ("cat", "dog", "cow"), 1)
    with caplog.at_level(logging.INFO):
        take_checkpoint(ours, ("sofa", "cow", "Cup"), tmp_path / "w.safetensors")
    assert "1 of 3 classes known by name, the detector finds cup; fresh" in caplog.text
    for level, layer in enumerate(ours.detector.class_layers):
        assert layer.get_parameter("bias").tolist() == [-10.0, 3.0 + level, 4.0 + level]
        assert layer.get_parameter("weight")[2].unique().tolist() == [4.0 + level]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short videos in YouTube-VIS's form."""
    folder = tmp_path_factory.mktemp("labels")
    config = WorldConfig(size=(64, 96), frames=3)
    write_ytvis([generate_clip(seed, "mixed", config) for seed in range(6)], folder)
    return folder


def test_pictures_of_zip_files_are_told_from_those_that_stay(labels: Path, tmp_path: Path) -> None:
    packed = [Path(shutil.make_archive(str(tmp_path / name), "zip", labels)) for name in ("one", "other")]
    assert packed_picture(open_labels([labels])) is None
    assert packed_picture(open_labels(packed[:1]))
    assert packed_picture(open_labels(packed)), "the folder that they share is not in a zip file"
    assert packed_picture(open_labels([labels, packed[0]]))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights to start from."""
    path = tmp_path_factory.mktemp("run") / "start.safetensors"
    # Of its own accord such a network finds nothing: what is noise would differ between torch and ONNX Runtime.
    config = load_config(TINY, ["model.center_sigmoid=true", "loss.focal_center=true"])
    save_weights(path, build_network(config, len(CLASS_NAMES)), config, CLASS_NAMES, 3)
    return path


@pytest.fixture(scope="module")
def trained(labels: Path, start: Path) -> tuple[Path, str]:
    """A run's folder and what the command printed."""
    folder = start.parent
    arguments = ["--data", str(labels), "--from", str(start), "--time", "3s", "--size", "96x64"]
    changes = ["--set", "data.workers=0", "--set", "threads=1", "--set", "data.cutouts=0"]
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        assert main([*arguments, *changes, "--out", str(folder / "mine")]) == 0
    return folder / "mine", "\n".join(printed)


def test_one_command_leads_from_labels_to_a_model_and_a_page(trained: tuple[Path, str], labels: Path) -> None:
    run, printed = trained
    state = load_checkpoint(run / "checkpoint.pt")
    assert state["seconds"] >= 3 or state["missed"] == 4, "its time was up, or nothing was better"
    assert set(state["class_names"]) == set(CLASS_NAMES)
    parts = [read_video_set(run / "labels" / part) for part in ("train", "val")]
    assert [len(part.truth.videos) for part in parts] == [5, 1]
    shown = {name for part in parts for video in part.truth.videos for name in video.file_names}
    assert all(Path(name).is_relative_to(labels) for name in shown)
    assert (run / "best.pt").is_file()
    page = (run / "results.html").read_text()
    for heading in ("AP on the validation pictures", "Worst pictures", "What is taken for what", "data:image/jpeg"):
        assert heading in page
    assert f"wrote {run / 'model.onnx'} and {run / 'results.html'}" in printed


def test_a_run_whose_time_is_up_is_only_finished_again(
    trained: tuple[Path, str], labels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is to export; it is not installed now, since that takes half a minute and was done before."""
    monkeypatch.setitem(sys.modules, "instance_flow_export.export", None)
    run, _ = trained
    before = load_checkpoint(run / "checkpoint.pt")["step"]
    arguments = ["--data", str(labels), "--from", str(run.parent / "start.safetensors"), "--time", "3s"]
    changes = ["--set", "data.workers=0", "--set", "data.cutouts=0"]
    assert main([*arguments, "--size", "96x64", *changes, "--out", str(run)]) == 0
    assert load_checkpoint(run / "checkpoint.pt")["step"] == before
    assert f"then `instance-flow-export {run}`" in capsys.readouterr().out


def test_what_takes_minutes_after_the_training_is_said_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "instance_flow_training")
    with pytest.raises(ConfigError, match="trained, but not exported"):
        finish(tmp_path, (64, 96))
    assert "exporting the best checkpoint" in caplog.text


LAPTOP, GPU = Machine(2), Machine(16, 24 * 10**9)
STILLS, CLIPS = [1], [36]
CHOSEN: dict[str, tuple[int, list[int], float, Machine, bool, tuple[int, int, int, int]]] = {
    # Pictures to train on, frames of those held, minutes, machine, frozen parts; clips, steps, workers, validated on.
    "5 pictures, 2 cores": (4, STILLS, 20, LAPTOP, True, (4, 2000, 1, 1)),
    "30 pictures, 2 cores": (24, STILLS * 6, 20, LAPTOP, True, (4, 6000, 1, 6)),
    "300 pictures, 2 cores": (240, STILLS * 60, 20, LAPTOP, True, (4, 60_000, 1, 60)),
    "3,000 pictures, 2 cores": (2400, STILLS * 600, 20, LAPTOP, True, (4, 600_000, 1, 60)),
    "30,000 pictures, 2 cores": (29_000, STILLS * 1000, 20, LAPTOP, True, (4, 7_250_000, 1, 60)),
    "3,000 pictures, 2 cores, 2 hours": (2400, STILLS * 600, 120, LAPTOP, True, (4, 600_000, 1, 360)),
    "300 pictures, 1 core, 90 seconds": (240, STILLS * 60, 1.5, Machine(1), True, (4, 60_000, 1, 20)),
    "videos, 2 cores": (40, CLIPS * 10, 20, LAPTOP, True, (4, 10_000, 1, 4)),
    "5 pictures, GPU": (4, STILLS, 20, GPU, True, (16, 2000, 8, 1)),
    "30 pictures, GPU": (24, STILLS * 6, 20, GPU, True, (16, 2000, 8, 6)),
    "300 pictures, GPU": (240, STILLS * 60, 20, GPU, True, (16, 15_000, 8, 60)),
    "3,000 pictures, GPU": (2400, STILLS * 600, 20, GPU, True, (16, 150_000, 8, 600)),
    "30,000 pictures, GPU, 8 hours": (29_000, STILLS * 1000, 480, GPU, True, (16, 1_812_500, 8, 1000)),
    "videos, GPU": (40, CLIPS * 30, 20, GPU, True, (16, 2500, 8, 17)),
    "all of the network, GPU": (240, STILLS * 60, 20, GPU, False, (8, 30_000, 8, 60)),
    "GPU of 4 GB, 4 cores": (240, STILLS * 60, 20, Machine(4, 4 * 10**9), True, (4, 60_000, 3, 60)),
    "GPU of 1 GB": (240, STILLS * 60, 20, Machine(4, 10**9), False, (1, 240_000, 3, 60)),
    "3 GPUs": (2400, STILLS * 600, 20, Machine(8, 24 * 10**9, 3), True, (24, 100_000, 7, 600)),
    "8 GPUs": (2400, STILLS * 600, 20, Machine(8, 24 * 10**9, 8), True, (32, 75_000, 7, 600)),
    "3 processes on a CPU": (24, STILLS * 6, 20, Machine(2, 0, 3), True, (3, 8000, 1, 6)),
}


@pytest.mark.parametrize(("pictures", "held", "minutes", "machine", "frozen", "expected"), CHOSEN.values(), ids=CHOSEN)
def test_settings_are_chosen_by_the_pictures_and_the_machine(
    pictures: int,
    held: list[int],
    minutes: float,
    machine: Machine,
    frozen: bool,
    expected: tuple[int, int, int, int],
) -> None:
    found = chosen(pictures, held, minutes, (384, 640), machine, frozen)
    config = apply(TrainConfig(), found)
    limit = config.validation.limit
    assert (config.batch, config.steps, config.data.workers, limit) == expected
    assert config.data.crop == ((384, 640) if machine.gpu_memory else (256, 416))
    assert (config.validation.minutes, config.validation.patience) == (minutes / 8, 4)
    assert f"for {pictures} pictures" in in_words(found, pictures)


def test_no_more_pictures_are_held_than_make_the_result_surer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_sources, "MOST_DRAWN", 3)
    train, val = open_parts([yolo(tmp_path / "set", {"": 30})])
    assert [len(part.truth.videos) for part in (train, val)] == [27, 3]


def test_the_first_pictures_to_validate_on_are_of_all_sources(tmp_path: Path) -> None:
    data = [yolo(tmp_path / name, {"train": 1, "val": 12}, first) for name, first in (("a", 0), ("b", 50))]
    _, val = open_parts(data)
    numbers = [int(Path(video.file_names[0]).stem) for video in val.truth.videos]
    assert {number < 50 for number in numbers[:8]} == {True, False}
    assert sorted(numbers) == [*range(1, 13), *range(51, 63)]


def yolo(root: Path, parts: dict[str, int], first: int = 0, classes: Sequence[str] = ("car", "person")) -> Path:
    """A set of so many pictures in each part, "" for none, each of other pixels with an object of each class."""
    root.mkdir(parents=True, exist_ok=True)
    entries = "".join(f"{name}: {name}/images\n" for name in parts if name)
    (root / "data.yaml").write_text(f"{entries}nc: {len(classes)}\nnames: [{', '.join(classes)}]\n")
    for part, count in parts.items():
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            pixels = np.random.default_rng([number, *part.encode()]).integers(256, size=(64, 96, 3), dtype=np.uint8)
            assert cv2.imwrite(str(root / part / "images" / f"{number}.png"), pixels)
            lines = [f"{row} {SHAPES[row]}\n" for row in range(len(classes))]
            (root / part / "labels" / f"{number}.txt").write_text("".join(lines))
        first += count
    return root


SHAPES = ("0.1 0.1 0.7 0.1 0.7 0.9 0.1 0.9", "0.75 0.1 0.8 0.1 0.8 0.2")
"""Of 58 x 51 pixels, and of 5 x 6."""


def pack(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def prepare(wanted: OwnLabels) -> TrainConfig:
    """As a training that goes as far as its first checkpoint."""
    with prepared(wanted, []) as config:
        (wanted.out / "checkpoint.pt").write_text(str(config.data.annotations))
    return config


def own(start: Path, out: Path, *data: Path, **more: Any) -> OwnLabels:
    return OwnLabels(data, more.get("val"), None, str(start), 1.0, (64, 96), out)


def files(folder: Path) -> dict[str, bytes]:
    """All that is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(start: Path, tmp_path: Path) -> OwnLabels:
    """A run that was trained on a zip file and a folder."""
    wanted = own(
        start, tmp_path / "run", pack(yolo(tmp_path / "packed", {"": 4}, 100)), yolo(tmp_path / "open", {"": 6})
    )
    prepare(wanted)
    return wanted


STAYS: dict[str, Callable[[OwnLabels], object]] = {
    "nothing": lambda _: None,
    "the times alone": lambda run: os.utime(run.data[0], (1, 1)),  # type: ignore[func-returns-value]
    "the same packed again": lambda run: pack(yolo(run.data[0].with_suffix(""), {"": 4}, 100)),
    "labels of a version before": lambda run: (run.out / "labels" / "sources.json").unlink(),
}


@pytest.mark.parametrize("change", STAYS.values(), ids=STAYS)
def test_a_run_goes_on_with_the_labels_that_it_has(run: OwnLabels, change: Callable[[OwnLabels], object]) -> None:
    before = files(run.out)
    change(run)
    prepare(run)
    after = files(run.out)
    assert after.pop("labels/sources.json")
    assert after == {name: data for name, data in before.items() if name != "labels/sources.json"}


CHANGES: dict[str, Callable[[OwnLabels], OwnLabels | object]] = {
    "a zip file exported again": lambda run: pack(yolo(run.data[0].with_suffix(""), {"": 6}, 100)),
    "a label": lambda run: [file.write_text(f"0 {SHAPES[1]}") for file in (run.data[1] / "labels").iterdir()],
    "a picture more": lambda run: yolo(run.data[1], {"": 7}),
    "a source less": lambda run: replace(run, data=run.data[:1]),
    "a source to validate on": lambda run: replace(run, data=run.data[:1], val=run.data[1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_labels_are_read_again_and_the_earlier_run_is_kept(
    run: OwnLabels, change: Callable[[OwnLabels], OwnLabels | object], caplog: pytest.LogCaptureFixture
) -> None:
    (run.out / "notes.txt").write_text("not of the run")
    before = files(run.out)
    changed = change(run)
    wanted = changed if isinstance(changed, OwnLabels) else run
    caplog.set_level("INFO", "instance_flow_training")
    prepare(wanted)
    after = files(run.out)
    assert after.pop("notes.txt") == before.pop("notes.txt")
    assert files(run.out / "before-1") == before
    assert {name.split("/")[0] for name in after} == {"labels", "checkpoint.pt", "before-1"}
    assert any(after[f"labels/{part}/instances.json"] != before[f"labels/{part}/instances.json"] for part in PARTS)
    assert f"begins anew, and the earlier run is kept in {run.out / 'before-1'}" in caplog.text
    prepare(wanted)
    assert not (run.out / "before-2").exists(), "the labels are those of the run now"


GONE: dict[str, tuple[Callable[[OwnLabels], object], str]] = {
    "a source is gone": (lambda run: run.data[0].unlink(), "packed.zip: there is no such file or folder"),
    "a label is damaged": (lambda run: (run.data[1] / "labels/0.txt").write_text("0 x"), "0.txt: line 1 holds"),
}


@pytest.mark.parametrize(("change", "words"), GONE.values(), ids=GONE)
def test_labels_that_cannot_be_read_again_leave_the_run_as_it_is(
    run: OwnLabels, change: Callable[[OwnLabels], object], words: str
) -> None:
    before = files(run.out)
    change(run)
    with pytest.raises(SourceError, match=re.escape(words)):
        prepare(run)
    assert files(run.out) == before


def coco_parts(root: Path, parts: dict[str, int]) -> Path:
    """As Roboflow exports COCO: a label file beside the pictures of each part."""
    for part, count in parts.items():
        yolo(root / "made", {part: count}, 10 * len(part))
        shutil.copytree(root / "made" / part / "images", root / part)
        names = sorted(path.name for path in (root / part).iterdir())
        images = [{"id": n, "file_name": name, "height": 64, "width": 96} for n, name in enumerate(names, 1)]
        box = [[10, 10, 70, 10, 70, 50, 10, 50]]
        objects = [
            {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "segmentation": box} for n in range(1, count + 1)
        ]
        labels = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "car"}]}
        (root / part / "_annotations.coco.json").write_text(json.dumps(labels))
    shutil.rmtree(root / "made")
    return root


def cvat_tasks(root: Path) -> Path:
    """A task of each part."""
    for subset in ("Train", "Validation"):
        yolo(root / subset, {"": 3}, 10 * len(subset))
        (root / subset / "data.yaml").unlink()
        shutil.rmtree(root / subset / "labels")
        images = "".join(
            f'<image id="{n}" name="{path.name}" subset="{subset}" width="96" height="64">'
            '<polygon label="car" points="10,10;70,10;70,50"/></image>'
            for n, path in enumerate(sorted((root / subset / "images").iterdir()))
        )
        # The folder's own name says nothing of the part.
        (root / subset).rename(root / f"task{len(subset)}")
        meta = "<meta><task><labels><label><name>car</name></label></labels></task></meta>"
        text = f"<annotations><version>1.1</version>{meta}{images}</annotations>"
        (root / f"task{len(subset)}" / "annotations.xml").write_text(text)
    return root


def one_yaml(root: Path, entries: str) -> Path:
    """Six pictures in train, and these entries in data.yaml."""
    yolo(root, {"train": 6})
    (root / "data.yaml").write_text(f"{entries}nc: 2\nnames: [car, person]\n")
    return root


def copied(root: Path) -> Path:
    yolo(root, {"train": 6})
    shutil.copytree(root / "train", root / "valid")
    return one_yaml(root, "train: train/images\nval: valid/images\n")


PARTED: dict[str, tuple[Callable[[Path], Path | list[Path]], int, int]] = {
    "train and val": (lambda root: yolo(root, {"train": 4, "val": 2}), 4, 2),
    "train, val and test": (lambda root: yolo(root, {"train": 4, "val": 2, "test": 3}), 4, 2),
    "no parts": (lambda root: yolo(root, {"": 10}), 8, 2),
    "only train": (lambda root: yolo(root, {"train": 5}), 4, 1),
    "train and test": (lambda root: yolo(root, {"train": 5, "test": 2}), 4, 1),
    "only val": (lambda root: yolo(root, {"val": 5}), 4, 1),
    "val and test": (lambda root: yolo(root, {"val": 5, "test": 5}), 8, 2),
    "val is train": (lambda root: one_yaml(root, "train: train/images\nval: train/images\n"), 5, 1),
    "val is not there": (lambda root: one_yaml(root, "train: train/images\nval: valid/images\n"), 5, 1),
    "val is a copy of train": (copied, 5, 1),
    "a zip file of train": (lambda root: pack(yolo(root, {"train": 5})), 4, 1),
    "COCO of train and valid": (lambda root: coco_parts(root, {"train": 4, "valid": 2}), 4, 2),
    "COCO of train": (lambda root: coco_parts(root, {"train": 5}), 4, 1),
    "COCO of train and test": (lambda root: coco_parts(root, {"train": 5, "test": 2}), 4, 1),
    "CVAT's tasks of a part each": (cvat_tasks, 3, 3),
    "two without parts": (lambda root: [yolo(root / "a", {"": 5}), yolo(root / "b", {"": 5}, 50)], 8, 2),
    "one with parts, one without": (
        lambda root: [yolo(root / "a", {"train": 4, "val": 2}), yolo(root / "b", {"": 5}, 50)],
        *(4 + 4, 2 + 1),
    ),
    "one with parts, one too small for it": (
        lambda root: [yolo(root / "a", {"train": 4, "val": 2}), yolo(root / "b", {"": 1}, 50)],
        *(5, 2),
    ),
    "an export that holds the one before": (
        lambda root: [pack(yolo(root / "a", {"": 5})), pack(yolo(root / "b", {"": 10}))],
        *(12 - 2, 3),
    ),
}


@pytest.mark.parametrize(("make", "trained", "validated"), PARTED.values(), ids=PARTED)
def test_no_picture_is_trained_and_validated_on(
    tmp_path: Path, make: Callable[[Path], Path | list[Path]], trained: int, validated: int
) -> None:
    made = make(tmp_path / "set")
    train, val = open_parts(made if isinstance(made, list) else [made])
    names = [[name for video in part.truth.videos for name in video.file_names] for part in (train, val)]
    pixels = [
        {(part.images / name).read_bytes() for name in its} for part, its in zip((train, val), names, strict=True)
    ]
    assert not pixels[0] & pixels[1]
    assert [len(its) for its in names] == [trained, validated]
    assert any("validated on" in note for note in train.notes)


def test_a_source_to_validate_on_is_not_trained_on(tmp_path: Path) -> None:
    made = yolo(tmp_path / "made", {"": 6})
    held = yolo(tmp_path / "held", {"": 2})
    train, val = open_parts([made], val=held)
    assert (len(train.truth.videos), len(val.truth.videos)) == (4, 2)
    assert "2 pictures or videos are not trained on, as they are validated on" in train.notes
    with pytest.raises(SourceError, match="all of its pictures are among those to validate on"):
        open_parts([made], val=made)


def crowded(root: Path) -> Path:
    """Every picture has a box without a mask besides its object."""
    yolo(root, {"": 5})
    for file in (root / "labels").iterdir():
        file.write_text(f"0 {SHAPES[0]}\n0 0.9 0.5 0.1 0.1\n")
    return root


def small_objects(root: Path) -> Path:
    yolo(root, {"": 5})
    for file in (root / "labels").iterdir():
        file.write_text(f"1 {SHAPES[1]}")
    return root


CUTOUTS: dict[str, tuple[Callable[[Path], Path | list[Path]], list[str], float]] = {
    "whole objects": (lambda root: yolo(root, {"": 5}), [], 0.3),
    "a source of small ones beside": (lambda root: [yolo(root / "a", {"": 5}), small_objects(root / "b")], [], 0.3),
    "small objects": (small_objects, [], 0),
    "boxes without masks, which are crowds": (crowded, [], 0),
    "two sources of other classes": (
        lambda root: [yolo(root / "a", {"": 5}), yolo(root / "b", {"": 5}, 50, ("cat", "dog"))],
        *([], 0),
    ),
    "classes to train that are small": (lambda root: yolo(root, {"": 5}), ["data.classes=person"], 0),
    "as the user says": (small_objects, ["data.cutouts=0.5"], 0.5),
}


@pytest.mark.parametrize(("make", "overrides", "share"), CUTOUTS.values(), ids=CUTOUTS)
def test_cutouts_are_made_where_there_are_objects_for_them(
    start: Path,
    tmp_path: Path,
    make: Callable[[Path], Path | list[Path]],
    overrides: list[str],
    share: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "instance_flow_training")
    made = make(tmp_path / "set")
    data = made if isinstance(made, list) else [made]
    with prepared(own(start, tmp_path / "run", *data), overrides) as config:
        assert config.data.cutouts == share
        assert ("no cut-outs are made" in caplog.text) == (share == 0)
        if share != 0.5:
            assert open_training_data(config.data, 8, 4)[0].images.shape[0] == 2


CAR, PERSON = ("Car", "person"), ("car", "Person")


def test_a_run_starts_from_the_best_of_another_or_of_its_own_before(
    start: Path, run: OwnLabels, tmp_path: Path
) -> None:
    state = {**load_checkpoint(start), "optimizer": {}}
    save_checkpoint(run.out / "checkpoint.pt", state)
    again = replace(run, start=str(run.out))
    assert prepare(replace(again, out=tmp_path / "other")).init.checkpoint == str(run.out / "checkpoint.pt")
    save_checkpoint(run.out / "best.pt", state)
    assert prepare(replace(again, out=tmp_path / "another")).init.checkpoint == str(run.out / "best.pt")
    config = prepare(replace(again, data=run.data[:1]))
    assert config.init.checkpoint == str(run.out / "before-1" / "best.pt")
    assert load_checkpoint(Path(config.init.checkpoint))["step"] == 3


def test_classes_are_renamed_in_all_sources(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [yolo(tmp_path / "a", {"train": 4, "val": 2}, 0, CAR), yolo(tmp_path / "b", {"": 4}, 50, PERSON)]
    other = yolo(tmp_path / "c", {"": 4}, 80, ("Car", "man"))
    names = {"Car": "car", "Person": "person", "man": "person"}
    for more in ({}, {"val": other}):
        rename = names if more else {old: new for old, new in names.items() if old != "man"}
        wanted = replace(own(start, tmp_path / f"run{len(more)}", *data, **more), rename=rename)
        prepare(wanted)
        for part in PARTS:
            truth = read_video_set(wanted.out / "labels" / part).truth
            assert {category.name for category in truth.categories} == {"car", "person"}
    arguments = ["--from", str(start), "--out", str(tmp_path / "out"), "--data", str(data[0])]
    for options, words in {
        (str(data[1]),): 'calls a class "car" that',
        ("--val", str(data[1])): 'calls a class "car" that',
        ("--rename", "van=car"): 'has no class "van" to rename; it has Car, person',
        ("--set", "data.rename.Car=car"): "give --rename OLD=NEW",
    }.items():
        assert main([*arguments, *options]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(TINY), "--rename", "Car=car"])
    assert "--rename goes with --data" in capsys.readouterr().err


def test_val_measures_a_run_on_labels(
    trained: tuple[Path, str], labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, numbers = tmp_path / "deep" / "val.html", tmp_path / "val.json"
    arguments = ["val", str(trained[0]), str(labels), "--limit", "2", "--page", str(page), "--json", str(numbers)]
    assert instance_flow(arguments) == 0
    printed = capsys.readouterr().out
    for words in ("all classes", "as one class: HOTA", "published: ", "in 6 frames"):
        assert words in printed
    assert set(json.loads(numbers.read_text())["per_class"])
    assert "Worst pictures" in page.read_text()


def test_val_refuses_a_limit_below_none(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would leave out the last picture."""
    with pytest.raises(SystemExit):
        instance_flow(["val", "model.onnx", str(labels), "--limit", "-1"])
    assert "argument --limit: '-1' is not a whole number from 0" in capsys.readouterr().err


VAL_ERRORS = {
    "no such model": (["none.onnx", "{labels}"], "none.onnx: no such model file"),
    "a run without a model": (["{empty}", "{labels}"], "holds no model.onnx; write one with instance-flow-export"),
    "no such labels": (["{run}", "nowhere"], "nowhere"),
    "no such setting": (["{run}", "{labels}", "--set", "min_scor=1"], "min_scor"),
}


@pytest.mark.parametrize(("arguments", "words"), VAL_ERRORS.values(), ids=VAL_ERRORS)
def test_val_says_what_is_wrong(
    trained: tuple[Path, str],
    labels: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"run": trained[0], "labels": labels, "empty": tmp_path}
    assert instance_flow(["val", *(a.format(**places) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("instance-flow val: error: ")
    assert words in error
    assert error.count("\n") == 1


TRAIN_ERRORS = {
    "no time": (["--time", "soon"], "'soon' is no time; write it as 20m"),
    "no size": (["--size", "big"], "big"),
    "a size that no network takes": (["--size", "100x60"], "multiples of 32"),
    "no such weights": (["--from", "none.pt"], "none.pt: no such checkpoint"),
    "weights of a folder without any": (["--from", "{labels}"], "holds no best.pt and no checkpoint.pt"),
    "no such labels": (["--data", "nowhere"], "nowhere"),
    "no such setting": (["--set", "model.depth=3"], "unknown key 'model.depth'"),
    "another network than that of the weights": (["--set", "model.backbone=resnet50"], "its backbone is"),
    "no such part of the network": (["--set", 'frozen=["head"]'], "frozen names 'head'"),
    "no cut-outs": (
        ["--set", "data.cutouts=0.5", "--set", "data.ignore_unlabelled=true"],
        "cut-outs need such pictures",
    ),
    "pictures of damaged pixels": (["--data", "{damaged}"], ".png: cannot be read as a picture"),
    "in a folder of labels": (["--out", "{labels}/run"], "give another --out"),
    "in a folder to validate on": (["--val", "{damaged}", "--out", "{damaged}/run"], "give another --out"),
    "in a file": (["--out", "{damaged}/data.yaml"], "give another folder"),
}


@pytest.mark.parametrize(("arguments", "words"), TRAIN_ERRORS.values(), ids=TRAIN_ERRORS)
def test_training_on_labels_says_what_is_wrong_and_leaves_nothing(
    start: Path,
    labels: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--data", str(labels), "--from", str(start), "--out", str(tmp_path / "out"), "--set", "data.workers=0"]
    before = files(labels)
    places = {"labels": labels, "damaged": tmp_path / "damaged"}
    for picture in (yolo(places["damaged"], {"train": 9, "val": 1}) / "train" / "images").iterdir():
        picture.write_bytes(picture.read_bytes()[:100] + bytes(1000) + picture.read_bytes()[1100:])
    assert main([*given, *(argument.format(**places) for argument in arguments)]) == 2
    assert files(labels) == before
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("instance-flow-train: error: ")
    assert words in error
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_an_earlier_run_as_it_is(run: OwnLabels, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(run.out)
    arguments = ["--data", str(run.data[0]), "--from", run.start, "--out", str(run.out), "--set", "data.workers=0"]
    assert main([*arguments, "--set", "model.backbone=resnet50"]) == 2
    assert "its backbone is" in capsys.readouterr().err
    assert files(run.out) == before


def test_a_dry_run_writes_nothing(run: OwnLabels, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(tmp_path)
    arguments = ["--data", str(run.data[0]), "--from", run.start, "--set", "data.workers=0", "--size", "96x64"]
    for out in (run.out, tmp_path / "new"):
        assert main([*arguments, "--out", str(out), "--dry-run"]) == 0
    assert "s/step" in capsys.readouterr().out
    assert files(tmp_path) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [[], ["config.toml", "--data", "labels"]], ids=["neither", "both"])
def test_a_configuration_or_labels(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "give a configuration, or --data with your labels" in capsys.readouterr().err


def test_a_page_escapes_what_names_say(tmp_path: Path) -> None:
    found = tracked([(LEFT, 1)], [(LEFT, 1)])
    hostile = "<script>alert(1)</script>"
    categories = (Category(1, hostile), Category(2, "dog"))
    found = replace(found, truth=replace(found.truth, categories=categories), images=tmp_path)
    numbers: dict[str, Any] = dict.fromkeys(("AP", "AP50", "AP75", "AR100", "HOTA", "IDF1", "IDSW"), 0.5)
    numbers["per_class"] = {1: {**numbers, "name": hostile}}
    page = Judgement(numbers, numbers, found, score_frames(found)).page(
        hostile, {hostile: hostile}, [Curve("AP", [1], [2])]
    )
    assert hostile not in page
    assert "&lt;script&gt;" in page
