# SPDX-License-Identifier: Apache-2.0
"""What a set of labels holds, and what in it is suspicious."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from tqdm import tqdm

from instance_flow.evaluation.average_precision import SIZE_LIMITS, SIZES
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.ytvis import Annotation, Segmentation, Video, decode_segmentation
from instance_flow_training.data.merging import by_video, class_names, plain_name
from instance_flow_training.data.video_sets import VideoSet

_TINY = 16
_SAME = 0.9
"""Overlap from which two objects of one class are called one that is labelled twice."""
_OUTSIDE = 1.0
"""Pixels by which a mask may leave the picture, from rounding."""
_LISTED = 3
TWICE, EMPTY, OUTSIDE = "objects labelled twice", "masks without a pixel", "masks that leave the picture"
BOXES, SMALL, BARE = "boxes without a mask", f"objects of less than {_TINY} pixels", "pictures without labels"
KINDS = (TWICE, EMPTY, OUTSIDE, BOXES, SMALL, BARE)


@dataclass(frozen=True)
class Found:
    """kind: what is suspicious.   where: files and objects that it is true of, in the order of the set."""

    kind: str
    where: tuple[str, ...]

    def __str__(self) -> str:
        listed = "; ".join(self.where[:_LISTED])
        more = f" and {len(self.where) - _LISTED} more" if len(self.where) > _LISTED else ""
        return f"{self.kind} ({len(self.where)}): {listed}{more}"


@dataclass(frozen=True)
class Inspection:
    """stills, videos, frames: pictures alone, videos of several frames, and frames of those.

    objects: objects by class.   masks: their masks by class and size, one of ``SIZES``, which are COCO's.
    boxes: boxes without a mask by class.   ignored: masks of regions to ignore.   suspicious: worst first.
    """

    stills: int
    videos: int
    frames: int
    objects: Mapping[str, int]
    masks: Mapping[str, Mapping[str, int]]
    boxes: Mapping[str, int]
    ignored: int
    suspicious: tuple[Found, ...]

    def table(self) -> list[str]:
        """Lines for people: counts, and a row for each class."""
        shows = [f"{self.stills} pictures"] * (self.stills > 0 or not self.videos)
        shows += [f"{self.videos} videos of {self.frames} frames"] * (self.videos > 0)
        total = sum(self.objects.values())
        lines = [f"{', '.join(shows)}; {total} objects of {len(self.objects)} classes, {self.ignored} ignored regions"]
        width = max([5, *(len(shown(name, 40)) for name in self.objects)])
        lines.append("class".ljust(width) + "".join(name.rjust(9) for name in ("objects", "masks", *SIZES, "boxes")))
        for name, count in self.objects.items():
            sizes = self.masks[name]
            row = (count, sum(sizes.values()), *(sizes.get(size, 0) for size in SIZES), self.boxes.get(name, 0))
            lines.append(shown(name, 40).ljust(width) + "".join(str(number).rjust(9) for number in row))
        return lines


def inspect_set(found: VideoSet) -> Inspection:
    """Decode every mask of the set, and say what is there."""
    counts = _Counts(class_names(found))
    pairs = list(by_video(found))
    for video, entries in tqdm(pairs, unit="picture", desc="looking at labels", disable=None, leave=False):
        counts.add(video, entries)
    suspicious = [
        Found("damaged masks, and pictures of another size than their labels", found.problems),
        Found("classes without objects", tuple(name for name, count in counts.objects.items() if not count)),
        Found("classes of nearly the same name", tuple(_alike(list(counts.objects)))),
        *(Found(kind, tuple(counts.said[kind])) for kind in KINDS),
    ]
    lengths = [video.length for video in found.truth.videos]
    several = [length for length in lengths if length > 1]
    return Inspection(
        stills=len(lengths) - len(several),
        videos=len(several),
        frames=sum(several),
        objects=counts.objects,
        masks=counts.masks,
        boxes=counts.boxes,
        ignored=counts.ignored,
        suspicious=tuple(kind for kind in suspicious if kind.where),
    )


class _Counts:
    """What ``Inspection`` holds, gathered video by video."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = names
        self.objects = dict.fromkeys(names.values(), 0)
        self.masks: dict[str, Counter[str]] = {name: Counter() for name in self.objects}
        self.boxes: Counter[str] = Counter()
        self.said: defaultdict[str, list[str]] = defaultdict(list)
        self.ignored = 0

    def add(self, video: Video, entries: Sequence[Annotation]) -> None:
        bare = [True] * video.length
        extents: list[list[_Extent]] = [[] for _ in range(video.length)]
        for entry in entries:
            name = self.names.get(entry.category_id, "")
            if any(entry.segmentations) and not entry.is_crowd:
                self.objects[name] += 1
            for frame, mask in enumerate(entry.segmentations):
                if mask is not None:
                    bare[frame] = False
                    if (extent := _extent(mask, video, name)) is not None:  # Else it is among the problems of the set.
                        self._mask(extent, video.file_names[frame], entry.is_crowd, extents[frame])
                elif entry.boxes and entry.boxes[frame] is not None and not entry.is_crowd:
                    bare[frame] = False
                    self.boxes[name] += 1
                    self.said[BOXES].append(f"{video.file_names[frame]}: {name}")
        for frame, file in enumerate(video.file_names):
            if bare[frame]:
                self.said[BARE].append(file)
            self.said[TWICE] += [f"{file}: {name}" for name in _doubles(extents[frame], video)]

    def _mask(self, extent: _Extent, file: str, is_crowd: bool, extents: list[_Extent]) -> None:
        if extent.outside > _OUTSIDE:
            self.said[OUTSIDE].append(f"{file}: {extent.name} by {extent.outside:.0f} pixels")
        if is_crowd:
            self.ignored += 1
            return
        extents.append(extent)
        self.masks[extent.name][_size(extent.area)] += 1
        if extent.area == 0:
            self.said[EMPTY].append(f"{file}: {extent.name}")
        elif extent.area < _TINY:
            self.said[SMALL].append(f"{file}: {extent.name} of {extent.area}")


