# SPDX-License-Identifier: Apache-2.0
"""docs/performance.md, made of the report of performance.py alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from instance_flow.benchmark.tables import Table, describe, tables

NOTES = Path(__file__).with_name("performance_notes.md")
"""What no command can know, such as what was tried and did not help; it goes to the end of the page as it is."""
PROFILE = "profile.svg"

_WIDTH = 120


def page(report: Mapping[str, Any], docs: Path) -> str:
    """Markdown. docs: the folder that the page will stand in, for the pictures that are there."""
    parts = ["# Performance", _head(report), *_pipeline(report)]
    if (docs / PROFILE).is_file():
        parts += ["## Before and after the optimisation", f"![Milliseconds per stage, before and after]({PROFILE})"]
    parts += [*_baselines(report["baselines"]), *_memory(report["memory"]), *_ros(report["ros"]), _CHECK]
    if NOTES.is_file():
        parts.append(NOTES.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def text(report: Mapping[str, Any]) -> str:
    """The same figures for a terminal."""
    blocks = []
    for name, bench in report["benches"].items():
        blocks += [f"== {name}\n{describe(bench)}", *(table.text() for table in tables(bench))]
    blocks += [table.text() for table in (*_baseline_tables(report["baselines"]), *_memory_tables(report["memory"]))]
    blocks += [_rows_table(title, part["rows"], "").text() for title, part in report["ros"].items()]
    return "\n\n".join(blocks)


def _wrapped(paragraph: str) -> str:
    return fill(paragraph, _WIDTH)


def _head(report: Mapping[str, Any]) -> str:
    where = next(iter(report["benches"].values()))
    lines = describe({**where, "machine": report["machine"]}).splitlines()
    kept = [line for line in lines if line.split()[0] in ("machine", "software")]
    quick = " It is a quick run: few frames, so take the figures for a smoke test." if report["quick"] else ""
    said = _wrapped(
        f"Made by `{report['command']}` at {report['time']} from commit {report['commit']}; not to be edited by hand."
        f"{quick} Absolute times belong to this machine and to what else it did; ratios are of the same run, turn by "
        "turn."
    )
    return "\n".join([said, "", "```text", *kept, "```"])


def _pipeline(report: Mapping[str, Any]) -> Iterator[str]:
    yield "## A frame, stage by stage"
    yield _wrapped(
        "Repeat with `instance-flow bench [MODEL]`. Fit brings the camera's picture to the network's input; upload and "
        "download are the copies to and from its device; grouping is what is done within a frame, matching what is "
        "done between frames, identities included; masks are cut at the picture's full size; the message is filled "
        "with boxes, scores and run-length masks, without any middleware; drawing is the overlay. Frames are warm, and "
        "the references full."
    )
    for name, bench in report["benches"].items():
        lines = [line for line in describe(bench).splitlines() if line.split()[0] in ("model", "provider", "memory")]
        yield "\n".join([f"## {name}", "", "```text", *lines, "```"])
        yield from (table.markdown() for table in tables(bench))


def _baselines(rows: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "## Against others"
    yield _wrapped(
        "Repeat with `python bench/performance.py`. Other methods were written from their descriptions, in "
        "`bench/baselines`, and are timed beside ours in the same process, turn by turn. Ratio: their time over ours. "
        "Networks have random weights, which take as long."
    )
    yield from (table.markdown() for table in _baseline_tables(rows))


def _baseline_tables(rows: Mapping[str, Mapping[str, float]]) -> list[Table]:
    """A table for each kind, which is the first word of a name; in a name the way of others stands after the colon."""
    kinds: dict[str, list[tuple[str, ...]]] = {}
    for name, row in rows.items():
        what, _, theirs = name.partition(": ")
        kind = what.split()[0]
        kinds.setdefault(kind, []).append((what, theirs, *_numbers(row)))
    head = ("ours", "theirs", "ours, ms", "theirs, ms", "ratio")
    note = "Milliseconds per call."
    return [Table(f"{kind[0].upper()}{kind[1:]}", note, head, found) for kind, found in kinds.items()]


def _numbers(row: Mapping[str, float]) -> tuple[str, str, str]:
    return f"{row['ours']:.3f}", f"{row['theirs']:.3f}", f"{row['ratio']:.2f}"


def _memory(memory: Mapping[str, Any]) -> Iterator[str]:
    yield "## Memory"
    yield _wrapped(
        "Repeat with `python bench/memory.py`. Each part is a process of its own, measured from inside; peak is the "
        "most that it ever held, libraries and warm-up included."
    )
    yield from (table.markdown() for table in _memory_tables(memory))


def _memory_tables(memory: Mapping[str, Any]) -> list[Table]:
    notes = {
        "assembly": "The pipeline and the messages without a network, 0 to 100 objects that change all the time.",
        "model": "The small model on pictures of 640x480, with messages, without drawing: what a robot's process takes "
        "before the middleware.",
    }
    return [_rows_table(f"Memory of the {name}", memory[name], note) for name, note in notes.items() if name in memory]


def _ros(parts: Mapping[str, Any]) -> Iterator[str]:
    if parts:
        yield "## The ROS 2 node"
        yield "Real nodes on this machine, with the publisher and the subscriber beside them on the same cores."
    for title, part in parts.items():
        yield _rows_table(title, part["rows"], f"Repeat with `{part['command']}`.").markdown()


def _rows_table(title: str, rows: Sequence[Mapping[str, Any]], note: str) -> Table:
    return Table(title, note, tuple(rows[0]), [tuple(_cell(value) for value in row.values()) for row in rows])


def _cell(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


_CHECK = """## Has anything got slower?

    python bench/performance.py --check      # exit code 1, and names what got slower

This compares a run with the ratios in `bench/performance_ratios.json`, which hardly depend on the machine: each is the
time of another method over the time of ours. Where our time grew by more than a ratio's tolerance, a quarter unless the
file gives another, it got slower. Run it before a release; CI never runs it. `--store` saves a run's ratios as the new
ones; `--profile BEFORE.json AFTER.json docs/profile.svg` draws where the time went before and after."""
