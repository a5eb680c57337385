# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG files of their own, for the pages in docs."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

Bar = Mapping[str, float]
"""Parts and their milliseconds, in order."""

_SVG = '<svg xmlns="http://www.w3.org/2000/svg" '
_STYLE = (
    "svg{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;background:#fff}text{fill:#1d2129}"
    ".tick,.soft{fill:#667085;font-size:11px}.grid{stroke:#e4e7ec}.axis{stroke:#c3c9d4}"
    ".line{fill:none;stroke:#3762c8;stroke-width:1.6}.largest{fill:none;stroke:#a9bdea}.dot,.bar{fill:#3762c8}"
)
_COLOURS = (
    "#3762c8",
    "#e08a2e",
    "#2f9e77",
    "#c2485f",
    "#7b61c9",
    "#3aa6c4",
    "#b0992b",
    "#8a8f99",
    "#5b7f3a",
    "#a8577e",
)
_WIDTH, _LEFT, _RIGHT, _ROW, _BAR, _HEAD = 900, 130, 90, 46, 28, 12
_LEGEND_COLUMN, _LEGEND_ROW = 190, 20
_ROOM_FOR_TEXT = 42


def standalone(chart: str) -> str:
    """A chart of ``report.svg``, which takes its colours from the page around it, as a file of its own."""
    head, rest = chart.split(">", 1)
    return f"{head.replace('<svg ', _SVG, 1)}><style>{_STYLE}</style>{rest}\n"


def stacked_bars(bars: Mapping[str, Bar], title: str) -> str:
    """One horizontal bar below the other, all to one scale, each as long as the sum of its parts.

    Parts of the same name have the same colour; a legend names them with their milliseconds in every bar.
    """
    names = list(dict.fromkeys(name for bar in bars.values() for name in bar))
    tints = {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(names)}
    longest = max(sum(bar.values()) for bar in bars.values()) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    columns = (_WIDTH - 2 * _HEAD) // _LEGEND_COLUMN
    legend_top = _HEAD + _ROW * len(bars) + 10
    height = legend_top + _LEGEND_ROW * -(-len(names) // columns) + 8
    parts = [f'{_SVG}viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    parts.append(f"<style>{_STYLE}</style>")
    for row, (name, bar) in enumerate(bars.items()):
        parts.append(_bar(name, bar, _HEAD + _ROW * row, scale, tints))
    for k, name in enumerate(names):
        x, y = _HEAD + k % columns * _LEGEND_COLUMN, legend_top + k // columns * _LEGEND_ROW
        times = " / ".join(f"{bar.get(name, 0.0):.2f}" for bar in bars.values())
        parts.append(f'<rect x="{x}" y="{y}" width="11" height="11" fill="{tints[name]}"/>')
        parts.append(f'<text x="{x + 16}" y="{y + 10}">{escape(name)} <tspan class="soft">{times}</tspan></text>')
    return "".join([*parts, "</svg>\n"])


def _bar(name: str, bar: Bar, top: int, scale: float, tints: Mapping[str, str]) -> str:
    middle = top + _BAR / 2 + 4
    parts: list[str] = [f'<text x="{_LEFT - 10}" y="{middle:g}" text-anchor="end">{escape(name)}</text>']
    x = float(_LEFT)
    for part, milliseconds in bar.items():
        width = milliseconds * scale
        said = f"{part}: {milliseconds:.2f} ms"
        box = f'x="{x:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}"'
        parts.append(f'<rect {box} fill="{tints[part]}"><title>{escape(said)}</title></rect>')
        if width > _ROOM_FOR_TEXT:
            at = f'x="{x + width / 2:.1f}" y="{middle:g}" text-anchor="middle" style="fill:#fff"'
            parts.append(f"<text {at}>{milliseconds:.1f}</text>")
        x += width
    parts.append(f'<text x="{x + 8:.1f}" y="{middle:g}">{sum(bar.values()):.1f} ms</text>')
    return "".join(parts)
