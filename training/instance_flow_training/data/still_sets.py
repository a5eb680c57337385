# SPDX-License-Identifier: Apache-2.0
"""COCO instances as they are distributed (annotations/instances_train2017.json and train2017/*.jpg), or one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video
from instance_flow.structures import SourceError
from instance_flow_training.data.annotated_clips import ClipSet, box_polygon
from instance_flow_training.data.class_tables import ALL_CLASSES
from instance_flow_training.data.crowds import AUTO, settle_crowds
from instance_flow_training.data.file_names import find_frames, find_images
from instance_flow_training.data.set_files import (
    check_pictures,
    damaged_masks,
    find_annotations,
    raise_first,
    read_json,
)
from instance_flow_training.data.video_sets import VideoSet, clip_set_of

ANNOTATION_FILES = ("annotations/instances_train2017.json", "instances_train2017.json", "instances.json")


def open_still_set(
    annotations: Path,
    images: Path | None = None,
    classes: str = ALL_CLASSES,
    ignore_unlabelled: bool = False,
    crowds: str = AUTO,
) -> ClipSet:
    """Read and check a data set of stills, each a clip of one frame.

    annotations: the JSON file, or the root of a set that has one of ``ANNOTATION_FILES``.
    images: the folder of the pictures; None = looked for beside the JSON: train2017 for instances_train2017.json.
    classes: as for ``choose_classes``.
    ignore_unlabelled: what is not labelled is not background.   crowds: as for ``settle_crowds``.
    Raises SourceError, naming the first thing that is wrong.
    """
    return clip_set_of(read_still_set(annotations, images, crowds), classes, ignore_unlabelled)


def read_still_set(
    annotations: Path, images: Path | None = None, crowds: str = AUTO, *, data: Any = None, lenient: bool = False
) -> VideoSet:
    """Read and check a data set of stills, each a video of one frame; arguments of ``read_video_set``.

    Raises SourceError, naming the first thing that is wrong.
    """
    source = find_annotations(annotations, ANNOTATION_FILES)
    data = _checked(read_json(source) if data is None else data, source)
    stills = {entry["id"]: _still(entry) for entry in data["images"]}
    sizes = {entry["id"]: [0, 0, entry["width"], entry["height"]] for entry in data["images"]}
    made, about_crowds = settle_crowds(
        [_annotation(entry, sizes[entry["image_id"]]) for entry in data["annotations"]], crowds, data["annotations"]
    )
    name = source.stem.removeprefix("instances_")
    here = source.absolute().parent
    root = here.parent
    beside = [root / name, here / name, root / "images" / name, here / "images", root / "images", here, root]
    folder = find_images(beside if images is None else [images], next(iter(stills.values())).file_names[0])
    videos, missing, notes = find_frames(folder, stills.values())
    damaged = damaged_masks(made, stills)
    raise_first(source, [*([] if lenient else damaged), *missing])
    bad, turned = check_pictures(folder, videos)
    raise_first(source, [] if lenient else bad)
    categories = tuple(Category(entry["id"], entry["name"]) for entry in data["categories"])
    truth = GroundTruth(tuple(videos), categories, tuple(made), str(source))
    told = (*notes, *turned, *about_crowds)
    return VideoSet(truth, folder, frozenset(), data["categories"], told, (*damaged, *bad), "COCO")


def _checked(data: Any, source: Path) -> Mapping[str, Any]:
    """The data where its lists and their fields are right, so that the rest need not ask."""
    if not isinstance(data, Mapping):
        raise SourceError(f"{source}: annotations are a JSON object, not a {type(data).__name__}; is this a result?")
    if data.get("videos"):
        raise SourceError(f'{source}: lists videos, as YouTube-VIS and CocoVID do; set data.source = "youtube_vis"')
    for key, fields in _FIELDS.items():
        # Without annotations, pictures show that nothing is there, as those of a part of a set may.
        if not isinstance(data.get(key), list) or (not data[key] and key != "annotations"):
            raise SourceError(f"{source}: has no list {key!r} with entries; give COCO's instances_*.json")
        seen: set[int] = set()
        for index, entry in enumerate(data[key]):
            problem = _wrong_field(entry, fields)
            if not problem and entry["id"] in seen:
                problem = "has an id that stood before"
            if problem:
                name = entry.get("id", "unknown") if isinstance(entry, Mapping) else "unknown"
                raise SourceError(f"{source}: {key}, entry {index} of the list (id {name}) {problem}")
            seen.add(entry["id"])
    images = {entry["id"] for entry in data["images"]}
    categories = {entry["id"] for entry in data["categories"]}
    problems = [
        f"annotation {entry['id']} has the {key} {entry[key]}, which is not among the {kind} of the file"
        for entry in data["annotations"]
        for key, kind, known in (("image_id", "images", images), ("category_id", "categories", categories))
        if entry[key] not in known
    ]
    raise_first(source, problems)
    return data


_MASK = (list, dict, type(None))
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": (int,), "file_name": (str,), "height": (int,), "width": (int,)},
    "categories": {"id": (int,), "name": (str,)},
    "annotations": {"id": (int,), "image_id": (int,), "category_id": (int,), "segmentation": _MASK},
}


def _wrong_field(entry: Any, fields: Mapping[str, tuple[type, ...]]) -> str:
    if not isinstance(entry, Mapping):
        return f"is a {type(entry).__name__}, but a JSON object is needed"
    for key, types in fields.items():
        if not isinstance(entry.get(key), types) or isinstance(entry.get(key), bool):
            return f"has {key} = {entry.get(key)!r}, but {' or '.join(t.__name__ for t in types[:2])} is needed"
        if key in ("height", "width") and entry[key] < 1:
            return f"has {key} = {entry[key]}, but at least 1 is needed"
    return ""


def _still(entry: Mapping[str, Any]) -> Video:
    return Video(entry["id"], entry["height"], entry["width"], 1, (entry["file_name"],))


def _annotation(entry: Mapping[str, Any], whole: Sequence[float]) -> Annotation:
    """whole: the box of the whole picture, which is all that is known of an object without mask and box."""
    mask, box = entry.get("segmentation"), entry.get("bbox")
    if isinstance(mask, list):
        mask = [polygon for polygon in mask if polygon != []]
    if not mask and box_polygon(box, round(whole[3]), round(whole[2])) is None:
        box = whole
    return Annotation(
        *(entry["id"], entry["image_id"], entry["category_id"], [mask or None]),
        is_crowd=bool(entry.get("iscrowd", 0)),
        boxes=[box],
    )
