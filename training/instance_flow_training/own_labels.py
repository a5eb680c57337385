# SPDX-License-Identifier: Apache-2.0
"""``instance-flow-train --data``: from labels in any form to a model and a page of its results, in one command.

It starts from trained weights, and everything that a configuration would say is chosen by the labels and the machine.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from instance_flow.formats.atomic import replacing
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.ytvis import load_ground_truth
from instance_flow.pipeline import Pipeline
from instance_flow.structures import ModelError, SourceError
from instance_flow_training.comparing.judgement import Curve, judge
from instance_flow_training.comparing.val import MODEL
from instance_flow_training.config import ConfigError, TrainConfig, apply, merged, parse_override
from instance_flow_training.data.conversion import LABELS
from instance_flow_training.data.kept_labels import (
    ABOUT,
    PARTS,
    TRAIN,
    VAL,
    read_about,
    same_labels,
    state_of,
    write_parts,
)
from instance_flow_training.data.label_sources import open_parts
from instance_flow_training.data.video_sets import VideoSet, open_video_set, read_video_set
from instance_flow_training.network.detector import CLASSES
from instance_flow_training.own_settings import Machine, chosen, in_words, this_machine
from instance_flow_training.weights.checkpoint import BEST, CHECKPOINT, best_of_run, load_checkpoint
from instance_flow_training.weights.initialise import plain
from instance_flow_training.worlds.cutouts import LEAST_EXTENT, has_cutouts

log = logging.getLogger(__name__)

EVERYDAY = "everyday"
LABELS_FOLDER, TENSORBOARD, PAGE = "labels", "tensorboard", "results.html"
VALIDATION_SHARE = 0.2
_MOST_JUDGED = 1000
"""Pictures and videos that the page of results is made of, chosen at random."""
_CURVES = {
    "validation/AP": ("AP on the validation pictures", 100.0, "%"),
    "loss/semantic": ("Loss of the class maps", 1.0, ""),
    "loss/center": ("Loss of the centers", 1.0, ""),
    "loss/intra": ("Error of the offsets", 1.0, "px"),
    "loss/inter": ("Error of the flow", 1.0, "px"),
}


Once = Callable[[Callable[[], tuple[Path, Path, Machine]]], tuple[Path, Path, Machine]]


@dataclass(frozen=True)
class OwnLabels:
    """What the command line says.

    data, val: labels in any form; no val = a share of data.   start: everyday, a run's folder, or a file.
    size: (height, width) of the input that the model is for.   rename: new names of classes by their old ones."""

    data: tuple[Path, ...]
    val: Path | None
    images: Path | None
    start: str
    minutes: float
    size: tuple[int, int]
    out: Path
    rename: Mapping[str, str] = field(default_factory=dict)


def minutes_of(text: str) -> float:
    """20m, 90s, 2h or 1h30m in minutes, for argparse."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip().lower())
    hours, minutes, seconds = (int(n or 0) for n in found.groups()) if found else (0, 0, 0)
    if not hours + minutes + seconds:
        raise ValueError(f"{shown(repr(text))} is no time; write it as 20m, 90s or 1h30m")
    return 60 * hours + minutes + seconds / 60


@contextmanager
def prepared(
    wanted: OwnLabels, overrides: Sequence[str], dry: bool = False, once: Once = lambda make: make()
) -> Iterator[TrainConfig]:
    """The settings for these labels, which lie in ``out``/labels for the run; of a dry run in a folder that goes again.

    A resumed run takes the labels that are there, unless the sources have changed and give others: then training
    begins anew, and the earlier run is kept in ``out``/before-N. After an exception before the first checkpoint ``out``
    is as it was.
    once: of several processes calls a function in one alone, and gives all of them what it returned.
    Raises SourceError for bad labels, ModelError for bad weights, ConfigError for overrides that do not fit, and where
    ``out`` cannot be written.
    """
    theirs: dict[str, Any] = {}
    for text in overrides:
        theirs = merged(theirs, parse_override(text))
    if "rename" in _of_data(theirs):
        raise ConfigError("--set data.rename comes too late for labels of --data; give --rename OLD=NEW")
    with ExitStack() as undo:
        # The labels are written, and an earlier run is moved: two processes would do it to each other's files.
        weights, labels, machine = once(lambda: (*_prepare(wanted, dry, undo), this_machine()))
        began_with = load_checkpoint(weights)
        try:
            yield configured(wanted, began_with, weights, labels, theirs, machine)
        finally:
            if not dry and (wanted.out / CHECKPOINT).exists():
                undo.pop_all()


