# SPDX-License-Identifier: Apache-2.0
"""The YouTube-VIS format: ground truth and results of video instance segmentation, as JSON.

Ground truth is one object with the lists ``videos``, ``categories`` and ``annotations``; results are one list. An
annotation and a result both follow one object through one video: ``segmentations`` holds one mask, or null, per frame.
A mask is run lengths, compressed or not (see ``rle``), or in ground truth also a list of polygons.
Ground truth may be a CocoVID file too (``cocovid``).
Everything is checked when it is read, but for the run lengths themselves, which are checked when they are decoded.
"""

from __future__ import annotations

import itertools
import math
import reprlib
from array import array
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats import rle
from instance_flow.formats.cocovid import is_cocovid, to_youtube_vis
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.json_files import paused_collection, read_json, write_json
from instance_flow.formats.polygon import polygons_to_run_lengths
from instance_flow.structures import MAX_PIXELS, SourceError, Tracks

Segmentation = dict[str, Any] | Sequence[Sequence[float]]
"""One mask: ``{"size": [height, width], "counts": ...}``, or polygons ``[[x0, y0, x1, y1, ...], ...]``."""

T = TypeVar("T")

_LARGEST_ID = 2**63 - 1
_MOST_FRAMES = 2**20
"""Of one video, nearly ten hours at 30 per second: a result has an entry for each."""
_MOST_CATEGORIES = 2**15
"""More than any data set has; each takes some 10 kB of numbers."""


@dataclass(frozen=True)
class Video:
    """A video of ``length`` frames of ``height`` x ``width`` pixels; ``file_names`` may be empty."""

    id: int
    height: int
    width: int
    length: int
    file_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Category:
    """A category; its id is the data set's own, not the class_id that counts from 0."""

    id: int
    name: str


@dataclass(frozen=True)
class Annotation:
    """One true object in one video.

    segmentations: one mask or None per frame.
    areas: pixels per frame or None, as the file states them (they decide the size class); None = counted in the masks.
    is_crowd: a group that is not to be counted, neither as found nor as missed.
    boxes: x, y, width, height per frame or None, as the file states them; unchecked, for frames without a mask.
    """

    id: int
    video_id: int
    category_id: int
    segmentations: Sequence[Segmentation | None]
    areas: Sequence[float | None] | None = None
    is_crowd: bool = False
    boxes: Sequence[Any] | None = None


@dataclass(frozen=True)
class Result:
    """One predicted object in one video; ``segmentations`` holds one mask or None per frame.

    index: its place in the list of results, from 0, which names it in error messages.
    """

    index: int
    video_id: int
    category_id: int
    score: float
    segmentations: Sequence[Segmentation | None]


@dataclass(frozen=True)
class GroundTruth:
    """A data set. ``source`` names it in error messages: its path, usually."""

    videos: tuple[Video, ...]
    categories: tuple[Category, ...]
    annotations: tuple[Annotation, ...]
    source: str = "ground truth"


Entry = TypeVar("Entry", Video, Category, Annotation)


@paused_collection()
def load_ground_truth(path: str | Path) -> GroundTruth:
    """Read and check a ground-truth file; raises SourceError, naming the file and the entry, where it is not right."""
    return parse_ground_truth(read_json(path), str(path))


@paused_collection()
def load_results(path: str | Path, ground_truth: GroundTruth) -> list[Result]:
    """Read a results file and check it against its ground truth; raises SourceError as `load_ground_truth` does."""
    return parse_results(read_json(path), ground_truth, str(path))


