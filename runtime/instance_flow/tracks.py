# SPDX-License-Identifier: Apache-2.0
"""The tracked objects of one frame, as arrays and one by one. The conventions are those of ``structures``, which gives
all that is here as well."""

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

NEW = -1
"""Value of ``Tracks.reference_frames`` for an identity that begins in this frame."""

STATES = ("new", "tracked", "recovered")
"""Names of the values of ``Tracks.states``. new: the id is published for the first time; tracked: it was in the frame
before as well; recovered: it is found again after a frame without it, or after an interruption of the stream."""

SPATIAL_STATES = (
    "measured",
    "no depth",
    "bad depth",
    "size mismatch",
    "bad camera",
    "too few points",
    "too far",
)
"""Names of the values of ``Tracks.spatial_states``: the position was measured in this frame's depth, or why it was not.
There was no depth image; one of another type; of another size than the image; no calibration, or a wrong one; too few
valid depths in the object's mask; or it is beyond ``SpatialConfig.max_depth``."""


_UNKNOWN: Any = None
"""Default of fields that not every maker of tracks knows; they become arrays of NaN."""


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
    velocities: (N, 2) float32 (dy, dx) in pixels per second, filtered from instance flow and centers (docs/spatial.md);
        NaN where unknown.
    states: (N,) int64, index into ``STATES``.
    ages: (N,) int64, frames since the id was first given, 0 = this frame.
    age_seconds: (N,) float64, the same by the stamps of the frames; NaN where one of the two has none.
    reference_frames: (N,) int64, frame_index of the reference that kept the id, NEW (-1) for a new id. An object that
        was re-identified by appearance, after no reference showed it, has the last frame in which it was seen.
    distances: (N,) float32, pixels between the center carried by the instance flow and the reference's center
        (Eq. 5); NaN for a new id, and for one re-identified by appearance.
    names: the model's class names by class_id; empty where they are not known.

    What is known of how exact velocities are, and, with a depth image, of where objects are (docs/spatial.md). Lengths
    are metres, x before y, in the camera's optical frame: x right, y down, z forward (REP 103), or in the frame of
    ``CameraModel.pose``. NaN where unknown; where these are not given, all is.

    velocity_covariances: (N, 2, 2) float32 (pixels per second)^2, rows and columns dy, dx.
    spatial_states: (N,) int64, index into ``SPATIAL_STATES``: all else is known where it is 0, "measured".
    points: (N,) int64, number of depth samples that the position was measured from.
    positions: (N, 3) float32, the middle of the surface that is seen, filtered.
    spatial_velocities: (N, 3) float32 m/s; NaN until measured by two depths, or by depth and instance flow.
    spatial_covariances: (N, 6, 6) float32, of position and velocity.
    box_centers: (N, 3) float32, extents: (N, 3) float32, longest first, rotations: (N, 3, 3) float32: oriented box of
        the surface that is seen in this frame, its axes in the columns of the rotation.
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
    velocity_covariances: FloatArray = _UNKNOWN
    spatial_states: IntArray = _UNKNOWN
    points: IntArray = _UNKNOWN
    positions: FloatArray = _UNKNOWN
    spatial_velocities: FloatArray = _UNKNOWN
    spatial_covariances: FloatArray = _UNKNOWN
    box_centers: FloatArray = _UNKNOWN
    extents: FloatArray = _UNKNOWN
    rotations: FloatArray = _UNKNOWN

    def __post_init__(self) -> None:
        for name, unknown in unknown_in_space(len(self.ids)).items():
            if getattr(self, name) is _UNKNOWN:
                object.__setattr__(self, name, unknown)

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
        return [track.class_name for track in self]

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
        rows = {name: getattr(self, name)[keep] for name in ROW_ARRAYS}
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


def unknown_in_space(count: int) -> dict[str, NDArray[Any]]:
    """Values of the fields of :class:`Tracks` that have a default, for ``count`` objects: NaN, 0 points, no depth."""
    shapes = {
        "velocity_covariances": (2, 2),
        "positions": (3,),
        "spatial_velocities": (3,),
        "spatial_covariances": (6, 6),
        "box_centers": (3,),
        "extents": (3,),
        "rotations": (3, 3),
    }
    return {
        "spatial_states": np.full(count, SPATIAL_STATES.index("no depth"), np.int64),
        "points": np.zeros(count, np.int64),
        **{name: np.full((count, *shape), np.nan, np.float32) for name, shape in shapes.items()},
    }


ROW_ARRAYS = tuple(spec.name for spec in fields(Tracks) if spec.name not in ("frame_index", "label_map", "names"))
"""Fields of :class:`Tracks` that have a row for each object."""


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
        """Pixels by which the match with that reference missed; NaN for a new id or one re-identified by appearance."""
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
