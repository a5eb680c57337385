# SPDX-License-Identifier: Apache-2.0
"""One picture for each output of the network and of the assembly, as in the paper's Fig. 4, 5 and 7.

Each function gives a new picture (height, width, 3) uint8 RGB of the ``size`` (height, width) asked for. Maps in cells
are enlarged to it as ``preprocess.restore_labels`` does it: the edges of a mask lie between the cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.grouping import foreground_margin
from instance_flow.pictures.draw import class_colours, colours, overlay
from instance_flow.pictures.flow_colours import NOTHING, flow_colours
from instance_flow.structures import FloatArray, Image, IntArray, Tracks

INK, FAINT = (236, 236, 240), (150, 150, 158)
"""Letters and lines on a dark ground, plain and unobtrusive."""

FONT = cv2.FONT_HERSHEY_SIMPLEX

Size = tuple[int, int]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Arrows:
    """Instance flow from N objects to one reference, in pixels of the image.

    starts, tips: (N, 2) float32, the objects' centers here, and where the flow carries them.
    targets: (K, 2) float32, the centers that the reference has.   target_ids: (K,) int64.
    """

    starts: FloatArray
    tips: FloatArray
    targets: FloatArray
    target_ids: IntArray


def enlarged(values: FloatArray, size: Size) -> FloatArray:
    """Bring a map (h, w), or each of several (N, h, w), to (height, width), with values between the cells' own."""
    if values.ndim == 2:
        return np.asarray(cv2.resize(np.asarray(values, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR))
    return np.stack([enlarged(plane, size) for plane in values])


def foreground(semantic: FloatArray, size: Size) -> NDArray[np.bool_]:
    """Where the most probable class (C + 1, h, w) is not background: (height, width) bool."""
    return enlarged(foreground_margin(semantic), size) > 0


def tracks_tile(image: Image, tracks: Tracks, class_names: Sequence[str], size: Size) -> Image:
    """The overlay: masks, contours, and each object's id, class and score."""
    return overlay(_resized(image, size), _scaled(tracks, size), class_names, arrow_seconds=0)


def identities_tile(tracks: Tracks, size: Size) -> Image:
    """Nothing but masks in the colours of their ids, and the ids."""
    scaled = _scaled(tracks, size)
    tints = np.concatenate([np.array([NOTHING], np.uint8), colours(scaled.ids)])
    canvas = tints[np.where(scaled.label_map > 0, np.searchsorted(scaled.ids, scaled.label_map) + 1, 0)]
    for track_id, center in zip(scaled.ids, scaled.centers, strict=True):
        _number(canvas, str(track_id), center)
    return canvas


def semantic_tile(semantic: FloatArray, size: Size) -> Image:
    """The most probable class of every pixel in its colour; semantic (C + 1, h, w), channel 0 = background."""
    best = enlarged(semantic[1:], size).argmax(0)
    tints = class_colours(np.arange(len(semantic) - 1))
    return np.where(foreground(semantic, size)[..., None], tints[best], np.array(NOTHING, np.uint8)).astype(np.uint8)


def heat_colours(values: NDArray[np.floating]) -> Image:
    """Colours of heat (h, w), 0 = black to 1 = bright."""
    levels = np.rint(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), np.uint8)


def heat_tile(heat: FloatArray, size: Size, centers: FloatArray, mask: NDArray[np.bool_] | None = None) -> Image:
    """The heat of centers (h, w), black outside of the mask, with a ring around every center (M, 2) of the map."""
    values = enlarged(heat, size)
    canvas = heat_colours(values if mask is None else np.where(mask, values, 0.0))
    factor = np.array(size, np.float32) / heat.shape
    for center in (centers + 0.5) * factor - 0.5:
        cv2.circle(canvas, _point(center), 7, (12, 12, 14), 3, cv2.LINE_AA)
        cv2.circle(canvas, _point(center), 7, (120, 220, 255), 1, cv2.LINE_AA)
    return canvas


