# SPDX-License-Identifier: Apache-2.0
"""Everything about speed and memory on one page: stages, sizes, references, other ways of doing it, memory, the node.

    python bench/performance.py --json out/performance.json --write      # the whole page, docs/performance.md
    python bench/performance.py --ros --write                            # with the node's figures; ROS must be sourced
    python bench/performance.py --quick                                  # does it all still run?
    python bench/performance.py --check                                  # what got slower than what is stored?
    python bench/performance.py --store                                  # take this run's ratios as the stored ones
    python bench/performance.py --profile BEFORE.json AFTER.json docs/profile.svg

Needs what training and export need (torch): the networks of others are among the baselines. Take the figures on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluator import in_new_process
from memory import ASSEMBLY_FRAMES, MODEL_FRAMES, assembly_memory, model_memory
from performance_check import SLOWER, baseline_ratios, judge, pipeline_ratios, read_stored, verdict_table, write_stored
from performance_page import page, text
from pictures import Bar, stacked_bars

from instance_flow.benchmark.machine import machine
from instance_flow.benchmark.suite import CACHED, SIZES, BenchSettings
from instance_flow.commands.bench import measured_with_progress
from instance_flow.formats.atomic import replacing
from instance_flow.formats.json_files import read_json, write_json
from instance_flow.network.installation import bundled_model_path
from instance_flow.structures import InstanceFlowError, SourceError

BENCH = Path(__file__).resolve().parent
PAGE = BENCH.parent / "docs" / "performance.md"
RATIOS = BENCH / "performance_ratios.json"
SMALL, LARGE = "The bundled model", "ResNet-50, random weights"

_ROS_ARGUMENTS = {"ros_latency": ["--rate", "10", "--frames", "100"]}
_QUICK_FRAMES, _LARGE_FRAMES = 3, 10
_QUICK_MEMORY = 200


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything that was asked for; gives the report, as --json writes it."""
    from baselines import all_baselines  # it needs torch, and says so before anything is measured

    ros = _ros() if options.ros else {}
    benches = {SMALL: _bench(bundled_model_path(), options.quick)}
    if not options.quick:
        benches[LARGE] = _large()
    baselines = all_baselines(options.quick)
    ratios = baseline_ratios(baselines)
    for name, bench in benches.items():
        ratios |= pipeline_ratios(name, bench)
    frames = (_QUICK_MEMORY, _QUICK_MEMORY) if options.quick else (ASSEMBLY_FRAMES, MODEL_FRAMES)
    first = benches[SMALL]
    return {
        "command": " ".join(["python bench/performance.py", *sys.argv[1:]]),
        "time": first["time"],
        "commit": _commit(),
        "quick": options.quick,
        "machine": machine(),
        "versions": first["versions"],
        "benches": benches,
        "baselines": baselines,
        "memory": {
            "assembly": in_new_process(assembly_memory, frames[0]).rows,
            "model": in_new_process(model_memory, bundled_model_path(), frames[1]).rows,
        },
        "ros": ros,
        "ratios": ratios,
    }


def bars(report: Mapping[str, Any]) -> Mapping[str, Bar]:
    """The stages of each model at its own size, from a report of this program or of ``instance-flow bench --json``.

    Raises SourceError for JSON that is neither.
    """
    try:
        found = {}
        for bench in report.get("benches", {"": report}).values():
            first = [m for m in bench["measurements"] if m["what"] == CACHED and m["input"] == _own_size(bench)]
            stages = max(first, key=lambda m: m["references"])["stages"]
            found[bench["model"]["name"]] = {stage: float(cost["median_ms"]) for stage, cost in stages.items()}
        return found
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"this is no report of performance.py or instance-flow bench ({error!r})") from None


