# SPDX-License-Identifier: Apache-2.0
"""Statistics of a run, gathered frame by frame. A long run needs no more memory than a short one, but for
one number per id: curves are kept in ever wider steps, and of very many tracks those that were seen most.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from instance_flow.structures import NEW, FloatArray, Tracks

OLDER = 5
"""References of so many frames before and more are counted together."""
BY_APPEARANCE = -1
"""Stands for no reference at all: an id re-identified by appearance."""

_SCORE_PARTS = 40
_CURVE_STEPS = 1024
_MOST_RECORDS = 1000
_MOST_SPANS = 64
_MOST_RECOVERIES = 12
_MOST_REASONS = 10


@dataclass(frozen=True)
class Recovery:
    """A track that was found again at ``frame`` after ``missed`` frames; ``reference_frame`` (NEW = none) kept its id,
    and its center there lay ``distance`` pixels from where the instance flow led."""

    frame: int
    missed: int
    reference_frame: int
    distance: float


@dataclass
class TrackRecord:
    """One track's history.

    class_id: by the votes so far.   spans: first and last frame of each time that it was seen without a gap; where
    these are very many, the smallest gaps between them are closed.   recoveries: the first few.
    path: pixels that its center moved.   distances, kept: sum and number of the distances that kept its id.
    """

    track_id: int
    class_id: int
    spans: list[tuple[int, int]]
    center: FloatArray
    seen: int = 0
    scores: float = 0.0
    path: float = 0.0
    distances: float = 0.0
    kept: int = 0
    longest_gap: int = 0
    recoveries: list[Recovery] = field(default_factory=list)

    @property
    def first(self) -> int:
        """Frame in which it was seen first."""
        return self.spans[0][0]

    @property
    def last(self) -> int:
        """Frame in which it was seen last."""
        return self.spans[-1][1]

    @property
    def mean_score(self) -> float:
        """Over the frames that show it."""
        return self.scores / max(1, self.seen)

    @property
    def mean_distance(self) -> float:
        """Pixels, over the frames in which a reference kept its id; NaN if none did."""
        return self.distances / self.kept if self.kept else math.nan

    def add(self, tracks: Tracks, row: int) -> None:
        """Take the next frame that shows it."""
        frame, distance = tracks.frame_index, float(tracks.distances[row])
        missed = frame - self.last - 1
        if missed > 0:
            self.longest_gap = max(self.longest_gap, missed)
            if len(self.recoveries) < _MOST_RECOVERIES:
                self.recoveries.append(Recovery(frame, missed, int(tracks.reference_frames[row]), distance))
            self.spans.append((frame, frame))
        else:
            self.spans[-1] = (self.spans[-1][0], frame)
        if len(self.spans) > _MOST_SPANS:
            self._close_smallest_gap()
        self.path += float(np.hypot(*(tracks.centers[row] - self.center)))
        self.center = tracks.centers[row]
        self.class_id = int(tracks.class_ids[row])
        self.seen += 1
        self.scores += float(tracks.scores[row])
        if math.isfinite(distance):
            self.distances += distance
            self.kept += 1

    def _close_smallest_gap(self) -> None:
        gaps = [after[0] - before[1] for before, after in zip(self.spans, self.spans[1:], strict=False)]
        k = int(np.argmin(gaps))
        self.spans[k : k + 2] = [(self.spans[k][0], self.spans[k + 1][1])]


class Curve:
    """One value per frame, kept as the mean and the largest of every ``step`` frames; steps double as it grows."""

    def __init__(self, capacity: int = _CURVE_STEPS):
        if capacity < 2 or capacity % 2:
            raise ValueError(f"the capacity of a curve is {capacity}; it must be even, so that steps can be joined")
        self.step = 1
        self._capacity = capacity
        self._sums: list[float] = []
        self._largest: list[float] = []
        self._filled = 0

    def add(self, value: float) -> None:
        """Take the next frame's value."""
        if not self._sums or self._filled == self.step:
            if len(self._sums) == self._capacity:
                self._join()
            self._sums.append(0.0)
            self._largest.append(-math.inf)
            self._filled = 0
        self._sums[-1] += value
        self._largest[-1] = max(self._largest[-1], value)
        self._filled += 1

    @property
    def means(self) -> list[float]:
        """Mean of each step, in order; the last one may not be full yet."""
        return [total / (self._filled if k == len(self._sums) - 1 else self.step) for k, total in enumerate(self._sums)]

    @property
    def largest(self) -> list[float]:
        """Largest value of each step."""
        return list(self._largest)

    def _join(self) -> None:
        self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
        self._largest = [max(pair) for pair in zip(self._largest[::2], self._largest[1::2], strict=True)]
        self.step *= 2


