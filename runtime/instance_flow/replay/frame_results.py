# SPDX-License-Identifier: Apache-2.0
"""What a stream gave for one frame, and its bytes for a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import ROW_ARRAYS, LabelMap, Tracks

_LENGTH_BYTES = 4


@dataclass(frozen=True)
class FrameResult:
    """The tracks of one frame, and the seconds that they took; or, without tracks, why the frame could not be used.

    breaks: what broke the stream just before, empty as a rule.   jitter: likewise, how the stamp ran back a little.
    """

    tracks: Tracks | None
    seconds: float = 0.0
    refusal: str = ""
    breaks: str = ""
    jitter: str = ""


_FACTS = ("seconds", "refusal", "breaks", "jitter")


def pack(result: FrameResult) -> bytes:
    """The result as bytes, exactly."""
    facts = {name: getattr(result, name) for name in _FACTS}
    tracks = result.tracks
    if tracks is None:
        return _join(facts, {})
    flat = np.ascontiguousarray(tracks.label_map).reshape(-1)
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    facts |= {"frame_index": tracks.frame_index, "size": tracks.label_map.shape}
    arrays = {name: getattr(tracks, name) for name in ROW_ARRAYS}
    return _join(facts, arrays | {"starts": starts.astype(np.uint32), "labels": flat[starts]})


def unpack(data: bytes) -> FrameResult:
    """The inverse of ``pack``, but for the class names, which are the model's."""
    facts, parts = _part(data)
    arrays: dict[str, Any] = dict(parts)
    common = [facts[name] for name in _FACTS]
    if not arrays:
        return FrameResult(None, *common)
    label_map = _label_map(arrays.pop("starts"), arrays.pop("labels"), facts["size"])
    return FrameResult(Tracks(frame_index=facts["frame_index"], label_map=label_map, **arrays), *common)


def _label_map(starts: NDArray[np.uint32], labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    ends = np.append(starts[1:], prod(size)).astype(np.int64)
    return np.repeat(labels, ends - starts).reshape(size)


def _join(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The length of a description in JSON, the description, and the arrays end to end."""
    about = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    description = json.dumps({"facts": facts, "arrays": about}).encode()
    parts = [len(description).to_bytes(_LENGTH_BYTES, "little"), description]
    return b"".join([*parts, *(np.ascontiguousarray(array).tobytes() for array in arrays.values())])


def _part(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    description = json.loads(data[_LENGTH_BYTES:start])
    arrays: dict[str, NDArray[Any]] = {}
    for name, (kind, shape) in description["arrays"].items():
        array = np.frombuffer(data, np.dtype(kind), prod(shape), start).reshape(shape)
        start += array.nbytes
        arrays[name] = array.copy()
    return description["facts"], arrays
