# SPDX-License-Identifier: Apache-2.0
"""How good are results? YouTube-VIS AP and AR, and the tracking numbers HOTA, IDF1 and identity switches, in one go.

The AP and AR equal those of the official code of YouTube-VIS, the tracking numbers those of TrackEval, but that files
which these read wrongly are refused here (masks of another size than the video, lists of another length, unknown
videos), that an annotation may have the id 0, that a missing ``iscrowd`` means 0, and that results may be empty.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from instance_flow.average_precision import NOTHING_TO_MEASURE, AveragePrecision, mean_areas
from instance_flow.overlaps import Overlaps, measure_overlaps
from instance_flow.tracking_metrics import TrackingMetrics
from instance_flow.ytvis import (
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

_TRACKING = ("HOTA", "DetA", "AssA", "IDF1", "IDSW")
_COUNTED = "IDSW"
_TABLE = (*("AP", "AP50", "AP75", "AR1", "AR10"), *_TRACKING)
_SIZE_TABLE = ("small", "medium", "large")

Entry = TypeVar("Entry", Annotation, Result)


def evaluate(
    ground_truth_path: str | Path, results_path: str | Path, *, score_threshold: float | None = None
) -> dict[str, Any]:
    """Measure a results file against its ground truth, both in YouTube-VIS format.

    score_threshold: leaves predictions of a lower score out of the tracking numbers; None takes all of them, as
        TrackEval does. AP and AR always take all.

    Returns fractions of 1 (IDSW: a count), and -1 where there is no object to measure:

    * ``AP, AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10, AR100, AR_small, AR_medium, AR_large``;
    * ``HOTA, DetA, AssA, IDF1, IDSW``: averaged over the listed categories (``tracking.class_averaged``);
    * ``tracking``: these and their companions (LocA, MOTA, IDTP ...) ``class_averaged``; ``detection_averaged``, of the
      counts of all categories together; and ``class_agnostic``, with all categories taken for one;
    * ``per_class``: by category id, its name, its 12 AP and AR numbers and its tracking numbers.

    Raises SourceError, naming file and entry, for a file that is missing, damaged, or does not fit the other one.
    """
    ground_truth = load_ground_truth(ground_truth_path)
    return _evaluate(ground_truth, load_results(results_path, ground_truth), str(results_path), score_threshold)


def evaluate_data(
    ground_truth: GroundTruth | Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    score_threshold: float | None = None,
) -> dict[str, Any]:
    """Measure results in memory as :func:`evaluate` does files: a list of dicts shaped like the entries of the file."""
    if not isinstance(ground_truth, GroundTruth):
        ground_truth = parse_ground_truth(ground_truth)
    return _evaluate(ground_truth, parse_results(list(results), ground_truth), "results", score_threshold)


def format_table(result: Mapping[str, Any]) -> str:
    """Lay out what :func:`evaluate` returns for people, in percent; "-" where there is no object to measure."""
    rows = [["", *_TABLE], ["all", *(_cell(result, name) for name in _TABLE)]]
    if len(result["per_class"]) > 1:
        rows += [[row["name"], *(_cell(row, name) for name in _TABLE)] for row in result["per_class"].values()]
    agnostic = result["tracking"]["class_agnostic"]
    rows.append(["as one class", *(_cell(agnostic, name) if name in _TRACKING else "" for name in _TABLE)])
    sizes = [["", "AP", "AR100"]]
    sizes += [[size, _cell(result, f"AP_{size}"), _cell(result, f"AR_{size}")] for size in _SIZE_TABLE]
    return f"{_align(rows)}\n\n{_align(sizes)}\n\nIn percent; IDSW is a count."


@dataclass(frozen=True)
class _VideoEntries:
    video: Video
    annotations: list[Annotation]
    results: list[Result]


def _evaluate(
    ground_truth: GroundTruth, results: Sequence[Result], results_source: str, score_threshold: float | None
) -> dict[str, Any]:
    category_ids = sorted(category.id for category in ground_truth.categories)
    annotations = _of_listed(ground_truth.annotations, category_ids, ground_truth.source)
    results = _of_listed(results, category_ids, results_source)
    precision, tracking = AveragePrecision(category_ids), TrackingMetrics(category_ids)
    for entries in _by_video(ground_truth, annotations, results):
        overlaps = measure_overlaps(
            entries.video, entries.annotations, entries.results, (ground_truth.source, results_source)
        )
        _add_video(entries, overlaps, precision, tracking, score_threshold)
    averaged = tracking.class_averaged()
    return {
        **precision.stats(),
        **{name: averaged[name] for name in _TRACKING},
        "tracking": {
            "class_averaged": averaged,
            "detection_averaged": tracking.detection_averaged(),
            "class_agnostic": tracking.class_agnostic(),
        },
        "per_class": {
            category.id: {"name": category.name, **precision.stats(category.id), **tracking.per_category(category.id)}
            for category in ground_truth.categories
        },
    }


def _add_video(
    entries: _VideoEntries,
    overlaps: Overlaps,
    precision: AveragePrecision,
    tracking: TrackingMetrics,
    score_threshold: float | None,
) -> None:
    true_categories = np.array([entry.category_id for entry in entries.annotations], np.int64)
    predicted_categories = np.array([entry.category_id for entry in entries.results], np.int64)
    scores = np.array([entry.score for entry in entries.results], np.float64)
    crowd = np.array([entry.is_crowd for entry in entries.annotations], np.bool_)
    sizes = _true_sizes(entries.annotations, overlaps)
    precision.add(overlaps, true_categories, sizes, crowd, predicted_categories, scores)
    if score_threshold is None:
        tracking.add(overlaps, true_categories, predicted_categories)
    else:
        kept = np.flatnonzero(scores >= score_threshold)
        chosen = Overlaps(overlaps.true_areas, overlaps.predicted_areas[kept], overlaps.common[:, :, kept])
        tracking.add(chosen, true_categories, predicted_categories[kept])


def _true_sizes(annotations: Sequence[Annotation], overlaps: Overlaps) -> NDArray[np.float64]:
    sizes = mean_areas(overlaps.true_areas)
    for row, annotation in enumerate(annotations):
        if annotation.areas is not None:
            stated = [area for area in annotation.areas if area]
            sizes[row] = np.mean(stated) if stated else 0.0
    return sizes


def _of_listed(entries: Iterable[Entry], category_ids: Sequence[int], source: str) -> list[Entry]:
    known = set(category_ids)
    entries = list(entries)
    kept = [entry for entry in entries if entry.category_id in known]
    if len(kept) < len(entries):
        unlisted = sorted({entry.category_id for entry in entries} - known)
        _logger.warning(
            "%s: %d of %d entries are left out, as the ground truth does not list their category ids %s",
            *(source, len(entries) - len(kept), len(entries), unlisted),
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
    return list(videos.values())


def _cell(numbers: Mapping[str, Any], name: str) -> str:
    value = numbers[name]
    if name == _COUNTED:
        return str(value)
    return "-" if value == NOTHING_TO_MEASURE else f"{100 * value:.1f}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    first = max(len(row[0]) for row in rows)
    lines = ("  ".join([row[0].ljust(first), *(cell.rjust(5) for cell in row[1:])]) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
