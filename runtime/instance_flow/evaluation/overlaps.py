# SPDX-License-Identifier: Apache-2.0
"""Areas of the true and predicted objects of one video, and their overlaps frame by frame, counted on run lengths."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.formats import rle
from instance_flow.formats.ytvis import Annotation, Result, Segmentation, Video, decode_segmentation, raw_counts
from instance_flow.structures import SourceError

ABSENT = -1
"""Area of an object in a frame where its list of masks holds null."""
_MOST_COMMON = 2**26
"""Numbers of ``Overlaps.common``: half a gigabyte; the largest videos of the public sets have 5 % of it."""


@dataclass(frozen=True)
class Overlaps:
    """What the metrics need of the masks of one video of T frames with G true and P predicted objects.

    true_areas: (G, T) int64 pixels; ABSENT (-1) where there is no mask, 0 where there is an empty one.
    predicted_areas: (P, T) int64, likewise.
    common: (T, G, P) int64, pixels that both have in that frame.
    """

    true_areas: NDArray[np.int64]
    predicted_areas: NDArray[np.int64]
    common: NDArray[np.int64]

    def frame_ious(self) -> NDArray[np.float64]:
        """Give the IoU (T, G, P) of every pair in every frame; 0 where neither has a pixel."""
        true_areas, predicted_areas = np.maximum(self.true_areas, 0), np.maximum(self.predicted_areas, 0)
        return _divide(self.common, true_areas.T[:, :, None] + predicted_areas.T[:, None, :] - self.common)

    def video_ious(self) -> NDArray[np.float64]:
        """Give the IoU (G, P) over the whole video: common pixels of all frames through united pixels of all frames."""
        true_areas, predicted_areas = np.maximum(self.true_areas, 0), np.maximum(self.predicted_areas, 0)
        common = self.common.sum(axis=0)
        return _divide(common, true_areas.sum(axis=1)[:, None] + predicted_areas.sum(axis=1)[None, :] - common)


def measure_overlaps(
    video: Video,
    annotations: Sequence[Annotation],
    results: Sequence[Result],
    sources: tuple[str, str],
    groups: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> Overlaps:
    """Count the masks of the annotations and results of one video.

    sources: names of the ground truth and of the results for error messages.
    groups: (G,) and (P,); only pairs of one group are counted, the others have nothing in common. None = all are.
    Raises SourceError for a damaged mask, naming source, video, object and frame, and for too many objects.
    """
    if video.length * len(annotations) * len(results) > _MOST_COMMON:
        raise SourceError(
            f"{sources[1]}: has {len(results)} results for video {video.id} of {video.length} frames and "
            f"{len(annotations)} annotations, more than can be compared; keep those of the highest scores"
        )
    names = [f"{sources[0]}: annotation {entry.id} (video {video.id})" for entry in annotations]
    true = _unpack_all([entry.segmentations for entry in annotations], video, names)
    names = [f"{sources[1]}: result {entry.index} of the list (video {video.id})" for entry in results]
    predicted = _unpack_all([entry.segmentations for entry in results], video, names)
    of_true, of_predicted = groups or (np.zeros(len(annotations), np.int64), np.zeros(len(results), np.int64))
    common = _common(true.edges, true.spans, of_true, predicted.edges, predicted.spans, of_predicted)
    return Overlaps(true.areas, predicted.areas, common)


@dataclass(frozen=True)
class _Unpacked:
    """The masks of N objects in T frames.

    edges: (R,) uint32, column-major positions at which a mask changes to object and back, of all masks end to end.
    spans: (N, T, 2) int64: begin and end in ``edges`` of a mask, whose stretches of object are pairs of edges.
    areas: (N, T) int64, ABSENT where there is no mask.
    """

    edges: NDArray[np.uint32]
    spans: NDArray[np.int64]
    areas: NDArray[np.int64]


def _unpack_all(tracks: Sequence[Sequence[Segmentation | None]], video: Video, names: Sequence[str]) -> _Unpacked:
    texts: list[str] = []
    arrays: list[rle.RunLengths] = []
    text_places: list[int] = []
    array_places: list[int] = []
    try:
        for n, track in enumerate(tracks):
            for place, mask in enumerate(track, n * video.length):
                if mask is None:
                    continue
                counts = mask["counts"] if isinstance(mask, dict) else raw_counts(mask, video.height, video.width)
                if isinstance(counts, str):
                    texts.append(counts)
                    text_places.append(place)
                else:
                    arrays.append(rle.decompress(counts) if isinstance(counts, bytes) else _as_array(counts))
                    array_places.append(place)
        runs, spans = _lay_end_to_end(texts, arrays)
        areas = _turn_into_edges(runs, spans, video.height * video.width)
    except (ValueError, TypeError, OverflowError):
        _explain_damage(tracks, video, names)
        raise
    shape = len(tracks), video.length
    unpacked = _Unpacked(runs, np.zeros((*shape, 2), np.int64), np.full(shape, ABSENT, np.int64))
    places = np.array(text_places + array_places, np.int64)
    unpacked.spans.reshape(-1, 2)[places] = spans
    unpacked.areas.reshape(-1)[places] = areas
    return unpacked


def _as_array(counts: Any) -> rle.RunLengths:
    # Three times as fast as numpy for a list; fractions and negative numbers raise an error.
    packed = counts if isinstance(counts, array) else array("I", counts)
    return np.frombuffer(packed, np.uint32)


def _lay_end_to_end(texts: Sequence[str], arrays: Sequence[rle.RunLengths]) -> tuple[rle.RunLengths, NDArray[np.int64]]:
    """Give the run lengths of compressed texts, then of arrays, and begin and end of each (N, 2)."""
    text = np.frombuffer("".join(texts).encode("ascii"), np.uint8)
    unpacked, ends = _decompress_all(text, np.fromiter(map(len, texts), np.int64, len(texts)))
    lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
    runs = np.concatenate([unpacked, *arrays])
    ends = np.concatenate([ends, len(unpacked) + np.cumsum(lengths)])
    return runs, np.stack([np.append(0, ends[:-1])[: len(ends)], ends], axis=1)


def _explain_damage(tracks: Sequence[Sequence[Segmentation | None]], video: Video, names: Sequence[str]) -> None:
    for name, track in zip(names, tracks, strict=True):
        for frame, mask in enumerate(track):
            _check_mask(mask, video, f"{name}, frame {frame}")


def _check_mask(mask: Segmentation | None, video: Video, name: str) -> None:
    try:
        decode_segmentation(mask, video.height, video.width)
    except ValueError as error:
        raise SourceError(f"{name}: {error}; write the masks again") from None


@njit(cache=True, nogil=True)
def _decompress_all(text: NDArray[np.uint8], lengths: NDArray[np.int64]) -> tuple[rle.RunLengths, NDArray[np.int64]]:
    """Decompress texts laid end to end; give the run lengths, laid end to end, and where those of each text end."""
    runs, ends = np.empty(len(text), np.uint32), np.empty(len(lengths), np.int64)
    position, count = 0, 0
    for k in range(len(lengths)):
        added = rle.decompress_into(text[position : position + lengths[k]], runs[count:])
        if added < 0:
            raise ValueError("damaged run lengths")
        position, count = position + lengths[k], count + added
        ends[k] = count
    return runs[:count].copy(), ends


@njit(cache=True, nogil=True)
def _turn_into_edges(runs: rle.RunLengths, spans: NDArray[np.int64], pixels: int) -> NDArray[np.int64]:
    """Give the areas (N,); add up ``runs`` in place, and end ``spans`` (N, 2) with the last stretch of object."""
    areas = np.zeros(len(spans), np.int64)
    for k in range(len(spans)):
        total = np.int64(0)
        for i in range(spans[k, 0], spans[k, 1]):
            length = np.int64(runs[i])
            areas[k] += length * ((i - spans[k, 0]) % 2)
            total += length
            runs[i] = total
        if total != pixels:
            raise ValueError("run lengths of another sum")
        spans[k, 1] -= (spans[k, 1] - spans[k, 0]) % 2
    return areas


@njit(cache=True, nogil=True)
def _common(
    true_edges: NDArray[np.uint32],
    true_spans: NDArray[np.int64],
    true_groups: NDArray[np.int64],
    predicted_edges: NDArray[np.uint32],
    predicted_spans: NDArray[np.int64],
    predicted_groups: NDArray[np.int64],
) -> NDArray[np.int64]:
    frames = true_spans.shape[1]
    common = np.zeros((frames, len(true_spans), len(predicted_spans)), np.int64)
    for g in range(len(true_spans)):
        for p in range(len(predicted_spans)):
            for t in range(frames if true_groups[g] == predicted_groups[p] else 0):
                a, b = true_spans[g, t], predicted_spans[p, t]
                if a[0] < a[1] and b[0] < b[1]:
                    common[t, g, p] = _intersect(true_edges[a[0] : a[1]], predicted_edges[b[0] : b[1]])
    return common


@njit(cache=True, nogil=True)
def _intersect(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> int:
    """Count the pixels in the stretches of both, each at least one pair of edges."""
    if a[-1] <= b[0] or b[-1] <= a[0]:
        return 0
    # What ends before the other begins is passed over at once.
    i, j = np.searchsorted(a, b[0], side="right") // 2 * 2, np.searchsorted(b, a[0], side="right") // 2 * 2
    common = np.int64(0)
    while i < len(a) and j < len(b):
        start, end = max(a[i], b[j]), min(a[i + 1], b[j + 1])
        if start < end:
            common += np.int64(end) - np.int64(start)
        if a[i + 1] <= b[j + 1]:
            i += 2
        else:
            j += 2
    return int(common)


def _divide(common: NDArray[np.int64], union: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(union > 0, common / np.maximum(union, 1), 0.0)
