# SPDX-License-Identifier: Apache-2.0
"""Tracks to the messages of instance_flow_msgs and back, for any classes that implement these: rclpy's in the live
node, those of rosbags in replay. Both give the same messages, which are made here alone.

Numbers go in as Python's own: rclpy's unchecked setters end the process for a numpy scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.rle import RunLengths, from_run_lengths, window_run_lengths
from instance_flow.formats.rotations import to_matrices, to_quaternions
from instance_flow.structures import LAST_ID, MAX_PIXELS, SPATIAL_STATES, LabelMap, ModelInfo, Tracks

PACKAGE = "instance_flow_msgs"
MEASURED = SPATIAL_STATES.index("measured")
LAST_LABEL = 65535
BYTES_PER_RUN = 4
MASK_BUDGET = 1_000_000
"""Bytes of masks in one message, unless told otherwise: far more than 100 usual masks take."""

_COLUMN_OF_FIELD = {
    "id": "ids",
    "state": "states",
    "class_id": "class_ids",
    "score": "scores",
    "semantic_score": "semantic_scores",
    "center_score": "center_scores",
    "area": "areas",
    "age": "ages",
    "age_seconds": "age_seconds",
    "reference_frame": "reference_frames",
    "matched_distance": "distances",
}
"""Fields of a TrackedInstance that hold a number, and the column of Tracks that it stands in."""


@dataclass(frozen=True)
class MessageTypes:
    """The classes of instance_flow_msgs and of geometry_msgs, called with all their fields by name.

    uint32s: puts numbers (N,) uint32 into the form that the classes want for ``uint32[]``.
    """

    TrackedInstanceArray: Callable[..., Any]
    TrackedInstance: Callable[..., Any]
    RunLengthMask: Callable[..., Any]
    ClassTable: Callable[..., Any]
    Box2D: Callable[..., Any]
    Vector2D: Callable[..., Any]
    Instance3D: Callable[..., Any]
    Point: Callable[..., Any]
    Vector3: Callable[..., Any]
    Quaternion: Callable[..., Any]
    Pose: Callable[..., Any]
    uint32s: Callable[[RunLengths], Any]


def to_label(track_ids: Any) -> Any:
    """Give the pixel value of a track in the label image, of one id or an array: from 1 up, folded into 1..65535."""
    return (track_ids - 1) % LAST_LABEL + 1


def to_label_pixels(label_map: LabelMap) -> NDArray[np.uint16]:
    """Give the pixels (H, W) uint16 of the label image for a map (H, W) of track ids, 0 = background in both."""
    if label_map.size == 0 or label_map.max() <= LAST_LABEL:
        return label_map.astype(np.uint16)
    return np.where(label_map > 0, to_label(label_map), 0).astype(np.uint16)


def to_class_table(types: MessageTypes, info: ModelInfo, header: Any) -> Any:
    """Give the ClassTable of a model; the header's stamp is when it was loaded."""
    return types.ClassTable(
        header=header, model=info.name, weights_sha256=info.weights_sha256, class_names=list(info.class_names)
    )


def to_instance_array(
    types: MessageTypes,
    tracks: Tracks,
    header: Any,
    class_names: Sequence[str],
    mask_budget: int = MASK_BUDGET,
    spatial_frame: str = "",
) -> Any:
    """Give the TrackedInstanceArray of one frame's tracks; ``header`` is that of the image.

    mask_budget: most bytes of run lengths in the message; masks of the lowest scores are left out until it holds. 0 =
        no bound.
    spatial_frame: name of the frame of all that is in metres; empty = the image's.
    """
    height, width = tracks.label_map.shape
    windows = _windows(tracks.boxes)
    runs = window_run_lengths(tracks.label_map, tracks.ids, windows)
    kept = _within_budget([BYTES_PER_RUN * len(r) for r in runs], tracks.scores, mask_budget)
    masks = [
        _to_mask(types, window, counts) if keep else _to_mask(types, (0, 0, 0, 0), np.zeros(0, np.uint32))
        for window, counts, keep in zip(windows.tolist(), runs, kept, strict=True)
    ]
    return types.TrackedInstanceArray(
        header=header,
        height=height,
        width=width,
        frame_index=int(tracks.frame_index),
        spatial_frame_id=spatial_frame or header.frame_id,
        instances=_to_instances(types, tracks, class_names, masks, kept),
    )


