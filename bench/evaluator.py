# SPDX-License-Identifier: Apache-2.0
"""Time and memory of the evaluator, beside those of the official code where its checkouts are at hand.

    python bench/evaluator.py                                  # ours: 100 videos, 490 objects, 5,000 predictions
    python bench/evaluator.py --videos 1000                    # memory of measuring must not grow with the videos
    python bench/evaluator.py --cocoapi DIR --trackeval DIR    # youtubevos/cocoapi, JonathonLuiten/TrackEval

Every contender reads the same two files, in a process of its own (Linux only). The official code needs pycocotools
and scipy beside instance-flow.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from evaluator_case import RESULTS, TRUTH, write_case

Numbers = Mapping[str, float]
Contender = Callable[[Path], Numbers]
_ROWS = ("first call ever, compiling", "first call of a process", "later calls, best", "CPU of that call")


@dataclass(frozen=True)
class Measurement:
    """Seconds of each call and CPU seconds, and peak MiB above what the process held before the first call."""

    seconds: list[float]
    cpu_seconds: list[float]
    peak_mib: float
    numbers: Numbers


def ours(folder: Path, tracking: bool = True) -> Numbers:
    """Measure AP and AR, and the tracking numbers, from files."""
    from instance_flow.evaluation.average_precision import STATS
    from instance_flow.evaluation.evaluate import evaluate
    from instance_flow.evaluation.tracking_metrics import HEADLINE

    found = evaluate(folder / TRUTH, folder / RESULTS, tracking=tracking)
    return {name: found[name] for name in (*STATS, *(HEADLINE if tracking else ()))}


def official_precision(checkout: Path, folder: Path) -> Numbers:
    """Measure AP and AR by youtubevos/cocoapi, on the mask module of the installed pycocotools."""
    import pycocotools

    from instance_flow.evaluation.average_precision import STATS

    _bring_back_old_numpy()
    _stub_modules("matplotlib", "matplotlib.pyplot", "matplotlib.collections", "matplotlib.patches")
    source = checkout / "PythonAPI" / "pycocotools"
    if str(source) not in pycocotools.__path__:
        pycocotools.__path__.append(str(source))
    from pycocotools.ytvos import YTVOS  # type: ignore[import-not-found]
    from pycocotools.ytvoseval import YTVOSeval  # type: ignore[import-not-found]

    truth = YTVOS(str(folder / TRUTH))
    evaluation = YTVOSeval(truth, truth.loadRes(str(folder / RESULTS)), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(STATS, map(float, evaluation.stats), strict=True))


def official_tracking(checkout: Path, folder: Path) -> Numbers:
    """Measure HOTA, CLEAR and Identity per category by TrackEval."""
    _bring_back_old_numpy()
    sys.path.insert(0, str(checkout))
    import trackeval  # type: ignore[import-not-found]

    quiet = {"PRINT_CONFIG": False}
    silent = ("PRINT_RESULTS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "OUTPUT_EMPTY_CLASSES", "PLOT_CURVES")
    with tempfile.TemporaryDirectory() as name:
        place = {"GT_FOLDER": f"{name}/truth/", "TRACKERS_FOLDER": f"{name}/results/", "SPLIT_TO_EVAL": "it"}
        for target, file in (("truth/youtube_vis_it", TRUTH), ("results/youtube_vis_it/ours/data", RESULTS)):
            (Path(name) / target).mkdir(parents=True)
            (Path(name) / target / file).symlink_to(folder.absolute() / file)
        evaluator = trackeval.Evaluator(
            {**quiet, **dict.fromkeys([*silent, "TIME_PROGRESS"], False), "LOG_ON_ERROR": None, "BREAK_ON_ERROR": True}
        )
        kinds = trackeval.metrics.HOTA, trackeval.metrics.CLEAR, trackeval.metrics.Identity
        metrics = [kinds[0](), *(kind(quiet) for kind in kinds[1:])]
        found, _ = evaluator.evaluate([trackeval.datasets.YouTubeVIS({**quiet, **place})], metrics)
    averaged = found["YouTubeVIS"]["ours"]["COMBINED_SEQ"]["cls_comb_cls_av"]
    values = {key: float(np.mean(value)) for family in averaged.values() for key, value in family.items()}
    return {key: values[key] for key in ("HOTA", "DetA", "AssA", "IDF1", "IDSW")}


def measure(contender: Contender, folder: Path, repeat: int) -> Measurement:
    """Call a contender several times in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        import instance_flow.evaluation.evaluate  # noqa: F401

        before = memory_mib("VmRSS")
        clocks = []
        for _ in range(repeat):
            start = time.perf_counter(), time.process_time()
            numbers = contender(folder)
            clocks.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    seconds, cpu_seconds = (list(row) for row in zip(*clocks, strict=True))
    return Measurement(seconds, cpu_seconds, memory_mib("VmHWM") - before, numbers)


