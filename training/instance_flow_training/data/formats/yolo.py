# SPDX-License-Identifier: Apache-2.0
"""YOLO's labels for segmentation: a text file for each picture, a line "class x y x y ..." for each object.

Coordinates are fractions of the picture's width and height. Classes and folders are named in data.yaml
(docs.ultralytics.com/datasets/segment), or the classes alone in classes.txt.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instance_flow.formats.foreign_text import shown
from instance_flow.structures import SourceError
from instance_flow_training.data.crowds import AUTO
from instance_flow_training.data.formats.build import SetBuilder
from instance_flow_training.data.formats.source import (
    PICTURES,
    SPLITS,
    Source,
    naming,
    read_text,
    read_yaml,
    split_of,
    to_text,
)
from instance_flow_training.data.set_files import read_header
from instance_flow_training.data.video_sets import VideoSet

NAME = "YOLO"
_NAMES, _HEAD = re.compile(rb"^\s*[\"']?names[\"']?\s*:", re.MULTILINE), 2**20
_OBJECT = re.compile(rb"\s*\d+\s+-?[\d.]")
_BOX = 4
_SLACK = 0.05
"""How far a coordinate may lie outside of the picture, as a fraction of it."""


def find(source: Source) -> list[Path]:
    """YAML files with names and folders; without one, a classes.txt beside label files."""
    found = [path for path in source.with_ending(".yaml", ".yml") if _is_yolo(path)]
    return found or [path for path in source.with_ending(".txt") if path.name == "classes.txt"]


def read(source: Source, files: list[Path], split: str, _crowds: str = AUTO, lenient: bool = False) -> VideoSet:
    """Every picture a still, also those without a label file."""
    if len(files) > 1:
        listed = ", ".join(str(path) for path in files[:3])
        raise SourceError(f"{source.path}: holds several files of class names ({listed}); name the one to read")
    builder = SetBuilder("YOLO", source.path, source.root)
    with naming(files[0]):
        names, parts = _described(source, files[0])
        for name in names.values():
            builder.category(name)
    pictures = source.in_split(parts, split)
    if not pictures:
        raise SourceError(f"{files[0]}: has no pictures of the part {split!r}; check its {split}: entry")
    lines: list[tuple[Path, int]] = []
    for picture in pictures:
        labels = _label_file(picture)
        builder.claim(picture, labels)
        height, width = read_header(picture).size
        builder.video([picture], height, width)
        if labels.is_file():
            with naming(labels):
                for class_id, values in _lines(labels, names):
                    lines.append((labels, len(values)))
                    _add(builder, builder.category(names[class_id]), values, (height, width))
    if lines and all(count == _BOX for _, count in lines):
        raise SourceError(
            f"{source.path}: its {len(lines)} labels are boxes, as of {lines[0][0]}; masks are needed, export the set "
            "for segmentation"
        )
    boxes = sum(count == _BOX for _, count in lines)
    if boxes:
        builder.note(f"{boxes} of {len(lines)} labels are boxes; no loss touches their pixels")
    if not lines:
        raise SourceError(
            f"{files[0]}: no label file belongs to its {len(pictures)} pictures, such as {_label_file(pictures[0])} to "
            f"{pictures[0].name}; put them there"
        )
    if lost := _without_picture(source, parts):
        builder.note(f"label files without a picture are left out: {len(lost)}, such as {lost[0]}")
    return builder.build(lenient)


def _without_picture(source: Source, parts: Mapping[Path, str]) -> list[Path]:
    """Label files that belong to no picture of any part, among those that do."""
    # Paths of data.yaml may go through "..".
    used = {os.path.abspath(_label_file(picture)) for picture in parts}
    folders = {os.path.dirname(path) for path in used}
    others = {os.path.abspath(path): path for path in source.with_ending(".txt")}
    return [
        path
        for place, path in others.items()
        if place not in used and os.path.dirname(place) in folders and _OBJECT.match(path.read_bytes()[:_HEAD])
    ]


def _is_yolo(path: Path) -> bool:
    # Other YAML need not be whole.
    if not _NAMES.search(path.read_bytes()[:_HEAD]):
        return False
    data = read_yaml(path)
    return isinstance(data, Mapping) and "names" in data and any(key in data for key in (*SPLITS, "path", "nc"))


def _described(source: Source, path: Path) -> tuple[dict[int, str], dict[Path, str]]:
    """Class names by number, and the split of each picture."""
    if path.suffix.lower() == ".txt":
        lines = [line.strip() for line in read_text(path).splitlines()]
        names = dict(enumerate(line for line in lines if line))
        return names, {picture: split_of(picture, source.root) for picture in source.pictures(path.parent)}
    data = read_yaml(path)
    listed = data["names"]
    entries = listed.items() if isinstance(listed, Mapping) else enumerate(listed if isinstance(listed, list) else [])
    names = {_number(number): _text(name, f"the name of class {number}") for number, name in entries}
    if not names:
        raise ValueError("has no list of names; write names: [person, car]")
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise ValueError(f"names {shown(twice[0])} twice; give each class one number, and correct the labels")
    said = data.get("nc", len(names))
    if said not in (len(names), max(names) + 1):
        raise ValueError(f"says nc: {shown(said)}, but names {len(names)} classes; correct one of them")
    root = path.parent / _text(data.get("path") or ".", "path")
    roots = [folder for folder in (root, path.parent) if folder.is_dir()]
    parts: dict[Path, str] = {}
    for split in SPLITS:
        entry = data.get(split, data.get("valid") if split == "val" else None)
        for written in entry if isinstance(entry, list) else [entry]:
            if written:
                for picture in _pictures(source, roots, _text(written, split), required=split == "train"):
                    # What is in two parts is for training.
                    parts.setdefault(picture, split)
    if not parts:
        parts = {picture: split_of(picture, source.root) for picture in source.pictures(path.parent)}
    return names, parts


def _number(key: Any) -> int:
    if isinstance(key, bool) or not (isinstance(key, int) or (isinstance(key, str) and key.isdecimal())):
        raise ValueError("names classes by other keys than whole numbers from 0 up")
    return int(key)


def _text(value: Any, what: str) -> str:
    """A text or number as text. Nothing else: aliases can make a small file very large when it is written out."""
    if not isinstance(value, str | int | float):
        raise ValueError(f"has no text for {what}")
    return to_text(str(value), what)


def _pictures(source: Source, roots: list[Path], written: str, required: bool) -> list[Path]:
    """Those of a folder, or of a text file that lists them. A part that is not there is a fault of train alone."""
    # Roboflow writes ../train/images for what lies beside the file, others an absolute path of another machine.
    written = written.replace("\\", "/")
    parts = [part for part in written.split("/") if part not in ("", ".", "..")]
    tails = ["/".join(parts[first:]) for first in range(max(1, len(parts) - 1))]
    options = dict.fromkeys([written, *(tails if written.startswith(("/", "../")) or written[1:2] == ":" else [])])
    for place in (root / option for option in options for root in roots):
        if place.is_dir():
            return source.pictures(place)
        if place.is_file() and place.suffix.lower() in PICTURES:
            return [place]
        if place.is_file():
            lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
            return [source.picture(line.removeprefix("./"), place.parent, *roots) for line in lines]
    if required:
        raise ValueError(f'there is no folder "{shown(written)}" of pictures; correct its path')
    return []


def _label_file(picture: Path) -> Path:
    """The label file of a picture: "labels" in place of the last folder "images", or beside it."""
    parts = picture.parts
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :]).with_suffix(".txt")
    return picture.with_suffix(".txt")


def _lines(path: Path, names: Mapping[int, str]) -> Iterator[tuple[int, list[float]]]:
    """Class and coordinates of each object. Raises ValueError for a line that is no object."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            class_number, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise ValueError(f"line {number} holds {shown(line, 60)!r}, but numbers are needed") from None
        class_id = int(class_number) if math.isfinite(class_number) else -1
        if class_id != class_number or class_id not in names:
            raise ValueError(
                f"line {number} has the class {shown(words[0])}, but the set names {len(names)} classes, "
                f"{min(names)} to {max(names)}; correct the label or the names"
            )
        if len(values) % 2:
            raise ValueError(
                f"line {number} has {len(values)} coordinates, an odd count; a polygon is pairs x y, so a number is "
                "missing or one too many"
            )
        if len(values) < _BOX:
            raise ValueError(f"line {number} has {len(values)} coordinates, but a polygon has at least 3 pairs x y")
        if not all(-_SLACK <= value <= 1 + _SLACK for value in values):
            worst = max(values, key=lambda value: abs(value - 0.5) if math.isfinite(value) else math.inf)
            raise ValueError(
                f"line {number} has the coordinate {worst:g}, but they are fractions of width and height, 0 to 1"
            )
        yield class_id, values


def _add(builder: SetBuilder, category: int, values: list[float], size: tuple[int, int]) -> None:
    height, width = size
    if len(values) == _BOX:
        x, y, w, h = values
        builder.box(None, category, 0, [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height])
    else:
        polygon = [value * (height if place % 2 else width) for place, value in enumerate(values)]
        builder.part(None, category, 0, [polygon])
