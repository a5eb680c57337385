# SPDX-License-Identifier: Apache-2.0
"""Charts as inline SVG: a timeline of tracks, curves over frames, a histogram. Texts are escaped, titles show on hover.

Colours and fonts of everything but the tracks are those of the page that the charts stand in (``report``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.pictures.draw import colours
from instance_flow.report.run_statistics import Curve, Latencies, Recovery, TrackRecord
from instance_flow.structures import NEW

_WIDTH = 1100
_LEFT, _RIGHT = 148, 14
_ROW, _BAR = 18, 9
_PLOT_WIDTH, _PLOT_HEIGHT = 540, 190
_PLOT_LEFT, _PLOT_RIGHT, _PLOT_TOP, _PLOT_BOTTOM = 46, 14, 10, 26
_HISTOGRAM_BARS = 40
_TOPS, _TICK_STEPS = (1, 2, 4, 6, 8, 10), (1, 2, 5, 10)
"""What an axis ends at, so that half of it is round too; and the steps between ticks."""


def timeline(records: Sequence[TrackRecord], frames: int, class_names: Sequence[str]) -> str:
    """A row per track in the colour of its id: an upright line where it was new, bars where it was seen, a thin line
    over its gaps, and diamonds where it came back."""
    height = 26 + _ROW * len(records) + 8
    scale = (_WIDTH - _LEFT - _RIGHT) / max(1, frames)
    parts = [_open(_WIDTH, height, f"Timeline of {len(records)} tracks over {frames} frames")]
    for tick in _ticks(0, frames, 10, whole=True):
        x = _LEFT + tick * scale
        parts.append(f'<path class="grid" d="M{x:.1f} 20V{height - 6}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="13" text-anchor="middle">{_short(tick)}</text>')
    for number, (record, tint) in enumerate(zip(records, colours([r.track_id for r in records]), strict=True)):
        parts.append(_timeline_row(record, 26 + _ROW * number, scale, class_names, hex_colour(tint)))
    return "".join([*parts, "</svg>"])


def curve_plot(curve: Curve, frames: int, unit: str, name: str, factor: float = 1.0) -> str:
    """A value per frame: the mean of each step as a line and, where steps are more than a frame, the largest above."""
    means, largest = np.array(curve.means) * factor, np.array(curve.largest) * factor
    middles = np.minimum((np.arange(len(means)) + 0.5) * curve.step, frames)
    label = f"{name}, {unit}, over {frames} frames"
    return line_plot(middles, means, frames, unit, label, largest if curve.step > 1 else None)


def line_plot(
    x: NDArray[Any], y: NDArray[Any], end: float, unit: str, label: str, largest: NDArray[Any] | None = None
) -> str:
    """Values y of 0 and more at places x of 0 .. end as a line, and their largest ones, where given, above it."""
    top = _round_up(float((y if largest is None else largest).max(initial=0.0)), _TOPS)
    width = _PLOT_WIDTH - _PLOT_LEFT - _PLOT_RIGHT
    at = _PLOT_LEFT + np.asarray(x) / max(1, end) * width
    parts = [_open(_PLOT_WIDTH, _PLOT_HEIGHT, label), _axes(top, unit)]
    for tick in _ticks(0, end, 6, whole=True):
        place = _PLOT_LEFT + tick / max(1, end) * width
        parts.append(
            f'<text class="tick" x="{place:.1f}" y="{_PLOT_HEIGHT - 8}" text-anchor="middle">{_short(tick)}</text>'
        )
    if largest is not None:
        parts.append(f'<path class="largest" d="{_line(at, _heights(largest, top))}"/>')
    if len(at) == 1:
        parts.append(f'<circle class="dot" cx="{at[0]:.1f}" cy="{_heights(y, top)[0]:.1f}" r="3"/>')
    parts.append(f'<path class="line" d="{_line(at, _heights(y, top))}"/></svg>')
    return "".join(parts)


def latency_histogram(latencies: Latencies) -> str:
    """Frames by milliseconds; the axis ends a little above the 99th percentile, what is slower is in the last bar."""
    counts, edges = latencies.counts, latencies.edges * 1e3
    if not counts.any():
        return _histogram(np.zeros(_HISTOGRAM_BARS), 0.0, 1.0, "ms", "frames")
    low, high = 0.9 * edges[np.flatnonzero(counts)[0]], 1.1 * latencies.percentile(99) * 1e3
    middles = np.sqrt(edges[:-1] * edges[1:])
    place = np.clip((middles - low) / (high - low) * _HISTOGRAM_BARS, 0, _HISTOGRAM_BARS - 1).astype(int)
    return _histogram(np.bincount(place, counts, _HISTOGRAM_BARS), low, high, "ms", "frames")


def score_histogram(counts: NDArray[np.int64]) -> str:
    """Objects by score: counts of equal parts of 0 to 1."""
    return _histogram(counts, 0.0, 1.0, "", "objects")


def class_name(class_id: int, class_names: Sequence[str]) -> str:
    """The name, or a number where it is missing; not escaped."""
    return class_names[class_id] if 0 <= class_id < len(class_names) else f"class {class_id}"


def hex_colour(colour: NDArray[np.uint8]) -> str:
    """CSS for (3,) uint8 RGB."""
    return f"#{bytes(colour).hex()}"


def _timeline_row(record: TrackRecord, top: int, scale: float, class_names: Sequence[str], tint: str) -> str:
    name = class_name(record.class_id, class_names)
    middle, y = top + _ROW / 2, top + (_ROW - _BAR) / 2
    caption = (
        f"id {record.track_id}, {name}, mean score {record.mean_score:.2f}\n"
        f"frames {record.first} to {record.last}, seen in {record.seen}, longest gap {record.longest_gap}\n"
        f"{_kept(record)}"
    )
    bars = "".join(
        f"M{_LEFT + first * scale:.1f} {y:g}h{max(1.5, (last + 1 - first) * scale):.1f}v{_BAR}"
        f"H{_LEFT + first * scale:.1f}z"
        for first, last in record.spans
    )
    start, end = _LEFT + record.first * scale, _LEFT + (record.last + 1) * scale
    marks, free_from = [], 0.0
    for back in record.recoveries:
        x = _LEFT + back.frame * scale
        if x >= free_from:
            path = f'<path class="back" stroke="{tint}" d="M{x:.1f} {middle - 5:g}l5 5l-5 5l-5-5z">'
            marks.append(f"{path}<title>{escape(_recovery(record.track_id, back))}</title></path>")
            free_from = x + _BAR
    label = escape(f"{record.track_id} {name}" if len(name) <= 16 else f"{record.track_id} {name[:15]}…")
    return (
        f'<g><title>{escape(caption)}</title><rect class="row" x="0" y="{top}" width="{_WIDTH}" height="{_ROW}"/>'
        f'<text class="label" x="{_LEFT - 12}" y="{middle + 4:g}" text-anchor="end">{label}</text>'
        f'<path class="gap" stroke="{tint}" d="M{start:.1f} {middle:g}H{end:.1f}"/>'
        f'<path class="seen" fill="{tint}" d="{bars}"/>'
        f'<path class="new" stroke="{tint}" d="M{start:.1f} {top + 2}V{top + _ROW - 2}"/>'
        f"{''.join(marks)}</g>"
    )


def _kept(record: TrackRecord) -> str:
    if not record.kept:
        return "no reference ever kept this id"
    return f"its id was kept {record.kept} times, {record.mean_distance:.1f} px from a reference's center on average"


def _recovery(track_id: int, back: Recovery) -> str:
    frames = "1 frame" if back.missed == 1 else f"{back.missed} frames"
    again = f"id {track_id} found again in frame {back.frame} after {frames}"
    if back.reference_frame == NEW:
        return again
    if math.isnan(back.distance):
        return f"{again}\nre-identified by appearance, last seen in frame {back.reference_frame}"
    return (
        f"{again}\nkept by frame {back.reference_frame}: the flow led to {back.distance:.1f} px from its center there"
    )


def _histogram(counts: NDArray[Any], low: float, high: float, unit: str, noun: str) -> str:
    """Bars of equal width from low to high."""
    top = _round_up(float(counts.max()), _TOPS)
    width, floor = (_PLOT_WIDTH - _PLOT_LEFT - _PLOT_RIGHT) / len(counts), _PLOT_HEIGHT - _PLOT_BOTTOM
    label = f"Histogram of {noun} from {low:.3g} to {high:.3g} {unit}"
    parts = [_open(_PLOT_WIDTH, _PLOT_HEIGHT, label), _axes(top, "")]
    edges = np.linspace(low, high, len(counts) + 1)
    for k, y in enumerate(_heights(counts, top)):
        if counts[k]:
            caption = f"{counts[k]:g} {noun}, {edges[k]:.3g} to {edges[k + 1]:.3g} {unit}"
            box = f'x="{_PLOT_LEFT + k * width:.1f}" y="{y:.1f}" width="{width - 1.5:.1f}" height="{floor - y:.1f}"'
            parts.append(f'<rect class="bar" {box}><title>{caption}</title></rect>')
    for tick in _ticks(low, high, 6):
        at = _PLOT_LEFT + (tick - low) / (high - low) * (_PLOT_WIDTH - _PLOT_LEFT - _PLOT_RIGHT)
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{_PLOT_HEIGHT - 8}" text-anchor="middle">{_short(tick)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _open(width: int, height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'


def _axes(top: float, unit: str) -> str:
    floor = _PLOT_HEIGHT - _PLOT_BOTTOM
    parts = []
    for value in (0.0, top / 2, top):
        y = float(_heights(np.array([value]), top)[0])
        caption = f"{_short(value)} {escape(unit)}".rstrip() if value == top else _short(value)
        parts.append(f'<path class="grid" d="M{_PLOT_LEFT} {y:.1f}H{_PLOT_WIDTH - _PLOT_RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_PLOT_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{caption}</text>')
    return "".join(parts) + f'<path class="axis" d="M{_PLOT_LEFT} {floor}H{_PLOT_WIDTH - _PLOT_RIGHT}"/>'


def _heights(values: NDArray[Any], top: float) -> NDArray[np.float64]:
    floor = _PLOT_HEIGHT - _PLOT_BOTTOM
    return floor - values / top * (floor - _PLOT_TOP)


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)) if len(x) else ""


def _ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers from low to high, about so many."""
    step = max(_round_up((high - low) / most, _TICK_STEPS), 1.0 if whole else 0.0)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]


def _short(value: float) -> str:
    """A number as a tick has room for it."""
    return f"{value:g}" if abs(value) < 1e4 else f"{value / 1e3:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M"


def _round_up(value: float, steps: Sequence[float]) -> float:
    """The next of the steps, times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in steps if step * power >= value * 0.9999)