def measure_memory(folder: Path) -> dict[str, float]:
    """Tell memory apart: what the JSON of both files takes, and what measuring them takes on top."""
    from instance_flow.evaluation.evaluate import evaluate_data
    from instance_flow.formats.json_files import read_json

    with tempfile.TemporaryDirectory() as small:
        write_case(Path(small), 1)
        ours(Path(small))  # compiled kernels take memory too, once
    before = memory_mib("VmRSS")
    truth, results = (read_json(folder / name) for name in (TRUTH, RESULTS))
    read = memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    evaluate_data(truth, results)
    return {"json_mib": read - before, "measuring_mib": memory_mib("VmHWM") - read}


def memory_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _bring_back_old_numpy() -> None:
    """Give numpy what the official code, of 2019 and 2022, takes for granted."""
    if "float" in vars(np):
        return
    linspace = np.linspace
    old = {"float": float, "int": int, "linspace": lambda a, b, num=50, **rest: linspace(a, b, int(num), **rest)}
    vars(np).update(old)


def _stub_modules(*modules: str) -> None:
    """Stand in for modules that are imported but not needed."""
    for name in modules:
        stand_in = ModuleType(name)
        stand_in.PatchCollection = stand_in.Polygon = stand_in.pyplot = None  # type: ignore[attr-defined]
        sys.modules.setdefault(name, stand_in)


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _report(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    contenders: dict[str, Contender] = {"ours": ours, "ours, AP and AR": partial(ours, tracking=False)}
    if options.cocoapi:
        contenders["cocoapi, AP and AR"] = partial(official_precision, options.cocoapi)
    if options.trackeval:
        contenders["TrackEval"] = partial(official_tracking, options.trackeval)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as empty:
        os.environ["NUMBA_CACHE_DIR"] = empty
        compiling = in_new_process(measure, ours, folder, 1)
        del os.environ["NUMBA_CACHE_DIR"]
    measured = {
        name: in_new_process(measure, function, folder, options.repeat) for name, function in contenders.items()
    }
    reference = measured["ours"].numbers
    return {
        "videos": options.videos,
        "cores": os.cpu_count(),
        "load": load,
        "megabytes": sum((folder / name).stat().st_size for name in (TRUTH, RESULTS)) / 1e6,
        "memory": in_new_process(measure_memory, folder),
        "compiling_seconds": compiling.seconds[0],
        "contenders": {name: asdict(one) | {"numbers": None} for name, one in measured.items()},
        "largest_difference": {
            name: max(abs(reference[key] - value) for key, value in one.numbers.items())
            for name, one in measured.items()
        },
    }


def _lines(report: Mapping[str, Any]) -> list[str]:
    columns: Mapping[str, Mapping[str, Any]] = report["contenders"]
    best = {name: min(range(len(one["seconds"])), key=one["seconds"].__getitem__) for name, one in columns.items()}
    rows: list[Sequence[str]] = [
        ["", *columns],
        [_ROWS[0], f"{report['compiling_seconds']:.2f} s", *[""] * (len(columns) - 1)],
        [_ROWS[1], *(f"{one['seconds'][0]:.2f} s" for one in columns.values())],
        [_ROWS[2], *(f"{one['seconds'][best[name]]:.2f} s" for name, one in columns.items())],
        [_ROWS[3], *(f"{one['cpu_seconds'][best[name]]:.2f} s" for name, one in columns.items())],
        ["peak memory", *(f"{one['peak_mib']:.0f} MiB" for one in columns.values())],
        ["difference to ours", *(f"{value:.1e}" for value in report["largest_difference"].values())],
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    memory = report["memory"]
    return [
        f"{report['videos']} videos, {report['megabytes']:.0f} MB of JSON",
        f"{report['cores']} cores, load before the contenders {report['load']:.1f}",
        *("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows),
        f"ours: the JSON takes {memory['json_mib']:.0f} MiB, measuring it {memory['measuring_mib']:.0f} MiB more",
    ]


def main() -> None:
    """Make the case, measure everyone, print a table."""
    parser = argparse.ArgumentParser(description="Time and memory of the evaluator.")
    parser.add_argument("--videos", type=int, default=100, help="50 predictions each; 100 unless given")
    parser.add_argument("--repeat", type=int, default=3, help="calls per contender")
    parser.add_argument("--cocoapi", type=Path, metavar="DIR", help="checkout of youtubevos/cocoapi")
    parser.add_argument("--trackeval", type=Path, metavar="DIR", help="checkout of JonathonLuiten/TrackEval")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to a file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_case(Path(folder), options.videos)
        report = _report(Path(folder), options)
    print("\n".join(_lines(report)))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