def warmup() -> None:
    """Compile what messages need, so that the first one costs no more than the others."""
    window_run_lengths(np.ones((1, 1), np.int32), [1], [(0, 0, 1, 1)])


def to_tracks(message: Any, class_names: Sequence[str] = ()) -> Tracks:
    """Give the tracks that a TrackedInstanceArray was made of; pixels of masks that were left out are background.

    class_names: those of ``~/class_table``, for ``Tracks.names``; a message has only those of its own objects.
    Raises ValueError for more than ``MAX_PIXELS``, for an id that no label map holds, and for a damaged mask.
    """
    rows = message.instances
    if message.height * message.width > MAX_PIXELS:
        raise ValueError(
            f"the message is of an image of {message.width} x {message.height} pixels; at most {MAX_PIXELS} are read"
        )
    label_map = np.zeros((message.height, message.width), np.int32)
    for instance in rows:
        mask = instance.mask
        if not 1 <= instance.id <= LAST_ID:
            raise ValueError(f"the message has the track id {instance.id}; ids are numbers from 1 to {LAST_ID}")
        if instance.has_mask:
            if mask.x + mask.width > message.width or mask.y + mask.height > message.height:
                raise ValueError(f"the mask of track {instance.id} does not lie in the image of the message")
            window = label_map[mask.y : mask.y + mask.height, mask.x : mask.x + mask.width]
            window[from_run_lengths(mask.runs, window.shape) == 1] = instance.id
    uncertain = np.array([i.velocity_covariance for i in rows], np.float32).reshape(-1, 2, 2)
    return Tracks(
        frame_index=message.frame_index,
        label_map=label_map,
        ids=np.array([i.id for i in rows], np.int64),
        class_ids=np.array([i.class_id for i in rows], np.int64),
        scores=np.array([i.score for i in rows], np.float32),
        semantic_scores=np.array([i.semantic_score for i in rows], np.float32),
        center_scores=np.array([i.center_score for i in rows], np.float32),
        centers=np.array([(i.center.y, i.center.x) for i in rows], np.float32).reshape(-1, 2),
        boxes=np.array([(i.box.x, i.box.y, i.box.width, i.box.height) for i in rows], np.float32).reshape(-1, 4),
        areas=np.array([i.area for i in rows], np.int64),
        velocities=np.array([(i.velocity.y, i.velocity.x) for i in rows], np.float32).reshape(-1, 2),
        states=np.array([i.state for i in rows], np.int64),
        ages=np.array([i.age for i in rows], np.int64),
        age_seconds=np.array([i.age_seconds for i in rows], np.float64),
        reference_frames=np.array([i.reference_frame for i in rows], np.int64),
        distances=np.array([i.matched_distance for i in rows], np.float32),
        names=dict(enumerate(class_names)),
        velocity_covariances=uncertain[:, ::-1, ::-1],
        **_to_columns_in_space([i.spatial for i in rows]),
    )


def _to_columns_in_space(rows: Sequence[Any]) -> dict[str, Any]:
    """The fields of Tracks that Instance3D messages (N,) hold."""
    quaternions = np.array([_values(i.box.orientation, "xyzw") for i in rows], np.float64).reshape(-1, 4)
    return {
        "spatial_states": np.array([i.state for i in rows], np.int64),
        "points": np.array([i.points for i in rows], np.int64),
        "positions": np.array([_values(i.position) for i in rows], np.float32).reshape(-1, 3),
        "spatial_velocities": np.array([_values(i.velocity) for i in rows], np.float32).reshape(-1, 3),
        "spatial_covariances": np.array([i.covariance for i in rows], np.float32).reshape(-1, 6, 6),
        "box_centers": np.array([_values(i.box.position) for i in rows], np.float32).reshape(-1, 3),
        "extents": np.array([_values(i.extent) for i in rows], np.float32).reshape(-1, 3),
        "rotations": to_matrices(quaternions).astype(np.float32),
    }


def _values(message: Any, names: str = "xyz") -> list[float]:
    return [getattr(message, name) for name in names]


