# SPDX-License-Identifier: Apache-2.0
"""Ratios of one run, which hardly depend on the machine, beside those that are stored: what got slower?

Every ratio is so made that higher is better: the time of the other way over the time of ours, both from the same run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instance_flow.benchmark.suite import CACHED, EXACT, RECOMPUTED
from instance_flow.benchmark.tables import Table
from instance_flow.formats.json_files import read_json, write_json
from instance_flow.structures import SourceError

TOLERANCE = 0.25
"""By what part a time may grow, unless the stored ratio has another tolerance."""
SLOWER, FASTER, SAME, NEW, MISSING = "slower", "faster", "as stored", "not stored yet", "not measured"

_FEW, _MANY = 8, 64
_REFERENCE_COSTS = ("four references over one", "four references over none")


@dataclass(frozen=True)
class Stored:
    """ratio: as it was measured when it was stored.   tolerance: by what part our time may grow beside theirs."""

    ratio: float
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Verdict:
    """change: our time beside theirs now over what was stored, 1.25 = a quarter longer; None where one is missing."""

    name: str
    stored: float | None
    measured: float | None
    change: float | None
    said: str


def judge(measured: Mapping[str, float], stored: Mapping[str, Stored]) -> list[Verdict]:
    """Compare a run with what is stored: what got slower first, then in the order of the stored ones, new ones last."""
    verdicts = []
    for name in dict.fromkeys([*stored, *measured]):
        before, now = stored.get(name), measured.get(name)
        if before is None:
            verdicts.append(Verdict(name, None, now, None, NEW))
            continue
        if now is None:
            verdicts.append(Verdict(name, before.ratio, None, None, MISSING))
            continue
        change = before.ratio / now
        limit = 1 + before.tolerance
        said = SLOWER if change > limit else FASTER if change < 1 / limit else SAME
        verdicts.append(Verdict(name, before.ratio, now, change, said))
    return sorted(verdicts, key=lambda verdict: verdict.said != SLOWER)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """For people."""
    count = sum(verdict.said == SLOWER for verdict in verdicts)
    return Table(
        "Compared with the stored ratios",
        f"{count} of {len(verdicts)} got slower by more than the tolerance. Time: ours beside theirs, now over stored.",
        ("ratio", "stored", "now", "time", "judgement"),
        [
            (v.name, _text(v.stored), _text(v.measured), "" if v.change is None else f"{v.change:.2f}x", v.said)
            for v in verdicts
        ],
    )


def read_stored(path: Path) -> dict[str, Stored]:
    """Raises SourceError for a file that is missing, or damaged."""
    data = read_json(path)
    try:
        stored = {str(name): Stored(float(e["ratio"]), float(e["tolerance"])) for name, e in data["ratios"].items()}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise SourceError(f"{path}: holds no ratios ({error!r}); write it again with --store") from None
    for name, one in stored.items():
        if not (one.ratio > 0 and one.tolerance >= 0):
            raise SourceError(
                f"{path}: {name!r} has ratio {one.ratio} and tolerance {one.tolerance}; neither may be "
                "negative, nor the ratio 0"
            )
    return stored


def write_stored(path: Path, measured: Mapping[str, float], where: Mapping[str, Any]) -> None:
    """Store a run's ratios; tolerances that are stored already stay. where: the machine, date and commit."""
    before = read_stored(path) if path.exists() else {}
    ratios = {
        name: asdict(Stored(round(ratio, 3), before[name].tolerance if name in before else TOLERANCE))
        for name, ratio in measured.items()
    }
    write_json(path, {**where, "ratios": ratios}, indent=1)


def baseline_ratios(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Ratios out of ``baselines.all_baselines``; what references cost is turned over, so that higher is better."""
    turned = {name: name.endswith(_REFERENCE_COSTS) for name in rows}
    return {
        f"{name}, turned over" if turned[name] else name: row["ratio"] ** (-1 if turned[name] else 1)
        for name, row in rows.items()
    }


def pipeline_ratios(name: str, report: Mapping[str, Any]) -> dict[str, float]:
    """Ratios out of a report of ``run_bench``; name: of the model. Of several numbers of threads the first counts."""
    ratios: dict[str, float] = {}
    cases: dict[tuple[str, int], dict[tuple[str, int], Mapping[str, Any]]] = {}
    exact: dict[str, dict[int, float]] = {}
    for m in report["measurements"]:
        if m["what"] == EXACT:
            exact.setdefault(m["picture"], {})[round(m["objects"])] = m["beyond_network"]["median_ms"]
        else:
            cases.setdefault((m["input"], m["threads"]), {})[m["what"], m["references"]] = m["step"]
    for (size, threads), found in cases.items():
        if threads != report["measurements"][0]["threads"]:
            continue
        counts = sorted(count for what, count in found if what == CACHED)
        one, most, again = (
            found[key]["median_ms"] for key in ((CACHED, counts[0]), (CACHED, counts[-1]), (RECOMPUTED, counts[-1]))
        )
        ratios[f"step, {name} {size}: references recomputed"] = again / most
        ratios[f"step, {name} {size}: {counts[0]} instead of {counts[-1]} references"] = one / most
    for size, times in exact.items():
        if _FEW in times and _MANY in times:
            ratios[f"beyond the network, {size}: {_FEW} instead of {_MANY} objects"] = times[_FEW] / times[_MANY]
    return ratios


def _text(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
