# SPDX-License-Identifier: Apache-2.0
"""The figures of ``instance-flow bench`` as tables for people, in a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from instance_flow.benchmark.costs import DRAW, MESSAGE, NETWORK, ROWS
from instance_flow.benchmark.suite import CACHED, CAMERA, EXACT, RECOMPUTED, size_name

_WIDTH = 120
_AFTER_NETWORK = ("grouping", "matching", "masks", "other", MESSAGE)


@dataclass(frozen=True)
class Table:
    """note: what its numbers mean.   rows: texts, as many as ``columns``; the first column is what the row is of."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
        ]
        note = fill(self.note, _WIDTH, initial_indent="  ", subsequent_indent="  ")
        return "\n".join([self.title, *(f"  {line}" for line in aligned), *([note] if note else [])])

    def markdown(self) -> str:
        """For a page."""
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        body = [f"| {' | '.join(line)} |" for line in (self.columns, *self.rows)]
        return "\n".join([f"### {self.title}", "", fill(self.note, _WIDTH), "", body[0], rule, *body[1:]])


def describe(report: Mapping[str, Any]) -> str:
    """One line each: the machine, the software, the model, where it ran, the memory."""
    machine, versions, model = report["machine"], report["versions"], report["model"]
    installed = (f"{name} {versions[name]}" for name in sorted(versions) if versions[name] != "not installed")
    memory = report["memory"]["model at its own size"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ", no GPU"
    return "\n".join(
        [
            f"machine   {machine['processor']}, {machine['cores']} cores, {machine['memory_mib']} MiB{gpu}; "
            f"load {machine['load']} at the end",
            f"software  {', '.join(installed)}",
            f"model     {model['name']} ({model['file']}), input {model['input_size'][1]}x{model['input_size'][0]}, "
            f"{model['max_references']} references",
            f"provider  {report['provider']}",
            f"memory    {memory['resident_mib']:.0f} MiB with the model at its own size, {memory['peak_mib']:.0f} MiB "
            "at the peak until then",
        ]
    )


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Everything that was measured, the model as a robot runs it first."""
    measured: list[Mapping[str, Any]] = report["measurements"]
    input_size = size_name(report["model"]["input_size"])
    here = [m for m in measured if m["what"] == CACHED]
    own = [m for m in here if (m["input"], m["picture"]) == (input_size, size_name(CAMERA))]
    most = max(m["references"] for m in own)
    exact = [m for m in measured if m["what"] == EXACT]
    found = [*(_stages(m) for m in own if m["references"] == most), _references(measured)]
    return [*found, _objects(exact)] if exact else found


def _stages(measured: Mapping[str, Any]) -> Table:
    parts = {name: measured["stages"][name] for name in ROWS}
    parts |= {
        "whole frame": measured["whole_frame"],
        "- Pipeline.step": measured["step"],
        "- beyond the network": measured["beyond_network"],
    }
    return Table(
        f"Where a frame's time goes: {measured['picture']} pictures, input {measured['input']}, "
        f"{measured['references']} references, {_threads(measured)}",
        f"Milliseconds of {measured['frames']} frames that show {measured['objects']:.1f} objects on average. CPU is "
        "the median time of all threads together; share is of the sum over all frames. Beyond the network: "
        "without it, its copies and drawing.",
        ("stage", "median", "p95", "CPU", "share"),
        [
            (name, _ms(part["median_ms"]), _ms(part["p95_ms"]), _ms(part["cpu_ms"]), f"{100 * part['share']:.1f} %")
            for name, part in parts.items()
        ],
    )


def _references(measured: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each input size and number of threads."""
    kinds: dict[tuple[str, ...], dict[tuple[str, int], Mapping[str, Any]]] = {}
    for m in measured:
        if m["what"] != EXACT:
            kinds.setdefault((m["input"], m["picture"], _threads(m)), {})[m["what"], m["references"]] = m
    counts = sorted({count for found in kinds.values() for what, count in found if what == CACHED})
    rows = []
    for name, found in kinds.items():
        steps = [found[CACHED, count]["step"]["median_ms"] for count in counts]
        again = found[RECOMPUTED, counts[-1]]["step"]["median_ms"]
        network = sum(found[CACHED, counts[-1]]["stages"][stage]["median_ms"] for stage in NETWORK)
        more = f"{steps[-1] / steps[0]:.2f}x", f"{again / steps[-1]:.2f}x"
        rows.append((*name, *map(_ms, (*steps, network, again)), *more))
    heads = (f"{count} reference{'s'[: count > 1]}" for count in counts)
    return Table(
        "Sizes and references",
        "Median milliseconds of Pipeline.step. Network: its part of the column before, upload and download included. "
        "Recomputed: the features of all references are computed again from their "
        f"pictures in every frame. The last two columns: {counts[-1]} references over {counts[0]}, and recomputed over "
        "cached.",
        (
            "input",
            "picture",
            "threads",
            *heads,
            "network",
            "recomputed",
            f"{counts[-1]} over {counts[0]}",
            "recomputed",
        ),
        rows,
    )


def _objects(measured: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for m in measured:
        parts = [m["stages"][name]["median_ms"] for name in _AFTER_NETWORK]
        beyond = m["beyond_network"]
        times = *parts, beyond["median_ms"], beyond["p95_ms"], m["stages"][DRAW]["median_ms"]
        rows.append((m["picture"], f"{m['objects']:g}", *map(_ms, times)))
    return Table(
        "Time beyond the network, by number of objects and size of the picture",
        "Median milliseconds with the maps of a perfect network: stride 4, 40 classes, 35 % of the picture covered. "
        "All: with the fit, without drawing, which is done only when subscribed.",
        ("picture", "objects", *_AFTER_NETWORK, "all", "all, p95", DRAW),
        rows,
    )


def _threads(measured: Mapping[str, Any]) -> str:
    count = measured["threads"]
    return "all threads" if count == 0 else "1 thread" if count == 1 else f"{count} threads"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds < 100 else f"{milliseconds:.0f}"
