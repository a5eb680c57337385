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
* One exception, for those who use the results: :class:`Track`, one row of :class:`Tracks`, has x before y everywhere,
  as other tools do: ``box`` is ``x0, y0, x1, y1``, ``center`` and ``velocity`` are ``x, y``. The arrays keep their
  order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

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


@dataclass(frozen=True, repr=False)
class Tracks:
    """The N tracked objects of one frame, in pixels of the image that was given to ``Pipeline.step``.

    ``len(tracks)``, ``for track in tracks`` (by ascending id), ``tracks[track_id]`` and ``track_id in tracks`` give the
    single objects, each a :class:`Track` with x before y. The fields are arrays with a row for each object; they have
    y before x, but for ``boxes``.

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
    names: the model's class names by class_id; empty where they are not known.
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
    names: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Track]:
        return (Track(self, row) for row in range(len(self)))

    def __contains__(self, track_id: object) -> bool:
        return isinstance(track_id, int | np.integer) and bool((self.ids == track_id).any())

    def __getitem__(self, track_id: int | np.integer[Any]) -> Track:
        """The object with this track id; KeyError where this frame has none."""
        if track_id not in self:
            ids = ", ".join(map(str, self.ids[:_MOST_SHOWN])) + (", ..." if len(self) > _MOST_SHOWN else "")
            raise KeyError(
                f"frame {self.frame_index} has no track with the id {track_id!r}; tracks are looked up by id, and here "
                f"the ids are {ids or 'none'}"
            )
        return Track(self, int(np.flatnonzero(self.ids == track_id)[0]))

    @property
    def class_names(self) -> list[str]:
        """Name of each object's class (N,), in the order of ``class_ids``."""
        return [self.names.get(k, f"class {k}") for k in self.class_ids.tolist()]

    def mask(self, track_id: int | np.integer[Any]) -> NDArray[np.bool_]:
        """Where an object is (H, W); KeyError where this frame has none with that id."""
        return self[track_id].mask

    def filter(self, classes: str | int | Sequence[str | int] | None = None, min_score: float = 0.0) -> Tracks:
        """The objects of some classes that have at least some score; the pixels of the others are background.

        classes: a class name or class_id, or several of them; None = all.
        Raises ValueError for a class that the model does not know, and for a score that is not within 0 to 1.
        """
        if not 0.0 <= min_score <= 1.0:
            raise ValueError(f"min_score is {min_score!r}, but scores lie between 0 and 1")
        # A score such as 0.3 is a little above the nearest float32 or a little below it.
        keep = self.scores >= np.float32(min_score)
        if classes is not None:
            keep = keep & np.isin(self.class_ids, self._class_ids(classes))
        rows = {name: getattr(self, name)[keep] for name in _ROW_ARRAYS}
        shown = np.isin(self.label_map, rows["ids"])
        return replace(self, label_map=np.where(shown, self.label_map, 0), **rows)

    def draw(self, image: Image | None = None, **options: Any) -> Image:
        """Masks, ids, classes and motion over a copy of the frame's image: (H, W, 3) uint8.

        image: (H, W, 3) uint8, the one that was given to ``Pipeline.step``; None = on gray.
        options: of ``instance_flow.pictures.draw.overlay``: ``arrow_seconds``, ``labels``, ``opacity``.
        Raises ValueError for an image of another size.
        """
        from instance_flow.pictures.draw import overlay  # only what draws needs OpenCV

        if image is None:
            image = np.full((*self.label_map.shape, 3), 96, np.uint8)
        return overlay(image, self, **options)

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, with masks (N, H, W), track ids, and class names under ``"class_name"``.

        Raises ImportError where supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise ImportError("supervision is not installed; install it with `pip install supervision`") from None
        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], 1)
        return supervision.Detections(
            xyxy=corners,
            mask=self.label_map == self.ids[:, None, None],
            confidence=self.scores,
            class_id=self.class_ids,
            tracker_id=self.ids,
            data={"class_name": np.array(self.class_names, dtype=str)},
        )

    def to_pandas(self) -> Any:
        """As a ``pandas.DataFrame``: a row for each object, columns as ``Track.numbers`` gives them.

        Raises ImportError where pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("pandas is not installed; install it with `pip install pandas`") from None
        return pandas.DataFrame([track.numbers() for track in self], columns=list(NUMBERS))

    def __repr__(self) -> str:
        height, width = self.label_map.shape
        objects = [f"{track.id} {track.class_name!r} {track.score:.2f}" for track in self]
        more = [f"{len(objects) - _MOST_SHOWN} more"] if len(objects) > _MOST_SHOWN else []
        found = ", ".join([*objects[:_MOST_SHOWN], *more])
        count = f"{len(self)} track{'' if len(self) == 1 else 's'}"
        return f"<Tracks of frame {self.frame_index}, {width} x {height}: {count}{': ' if found else ''}{found}>"

    def _repr_html_(self) -> str:
        """For notebooks: the masks, and a table. The image is not kept: a stream would keep all of its images."""
        from instance_flow.pictures.notebook import tracks_page

        return tracks_page(self)

    def _class_ids(self, classes: str | int | Sequence[str | int]) -> list[int]:
        found: list[int] = []
        for entry in [classes] if isinstance(classes, str | int | np.integer) else classes:
            ids = [k for k, name in self.names.items() if entry in (k, name)]
            if not self.names and not isinstance(entry, str):
                ids = [int(entry)]
            if not ids:
                known = ", ".join(f"{k} {name!r}" for k, name in self.names.items())
                hint = f"the classes are {known}" if known else "names are not known here, so give class_ids"
                raise ValueError(f"there is no class {entry!r}; {hint}")
            found += ids
        return found


_MOST_SHOWN = 10
_ROW_ARRAYS = tuple(spec.name for spec in fields(Tracks) if spec.name not in ("frame_index", "label_map", "names"))


@dataclass(frozen=True, eq=False, repr=False)
class Track:
    """One object of a frame: a view of row ``row`` of ``tracks``, as Python's own numbers, x before y.

    What is not known is NaN, as in the arrays. Lengths are pixels of the image.
    """

    tracks: Tracks
    row: int

    @property
    def id(self) -> int:
        """Track id, from 1."""
        return int(self.tracks.ids[self.row])

    @property
    def class_id(self) -> int:
        """From 0 through the class names."""
        return int(self.tracks.class_ids[self.row])

    @property
    def class_name(self) -> str:
        """As the model says; "class 3" where names are not known."""
        return self.tracks.names.get(self.class_id, f"class {self.class_id}")

    @property
    def score(self) -> float:
        """0 to 1: semantic_score * center_score, unless ``AssemblyConfig.score`` says otherwise."""
        return float(self.tracks.scores[self.row])

    @property
    def semantic_score(self) -> float:
        """Mean probability of the class over the object's pixels."""
        return float(self.tracks.semantic_scores[self.row])

    @property
    def center_score(self) -> float:
        """Heat at the object's center."""
        return float(self.tracks.center_scores[self.row])

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W), where the object is; compared with the label map at every call."""
        return self.tracks.label_map == self.id

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1: left, upper, right and lower edge."""
        x, y, width, height = self.tracks.boxes[self.row].tolist()
        return x, y, x + width, y + height

    @property
    def center(self) -> tuple[float, float]:
        """x, y."""
        y, x = self.tracks.centers[self.row].tolist()
        return x, y

    @property
    def velocity(self) -> tuple[float, float]:
        """x, y in pixels per second; NaN where unknown."""
        y, x = self.tracks.velocities[self.row].tolist()
        return x, y

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.tracks.areas[self.row])

    @property
    def state(self) -> str:
        """One of ``STATES``."""
        return STATES[self.tracks.states[self.row]]

    @property
    def age(self) -> int:
        """Frames since the id was first given, 0 = this frame."""
        return int(self.tracks.ages[self.row])

    @property
    def age_seconds(self) -> float:
        """The same by the stamps of the frames; NaN where one of the two has none."""
        return float(self.tracks.age_seconds[self.row])

    @property
    def reference_frame(self) -> int:
        """frame_index of the reference that kept the id, NEW (-1) for a new id."""
        return int(self.tracks.reference_frames[self.row])

    @property
    def distance(self) -> float:
        """Pixels by which the match with that reference missed; NaN for a new id or one known again by its colours."""
        return float(self.tracks.distances[self.row])

    def numbers(self) -> dict[str, int | float | str]:
        """All but the mask, by the names in ``NUMBERS``, as tables have them."""
        flat = (*self.box, *self.center, *self.velocity)
        pairs = zip(_FLAT, flat, strict=True)
        return {name: getattr(self, name) for name in _BEFORE} | dict(pairs) | {n: getattr(self, n) for n in _AFTER}

    def __repr__(self) -> str:
        box = ", ".join(f"{value:g}" for value in self.box)
        speed = math.hypot(*self.velocity)
        motion = f", {speed:.0f} px/s" if math.isfinite(speed) else ""
        return f"<Track {self.id} {self.class_name!r} {self.score:.2f}, box {box}{motion}, {self.state}>"


_BEFORE = ("id", "class_id", "class_name", "score", "semantic_score", "center_score")
_FLAT = ("x0", "y0", "x1", "y1", "center_x", "center_y", "velocity_x", "velocity_y")
_AFTER = ("area", "state", "age", "age_seconds", "reference_frame", "distance")
NUMBERS = (*_BEFORE, *_FLAT, *_AFTER)
"""Columns of a table of tracks."""


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
