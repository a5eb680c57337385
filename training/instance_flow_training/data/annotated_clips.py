# SPDX-License-Identifier: Apache-2.0
"""Annotated clips in one form, whichever data set they come from. A still is a clip of one frame. No torch."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.ytvis import Annotation, Segmentation, Video, decode_segmentation
from instance_flow.structures import IntArray, SourceError
from instance_flow_training.targets import IGNORE

MOST_OBJECTS = IGNORE - 1
"""Labels are bytes: 0 is background and the last value is IGNORE."""

T = TypeVar("T")


@dataclass(frozen=True)
class AnnotatedObject:
    """masks: one or None per frame.   is_crowd: its pixels are to be left out of the losses."""

    class_id: int
    is_crowd: bool
    masks: Sequence[Segmentation | None]


@dataclass(frozen=True)
class AnnotatedClip:
    """Frames of height x width pixels and their objects; partial = what is not labelled may be anything."""

    files: tuple[str, ...]
    height: int
    width: int
    objects: tuple[AnnotatedObject, ...]
    partial: bool

    @property
    def class_ids(self) -> IntArray:
        """(N,) int64, row k is the object with label k + 1; crowds have no row."""
        return np.array([entry.class_id for entry in self.objects if not entry.is_crowd], np.int64)


class Packed(Generic[T]):
    """A list whose entries lie in one array of bytes.

    Worker processes share it. Of a list of Python objects each of them would make its own copy, only by counting
    references as it reads.
    """

    def __init__(self, entries: Iterable[T]) -> None:
        blobs = [pickle.dumps(entry, pickle.HIGHEST_PROTOCOL) for entry in entries]
        self._ends = np.cumsum([len(blob) for blob in blobs], dtype=np.int64)
        self._data = np.frombuffer(b"".join(blobs), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> T:
        start = self._ends[index - 1] if index > 0 else 0
        entry: T = pickle.loads(self._data[start : self._ends[index]].data)
        return entry


@dataclass(frozen=True)
class ClipSet:
    """The clips of a data set that show at least one object. images: folder that the files' names start from.

    notes: sentences for the user about what was read, and how.
    """

    images: Path
    class_names: tuple[str, ...]
    clips: Packed[AnnotatedClip]
    notes: tuple[str, ...] = ()


def make_clip_set(
    source: Path,
    images: Path,
    class_names: Sequence[str],
    class_of_category: dict[int, int],
    videos: Sequence[Video],
    annotations: Iterable[Annotation],
    partial: frozenset[int] | None = frozenset(),
    empty_too: bool = False,
    notes: Iterable[str] = (),
) -> ClipSet:
    """Gather annotations by video; categories that ``class_of_category`` lacks are background.

    partial: ids of videos in which not everything is labelled, None = all of them.
    empty_too: keep videos whose only objects are background, as they show what is none.
    notes: of what was read before; what was gathered is added to them.
    Raises SourceError where there are more classes than labels, or no video shows an object.
    """
    if len(class_names) > MOST_OBJECTS:
        raise SourceError(f"{source}: has {len(class_names)} categories; at most {MOST_OBJECTS} can be trained")
    gathered = _Gathered({video.id: video for video in videos}, class_of_category)
    for entry in annotations:
        gathered.add(entry)
    shown = (
        _keep_largest(
            AnnotatedClip(
                tuple(video.file_names),
                video.height,
                video.width,
                tuple(gathered.objects.get(video.id, ())),
                partial is None or video.id in partial,
            )
        )
        for video in videos
        if video.id in gathered.shown or (empty_too and video.id in gathered.others)
    )
    clips = Packed(shown)
    if not gathered.shown:
        raise SourceError(
            f"{source}: no annotation shows an object of the classes to train, {gathered.left_out()}; "
            "check data.classes and data.crowds"
        )
    all_notes = (*notes, *gathered.notes(class_names, len(clips)))
    return ClipSet(images, tuple(class_names), clips, all_notes)


class _Gathered:
    """The objects of each video by its id, and the count of all that is no object.

    shown: ids of videos with an object to learn.   others: with one of another category.
    """

    def __init__(self, videos: Mapping[int, Video], class_of_category: Mapping[int, int]) -> None:
        self._videos, self._class_of_category = videos, class_of_category
        self.objects: dict[int, list[AnnotatedObject]] = {}
        self.shown: set[int] = set()
        self.others: set[int] = set()
        self._of_class: Counter[int] = Counter()
        self._in_video: Counter[int] = Counter()
        self._crowds = self._boxes = self._other = self._unseen = 0

    def add(self, entry: Annotation) -> None:
        """Take a checked annotation."""
        if entry.category_id not in self._class_of_category:
            self.others.add(entry.video_id)
            self._other += 1
            return
        class_id = self._class_of_category[entry.category_id]
        objects = self.objects.setdefault(entry.video_id, [])
        seen, boxes = any(entry.segmentations), _unmasked(entry, self._videos[entry.video_id])
        if seen:
            objects.append(AnnotatedObject(class_id, entry.is_crowd, entry.segmentations))
        if any(boxes):
            # Where the object is within its box is unknown, so that no pixel there counts as background.
            objects.append(AnnotatedObject(class_id, True, boxes))
        if seen and not entry.is_crowd:
            self.shown.add(entry.video_id)
            self._of_class[class_id] += 1
            self._in_video[entry.video_id] += 1
        self._crowds += seen and entry.is_crowd
        self._boxes += sum(box is not None for box in boxes)
        self._unseen += not seen and not any(boxes)

    def left_out(self) -> str:
        """Why there may be few objects."""
        return (
            f"crowds: {self._crowds}, boxes without a mask: {self._boxes}, of other categories: {self._other}, "
            f"seen in no frame: {self._unseen}"
        )

    def notes(self, class_names: Sequence[str], clips: int) -> list[str]:
        """What there is, and what is left out and why."""
        counts = ", ".join(f"{name} {self._of_class[class_id]}" for class_id, name in enumerate(class_names))
        kind = "images" if all(video.length == 1 for video in self._videos.values()) else "videos"
        small = sum(max(0, count - MOST_OBJECTS) for count in self._in_video.values())
        notes = [
            f"{clips} of {len(self._videos)} {kind} are used; objects: {counts}",
            f"not trained on: {self.left_out()}",
        ]
        if self._crowds or self._boxes:
            notes.append("no loss touches the pixels of crowds, nor of boxes without a mask")
        if small:
            notes.append(f"no loss touches {small} objects beyond the {MOST_OBJECTS} largest of their picture")
        return notes


def _unmasked(entry: Annotation, video: Video) -> list[Segmentation | None]:
    """The boxes of an object as polygons, in frames that have no mask of it; None elsewhere."""
    boxes = entry.boxes or [None] * len(entry.segmentations)
    return [
        None if mask is not None else box_polygon(box, video.height, video.width)
        for mask, box in zip(entry.segmentations, boxes, strict=True)
    ]


def box_polygon(box: Any, height: int, width: int) -> list[list[float]] | None:
    """A box x, y, width, height as a polygon, cut at the picture; None where nothing is left, or it is no box."""
    try:
        x, y, w, h = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        return None
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if not (left < right and top < bottom):  # Nor where a number is not finite.
        return None
    return [[left, top, right, top, right, bottom, left, bottom]]


def paint_labels(clip: AnnotatedClip, frame: int) -> NDArray[np.uint8]:
    """Labels (height, width): 0 = background, k + 1 = row k of ``clip.class_ids``, IGNORE = crowd or unknown.

    Where masks overlap, the smaller one lies on top.
    """
    labels = np.full((clip.height, clip.width), IGNORE if clip.partial else 0, np.uint8)
    masks, row = [], 0
    for entry in clip.objects:
        row += not entry.is_crowd
        if entry.masks[frame] is not None:
            mask = decode_segmentation(entry.masks[frame], clip.height, clip.width)
            masks.append((entry.is_crowd, np.count_nonzero(mask), IGNORE if entry.is_crowd else row, mask))
    for _, _, label, mask in sorted(masks, key=lambda entry: entry[:2], reverse=True):
        np.putmask(labels, mask.view(np.bool_), label)
    return labels


def _keep_largest(clip: AnnotatedClip) -> AnnotatedClip:
    """The smallest objects beyond the number of labels become crowds: neither found nor missed."""
    rows = [index for index, entry in enumerate(clip.objects) if not entry.is_crowd]
    if len(rows) <= MOST_OBJECTS:
        return clip
    rows.sort(key=lambda index: _pixels(clip, clip.objects[index]))
    small = set(rows[:-MOST_OBJECTS])
    objects = (replace(entry, is_crowd=entry.is_crowd or k in small) for k, entry in enumerate(clip.objects))
    return replace(clip, objects=tuple(objects))


def _pixels(clip: AnnotatedClip, entry: AnnotatedObject) -> int:
    return sum(int(decode_segmentation(mask, clip.height, clip.width).sum()) for mask in entry.masks)
