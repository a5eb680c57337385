# SPDX-License-Identifier: Apache-2.0
"""Areas of the true and predicted objects of one video, and their overlaps frame by frame, counted on run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow import rle
from instance_flow.structures import SourceError
from instance_flow.ytvis import Annotation, Result, Segmentation, Video, decode_segmentation, raw_counts

ABSENT = -1
"""Area of an object in a frame where its list of masks holds null."""


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
    video: Video, annotations: Sequence[Annotation], results: Sequence[Result], sources: tuple[str, str]
) -> Overlaps:
    """Count the masks of the annotations and results of one video.

    sources: names of the ground truth and of the results for error messages.
    Raises SourceError for a damaged mask, naming source, video, object and frame.
    """
    names = [f"{sources[0]}: annotation {entry.id} (video {video.id})" for entry in annotations]
    true = _unpack_all([entry.segmentations for entry in annotations], video, names)
    names = [f"{sources[1]}: result {k} of video {video.id}" for k in range(len(results))]
    predicted = _unpack_all([entry.segmentations for entry in results], video, names)
    return Overlaps(true.areas, predicted.areas, _common(true.runs, true.spans, predicted.runs, predicted.spans))


@dataclass(frozen=True)
class _Unpacked:
    """The run lengths of N objects in T frames, laid end to end.

    runs: (R,) uint32.   areas: (N, T) int64, ABSENT where there is no mask.
    spans: (N, T, 4) int64: where in ``runs`` the mask begins and ends; column-major positions of its first pixel and
        behind its last one. All 0 where there is no pixel.
    """

    runs: rle.RunLengths
    spans: NDArray[np.int64]
    areas: NDArray[np.int64]


def _unpack_all(tracks: Sequence[Sequence[Segmentation | None]], video: Video, names: Sequence[str]) -> _Unpacked:
    texts: list[str] = []
    arrays: list[NDArray[Any]] = [np.empty(0, np.int64)]
    text_places: list[int] = []
    array_places: list[int] = []
    try:
        for n, track in enumerate(tracks):
            for place, mask in enumerate(track, n * video.length):
                counts = None if mask is None else raw_counts(mask, video.height, video.width)
                if isinstance(counts, str):
                    texts.append(counts)
                    text_places.append(place)
                elif counts is not None:
                    arrays.append(np.asarray(counts))
                    array_places.append(place)
        runs, spans = _lay_end_to_end(texts, arrays)
        areas = _measure(runs, spans, video.height * video.width)
    except ValueError:
        _explain_damage(tracks, video, names)
        raise
    unpacked = _Unpacked(
        runs, np.zeros((len(tracks), video.length, 4), np.int64), np.full((len(tracks), video.length), ABSENT)
    )
    places = np.array(text_places + array_places, np.int64)
    unpacked.spans.reshape(-1, 4)[places] = spans
    unpacked.areas.reshape(-1)[places] = areas
    return unpacked


def _lay_end_to_end(texts: Sequence[str], arrays: Sequence[NDArray[Any]]) -> tuple[rle.RunLengths, NDArray[np.int64]]:
    """Give the run lengths of compressed texts, then of arrays, and begin and end of each (N, 4), the rest still 0."""
    text = np.frombuffer("".join(texts).encode("ascii"), np.uint8)
    unpacked, ends = _decompress_all(text, np.fromiter(map(len, texts), np.int64, len(texts)))
    lengths = [len(array) for array in arrays]
    runs = np.concatenate([unpacked, rle.as_run_lengths(np.concatenate(arrays))])
    ends = np.concatenate([ends, len(unpacked) + np.cumsum(lengths, dtype=np.int64)[1:]])
    spans = np.zeros((len(ends), 4), np.int64)
    spans[1:, 0], spans[:, 1] = ends[:-1], ends
    return runs, spans


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
def _measure(runs: rle.RunLengths, spans: NDArray[np.int64], pixels: int) -> NDArray[np.int64]:
    """Give the areas (N,) and fill in columns 2 and 3 of ``spans`` (N, 4)."""
    areas = np.zeros(len(spans), np.int64)
    for k in range(len(spans)):
        total = np.int64(0)
        for i in range(spans[k, 0], spans[k, 1]):
            length = np.int64(runs[i])
            if (i - spans[k, 0]) % 2 == 1 and length > 0:
                if areas[k] == 0:
                    spans[k, 2] = total
                spans[k, 3] = total + length
                areas[k] += length
            total += length
        if total != pixels:
            raise ValueError("run lengths of another sum")
    return areas


@njit(cache=True, nogil=True)
def _common(
    true_runs: rle.RunLengths,
    true_spans: NDArray[np.int64],
    predicted_runs: rle.RunLengths,
    predicted_spans: NDArray[np.int64],
) -> NDArray[np.int64]:
    frames = true_spans.shape[1]
    common = np.zeros((frames, len(true_spans), len(predicted_spans)), np.int64)
    for g in range(len(true_spans)):
        for p in range(len(predicted_spans)):
            for t in range(frames):
                a, b = true_spans[g, t], predicted_spans[p, t]
                if max(a[2], b[2]) < min(a[3], b[3]):
                    common[t, g, p] = rle.intersection(true_runs[a[0] : a[1]], predicted_runs[b[0] : b[1]])
    return common


def _divide(common: NDArray[np.int64], union: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(union > 0, common / np.maximum(union, 1), 0.0)
