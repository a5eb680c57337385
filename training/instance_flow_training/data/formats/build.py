# SPDX-License-Identifier: Apache-2.0
"""Collects what a label file says, and gives the form that training reads."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instance_flow.formats import rle
from instance_flow.formats.image_encodings import check_size
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Segmentation, Video, decode_segmentation
from instance_flow.structures import SourceError
from instance_flow_training.data.formats.source import naming
from instance_flow_training.data.set_files import check_pictures, damaged_masks, raise_first
from instance_flow_training.data.video_sets import VideoSet

_CORNERS = 72
"""Of an ellipse; the error is a thousandth of its radius."""


@dataclass
class _Object:
    category_id: int
    is_crowd: bool
    masks: dict[int, list[Segmentation]] = field(default_factory=dict)
    boxes: dict[int, list[float]] = field(default_factory=dict)


class SetBuilder:
    """The labels of one source, video by video.

    form: name of the form, for people.   root: the folder that file names start from.   source: names it in messages.
    """

    def __init__(self, form: str, source: Path, root: Path) -> None:
        self.form, self.source, self.root = form, source, root
        self._categories: dict[str, int] = {}
        self._videos: list[Video] = []
        self._objects: list[dict[Any, _Object]] = []
        self._taken: dict[Path, str] = {}
        self._left_out: Counter[str] = Counter()
        self._notes: dict[str, None] = {}

    def category(self, name: str) -> int:
        """The id of a class, which is made where it is new."""
        return self._categories.setdefault(name, len(self._categories) + 1)

    def video(self, files: Sequence[Path], height: int, width: int) -> None:
        """Begin the next video, a still being one of one frame. Raises ValueError for a size that is none."""
        check_size(height, width)
        names = tuple(
            (file.relative_to(self.root) if file.is_relative_to(self.root) else file.absolute()).as_posix()
            for file in files
        )
        self._videos.append(Video(len(self._videos) + 1, height, width, len(files), names))
        self._objects.append({})

    def claim(self, picture: Path, label_file: Path | str) -> None:
        """A picture is labelled once: raises SourceError where another file labels it too."""
        before = self._taken.setdefault(picture, str(label_file))
        if before != str(label_file):
            raise SourceError(f"labels the picture {picture}, which {before} labels too; keep one of them")

    def part(self, key: Any, category_id: int, frame: int, mask: Segmentation, is_crowd: bool = False) -> None:
        """A mask, or a further part, of the object ``key`` of the video; None as key = an object of its own."""
        self._object(key, category_id, is_crowd).masks.setdefault(frame, []).append(mask)

    def box(self, key: Any, category_id: int, frame: int, box: Sequence[float]) -> None:
        """An object of which only the box is known: x, y, width, height in pixels. Raises ValueError."""
        numbers = [float(number) for number in box]
        if not all(math.isfinite(number) for number in numbers) or numbers[2] <= 0 or numbers[3] <= 0:
            raise ValueError(f"has a box of x, y, width, height {numbers}, but a width and height above 0 are needed")
        self._object(key, category_id, False).boxes[frame] = numbers

    def leave_out(self, what: str) -> None:
        """Count what is no mask, for the notes."""
        self._left_out[what] += 1

    def note(self, text: str) -> None:
        """A sentence for the user; each is kept once."""
        self._notes[text] = None

    def build(self, lenient: bool) -> VideoSet:
        """The set, its masks and pictures checked: what is not right is raised, or with ``lenient`` kept."""
        if not self._videos:
            raise SourceError(f"{self.source}: labels no pictures; export them with their labels")
        pairs = zip(self._videos, self._objects, strict=True)
        owned = [(video, entry) for video, objects in pairs for entry in objects.values()]
        with naming(self.source):
            annotations = [self._annotation(number, *pair) for number, pair in enumerate(owned, 1)]
        damaged = damaged_masks(annotations, {video.id: video for video in self._videos})
        bad, turned = check_pictures(self.root, self._videos)
        if not lenient:
            raise_first(self.source, [*damaged, *bad])
        if self._left_out:
            counts = ", ".join(f"{what} {count}" for what, count in self._left_out.items())
            self.note(f"left out, as they are no masks: {counts}")
        categories = tuple(Category(number, name) for name, number in self._categories.items())
        truth = GroundTruth(tuple(self._videos), categories, tuple(annotations), str(self.source))
        entries: list[Mapping[str, Any]] = [vars(category) for category in categories]
        return VideoSet(
            *(truth, self.root, frozenset(), entries, (*self._notes, *turned), (*damaged, *bad)), form=self.form
        )

    def _object(self, key: Any, category_id: int, is_crowd: bool) -> _Object:
        objects = self._objects[-1]
        return objects.setdefault(("", len(objects)) if key is None else key, _Object(category_id, is_crowd))

    def _annotation(self, number: int, video: Video, entry: _Object) -> Annotation:
        masks = [_joined(entry.masks.get(frame), video) for frame in range(video.length)]
        boxes = [entry.boxes.get(frame) for frame in range(video.length)]
        return Annotation(
            *(number, video.id, entry.category_id, masks),
            is_crowd=entry.is_crowd,
            boxes=boxes if entry.boxes else None,
        )


def run_length_mask(mask: Any, height: int, width: int, left: int = 0, top: int = 0) -> Segmentation:
    """A mask (h, w) of numbers with nonzero = object, at its place in a picture; raises ValueError where it leaves it
    by more than a pixel or two, as those of rounded boxes do."""
    h, w = mask.shape
    if left < -2 or top < -2 or left + w > width + 2 or top + h > height + 2:
        raise ValueError(
            f"has a mask of {h} x {w} pixels (height x width) at ({left}, {top}), which leaves the picture of "
            f"{height} x {width}"
        )
    whole = np.zeros((height, width), np.uint8)
    y, x = max(top, 0), max(left, 0)
    inside = mask[y - top : height - top, x - left : width - left] != 0
    whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return rle.encode(whole)


def flat_polygon(points: Any, where: str) -> list[float]:
    """x0, y0, x1, y1, ... of pairs; raises ValueError where they are not at least three pairs of finite numbers."""
    try:
        corners = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        corners = np.zeros(0)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        count = len(points) if isinstance(points, Sequence) else 0
        raise ValueError(f"{where} is a polygon of {count} points; at least 3 pairs x, y of finite numbers are needed")
    return [float(number) for number in corners.ravel()]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> list[float]:
    """The outline of an ellipse around (x, y), turned clockwise, as a flat polygon."""
    turn, angle = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False), math.radians(degrees)
    along, across = radius_x * np.cos(turn), radius_y * np.sin(turn)
    xs = x + along * math.cos(angle) - across * math.sin(angle)
    ys = y + along * math.sin(angle) + across * math.cos(angle)
    return [float(number) for number in np.stack([xs, ys], 1).ravel()]


def turned_box(x: float, y: float, w: float, h: float, degrees: float, about: tuple[float, float]) -> list[float]:
    """The upright box x, y, width, height around a box that is turned clockwise about a point."""
    angle = math.radians(degrees)
    corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)]) - about
    turned = corners @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) + about
    low, high = turned.min(0), turned.max(0)
    return [float(number) for number in (*low, *(high - low))]


def _joined(parts: Sequence[Segmentation] | None, video: Video) -> Segmentation | None:
    """One mask of the parts of an object in a frame: polygons stay polygons."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    polygons: list[Sequence[float]] = []
    for part in parts:
        if isinstance(part, dict):
            whole = np.zeros((video.height, video.width), np.uint8)
            for each in parts:
                whole |= decode_segmentation(each, video.height, video.width)
            return rle.encode(whole)
        polygons += part
    return polygons
