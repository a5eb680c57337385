# SPDX-License-Identifier: Apache-2.0
"""Run lengths of masks, as the COCO and YouTube-VIS formats store them.

A mask of H x W pixels is read column by column, top to bottom. Its run lengths are the numbers of equal pixels that
follow one another, background first: the first number is 0 where the very first pixel is foreground. They sum to H * W.

The compressed form writes each run length as printable characters of 6 bits: 5 bits of value, lowest first, and one bit
that says that more follow. From the fourth number on, the difference to the number two places before is written, as
runs in neighbouring columns are alike; so values are signed, and the highest of their bits is the sign.
(Format: github.com/cocodataset/cocoapi, common/maskApi.h. The text equals that of pycocotools, byte for byte.)
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from instance_flow.formats.foreign_text import shown
from instance_flow.kernels.input import kernel_input
from instance_flow.structures import MAX_PIXELS

RunLengths = NDArray[np.uint32]

_FIRST_CHARACTER = 48
_LONGEST_RUN = 2**31 - 1
_LARGEST_ID = 2**63 - 1


def encode(mask: NDArray[Any]) -> dict[str, Any]:
    """Compress a mask (H, W), bool or uint8 with nonzero = foreground, to ``{"size": [H, W], "counts": str}``."""
    return {"size": [int(n) for n in np.shape(mask)], "counts": compress(run_lengths(mask))}


def decode(rle: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Give the mask (H, W) uint8 of 0 and 1 for a run-length dict, compressed (str or bytes) or a list of numbers.

    Raises ValueError where ``rle`` is no such dict, or its counts do not fill its size.
    """
    counts, size = parse(rle)
    return _fill(counts, size[0], size[1])


def parse(rle: Mapping[str, Any]) -> tuple[RunLengths, tuple[int, int]]:
    """Give run lengths (uint32) and (height, width) of a run-length dict; raises ValueError as :func:`decode` does."""
    if not isinstance(rle, Mapping) or "size" not in rle or "counts" not in rle:
        raise ValueError(f'a run-length mask is a dict with the keys "size" and "counts", not {_shorten(rle)}')
    size, counts = rle["size"], rle["counts"]
    height, width = _check_size(size)
    runs = decompress(counts) if isinstance(counts, str | bytes) else as_run_lengths(counts)
    _check_sum(runs, height, width)
    return runs, (height, width)


