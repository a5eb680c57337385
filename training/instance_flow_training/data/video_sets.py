# SPDX-License-Identifier: Apache-2.0
"""Data sets of the YouTube-VIS family as they are distributed: YouTube-VIS 2019 and 2021, OVIS, CocoVID, one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instance_flow.formats.ytvis import GroundTruth, Video, parse_ground_truth
from instance_flow.structures import SourceError
from instance_flow_training.data.annotated_clips import ClipSet, make_clip_set
from instance_flow_training.data.class_tables import ALL_CLASSES, categories_in_use, choose_classes, is_list
from instance_flow_training.data.crowds import AUTO, settle_crowds
from instance_flow_training.data.file_names import find_frames, find_images
from instance_flow_training.data.set_files import (
    check_pictures,
    damaged_masks,
    find_annotations,
    raise_first,
    read_json,
)

ANNOTATION_FILES = (
    *("instances.json", "train/instances.json", "train.json", "train/train.json"),
    *("annotations_train.json", "annotations/annotations_train.json"),
)
"""Where the sets have their annotations, seen from the root: YouTube-VIS first, then OVIS."""


ANY_CATEGORY = -1
"""Of crowds whose pixels are to be ignored whatever classes are trained; it is not among the categories."""


@dataclass(frozen=True)
class VideoSet:
    """A data set whose files are all there; a still is a video of one frame.

    truth: its file names are those on disk.   images: folder of the frames.
    partial: ids of videos in which not all is labelled.   categories: entries of the file.
    notes: sentences for the user about how it was read.
    problems: one for each mask and picture that is not right; none unless they were asked for.
    form: name of the form in which the labels are kept, for people.
    """

    truth: GroundTruth
    images: Path
    partial: frozenset[int]
    categories: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...]
    problems: tuple[str, ...] = ()
    form: str = "YouTube-VIS"


def read_video_set(
    annotations: Path, images: Path | None = None, crowds: str = AUTO, *, data: Any = None, lenient: bool = False
) -> VideoSet:
    """Read and check a data set: entries, masks, and that every frame is there.

    annotations: the JSON file, or the root of a set that has one of ``ANNOTATION_FILES``.
    images: the folder that file names start from (or the one above JPEGImages); None = looked for beside the JSON.
    crowds: as for ``settle_crowds``.
    data: what the file holds, where it is read already.
    lenient: bad masks and pictures become ``problems`` of the set.
    A video entry may say ``"gt": "partial"``: not all of its objects are labelled.
    Raises SourceError, naming the first thing that is wrong.
    """
    source = find_annotations(annotations, ANNOTATION_FILES)
    data = read_json(source) if data is None else data
    if isinstance(data, Mapping) and data.get("images") and not data.get("videos"):
        raise SourceError(f'{source}: lists images and no videos, as COCO does; set data.source = "coco"')
    truth = parse_ground_truth(data, str(source))
    videos = {video.id: video for video in truth.videos}
    problems = [problem for video in truth.videos if (problem := _wrong_names(video))]
    categories = {category.id for category in truth.categories}
    problems += [
        f"annotation {entry.id} has the category_id {entry.category_id}, which is not among the categories of the file"
        for entry in truth.annotations
        if entry.category_id not in categories
    ]
    if not videos:
        problems.append("the list of videos is empty")
    raise_first(source, problems)
    names = ("JPEGImages", "train/JPEGImages", "train", "images", ".")
    beside = [root / name for root in (source.parent, source.absolute().parent.parent) for name in names]
    folder = find_images(beside if images is None else [images, images / "JPEGImages"], truth.videos[0].file_names[0])
    frames, missing, notes = find_frames(folder, truth.videos)
    damaged = damaged_masks(truth.annotations, videos)
    raise_first(source, [*([] if lenient else damaged), *missing])
    bad, turned = check_pictures(folder, frames)
    raise_first(source, [] if lenient else bad)
    partial = frozenset(entry["id"] for entry in data["videos"] if entry.get("gt") == "partial")
    settled, about_crowds = settle_crowds(truth.annotations, crowds, data["annotations"])
    truth = _with_names_once(replace(truth, videos=tuple(frames), annotations=tuple(settled)))
    told = (*notes, *turned, *about_crowds)
    form = "CocoVID" if data.get("images") else "YouTube-VIS"
    return VideoSet(truth, folder, partial, data["categories"], told, (*damaged, *bad), form)


def open_video_set(
    annotations: Path,
    images: Path | None = None,
    classes: str = ALL_CLASSES,
    ignore_unlabelled: bool = False,
    crowds: str = AUTO,
) -> ClipSet:
    """The clips of a data set for training.

    classes: as for ``choose_classes``.   crowds: as for ``settle_crowds``.
    ignore_unlabelled: no video labels all of its objects, so what is not labelled is not background.
    """
    return clip_set_of(read_video_set(annotations, images, crowds), classes, ignore_unlabelled)


def clip_set_of(found: VideoSet, classes: str = ALL_CLASSES, ignore_unlabelled: bool = False) -> ClipSet:
    """The clips of a checked set for training; arguments and errors of ``open_video_set``."""
    source = Path(found.truth.source)
    names, about_classes = categories_in_use(
        found.categories, {entry.category_id for entry in found.truth.annotations}, classes
    )
    class_names, class_of_category = choose_classes(names, classes, source)
    if ANY_CATEGORY not in names:
        class_of_category[ANY_CATEGORY] = 0  # Crowds have no class.
    return make_clip_set(
        *(source, found.images, class_names, class_of_category, found.truth.videos, found.truth.annotations),
        None if ignore_unlabelled else found.partial,
        empty_too=is_list(classes),
        notes=[*found.notes, *about_classes],
    )


def _with_names_once(truth: GroundTruth) -> GroundTruth:
    """Categories of one name as the first of them that has objects."""
    used = {entry.category_id for entry in truth.annotations}
    first: dict[str, int] = {}
    ordered = sorted(truth.categories, key=lambda category: category.id not in used)
    same = {category.id: first.setdefault(category.name, category.id) for category in ordered}
    return replace(
        truth,
        categories=tuple(category for category in truth.categories if same[category.id] == category.id),
        annotations=tuple(replace(entry, category_id=same[entry.category_id]) for entry in truth.annotations),
    )


def _wrong_names(video: Video) -> str:
    if not video.file_names:
        return f"video {video.id} lists no frames; give one name per frame in file_names"
    return ""
