# SPDX-License-Identifier: Apache-2.0
"""Pictures of tracks: masks in the colour of their id, contours, labels, arrows of motion, and sheets of thumbnails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import STATES, Image, Track, Tracks

_GOLDEN = (math.sqrt(5) - 1) / 2
_SHADES = np.array([[0.90, 1.00], [0.60, 1.00], [0.85, 0.75]], np.float32)
"""Saturation and value, in turn: neighbours in hue then still differ."""
_CLASS_HUE, _CLASS_SHADE = 0.55, np.array([0.52, 0.88], np.float32)

_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def colours(ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
    """Give each id its colour, (N, 3) uint8 RGB: always the same one, and far from those of the ids next to it."""
    numbers = np.asarray(ids, np.int64)
    return _from_hues(numbers * _GOLDEN, _SHADES[numbers % len(_SHADES)])


def class_colours(class_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
    """Give each class_id its colour, (N, 3) uint8 RGB: always the same one, and softer than the colours of ids."""
    numbers = np.asarray(class_ids, np.int64)
    return _from_hues(numbers * _GOLDEN + _CLASS_HUE, np.broadcast_to(_CLASS_SHADE, (len(numbers), 2)))


def overlay(
    image: Image,
    tracks: Tracks,
    class_names: Sequence[str] | None = None,
    *,
    arrow_seconds: float = 0.5,
    labels: bool = True,
    opacity: float = 0.45,
) -> Image:
    """Draw tracks over a copy of their image.

    image: (H, W, 3) uint8 RGB, of the size of ``tracks.label_map``.
    class_names: name of each class_id, None = the tracks' own; a number stands in for a name that is missing.
    arrow_seconds: an arrow leads to where the center will be after this time; 0 draws none. It fades as the velocity is
        less certain, and an object that was just found has none.
    opacity: of the masks, 0 to 1.
    Raises ValueError for another shape or type, and where image and label map differ in size.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype} of shape {image.shape}; expected uint8 of (height, width, 3)")
    if image.shape[:2] != tracks.label_map.shape:
        raise ValueError(f"image is {image.shape[:2]} but the label map {tracks.label_map.shape}, as (height, width)")
    canvas = image.copy()
    scale = _scale(image)
    if class_names is not None:
        tracks = replace(tracks, names=dict(enumerate(class_names)))
    tints = [(int(r), int(g), int(b)) for r, g, b in colours(tracks.ids)]
    for row, tint in enumerate(tints):
        _draw_mask(canvas, tracks, row, tint, opacity, scale)
    if arrow_seconds:
        for row, tint in enumerate(tints):
            _draw_arrow(
                canvas,
                tracks.centers[row],
                tracks.velocities[row] * arrow_seconds,
                tint,
                scale,
                _certainty(tracks, row),
            )
    if labels:
        taken: list[tuple[int, int, int, int]] = []
        for track, tint in zip(tracks, tints, strict=True):
            _draw_label(canvas, _label(track), tracks.boxes[track.row], tint, scale, taken)
    return canvas


def contact_sheet(frames: Sequence[Image], captions: Sequence[str] = (), columns: int = 4, width: int = 320) -> Image:
    """Put frames on one sheet, row by row: (H, W, 3) uint8 RGB.

    frames: at least one, (H, W, 3) uint8 RGB of any sizes; each is shrunk to ``width``, and to the height of the first.
    captions: a line of text for each frame, or none at all.
    """
    if not frames:
        raise ValueError("a contact sheet needs at least one frame")
    if captions and len(captions) != len(frames):
        raise ValueError(f"there are {len(captions)} captions for {len(frames)} frames")
    columns = min(columns, len(frames))
    height = max(1, round(width * frames[0].shape[0] / frames[0].shape[1]))
    rows = -(-len(frames) // columns)
    gap = 4
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 32, np.uint8)
    for number, frame in enumerate(frames):
        top, left = gap + number // columns * (height + gap), gap + number % columns * (width + gap)
        thumbnail = np.ascontiguousarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if captions:
            _draw_tag(thumbnail, captions[number], (4, 4), _DARK, _scale(thumbnail))
        sheet[top : top + height, left : left + width] = thumbnail
    return sheet


