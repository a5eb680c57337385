# SPDX-License-Identifier: Apache-2.0
"""How fast the models are on a GPU, and how far from what its arithmetic and bandwidth allow.

On a machine with a GPU, NVIDIA's driver and this checkout:

    deploy/provider.sh .venv cuda                             # or tensorrt
    python bench/gpu/models.py out/gpu                        # there, or where there is torch, and carried over
    pytest tests/runtime/test_gpu.py                          # INSTANCE_FLOW_HALF_MODEL=out/gpu/small-fp16.onnx as well
    python bench/gpu/speed.py out/gpu/*.onnx --json out/gpu/speed.json

A machine without a way to PyPI takes the wheels along; where only small files pass, in pieces: ``split -b 40M`` here,
``cat`` there, then ``pip install --no-index --no-deps --target FOLDER WHEEL`` and FOLDER first in PYTHONPATH, so that
its onnxruntime comes before one that is there.

Each row: a model on a provider, with and without CUDA graphs. ``step`` is a whole frame, from picture to tracks;
``network`` that part of it; ``up`` and ``down`` the copies; ``pipelined`` frames a second in that mode. The roofline is
FEASIBILITY's for an H100, half precision: ideal, and at 40 % of the tensor cores' peak and 70 % of the bandwidth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from instance_flow.benchmark.machine import machine
from instance_flow.benchmark.scenes import Scene
from instance_flow.formats.json_files import write_json
from instance_flow.network.execution import ExecutionConfig, import_onnxruntime
from instance_flow.network.gpu.nvidia import driver_version, inspect_gpu
from instance_flow.network.gpu.provider_check import PROVIDERS, inspect_provider, why_unavailable
from instance_flow.overlap import pipelined
from instance_flow.pipeline import Pipeline
from instance_flow.stream import Stream
from instance_flow.structures import InstanceFlowError

OBJECTS, POSES, SETTLING = 8, 12, 10
ROOFLINE = {"r50": (0.56, 0.93), "r50-s32": (0.31, 0.46)}
"""Milliseconds by the names of models.py; the small model has no row there."""


@dataclass(frozen=True)
class Row:
    """One way to run one model. Milliseconds, medians but for ``p95``; ``load_s`` from the file to the first frame."""

    model: str
    provider: str
    cuda_graph: bool
    load_s: float
    step: float
    p95: float
    network: float
    up: float
    down: float
    per_second: float
    pipelined_per_second: float


def measure(path: Path, provider: str, cuda_graph: bool, frames: int, engines: str) -> Row:
    """Load, warm up, and run frame after frame, then the same in the pipelined mode."""
    begun = perf_counter()
    pipeline = Pipeline.load(path, provider, execution=ExecutionConfig(cuda_graph=cuda_graph, engine_cache=engines))
    pipeline.warmup(pipeline.info.input_size)
    loaded = perf_counter() - begun
    scene = Scene(pipeline.info.input_size, [OBJECTS] * POSES).images
    images = [scene[number % POSES] for number in range(frames + SETTLING)]
    seconds, stages = [], []
    for image in images:
        begun = perf_counter()
        pipeline.step(image)
        seconds.append(perf_counter() - begun)
        stages.append(pipeline.seconds)
    steps = 1e3 * np.array(seconds[SETTLING:])
    medians = {
        name: 1e3 * float(np.median([row[name] for row in stages[SETTLING:]]))
        for name in ("network", "upload", "download")
    }
    pipeline.reset()
    begun = perf_counter()
    count = sum(1 for _ in pipelined(Stream(pipeline), ((image, None, "rgb8") for image in images)))
    return Row(
        model=path.stem,
        provider=pipeline.provider,
        cuda_graph=cuda_graph,
        load_s=round(loaded, 2),
        step=float(np.median(steps)),
        p95=float(np.percentile(steps, 95)),
        network=medians["network"],
        up=medians["upload"],
        down=medians["download"],
        per_second=1e3 / float(steps.mean()),
        pipelined_per_second=count / (perf_counter() - begun),
    )


def ways(provider: str) -> list[tuple[str, bool]]:
    """Providers with and without CUDA graphs; "all" = every one that can run here."""
    runtime = import_onnxruntime()
    able = [name for name in ("cuda", "tensorrt") if not why_unavailable(name, inspect_provider(runtime, name))]
    names = able if provider == "all" else [provider]
    if not names:
        raise InstanceFlowError(why_unavailable("cuda", inspect_provider(runtime, "cuda")))
    return [(name, graph) for name in names for graph in ((False, True) if name == "cuda" else (False,))]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    heads = (
        "model",
        "runs on",
        "start s",
        "step ms",
        "p95",
        "network",
        "up",
        "down",
        "frames/s",
        "pipelined",
        "roofline",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        ideal, likely = ROOFLINE.get(row.model.rsplit("-", 1)[0], (0.0, 0.0))
        roofline = f"{ideal} / {likely} ms, {row.network / likely:.1f} times" if likely else ""
        cells = [row.model, f"{row.provider}{', graph' if row.cuda_graph else ''}", f"{row.load_s:.1f}"]
        cells += [f"{value:.2f}" for value in (row.step, row.p95, row.network, row.up, row.down)]
        cells += [f"{row.per_second:.0f}", f"{row.pipelined_per_second:.0f}", roofline]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table; 2 where there is nothing to measure on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--provider", default="all", choices=["all", *PROVIDERS], help="cpu tries out the script")
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--engine-cache", default="", metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    gpu = inspect_gpu()
    print(f"{gpu.name if gpu else 'no GPU'}, driver {driver_version() or 'none'}, ONNX Runtime {_version()}\n")
    rows: list[Row] = []
    try:
        chosen = ways(options.provider)
        for path in options.models:
            rows += [measure(path, name, graph, options.frames, options.engine_cache) for name, graph in chosen]
    except InstanceFlowError as error:
        print(f"speed.py: error: {error}", file=sys.stderr)
        return 2
    finally:
        if rows:
            print(table(rows))
    if options.json:
        report: dict[str, Any] = {"machine": machine(), "driver": driver_version(), "onnxruntime": _version()}
        write_json(options.json, report | {"rows": [asdict(row) for row in rows]}, indent=2)
    return 0


def _version() -> str:
    return str(import_onnxruntime().__version__)


if __name__ == "__main__":
    raise SystemExit(main())
