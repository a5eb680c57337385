# SPDX-License-Identifier: Apache-2.0
"""The constants of the matching for one model (``structures.MatchCosts``), chosen on clips with known identities.

The network runs once over each clip. What it found is then matched again under other constants, which takes a few
hundred microseconds a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.matching import match_by_evidence
from instance_flow.formats.atomic import replacing
from instance_flow.network.onnx import OnnxNetwork, write_metadata
from instance_flow.pipeline import Observation, Pipeline
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import Instances, MatchCosts, ModelError, ModelInfo
from instance_flow.tracking.memory import Reference
from instance_flow.tracking.tracker import Tracker
from instance_flow_training.comparing.scoring import track_clip
from instance_flow_training.worlds.synthetic import Clip

FACTORS = (0.35, 0.6, 0.8, 1.25, 1.7, 3.0)
"""By which each constant is tried in turn."""
ROUNDS = 2
_OVERLAP = 0.5
"""Of a found object and a true one that are the same, as in IDF1."""


@dataclass(frozen=True)
class FoundFrame:
    """What was found in a frame. objects: (M,) row of the true object that each is, -1 = none of them.

    references: frame indices of the references that ``instances.flows`` lead to.
    """

    instances: Instances
    objects: NDArray[np.int64]
    references: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """Of identities over clips: IDF1 with masks that overlap by half or more, and id switches."""

    idf1: float
    switches: int

    def __str__(self) -> str:
        return f"IDF1 {self.idf1:.4f}, {self.switches} id switches"


@dataclass(frozen=True)
class FoundClip:
    """truths: number of true masks in all frames."""

    frames: Sequence[FoundFrame]
    truths: int


def find(pipeline: Pipeline, clip: Clip) -> FoundClip:
    """Run a pipeline over a clip, and keep all objects, however unsure."""
    pipeline = Pipeline(pipeline.network, replace(pipeline.config, min_score=0.0, confirm_frames=1))
    seen: list[Observation] = []
    pipeline.observer = seen.append
    track_clip(pipeline, clip)
    frames = [
        FoundFrame(one.instances, _true_objects(one, labels), tuple(r.frame_index for r in one.references))
        for one, labels in zip(seen, clip.labels, strict=True)
    ]
    return FoundClip(frames, sum(len(np.unique(labels[labels > 0])) for labels in clip.labels))


def _true_objects(seen: Observation, labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """For each found object the true one that it overlaps by half or more; there is one at most."""
    rows = {int(identity): row for row, identity in enumerate(seen.ids)}
    found = np.zeros(int(seen.ids.max(initial=0)) + 1, np.int64)
    found[seen.ids] = np.arange(len(seen.ids)) + 1
    shape = len(rows) + 1, int(labels.max()) + 1
    common = np.bincount((found[seen.tracks.label_map] * shape[1] + labels).ravel(), minlength=shape[0] * shape[1])
    common = common.reshape(shape)
    union = common.sum(1)[1:, None] + common.sum(0)[None, 1:] - common[1:, 1:]
    overlap = common[1:, 1:] / np.maximum(union, 1)
    if not overlap.size:
        return np.full(len(rows), -1, np.int64)
    return np.where(overlap.max(1) >= _OVERLAP, overlap.argmax(1), -1)


def score(clips: Sequence[FoundClip], costs: MatchCosts, unit: float, lost_frames: int) -> Score:
    """What the identities are worth under these constants; unit: flow_error in cells."""
    right, total, switches = 0, 0, 0
    for clip in clips:
        pairs: dict[tuple[int, int], int] = {}
        last: dict[int, int] = {}
        for frame, ids in zip(clip.frames, _identities(clip, costs, unit, lost_frames), strict=True):
            total += len(ids)
            for row, identity in zip(frame.objects.tolist(), ids.tolist(), strict=True):
                if row >= 0:
                    pairs[row, identity] = pairs.get((row, identity), 0) + 1
                    switches += last.get(row, identity) != identity
                    last[row] = identity
        total += clip.truths
        right += _one_to_one(pairs)
    return Score(2 * right / max(total, 1), switches)


def _identities(clip: FoundClip, costs: MatchCosts, unit: float, lost_frames: int) -> list[NDArray[np.int64]]:
    """Ids of every frame's objects. The references are those of the run that found the objects."""
    tracker, ids = Tracker(lost_frames), list[NDArray[np.int64]]()
    for t, frame in enumerate(clip.frames):
        found = frame.instances
        references = [Reference(r, None, None, clip.frames[r].instances.centers, ids[r]) for r in frame.references]
        matches = match_by_evidence(
            *(found.centers, found.flows, found.flow_std, found.appearance),
            [reference.centers for reference in references],
            [reference.ids for reference in references],
            tracker.known(t),
            unit,
            costs,
            found.class_scores,
        )
        ids.append(tracker.update(found, matches, references, t).ids)
        tracker.forget([*references, Reference(t, None, None, found.centers, ids[-1])], t)
    return ids


def _one_to_one(pairs: dict[tuple[int, int], int]) -> int:
    """Frames in which an object has the id that is its own, the most frequent pairs first."""
    total, rows, ids = 0, set[int](), set[int]()
    for (row, identity), count in sorted(pairs.items(), key=lambda item: -item[1]):
        if row not in rows and identity not in ids:
            total += count
            rows.add(row)
            ids.add(identity)
    return total


def calibrate(
    info: ModelInfo, clips: Sequence[FoundClip], report: Callable[[str], None] = lambda _: None
) -> tuple[MatchCosts, Score, Score]:
    """The best constants that a search along each of them finds, and the scores before and after. One that is 0 is
    tried as if it were 1.

    Raises ValueError without clips, or where nothing in them was found.
    """
    if not any((frame.objects >= 0).any() for clip in clips for frame in clip.frames):
        raise ValueError(
            "the model finds no object in the clips, so there are no identities to calibrate on; give others"
        )
    lost_frames = AssemblyConfig().lost_frames
    cells = float(np.sqrt(info.input_size[0] * info.input_size[1])) / info.output_stride

    def judge(costs: MatchCosts) -> Score:
        return score(clips, costs, costs.flow_error * cells, lost_frames)

    costs, before = info.match_costs, judge(info.match_costs)
    best = before
    for turn in range(ROUNDS):
        for field in fields(MatchCosts):
            middle = getattr(costs, field.name) or 1.0
            for factor in FACTORS:
                tried = replace(costs, **{field.name: middle * factor})
                found = judge(tried)
                if (found.idf1, -found.switches) > (best.idf1, -best.switches):
                    costs, best = tried, found
            report(f"round {turn + 1} of {ROUNDS}, {field.name} {getattr(costs, field.name):.4g}: {best}")
    return costs, before, best


def write_costs(model: Path, out: Path, costs: MatchCosts) -> None:
    """Write the model with other constants in its description. Raises ModelError where onnx is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            "writing a model file needs the Python package onnx, which is not installed; run `pip install onnx`"
        ) from error
    info = replace(OnnxNetwork(model, "cpu").info, match_costs=costs)
    graph = onnx.load(model)
    onnx.helper.set_model_props(graph, write_metadata(info))
    with replacing(out) as temporary:
        onnx.save(graph, temporary)
