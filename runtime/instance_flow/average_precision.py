# SPDX-License-Identifier: Apache-2.0
"""Average precision and recall of video instance segmentation, as YouTube-VIS and its leaderboards define them.

A prediction matches a true object of its category and video where the IoU over the whole video reaches a threshold
(.50, .55 ... .95). All predictions of a category are pooled by score; the precision, made non-increasing, is read at
101 recalls; AP is the mean over recalls, thresholds and categories. AR is the recall reached with at most 1, 10 or 100
predictions per video and category. (Metric: Yang, Fan, Xu, Video Instance Segmentation, ICCV 2019; numbers equal those
of github.com/youtubevos/cocoapi, ties and limits included.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.overlaps import Overlaps

STATS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
NOTHING_TO_MEASURE = -1.0

_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_SIZES = np.array([[0, 1e10], [0, 128**2], [128**2, 256**2], [256**2, 1e10]])
"""Mean areas in pixels of all, small, medium and large objects, both ends included."""
_LIMITS = (1, 10, 100)
_CURVES = ((0, 1), (0, 10), (0, 100), (1, 100), (2, 100), (3, 100))
"""Size and limit of the six recalls."""


class AveragePrecision:
    """Collects matches video by video, in ascending order of video id, and sums them up over all categories."""

    def __init__(self, category_ids: Sequence[int]) -> None:
        self._categories = {category_id: _Category() for category_id in category_ids}

    def add(
        self,
        overlaps: Overlaps,
        true_categories: NDArray[np.int64],
        true_sizes: NDArray[np.float64],
        crowd: NDArray[np.bool_],
        predicted_categories: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> None:
        """Match the objects of one video.

        true_categories: (G,) category ids.   true_sizes: (G,) mean area in pixels.   crowd: (G,)
        predicted_categories: (P,) category ids.   scores: (P,) float64.
        """
        ious = overlaps.video_ious()
        predicted_sizes = mean_areas(overlaps.predicted_areas)
        for category_id in np.union1d(true_categories, predicted_categories).tolist():
            true = np.flatnonzero(true_categories == category_id)
            predicted = np.flatnonzero(predicted_categories == category_id)
            best = predicted[np.argsort(-scores[predicted], kind="stable")[: _LIMITS[-1]]]
            ignored = crowd[true] | _outside(true_sizes[true])
            found, dropped = _match(
                ious[np.ix_(true, best)], crowd[true], ignored, _outside(predicted_sizes[best]), _THRESHOLDS
            )
            self._categories[category_id].add(scores[best], found, dropped, (~ignored).sum(axis=1))

    def stats(self, category_id: int | None = None) -> dict[str, float]:
        """Give the numbers named in STATS, of one category or the mean over all; -1 where there was no true object."""
        chosen = self._categories.values() if category_id is None else [self._categories[category_id]]
        precisions = np.array([category.precisions() for category in chosen]).reshape(-1, len(_SIZES), len(_THRESHOLDS))
        recalls = np.array([category.recalls() for category in chosen]).reshape(-1, len(_CURVES), len(_THRESHOLDS))
        parts = [precisions[:, 0], precisions[:, 0, 0], precisions[:, 0, 5]]
        parts += [precisions[:, size] for size in (1, 2, 3)] + [recalls[:, curve] for curve in range(len(_CURVES))]
        return dict(zip(STATS, map(_mean_of_measured, parts), strict=True))


class _Category:
    """The matches of one category over all videos; S = 4 sizes, H = 10 thresholds."""

    def __init__(self) -> None:
        self._scores: list[NDArray[np.float64]] = []
        self._ranks: list[NDArray[np.int64]] = []
        self._found: list[NDArray[np.bool_]] = []
        self._dropped: list[NDArray[np.bool_]] = []
        self._objects = np.zeros(len(_SIZES), np.int64)

    def add(
        self,
        scores: NDArray[np.float64],
        found: NDArray[np.bool_],
        dropped: NDArray[np.bool_],
        objects: NDArray[np.int64],
    ) -> None:
        """Take one video. scores: (P,), best first.   found, dropped: (S, H, P).   objects: (S,) true ones to find."""
        self._scores.append(scores)
        self._ranks.append(np.arange(len(scores)))
        self._found.append(found)
        self._dropped.append(dropped)
        self._objects += objects

    def precisions(self) -> NDArray[np.float64]:
        """Give the mean precision over recalls (S, H); NaN where there is no object."""
        result = np.full((len(_SIZES), len(_THRESHOLDS)), np.nan)
        measured = np.flatnonzero(self._objects)
        if not len(measured):
            return result
        order = np.argsort(-np.concatenate(self._scores), kind="stable")
        found, dropped = np.concatenate(self._found, axis=2), np.concatenate(self._dropped, axis=2)
        for size in measured:
            true_positives = np.cumsum(found[size][:, order], axis=1, dtype=np.float64)
            false_positives = np.cumsum(~(found | dropped)[size][:, order], axis=1, dtype=np.float64)
            recall = true_positives / self._objects[size]
            precision = true_positives / (true_positives + false_positives + np.spacing(1))
            falling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            for h in range(len(_THRESHOLDS)):
                reached = np.searchsorted(recall[h], _RECALLS, side="left")
                result[size, h] = np.append(falling[h], 0.0)[reached].mean()
        return result

    def recalls(self) -> NDArray[np.float64]:
        """Give the recall of each curve (6, H); NaN where there is no object."""
        result = np.full((len(_CURVES), len(_THRESHOLDS)), np.nan)
        if not self._objects.any():
            return result
        ranks, found = np.concatenate(self._ranks), np.concatenate(self._found, axis=2)
        for curve, (size, limit) in enumerate(_CURVES):
            if self._objects[size]:
                result[curve] = found[size][:, ranks < limit].sum(axis=1) / self._objects[size]
        return result


def mean_areas(areas: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the mean area over the frames that show the object, (N, T) -> (N,); 0 for one that is never seen."""
    seen = areas > 0
    return np.where(seen, areas, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)


def _outside(sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (sizes < _SIZES[:, :1]) | (sizes > _SIZES[:, 1:])


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
