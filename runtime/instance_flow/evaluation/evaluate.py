# SPDX-License-Identifier: Apache-2.0
"""How good are results? YouTube-VIS AP and AR, and the tracking numbers HOTA, IDF1 and identity switches, in one go.

AP and AR equal those of the official code of YouTube-VIS, the tracking numbers those of TrackEval. Three things differ:
files that these read wrongly are refused (masks of another size than the video, lists of another length, unknown
videos); an annotation may have the id 0, and a missing ``iscrowd`` means 0; results may be empty.
"""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from instance_flow.evaluation.average_precision import (
    SIZE_LIMITS,
    AveragePrecision,
    DetectionMatches,
    match_video,
    mean_areas,
)
from instance_flow.evaluation.overlaps import Overlaps, measure_overlaps
from instance_flow.evaluation.tracking_metrics import HEADLINE, TrackingMetrics, VideoCounts, count_video
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.json_files import paused_collection
from instance_flow.formats.ytvis import (
    Annotation,
    GroundTruth,
    Result,
    Video,
    load_ground_truth,
    load_results,
    parse_ground_truth,
    parse_results,
)

_logger = logging.getLogger(__name__)

Entry = TypeVar("Entry", Annotation, Result)
Item = TypeVar("Item")
Value = TypeVar("Value")


@paused_collection()
def evaluate(
    ground_truth_path: str | Path,
    results_path: str | Path,
    *,
    score_threshold: float | None = None,
    size_limits: str | tuple[float, float] = "youtube-vis",
    tracking: bool = True,
) -> dict[str, Any]:
    """Measure a results file against its ground truth, both in YouTube-VIS format.

    score_threshold: leaves predictions of a lower score out of the tracking numbers; None takes all of them, as
        TrackEval does. AP and AR always take all.
    size_limits: where small ends and where medium ends, of the mean area in pixels over the frames that show an
        object: "youtube-vis" (the official 128^2 and 256^2), "coco" (32^2 and 96^2), or two areas.
    tracking: False leaves the tracking numbers out, which take a quarter of the time.

    Returns fractions of 1 (IDSW: a count), and -1 where there is no object to measure:

    * ``AP, AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10, AR100, AR_small, AR_medium, AR_large``;
    * ``HOTA, DetA, AssA, IDF1, IDSW``: averaged over the listed categories (``tracking.class_averaged``);
    * ``size_limits``: the two areas in pixels;
    * ``per_size``: AP, AP50, AP75, AR1, AR10, AR100 of small, medium and large objects;
    * ``tracking``: these and their companions (LocA, MOTA, IDTP ...) ``class_averaged``; ``detection_averaged``, of the
      counts of all categories together; and ``class_agnostic``, with all categories taken for one;
    * ``per_class``: by category id, its name, its 12 AP and AR numbers, its ``per_size`` and its tracking numbers.

    Raises SourceError, naming file and entry, for a file that is missing, damaged, or does not fit the other one, and
    ValueError for other size limits.
    """
    settings = _Settings(score_threshold, _check_limits(size_limits), tracking)
    ground_truth = load_ground_truth(ground_truth_path)
    return _evaluate(ground_truth, load_results(results_path, ground_truth), str(results_path), settings)


@paused_collection()
def evaluate_data(
    ground_truth: GroundTruth | Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    score_threshold: float | None = None,
    size_limits: str | tuple[float, float] = "youtube-vis",
    tracking: bool = True,
) -> dict[str, Any]:
    """Measure results in memory as :func:`evaluate` does files: a list of dicts shaped like the entries of the file."""
    settings = _Settings(score_threshold, _check_limits(size_limits), tracking)
    if not isinstance(ground_truth, GroundTruth):
        ground_truth = parse_ground_truth(ground_truth)
    return _evaluate(ground_truth, parse_results(list(results), ground_truth), "results", settings)


@dataclass(frozen=True)
class _Settings:
    score_threshold: float | None
    size_limits: tuple[float, float]
    tracking: bool


@dataclass(frozen=True)
class _VideoEntries:
    video: Video
    annotations: list[Annotation]
    results: list[Result]


