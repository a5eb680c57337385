# SPDX-License-Identifier: Apache-2.0
"""What crosses the boundaries between the parts, and every convention, written once.

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
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
LabelMap = NDArray[np.int32]
Image = NDArray[np.uint8]

MAX_PIXELS = 64 * 2**20
"""Pixels of the largest image or mask that is read, 67 million: above the largest camera sensors, 200 MB of RGB."""

LAST_ID = 2**31 - 1
"""Largest track id, as label maps hold 32 bits; a stream that gives ten in a second ends in seven years."""

NEW = -1
"""Value of ``Tracks.reference_frames`` for an identity that begins in this frame."""

STATES = ("new", "tracked", "recovered")
"""What ``Tracks.states`` counts through: the id is published for the first time; it was in the frame before as well; it
was not in the frame before, or the stream was interrupted, and it is found again."""


class InstanceFlowError(Exception):
    """A file, model or provider is not what it should be. The message is meant for the user."""


class ModelError(InstanceFlowError):
    """A model file that is missing, damaged, foreign, or newer than this program."""


class SourceError(InstanceFlowError):
    """A video, image folder, bag or data set that cannot be read."""


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
    motion: (M, 2) float32 cells moved since ``motion_since`` (M,) int64, an index into the references, -1 if unknown.
    """

    ids: IntArray
    class_ids: IntArray
    states: IntArray
    ages: IntArray
    age_seconds: NDArray[np.float64]
    reference_frames: IntArray
    distances: FloatArray
    motion: FloatArray
    motion_since: IntArray


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
class Tracks:
    """The N tracked objects of one frame, in pixels of the image that was given to ``Pipeline.step``.

    frame_index: position of the frame in the stream, 0 = first frame after a reset.
    label_map: (H, W) int32 holding track ids, 0 = background. Every row below has at least one pixel in it.
    ids: (N,) int64 track ids, ascending.
    class_ids: (N,) int64, by the votes of all frames so far (section III-C-3).
    scores: (N,) float32 = semantic_scores * center_scores (Eq. 6), clipped to 0..1.
    semantic_scores: (N,) float32, mean probability of the class over the object's pixels in this frame.
    center_scores: (N,) float32, heat at the object's center.
    centers: (N, 2) float32 (y, x).   boxes: (N, 4) float32 x, y, width, height.   areas: (N,) int64 pixels.
    velocities: (N, 2) float32 (dy, dx) in pixels per second from the instance flow; NaN where unknown.
    states: (N,) int64, index into ``STATES``.
    ages: (N,) int64, frames since the id was first given, 0 = this frame.
    age_seconds: (N,) float64, the same by the stamps of the frames; NaN where one of the two has none.
    reference_frames: (N,) int64, frame_index of the reference that kept the id, NEW (-1) for a new id. An object that
        was known again by its colours, after no reference showed it, has the last frame in which it was seen.
    distances: (N,) float32, pixels between the center carried by the instance flow and the reference's center
        (Eq. 5); NaN for a new id, and for one known again by its colours.
    """

    frame_index: int
    label_map: LabelMap
    ids: IntArray
    class_ids: IntArray
    scores: FloatArray
    semantic_scores: FloatArray
    center_scores: FloatArray
    centers: FloatArray
    boxes: FloatArray
    areas: IntArray
    velocities: FloatArray
    states: IntArray
    ages: IntArray
    age_seconds: NDArray[np.float64]
    reference_frames: IntArray
    distances: FloatArray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class MatchCosts:
    """What ``matching.match_by_evidence`` weighs with: how far a model's flow and colours can be trusted.

    flow_error: what flow misses by where the pixels of an object agree on it, as a fraction of sqrt(height * width).
    look_weight, look_gain: of unlike colours.
    motion_weight: of where the last motion leads.   motion_error: how far an object strays from there in one frame, in
        units of the flow's own error.
    lost_cost: evidence against an identity that no reference shows, in place of the flow's.
    max_cost: of an identity that is still kept.
    """

    flow_error: float = 1 / 62
    look_weight: float = 2.0
    look_gain: float = 20.0
    motion_weight: float = 0.5
    motion_error: float = 5.0
    lost_cost: float = 3.0
    max_cost: float = 8.5


@dataclass(frozen=True)
class ModelInfo:
    """What a model says of itself (the metadata of the ONNX file).

    input_size: (height, width) that the network was made for; frames are letterboxed to it.
    output_stride: input pixels per cell of the output maps.
    feature_strides: input pixels per token of the cached reference features, one per fusion level; none with
        ``feature_tokens``, the number of object tokens that are cached of a frame in place of all of its pixels.
    center_window: NMS window as a fraction of sqrt(height * width) of the input. The paper's 41 pixels at 640 x 640.
    max_distance: the paper's epsilon, farthest matching distance, as a fraction of sqrt(height * width) of the input.
    min_score, confirm_frames: defaults of ``AssemblyConfig``: with them a stream shows objects and hardly a ghost.
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


class Network(Protocol):
    """Anything that turns an image and the features of reference frames into maps: ONNX, torch, or an oracle."""

    info: ModelInfo

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        """Run on an image (H, W, 3) uint8 RGB of the network's input size; references are earlier ``features``."""
        ...
