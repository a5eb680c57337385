# SPDX-License-Identifier: Apache-2.0
"""The command ``instance-flow``: parses and dispatches, and says in one line what went wrong."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instance_flow import outputs
from instance_flow.atomic import replacing
from instance_flow.average_precision import SIZE_LIMITS
from instance_flow.evaluation import evaluate
from instance_flow.evaluation_table import format_table
from instance_flow.installation import bundled_model_path, providers, versions
from instance_flow.network import PROVIDERS
from instance_flow.pipeline import AssemblyConfig, Pipeline
from instance_flow.run import run, stop_at_interrupt
from instance_flow.run_statistics import Statistics
from instance_flow.structures import InstanceFlowError, ModelError, SourceError
from instance_flow.video import open_source, opencv_path

BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="instance-flow: %(levelname)s: %(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal has no letters for is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    # FFmpeg within OpenCV writes to stderr what our own message says better; it looks here when it is first used.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        return options.command(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (InstanceFlowError, ValueError, OSError) as error:
        sys.stderr.write(f"instance-flow: error: {' '.join(str(error).split())}\n")
        return BAD_INPUT


def run_command(options: argparse.Namespace) -> int:
    """Track the objects of a source and write what came out into a folder."""
    config = parse_settings(options.set)
    source = open_source(options.source, options.topic)
    pipeline = Pipeline.load(options.model or bundled_model_path(), options.provider, config, options.scales)
    folder = _output_folder(options.out or Path("out") / source.name)
    names, statistics = pipeline.info.class_names, Statistics()
    # A new output of a run, such as a bag of the tracks, is one more entry here: its files, and what writes them.
    wanted: dict[tuple[str, ...], AbstractContextManager[outputs.Add]] = {
        (outputs.RESULTS,): outputs.results_output(folder, options.video_id),
        (outputs.TABLE,): outputs.table_output(folder, names),
        (outputs.SHEET,): outputs.sheet_output(folder, names),
    }
    if not options.no_video:
        wanted[outputs.VIDEO,] = outputs.video_output(folder, names, source.rate)
    if options.panels:
        wanted[outputs.PANELS, outputs.PANELS_SHEET] = outputs.panels_output(folder, pipeline, source.rate)
    if not options.no_report:
        about = _about_run(options, source.name, pipeline)
        wanted[outputs.REPORT,] = outputs.report_output(folder, about, names, statistics)
    with stop_at_interrupt() as stopped:
        run(source, pipeline, list(wanted.values()), statistics, max_frames=options.max_frames, stopped=stopped)
    files = [str(folder / name) for written in wanted for name in written]
    _show(_run_summary(statistics, pipeline, source.name, files), options.json)
    return INTERRUPTED if statistics.interrupted else 0


def evaluate_command(options: argparse.Namespace) -> int:
    """Measure results against their ground truth."""
    if options.json and options.json.is_dir():
        raise SourceError(f"{options.json} is a folder, but --json needs a file; name one in it")
    numbers = evaluate(options.ground_truth, options.results, size_limits=options.sizes)
    print(format_table(numbers))
    if options.json:
        with replacing(options.json) as path:
            path.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return 0


def info_command(options: argparse.Namespace) -> int:
    """Say what is installed, which providers work, and what a model says of itself."""
    report: dict[str, Any] = {"versions": versions()}
    try:
        model = options.model or bundled_model_path()
    except ModelError as error:
        report["model"] = str(error)
    else:
        report["model"] = {"file": str(model), **asdict(Pipeline.load(model, "cpu").info)}
        report["providers"] = providers(model)
    _show(report, options.json)
    return 0


def parse_settings(pairs: Sequence[str]) -> AssemblyConfig:
    """Settings from ``key=value`` texts; ValueError for an unknown key and for a value that is not a fitting number."""
    known: dict[str, type] = {name: type(value) for name, value in asdict(AssemblyConfig()).items()}
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in known:
            raise ValueError(f"setting {pair!r} is not key=value with a key out of {', '.join(known)}")
        try:
            settings[key] = known[key](value)
        except ValueError as error:
            kind = "a whole number" if known[key] is int else "a number"
            raise ValueError(f"setting {key} needs {kind}, not {value!r}") from error
    return AssemblyConfig(**settings)


def _output_folder(folder: Path) -> Path:
    """The folder as it is; SourceError where a file is in its way, or its name is not UTF-8."""
    opencv_path(folder)
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise SourceError(f"{place} is a file, but --out needs a folder for several files; name another one")
            break
    return folder


def _about_run(options: argparse.Namespace, name: str, pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """What ran, for the report: facts by their name, under headings."""
    info, path = pipeline.info, Path(options.model or bundled_model_path())
    own = {**asdict(info), "references": info.max_references}
    settings = {
        key: value or (f"{own[key]:g}, as the model says" if key in own else value)
        for key, value in asdict(pipeline.config).items()
    }
    scales = " ".join(f"{scale:g}" for scale in options.scales) or "1"
    return {
        "Source": {"name": name, "path": str(options.source), **({"topic": options.topic} if options.topic else {})},
        "Model": {
            "name": info.name,
            "file": path.name,
            "hash of the weights": info.weights_sha256 or "not stated",
            "provider": pipeline.provider,
            "input": f"{info.input_size[1]} x {info.input_size[0]} pixels, scale {scales}",
            "classes": ", ".join(info.class_names),
            "training": info.training or "not stated",
            "licence": info.licence or "not stated",
        },
        "Settings": {key.replace("_", " "): value for key, value in settings.items()},
        "Versions": {key: value for key, value in versions().items() if value != "not installed"},
    }


def _run_summary(statistics: Statistics, pipeline: Pipeline, name: str, files: list[str]) -> dict[str, Any]:
    return {
        "source": name,
        "model": pipeline.info.name,
        "provider": pipeline.provider,
        "frames": statistics.frames,
        "objects": statistics.objects,
        "ids": len(statistics.ids),
        "latency_p50_ms": round(statistics.latency_ms(50), 2),
        "latency_p95_ms": round(statistics.latency_ms(95), 2),
        "interrupted": statistics.interrupted,
        "files": files,
    }


def _show(report: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report, indent=2))
        return
    rows = list(_rows(report))
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows))


def _rows(report: Mapping[str, Any], indent: str = "") -> list[tuple[str, str]]:
    """Names and values as a table shows them, a nested report under its own name."""
    rows: list[tuple[str, str]] = []
    for key, value in report.items():
        name = indent + key.replace("_", " ")
        if isinstance(value, Mapping):
            rows += [(name, ""), *_rows(value, indent + "  ")]
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(map(str, value))))
        else:
            rows.append((name, str(value)))
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="instance-flow", description="Online video instance segmentation for robots.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_evaluate(commands)
    _add_info(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="track the objects of a video, a folder of pictures, or a ROS 2 bag")
    parser.set_defaults(command=run_command)
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="video file, picture, folder of pictures, .mcap, .db3, bag folder"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="ONNX model; the bundled one unless given")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the files; out/<name of the source> unless given"
    )
    parser.add_argument("--topic", help="topic of images, for a bag with several")
    parser.add_argument("--provider", default="auto", choices=["auto", *PROVIDERS], help="where the network runs")
    parser.add_argument("--max-frames", type=_positive, metavar="N", help="stop after so many frames")
    parser.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=(),
        metavar="S",
        help="run the network at several factors of its input size, such as 0.5 0.75 1.0, and average what it says; "
        "SOURCE goes before it",
    )
    parser.add_argument("--no-video", action="store_true", help=f"do not write {outputs.VIDEO}")
    parser.add_argument("--no-report", action="store_true", help=f"do not write {outputs.REPORT}")
    parser.add_argument(
        "--panels",
        action="store_true",
        help=f"write {outputs.PANELS} and {outputs.PANELS_SHEET}: the network's maps, the references and the flow",
    )
    parser.add_argument(
        "--video-id",
        type=_positive,
        default=1,
        metavar="N",
        help=f"of the video in {outputs.RESULTS}; that of the ground truth to evaluate against (default: 1)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the assembly; may be given again"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="measure results against ground truth, both in YouTube-VIS format")
    parser.set_defaults(command=evaluate_command)
    parser.add_argument("ground_truth", type=Path, metavar="GROUND_TRUTH")
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument(
        "--sizes",
        choices=list(SIZE_LIMITS),
        default="youtube-vis",
        help="what is small, medium and large: youtube-vis (128^2, 256^2 pixels) or coco (32^2, 96^2)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to a file")


def _add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info", help="say what is installed, which providers work, and what a model says of itself"
    )
    parser.set_defaults(command=info_command)
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="ONNX model; the bundled one unless given")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
