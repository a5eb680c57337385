# SPDX-License-Identifier: Apache-2.0
"""Pure functions from tracks to messages and back.

Numbers go in as float() and int(): rclpy's unchecked setters end the process for a numpy scalar.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from instance_flow_msgs.msg import Box2D, RunLengthMask, TrackedInstance, TrackedInstanceArray, Vector2D
from numpy.typing import NDArray
from std_msgs.msg import Header

from instance_flow.rle import from_run_lengths, run_lengths
from instance_flow.structures import LabelMap, Tracks

LAST_LABEL = 65535


def to_nanoseconds(header: Header) -> int | None:
    """Give a header's stamp in nanoseconds; None for 0, which says that nobody set it."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec) or None


def to_label(track_id: int) -> int:
    """Give the pixel value of a track in the label image: ids from 1 up, folded into 1..65535."""
    return (track_id - 1) % LAST_LABEL + 1


def to_label_pixels(label_map: LabelMap) -> NDArray[np.uint16]:
    """Give the pixels (H, W) uint16 of the label image for a map (H, W) of track ids, 0 = background in both."""
    if label_map.size == 0 or label_map.max() <= LAST_LABEL:
        return label_map.astype(np.uint16)
    return np.where(label_map > 0, (label_map - 1) % LAST_LABEL + 1, 0).astype(np.uint16)


def to_instance_array(tracks: Tracks, header: Header, class_names: Sequence[str]) -> TrackedInstanceArray:
    """Give the message for one frame's tracks; ``header`` is that of the image."""
    height, width = tracks.label_map.shape
    return TrackedInstanceArray(
        header=header,
        height=height,
        width=width,
        frame_index=int(tracks.frame_index),
        instances=[_to_instance(tracks, row, class_names) for row in range(len(tracks))],
    )


def _to_instance(tracks: Tracks, row: int, class_names: Sequence[str]) -> TrackedInstance:
    track_id, class_id = int(tracks.ids[row]), int(tracks.class_ids[row])
    x, y, width, height = (float(value) for value in tracks.boxes[row])
    return TrackedInstance(
        id=track_id,
        label=to_label(track_id),
        class_id=class_id,
        class_name=class_names[class_id],
        score=float(tracks.scores[row]),
        semantic_score=float(tracks.semantic_scores[row]),
        center_score=float(tracks.center_scores[row]),
        box=Box2D(x=x, y=y, width=width, height=height),
        area=int(tracks.areas[row]),
        center=_to_vector(tracks.centers[row]),
        velocity=_to_vector(tracks.velocities[row]),
        age=int(tracks.ages[row]),
        reference_frame=int(tracks.reference_frames[row]),
        matched_distance=float(tracks.distances[row]),
        mask=to_run_length_mask(tracks.label_map, track_id, tracks.boxes[row]),
    )


def to_run_length_mask(label_map: LabelMap, track_id: int, box: NDArray[np.float32]) -> RunLengthMask:
    """Give the pixels of one track within its box (x, y, width, height)."""
    left, top = (int(value) for value in np.floor(box[:2]))
    right, bottom = (int(value) for value in np.ceil(box[:2] + box[2:]))
    window = label_map[top:bottom, left:right]
    runs = array("I")
    runs.frombytes(run_lengths(window == track_id).tobytes())
    return RunLengthMask(x=left, y=top, height=window.shape[0], width=window.shape[1], runs=runs)


def to_tracks(message: TrackedInstanceArray) -> Tracks:
    """Give the tracks that a message was made of, its label map rebuilt from the masks."""
    rows = message.instances
    label_map = np.zeros((message.height, message.width), np.int32)
    for instance in rows:
        mask = instance.mask
        window = label_map[mask.y : mask.y + mask.height, mask.x : mask.x + mask.width]
        window[from_run_lengths(mask.runs, window.shape) == 1] = instance.id
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
        ages=np.array([i.age for i in rows], np.int64),
        reference_frames=np.array([i.reference_frame for i in rows], np.int64),
        distances=np.array([i.matched_distance for i in rows], np.float32),
    )


def _to_vector(point: NDArray[Any]) -> Vector2D:
    return Vector2D(x=float(point[1]), y=float(point[0]))