def parse_ground_truth(data: Any, source: str = "ground truth") -> GroundTruth:
    """Check and type what the JSON of a ground-truth file holds; ``source`` names it in error messages."""
    if not isinstance(data, Mapping):
        hint = "; is this a results file?" if isinstance(data, list) else ""
        raise SourceError(f"{source}: ground truth is a JSON object, not {_kind(data)}{hint}")
    if is_cocovid(data):
        data = to_youtube_vis(data, source)
    for key in ("videos", "categories", "annotations"):
        if not isinstance(data.get(key), list):
            raise SourceError(
                f"{source}: has no list {key!r}; give a YouTube-VIS ground-truth file with its annotations (the public "
                "validation and test files come without)"
            )
    videos = _parse_each(data["videos"], _parse_video, source, "video")
    by_id = _by_id(videos, source, "video")
    if len(data["categories"]) > _MOST_CATEGORIES:
        raise SourceError(
            f"{source}: has {len(data['categories'])} categories, but at most {_MOST_CATEGORIES} are measured; leave "
            "those out that no object has"
        )
    categories = _parse_each(data["categories"], _parse_category, source, "category")
    _by_id(categories, source, "category")
    if data["annotations"] and not categories:
        raise SourceError(f"{source}: has annotations, but its list 'categories' is empty; list their categories")
    annotations = _parse_each(data["annotations"], lambda entry: _parse_annotation(entry, by_id), source, "annotation")
    _by_id(annotations, source, "annotation")
    return GroundTruth(tuple(videos), tuple(categories), tuple(annotations), source)


def parse_results(data: Any, ground_truth: GroundTruth, source: str = "results") -> list[Result]:
    """Check and type what the JSON of a results file holds, against the ground truth that it belongs to."""
    if not isinstance(data, list):
        hint = "; is this a ground-truth file?" if isinstance(data, Mapping) else ""
        raise SourceError(f"{source}: results are a JSON list, not {_kind(data)}{hint}")
    videos = {video.id: video for video in ground_truth.videos}
    places = itertools.count()
    return _parse_each(data, lambda entry: _parse_result(next(places), entry, videos), source, "result")


def raw_counts(segmentation: Segmentation, height: int, width: int) -> Any:
    """Give the counts of a mask of ``height`` x ``width``: compressed (str) or run lengths, as they are, unchecked.

    Polygons become run lengths; raises ValueError where one is damaged.
    """
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return counts.decode("latin-1") if isinstance(counts, bytes) else counts
    return polygons_to_run_lengths(segmentation, height, width)


def decode_segmentation(segmentation: Segmentation | None, height: int, width: int) -> NDArray[np.uint8]:
    """Give the mask (height, width) uint8 of 0 and 1, empty for None; raises ValueError where it is damaged."""
    if segmentation is None:
        return np.zeros((height, width), np.uint8)
    return rle.decode({"size": (height, width), "counts": raw_counts(segmentation, height, width)})


def write_results(path: str | Path, results: Iterable[Mapping[str, Any]]) -> None:
    """Write result dicts, as :class:`ResultsCollector` gives them; the file appears whole or not at all."""
    write_json(path, list(results))


def write_ground_truth(path: str | Path, ground_truth: GroundTruth, partial: Container[int] = ()) -> None:
    """Write a data set, with the areas and boxes that other tools want; the file appears whole or not at all.

    partial: ids of videos in which not everything is labelled, which their entries then say.
    """
    videos = {video.id: video for video in ground_truth.videos}
    data = {
        "info": {"description": "written by instance-flow"},
        "videos": [
            {**vars(video), **({"gt": "partial"} if video.id in partial else {})} for video in ground_truth.videos
        ],
        "categories": [vars(category) for category in ground_truth.categories],
        "annotations": [_annotation_entry(entry, videos[entry.video_id]) for entry in ground_truth.annotations],
    }
    write_json(path, data)


