# SPDX-License-Identifier: Apache-2.0
"""Held-out worlds and real videos through the deployed pipeline, scored by the runtime's evaluator. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from instance_flow.evaluation.evaluate import evaluate_data
from instance_flow.formats.ytvis import (
    Category,
    GroundTruth,
    ResultsCollector,
    Segmentation,
    Video,
    decode_segmentation,
)
from instance_flow.pipeline import Pipeline
from instance_flow.structures import SourceError, Tracks
from instance_flow_training.data.label_sources import open_truth
from instance_flow_training.data.set_files import read_frame
from instance_flow_training.data.video_sets import VideoSet
from instance_flow_training.worlds.cutouts import CutoutLibrary
from instance_flow_training.worlds.synthetic import SITUATIONS, Clip, WorldConfig, generate_clip
from instance_flow_training.worlds.world_files import ground_truth

_UNLISTED = -1
SAME_OBJECT = 0.5
"""Overlap from which on a found object is a true one."""


def track_clip(pipeline: Pipeline, clip: Clip) -> list[Tracks]:
    """Run a whole clip from a fresh stream; stamps from the clip's rate."""
    pipeline.reset()
    return [pipeline.step(image, round(t * 1e9 / clip.rate)) for t, image in enumerate(clip.images)]


def held_out_clips(
    first_seed: int,
    count: int,
    config: WorldConfig,
    situations: Sequence[str] = SITUATIONS,
    cutouts: CutoutLibrary | None = None,
) -> list[Clip]:
    """Clips of these situations in turn, of cut-outs or made creatures.

    Raises ValueError for no clip at all: nothing could be scored.
    """
    if count < 1:
        raise ValueError(f"the number of clips is {count}; it must be at least 1")
    return [generate_clip(first_seed + i, situations[i % len(situations)], config, cutouts) for i in range(count)]


def score_tracks(clips: Sequence[Clip], tracks: Sequence[Sequence[Tracks]]) -> dict[str, Any]:
    """What ``instance_flow.evaluation.evaluate`` says of the tracks of each clip against the clips' exact truth."""
    results = [entry for video_id, frames in enumerate(tracks, 1) for entry in results_of(frames, video_id)]
    return evaluate_data(ground_truth(clips), results)


def results_of(frames: Sequence[Tracks], video_id: int) -> list[dict[str, Any]]:
    """The tracks of one whole clip as YouTube-VIS results."""
    collector = ResultsCollector(len(frames))
    for frame in frames:
        collector.add(frame)
    return collector.results(video_id)


@dataclass(frozen=True)
class TrackedVideos:
    """Videos of a data set and what a pipeline made of them. truth: of the classes that both know.

    everything: the data set's own truth of the same videos, of all of its classes.
    results: as ``evaluation.evaluate`` takes them.   images: folder of the frames.
    """

    truth: GroundTruth
    everything: GroundTruth
    results: list[dict[str, Any]]
    images: Path

    @property
    def frames(self) -> int:
        """Of all videos."""
        return sum(video.length for video in self.truth.videos)

    def ghosts(self) -> int:
        """Number of tracks that in no frame overlap a labelled object, of whatever class, by half or more."""
        by_video: dict[int, list[Any]] = {}
        for annotation in self.everything.annotations:
            by_video.setdefault(annotation.video_id, []).append(annotation)
        sizes = {video.id: (video.height, video.width) for video in self.everything.videos}
        return sum(
            not any(
                _overlap(found, true, *sizes[entry["video_id"]]) >= SAME_OBJECT
                for annotation in by_video.get(entry["video_id"], ())
                for found, true in zip(entry["segmentations"], annotation.segmentations, strict=True)
                if found and true
            )
            for entry in self.results
        )


def _overlap(found: Segmentation, true: Segmentation, height: int, width: int) -> float:
    ours, theirs = (decode_segmentation(mask, height, width).view(bool) for mask in (found, true))
    return float(np.count_nonzero(ours & theirs)) / max(1.0, float(np.count_nonzero(ours | theirs)))


def track_videos(pipeline: Pipeline, annotations: Path, images: Path | None = None, limit: int = 0) -> TrackedVideos:
    """``track_set`` of what ``label_sources.open_truth`` reads there; raises SourceError where that is not right."""
    return track_set(pipeline, open_truth(annotations, images), limit)


def track_set(pipeline: Pipeline, found: VideoSet, limit: int = 0) -> TrackedVideos:
    """Run a pipeline over the videos of a data set.

    One frame is in memory at a time. The model's classes are found among the set's categories by name; what only one
    of the two knows is left out.

    limit: number of videos from the start, 0 = all.
    Raises SourceError where the set shares no class with the model, or a frame cannot be read.
    """
    category_ids = _category_ids(pipeline.info.class_names, found.truth.categories, found.truth.source)
    videos = found.truth.videos[: limit or None]
    results = [entry for video in videos for entry in _track_video(pipeline, video, found.images, category_ids)]
    chosen, shared = {video.id for video in videos}, set(category_ids)
    everything = replace(
        found.truth, videos=videos, annotations=tuple(a for a in found.truth.annotations if a.video_id in chosen)
    )
    truth = replace(
        everything,
        categories=tuple(c for c in found.truth.categories if c.id in shared),
        annotations=tuple(a for a in everything.annotations if a.category_id in shared),
    )
    listed = [entry for entry in results if entry["category_id"] != _UNLISTED]
    return TrackedVideos(truth, everything, listed, found.images)


def score_videos(pipeline: Pipeline, annotations: Path, images: Path | None = None, limit: int = 0) -> dict[str, Any]:
    """What ``evaluation.evaluate`` says of a pipeline's tracks on a data set; arguments and errors of
    ``track_videos``."""
    tracked = track_videos(pipeline, annotations, images, limit)
    return evaluate_data(tracked.truth, tracked.results)


def _track_video(pipeline: Pipeline, video: Video, images: Path, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    pipeline.reset()
    collector = ResultsCollector(video.length, category_ids)
    for name in video.file_names:
        collector.add(pipeline.step(read_frame(images / name, video.height, video.width)))
    return collector.results(video.id)


def _category_ids(class_names: Sequence[str], categories: Sequence[Category], source: str) -> list[int]:
    """The category id of each of the model's classes, ``_UNLISTED`` for those that the data set does not have."""
    by_name = {category.name: category.id for category in categories}
    category_ids = [by_name.get(name, _UNLISTED) for name in class_names]
    if set(category_ids) == {_UNLISTED}:
        raise SourceError(
            f"{source}: the model knows none of its categories: they are {', '.join(by_name)}, "
            f"but the model's classes are {', '.join(class_names)}"
        )
    return category_ids
