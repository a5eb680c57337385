# SPDX-License-Identifier: Apache-2.0
"""The command ``instance-flow bench``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from instance_flow.benchmark.suite import OBJECTS, SIZES, BenchSettings, run_bench, size_name
from instance_flow.benchmark.tables import describe, tables
from instance_flow.commands.values import add_command, image_size
from instance_flow.formats.json_files import write_json
from instance_flow.network.execution import PROVIDER_NAMES
from instance_flow.network.installation import bundled_model_path
from instance_flow.structures import SourceError

_SILENCE = 30.0
"""Seconds between two lines about the same kind of measurement."""


def add_bench(commands: Any) -> None:
    """Add ``bench`` to the commands."""
    parser = add_command(
        commands,
        "bench",
        "measure where the time of a frame goes on this machine, stage by stage",
        "instance-flow bench --threads 1 2",
        "instance-flow bench model.onnx --provider cpu",
    )
    parser.set_defaults(command=bench_command)
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="ONNX model; the bundled one unless given")
    parser.add_argument("--provider", default="auto", metavar="P", help=f"{', '.join(PROVIDER_NAMES)} (default: auto)")
    parser.add_argument(
        "--threads",
        nargs="+",
        type=int,
        default=(0,),
        metavar="N",
        help="CPU threads of the network, measured with each number (default: 0 = one for each core)",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=image_size,
        default=(),
        metavar="WxH",
        help="sizes of pictures and of the network's input, beside the model's own (default: "
        f"{' '.join(map(size_name, SIZES))}, or none for a model that was exported for one size)",
    )
    parser.add_argument(
        "--objects",
        nargs="+",
        type=int,
        default=OBJECTS,
        metavar="M",
        help=f"objects in a picture (default: {' '.join(map(str, OBJECTS))})",
    )
    parser.add_argument(
        "--references",
        nargs="+",
        type=int,
        default=(),
        metavar="R",
        help="numbers of references (default: 1 and as many as the model takes)",
    )
    parser.add_argument(
        "--frames", type=int, default=30, metavar="N", help="frames of each kind (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to a file")


def bench_command(options: argparse.Namespace) -> int:
    """Measure, and print tables."""
    if options.json and options.json.is_dir():
        raise SourceError(f"{options.json} is a folder, but --json needs a file; name one in it")
    settings = BenchSettings(
        model=options.model or bundled_model_path(),
        provider=options.provider,
        threads=tuple(options.threads),
        sizes=tuple(options.sizes),
        objects=tuple(options.objects),
        references=tuple(options.references),
        frames=options.frames,
    )
    report = measured_with_progress(settings)
    if options.json:
        write_json(options.json, report, indent=2)
    print("\n\n".join([describe(report), *(table.text() for table in tables(report))]))
    return 0


def measured_with_progress(settings: BenchSettings) -> dict[str, Any]:
    """``run_bench`` with a progress bar on stderr, or with lines where that is no terminal."""
    before, told_at = "", 0.0
    with tqdm(unit="frame", disable=None, dynamic_ncols=True) as bar:

        def show(what: str, done: int, turns: int) -> None:
            nonlocal before, told_at
            if bar.disable:
                if what != before or monotonic() - told_at > _SILENCE:
                    sys.stderr.write(f"instance-flow: measuring {what}, {done} of {turns} frames done\n")
                    sys.stderr.flush()
                    told_at = monotonic()
            else:
                bar.total = turns
                bar.set_description(what, refresh=what != before)
                bar.update(done - bar.n)
            before = what

        return run_bench(settings, show)