@dataclass(frozen=True)
class _Extent:
    """Of a mask: its class, pixels, box (left, top, right, bottom), and how far it leaves the picture, in pixels."""

    name: str
    area: int
    box: tuple[int, int, int, int]
    outside: float
    mask: Segmentation


def _extent(mask: Segmentation, video: Video, name: str) -> _Extent | None:
    try:
        pixels = decode_segmentation(mask, video.height, video.width)
    except ValueError:
        return None
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)
    outside = 0.0
    if not isinstance(mask, dict):
        corners = np.concatenate([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in mask])
        outside = float(max(-corners.min(), *(corners.max(0) - (video.width, video.height)), 0.0))
    return _Extent(name, int(np.count_nonzero(pixels)), box, outside, mask)


def _doubles(extents: Sequence[_Extent], video: Video) -> Iterator[str]:
    """Classes of pairs in one picture that cover nearly the same pixels."""
    for one, other in combinations([extent for extent in extents if extent.area], 2):
        if one.name != other.name or min(one.area, other.area) < _SAME * max(one.area, other.area):
            continue
        if max(abs(a - b) for a, b in zip(one.box, other.box, strict=True)) > max(video.height, video.width) / 20:
            continue
        ours, theirs = (decode_segmentation(e.mask, video.height, video.width).view(bool) for e in (one, other))
        if np.count_nonzero(ours & theirs) >= _SAME * np.count_nonzero(ours | theirs):
            yield one.name


def _alike(names: Sequence[str]) -> Iterator[str]:
    """Pairs of names that differ only in case, or in how words are parted."""
    first: dict[str, str] = {}
    for name in names:
        before = first.setdefault(plain_name(name), name)
        if before != name:
            yield f'"{shown(before)}" and "{shown(name)}"'


def _size(area: int) -> str:
    small, medium = SIZE_LIMITS["coco"][:2]
    return SIZES[0] if area < small else SIZES[1] if area < medium else SIZES[2]