def offset_tile(offset: FloatArray, longest: float, size: Size, mask: NDArray[np.bool_] | None = None) -> Image:
    """Offsets (2, h, w) on the flow wheel, ``longest`` in their unit; masked as in Fig. 5, or not as in Fig. 7."""
    # Colours are mixed between cells, not vectors: where two objects meet, vectors jump.
    canvas = np.asarray(cv2.resize(flow_colours(offset, longest), size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    return canvas if mask is None else np.where(mask[..., None], canvas, np.array(NOTHING, np.uint8))


def flow_tile(image: Image, tracks: Tracks, references: Sequence[Arrows], longest: float, size: Size) -> Image:
    """Instance flow (Eq. 3): masks in the colour of their flow to the newest reference, and an arrow to each reference.

    A ring in the colour of its id stands where a reference has a center: matching (Eq. 5) takes the one that the arrow
    ends nearest to.

    references: oldest first, with one arrow per row of tracks; those of the last one are drawn strong.
    longest: flow of full colour, in pixels of the image.
    """
    scaled = _scaled(tracks, size)
    grey = cv2.cvtColor(_resized(image, size), cv2.COLOR_RGB2GRAY)
    canvas = np.repeat((grey[..., None] * 0.42).astype(np.uint8), 3, 2)
    flows = references[-1].tips - references[-1].starts if references else np.full((len(tracks), 2), np.nan, np.float32)
    tints = flow_colours(flows.T[..., None], longest)[:, 0]
    for track_id, tint in zip(scaled.ids, tints, strict=True):
        mask = scaled.label_map == track_id
        canvas[mask] = np.rint(canvas[mask] * 0.5 + tint * 0.5)
        _outline(canvas, mask, _tint(track_id))
    factor = np.array(size, np.float32) / tracks.label_map.shape
    for arrows in references:
        for target_id, target in zip(arrows.target_ids, arrows.targets, strict=True):
            cv2.circle(canvas, _point(target * factor), 5, _tint(target_id), 1, cv2.LINE_AA)
    for number, arrows in enumerate(references, 1):
        for start, tip in zip(arrows.starts, arrows.tips, strict=True):
            draw_arrow(canvas, _point(start * factor), _point(tip * factor), strong=number == len(references))
    return canvas


def blank_tile(text: str, size: Size) -> Image:
    """An empty tile with a text in it."""
    canvas = np.full((*size, 3), NOTHING, np.uint8)
    (width, height), _ = cv2.getTextSize(text, FONT, 0.45, 1)
    at = ((size[1] - width) // 2, (size[0] + height) // 2)
    cv2.putText(canvas, text, at, FONT, 0.45, (92, 92, 100), 1, cv2.LINE_AA)
    return canvas


def _resized(image: Image, size: Size) -> Image:
    method = cv2.INTER_AREA if image.shape[0] > size[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def _scaled(tracks: Tracks, size: Size) -> Tracks:
    """The same tracks in pixels of another size; those that become too small to have a pixel keep their rows."""
    y, x = np.array(size, np.float32) / tracks.label_map.shape
    label_map = np.asarray(cv2.resize(tracks.label_map, size[::-1], interpolation=cv2.INTER_NEAREST), np.int32)
    return replace(
        tracks,
        label_map=label_map,
        centers=tracks.centers * (y, x),
        boxes=tracks.boxes * (x, y, x, y),
        velocities=tracks.velocities * (y, x),
        velocity_covariances=tracks.velocity_covariances * np.outer((y, x), (y, x)),
    )


def _tint(track_id: int) -> Colour:
    red, green, blue = colours([track_id])[0].tolist()
    return red, green, blue


def _point(point: FloatArray) -> tuple[int, int]:
    """OpenCV's (x, y) of a (y, x), kept within what its drawing takes."""
    y, x = np.clip(np.rint(point), -30000, 30000)
    return int(x), int(y)


def _outline(canvas: Image, mask: NDArray[np.bool_], tint: Colour) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, tint, 1, cv2.LINE_AA)


def draw_arrow(canvas: Image, start: tuple[int, int], tip: tuple[int, int], *, strong: bool) -> None:
    """An arrow between two (x, y); only a strong one has a head."""
    if not strong:
        cv2.line(canvas, start, tip, (215, 215, 222), 1, cv2.LINE_AA)
        return
    head = min(0.5, 8 / max(math.dist(start, tip), 1.0))
    cv2.arrowedLine(canvas, start, tip, (12, 12, 14), 4, cv2.LINE_AA, tipLength=head)
    cv2.arrowedLine(canvas, start, tip, (255, 255, 255), 2, cv2.LINE_AA, tipLength=head)
    cv2.circle(canvas, start, 3, (255, 255, 255), -1, cv2.LINE_AA)


def _number(canvas: Image, text: str, center: FloatArray) -> None:
    (width, height), _ = cv2.getTextSize(text, FONT, 0.5, 1)
    x, y = _point(center)
    at = (int(np.clip(x - width // 2, 0, max(0, canvas.shape[1] - width))), max(height, y + height // 2))
    cv2.putText(canvas, text, at, FONT, 0.5, (12, 12, 14), 3, cv2.LINE_AA)
    cv2.putText(canvas, text, at, FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
