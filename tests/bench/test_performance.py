# SPDX-License-Identifier: Apache-2.0
"""The page of bench/performance.py: what got slower, what the page says, the pictures. Nothing is timed here."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import memory
import performance
import pytest
from performance_check import (
    FASTER,
    MISSING,
    NEW,
    SAME,
    SLOWER,
    Stored,
    baseline_ratios,
    judge,
    pipeline_ratios,
    read_stored,
    verdict_table,
    write_stored,
)
from performance_page import page
from pictures import stacked_bars

from instance_flow.benchmark.costs import ROWS
from instance_flow.benchmark.suite import CACHED, EXACT, RECOMPUTED
from instance_flow.structures import SourceError

JUDGEMENTS = {
    "slower by more than a quarter": (7.9, Stored(10.0), SLOWER, 10 / 7.9),
    "just a quarter slower": (8.0, Stored(10.0), SAME, 1.25),
    "slower, and allowed": (5.5, Stored(10.0, 1.0), SAME, 10 / 5.5),
    "slower than a tight tolerance": (9.0, Stored(10.0, 0.1), SLOWER, 10 / 9),
    "faster": (13.0, Stored(10.0), FASTER, 10 / 13),
    "not stored": (3.0, None, NEW, None),
    "not measured": (None, Stored(3.0), MISSING, None),
}


@pytest.mark.parametrize(("now", "stored", "said", "change"), JUDGEMENTS.values(), ids=JUDGEMENTS)
def test_judgement(now: float | None, stored: Stored | None, said: str, change: float | None) -> None:
    (verdict,) = judge({} if now is None else {"it": now}, {} if stored is None else {"it": stored})
    assert verdict.said == said
    assert verdict.change == (change if change is None else pytest.approx(change))


def test_what_got_slower_comes_first() -> None:
    verdicts = judge({"a": 1.0, "b": 1.0, "c": 9.0}, {"a": Stored(1.0), "b": Stored(5.0)})
    assert [(v.name, v.said) for v in verdicts] == [("b", SLOWER), ("a", SAME), ("c", NEW)]
    said = verdict_table(verdicts).text()
    assert "1 of 3 got slower" in said
    assert said.splitlines()[2].split() == ["b", "5.00", "1.00", "5.00x", "slower"]


def test_stored_ratios_come_back_and_tolerances_stay(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    write_stored(path, {"a": 2.0, "b": 3.0}, {"commit": "one"})
    data = json.loads(path.read_text())
    data["ratios"]["a"]["tolerance"] = 0.5
    path.write_text(json.dumps(data))
    write_stored(path, {"a": 4.0, "c": 1.0}, {"commit": "two"})
    assert read_stored(path) == {"a": Stored(4.0, 0.5), "c": Stored(1.0, 0.25)}
    assert json.loads(path.read_text())["commit"] == "two"


DAMAGED = {
    "missing": (None, "no such file"),
    "cut short": ('{"ratios": {', "cut short"),
    "without a tolerance": ('{"ratios": {"a": {"ratio": 2}}}', "holds no ratios"),
    "a ratio of nothing": ('{"ratios": {"a": {"ratio": 0, "tolerance": 1}}}', "neither may be negative"),
    "no number": ('{"ratios": {"a": {"ratio": NaN, "tolerance": 1}}}', "neither may be negative"),
}


@pytest.mark.parametrize(("text", "words"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_ratios_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "ratios.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SourceError, match=words):
        read_stored(path)


def test_what_references_cost_is_turned_over() -> None:
    rows = {
        "R50: torch eager": {"ours": 1.0, "theirs": 4.0, "ratio": 4.0},
        "R50: four references over one": {"ours": 1.0, "theirs": 2.0, "ratio": 2.0},
    }
    assert baseline_ratios(rows) == {"R50: torch eager": 4.0, "R50: four references over one, turned over": 0.5}


def cost(milliseconds: float, share: float = 0.1) -> dict[str, float]:
    return {"median_ms": milliseconds, "p95_ms": 2 * milliseconds, "cpu_ms": milliseconds, "share": share}


def measurement(what: str, size: str, references: int, milliseconds: float, **changes: Any) -> dict[str, Any]:
    stages = {name: cost(milliseconds / len(ROWS), 1 / len(ROWS)) for name in ROWS}
    all_of_it = {name: cost(milliseconds) for name in ("step", "beyond_network", "whole_frame")}
    made = {"what": what, "input": size, "picture": size, "threads": 0, "references": references}
    return {**made, "objects": 2.0, "frames": 5, "stages": stages, **all_of_it, **changes}


def made_report() -> dict[str, Any]:
    machine = {"processor": "made", "cores": 2, "memory_mib": 100, "gpu": "", "load": "0.1"}
    own = {"picture": "640x480"}
    bench = {
        "time": "2026-01-02T03:04:05+00:00",
        "machine": machine,
        "versions": {"numpy": "1"},
        "model": {"name": "a model", "file": "a.onnx", "input_size": [64, 96], "max_references": 4},
        "provider": "cpu",
        "memory": {"model at its own size": {"resident_mib": 10.0, "peak_mib": 20.0}},
        "measurements": [
            measurement(CACHED, "96x64", 1, 4.0, **own),
            measurement(CACHED, "96x64", 4, 5.0, **own),
            measurement(RECOMPUTED, "96x64", 4, 15.0, **own),
            measurement(CACHED, "96x64", 1, 40.0, **own, threads=1),
            measurement(CACHED, "96x64", 4, 80.0, **own, threads=1),
            measurement(RECOMPUTED, "96x64", 4, 90.0, **own, threads=1),
            measurement(EXACT, "320x192", 4, 1.0, objects=8.0),
            measurement(EXACT, "320x192", 4, 4.0, objects=64.0),
        ],
    }
    rows = [{"frames": 0, "resident MiB": 99.5}, {"frames": 20_000, "resident MiB": 99.75}]
    return {
        "command": "python bench/performance.py --write",
        "time": bench["time"],
        "commit": "abc1234",
        "quick": False,
        "machine": machine,
        "benches": {"A model": bench},
        "baselines": {"grouping 8 objects: best numpy": {"ours": 1.0, "theirs": 4.5, "ratio": 4.5}},
        "memory": {"assembly": rows, "model": rows},
        "ros": {"Does it last?": {"command": "python bench/ros_lasts.py", "rows": [{"size": "1x1", "ms": 1.25}]}},
        "ratios": {"grouping 8 objects: best numpy": 4.5},
    }


def test_ratios_of_the_pipeline() -> None:
    assert pipeline_ratios("small", made_report()["benches"]["A model"]) == {
        "step, small 96x64: references recomputed": 3.0,
        "step, small 96x64: 1 instead of 4 references": 0.8,
        "beyond the network, 320x192: 8 instead of 64 objects": 0.25,
    }


def test_the_page_has_the_numbers_of_the_report(tmp_path: Path) -> None:
    said = page(made_report(), tmp_path)
    for words in (
        *("| fit | 0.50 |", "1 thread", "| 96x64 | 640x480 | all threads | 4.00 | 5.00 |", "1.25x | 3.00x"),
        *("| 320x192 | 64 |", "| grouping 8 objects | best numpy | 1.000 | 4.500 | 4.50 |", "| 20,000 | 99.8 |"),
    ):
        assert words in said, words


def test_the_command_makes_page_and_ratios_of_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performance, "PAGE", tmp_path / "docs" / "performance.md")
    monkeypatch.setattr(performance, "RATIOS", tmp_path / "ratios.json")
    report = made_report()
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    assert performance.main(["--from", str(path), "--check"]) == 2  # nothing is stored yet
    assert performance.main(["--from", str(path), "--store", "--write"]) == 0
    assert (tmp_path / "docs" / "performance.md").read_text().startswith("# Performance")
    assert performance.main(["--from", str(path), "--check"]) == 0
    report["ratios"]["grouping 8 objects: best numpy"] = 2.0
    path.write_text(json.dumps(report))
    assert performance.main(["--from", str(path), "--check"]) == 1


def test_a_quick_run_is_not_stored(capsys: pytest.CaptureFixture[str]) -> None:
    assert performance.main(["--quick", "--store"]) == 2
    assert "too coarse" in capsys.readouterr().err


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_profile_shows_both_sides(tmp_path: Path) -> None:
    before, after = made_report(), made_report()["benches"]["A model"]
    for m in before["benches"]["A model"]["measurements"]:
        m["stages"]["network"]["median_ms"] += 20
    paths = [tmp_path / name for name in ("before.json", "after.json", "profile.svg")]
    for path, report in zip(paths, (before, after), strict=False):
        path.write_text(json.dumps(report))
    assert performance.main(["--profile", *map(str, paths)]) == 0
    said = texts(paths[2].read_text())
    assert "before" in said
    assert "25.0 ms" in said
    assert "5.0 ms" in said
    assert "network 20.50 / 0.50" in said


def test_a_profile_needs_two_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    path.write_text('{"benches": {}}')
    assert performance.main(["--profile", str(path), str(path), str(tmp_path / "out.svg")]) == 2
    assert "error" in capsys.readouterr().err
    assert not (tmp_path / "out.svg").exists()


def test_bars_are_to_scale_and_escaped() -> None:
    svg = stacked_bars({"a & b": {"x <1>": 30.0, "y": 10.0}, "c": {"y": 20.0}}, "t")
    widths = [float(e.attrib["width"]) for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")][:3]
    assert widths == pytest.approx([3 * widths[1], widths[1], 2 * widths[1]], abs=0.2)
    assert "a & b" in texts(svg)


def test_memory_is_watched_while_ids_come_and_go() -> None:
    watched = memory.assembly_memory(320)
    assert [row["frames"] for row in watched.rows] == [0, 100, 320]
    last = watched.rows[-1]
    assert last["most objects"] == 100
    assert last["references held"] == 4
    assert float(last["ids given"]) > 150  # those after the pause are new
    ET.fromstring(memory.picture(watched, 320))