def _to_instances(
    types: MessageTypes, tracks: Tracks, class_names: Sequence[str], masks: Sequence[Any], kept: Sequence[bool]
) -> list[Any]:
    # Whole columns become Python's numbers at once: number by number that takes longer than all else.
    columns = {field: getattr(tracks, column).tolist() for field, column in _COLUMN_OF_FIELD.items()}
    numbers = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    labels, boxes = to_label(tracks.ids).tolist(), tracks.boxes.tolist()
    centers, velocities = tracks.centers.tolist(), tracks.velocities.tolist()
    uncertain = np.ascontiguousarray(tracks.velocity_covariances[:, ::-1, ::-1], np.float32).reshape(-1, 4)
    spatial = _to_instances_in_space(types, tracks)
    return [
        types.TrackedInstance(
            **numbers[row],
            label=labels[row],
            class_name=class_names[numbers[row]["class_id"]],
            box=types.Box2D(x=x, y=y, width=width, height=height),
            center=types.Vector2D(x=centers[row][1], y=centers[row][0]),
            velocity=types.Vector2D(x=velocities[row][1], y=velocities[row][0]),
            velocity_covariance=uncertain[row],
            spatial=spatial[row],
            has_mask=kept[row],
            mask=masks[row],
        )
        for row, (x, y, width, height) in enumerate(boxes)
    ]


def _to_instances_in_space(types: MessageTypes, tracks: Tracks) -> list[Any]:
    """An Instance3D for each object; objects whose place is unknown for the same reason share one."""
    states = tracks.spatial_states.tolist()
    unknown = {
        state: _to_instance_in_space(types, state, 0, [np.nan] * 16, np.full(36, np.nan, np.float32))
        for state in set(states) - {MEASURED}
    }
    instances = [unknown.get(state) for state in states]
    measured = np.flatnonzero(tracks.spatial_states == MEASURED)
    if len(measured):  # Without depth, that is with most cameras, there is nothing to convert.
        columns = (tracks.positions, tracks.spatial_velocities, tracks.box_centers, tracks.extents)
        parts = [column[measured] for column in columns]
        numbers = np.concatenate([*parts, to_quaternions(tracks.rotations[measured])], 1).tolist()
        covariances = np.ascontiguousarray(tracks.spatial_covariances, np.float32).reshape(-1, 36)
        for row, values in zip(measured.tolist(), numbers, strict=True):
            instances[row] = _to_instance_in_space(types, MEASURED, int(tracks.points[row]), values, covariances[row])
    return instances


def _to_instance_in_space(
    types: MessageTypes, state: int, points: int, numbers: Sequence[float], covariance: NDArray[np.float32]
) -> Any:
    """numbers: position, velocity, center of the box and extent, three each, and quaternion x, y, z, w."""

    def three(kind: Callable[..., Any], first: int) -> Any:
        return kind(x=numbers[first], y=numbers[first + 1], z=numbers[first + 2])

    turn = types.Quaternion(x=numbers[12], y=numbers[13], z=numbers[14], w=numbers[15])
    return types.Instance3D(
        state=state,
        points=points,
        position=three(types.Point, 0),
        velocity=three(types.Vector3, 3),
        covariance=covariance,
        box=types.Pose(position=three(types.Point, 6), orientation=turn),
        extent=three(types.Vector3, 9),
    )


def _windows(boxes: NDArray[np.float32]) -> NDArray[np.int64]:
    """left, top, right, bottom (N, 4) of the pixels in boxes (N, 4) x, y, width, height."""
    return np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, :2] + boxes[:, 2:])], 1).astype(np.int64)


def _within_budget(sizes: Sequence[int], scores: NDArray[np.float32], budget: int) -> list[bool]:
    """Which masks stay: the lowest score goes first, of equal ones the higher row."""
    kept = [True] * len(sizes)
    total = sum(sizes)
    for row in np.lexsort((-np.arange(len(sizes)), scores)).tolist():
        if not budget or total <= budget:
            break
        kept[row] = False
        total -= sizes[row]
    return kept


def _to_mask(types: MessageTypes, window: Sequence[int], runs: RunLengths) -> Any:
    left, top, right, bottom = window
    return types.RunLengthMask(x=left, y=top, width=right - left, height=bottom - top, runs=types.uint32s(runs))