def run_lengths(mask: NDArray[Any]) -> RunLengths:
    """Give the column-major run lengths, beginning with background, of a mask (H, W), bool or uint8 (nonzero = object).

    Raises ValueError for another number of dimensions or another dtype.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask has 2 dimensions (height, width), not shape {mask.shape}")
    if mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"a mask is bool or uint8, not {mask.dtype}; compare a label map with one id first")
    height, width = _check_size(mask.shape)
    filled = mask != 0
    columns = np.flatnonzero(filled.any(axis=0))
    if not len(columns):
        return np.array([height * width], np.uint32)
    # Reading down the columns is slow in a row-major array: only those between the object's sides are transposed.
    strip = np.zeros((columns[-1] - columns[0] + 1) * height + 2, np.bool_)
    strip[1:-1].reshape(-1, height)[:] = filled[:, columns[0] : columns[-1] + 1].T
    edges = np.flatnonzero(strip[1:] != strip[:-1]) + columns[0] * height
    return runs_between(edges, height * width)


def from_run_lengths(counts: ArrayLike, size: Sequence[int]) -> NDArray[np.uint8]:
    """Give the mask ``size`` = (height, width), uint8 of 0 and 1, of run lengths; the inverse of :func:`run_lengths`.

    Raises ValueError where the counts are not whole numbers from 0 up that sum to height * width.
    """
    height, width = _check_size(size)
    runs = as_run_lengths(counts)
    _check_sum(runs, height, width)
    return _fill(runs, height, width)


def label_run_lengths(label_map: NDArray[np.integer[Any]], ids: ArrayLike) -> list[RunLengths]:
    """Give the run lengths of ``label_map == id`` for each of ``ids``, in their order, in one pass over the map.

    label_map: (H, W) integers. ids: (N,) distinct integers. An id without pixels gives the one run [H * W].
    """
    wanted = _check_ids(ids)
    whole = np.array([0, 0, *np.shape(label_map)[::-1]])
    return window_run_lengths(label_map, wanted, np.broadcast_to(whole, (len(wanted), len(whole))))


def window_run_lengths(label_map: NDArray[np.integer[Any]], ids: ArrayLike, windows: ArrayLike) -> list[RunLengths]:
    """Give the run lengths of ``label_map[top:bottom, left:right] == id`` for each of ``ids``, in their order.

    One pass over the pixels that lie between the windows' highest and lowest rows does for all of them, however many
    there are and however much they overlap.

    label_map: (H, W) integers. ids: (N,) distinct integers. windows: (N, 4) integers left, top, right, bottom, the last
    two exclusive, within the map. An id without pixels in its window gives one run, the number of its pixels.

    Raises ValueError for other shapes and types, an id that stands twice, or a window that leaves the map.
    """
    labels, wanted = np.asarray(label_map), _check_ids(ids)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        shape, dtype = labels.shape, labels.dtype
        raise ValueError(f"a label map has 2 dimensions (height, width) of integers, not shape {shape} of {dtype}")
    if not len(wanted):
        return []
    bounds = _check_windows(np.asarray(windows), len(wanted), labels.shape)
    order = np.argsort(wanted)
    if (np.diff(wanted[order]) == 0).any():
        raise ValueError(f"ids must be distinct, but are {wanted.tolist()}")
    labels, sorted_ids = kernel_input(labels, labels.dtype), kernel_input(wanted[order], np.int64)
    place_of = kernel_input(order, np.int64)
    found = np.empty((2 * int((bounds[:, 2] - bounds[:, 0]).sum()), 3), np.int64)  # masks rarely have more edges
    count = _stretches(labels, sorted_ids, place_of, bounds, found)
    if count > len(found):
        found = np.empty((count, 3), np.int64)
        _stretches(labels, sorted_ids, place_of, bounds, found)
    room = 2 * np.bincount(found[:count, 0], minlength=len(wanted)) + 1
    starts, runs = np.cumsum(room) - room, np.empty(room.sum(), np.uint32)
    lengths = _runs_of(found[:count], bounds, starts, runs)
    return [runs[a : a + n] for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]


def compress(counts: ArrayLike) -> str:
    """Give the compressed text of run lengths."""
    return bytes(_compress(as_run_lengths(counts))).decode("ascii")


def decompress(text: str | bytes) -> RunLengths:
    """Give the run lengths (uint32) of compressed text; raises ValueError where the text is damaged."""
    try:
        data = text.encode("ascii") if isinstance(text, str) else bytes(text)
    except UnicodeEncodeError:
        raise ValueError("the compressed run lengths hold a character that is not ASCII") from None
    runs = np.empty(len(data), np.uint32)
    count = decompress_into(np.frombuffer(data, np.uint8), runs)
    if count < 0:
        raise ValueError(
            f"the compressed run lengths are damaged or cut off: {_shorten(data.decode('ascii', 'replace'))}"
        )
    return runs[:count].copy()


def as_run_lengths(counts: ArrayLike) -> RunLengths:
    """Check whole numbers from 0 up and give them as uint32; raises ValueError for others."""
    try:
        runs = np.asarray(counts)
    except ValueError:  # lists of different lengths within
        raise ValueError(f"run lengths are a list of whole numbers, not {_shorten(counts)}") from None
    if runs.ndim != 1 or (runs.size and not np.issubdtype(runs.dtype, np.integer)):
        raise ValueError(f"run lengths are a list of whole numbers, not {_shorten(counts)}")
    if runs.size and (runs.min() < 0 or runs.max() > _LONGEST_RUN):
        raise ValueError(
            f"run lengths lie between 0 and 2^31 - 1, but one is {runs.min() if runs.min() < 0 else runs.max()}"
        )
    return runs.astype(np.uint32)


@njit(cache=True, nogil=True)
def decompress_into(text: NDArray[np.uint8], runs: RunLengths) -> int:
    """Decompress ``text`` (characters as uint8) into ``runs`` (as long as the text, at least).

    Returns how many run lengths there are, or -1 where the text is damaged.
    """
    count, shift, value = 0, 0, np.int64(0)
    for character in text:
        bits = np.int64(character) - _FIRST_CHARACTER
        if bits < 0 or bits > 63 or shift > 30:
            return -1
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if count > 2:
            value += np.int64(runs[count - 2])
        if value < 0 or value > _LONGEST_RUN:
            return -1
        runs[count] = value
        count, shift, value = count + 1, 0, np.int64(0)
    return count if shift == 0 else -1


@njit(cache=True, nogil=True)
def area(counts: RunLengths) -> int:
    """Count the foreground pixels of run lengths."""
    total = np.int64(0)
    for i in range(1, len(counts), 2):
        total += np.int64(counts[i])
    return int(total)


def _check_size(size: Any) -> tuple[int, int]:
    try:
        height, width = (int(n) for n in size)
        exact = [height, width] == list(size)
    except (TypeError, ValueError):
        exact = False
    if not exact or min(height, width) < 0 or height * width > MAX_PIXELS:
        raise ValueError(
            f"the size of a mask is (height, width) in whole pixels, at most {MAX_PIXELS} of them, not {_shorten(size)}"
        )
    return height, width


def _check_sum(runs: RunLengths, height: int, width: int) -> None:
    total = int(runs.sum(dtype=np.int64))
    if total != height * width:
        raise ValueError(
            f"the run lengths sum to {total} pixels, but the size (height {height}, width {width}) has {height * width}"
        )


def _check_ids(ids: ArrayLike) -> NDArray[np.int64]:
    given = np.asarray(ids).reshape(-1)
    if given.size and (not np.issubdtype(given.dtype, np.integer) or given.max() > _LARGEST_ID):
        raise ValueError(f"ids are whole numbers below 2^63, not {_shorten(ids)}")
    return given.astype(np.int64)


def _shorten(value: object) -> str:
    return shown(reprlib.repr(value))


def _fill(runs: RunLengths, height: int, width: int) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    edges = np.cumsum(runs, dtype=np.int64)
    if len(runs) < 2 or not mask.size:
        return mask
    first, stop = edges[0] // height, -(-edges[(len(runs) - 2) // 2 * 2 + 1] // height)
    strip = np.zeros((max(stop - first, 0), height), np.uint8)
    _fill_runs(strip.reshape(-1), edges - first * height)
    mask[:, first:stop] = strip.T
    return mask


@njit(cache=True, nogil=True)
def _fill_runs(pixels: NDArray[np.uint8], edges: NDArray[np.int64]) -> None:
    for i in range(1, len(edges), 2):
        pixels[edges[i - 1] : edges[i]] = 1


@njit(cache=True, nogil=True)
def _compress(runs: RunLengths) -> NDArray[np.uint8]:
    text = np.empty(7 * len(runs), np.uint8)
    length = 0
    for i in range(len(runs)):
        value = np.int64(runs[i])
        if i > 2:
            value -= np.int64(runs[i - 2])
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text[length] = _FIRST_CHARACTER + bits + (32 if more else 0)
            length += 1
    return text[:length]


def _check_windows(windows: NDArray[Any], count: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if windows.shape != (count, 4) or not np.issubdtype(windows.dtype, np.integer):
        raise ValueError(
            f"windows have shape {windows.shape} and dtype {windows.dtype}; expected ({count}, 4) integers, one left, "
            "top, right, bottom for each id"
        )
    bounds = kernel_input(windows, np.int64)
    left, top, right, bottom = bounds.T
    leaves = (left < 0) | (top < 0) | (right < left) | (bottom < top) | (right > shape[1]) | (bottom > shape[0])
    if leaves.any():
        raise ValueError(f"the window {bounds[leaves][0].tolist()} does not lie within a map of shape {shape}")
    return bounds


@njit(cache=True, nogil=True)
def _stretches(
    labels: NDArray[Any],
    sorted_ids: NDArray[np.int64],
    order: NDArray[np.int64],
    windows: NDArray[np.int64],
    found: NDArray[np.int64],
) -> int:
    """Give into ``found`` (S, 3) every upright stretch of one wanted id within its window, column by column.

    order: (N,) place among the windows of each of the sorted ids. A stretch is that place, and its start and end
    (exclusive), counted in the window. Returns how many there are, even if that is more than ``found`` can hold.
    """
    height, width = labels.shape
    tops, bottoms = np.full(width, height), np.zeros(width, np.int64)
    for n in range(len(windows)):
        for x in range(windows[n, 0], windows[n, 2]):
            tops[x], bottoms[x] = min(tops[x], windows[n, 1]), max(bottoms[x], windows[n, 3])
    count = 0
    for x in range(width):
        y = tops[x]
        while y < bottoms[x]:
            start, label = y, labels[y, x]
            while y < bottoms[x] and labels[y, x] == label:
                y += 1
            place = np.searchsorted(sorted_ids, np.int64(label))
            if place == len(sorted_ids) or sorted_ids[place] != label:
                continue
            n = order[place]
            left, top, right, bottom = windows[n, 0], windows[n, 1], windows[n, 2], windows[n, 3]
            first, last = max(start, top), min(y, bottom)
            if left <= x < right and first < last:
                if count < len(found):
                    before = (x - left) * (bottom - top) - top
                    found[count, 0], found[count, 1], found[count, 2] = n, before + first, before + last
                count += 1
    return count


@njit(cache=True, nogil=True)
def _runs_of(
    stretches: NDArray[np.int64], windows: NDArray[np.int64], starts: NDArray[np.int64], runs: RunLengths
) -> NDArray[np.int64]:
    """Put the run lengths of each window into ``runs``, from ``starts`` (N,) on; give how many they are (N,)."""
    count = len(windows)
    lengths, ends = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for i in range(len(stretches)):
        place, first, last = stretches[i, 0], stretches[i, 1], stretches[i, 2]
        at = starts[place] + lengths[place]
        if lengths[place] > 0 and first == ends[place]:  # continues from the foot of a column to the head of the next
            runs[at - 1] += last - first
        else:
            runs[at], runs[at + 1] = first - ends[place], last - first
            lengths[place] += 2
        ends[place] = last
    for place in range(count):
        rest = (windows[place, 2] - windows[place, 0]) * (windows[place, 3] - windows[place, 1]) - ends[place]
        if rest > 0 or lengths[place] == 0:
            runs[starts[place] + lengths[place]] = rest
            lengths[place] += 1
    return lengths


def runs_between(edges: NDArray[np.int64], total: int) -> RunLengths:
    """Give the run lengths of ``total`` pixels that change between background and object at each of ``edges``."""
    runs = np.diff(edges, prepend=0, append=total)
    return (runs[:-1] if len(edges) and edges[-1] == total else runs).astype(np.uint32)
