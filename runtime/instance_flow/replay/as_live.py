# SPDX-License-Identifier: Apache-2.0
"""A recording as a slower machine would have seen it live: which frames it manages, and what the others cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from instance_flow.evaluation.overlaps import measure_overlaps
from instance_flow.evaluation.tracking_metrics import count
from instance_flow.formats.video import Frame
from instance_flow.formats.ytvis import Annotation, GroundTruth, ResultsCollector, Video, parse_results
from instance_flow.replay.numbers import RunNumbers
from instance_flow.replay.outputs import Add
from instance_flow.structures import SourceError, Tracks

NUMBERS = ("IDSW", "IDF1", "HOTA", "AssA")


def survivors(arrivals: Sequence[tuple[int, int]], rate: float) -> list[int]:
    """Which frames a node works on that takes 1 / ``rate`` seconds for each.

    The node's policy: one worker; per camera one frame may wait, and a newer one takes its place and its turn; cameras
    are served in the order in which they began to wait. A frame that comes just as the worker is done waits already.

    arrivals: (nanoseconds, camera) of every frame, in order of time; cameras count from 0.
    Returns indices into ``arrivals``, in the order of work.
    """
    if not rate > 0:
        raise ValueError(f"the rate is {rate}, but a number above 0 is needed")
    work = round(1e9 / rate)
    waiting: dict[int, int] = {}
    chosen: list[int] = []
    free = 0

    def work_until(now: float) -> None:
        nonlocal free
        while waiting:
            camera, index = next(iter(waiting.items()))
            begin = max(free, arrivals[index][0])
            if begin >= now:
                return
            del waiting[camera]
            chosen.append(index)
            free = begin + work

    for index, (now, camera) in enumerate(arrivals):
        work_until(now)
        waiting[camera] = index
    work_until(float("inf"))
    return chosen


def chosen_frames(arrivals: Sequence[tuple[int, int]], rate: float) -> list[frozenset[int]]:
    """Per camera, the numbers, counted among its own frames, of those that survive; see ``survivors``."""
    numbers = [0] * (1 + max((camera for _, camera in arrivals), default=0))
    frames = []
    for _, camera in arrivals:
        frames.append((camera, numbers[camera]))
        numbers[camera] += 1
    alive = {frames[index] for index in survivors(arrivals, rate)}
    return [frozenset(number for own, number in alive if own == camera) for camera in range(len(numbers))]


class LiveComparison:
    """One camera's tracks of the slower machine, and those of one that manages every frame, on the same frames.

    chosen: numbers of the frames that the slower machine works on.
    """

    def __init__(self, chosen: Iterable[int]) -> None:
        self._places = {number: place for place, number in enumerate(sorted(chosen))}
        self._size: tuple[int, int] | None = None
        self._live, self._full = ResultsCollector(), ResultsCollector()

    @contextmanager
    def live(self) -> Iterator[Add]:
        """An output for the tracks of the slower machine."""
        yield self._collecting(self._live)

    @contextmanager
    def full(self) -> Iterator[Add]:
        """An output for the tracks of a machine that manages every frame."""
        yield self._collecting(self._full)

    def cost(self, seen: int, ground_truth: GroundTruth | None = None, video_id: int = 1) -> dict[str, Any]:
        """What the dropped frames cost, measured on the others, whatever the class, masks matched from IoU 0.5 up.

        seen: how many frames came along; those after it were not run.
        ``against_full_run``: the slower machine's tracks, where those of the full run are taken for true.
        ``against_ground_truth``, where that is given: ``as_live`` and ``full_run``, both against the truth.
        Raises SourceError where the ground truth does not fit.
        """
        height, width = self._size or (1, 1)
        chosen = [number for number in self._places if number < seen]
        video = Video(1, height, width, len(chosen))
        live, full = self._live.results(1, video.length), self._full.results(1, video.length)
        pseudo = [Annotation(k, 1, 1, entry["segmentations"]) for k, entry in enumerate(full, start=1)]
        cost: dict[str, Any] = {"against_full_run": _measure(video, pseudo, live)}
        if ground_truth is not None:
            truth = _true_objects(ground_truth, video_id, video, chosen)
            cost["against_ground_truth"] = {
                "as_live": _measure(video, truth, live),
                "full_run": _measure(video, truth, full),
            }
        return cost

    def _collecting(self, collector: ResultsCollector) -> Add:
        numbers = RunNumbers()

        def add(frame: Frame, tracks: Tracks) -> None:
            numbered = numbers(tracks)
            self._size = self._size or (tracks.label_map.shape[0], tracks.label_map.shape[1])
            # One video has one size; frames of another size are left out on both sides.
            if frame.number in self._places and self._size == tracks.label_map.shape:
                collector.add(numbered, self._places[frame.number])

        return add


def find_video(ground_truth: GroundTruth, video_id: int) -> Video:
    """The video of that id; SourceError where there is none."""
    own = next((entry for entry in ground_truth.videos if entry.id == video_id), None)
    if own is None:
        raise SourceError(f"{ground_truth.source}: has no video with the id {video_id}; give its id by --video-id")
    return own


def _true_objects(ground_truth: GroundTruth, video_id: int, video: Video, chosen: Sequence[int]) -> list[Annotation]:
    """The true objects in the chosen frames."""
    own = find_video(ground_truth, video_id)
    if (own.height, own.width) != (video.height, video.width) or own.length <= max(chosen, default=0):
        raise SourceError(
            f"{ground_truth.source}: video {own.id} has {own.length} frames of {own.width} x {own.height}, but at "
            f"least {max(chosen, default=0) + 1} frames of {video.width} x {video.height} were run; check the pair"
        )
    return [
        replace(entry, segmentations=[entry.segmentations[k] for k in chosen], areas=None)
        for entry in ground_truth.annotations
        if entry.video_id == video_id
    ]


def _measure(video: Video, truth: Sequence[Annotation], tracks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    results = parse_results(list(tracks), GroundTruth((video,), (), ()))
    overlaps = measure_overlaps(video, truth, results, ("the ground truth", "the run"))
    numbers = count(overlaps.frame_ious(), overlaps.true_areas >= 0, overlaps.predicted_areas >= 0).numbers()
    return {name: numbers[name] for name in NUMBERS}
