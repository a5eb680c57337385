# SPDX-License-Identifier: Apache-2.0
"""Held-out worlds through the deployed pipeline, scored by the runtime's evaluator. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instance_flow.evaluation import evaluate_data
from instance_flow.pipeline import Pipeline
from instance_flow.structures import Tracks
from instance_flow.ytvis import ResultsCollector
from instance_flow_training.synthetic import SITUATIONS, Clip, WorldConfig, generate_clip
from instance_flow_training.world_files import ground_truth


def track_clip(pipeline: Pipeline, clip: Clip) -> list[Tracks]:
    """Run a whole clip from a fresh stream; stamps from the clip's rate."""
    pipeline.reset()
    return [pipeline.step(image, round(t * 1e9 / clip.rate)) for t, image in enumerate(clip.images)]


def held_out_clips(first_seed: int, count: int, config: WorldConfig) -> list[Clip]:
    """Clips of all situations in turn."""
    return [generate_clip(first_seed + i, SITUATIONS[i % len(SITUATIONS)], config) for i in range(count)]


def score_tracks(clips: Sequence[Clip], tracks: Sequence[Sequence[Tracks]]) -> dict[str, Any]:
    """What ``instance_flow.evaluation.evaluate`` says of the tracks of each clip against the clips' exact truth."""
    results: list[dict[str, Any]] = []
    for video_id, of_clip in enumerate(tracks, 1):
        collector = ResultsCollector(len(of_clip))
        for frame in of_clip:
            collector.add(frame)
        results += collector.results(video_id)
    return evaluate_data(ground_truth(clips), results)
