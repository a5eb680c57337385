# SPDX-License-Identifier: Apache-2.0
"""The command ``instance-flow``: parses and dispatches, and says in one line what went wrong."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from instance_flow import __version__
from instance_flow.commands.bench import add_bench
from instance_flow.commands.completion import SHELLS, installed_parsers, script, words_of
from instance_flow.commands.doctor import add_doctor
from instance_flow.commands.evaluate_bags import add_evaluate_bags, add_sizes
from instance_flow.commands.exit_codes import run_to_end
from instance_flow.commands.play import add_play
from instance_flow.commands.run import add_run
from instance_flow.commands.values import add_command, described, format_report
from instance_flow.commands.warmup import add_warmup
from instance_flow.evaluation.evaluate import evaluate
from instance_flow.evaluation.in_metres import evaluate_in_metres
from instance_flow.evaluation.table import format_table
from instance_flow.formats.foreign_text import OneLine
from instance_flow.formats.json_files import write_json
from instance_flow.network.installation import bundled_model_path, providers, versions
from instance_flow.pipeline import Pipeline
from instance_flow.replay.outputs import TABLE
from instance_flow.structures import ModelError, SourceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    # Its options are known to the training alone.
    options = argparse.Namespace(command=val_command, arguments=given[1:]) if given[:1] == ["val"] else None
    options = options or _parser().parse_args(given)
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("instance-flow: %(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    # FFmpeg within OpenCV writes to stderr what our own message says better; it looks here when it is first used.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # So do its warnings of streams that cannot be opened.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    return run_to_end("instance-flow", lambda: int(options.command(options)))


def evaluate_command(options: argparse.Namespace) -> int:
    """Measure results against their ground truth."""
    if options.json and options.json.is_dir():
        raise SourceError(f"{options.json} is a folder, but --json needs a file; name one in it")
    numbers = evaluate(options.ground_truth, options.results, size_limits=options.sizes)
    if options.spatial_truth:
        numbers["in_metres"] = evaluate_in_metres([(options.spatial_truth, options.results.parent / TABLE)])
    if options.json:
        write_json(options.json, numbers, indent=2)
    print(format_table(numbers))
    return 0


def val_command(options: argparse.Namespace) -> int:
    """Hand over to the training package, where it is installed."""
    try:
        training = importlib.import_module("instance_flow_training.commands")
    except ModuleNotFoundError:
        raise SourceError(
            "val reads labels as the training does, which is not installed; run `pip install . ./training` in "
            "instance-flow's checkout"
        ) from None
    return int(training.val(options.arguments))


def info_command(options: argparse.Namespace) -> int:
    """Show what is installed, which providers work, and the description of a model."""
    report: dict[str, Any] = {"versions": versions()}
    try:
        model = options.model or bundled_model_path()
    except ModelError as error:
        report["model"] = str(error)
    else:
        report["model"] = {"file": str(model), **asdict(Pipeline.load(model, "cpu").info)}
        report["providers"] = providers(model)
    print(format_report(report, options.json))
    return 0


class _Completion(argparse.Action):
    """As ``--version`` does, print and end."""

    def __call__(self, parser: argparse.ArgumentParser, _space: object, shell: Any, _option: str | None = None) -> None:
        print(script(shell, words_of(installed_parsers(parser))), end="")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    does = "find and track the objects in videos, camera streams and ROS 2 bags, and measure how well"
    examples = "instance-flow run VIDEO.mp4", "instance-flow run 0 --show"
    parser = argparse.ArgumentParser(prog="instance-flow", **described(does, *examples))
    parser.add_argument("--version", action="version", version=f"instance-flow {__version__}")
    parser.add_argument(
        "--completion",
        choices=list(SHELLS),
        action=_Completion,
        help='print a script that completes all commands: eval "$(instance-flow --completion bash)"',
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_run(commands)
    _add_val(commands)
    add_play(commands)
    _add_evaluate(commands)
    add_evaluate_bags(commands)
    add_doctor(commands)
    add_warmup(commands)
    add_bench(commands)
    _add_info(commands)
    return parser


def _add_val(commands: Any) -> None:
    # For the list of commands; `main` hands over what follows.
    commands.add_parser("val", help="measure a model on labels in any form (with instance-flow-training)")


def _add_evaluate(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate",
        "measure results against ground truth (YouTube-VIS or CocoVID)",
        "instance-flow evaluate instances.json out/NAME/results.json",
    )
    parser.set_defaults(command=evaluate_command)
    parser.add_argument("ground_truth", type=Path, metavar="GROUND_TRUTH")
    parser.add_argument("results", type=Path, metavar="RESULTS")
    add_sizes(parser)
    parser.add_argument(
        "--spatial-truth",
        type=Path,
        metavar="FILE",
        help=f"also measure positions and velocities in metres, of the {TABLE} beside RESULTS, against NAME.json of a "
        "synthetic scene with depth",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to a file")


def _add_info(commands: Any) -> None:
    parser = add_command(
        commands,
        "info",
        "show what is installed, which providers work, and the description of a model",
        "instance-flow info",
        "instance-flow info model.onnx --json",
    )
    parser.set_defaults(command=info_command)
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="ONNX model; the bundled one unless given")
    parser.add_argument("--json", action="store_true", help="print JSON")
