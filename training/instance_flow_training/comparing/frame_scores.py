# SPDX-License-Identifier: Apache-2.0
"""What is found in single frames beside what is there: which class is taken for which, and the worst frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.ytvis import Segmentation, Video, decode_segmentation
from instance_flow_training.comparing.scoring import SAME_OBJECT, TrackedVideos


@dataclass(frozen=True)
class FrameScore:
    """One frame. quality: the overlaps of what was found rightly, shared among all that is there or was found, 0 .. 1;
    1 where both are nothing. missed, ghosts, confused: numbers of objects. found: entry and mask of each object."""

    video: Video
    frame: int
    quality: float
    missed: int
    ghosts: int
    confused: int
    found: Sequence[tuple[Mapping[str, Any], Segmentation]]


@dataclass(frozen=True)
class FrameScores:
    """confusion: (C + 1, C + 1) numbers of objects in frames, true classes in rows and found ones in columns; the last
    row is of what is not there, the last column of what was not found."""

    class_names: tuple[str, ...]
    confusion: NDArray[np.int64]
    frames: list[FrameScore]

    def worst(self, most: int) -> list[FrameScore]:
        """The frames of lowest quality, at most one of each video, the worst first."""
        chosen: dict[int, FrameScore] = {}
        for score in sorted(self.frames, key=lambda s: (s.quality, -s.missed - s.ghosts - s.confused)):
            chosen.setdefault(score.video.id, score)
        return [score for score in chosen.values() if score.quality < 1][:most]


def score_frames(tracked: TrackedVideos) -> FrameScores:
    """Compare every frame; a found object is a true one where they overlap by half or more, whatever their classes.

    What lies on a region to ignore, or on an object of a class that the model does not have, counts for nothing.
    """
    rows = {category.id: row for row, category in enumerate(tracked.truth.categories)}
    nothing = len(rows)
    confusion = np.zeros((nothing + 1, nothing + 1), np.int64)
    frames = []
    true, found = defaultdict(list), defaultdict(list)
    for annotation in tracked.everything.annotations:
        true[annotation.video_id].append(annotation)
    for entry in tracked.results:
        found[entry["video_id"]].append(entry)
    for video in tracked.truth.videos:
        for frame in range(video.length):
            there = [(a, mask) for a in true[video.id] if (mask := a.segmentations[frame]) is not None]
            objects = [(a, mask) for a, mask in there if not a.is_crowd and a.category_id in rows]
            others = [mask for a, mask in there if a.is_crowd or a.category_id not in rows]
            seen = [(e, mask) for e in found[video.id] if (mask := e["segmentations"][frame]) is not None]
            ours = _decoded([m for _, m in seen], video)
            pairs = _pairs(_decoded([m for _, m in objects], video), ours)
            unknown = _on(ours, _decoded(others, video))
            quality, ghosts, confused = 0.0, 0, 0
            for i, (annotation, _) in enumerate(objects):
                j, overlap = pairs.get(i, (-1, 0.0))
                column = nothing if j < 0 else rows[seen[j][0]["category_id"]]
                confusion[rows[annotation.category_id], column] += 1
                right = column == rows[annotation.category_id]
                quality += overlap * right
                confused += j >= 0 and not right
            taken = {j for j, _ in pairs.values()}
            for j, (entry, _) in enumerate(seen):
                if j not in taken and not unknown[j]:
                    confusion[nothing, rows[entry["category_id"]]] += 1
                    ghosts += 1
            total = len(objects) + ghosts
            missed = len(objects) - len(pairs)
            frames.append(FrameScore(video, frame, quality / total if total else 1.0, missed, ghosts, confused, seen))
    return FrameScores(tuple(category.name for category in tracked.truth.categories), confusion, frames)


def _decoded(masks: Sequence[Segmentation], video: Video) -> NDArray[np.bool_]:
    size = (len(masks), video.height, video.width)
    return np.array([decode_segmentation(m, video.height, video.width) for m in masks], bool).reshape(size)


def _pairs(true: NDArray[np.bool_], found: NDArray[np.bool_]) -> dict[int, tuple[int, float]]:
    """Of each true object that was found: the found one and their overlap; the largest overlaps first."""
    pixels = true.shape[1] * true.shape[2]
    flat_true, flat_found = (m.reshape(len(m), pixels).astype(np.float32) for m in (true, found))
    both = flat_true @ flat_found.T
    overlap = both / np.maximum(flat_true.sum(1)[:, None] + flat_found.sum(1)[None] - both, 1)
    pairs: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        i, j = divmod(int(place), max(1, len(found)))
        if overlap[i, j] < SAME_OBJECT:
            break
        if i not in pairs and j not in taken:
            pairs[i] = j, float(overlap[i, j])
            taken.add(j)
    return pairs


def _on(found: NDArray[np.bool_], regions: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the found objects lie on the regions by half or more of themselves."""
    area = regions.any(0) if len(regions) else np.zeros(found.shape[1:], bool)
    inside = np.count_nonzero(found & area, axis=(1, 2))
    return inside >= SAME_OBJECT * np.maximum(np.count_nonzero(found, axis=(1, 2)), 1)
