# SPDX-License-Identifier: Apache-2.0
"""Tiles with titles set on a page, and the legends that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from instance_flow.pictures.draw import class_colours
from instance_flow.pictures.flow_colours import NOTHING, wheel
from instance_flow.pictures.tiles import FAINT, FONT, INK, Colour, Size, draw_arrow, heat_colours
from instance_flow.structures import Image

GROUND = (38, 38, 42)
"""The dark, neutral colour between the tiles."""
GAP = 12
TITLE, HEADING = 26, 38
"""Heights of the line over each tile and of the one over the page."""
LEAST_WIDTH, LEGEND_HEIGHT = 400, 212
"""A column is never narrower than titles and the legend need it; and how high a legend is at least."""

_LEGEND_STEP = 25


@dataclass(frozen=True)
class Tile:
    """A picture (height, width, 3) uint8 RGB under a title, with a note beside it; ``span`` columns wide."""

    title: str
    note: str
    picture: Image
    span: int = 1


def column_width(tile_width: int) -> int:
    """How wide a column of tiles is, in pixels."""
    return max(LEAST_WIDTH, tile_width)


def spanned(columns: int, tile_width: int) -> int:
    """How wide so many columns are together with the gaps between them."""
    return columns * (column_width(tile_width) + GAP) - GAP


def tile_page(rows: Sequence[Sequence[Tile]], heading: tuple[str, str]) -> Image:
    """Set rows of tiles under a heading (left, right): (H, W, 3) uint8 RGB with even H and W.

    Tiles of one column have the width of the first; all get the height of the highest one.
    """
    height, width = max(tile.picture.shape[0] for row in rows for tile in row), rows[0][0].picture.shape[1]
    columns = max(sum(tile.span for tile in row) for row in rows)
    across = 2 * GAP + spanned(columns, width)
    down = HEADING + len(rows) * (TITLE + height + GAP) + GAP // 2
    page = np.full((down + down % 2, across + across % 2, 3), GROUND, np.uint8)
    _write(page, heading[0], (GAP, HEADING - 12), INK, 0.6)
    _write_right(page, heading[1], (across - GAP, HEADING - 12), FAINT)
    for number, row in enumerate(rows):
        left, top = GAP, HEADING + number * (TITLE + height + GAP)
        for tile in row:
            _set_tile(page[top : top + TITLE + height, left : left + spanned(tile.span, width)], tile)
            left += spanned(tile.span, width) + GAP
    return page


def legend(size: Size, class_names: Mapping[int, str], wheels: Mapping[str, float], unit: str = "px") -> Image:
    """The legend: classes by class_id, the scale of heat, and a colour wheel for each kind of vector.

    wheels: name of each kind, and the length in ``unit`` that the rim stands for, 0 where there were none.
    """
    canvas = np.full((*size, 3), GROUND, np.uint8)
    diameter = min(size[0] - 48, 132)
    step = diameter + 2 * GAP
    right = size[1] - step * len(wheels) + GAP
    for number, (name, longest) in enumerate(wheels.items()):
        _draw_wheel(
            canvas,
            (right + number * step, 4),
            diameter,
            (name, f"rim = {longest:g} {unit}" if longest else "none so far"),
        )
    _write(canvas, "darker = longer than the rim", (right, size[0] - 8), FAINT, 0.42)
    below = size[0] - 3 * _LEGEND_STEP
    _draw_classes(canvas[:below, : right - GAP], class_names)
    _draw_symbols(canvas[below:, : right - GAP])
    return canvas


def _set_tile(place: Image, tile: Tile) -> None:
    height, width = tile.picture.shape[:2]
    place[TITLE:] = NOTHING if tile.span == 1 else GROUND
    left, top = (place.shape[1] - width) // 2, TITLE + (place.shape[0] - TITLE - height) // 2
    place[top : top + height, left : left + width] = tile.picture
    end = _write(place, tile.title, (0, TITLE - 9), INK, 0.5)
    if end + 20 + _text_width(tile.note, 0.45) <= place.shape[1]:
        _write_right(place, tile.note, (place.shape[1], TITLE - 9), FAINT)


def _draw_classes(canvas: Image, class_names: Mapping[int, str]) -> None:
    """Class by class down the first column, then the next; those that do not fit are counted."""
    rows = max(1, (canvas.shape[0] - _LEGEND_STEP) // _LEGEND_STEP)
    _write(canvas, "Classes" if class_names else "Classes: none so far", (0, 16), FAINT, 0.45)
    left, entries = 0, list(class_names.items())
    while entries:
        column, entries = entries[:rows], entries[rows:]
        width = 22 + max(_text_width(name, 0.45) for _, name in column) + 18
        if left + width > canvas.shape[1]:
            _write(canvas, f"and {len(column) + len(entries)} more", (left, 16 + _LEGEND_STEP), FAINT, 0.45)
            return
        for row, (class_id, name) in enumerate(column, 1):
            red, green, blue = class_colours([class_id])[0].tolist()
            corner = (left, 4 + row * _LEGEND_STEP)
            cv2.rectangle(canvas, corner, (corner[0] + 13, corner[1] + 13), (red, green, blue), -1)
            _write(canvas, name, (left + 22, 16 + row * _LEGEND_STEP), INK, 0.45)
        left += width


def _draw_symbols(canvas: Image) -> None:
    """What the lines and rings of the tiles mean, and the scale of heat."""
    strong, ring, heat = (10 + number * _LEGEND_STEP for number in range(3))
    draw_arrow(canvas, (0, strong), (30, strong), strong=True)
    after = _write(canvas, "flow to the newest reference", (42, strong + 5), FAINT, 0.45) + 18
    draw_arrow(canvas, (after, strong), (after + 30, strong), strong=False)
    _write(canvas, "to older ones", (after + 40, strong + 5), FAINT, 0.45)
    cv2.circle(canvas, (15, ring), 5, FAINT, 1, cv2.LINE_AA)
    _write(canvas, "center in a reference, in the colour of its id", (42, ring + 5), FAINT, 0.45)
    after = _write(canvas, "heat 0", (42, heat + 5), FAINT, 0.45) + 8
    width = min(200, canvas.shape[1] - after - 20)
    if width > 0:
        canvas[heat - 6 : heat + 6, after : after + width] = heat_colours(np.linspace(0, 1, width)[None])
        _write(canvas, "1", (after + width + 8, heat + 5), FAINT, 0.45)


def _draw_wheel(canvas: Image, corner: tuple[int, int], diameter: int, lines: tuple[str, str]) -> None:
    left, top = corner
    picture = wheel(diameter)
    inside = (picture != NOTHING).any(-1)
    canvas[top : top + diameter, left : left + diameter][inside] = picture[inside]
    for number, (text, ink) in enumerate(zip(lines, (INK, FAINT), strict=True), 1):
        middle = left + (diameter - _text_width(text, 0.45)) // 2
        _write(canvas, text, (middle, top + diameter + 2 + 19 * number), ink, 0.45)


def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, FONT, scale, 1)[0][0])


def _write(canvas: Image, text: str, at: tuple[int, int], ink: Colour, scale: float) -> int:
    """Write from the left; gives the x where the text ends."""
    cv2.putText(canvas, text, at, FONT, scale, ink, 1, cv2.LINE_AA)
    return at[0] + _text_width(text, scale)


def _write_right(canvas: Image, text: str, at: tuple[int, int], ink: Colour) -> None:
    _write(canvas, text, (at[0] - _text_width(text, 0.45), at[1]), ink, 0.45)
