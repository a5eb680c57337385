# SPDX-License-Identifier: Apache-2.0
"""A run as one HTML page that opens from disk: no script, no network, everything inline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from instance_flow.pictures.draw import class_colours, colours
from instance_flow.report.html import dot, facts, figure, html_page, section, tiles
from instance_flow.report.run_statistics import BY_APPEARANCE, OLDER, Statistics, TrackRecord
from instance_flow.report.svg import class_name, curve_plot, latency_histogram, score_histogram, timeline
from instance_flow.structures import Image

MOST_TRACKS = 200
"""Tracks of the timeline and the table; of more, those that were seen most."""


def report_page(
    about: Mapping[str, Mapping[str, Any]],
    statistics: Statistics,
    class_names: Sequence[str],
    samples: Sequence[tuple[int, Image]],
    above: Sequence[tuple[int, Image]] = (),
) -> str:
    """The page, in UTF-8.

    Args:
        about: what ran: facts by their name, under a heading each; the first fact of all is the page's title.
        samples: frame_index and overlay (H, W, 3) uint8 RGB of a few frames.   above: likewise, from above in metres.
    """
    title = next((str(value) for facts in about.values() for value in facts.values()), "a run")
    records = sorted(statistics.records, key=lambda r: (-r.seen, r.track_id))[:MOST_TRACKS]
    records.sort(key=lambda r: (r.first, r.track_id))
    body = "".join(
        [
            _header(title, statistics),
            _samples(samples),
            _above(above),
            _timeline(records, statistics, class_names),
            '<div class="pair">',
            section(
                "Objects per frame",
                _curve_note(statistics.object_curve.step),
                curve_plot(statistics.object_curve, statistics.frames, "", "Objects per frame"),
            ),
            section(
                "Latency per frame",
                f"milliseconds from image to tracks; {_curve_note(statistics.latency_curve.step)}",
                curve_plot(statistics.latency_curve, statistics.frames, "ms", "Latency", 1e3),
            ),
            section("Latency", "number of frames by milliseconds", latency_histogram(statistics.latencies)),
            section("Scores", "number of objects by score", score_histogram(statistics.scores)),
            _classes(statistics, class_names),
            _kept(statistics),
            "</div>",
            _tracks(records, statistics, class_names),
            _about(about),
        ]
    )
    return html_page(title, body)


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
    return f'<h1>{escape(title)}</h1><p class="soft">{subtitle}</p>{note}{tiles(numbers)}'


def _samples(samples: Sequence[tuple[int, Image]]) -> str:
    if not samples:
        return ""
    figures = "".join(figure(image, f"frame {frame} with its tracks", f"frame {frame}") for frame, image in samples)
    return section("Frames", "spread over the run", f'<div class="frames">{figures}</div>')


def _above(above: Sequence[tuple[int, Image]]) -> str:
    if not above:
        return ""
    figures = "".join(figure(image, f"frame {frame} from above", f"frame {frame}") for frame, image in above)
    subtitle = (
        "the camera is in the middle of the lower edge; box and id of each object, an arrow of a second; "
        "paler where it is less certain"
    )
    return section("From above, in metres", subtitle, f'<div class="frames">{figures}</div>')


def _timeline(records: Sequence[TrackRecord], statistics: Statistics, class_names: Sequence[str]) -> str:
    if not records:
        return section("Tracks over time", "", "<p>No object was found in any frame.</p>")
    more = len(statistics.ids) - len(records)
    left_out = f" The {len(records)} tracks seen in most frames; {more:,} more are left out." if more else ""
    subtitle = (
        "A bar where an object was seen, a thin line where it was not, a diamond where it came back. "
        f"Point at a row or a diamond to see why the id was kept.{left_out}"
    )
    chart = timeline(records, statistics.frames, class_names)
    return section("Tracks over time", subtitle, f'<div class="scroll">{chart}</div>')


def _classes(statistics: Statistics, class_names: Sequence[str]) -> str:
    if not statistics.objects:
        return ""
    ids = Counter(statistics.ids.values())
    rows = "".join(
        _share_row(dot(class_colours([k])[0]), class_name(k, class_names), ids[k], count, statistics.objects)
        for k, count in statistics.class_objects.most_common()
    )
    head = '<tr><th class="text">class</th><th>ids</th><th>objects</th><th class="text">share</th></tr>'
    return section("Classes", "as voted for at each frame", f"<table><thead>{head}</thead>{rows}</table>")


def _kept(statistics: Statistics) -> str:
    if not statistics.objects:
        return ""
    names = {
        **{0: "none: a new id", BY_APPEARANCE: "none: re-identified by appearance"},
        **{1: "the frame before", OLDER: f"{OLDER} frames before, or more"},
    }
    rows = "".join(
        _share_row("", names.get(age, f"{age} frames before"), None, statistics.kept[age], statistics.objects)
        for age in sorted(statistics.kept, key=lambda age: (age <= 0, age))
    )
    head = '<tr><th class="text">reference</th><th>objects</th><th class="text">share</th></tr>'
    subtitle = "which reference frame an object's id was kept by"
    return section("Why ids were kept", subtitle, f"<table><thead>{head}</thead>{rows}</table>")


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
    return section("Tracks", subtitle, table)


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
    mark = dot(colours([record.track_id])[0])
    name = escape(class_name(record.class_id, class_names))
    return (
        f'<tr><td class="text">{mark}{record.track_id}</td><td class="text">{name}</td>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def _about(about: Mapping[str, Mapping[str, Any]]) -> str:
    blocks = "".join(f"<div><h3>{escape(heading)}</h3>{facts(known)}</div>" for heading, known in about.items())
    return section("What ran", "", f'<div class="pair">{blocks}</div>')


def _curve_note(step: int) -> str:
    return "one value per frame" if step == 1 else f"mean and largest of every {step} frames"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "–"
