# SPDX-License-Identifier: Apache-2.0
"""CocoVID, the form of MMTracking and others: COCO's images, each of a video, and one annotation per object and frame.

``images`` have a video_id and mostly a frame_id, ``annotations`` an image_id and an instance_id (in TAO: frame_index
and track_id). It is brought to the form of YouTube-VIS, one annotation per object and video, and then checked as such.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from instance_flow.structures import SourceError

_ORDER = ("frame_id", "frame_index")
_INSTANCE = ("instance_id", "track_id")
_logger = logging.getLogger(__name__)


def is_cocovid(data: Mapping[str, Any]) -> bool:
    """Whether the videos' frames are entries of a list of images."""
    videos, images, annotations = (data.get(key) for key in ("videos", "images", "annotations"))
    if not (isinstance(videos, list) and videos and isinstance(images, list) and images):
        return False
    listed = any("file_names" in entry for entry in videos if isinstance(entry, Mapping))
    tracks = isinstance(annotations, list) and any("segmentations" in a for a in annotations if isinstance(a, Mapping))
    return not listed and not tracks


def to_youtube_vis(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The same as YouTube-VIS has it. Raises SourceError for images and annotations that do not belong together.

    Frames are in the order of their frame_id, or of the list where they have none. An annotation without a mask keeps
    its box in ``bboxes``; without a box too, the whole frame, as the object may be anywhere.
    """
    videos: dict[Any, list[Mapping[str, Any]]] = {}
    for index, video in enumerate(data["videos"]):
        videos[_id(video, "id", f"{source}: video {index} of the list")] = []
    images: dict[int, Mapping[str, Any]] = {}
    for index, image in enumerate(data["images"]):
        where = f"{source}: image {index} of the list"
        number, video_id = _id(image, "id", where), _id(image, "video_id", where)
        if number in images:
            raise SourceError(f"{where} has the id {number}, which stood before; give every image its own id")
        if video_id not in videos:
            raise SourceError(f"{where} (id {number}) has the video_id {video_id}, which is not among the videos")
        images[number] = image
        videos[video_id].append(image)
    frames = {video_id: _in_order(entries, f"{source}: video {video_id}") for video_id, entries in videos.items()}
    annotations = data.get("annotations")
    if isinstance(annotations, list):
        annotations = _tracks(annotations, images, frames, source)
    return {
        "videos": [_video(video, frames[video["id"]], source) for video in data["videos"]],
        "categories": data.get("categories"),
        "annotations": annotations,
    }


def _in_order(images: list[Mapping[str, Any]], where: str) -> list[Mapping[str, Any]]:
    for key in _ORDER:
        if images and all(isinstance(image.get(key), int) for image in images):
            ordered = sorted(images, key=lambda image: image[key])
            for one, next_one in pairwise(ordered):
                if one[key] == next_one[key]:
                    raise SourceError(f"{where}: images {one['id']} and {next_one['id']} both have {key} {one[key]}")
            return ordered
    return images


def _video(video: Mapping[str, Any], frames: Sequence[Mapping[str, Any]], source: str) -> dict[str, Any]:
    first: Mapping[str, Any] = frames[0] if frames else video
    for image in frames:
        if (image.get("height"), image.get("width")) != (first.get("height"), first.get("width")):
            raise SourceError(
                f"{source}: image {image['id']} is {image.get('height')} x {image.get('width')} (height x width), but "
                f"image {first['id']} of the same video {video['id']} is {first.get('height')} x {first.get('width')}; "
                "frames of a video have one size"
            )
    size = {key: first.get(key, video.get(key)) for key in ("height", "width")}
    names = [image["file_name"] for image in frames if "file_name" in image]
    return {**video, **size, "length": len(frames), **({"file_names": names} if names else {})}


def _tracks(
    annotations: Sequence[Any],
    images: Mapping[int, Mapping[str, Any]],
    frames: Mapping[Any, Sequence[Mapping[str, Any]]],
    source: str,
) -> list[dict[str, Any]]:
    places = {image["id"]: place for entries in frames.values() for place, image in enumerate(entries)}
    tracks: dict[Any, dict[str, Any]] = {}
    unmasked = 0
    for index, entry in enumerate(annotations):
        where = f"{source}: annotation {index} of the list"
        number, image_id = _id(entry, "id", where), _id(entry, "image_id", where)
        where = f"{where} (id {number})"
        if image_id not in images:
            raise SourceError(f"{where} has the image_id {image_id}, which is not among the images")
        image = images[image_id]
        video_id, place, length = image["video_id"], places[image_id], len(frames[image["video_id"]])
        instance = _instance(entry, where)
        track = tracks.setdefault(
            (video_id, *instance, entry.get("iscrowd", 0) == 1),
            {
                **{key: entry[key] for key in ("category_id", "iscrowd") if key in entry},
                **{"id": number, "video_id": video_id, "segmentations": [None] * length, "bboxes": [None] * length},
            },
        )
        name = f"{_described(entry, _INSTANCE)} of video {video_id}"
        if entry.get("category_id") != track.get("category_id"):
            raise SourceError(
                f"{where} has the category_id {entry.get('category_id')}, but the same {name} has "
                f"{track.get('category_id')} in another frame; an object has one category"
            )
        if track["bboxes"][place] is not None:
            raise SourceError(f"{where} is of {name}, which stands twice in image {image_id}; join the two")
        mask = entry.get("segmentation")
        if isinstance(mask, list):
            mask = [polygon for polygon in mask if polygon != []]
        unmasked += not mask
        track["segmentations"][place] = mask or None
        track["bboxes"][place] = _box(entry, image)
    if unmasked and unmasked == len(annotations):
        raise SourceError(f"{source}: its {unmasked} annotations have no masks; each needs a segmentation")
    if unmasked:
        _logger.warning("%s: %d of %d annotations have no mask", source, unmasked, len(annotations))
    return list(tracks.values())


def _box(entry: Mapping[str, Any], image: Mapping[str, Any]) -> Sequence[Any]:
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(n, int | float) for n in box) and min(box[2:]) > 0:
        return box
    return [0, 0, image.get("width"), image.get("height")]


def _instance(entry: Mapping[str, Any], where: str) -> tuple[Any, ...]:
    """Which object of its video it is; a crowd may have no name."""
    for key in _INSTANCE:
        if isinstance(entry.get(key), int | str):
            return (entry[key],)
    if entry.get("iscrowd", 0) == 1:
        return ("crowd", entry["id"])
    raise SourceError(
        f"{where} has no instance_id or track_id, which say that it is the same object in other frames; give each "
        "object of a video one"
    )


def _described(entry: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((f"{key} {entry[key]}" for key in keys if key in entry), "crowd")


def _id(entry: Any, key: str, where: str) -> int:
    if not isinstance(entry, Mapping):
        raise SourceError(f"{where} is no JSON object")
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise SourceError(f"{where} has {key} = {reprlib.repr(value)}, but a whole number is needed")
    return value