def _evaluate(
    ground_truth: GroundTruth, results: Sequence[Result], results_source: str, settings: _Settings
) -> dict[str, Any]:
    category_ids = sorted(category.id for category in ground_truth.categories)
    annotations = _of_listed(ground_truth.annotations, category_ids, ground_truth.source)
    results = _of_listed(results, category_ids, results_source)

    def measure(entries: _VideoEntries) -> tuple[dict[int, DetectionMatches], VideoCounts | None]:
        true, predicted = _category_ids(entries.annotations), _category_ids(entries.results)
        groups = None if settings.tracking else (true, predicted)
        sources = ground_truth.source, results_source
        overlaps = measure_overlaps(entries.video, entries.annotations, entries.results, sources, groups)
        counts = _count(entries, overlaps, settings.score_threshold) if settings.tracking else None
        return _match(entries, overlaps, settings.size_limits), counts

    precision, tracking = AveragePrecision(category_ids), TrackingMetrics(category_ids)
    for matches, counts in _on_all_cores(measure, _by_video(ground_truth, annotations, results)):
        precision.add(matches)
        if counts is not None:
            tracking.add(counts)
    overall, of_category = precision.numbers()
    per_class = {
        category.id: {"name": category.name, **of_category[category.id]} for category in ground_truth.categories
    }
    result = {**overall, "size_limits": list(settings.size_limits), "per_class": per_class}
    return _with_tracking(result, tracking) if settings.tracking else result


def _with_tracking(result: Mapping[str, Any], tracking: TrackingMetrics) -> dict[str, Any]:
    averaged = tracking.class_averaged()
    return {
        **result,
        **{name: averaged[name] for name in HEADLINE},
        "tracking": {
            "class_averaged": averaged,
            "detection_averaged": tracking.detection_averaged(),
            "class_agnostic": tracking.class_agnostic(),
        },
        "per_class": {
            category_id: {**numbers, **tracking.per_category(category_id)}
            for category_id, numbers in result["per_class"].items()
        },
    }


def _on_all_cores(function: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[Value]:
    """Give ``function(item)`` of each item in order; few are under way at a time, so that memory stays small."""
    workers = os.cpu_count() or 1
    waiting: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _match(entries: _VideoEntries, overlaps: Overlaps, size_limits: tuple[float, float]) -> dict[int, DetectionMatches]:
    crowd = np.array([entry.is_crowd for entry in entries.annotations], np.bool_)
    scores = np.array([entry.score for entry in entries.results], np.float64)
    true_areas = _true_areas(entries.annotations, overlaps)
    true, predicted = _category_ids(entries.annotations), _category_ids(entries.results)
    return match_video(overlaps, true, true_areas, crowd, predicted, scores, size_limits)


def _count(entries: _VideoEntries, overlaps: Overlaps, score_threshold: float | None) -> VideoCounts:
    true, predicted = _category_ids(entries.annotations), _category_ids(entries.results)
    if score_threshold is None:
        return count_video(overlaps, true, predicted)
    kept = [row for row, entry in enumerate(entries.results) if entry.score >= score_threshold]
    chosen = Overlaps(overlaps.true_areas, overlaps.predicted_areas[kept], overlaps.common[:, :, kept])
    return count_video(chosen, true, predicted[kept])


def _category_ids(entries: Sequence[Annotation] | Sequence[Result]) -> NDArray[np.int64]:
    return np.array([entry.category_id for entry in entries], np.int64)


def _true_areas(annotations: Sequence[Annotation], overlaps: Overlaps) -> NDArray[np.float64]:
    means = mean_areas(overlaps.true_areas)
    for row, annotation in enumerate(annotations):
        if annotation.areas is not None:
            stated = [area for area in annotation.areas if area]
            means[row] = np.mean(stated) if stated else 0.0
    return means


def _check_limits(size_limits: str | tuple[float, float]) -> tuple[float, float]:
    if isinstance(size_limits, str) and size_limits in SIZE_LIMITS:
        return SIZE_LIMITS[size_limits]
    try:
        small, medium = (float(limit) for limit in size_limits)
    except (TypeError, ValueError):
        raise ValueError(f"size_limits is one of {', '.join(SIZE_LIMITS)}, or two areas, not {size_limits!r}") from None
    if not 0 < small < medium < math.inf:
        raise ValueError(f"size_limits must be two areas in pixels, the smaller one first, not {size_limits}")
    return small, medium


def _of_listed(entries: Iterable[Entry], category_ids: Sequence[int], source: str) -> list[Entry]:
    known = set(category_ids)
    entries = list(entries)
    kept = [entry for entry in entries if entry.category_id in known]
    if len(kept) < len(entries):
        unlisted = sorted({entry.category_id for entry in entries} - known)
        _logger.warning(
            "%s: %d of %d entries are left out, as the ground truth does not list their category ids %s",
            *(source, len(entries) - len(kept), len(entries), shown(unlisted)),
        )
    return kept


def _by_video(
    ground_truth: GroundTruth, annotations: Iterable[Annotation], results: Iterable[Result]
) -> list[_VideoEntries]:
    videos = {video.id: _VideoEntries(video, [], []) for video in sorted(ground_truth.videos, key=lambda v: v.id)}
    for annotation in annotations:
        videos[annotation.video_id].annotations.append(annotation)
    for result in results:
        videos[result.video_id].results.append(result)
    return [entries for entries in videos.values() if entries.annotations or entries.results]
