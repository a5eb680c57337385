# SPDX-License-Identifier: Apache-2.0
"""COCO and its relatives: COCO itself, as Roboflow, CVAT, Label Studio and others export it, CocoVID, YouTube-VIS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from instance_flow_training.data.crowds import AUTO
from instance_flow_training.data.formats.source import Source, split_of
from instance_flow_training.data.merging import merge_sets
from instance_flow_training.data.still_sets import read_still_set
from instance_flow_training.data.video_sets import VideoSet, read_video_set

NAME = "COCO"
_ROBOFLOW = "_annotations.coco.json"


def find(source: Source) -> list[Path]:
    """JSON files with pictures or videos, categories and masks; of COCO as distributed only those of instances."""
    found = [path for path in source.with_ending(".json") if is_set(source.json(path))]
    instances = [path for path in found if path.name.startswith("instances_")]
    return instances or found


def is_set(data: Any) -> bool:
    """Whether a JSON file is a set of this family; COCO's captions and panoptic segments are none."""
    if not isinstance(data, Mapping) or not isinstance(data.get("categories"), list):
        return False
    annotations, listed = data.get("annotations"), data.get("videos") or data.get("images")
    if not isinstance(annotations, list) or not isinstance(listed, list):
        return False
    return not any(isinstance(entry, Mapping) and "segments_info" in entry for entry in annotations[:1])


def read(source: Source, files: list[Path], split: str, crowds: str = AUTO, lenient: bool = False) -> VideoSet:
    """One set of the files of a split."""
    chosen = source.in_split({path: split_of(path, source.root, by_name=source.whole) for path in files}, split)
    return merge_sets([_read(source, path, crowds, lenient) for path in chosen])


def _read(source: Source, path: Path, crowds: str, lenient: bool) -> VideoSet:
    data = source.json(path)
    if data.get("videos"):
        return read_video_set(path, source.images, crowds, data=data, lenient=lenient)
    found = read_still_set(path, source.images, crowds, data=data, lenient=lenient)
    return replace(found, form="Roboflow COCO" if path.name == _ROBOFLOW else "COCO")
