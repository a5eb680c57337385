# SPDX-License-Identifier: Apache-2.0
"""How well identities are kept: HOTA, CLEAR (identity switches, MOTA) and Identity (IDF1), counted frame by frame.

HOTA: Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, IJCV 2021. CLEAR: Bernardin and
Stiefelhagen, 2008. IDF1: Ristani et al., 2016. The numbers equal those of github.com/JonathonLuiten/TrackEval for its
data set YouTubeVIS: every prediction is a track whatever its score, a group (iscrowd) is an object like any other, and
an empty mask is a detection that overlaps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.assembly.assignment import assign
from instance_flow.evaluation.overlaps import ABSENT, Overlaps

HEADLINE = ("HOTA", "DetA", "AssA", "IDF1", "IDSW")

_ALPHAS = np.arange(0.05, 0.99, 0.05)
_THRESHOLD = 0.5
_EPSILON = float(np.finfo("float").eps)
_SUMMED = ("IDSW", "CLR_TP", "CLR_FN", "CLR_FP", "MT", "PT", "ML", "Frag", "IDTP", "IDFN", "IDFP")
"""Numbers that are counts: averaging over categories adds them up."""


@dataclass
class Counts:
    """Sums over videos; all metrics are computed from them.

    hota: (7, 19) float64 per IoU alpha: true positives, misses, false positives, and summed over the true positives:
        IoU, association accuracy, recall and precision.
    clear: (9,) float64: switches, true positives, misses, false positives, objects mostly / partly / hardly tracked,
        fragments, and IoU summed over true positives.
    identity: (3,) float64: true positives, misses, false positives.
    """

    hota: NDArray[np.float64] = field(default_factory=lambda: np.zeros((7, len(_ALPHAS))))
    clear: NDArray[np.float64] = field(default_factory=lambda: np.zeros(9))
    identity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def add(self, other: Counts) -> None:
        """Add the sums of other videos or categories."""
        self.hota += other.hota
        self.clear += other.clear
        self.identity += other.identity

    def numbers(self) -> dict[str, float]:
        """Give HOTA, DetA, AssA, IDF1, IDSW and their companions: fractions, and whole counts."""
        return {**_hota_numbers(self.hota), **_clear_numbers(self.clear), **_identity_numbers(self.identity)}


@dataclass(frozen=True)
class VideoCounts:
    """Counts of one video with all categories taken for one, and by category id."""

    agnostic: Counts
    per_category: dict[int, Counts]


class TrackingMetrics:
    """Collects counts video by video, per category and with all categories taken for one."""

    def __init__(self, category_ids: Sequence[int]) -> None:
        self._categories = {category_id: Counts() for category_id in category_ids}
        self._agnostic = Counts()

    def add(self, video: VideoCounts) -> None:
        """Take the counts of one video."""
        self._agnostic.add(video.agnostic)
        for category_id, counts in video.per_category.items():
            self._categories[category_id].add(counts)

    def per_category(self, category_id: int) -> dict[str, float]:
        """Give the numbers of one category."""
        return self._categories[category_id].numbers()

    def class_averaged(self) -> dict[str, float]:
        """Give the mean over all categories, where one without any object and prediction counts 0; counts are sums."""
        every = [counts.numbers() for counts in self._categories.values()] or [Counts().numbers()]
        sums = {name: sum(numbers[name] for numbers in every) for name in every[0]}
        return {name: total if name in _SUMMED else total / len(every) for name, total in sums.items()}

    def detection_averaged(self) -> dict[str, float]:
        """Give the numbers of the counts of all categories added up."""
        total = Counts()
        for counts in self._categories.values():
            total.add(counts)
        return total.numbers()

    def class_agnostic(self) -> dict[str, float]:
        """Give the numbers with every object and prediction taken as of one category."""
        return self._agnostic.numbers()


def count_video(
    overlaps: Overlaps, true_categories: NDArray[np.int64], predicted_categories: NDArray[np.int64]
) -> VideoCounts:
    """Count one video. true_categories: (G,) and predicted_categories: (P,) category ids."""
    ious = overlaps.frame_ious()
    true_shown, predicted_shown = overlaps.true_areas != ABSENT, overlaps.predicted_areas != ABSENT
    per_category = {}
    for category_id in np.union1d(true_categories, predicted_categories).tolist():
        true = np.flatnonzero(true_categories == category_id)
        predicted = np.flatnonzero(predicted_categories == category_id)
        per_category[category_id] = count(ious[:, true][:, :, predicted], true_shown[true], predicted_shown[predicted])
    return VideoCounts(count(ious, true_shown, predicted_shown), per_category)


def count(ious: NDArray[np.float64], true_shown: NDArray[np.bool_], predicted_shown: NDArray[np.bool_]) -> Counts:
    """Count the tracks of T frames. ious: (T, G, P); true_shown: (G, T) and predicted_shown: (P, T), has a mask."""
    ious = np.ascontiguousarray(ious)
    true_shown, predicted_shown = np.ascontiguousarray(true_shown), np.ascontiguousarray(predicted_shown)
    true_frames, predicted_frames = true_shown.sum(axis=1), predicted_shown.sum(axis=1)
    alignment = _alignment(ious, true_frames, predicted_frames)
    hota = _count_hota(ious, alignment, true_shown, predicted_shown, true_frames, predicted_frames, _ALPHAS - _EPSILON)
    hota[1], hota[2] = true_frames.sum() - hota[0], predicted_frames.sum() - hota[0]
    clear = _count_clear(ious, true_shown, predicted_shown, true_frames, _THRESHOLD - _EPSILON, _EPSILON)
    hits = _count_identity(ious, true_shown, predicted_shown, _THRESHOLD)
    return Counts(hota, clear, np.array([hits, true_frames.sum() - hits, predicted_frames.sum() - hits]))


def _hota_numbers(hota: NDArray[np.float64]) -> dict[str, float]:
    hits, misses, false, iou, ass_a, ass_re, ass_pr = hota
    curves = {
        "DetA": hits / np.maximum(1, hits + misses + false),
        "DetRe": hits / np.maximum(1, hits + misses),
        "DetPr": hits / np.maximum(1, hits + false),
        "AssA": ass_a / np.maximum(1, hits),
        "AssRe": ass_re / np.maximum(1, hits),
        "AssPr": ass_pr / np.maximum(1, hits),
        "LocA": np.maximum(1e-10, iou) / np.maximum(1e-10, hits),
    }
    curves = {"HOTA": np.sqrt(curves["DetA"] * curves["AssA"]), **curves}
    return {name: float(curve.mean()) for name, curve in curves.items()}


def _clear_numbers(clear: NDArray[np.float64]) -> dict[str, float]:
    switches, hits, misses, false = clear[:4].tolist()
    mota = (hits - false - switches) / max(1.0, hits + misses)
    counts = dict(zip(_SUMMED[:8], map(int, clear[:8]), strict=True))
    return {"MOTA": mota, "MOTP": float(clear[8]) / max(1.0, hits), **counts}


def _identity_numbers(identity: NDArray[np.float64]) -> dict[str, float]:
    hits, misses, false = identity.tolist()
    return {
        "IDF1": hits / max(1.0, hits + 0.5 * misses + 0.5 * false),
        "IDR": hits / max(1.0, hits + misses),
        "IDP": hits / max(1.0, hits + false),
        **dict(zip(_SUMMED[8:], map(int, identity), strict=True)),
    }


@njit(cache=True, nogil=True)
def _count_hota(
    ious: NDArray[np.float64],
    alignment: NDArray[np.float64],
    true_shown: NDArray[np.bool_],
    predicted_shown: NDArray[np.bool_],
    true_frames: NDArray[np.int64],
    predicted_frames: NDArray[np.int64],
    alphas: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Give the counts as :class:`Counts` has them, but for misses and false positives, which follow from the others."""
    frames, objects, tracks = ious.shape
    counts = np.zeros((7, len(alphas)))
    matches = np.zeros((len(alphas), objects, tracks))
    for t in range(frames):
        true, predicted = np.flatnonzero(true_shown[:, t]), np.flatnonzero(predicted_shown[:, t])
        cost = np.empty((len(true), len(predicted)))
        for i in range(len(true)):
            for j in range(len(predicted)):
                cost[i, j] = -(alignment[true[i], predicted[j]] * ious[t, true[i], predicted[j]])
        partners = assign(cost)
        for i in range(len(true)):
            if partners[i] < 0:
                continue
            g, p = true[i], predicted[partners[i]]
            for a in range(len(alphas)):
                if ious[t, g, p] >= alphas[a]:
                    counts[0, a] += 1
                    counts[3, a] += ious[t, g, p]
                    matches[a, g, p] += 1
    for g in range(objects):
        for p in range(tracks):
            for a in range(len(alphas)):
                both = matches[a, g, p]
                if both > 0:
                    counts[4, a] += both * (both / (true_frames[g] + predicted_frames[p] - both))
                    counts[5, a] += both * (both / true_frames[g])
                    counts[6, a] += both * (both / predicted_frames[p])
    return counts


