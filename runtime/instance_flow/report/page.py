# SPDX-License-Identifier: Apache-2.0
"""A run as one HTML page that opens from disk: no script, no network, everything inline."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.pictures.draw import class_colours, colours
from instance_flow.report.run_statistics import BY_COLOURS, OLDER, Statistics, TrackRecord
from instance_flow.report.svg import class_name, curve_plot, hex_colour, latency_histogram, score_histogram, timeline
from instance_flow.structures import Image

MOST_TRACKS = 200
"""Tracks of the timeline and the table; of more, those that were seen most."""

_JPEG_QUALITY = 82
_STYLE = """
:root{color-scheme:light;--ink:#1d2129;--soft:#667085;--rule:#e4e7ec;--ground:#f6f7f9;--accent:#3762c8}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1180px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:26px;line-height:1.25;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:16px;margin:0 0 4px}
p{margin:0}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(124px,1fr));gap:12px;margin:24px 0 0}
.tiles div,section{background:#fff;border:1px solid var(--rule);border-radius:10px}
.tiles div{padding:12px 16px}
.tiles b{display:block;font-size:21px;white-space:nowrap;font-weight:600;line-height:1.3}
section{padding:20px 22px;margin-top:16px;overflow-x:auto}
section>p.soft{margin-bottom:14px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px;margin-top:16px}
.pair section{min-width:0;margin-top:0}section .pair{margin-top:0}
.note{margin-top:16px;padding:10px 16px;border-radius:10px;background:#fff6e0;border:1px solid #f3dfae}
svg{display:block;width:100%;height:auto}
.scroll{max-height:640px;overflow:auto}.scroll svg{min-width:820px}
.grid{stroke:var(--rule)}.axis{stroke:#c3c9d4}.tick{fill:var(--soft);font-size:11px}
.row{fill:transparent}g:hover>.row{fill:#eef2fb}.seen{stroke:#000;stroke-opacity:.22;stroke-width:.7}
.label{fill:var(--ink);font-size:12px}
.gap{stroke-width:1.5;opacity:.45}.back{fill:#fff;stroke-width:1.8}.new{stroke-width:2.4}
.line{fill:none;stroke:var(--accent);stroke-width:1.6;stroke-linejoin:round}.dot,.bar{fill:var(--accent)}
.largest{fill:none;stroke:#a9bdea;stroke-width:1}.bar{opacity:.85}
.frames{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:12px}
figure{margin:0}figure img{display:block;width:100%;border-radius:6px}figcaption{color:var(--soft);font-size:12px}
table{border-collapse:collapse;width:100%}
th{color:var(--soft);font-weight:500;font-size:12px}
th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--rule);white-space:nowrap}
td.text,th.text{text-align:left}tr:last-child td{border-bottom:0}
thead th{position:sticky;top:0;background:#fff}
.dotted{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.share{position:relative;min-width:120px;width:45%}
.share i{position:absolute;left:10px;top:9px;height:11px;border-radius:3px;background:#b9c9ee}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
h3{font-size:13px;margin:14px 0 6px}h3:first-of-type{margin-top:10px}
@media print{body{background:#fff}.scroll{max-height:none}section{break-inside:avoid}}
"""


def report_page(
    about: Mapping[str, Mapping[str, Any]],
    statistics: Statistics,
    class_names: Sequence[str],
    samples: Sequence[tuple[int, Image]],
) -> str:
    """The page, in UTF-8.

    Args:
        about: what ran: facts by their name, under a heading each; the first fact of all is the page's title.
        samples: frame_index and overlay (H, W, 3) uint8 RGB of a few frames.
    """
    title = next((str(value) for facts in about.values() for value in facts.values()), "a run")
    records = sorted(statistics.records, key=lambda r: (-r.seen, r.track_id))[:MOST_TRACKS]
    records.sort(key=lambda r: (r.first, r.track_id))
    body = "".join(
        [
            _header(title, statistics),
            _samples(samples),
            _timeline(records, statistics, class_names),
            '<div class="pair">',
            _section(
                "Objects per frame",
                _curve_note(statistics.object_curve.step),
                curve_plot(statistics.object_curve, statistics.frames, "", "Objects per frame"),
            ),
            _section(
                "Latency per frame",
                f"milliseconds from image to tracks; {_curve_note(statistics.latency_curve.step)}",
                curve_plot(statistics.latency_curve, statistics.frames, "ms", "Latency", 1e3),
            ),
            _section("Latency", "number of frames by milliseconds", latency_histogram(statistics.latencies)),
            _section("Scores", "number of objects by score", score_histogram(statistics.scores)),
            _classes(statistics, class_names),
            _kept(statistics),
            "</div>",
            _tracks(records, statistics, class_names),
            _about(about),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Nothing is to be fetched, even if a browser or a hostile name tried.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';img-src data:;'
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)} – instance-flow</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _header(title: str, statistics: Statistics) -> str:
    height, width = statistics.size
    rate = statistics.frames / statistics.elapsed if statistics.elapsed > 0 else math.nan
    numbers = {
        "frames": f"{statistics.frames:,}",
        "ids": f"{len(statistics.ids):,}",
        "objects / frame": _number(statistics.objects / max(1, statistics.frames), 1),
        "frames / s overall": _number(rate, 1),
        "latency p50": f"{_number(statistics.latency_ms(50), 1)} ms",
        "latency p95": f"{_number(statistics.latency_ms(95), 1)} ms",
        "latency p99": f"{_number(statistics.latency_ms(99), 1)} ms",
    }
    tiles = "".join(f"<div><b>{value}</b><span class=soft>{name}</span></div>" for name, value in numbers.items())
    notes = ["The run was interrupted; this page shows the frames until then."] if statistics.interrupted else []
    if statistics.refused:
        more = "; ..." if statistics.refused > len(statistics.refusals) else ""
        frames = "1 frame" if statistics.refused == 1 else f"{statistics.refused:,} frames"
        notes.append(f"{frames} could not be used: {'; '.join(statistics.refusals)}{more}")
    if statistics.breaks:
        notes.append(f"The stream was broken: {'; '.join(statistics.breaks)}")
    if statistics.jitter:
        stamps = "1 stamp" if statistics.jitter == 1 else f"{statistics.jitter:,} stamps"
        notes.append(f"{stamps} ran back a little; these frames are tracked without a time.")
    note = "".join(f'<p class="note">{escape(text)}</p>' for text in notes)
    subtitle = f"instance-flow run, {width} x {height} pixels, {statistics.objects:,} objects in all frames"
    return f'<h1>{escape(title)}</h1><p class="soft">{subtitle}</p>{note}<div class="tiles">{tiles}</div>'


def _samples(samples: Sequence[tuple[int, Image]]) -> str:
    if not samples:
        return ""
    figures = "".join(
        f'<figure><img src="{_data_uri(image)}" alt="frame {frame} with its tracks"><figcaption>frame {frame}'
        "</figcaption></figure>"
        for frame, image in samples
    )
    return _section("Frames", "spread over the run", f'<div class="frames">{figures}</div>')


def _timeline(records: Sequence[TrackRecord], statistics: Statistics, class_names: Sequence[str]) -> str:
    if not records:
        return _section("Tracks over time", "", "<p>No object was found in any frame.</p>")
    more = len(statistics.ids) - len(records)
    left_out = f" The {len(records)} tracks seen in most frames; {more:,} more are left out." if more else ""
    subtitle = (
        "A bar where an object was seen, a thin line where it was not, a diamond where it came back. "
        f"Point at a row or a diamond to see why the id was kept.{left_out}"
    )
    chart = timeline(records, statistics.frames, class_names)
    return _section("Tracks over time", subtitle, f'<div class="scroll">{chart}</div>')


def _classes(statistics: Statistics, class_names: Sequence[str]) -> str:
    if not statistics.objects:
        return ""
    ids = Counter(statistics.ids.values())
    rows = "".join(
        _share_row(_dot(class_colours([k])[0]), class_name(k, class_names), ids[k], count, statistics.objects)
        for k, count in statistics.class_objects.most_common()
    )
    head = '<tr><th class="text">class</th><th>ids</th><th>objects</th><th class="text">share</th></tr>'
    return _section("Classes", "as voted for at each frame", f"<table><thead>{head}</thead>{rows}</table>")


def _kept(statistics: Statistics) -> str:
    if not statistics.objects:
        return ""
    names = {
        **{0: "none: a new id", BY_COLOURS: "none: known again by its colours"},
        **{1: "the frame before", OLDER: f"{OLDER} frames before, or more"},
    }
    rows = "".join(
        _share_row("", names.get(age, f"{age} frames before"), None, statistics.kept[age], statistics.objects)
        for age in sorted(statistics.kept, key=lambda age: (age <= 0, age))
    )
    head = '<tr><th class="text">reference</th><th>objects</th><th class="text">share</th></tr>'
    subtitle = "which reference frame an object's id was kept by"
    return _section("Why ids were kept", subtitle, f"<table><thead>{head}</thead>{rows}</table>")


def _share_row(dot: str, name: str, ids: int | None, count: int, total: int) -> str:
    share = count / total
    extra = "" if ids is None else f"<td>{ids:,}</td>"
    bar = f'<td class="share"><i style="width:calc({100 * share:.2f}% - {20 * share:.1f}px)"></i></td>'
    return f'<tr><td class="text">{dot}{escape(name)}</td>{extra}<td>{count:,}</td>{bar}</tr>'


def _tracks(records: Sequence[TrackRecord], statistics: Statistics, class_names: Sequence[str]) -> str:
    if not records:
        return ""
    heads = ("first", "last", "seen in", "longest gap", "mean score", "mean distance", "path")
    head = '<tr><th class="text">id</th><th class="text">class</th>' + "".join(f"<th>{name}</th>" for name in heads)
    rows = "".join(_track_row(record, class_names) for record in records)
    more = len(statistics.ids) - len(records)
    subtitle = "frames are counted from 0; distance to the reference's center that kept the id, and path, in pixels"
    subtitle += f"; {more:,} more tracks are left out" if more else ""
    table = f'<div class="scroll"><table><thead>{head}</tr></thead>{rows}</table></div>'
    return _section("Tracks", subtitle, table)


def _track_row(record: TrackRecord, class_names: Sequence[str]) -> str:
    cells = [
        str(record.first),
        str(record.last),
        str(record.seen),
        str(record.longest_gap or "–"),
        f"{record.mean_score:.2f}",
        _number(record.mean_distance, 1),
        f"{record.path:.0f}",
    ]
    dot = _dot(colours([record.track_id])[0])
    name = escape(class_name(record.class_id, class_names))
    return (
        f'<tr><td class="text">{dot}{record.track_id}</td><td class="text">{name}</td>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def _about(about: Mapping[str, Mapping[str, Any]]) -> str:
    blocks = "".join(
        f"<div><h3>{escape(heading)}</h3><dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
        + "</dl></div>"
        for heading, facts in about.items()
    )
    return _section("What ran", "", f'<div class="pair">{blocks}</div>')


def _section(title: str, subtitle: str, content: str) -> str:
    note = f'<p class="soft">{escape(subtitle)}</p>' if subtitle else ""
    return f"<section><h2>{escape(title)}</h2>{note}{content}</section>"


def _curve_note(step: int) -> str:
    return "one value per frame" if step == 1 else f"mean and largest of every {step} frames"


def _dot(colour: NDArray[np.uint8]) -> str:
    return f'<span class="dotted" style="background:{hex_colour(colour)}"></span>'


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "–"


def _data_uri(image: Image) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
