# SPDX-License-Identifier: Apache-2.0
"""Average precision and recall of video instance segmentation, as YouTube-VIS and its leaderboards define them.

A prediction matches a true object of its category and video where the IoU over the whole video reaches a threshold
(.50, .55 ... .95). All predictions of a category are pooled by score; the precision, made non-increasing, is read at
101 recalls; AP is the mean over recalls, thresholds and categories. AR is the recall reached with at most 1, 10 or 100
predictions per video and category. (Metric: Yang, Fan, Xu, Video Instance Segmentation, ICCV 2019; numbers equal those
of github.com/youtubevos/cocoapi, ties and limits included.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.evaluation.overlaps import Overlaps

STATS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
NOTHING_TO_MEASURE = -1.0
SIZES = ("small", "medium", "large")
SIZE_LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"youtube-vis": (128.0**2, 256.0**2), "coco": (32.0**2, 96.0**2)}
)
"""Mean areas in pixels at which small and medium end: the official ones of YouTube-VIS, and those of COCO."""

_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_LIMITS = (1, 10, 100)
_HIGHEST = 1e10


@dataclass(frozen=True)
class DetectionMatches:
    """Matches of P predictions of one category, highest score first, at S = 4 sizes (all, then SIZES) and H = 10
    thresholds.

    scores: (P,) float64.   found: (S, H, P), matches a true object that counts.   dropped: (S, H, P), counts neither as
    right nor as wrong.   objects: (S,) int64, true ones to find.
    """

    scores: NDArray[np.float64]
    found: NDArray[np.bool_]
    dropped: NDArray[np.bool_]
    objects: NDArray[np.int64]


def match_video(
    overlaps: Overlaps,
    true_categories: NDArray[np.int64],
    true_areas: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    predicted_categories: NDArray[np.int64],
    scores: NDArray[np.float64],
    size_limits: tuple[float, float],
) -> dict[int, DetectionMatches]:
    """Match the G true objects and P predictions of one video; gives matches by category id.

    true_categories: (G,) category ids.   true_areas: (G,) mean area in pixels.   crowd: (G,)
    predicted_categories: (P,) category ids.   scores: (P,) float64.   size_limits: mean areas, as in SIZE_LIMITS.
    """
    ious = overlaps.video_ious()
    crowd_or_outside = crowd | _outside(true_areas, size_limits)
    outside = _outside(mean_areas(overlaps.predicted_areas), size_limits)
    matches = {}
    for category_id in np.union1d(true_categories, predicted_categories).tolist():
        true = np.flatnonzero(true_categories == category_id)
        predicted = np.flatnonzero(predicted_categories == category_id)
        best = predicted[np.argsort(-scores[predicted], kind="stable")[: _LIMITS[-1]]]
        # Column by column in memory would be another type to numba, and one more compilation.
        ignored, not_of_size = np.ascontiguousarray(crowd_or_outside[:, true]), np.ascontiguousarray(outside[:, best])
        found, dropped = _match(ious[np.ix_(true, best)], crowd[true], ignored, not_of_size, _THRESHOLDS)
        matches[category_id] = DetectionMatches(scores[best], found, dropped, (~ignored).sum(axis=1))
    return matches


class AveragePrecision:
    """Collects matches video by video, in ascending order of video id, and sums them up over all categories."""

    def __init__(self, category_ids: Sequence[int]) -> None:
        self._matches: dict[int, list[DetectionMatches]] = {category_id: [] for category_id in category_ids}

    def add(self, matches: Mapping[int, DetectionMatches]) -> None:
        """Take the matches of one video."""
        for category_id, of_category in matches.items():
            self._matches[category_id].append(of_category)

    def numbers(self) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
        """Give the numbers named in STATS, as the mean over all categories and of each; -1 without a true object.

        Each also has ``per_size``: AP, AP50, AP75, AR1, AR10 and AR100 by size.
        """
        each = {category_id: _pool(matches) for category_id, matches in self._matches.items()}
        return _numbers(list(each.values())), {category_id: _numbers([curves]) for category_id, curves in each.items()}


@dataclass(frozen=True)
class _Curves:
    """What one category reaches at S = 4 sizes and H = 10 thresholds; NaN where there is no object of that size.

    precision: (S, H), mean over recalls.   recall: (S, H, 3), at most 1, 10 and 100 predictions per video.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def _pool(videos: Sequence[DetectionMatches]) -> _Curves:
    """Take the predictions of all videos together."""
    shape = 1 + len(SIZES), len(_THRESHOLDS)
    curves = _Curves(np.full(shape, np.nan), np.full((*shape, len(_LIMITS)), np.nan))
    objects = sum((matches.objects for matches in videos), np.zeros(shape[0], np.int64))
    if not objects.any():
        return curves
    order = np.argsort(-np.concatenate([matches.scores for matches in videos]), kind="stable")
    ranks = np.concatenate([np.arange(len(matches.scores)) for matches in videos])[order]
    found = np.concatenate([matches.found for matches in videos], axis=2)[:, :, order]
    dropped = np.concatenate([matches.dropped for matches in videos], axis=2)[:, :, order]
    for size in np.flatnonzero(objects):
        curves.precision[size] = _mean_precision(found[size], dropped[size], objects[size])
        for k, limit in enumerate(_LIMITS):
            curves.recall[size, :, k] = found[size][:, ranks < limit].sum(axis=1) / objects[size]
    return curves


