# SPDX-License-Identifier: Apache-2.0
"""Drawing one object of a synthetic world: fill its outline, texture and light it, blur it, and lay it over the image.

Points are (x, y) in pixels of the image, pixel centers at whole numbers. Everything is done in the thing's patch of the
image, which keeps a frame at a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import Image
from instance_flow_training.worlds.outlines import Outline

FloatArray = NDArray[np.float32]
Points = NDArray[Any]
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1; the last two are just outside."""

_BLUR_STEPS = 3
_FIXED_POINT = 4
_SMALLEST_AREA = 12 / (192 * 320)


@dataclass(frozen=True)
class Layer:
    """One thing in its patch of the image.

    box: may reach beyond the image.   paint: (h, w, 4) float32, colour 0 .. 255 times opacity, then opacity 0 .. 1.
    solid: (h, w) bool, at least half covered at the moment of the picture.
    """

    box: Box
    paint: FloatArray
    solid: NDArray[np.bool_]


def pose(squash: tuple[float, float], scale: float, angle: float, center: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine (2, 3) from local coordinates to the image."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array(
        [[cosine * squash[0], -sine * squash[1], center[0]], [sine * squash[0], cosine * squash[1], center[1]]]
    )


def transform(points: Points, matrix: NDArray[np.float64]) -> Points:
    """Apply an affine (2, 3) to points (K, 2)."""
    return points @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2]


def visible_box(polygons: list[Points], pad: int, height: int, width: int) -> Box | None:
    """Box around the polygons and pad, cut at pad outside of the image; None if nothing of it is in the image."""
    points = np.concatenate(polygons)
    x0, y0 = np.floor(points.min(0)).astype(int) - pad
    x1, y1 = np.ceil(points.max(0)).astype(int) + pad + 1
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return None
    return max(int(x0), -pad), max(int(y0), -pad), min(int(x1), width + pad), min(int(y1), height + pad)


def fill(polygons: list[Points], outline: Outline, box: Box, oversample: int) -> NDArray[np.uint8]:
    """Area coverage (h, w, 3) uint8 of the outline: of all parts, of texture times tone / 2, of ink.

    OpenCV fills every fine pixel that the border touches, so outlines are wider by 1 / (2 * oversample) pixel, in the
    image and in the mask alike.
    """
    x0, y0, x1, y1 = box
    canvas = np.zeros(((y1 - y0) * oversample, (x1 - x0) * oversample, 3), np.uint8)
    origin = np.array([x0, y0], np.float32) - 0.5
    for points, part in zip(polygons, outline.parts, strict=True):
        fixed = np.round(((points - origin) * oversample - 0.5) * (1 << _FIXED_POINT)).astype(np.int32)
        colour = (255, 127 * part.tone * (1 - part.ink), 255 * part.ink)
        cv2.fillPoly(canvas, [fixed], colour, cv2.LINE_8, _FIXED_POINT)
    return np.asarray(cv2.resize(canvas, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA), np.uint8)


def shade(
    cover: NDArray[np.uint8],
    texture: Image,
    local_to_patch: NDArray[np.float64],
    ink: FloatArray,
    light: NDArray[np.float64],
    scale: float,
) -> FloatArray:
    """Colour the coverage with texture, ink (3,), and a rounded relief that is lit from one side.

    light: (2,) unit vector (x, y) towards the light.   scale: size of the object in pixels.   Returns a layer's paint.
    """
    height, width = cover.shape[:2]
    side = len(texture)
    texture_to_local = np.array([[1.2 / side, 0, 0.6 / side - 0.6], [0, 1.2 / side, 0.6 / side - 0.6], [0, 0, 1]])
    surface = cv2.warpAffine(texture, local_to_patch @ texture_to_local, (width, height), borderMode=cv2.BORDER_REFLECT)
    # The mean coverage of a window shifted away from the light is high on the lit flank and low on the far one.
    radius = max(1, round(0.09 * min(scale, 120)))
    anchor = tuple(round(radius * (1 + 0.6 * a)) for a in light)
    relief = cv2.blur(cover[..., 0], (2 * radius + 1, 2 * radius + 1), anchor=anchor, borderType=cv2.BORDER_REPLICATE)
    gain = cover[..., 1] * (relief * np.float32(0.65 / 255) + np.float32(0.55)) * np.float32(1 / 127)
    paint = np.empty((height, width, 4), np.float32)
    np.multiply(surface, gain[..., None], out=paint[..., :3])
    paint[..., :3] += cover[..., 2:] * (ink / np.float32(255))
    np.minimum(paint[..., :3], cover[..., :1], out=paint[..., :3])
    paint[..., 3] = cover[..., 0] * np.float32(1 / 255)
    return paint


def smear(paint: NDArray[Any], motion_vector: NDArray[np.float64]) -> NDArray[Any]:
    """Average (h, w, channels) over a motion (dx, dy) in pixels, half of it before and half after."""
    if np.abs(motion_vector).max() < 0.7:
        return paint
    height, width = paint.shape[:2]
    for step in range(_BLUR_STEPS):
        dx, dy = motion_vector / 2 ** (step + 2)
        # Shifts of plus and minus a quarter, then an eighth, ... of the motion add up to evenly spaced samples.
        matrices = np.array([[1, 0, dx], [0, 1, dy]]), np.array([[1, 0, -dx], [0, 1, -dy]])
        forth, back = (
            cv2.warpAffine(paint, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for matrix in matrices
        )
        paint = cv2.addWeighted(forth, 0.5, back, 0.5, 0)
    return paint


def lay(
    picture: Image, labels: NDArray[np.uint8], layer: Layer, value: int, shadow: float, light: NDArray[np.float64]
) -> None:
    """Lay a layer and its soft shadow (strength 0 .. 1) over the picture, and its label over the labels, in place."""
    height, width = labels.shape
    x0, y0, x1, y1 = layer.box
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left >= right or top >= bottom:
        return
    inner = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
    radius = max(1, round(0.02 * height))
    anchor = tuple(round(radius * (1 - 0.9 * a)) for a in light)
    alpha = layer.paint[..., 3]
    shade = cv2.blur(alpha, (2 * radius + 1, 2 * radius + 1), anchor=anchor)[inner]
    keep = (1 - alpha[inner]) * (1 - np.float32(shadow) * shade)
    region = picture[top:bottom, left:right]
    region[:] = region * keep[..., None] + layer.paint[inner][..., :3] + np.float32(0.5)
    labels[top:bottom, left:right][layer.solid[inner]] = value


def drop_fragments(labels: NDArray[np.uint8], count: int) -> None:
    """Give connected pieces that are too small to be seen back to the background, in place."""
    least = _SMALLEST_AREA * labels.size
    for label in range(1, count + 1):
        mask = (labels == label).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        if width == 0:
            continue
        inner = np.s_[y : y + height, x : x + width]
        pieces, piece_map, stats, _ = cv2.connectedComponentsWithStats(mask[inner], connectivity=8)
        for piece in range(1, pieces):
            if stats[piece, cv2.CC_STAT_AREA] < least:
                labels[inner][piece_map == piece] = 0