@njit(cache=True, nogil=True)
def _alignment(
    ious: NDArray[np.float64], true_frames: NDArray[np.int64], predicted_frames: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Similarity of each object and track over the whole video (G, P), 0..1; lasting pairs are preferred by it."""
    frames, objects, tracks = ious.shape
    together = np.zeros((objects, tracks))
    of_true, of_predicted = np.empty(objects), np.empty(tracks)
    for t in range(frames):
        of_true[:], of_predicted[:] = 0.0, 0.0
        for g in range(objects):
            for p in range(tracks):
                of_true[g] += ious[t, g, p]
                of_predicted[p] += ious[t, g, p]
        for g in range(objects):
            for p in range(tracks):
                either = of_predicted[p] + of_true[g] - ious[t, g, p]
                if either > 2.220446049250313e-16:
                    together[g, p] += ious[t, g, p] / either
    for g in range(objects):
        for p in range(tracks):
            if together[g, p] > 0:
                together[g, p] /= true_frames[g] + predicted_frames[p] - together[g, p]
    return together


@njit(cache=True, nogil=True)
def _count_clear(
    ious: NDArray[np.float64],
    true_shown: NDArray[np.bool_],
    predicted_shown: NDArray[np.bool_],
    true_frames: NDArray[np.int64],
    threshold: float,
    epsilon: float,
) -> NDArray[np.float64]:
    frames, objects, _ = ious.shape
    counts = np.zeros(9)
    # A switch is a change against the object's latest partner, however long ago; that of the frame before is preferred.
    last_partner, previous = np.full(objects, -1, np.int64), np.full(objects, -1, np.int64)
    matched, begun = np.zeros(objects, np.int64), np.zeros(objects, np.int64)
    for t in range(frames):
        true, predicted = np.flatnonzero(true_shown[:, t]), np.flatnonzero(predicted_shown[:, t])
        counts[2] += len(true)
        counts[3] += len(predicted)
        if len(true) == 0 or len(predicted) == 0:
            continue
        cost = np.zeros((len(true), len(predicted)))
        for i in range(len(true)):
            for j in range(len(predicted)):
                iou = ious[t, true[i], predicted[j]]
                if iou >= threshold:
                    cost[i, j] = -(iou + (1000 if previous[true[i]] == predicted[j] else 0))
        partners = assign(cost)
        now = np.full(objects, -1, np.int64)
        for i in range(len(true)):
            if partners[i] >= 0 and cost[i, partners[i]] < -epsilon:
                g, p = true[i], predicted[partners[i]]
                counts[0] += last_partner[g] >= 0 and last_partner[g] != p
                counts[1] += 1
                counts[8] += ious[t, g, p]
                matched[g] += 1
                begun[g] += previous[g] < 0
                last_partner[g] = now[g] = p
        previous = now
    counts[2] -= counts[1]
    counts[3] -= counts[1]
    for g in range(objects):
        if true_frames[g] > 0:
            share = matched[g] / true_frames[g]
            counts[4 if share > 0.8 else 5 if share >= 0.2 else 6] += 1
            counts[7] += max(begun[g] - 1, 0)
    return counts


@njit(cache=True, nogil=True)
def _count_identity(
    ious: NDArray[np.float64], true_shown: NDArray[np.bool_], predicted_shown: NDArray[np.bool_], threshold: float
) -> float:
    """Give IDF1's true positives: frames in common of the one-to-one pairs of object and track that have the most."""
    frames, objects, tracks = ious.shape
    apart = np.zeros((objects, tracks))
    for t in range(frames):
        for g in range(objects):
            for p in range(tracks):
                if true_shown[g, t] and predicted_shown[p, t] and ious[t, g, p] >= threshold:
                    apart[g, p] -= 1
    partners = assign(apart)
    hits = 0.0
    for g in range(objects):
        if partners[g] >= 0:
            hits -= apart[g, partners[g]]
    return hits
