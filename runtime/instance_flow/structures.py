# SPDX-License-Identifier: Apache-2.0
"""The types that cross the boundaries between the parts, and every convention, written once.

Conventions
-----------
* Points are ``(y, x)``, vectors ``(dy, dx)``, float32, in pixels of the array that they belong to: a center found in a
  stride-4 map is in cells of that map, a center in :class:`Tracks` is in pixels of the camera's image.
* An offset points *to* the center: ``pixel + offset = center`` (Eq. 4 of the paper; its section III-A has the sign the
  other way round). ``offset`` leads to the center in this frame, ``reference_offset[r]`` to the center of the same
  object in reference frame r.
* The instance flow of m for reference r is the mean over m's pixels of ``reference_offset[r] - offset`` (Eq. 3), that
  is center in frame r minus center here.
* In a frame's label map 0 is background and label k + 1 is row k of the instance arrays. In :class:`Tracks` the label
  map holds track ids instead. Track ids start at 1, are never used again within a stream, and never stand twice in one
  frame.
* ``class_id`` counts from 0 through the class names. Background is channel 0 of ``semantic`` and has no class_id.
* Boxes are ``x, y, width, height`` in image pixels. Time is integer nanoseconds.
* One exception, for those who use the results: :class:`Track`, one row of :class:`Tracks`, has x before y everywhere,
  as other tools do: ``box`` is ``x0, y0, x1, y1``, ``center`` and ``velocity`` are ``x, y``. The arrays keep their
  order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.declare import setting
from instance_flow.tracks import (
    NEW,
    NUMBERS,
    ROW_ARRAYS,
    SPATIAL_STATES,
    STATES,
    FloatArray,
    Image,
    IntArray,
    LabelMap,
    Track,
    Tracks,
    unknown_in_space,
)

__all__ = [
    "LAST_ID",
    "MAX_PIXELS",
    "NEW",
    "NUMBERS",
    "ROW_ARRAYS",
    "SPATIAL_STATES",
    "STATES",
    "FloatArray",
    "Identities",
    "Image",
    "InstanceFlowError",
    "Instances",
    "IntArray",
    "LabelMap",
    "MatchCosts",
    "ModelError",
    "ModelInfo",
    "Prediction",
    "SourceError",
    "Track",
    "Tracks",
    "unknown_in_space",
]

MAX_PIXELS = 64 * 2**20
"""Pixels of the largest image or mask that is read, 67 million: above the largest camera sensors, 200 MB of RGB."""

LAST_ID = 2**31 - 1
"""Largest track id, as label maps hold 32 bits; a stream that gives ten in a second ends in seven years."""


class InstanceFlowError(Exception):
    """A file, model or provider is not what it should be. The message is meant for the user."""


class ModelError(InstanceFlowError):
    """A model file that is missing, damaged, foreign, or newer than this program."""


class SourceError(InstanceFlowError):
    """A video, image folder, bag or data set that cannot be read."""


MAPS = ("semantic", "center", "offset", "reference_offset")
"""The maps of a ``Prediction``; the outputs of a model file have the same names, in this order."""


@dataclass(frozen=True)
class Prediction:
    """The network's maps for one frame; h and w are the input's height and width divided by the output stride.

    semantic: (C + 1, h, w) float32, class probabilities, channel 0 is background.
    center: (h, w) float32, heat of object centers, about 1 at a center. Meaningless on background.
    offset: (2, h, w) float32, to the center of the pixel's object in this frame, in cells of this map.
    reference_offset: (R, 2, h, w) float32, to the object's center in each reference frame, in cells of this map.
    features: what the network wants back when this frame serves as a reference; opaque to everyone else.
    """

    semantic: FloatArray
    center: FloatArray
    offset: FloatArray
    reference_offset: FloatArray
    features: Any


@dataclass(frozen=True)
class Identities:
    """Per object of a frame (M rows).

    ids, class_ids, states, ages: (M,) int64, as in ``Tracks``.   age_seconds: (M,) float64, likewise.
    reference_frames, distances: (M,), as in ``Tracks``, distances in cells.
    velocities: (M, 2) float64 cells per second, filtered.   velocity_covariances: (M, 2, 2) float64. NaN where unknown.
    """

    ids: IntArray
    class_ids: IntArray
    states: IntArray
    ages: IntArray
    age_seconds: NDArray[np.float64]
    reference_frames: IntArray
    distances: FloatArray
    velocities: NDArray[np.float64]
    velocity_covariances: NDArray[np.float64]


@dataclass(frozen=True)
class Instances:
    """The M objects found in one frame, best center first, in cells of the network's output maps.

    labels: (h, w) int32, 0 = background, k + 1 = row k.
    centers: (M, 2) float32.   center_scores: (M,) float32, heat at the center.
    class_scores: (M, C) float32, mean class probability over the object's pixels, background left out.
    flows: (R, M, 2) float32, instance flow for each reference (Eq. 3).
    flow_std: (R, M) float32, standard deviation of the flow over the object's pixels.
    appearance: (M, 512) float32, the colours under its mask (``appearance.appearance_vectors``).
    """

    labels: LabelMap
    centers: FloatArray
    center_scores: FloatArray
    class_scores: FloatArray
    flows: FloatArray
    flow_std: FloatArray
    appearance: FloatArray

    def __len__(self) -> int:
        return len(self.centers)


@dataclass(frozen=True)
class MatchCosts:
    """Weights of the costs in ``matching.match_by_evidence``: how reliable a model's flow and colours are."""

    flow_error: float = setting(
        1 / 62,
        "least error that the flow is taken to have, even where the pixels of an object agree on it, as a fraction of "
        "sqrt(height * width) of the network's input",
        0.0,
        1.0,
    )
    look_weight: float = setting(2.0, "weight of unlike colours; 0 = colours do not count", 0.0, 50.0)
    look_gain: float = setting(20.0, "higher makes small differences of colour cost more", 0.0, 1000.0)
    motion_weight: float = setting(
        0.5, "weight of the distance from where the last motion leads; 0 = it does not count", 0.0, 50.0
    )
    motion_error: float = setting(
        5.0, "how far an object strays from its last motion in one frame, in units of flow_error", 0.0, 1000.0
    )
    class_weight: float = setting(
        0.0, "weight of another class than that of the id; 0 = classes do not count", 0.0, 50.0
    )
    gap_weight: float = setting(
        0.0,
        "weight of the logarithm of the frames since an id was seen: of two ids that an object had, it keeps the "
        "latest; 0 = they do not count",
        0.0,
        50.0,
    )
    lost_cost: float = setting(3.0, "cost of an id that no reference shows, in place of the flow's", 0.0, 50.0)
    max_cost: float = setting(
        8.5,
        "bound of the cost; lower gives more new ids, higher more wrong ones. A distant object of the same colours may "
        "cost as little as a near one of others: no distance alone rules a match out",
        0.0,
        50.0,
    )


