# SPDX-License-Identifier: Apache-2.0
"""What a notebook shows of a frame's tracks: their masks on gray, and a table."""

from __future__ import annotations

from base64 import b64encode
from html import escape

import cv2
import numpy as np

from instance_flow.pictures.draw import colours, shrunk
from instance_flow.structures import Track, Tracks

_WIDTH = 480
_ROWS = 100
_COLUMNS = ("id", "class", "score", "box (x0, y0, x1, y1)", "velocity (x, y)", "area", "state", "age")


def tracks_page(tracks: Tracks) -> str:
    """HTML of a picture at most 480 pixels wide and a table of at most 100 objects."""
    height, width = tracks.label_map.shape
    words = f"frame {tracks.frame_index}, {width} x {height} pixels, {len(tracks)} tracks"
    _, png = cv2.imencode(".png", cv2.cvtColor(shrunk(tracks.draw(), _WIDTH), cv2.COLOR_RGB2BGR))
    picture = f'<img alt="masks" src="data:image/png;base64,{b64encode(png.tobytes()).decode()}"/>'
    heads = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = "".join(_row(track) for track, _ in zip(tracks, range(_ROWS), strict=False))
    more = f"<div>and {len(tracks) - _ROWS} more</div>" if len(tracks) > _ROWS else ""
    return f"<div><div>{words}</div>{picture}<table><tr>{heads}</tr>{rows}</table>{more}</div>"


def _row(track: Track) -> str:
    red, green, blue = colours([track.id])[0]
    cells = (
        track.class_name,
        f"{track.score:.2f}",
        ", ".join(f"{value:g}" for value in track.box),
        ", ".join(f"{value:.1f}" for value in track.velocity) if np.isfinite(track.velocity).all() else "unknown",
        str(track.area),
        track.state,
        str(track.age),
    )
    tint = f'<td style="border-left: 8px solid rgb({red},{green},{blue})">{track.id}</td>'
    return f"<tr>{tint}{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
