# SPDX-License-Identifier: Apache-2.0
"""Tracks from above, in metres."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.pictures.draw import colours
from instance_flow.spatial.camera import CameraModel
from instance_flow.structures import Image, Tracks

Array = NDArray[np.float64]

_GROUND, _GRID, _VIEW, _INK = (32, 32, 32), (58, 58, 58), (150, 150, 150), (220, 220, 220)
_FONT, _LETTERS = cv2.FONT_HERSHEY_SIMPLEX, 0.4
_UNSURE = 0.25
"""Metres of standard deviation at which an object is drawn half as strong."""
_FARTHEST = 10_000
"""Pixels outside of the picture that OpenCV still draws from."""
_CORNERS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def birds_eye(
    tracks: Tracks,
    camera: CameraModel,
    *,
    size: tuple[int, int] = (480, 480),
    reach: float = 8.0,
    arrow_seconds: float = 1.0,
) -> Image:
    """Draw tracks on the plane of the camera's x, to the right, and z, upwards: (H, W, 3) uint8 RGB.

    The camera is at the middle of the lower edge, between the lines of its field of view (distortion left out). Each
    object has its place, the outline of its box, its id, and an arrow to where it will be; it fades as its place is
    less certain, and the arrow as its velocity is. The number of objects not shown is in the upper right corner.

    camera: the one that the tracks were placed with; its pose converts them back to the optical frame.
    size: (height, width) of the picture in pixels.   reach: metres from the lower edge to the upper one.
    Raises ValueError where size or reach leave nothing to draw on.
    """
    if min(size) < 32 or not 0.1 <= reach <= 1000:
        raise ValueError(f"size is {size} and reach {reach}; expected at least 32 pixels and 0.1 to 1000 metres")
    canvas = np.full((*size, 3), _GROUND, np.uint8)
    plane = _Plane(size, size[0] / reach)
    _draw_ground(canvas, plane, reach, tracks.label_map.shape[1], camera)
    turn, shift = (np.eye(3), np.zeros(3)) if camera.pose is None else (camera.pose[:3, :3], camera.pose[:3, 3])
    # Row vectors: p @ turn is the transposed rotation, from the pose's frame into the optical one.
    positions, boxes = (tracks.positions - shift) @ turn, (tracks.box_centers - shift) @ turn
    velocities = tracks.spatial_velocities.astype(np.float64) @ turn
    hidden = 0
    for row, tint in enumerate(colours(tracks.ids).tolist()):
        place = plane.pixels(positions[row])
        if not np.isfinite(positions[row]).all() or not ((place >= 0) & (place < size[::-1])).all():
            hidden += 1
            continue
        layer = canvas.copy()
        corners = boxes[row] + (_CORNERS * tracks.extents[row]) @ tracks.rotations[row].T @ turn
        cv2.polylines(layer, [cv2.convexHull(plane.pixels(corners))], True, tint, 2, cv2.LINE_AA)
        cv2.circle(layer, place.tolist(), 4, tint, -1, cv2.LINE_AA)
        _write(layer, str(tracks.ids[row]), (int(place[0]) + 7, int(place[1]) - 5), _INK)
        opacity = 1 / (1 + _variance(tracks, row, 0) / _UNSURE**2)
        cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0, canvas)
        speed, variance = float((velocities[row] ** 2).sum()), _variance(tracks, row, 3)
        if arrow_seconds and math.isfinite(speed + variance) and speed > 0:
            layer, tip = canvas.copy(), plane.pixels(positions[row] + velocities[row] * arrow_seconds)
            cv2.arrowedLine(layer, place.tolist(), tip.tolist(), _INK, 1, cv2.LINE_AA, tipLength=0.2)
            opacity *= speed / (speed + 4 * variance)
            cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0, canvas)
    if hidden:
        _write(canvas, f"{hidden} not shown", (max(2, size[1] - 90), 14), _INK)
    return canvas


class _Plane:
    """Converts metres to pixels of a picture of size (height, width)."""

    def __init__(self, size: tuple[int, int], scale: float) -> None:
        self.size, self.scale = size, scale

    def pixels(self, points: Array) -> NDArray[np.int32]:
        """(..., 2) column and row of points (..., 3); unknown points lie far outside."""
        height, width = self.size
        places = np.stack([width / 2 + points[..., 0] * self.scale, height - 1 - points[..., 2] * self.scale], -1)
        return np.rint(np.clip(np.nan_to_num(places, nan=-_FARTHEST), -_FARTHEST, _FARTHEST)).astype(np.int32)


def _draw_ground(canvas: Image, plane: _Plane, reach: float, image_width: int, camera: CameraModel) -> None:
    """Lines at every metre, with numbers, or at fewer where there would be more than 20; and the field of view."""
    height, width = plane.size
    step, beside = max(1, math.ceil(reach / 20)), width / 2 / plane.scale
    for z in range(step, math.ceil(reach), step):
        _, row = plane.pixels(np.array([0.0, 0, z])).tolist()
        cv2.line(canvas, (0, row), (width - 1, row), _GRID)
        _write(canvas, f"{z} m", (2, row - 3), _VIEW)
    for x in range(-int(beside / step) * step, int(beside) + 1, step):
        column, _ = plane.pixels(np.array([float(x), 0, 0])).tolist()
        cv2.line(canvas, (column, 0), (column, height - 1), _GRID)
        _write(canvas, str(x), (column + 2, height - 4), _VIEW)
    fx, _, cx, *_ = camera.intrinsics
    start = plane.pixels(np.zeros(3)).tolist()
    for edge in (-0.5, image_width - 0.5):
        end = plane.pixels(np.array([(edge - cx) / fx, 0, 1]) * reach).tolist()
        cv2.line(canvas, start, end, _VIEW, 1, cv2.LINE_AA)


def _variance(tracks: Tracks, row: int, first: int) -> float:
    """Mean variance of three of the six of a spatial covariance; it does not depend on the frame."""
    return float(np.trace(tracks.spatial_covariances[row, first : first + 3, first : first + 3])) / 3


def _write(canvas: Image, text: str, corner: tuple[int, int], ink: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, corner, _FONT, _LETTERS, ink, 1, cv2.LINE_AA)
