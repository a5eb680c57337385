# SPDX-License-Identifier: Apache-2.0
"""What :func:`instance_flow.evaluation.evaluate` returns, laid out for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instance_flow.evaluation.average_precision import NOTHING_TO_MEASURE, SIZES
from instance_flow.evaluation.tracking_metrics import HEADLINE
from instance_flow.formats.foreign_text import shown

_COUNT = "IDSW"
_MARGIN = 2


def format_table(result: Mapping[str, Any]) -> str:
    """Lay out the numbers, overall and per class, in percent; "-" where there is no object to measure."""
    rows = {"all classes": result}
    if len(result["per_class"]) > 1:
        rows |= {_unique_name(key, result["per_class"]): numbers for key, numbers in result["per_class"].items()}
    by_size = [f"{kind}_{size}" for kind in ("AP", "AR") for size in SIZES]
    tables = [
        _table("mask", ["AP", "AP50", "AP75", "AR1", "AR10", "AR100"], rows),
        _table("by size", by_size, rows),
    ]
    if "tracking" in result:
        tables.append(_table("tracks", HEADLINE, rows | {"as one class": result["tracking"]["class_agnostic"]}))
    if "in_metres" in result:
        tables.append(_table_in_metres(result["in_metres"]))
    small, medium = (_side(limit) for limit in result["size_limits"])
    notes = (
        f"Percent; IDSW, identity switches, is a count. -: no object to measure. Mean area of an object in the frames "
        f"that\nshow it: small up to {small} pixels, medium up to {medium}."
    )
    if "tracking" in result:
        notes += (
            "\nTracks of all classes: means over the classes, as in TrackEval, where one without an object counts 0."
        )
    return "\n\n".join([*tables, notes])


def _table(title: str, names: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> str:
    cells = [[title, *names], *([row, *(_cell(numbers, name) for name in names)] for row, numbers in rows.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        (" " * _MARGIN).join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    )


def _table_in_metres(numbers: Mapping[str, Any]) -> str:
    """Errors: metres of positions, m/s of velocities."""
    names = ("median", "p90")
    lines = [["in metres", "objects", "error " + names[0], names[1]]]
    for what, count, unit in (("position", "placed", "m"), ("velocity", "velocities", "m/s")):
        found = (numbers[f"{what}_{name}"] for name in names)
        cells = ["-" if value is None else f"{value:.3f} {unit}" for value in found]
        lines.append([what, f"{numbers[count]} of {numbers['objects']}", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        (" " * _MARGIN).join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in lines
    )


def _cell(numbers: Mapping[str, Any], name: str) -> str:
    value = numbers[name]
    if name == _COUNT:
        return str(value)
    return "-" if value == NOTHING_TO_MEASURE else f"{100 * value:.1f}"


def _unique_name(category_id: int, per_class: Mapping[int, Mapping[str, Any]]) -> str:
    name = shown(per_class[category_id]["name"])
    twice = sum(shown(numbers["name"]) == name for numbers in per_class.values()) > 1
    return f"{name} ({category_id})" if twice or name == "all classes" else name


def _side(area: float) -> str:
    side = area**0.5
    return f"{side:g}^2" if side == int(side) else f"{area:g}"