def shrunk(image: Image, width: int) -> Image:
    """The image at so many pixels of width; one that is not wider stays as it is."""
    factor = width / image.shape[1]
    if factor >= 1:
        return image
    size = width, max(1, round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _from_hues(turns: NDArray[np.floating], shades: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours (N, 3) uint8 RGB of hues in turns (N,), and of saturation and value (N, 2)."""
    if not len(turns):
        return np.empty((0, 3), np.uint8)
    hsv = np.column_stack([turns % 1.0 * 360.0, shades]).astype(np.float32)
    return np.rint(cv2.cvtColor(hsv[:, None], cv2.COLOR_HSV2RGB)[:, 0] * 255).astype(np.uint8)


def _scale(image: Image) -> float:
    """Size of lines and letters: 1 for an image of 640 x 384, and never too small to read."""
    return max(0.6, (image.shape[0] * image.shape[1] / (640 * 384)) ** 0.4)


def _draw_mask(
    canvas: Image, tracks: Tracks, row: int, tint: tuple[int, int, int], opacity: float, scale: float
) -> None:
    height, width = tracks.label_map.shape
    left, top = np.clip(np.floor(tracks.boxes[row, :2]).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.ceil(tracks.boxes[row, :2] + tracks.boxes[row, 2:]).astype(int)
    part = (slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1)))
    mask = (tracks.label_map[part] == tracks.ids[row]).astype(np.uint8)
    region = canvas[part]
    flat = np.full_like(region, tint)
    cv2.copyTo(cv2.addWeighted(region, 1 - opacity, flat, opacity, 0), mask, region)
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(int(left), int(top)))
    cv2.drawContours(canvas, outlines, -1, tint, max(1, round(1.5 * scale)), cv2.LINE_AA)


def _draw_arrow(
    picture: Image,
    center: NDArray[np.float32],
    motion: NDArray[np.float32],
    tint: tuple[int, int, int],
    scale: float,
    opacity: float,
) -> None:
    length = float(np.hypot(*motion))
    if not math.isfinite(length) or length < 4 * scale or opacity < 0.1:
        return
    longest = float(np.hypot(*picture.shape[:2]))
    tip = center + motion * min(1.0, longest / length)
    start, end = (round(float(center[1])), round(float(center[0]))), (round(float(tip[1])), round(float(tip[0])))
    head = min(0.4, 9 * scale / length)
    thin = max(1, round(1.5 * scale))
    # Only what is around the arrow is mixed with what was there; beyond the picture there is nothing to mix.
    border = round(10 * scale) + thin
    low, high = np.sort(np.clip([start, end], 0, np.array(picture.shape[1::-1]) - 1), 0)
    left, top = np.maximum(low - border, 0).tolist()
    region = picture[top : int(high[1]) + border, left : int(high[0]) + border]
    start, end = (start[0] - left, start[1] - top), (end[0] - left, end[1] - top)
    canvas = region.copy()
    cv2.arrowedLine(canvas, start, end, _DARK, thin + 2, cv2.LINE_AA, tipLength=head)
    cv2.arrowedLine(canvas, start, end, _LIGHT, thin, cv2.LINE_AA, tipLength=head)
    cv2.circle(canvas, start, round(3 * scale), _DARK, -1, cv2.LINE_AA)
    cv2.circle(canvas, start, round(2 * scale), tint, -1, cv2.LINE_AA)
    cv2.addWeighted(canvas, opacity, region, 1 - opacity, 0, region)


def _certainty(tracks: Tracks, row: int) -> float:
    """Of a velocity, 0 to 1: one half where its standard deviation is half of it. 1 where none is given, 0 of an object
    that was just found."""
    if tracks.states[row] == STATES.index("new"):
        return 0.0
    variance = float(np.trace(tracks.velocity_covariances[row])) / 2
    speed = float((tracks.velocities[row].astype(np.float64) ** 2).sum())
    return speed / (speed + 4 * variance) if math.isfinite(variance) and speed > 0 else 1.0


def _label(track: Track) -> str:
    return f"{track.id} {track.class_name} {track.score:.2f}"


def _draw_label(
    canvas: Image,
    text: str,
    box: NDArray[np.float32],
    tint: tuple[int, int, int],
    scale: float,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Draw the label over the box's upper edge, within the image, moved down where another label is already."""
    width, height, _ = _tag_size(text, scale)
    left = int(np.clip(box[0], 0, max(0, canvas.shape[1] - width)))
    top = int(np.clip(box[1] - height, 0, max(0, canvas.shape[0] - height)))
    for _ in taken:
        hit = next((other for other in taken if _overlap((left, top, width, height), other)), None)
        if hit is None or hit[1] + hit[3] + height > canvas.shape[0]:
            break
        top = hit[1] + hit[3]
    taken.append((left, top, width, height))
    _draw_tag(canvas, text, (left, top), tint, scale)


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return all(one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2] for axis in (0, 1))


def _tag_size(text: str, scale: float) -> tuple[int, int, int]:
    """Width and height of a tag, and how far above its lower edge the letters stand."""
    (width, height), below = cv2.getTextSize(text, _FONT, 0.5 * scale, max(1, round(scale)))
    border = max(2, round(3 * scale))
    return width + 2 * border, height + below + border, below + border // 2


def _draw_tag(canvas: Image, text: str, corner: tuple[int, int], tint: tuple[int, int, int], scale: float) -> None:
    left, top = corner
    width, height, below = _tag_size(text, scale)
    cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), tint, -1)
    luminance = 0.299 * tint[0] + 0.587 * tint[1] + 0.114 * tint[2]
    ink = _DARK if luminance > 130 else _LIGHT
    at = (left + max(2, round(3 * scale)), top + height - below)
    cv2.putText(canvas, text, at, _FONT, 0.5 * scale, ink, max(1, round(scale)), cv2.LINE_AA)