@dataclass(frozen=True)
class ModelInfo:
    """What a model says of itself (the metadata of the ONNX file).

    input_size: (height, width) that the network was made for; frames are letterboxed to it.
    output_stride: input pixels per cell of the output maps.
    feature_strides: input pixels per token of the cached reference features, one per fusion level; none with
        ``feature_tokens``, the number of object tokens that are cached of a frame in place of all of its pixels.
    center_window: NMS window as a fraction of sqrt(height * width) of the input. The paper's 41 pixels at 640 x 640.
    max_distance: the paper's epsilon, farthest matching distance, as a fraction of sqrt(height * width) of the input.
    max_stray, min_score, confirm_frames: defaults of ``AssemblyConfig``: with them a stream shows hardly a ghost.
    match_costs: as calibrated on this model's own tracks.
    precision: what it computes in: float32, float16, or int8 where convolutions do.
    """

    name: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    output_stride: int = 4
    feature_strides: tuple[int, ...] = (16, 16)
    feature_tokens: int = 0
    max_references: int = 4
    reference_policy: str = "first+recent"
    center_threshold: float = 0.15
    center_window: float = 41 / 640
    max_distance: float = 0.1
    max_stray: float = 0.0
    min_score: float = 0.0
    confirm_frames: int = 1
    match_costs: MatchCosts = MatchCosts()
    training: str = ""
    licence: str = ""
    weights_sha256: str = ""
    precision: str = "float32"

    def feature_sizes(self, height: int, width: int) -> tuple[tuple[int, ...], ...]:
        """Of the cached features of a frame of this input size, one for each level, without batch and channels."""
        if self.feature_tokens:
            return ((self.feature_tokens,),)
        return tuple((height // stride, width // stride) for stride in self.feature_strides)