def profile(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """SVG of where the time of a frame went, before and after; of the models that both reports have."""
    then, now = bars(before), bars(after)
    if len(then) == len(now) == 1:
        now = dict(zip(then, now.values(), strict=True))
    common = [name for name in then if name in now]
    if not common:
        raise SourceError(f"the reports have no model in common: {', '.join(then)}; {', '.join(now)}")
    return stacked_bars(
        {"before": then[common[0]], "after": now[common[0]]}, f"Milliseconds per stage of a frame, {common[0]}"
    )


def _own_size(bench: Mapping[str, Any]) -> str:
    height, width = bench["model"]["input_size"]
    return f"{width}x{height}"


def _bench(model: Path, quick: bool) -> dict[str, Any]:
    """As ``instance-flow bench`` measures it, in a process that holds no more than that command's does."""
    if quick:
        settings = BenchSettings(model, sizes=SIZES[:1], objects=(8, 64), frames=_QUICK_FRAMES)
    else:
        settings = BenchSettings(model, threads=(0, 1))
    return in_new_process(measured_with_progress, settings)


def _large() -> dict[str, Any]:
    """The paper's network; what comes after it is the same for all networks, and measured once."""
    from baselines.networks import SIZE, export_both, random_network

    from instance_flow_training.network.model import ModelConfig

    with tempfile.TemporaryDirectory(prefix="instance-flow-") as folder:
        path = export_both("R50", random_network(ModelConfig()), SIZE, Path(folder)).path
        return in_new_process(measured_with_progress, BenchSettings(path, objects=(), frames=_LARGE_FRAMES))


def _ros() -> dict[str, Any]:
    """The rows of every measurement of the node, by the first line of its description."""
    if find_spec("rclpy") is None or find_spec("instance_flow_ros") is None:
        raise InstanceFlowError("--ros needs ROS 2 and the node; run `source ros2_ws/install/setup.bash` first")
    found = {}
    for script in sorted(set(BENCH.glob("ros_*.py")) - {BENCH / "ros_setup.py"}):
        title = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem).splitlines()[0]
        arguments = _ROS_ARGUMENTS.get(script.stem, [])
        done = subprocess.run([sys.executable, script, *arguments, "--json"], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise InstanceFlowError(f"bench/{script.name} failed with {done.returncode}; what it said is above")
        command = " ".join(["python", f"bench/{script.name}", *arguments])
        found[title] = {"command": command, "rows": json.loads(done.stdout)}
    return found


def _commit() -> str:
    asked = ["git", "-C", str(BENCH), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few frames and the small model alone")
    parser.add_argument("--ros", action="store_true", help="with the figures of the ROS 2 node; takes minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    ratios = parser.add_mutually_exclusive_group()
    ratios.add_argument(
        "--check", action="store_true", help="exit with 1 where something got slower than what is stored"
    )
    ratios.add_argument("--store", action="store_true", help="store this run's ratios")
    parser.add_argument(
        "--from", dest="report", type=Path, metavar="FILE", help="measure nothing, take what --json wrote"
    )
    parser.add_argument("--profile", nargs=3, type=Path, metavar=("BEFORE", "AFTER", "SVG"), help="draw two reports")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.profile:
        before, after, out = options.profile
        _write(out, profile(read_json(before), read_json(after)))
        return 0
    if options.quick and options.store:
        raise ValueError("the ratios of a --quick run are too coarse, and too few, to be stored; leave --quick out")
    stored = read_stored(RATIOS) if options.check else {}
    report = read_json(options.report) if options.report else measure(options)
    if options.json:
        write_json(options.json, report, indent=1)
    print(text(report))
    if options.write:
        _write(PAGE, page(report, PAGE.parent))
    if options.store:
        write_stored(RATIOS, report["ratios"], {name: report[name] for name in ("time", "commit", "machine")})
    if not options.check:
        return 0
    verdicts = judge(report["ratios"], stored)
    print(f"\n{verdict_table(verdicts).text()}")
    return int(any(verdict.said == SLOWER for verdict in verdicts))


def _write(path: Path, content: str) -> None:
    with replacing(path) as whole:
        whole.write_text(content, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 1 where --check found something slower, 2 for bad input."""
    try:
        return _run(_parser().parse_args(arguments))
    except (InstanceFlowError, ValueError, OSError) as error:
        print(f"performance.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