class ResultsCollector:
    """Turns the tracks of one video, frame after frame, into results.

    A track gets one category for the whole video, its class in the last frame that shows it (classes are votes over
    all frames so far), and as its score the mean of its scores over the frames that show it.
    """

    def __init__(
        self, length: int | None = None, category_ids: Mapping[int, int] | Sequence[int] | None = None
    ) -> None:
        """Expect ``length`` frames, or any number where it is None.

        category_ids: ``category_ids[class_id]`` is the category id to write; None = class_id + 1.
        """
        self._length = length
        self._category_ids = category_ids
        self._frames = 0
        self._segmentations: dict[int, dict[int, dict[str, Any]]] = {}
        self._scores: dict[int, list[float]] = {}
        self._class_ids: dict[int, int] = {}

    def add(self, tracks: Tracks, frame: int | None = None) -> None:
        """Take the next frame. Call once per frame, in order, also where there are no tracks.

        frame: its place in the video, where frames before it are left out; None = right after the one before.
        """
        self._frames = self._frames if frame is None else frame
        if self._length is not None and self._frames >= self._length:
            raise ValueError(f"the video was said to have {self._length} frames, but this is one more")
        size = [int(n) for n in tracks.label_map.shape]
        masks = rle.label_run_lengths(tracks.label_map, tracks.ids)
        for track_id, class_id, score, runs in zip(
            tracks.ids.tolist(), tracks.class_ids.tolist(), tracks.scores.tolist(), masks, strict=True
        ):
            mask = {"size": size, "counts": rle.compress(runs)}
            self._segmentations.setdefault(track_id, {})[self._frames] = mask
            self._scores.setdefault(track_id, []).append(score)
            self._class_ids[track_id] = class_id
        self._frames += 1

    def results(self, video_id: int, length: int = 0) -> list[dict[str, Any]]:
        """Give one result dict per track, by ascending track id; frames that were not added count as without tracks.

        length: number of frames, where it is larger than those added and was not said before.
        """
        length = max(self._frames, length) if self._length is None else self._length
        return [
            {
                "video_id": video_id,
                "category_id": self._category_id(self._class_ids[track_id]),
                "score": float(np.mean(self._scores[track_id])),
                "segmentations": [masks.get(frame) for frame in range(length)],
            }
            for track_id, masks in sorted(self._segmentations.items())
        ]

    def _category_id(self, class_id: int) -> int:
        return class_id + 1 if self._category_ids is None else self._category_ids[class_id]


def _parse_video(entry: Mapping[str, Any]) -> Video:
    names = entry.get("file_names")
    file_names = tuple(names) if isinstance(names, list) else ()
    length = len(file_names) if file_names and "length" not in entry else _whole(entry, "length", 0)
    if file_names and len(file_names) != length:
        raise ValueError(f"has {len(file_names)} file_names, but its length is {length}; make them agree")
    if length > _MOST_FRAMES:
        raise ValueError(f"has the length {length}, but at most {_MOST_FRAMES} frames are read; split the video")
    if not all(isinstance(name, str) for name in file_names):
        raise ValueError("has a file name that is no text; give one name per frame in file_names")
    height, width = _whole(entry, "height", 1), _whole(entry, "width", 1)
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"has {height} x {width} pixels (height, width), but at most {MAX_PIXELS} are read; check the two numbers"
        )
    return Video(_whole(entry, "id"), height, width, length, file_names)


def _parse_category(entry: Mapping[str, Any]) -> Category:
    return Category(_whole(entry, "id"), str(entry.get("name", entry.get("id"))))


def _parse_annotation(entry: Mapping[str, Any], videos: Mapping[int, Video]) -> Annotation:
    video = _video_of(entry, videos)
    areas = entry.get("areas")
    if areas is not None and not (isinstance(areas, list) and all(a is None or _is_finite(a) for a in areas)):
        raise ValueError(
            "has 'areas' that are not a list of one number or null per frame; leave the key out to count pixels"
        )
    return Annotation(
        _whole(entry, "id"),
        video.id,
        _whole(entry, "category_id"),
        _segmentations(entry, video),
        areas,
        _is_crowd(entry),
        _boxes(entry, video),
    )


def _boxes(entry: Mapping[str, Any], video: Video) -> Sequence[Any] | None:
    boxes = entry.get("bboxes")
    return boxes if isinstance(boxes, list) and len(boxes) == video.length else None


def _is_crowd(entry: Mapping[str, Any]) -> bool:
    value = entry.get("iscrowd", 0)
    if not isinstance(value, int | float) or value not in (0, 1):
        raise ValueError(f"has iscrowd = {shown(reprlib.repr(value))}, but 0 or 1 is needed")
    return bool(value)


def _parse_result(index: int, entry: Mapping[str, Any], videos: Mapping[int, Video]) -> Result:
    video = _video_of(entry, videos)
    score = entry.get("score")
    if not _is_finite(score):
        raise ValueError(f"has the score {shown(reprlib.repr(score))}, but a finite number is needed")
    return Result(index, video.id, _whole(entry, "category_id"), float(entry["score"]), _segmentations(entry, video))


def _video_of(entry: Mapping[str, Any], videos: Mapping[int, Video]) -> Video:
    video_id = _whole(entry, "video_id")
    if video_id not in videos:
        raise ValueError(
            f"has the video_id {video_id}, which is not among the videos of the ground truth; check the pair"
        )
    return videos[video_id]