def _prepare(wanted: OwnLabels, dry: bool, undo: ExitStack) -> tuple[Path, Path]:
    """The weights, and the folder of the labels, which are written there unless they are there already."""
    weights = start_weights(wanted.start)
    load_checkpoint(weights)  # What is wrong with it is said before labels are read for minutes.
    sources = [path for path in (*wanted.data, wanted.val, wanted.images) if path is not None]
    for path in (*wanted.data, *([wanted.val] if wanted.val else [])):
        if path.is_dir() and wanted.out.resolve().is_relative_to(path.resolve()):
            raise SourceError(
                f"{path}: holds {wanted.out}, so that what the run writes would be read as labels; give another --out"
            )
    state = state_of(sources, wanted.val, wanted.images, sorted(wanted.rename.items()))
    labels = wanted.out / LABELS_FOLDER
    if state is None or read_about(labels).get("state") != state:
        parts = open_parts(wanted.data, wanted.images, wanted.val, wanted.rename, VALIDATION_SHARE)
        for note in parts[0].notes:
            log.info(note)
        try:
            labels, weights = _bring(wanted, parts, {"state": state}, weights, dry, undo)
        except OSError as error:
            raise ConfigError(
                f"--out {wanted.out}: cannot be written ({error.strerror}); give another folder"
            ) from error
    return weights, labels


def _bring(
    wanted: OwnLabels,
    parts: Sequence[VideoSet],
    about: Mapping[str, Any],
    weights: Path,
    dry: bool,
    undo: ExitStack,
) -> tuple[Path, Path]:
    """Write the labels to where the run takes them from; gives this folder, and the weights, which may have moved."""
    out, labels = wanted.out, wanted.out / LABELS_FOLDER
    if dry:
        labels = Path(undo.enter_context(TemporaryDirectory(prefix="instance-flow-"))) / LABELS_FOLDER
        write_parts(labels, parts, about)
        return labels, weights
    for folder in [path for path in (out, *out.parents) if not path.exists()][::-1]:
        folder.mkdir()
        undo.callback(_remove_empty, folder)
    with TemporaryDirectory(prefix=".labels-", dir=out) as place:
        new = Path(place) / LABELS_FOLDER
        write_parts(new, parts, about)
        if same_labels(new, labels):
            (new / ABOUT).replace(labels / ABOUT)
            return labels, weights
        began = (out / CHECKPOINT).exists()
        if began:
            earlier = _put_aside(out, undo)
            log.info(
                f"{out}: was trained on other labels than those of {', '.join(map(str, wanted.data))} now; training "
                f"begins anew, and the earlier run is kept in {earlier}"
            )
            if weights.resolve().parent == out.resolve():
                weights = earlier / weights.name
        for name in (LABELS_FOLDER, TENSORBOARD):
            shutil.rmtree(out / name, ignore_errors=True)
            undo.callback(shutil.rmtree, out / name, ignore_errors=True)
        new.replace(labels)
    return labels, weights


def _put_aside(out: Path, undo: ExitStack) -> Path:
    """Move the files of an earlier run into a folder in ``out``, a run's folder by itself; gives it."""
    earlier = next(path for n in itertools.count(1) if not (path := out / f"before-{n}").exists())
    earlier.mkdir()
    undo.callback(earlier.rmdir)
    for name in (CHECKPOINT, BEST, MODEL, PAGE, TENSORBOARD, LABELS_FOLDER):
        if (out / name).exists():
            (out / name).replace(earlier / name)
            undo.callback((earlier / name).replace, out / name)
    return earlier


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def configured(
    wanted: OwnLabels,
    began_with: Mapping[str, Any],
    weights: Path,
    labels: Path,
    theirs: Mapping[str, Any],
    machine: Machine,
) -> TrainConfig:
    """The settings with the user's own, ``theirs``. Raises ConfigError for those that do not fit."""
    changes = settings(wanted, began_with, weights, labels, machine)
    config = apply(TrainConfig(), merged(changes, theirs))
    if "cutouts" in _of_data(theirs):
        return config
    data = config.data
    opened = open_video_set(labels / TRAIN, None, data.classes, data.ignore_unlabelled, data.crowds)
    if has_cutouts(opened):
        return config
    log.info(
        "no cut-outs are made (data.cutouts is 0): they need objects of at least "
        f"{LEAST_EXTENT} pixels, whole in pictures that are labelled completely and without crowds"
    )
    return replace(config, data=replace(data, cutouts=0.0))


def _of_data(theirs: Mapping[str, Any]) -> Mapping[str, Any]:
    data = theirs.get("data")
    return data if isinstance(data, dict) else {}


def start_weights(start: str) -> Path:
    """The file that training starts from, of a run's folder its best checkpoint. Raises ModelError for a folder without
    one, and where the bundled one is not there."""
    if start != EVERYDAY:
        path = best_of_run(Path(start)) if Path(start).is_dir() else Path(start)
        if Path(start).is_dir() and not path.is_file():
            raise ModelError(f"{start}: holds no {BEST} and no {CHECKPOINT}; give a run's folder, or a file of weights")
        return path
    path = Path(str(resources.files("instance_flow_training.weights"))) / "instance-flow-everyday.safetensors"
    if not path.is_file():
        raise ModelError(
            f"{path}: the bundled weights are missing; install instance-flow-training again, or give --from FILE"
        )
    return path