def mean_areas(areas: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the mean area over the frames that show the object, (N, T) -> (N,); 0 for one that is never seen."""
    seen = areas > 0
    return np.where(seen, areas, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)


def _outside(areas: NDArray[np.float64], size_limits: tuple[float, float]) -> NDArray[np.bool_]:
    """Give which of N areas are outside of each size (S, N). Both ends belong to a size: a limit itself to two."""
    small, medium = size_limits
    lowest, highest = np.array([[0, _HIGHEST], [0, small], [small, medium], [medium, _HIGHEST]]).T[:, :, None]
    return (areas < lowest) | (areas > highest)


def _mean_precision(found: NDArray[np.bool_], dropped: NDArray[np.bool_], objects: int) -> NDArray[np.float64]:
    """Give the mean precision over recalls (H,) of predictions, best first; found, dropped: (H, P)."""
    true_positives = np.cumsum(found, axis=1, dtype=np.float64)
    false_positives = np.cumsum(~(found | dropped), axis=1, dtype=np.float64)
    recall = true_positives / objects
    precision = true_positives / (true_positives + false_positives + np.spacing(1))
    falling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = [np.searchsorted(row, _RECALLS, side="left") for row in recall]
    return np.array([np.append(row, 0.0)[ranks].mean() for row, ranks in zip(falling, reached, strict=True)])


def _numbers(curves: Sequence[_Curves]) -> dict[str, Any]:
    """Average over categories, of which there may be none."""
    shape = -1, 1 + len(SIZES), len(_THRESHOLDS)
    precision = np.array([category.precision for category in curves]).reshape(shape)
    recall = np.array([category.recall for category in curves]).reshape(*shape, len(_LIMITS))
    of_all, *of_sizes = (_numbers_of_size(precision[:, size], recall[:, size]) for size in range(1 + len(SIZES)))
    per_size = dict(zip(SIZES, of_sizes, strict=True))
    of_all |= {f"AP_{size}": numbers["AP"] for size, numbers in per_size.items()}
    of_all |= {f"AR_{size}": numbers["AR100"] for size, numbers in per_size.items()}
    return {**{name: of_all[name] for name in STATS}, "per_size": per_size}


def _numbers_of_size(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    parts = {"AP": precision, "AP50": precision[:, 0], "AP75": precision[:, 5]}
    parts |= {f"AR{limit}": recall[:, :, k] for k, limit in enumerate(_LIMITS)}
    return {name: _mean_of_measured(values) for name, values in parts.items()}


def _mean_of_measured(values: NDArray[np.float64]) -> float:
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else NOTHING_TO_MEASURE


@njit(cache=True, nogil=True)
def _match(
    ious: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match predictions, best first, to the true objects of one video and category.

    ious: (G, P).   crowd: (G,).   ignored: (S, G) objects that are not to be found at that size.
    outside: (S, P) predictions that are not of that size.   thresholds: (H,).
    Returns found and dropped, both (S, H, P); a prediction that is neither is a false positive.
    """
    found = np.zeros((len(ignored), len(thresholds), ious.shape[1]), np.bool_)
    dropped = np.zeros_like(found)
    for s in range(len(ignored)):
        for h in range(len(thresholds)):
            taken = np.zeros(len(crowd), np.bool_)
            for p in range(ious.shape[1]):
                best, best_iou = -1, min(thresholds[h], 1 - 1e-10)
                for skipped in (False, True):
                    # An ignored object is only for a prediction that fits no other; of equals, the last one is taken.
                    for g in range(len(crowd) if best < 0 else 0):
                        free = crowd[g] or not taken[g]
                        if free and ignored[s, g] == skipped and ious[g, p] >= best_iou:
                            best, best_iou = g, ious[g, p]
                if best >= 0:
                    taken[best] = True
                found[s, h, p] = best >= 0 and not ignored[s, best]
                dropped[s, h, p] = ignored[s, best] if best >= 0 else outside[s, p]
    return found, dropped