class Latencies:
    """How long frames took, counted in classes 1 % wide, so that any percentile is right to 0.5 %."""

    _FASTEST, _RATIO, _CLASSES = 1e-6, 1.01, 2400

    def __init__(self) -> None:
        self.counts = np.zeros(self._CLASSES, np.int64)
        self.edges = self._FASTEST * self._RATIO ** np.arange(self._CLASSES + 1)
        """Seconds at which the classes begin and end."""

    def add(self, seconds: float) -> None:
        """Count one frame."""
        place = math.log(max(seconds, self._FASTEST) / self._FASTEST, self._RATIO)
        self.counts[min(int(place), self._CLASSES - 1)] += 1

    def percentile(self, percent: float) -> float:
        """Percentile of the seconds per frame; NaN without frames."""
        total = int(self.counts.sum())
        if not total:
            return math.nan
        rank = max(1, math.ceil(total * percent / 100))
        k = int(np.searchsorted(np.cumsum(self.counts), rank))
        return float(np.sqrt(self.edges[k] * self.edges[k + 1]))


class Statistics:
    """The statistics of one camera's run.

    frames, objects: numbers of frames, and of rows of their tracks.   size: (height, width) of the frames.
    ids: class_id, by the last votes, of every id.   class_objects: rows per class_id.
    kept: rows by how many frames before lay the reference that kept the id (OLDER = so many or more, 0 = new id,
        BY_APPEARANCE = none).
    scores: (40,) int64, rows by score, in equal parts of 0 to 1.
    elapsed: seconds of the whole run, with reading, drawing and writing.   interrupted: stopped before the end.
    seen: frames that came along, with those that were refused or dropped.   refused: those that could not be used.
    jitter: frames whose stamp ran back a little.   with_depth: those that came with depth.
    refusals, breaks: the first few reasons, and the first few things that broke the stream.
    """

    def __init__(self) -> None:
        self.frames = self.objects = 0
        self.size = (0, 0)
        self.ids: dict[int, int] = {}
        self.class_objects: Counter[int] = Counter()
        self.kept: Counter[int] = Counter()
        self.scores = np.zeros(_SCORE_PARTS, np.int64)
        self.latencies = Latencies()
        self.latency_curve, self.object_curve = Curve(), Curve()
        self.elapsed = 0.0
        self.interrupted = False
        self.seen = self.refused = self.jitter = self.with_depth = 0
        self.refusals: list[str] = []
        self.breaks: list[str] = []
        self._records: dict[int, TrackRecord] = {}

    @property
    def records(self) -> list[TrackRecord]:
        """The tracks by id; where there were very many, only those that were seen most."""
        return [self._records[track_id] for track_id in sorted(self._records)]

    def latency_ms(self, percentile: float) -> float:
        """Percentile of the milliseconds from image to tracks; NaN without frames."""
        return self.latencies.percentile(percentile) * 1e3

    def refuse(self, reason: str) -> None:
        """Count a frame that could not be used."""
        self.refused += 1
        if len(self.refusals) < _MOST_REASONS:
            self.refusals.append(reason)

    def note_break(self, reason: str) -> None:
        """Note the reason for an interruption or a reset of the stream."""
        if len(self.breaks) < _MOST_REASONS:
            self.breaks.append(reason)

    def add(self, tracks: Tracks, seconds: float) -> None:
        """Take the next frame, and the seconds that its step took. Ids and frame_index must continue through resets
        (``replay.numbers``)."""
        self.frames += 1
        self.objects += len(tracks)
        self.size = (tracks.label_map.shape[0], tracks.label_map.shape[1])
        self.latencies.add(seconds)
        self.latency_curve.add(seconds)
        self.object_curve.add(len(tracks))
        parts = np.clip(tracks.scores * _SCORE_PARTS, 0, _SCORE_PARTS - 1).astype(np.int64)
        self.scores += np.bincount(parts, minlength=_SCORE_PARTS)
        for row, track_id in enumerate(tracks.ids.tolist()):
            self._add_row(tracks, row, track_id)
        if len(self._records) > 2 * _MOST_RECORDS:
            self._drop_records(tracks.frame_index)

    def _add_row(self, tracks: Tracks, row: int, track_id: int) -> None:
        frame, class_id = tracks.frame_index, int(tracks.class_ids[row])
        self.ids[track_id] = class_id
        self.class_objects[class_id] += 1
        self.kept[_kept_by(tracks, row)] += 1
        if track_id not in self._records:
            self._records[track_id] = TrackRecord(track_id, class_id, [(frame, frame)], tracks.centers[row])
        self._records[track_id].add(tracks, row)

    def _drop_records(self, frame: int) -> None:
        """Keep the longest of the tracks, and those that are seen now."""
        longest = sorted(self._records.values(), key=lambda r: (r.last == frame, r.seen), reverse=True)
        self._records = {record.track_id: record for record in longest[:_MOST_RECORDS]}


def _kept_by(tracks: Tracks, row: int) -> int:
    """What kept a row's id, as ``Statistics.kept`` counts it."""
    reference = int(tracks.reference_frames[row])
    if reference == NEW:
        return 0
    return min(tracks.frame_index - reference, OLDER) if math.isfinite(tracks.distances[row]) else BY_APPEARANCE