def settings(
    wanted: OwnLabels, began_with: Mapping[str, Any], weights: Path, labels: Path, machine: Machine
) -> dict[str, Any]:
    """The configuration as differences from the defaults: shape and losses of the weights' own run, the rest by the
    pictures and the machine.

    labels: the folder of both parts."""
    # What is trained and validated on is checked when it is opened for that.
    train, val = (load_ground_truth(labels / part / LABELS) for part in PARTS)
    theirs = began_with["config"]
    names = sorted({category.name for category in train.categories})
    theirs_by_name = {plain(name) for name in began_with["class_names"]}
    known = {plain(name) for name in names} <= theirs_by_name
    detected = {plain(name) for name in names} <= theirs_by_name | set(CLASSES)
    log.info(f"classes: {', '.join(names)}" + ("" if known else "; those that the weights do not know start at random"))
    frozen = [name for name in theirs.get("frozen", ()) if known or not name.startswith("semantic_head")]
    height, width = wanted.size
    fit = float(np.median([min(height / v.height, width / v.width) for v in train.videos]))
    held = [video.length for video in val.videos]
    ours = chosen(len(train.videos), held, wanted.minutes, wanted.size, machine, bool(frozen))
    log.info(in_words(ours, len(train.videos)))
    rest = {
        "name": "own labels",
        "learning_rate": 5e-4,
        "warmup": 30,
        "frozen": frozen,
        "save_minutes": 2.0,
        "init": {"checkpoint": str(weights)},
        "model": {**theirs.get("model", {}), "backbone_weights": ""},
        "defaults": theirs.get("defaults", {}),
        # A class that the detector does not know is found by the center heat alone.
        "loss": {**theirs.get("loss", {}), "distil": 0.0, "teacher": ""} | ({} if detected else {"center": 1.0}),
        "data": {
            "source": "youtube_vis",
            "annotations": str(labels / TRAIN / LABELS),
            "scales": [round(fit * factor, 3) for factor in (0.7, 0.85, 1.0, 1.2, 1.4)],
            "balance": 0.1,
            "cutouts": 0.3,
            "center_spread": theirs.get("data", {}).get("center_spread", 0.0),
        },
        "validation": {"annotations": str(labels / VAL / LABELS), "size": list(wanted.size)},
    }
    return merged(rest, ours)


def finish(out: Path, size: tuple[int, int]) -> str:
    """Export the best checkpoint and write the page of results; returns what to say of them.

    Raises ConfigError where the export is not installed or fails.
    """
    try:
        export = importlib.import_module("instance_flow_export.export")
    except ModuleNotFoundError as error:
        return (
            f"trained, but no model is written, since {error.name} is not installed; run `pip install . ./training "
            f"./export` in instance-flow's checkout, then `instance-flow-export {out}`"
        )
    log.info(
        f"exporting the best checkpoint, proving the file equal to it, then measuring it: writes {MODEL} and {PAGE}"
    )
    if export.main([str(out), f"--size={size[1]}x{size[0]}"]):
        raise ConfigError(f"{out}: trained, but not exported; instance-flow-export {out} says why")
    held = read_video_set(out / LABELS_FOLDER / VAL)
    judgement = judge(Pipeline.load(out / MODEL), held, _MOST_JUDGED)
    state = load_checkpoint(out / CHECKPOINT)
    about = {
        "trained": f"{state['seconds'] / 60:.0f} minutes, {state['step']} steps",
        "started from": str(state["config"]["init"]["checkpoint"]),
        "labels": str(out / LABELS_FOLDER),
        "validated on": f"{min(len(held.truth.videos), _MOST_JUDGED)} of {len(held.truth.videos)} pictures or videos",
    }
    page = judgement.page(f"{out.name}: results", about, curves(out / TENSORBOARD))
    with replacing(out / PAGE) as path:
        path.write_text(page, encoding="utf-8")
    return (
        f"{judgement.text()}\n\nwrote {out / MODEL} and {out / PAGE}; try it: instance-flow run --model {out / MODEL}"
    )


def curves(folder: Path) -> list[Curve]:
    """What a run logged over its steps, restarts included."""
    events = EventAccumulator(str(folder))
    events.Reload()
    tags, found = events.Tags()["scalars"], []
    for tag, (name, factor, unit) in _CURVES.items():
        points = {event.step: event.value * factor for event in events.Scalars(tag)} if tag in tags else {}
        found.append(Curve(name, sorted(points), [points[step] for step in sorted(points)], unit))
    return found
