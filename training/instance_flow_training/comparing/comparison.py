# SPDX-License-Identifier: Apache-2.0
"""The same masks, classes and scores under the identities of several trackers, scored clip by clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from instance_flow.evaluation.evaluate import evaluate_data
from instance_flow.structures import InstanceFlowError, Tracks
from instance_flow_training.comparing.box_tracking import AppearanceTracker, ByteTracker, SortTracker
from instance_flow_training.comparing.iou_tracking import MaskIouTracker
from instance_flow_training.comparing.retracking import Retracker, retrack
from instance_flow_training.comparing.scoring import results_of
from instance_flow_training.worlds.synthetic import ALL_SITUATIONS, REAL_SITUATIONS, Clip
from instance_flow_training.worlds.world_files import ground_truth

COLUMNS = ("AP", "AP50", "HOTA", "AssA", "DetA", "IDF1", "IDSW")


@dataclass(frozen=True)
class Contender:
    """A tracker of the comparison. make: a fresh one for each clip, None = the pipeline's own identities."""

    label: str
    make: Callable[[], Retracker] | None


CONTENDERS: dict[str, Contender] = {
    "flow": Contender("instance flow", None),
    "iou": Contender("mask IoU", MaskIouTracker),
    "sort": Contender("SORT", SortTracker),
    "bytetrack": Contender("ByteTrack", ByteTracker),
    "appearance": Contender("DeepSORT", AppearanceTracker),
}

Results = list[dict[str, Any]]


def available(names: Sequence[str]) -> tuple[dict[str, Contender], str]:
    """The contenders of these names whose packages are installed, and why the others are missing ("" = none is)."""
    found, reason = {}, ""
    for name in names:
        contender = CONTENDERS[name]
        try:
            if contender.make is not None:
                contender.make()
            found[name] = contender
        except InstanceFlowError as error:
            reason = str(error)
    return found, reason


class Comparison:
    """Collects the results of every contender, one clip after the other; masks are kept as run lengths."""

    def __init__(self, contenders: dict[str, Contender]) -> None:
        self._contenders = contenders
        self._clips: list[Clip] = []
        self._results: dict[str, list[Results]] = {name: [] for name in contenders}

    def add(self, clip: Clip, frames: Sequence[Tracks]) -> None:
        """Take a clip and what the pipeline made of it."""
        self._clips.append(clip)
        for name, contender in self._contenders.items():
            tracked = frames if contender.make is None else retrack(frames, clip.images, contender.make())
            self._results[name].append(results_of(tracked, video_id=0))

    def groups(self) -> Iterator[tuple[str, list[int]]]:
        """All clips, then those of each situation: name and positions of the clips."""
        yield "all", list(range(len(self._clips)))
        for situation in dict.fromkeys((*ALL_SITUATIONS, *REAL_SITUATIONS)):
            rows = [i for i, clip in enumerate(self._clips) if clip.situation == situation]
            if rows:
                yield situation, rows

    def numbers(self, rows: Sequence[int]) -> dict[str, dict[str, float]]:
        """What each contender scores on these clips, by its label.

        AP over classes; HOTA, AssA, DetA, IDF1 and id switches with all classes taken as one, so that they judge
        tracking alone.
        """
        out = {}
        for name, contender in self._contenders.items():
            scores = self._evaluate(name, rows)
            tracking = scores["tracking"]["class_agnostic"]
            out[contender.label] = {c: float((scores if c.startswith("AP") else tracking)[c]) for c in COLUMNS}
        return out

    def sizes(self, name: str, size_limits: str) -> dict[str, dict[str, float]]:
        """AP and AR of one contender on all clips by the size of the objects, as in Fig. 6."""
        return self._evaluate(name, range(len(self._clips)), size_limits=size_limits, tracking=False)["per_size"]

    def _evaluate(self, name: str, rows: Sequence[int], **options: Any) -> dict[str, Any]:
        results = [
            {**entry, "video_id": video_id} for video_id, i in enumerate(rows, 1) for entry in self._results[name][i]
        ]
        return evaluate_data(ground_truth(self._clips[i] for i in rows), results, **options)
