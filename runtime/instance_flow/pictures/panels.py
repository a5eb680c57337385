# SPDX-License-Identifier: Apache-2.0
"""One picture per frame of all that its tracks were made from: maps, references, instance flow, and legends."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from instance_flow.assembly.preprocess import to_image, vectors_to_image
from instance_flow.pictures.tile_page import LEGEND_HEIGHT, Tile, legend, spanned, tile_page
from instance_flow.pictures.tiles import (
    Arrows,
    Size,
    blank_tile,
    flow_tile,
    foreground,
    heat_tile,
    identities_tile,
    offset_tile,
    semantic_tile,
    tracks_tile,
)
from instance_flow.pipeline import Observation
from instance_flow.structures import FloatArray, Image, ModelInfo
from instance_flow.tracking.memory import Reference

COLUMNS = 4
BOX = (360, 480)
"""Largest tile, (height, width)."""

OFFSET, REFERENCE_OFFSET, FLOW = "Offset", "Reference offset", "Instance flow"
"""Titles of the tiles that show vectors; each kind has a wheel of its own."""

_FRAMES = 100
_NICE = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)


class Panels:
    """Draws the panels of one stream; every picture of it has the same size and the same places.

    The rim of each wheel stands for the length that nine of ten vectors of a frame stay below, by the median of the
    latest frames: it changes rarely, so that colours can be compared between frames.

    Args:
        info: of the model.   references: number of reference frames to leave room for.
        masked: show offsets and heat on the foreground only, as in Fig. 5, or everywhere, as in Fig. 7.
    """

    def __init__(self, info: ModelInfo, references: int, *, masked: bool = True):
        self._info, self._references, self._masked = info, references, masked
        self._lengths = {kind: deque[float](maxlen=_FRAMES) for kind in (OFFSET, REFERENCE_OFFSET, FLOW)}
        self._classes: set[int] = set()

    def draw(self, image: Image, seen: Observation) -> Image:
        """The frame's panels, (H', W', 3) uint8 RGB; image (H, W, 3) uint8 RGB is what ``seen`` was made from."""
        size = tile_size(image.shape[0], image.shape[1])
        order = sorted(range(len(seen.references)), key=lambda r: -seen.references[r].frame_index)
        arrows = [_arrows(seen, r, self._info.output_stride) for r in order]
        self._learn(seen, order[0] if order else None, arrows)
        maps = self._map_tiles(seen, size, order)
        newest = f"since frame {seen.references[order[0]].frame_index}" if order else ""
        flow = flow_tile(image, seen.tracks, arrows[::-1], self._rim(FLOW), size)
        top = [
            Tile("Tracks", "id, class, score", tracks_tile(image, seen.tracks, self._info.class_names, size)),
            Tile("Identities", _count(len(seen.tracks), "object"), identities_tile(seen.tracks, size)),
            Tile(FLOW, newest, flow),
            maps[0],
        ]
        middle = [*maps[1:3], Tile("", "", self._legend(size), span=2)]
        below = [maps[3 + k : 3 + k + COLUMNS] for k in range(0, len(maps) - 3, COLUMNS)]
        return tile_page([top, middle, *below], (f"Frame {seen.tracks.frame_index}", self._info.name))

    def _map_tiles(self, seen: Observation, size: Size, order: Sequence[int]) -> list[Tile]:
        maps = seen.prediction
        mask = foreground(maps.semantic, size) if self._masked else None
        here, there = self._rim(OFFSET), self._rim(REFERENCE_OFFSET)
        tiles = [
            Tile("Semantic", "most probable class", semantic_tile(maps.semantic, size)),
            Tile("Center heat", "rings: centers", heat_tile(maps.center, size, seen.instances.centers, mask)),
            Tile(OFFSET, "to the center in this frame", offset_tile(self._pixels(seen, maps.offset), here, size, mask)),
        ]
        for r in order:
            note = f"to the center in frame {seen.references[r].frame_index}"
            picture = offset_tile(self._pixels(seen, maps.reference_offset[r]), there, size, mask)
            tiles.append(Tile(REFERENCE_OFFSET, note, picture))
        missing = Tile(REFERENCE_OFFSET, "", blank_tile("no such frame yet", size))
        return tiles + [missing] * (self._references - len(order))

    def _pixels(self, seen: Observation, offset: FloatArray) -> FloatArray:
        """Offsets (2, h, w) in pixels of the image instead of cells."""
        return np.moveaxis(vectors_to_image(np.moveaxis(offset, 0, -1), seen.fitted, self._info.output_stride), -1, 0)

    def _learn(self, seen: Observation, newest: int | None, arrows: Sequence[Arrows]) -> None:
        """Record the lengths of the vectors and the classes seen."""
        shown = seen.instances.labels > 0
        vectors = {OFFSET: self._pixels(seen, seen.prediction.offset)[:, shown]}
        if newest is not None:
            vectors[REFERENCE_OFFSET] = self._pixels(seen, seen.prediction.reference_offset[newest])[:, shown]
            vectors[FLOW] = (arrows[0].tips - arrows[0].starts).T
        for kind, (dy, dx) in vectors.items():
            if dy.size:
                self._lengths[kind].append(float(np.percentile(np.hypot(dy, dx), 90)))
        self._classes.update(seen.tracks.class_ids.tolist())

    def _rim(self, kind: str) -> float:
        return nice(float(np.median(self._lengths[kind]))) if self._lengths[kind] else 1.0

    def _legend(self, size: Size) -> Image:
        names = {class_id: self._info.class_names[class_id] for class_id in sorted(self._classes)}
        rims = {kind: self._rim(kind) if lengths else 0.0 for kind, lengths in self._lengths.items()}
        return legend((max(LEGEND_HEIGHT, size[0]), spanned(2, size[1])), names, rims)


def tile_size(height: int, width: int) -> Size:
    """The largest (height, width) of this shape that fits into ``BOX``."""
    factor = min(BOX[0] / height, BOX[1] / width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def nice(value: float) -> float:
    """The next round number: 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(step * power for step in _NICE if step * power >= value * 0.9999)


def _arrows(seen: Observation, r: int, stride: int) -> Arrows:
    """Flow of every row of the tracks to reference r, in pixels of the image."""
    row = {int(track_id): k for k, track_id in enumerate(seen.ids)}
    rows = [row[int(track_id)] for track_id in seen.tracks.ids]
    reference: Reference = seen.references[r]
    centers = seen.instances.centers[rows]
    return Arrows(
        starts=to_image(centers, seen.fitted, stride),
        tips=to_image(centers + seen.instances.flows[r][rows], seen.fitted, stride),
        targets=to_image(reference.centers, seen.fitted, stride),
        target_ids=reference.ids,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