def _segmentations(entry: Mapping[str, Any], video: Video) -> Sequence[Segmentation | None]:
    masks = entry.get("segmentations")
    if not isinstance(masks, list):
        raise ValueError("has no list 'segmentations'; give one mask or null per frame")
    if len(masks) != video.length:
        raise ValueError(
            f"has {len(masks)} segmentations, but video {video.id} has {video.length} frames; "
            "give one mask or null per frame"
        )
    # Masks are many: the usual ones pass at once, the check that says what is wrong is for the others.
    if not _all_run_lengths(masks, [video.height, video.width]):
        for frame, mask in enumerate(masks):
            if mask is not None:
                _check_mask(mask, frame, video)
    return masks


def _all_run_lengths(masks: Sequence[Any], size: Sequence[int]) -> bool:
    """Whether every mask is null or a dict of that size with compressed or plain run lengths."""
    shown = [mask for mask in masks if mask is not None]
    try:
        sizes = [mask["size"] for mask in shown]
        kinds = {type(mask["counts"]) for mask in shown}
    except (KeyError, TypeError):
        return False
    return sizes.count(size) == len(sizes) and kinds <= {str, list, array}


def _check_mask(mask: Any, frame: int, video: Video) -> None:
    if isinstance(mask, list):
        if mask:
            return
        raise ValueError(f"has an empty list of polygons in frame {frame}; write null where the object is not seen")
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str | bytes | Sequence | np.ndarray):
        raise ValueError(f'has no mask {{"size": [height, width], "counts": ...}} or null in frame {frame}')
    size = mask.get("size")
    if not isinstance(size, list | tuple) or list(size) != [video.height, video.width]:
        raise ValueError(
            f"has a mask of size {shown(size)} in frame {frame}, but video {video.id} has "
            f"[{video.height}, {video.width}] (height, width); resize the masks to the video"
        )


def _whole(entry: Mapping[str, Any], key: str, least: int | None = None) -> int:
    value = entry.get(key)
    lowest = -_LARGEST_ID if least is None else least
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not lowest <= value <= _LARGEST_ID:
        bound = "" if least is None else f" of at least {least}"
        bound = " below 2^63" if isinstance(value, int) and value > _LARGEST_ID else bound
        raise ValueError(f"has {key} = {shown(reprlib.repr(value))}, but a whole number{bound} is needed")
    return int(value)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 300 digits
        return False


def _parse_each(entries: Sequence[Any], parse: Callable[[Mapping[str, Any]], T], source: str, kind: str) -> list[T]:
    parsed = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise SourceError(f"{source}: {kind} {index} of the list is {_kind(entry)}, but a JSON object is needed")
        try:
            parsed.append(parse(entry))
        except ValueError as error:
            name = f" (id {shown(entry['id'])})" if "id" in entry else ""
            raise SourceError(f"{source}: {kind} {index} of the list{name} {error}") from None
    return parsed


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", dict: "an object", list: "a list", str: "a text", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def _by_id(entries: Iterable[Entry], source: str, kind: str) -> dict[int, Entry]:
    known: dict[int, Entry] = {}
    for entry in entries:
        if entry.id in known:
            raise SourceError(f"{source}: the {kind} id {entry.id} stands twice; give every {kind} its own id")
        known[entry.id] = entry
    return known


def _annotation_entry(annotation: Annotation, video: Video) -> dict[str, Any]:
    size = [video.height, video.width]
    masks = [None if s is None else decode_segmentation(s, *size) for s in annotation.segmentations]
    areas = [None if mask is None else int(mask.sum()) for mask in masks]
    unmasked = annotation.boxes or [None] * len(masks)
    return {
        "id": annotation.id,
        "video_id": annotation.video_id,
        "category_id": annotation.category_id,
        "iscrowd": int(annotation.is_crowd),
        "height": video.height,
        "width": video.width,
        "segmentations": [None if mask is None else rle.encode(mask) for mask in masks],
        "areas": areas if annotation.areas is None else list(annotation.areas),
        "bboxes": [box if mask is None else _box(mask) for mask, box in zip(masks, unmasked, strict=True)],
    }


def _box(mask: NDArray[np.uint8]) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0.0, 0.0, 0.0, 0.0]
    return [float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)]
