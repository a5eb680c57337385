# SPDX-License-Identifier: Apache-2.0
"""What does a training step take, how much of that does it wait for data, and which settings help?

    python bench/training_speed.py                          # the CPU, and CUDA where there is one; minutes
    python bench/training_speed.py --json FILE --steps 10   # writes the numbers too
    python bench/training_speed.py --tables data --device cpu

Three tables. "step": the step alone, on one batch that is there already, with one setting changed at a time. "loop":
the training's own loop with its data loader; no more than one pass per worker is made ahead, so a few steps show
whether data come in time. "data": how many clips one core makes, and how many workers that means for a GPU that takes
100 clips per second. Figures are of a few steps after the first, every row in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from evaluator import in_new_process

from instance_flow.benchmark.machine import machine
from instance_flow.formats.json_files import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "training" / "configs"
Row = dict[str, str | float | int]
TABLES = ("step", "loop", "data")


@dataclass(frozen=True)
class Case:
    """A network and its images; settings as for ``instance-flow-train --set``."""

    name: str
    config: str
    settings: tuple[str, ...]


def small(height: int, width: int, batch: int) -> Case:
    """The bundled model."""
    settings = (f"data.sizes=[[{height},{width}]]", f"batch={batch}")
    return Case(f"small {height}x{width}, {batch} clips of 3", "worlds.toml", settings)


def paper(side: int, batch: int) -> Case:
    """The paper's ResNet-50 on square crops, here of synthetic worlds."""
    from_nothing = ("data.source=worlds", "init.checkpoint=", "init.inter_from_intra=false")
    settings = (*from_nothing, f"data.sizes=[[{side},{side}]]", f"batch={batch}")
    return Case(f"R50 {side}x{side}, {batch} clips of 2", "youtube_vis_2019.toml", settings)


CASES = {
    "cpu": (small(96, 160, 4), small(192, 320, 4), paper(128, 2)),
    "cuda": (small(192, 320, 4), small(192, 320, 32), paper(640, 4)),
}
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {
        "as it is": (),
        "channels first": ("speed.channels_last=false",),
        "memory given back": ("speed.keep_memory=false",),
        "fused Adam": ("speed.fused_adam=true",),
        "bf16": ("precision=bf16-mixed",),
        "bf16, channels first": ("precision=bf16-mixed", "speed.channels_last=false"),
    },
    "cuda": {
        "as it is": (),
        "channels first": ("speed.channels_last=false",),
        "no cuDNN benchmark": ("speed.cudnn_benchmark=false",),
        "TF32 products": ("speed.tf32=true",),
        "fused Adam": ("speed.fused_adam=true",),
        "bf16": ("precision=bf16-mixed",),
        "bf16, channels first": ("precision=bf16-mixed", "speed.channels_last=false"),
        "bf16, fused Adam": ("precision=bf16-mixed", "speed.fused_adam=true"),
        "fp16": ("precision=16-mixed",),
    },
}
LOOPS: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"32": ()},
    "cuda": {"32": (), "bf16": ("precision=bf16-mixed",)},
}
WORKERS = (0, 1, 2)


def time_step(config: Any, steps: int) -> Row:
    """Seconds of the step alone, of the wall and of the CPU, and the most memory, of the GPU or of the process."""
    import cv2

    from instance_flow_training.datasets import collate
    from instance_flow_training.loop.dry_run import peak_memory
    from instance_flow_training.loop.step import update
    from instance_flow_training.loop.training_run import open_run

    run = open_run(config, None)
    cv2.setNumThreads(1)
    passes = [collate([run.data[i] for i in range(config.batch)])]
    wall, cpu = [], []
    for _ in range(steps + 2):
        began, cpu_began = time.perf_counter(), time.process_time()
        update(run.fabric, run.module, run.optimizer, passes, config)["total"].item()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    # The first two choose kernels and fill the memory.
    seconds = statistics.median(wall[2:])
    return {
        "s/step": seconds,
        "CPU s/step": statistics.median(cpu[2:]),
        "clips/s": config.batch / seconds,
        "GiB": peak_memory(run.fabric.device) / 2**30,
    }


def time_loop(config: Any, steps: int) -> Row:
    """Seconds of a step with its data, and the share of them spent waiting."""
    from instance_flow_training.loop.step import update
    from instance_flow_training.loop.step_clock import StepClock
    from instance_flow_training.loop.training_run import open_run

    run = open_run(config, None)
    clock = StepClock(run.fabric.device)
    for batch in clock.waiting(run.passes(steps + 1)):
        update(run.fabric, run.module, run.optimizer, [batch], config)
        clock.done()
    timing = clock.take()
    return {
        "s/step": timing.per_step,
        "waiting": f"{timing.share:.1%}",
        "clips/s": config.batch / timing.per_step,
    }


def time_data(config: Any, clips: int) -> Row:
    """Clips per second of one core's CPU time, so that other load does not count; from memory, without disk waits."""
    import cv2

    from instance_flow_training.datasets import collate, open_training_data

    cv2.setNumThreads(1)
    data = open_training_data(config.data, clips + 2, 1)
    collate([data[0], data[1]])
    began = time.process_time()
    collate([data[i] for i in range(2, clips + 2)])
    rate = clips / (time.process_time() - began)
    return {"clips/s per worker": rate, "workers for 100 clips/s": math.ceil(100 / rate)}


def measured(what: str, config: str, settings: Sequence[str], count: int) -> Row:
    """Run ``time_...`` of that name in this process."""
    from instance_flow_training.config import load_config

    ways = {"step": time_step, "loop": time_loop, "data": time_data}
    return ways[what](load_config(CONFIGS / config, list(settings)), count)


def step_rows(device: str, common: Sequence[str], steps: int) -> Iterator[Row]:
    """Every case with every variant, and the ratio of its time to the case's first."""
    for case in CASES[device]:
        first: float | None = None
        for name, changes in VARIANTS[device].items():
            row = in_new_process(measured, "step", case.config, (*case.settings, *common, *changes), steps)
            first = first or row["s/step"]
            yield {"device": device, "case": case.name, "variant": name, **row, "ratio": row["s/step"] / first}


def loop_rows(device: str, common: Sequence[str], steps: int) -> Iterator[Row]:
    """Every case with 0, 1 and 2 workers, on CUDA in both precisions."""
    for case in CASES[device]:
        for precision, changes in LOOPS[device].items():
            for workers in WORKERS:
                settings = (*case.settings, *common, *changes, f"data.workers={workers}", "data.prefetch=1")
                row = in_new_process(measured, "loop", case.config, settings, steps)
                yield {"device": device, "case": case.name, "precision": precision, "workers": workers, **row}


def data_rows(clips: int) -> Iterator[Row]:
    """Synthetic worlds as the bundled model sees them, and the paper's crops from pictures of 1280x720 on disk."""
    with tempfile.TemporaryDirectory() as folder:
        in_new_process(write_set, folder)
        on_disk = ("data.source=youtube_vis", f"data.annotations={folder}")
        kinds: dict[str, tuple[str, tuple[str, ...]]] = {
            "worlds 96x160, 3 frames": ("worlds.toml", ("data.sizes=[[96,160]]",)),
            "worlds 192x320, 3 frames": ("worlds.toml", ("data.sizes=[[192,320]]",)),
            "YouTube-VIS's form, JPEG 720x1280, crop 640x640, 2 frames": ("youtube_vis_2019.toml", on_disk),
        }
        for name, (config, settings) in kinds.items():
            yield {"data": name, **in_new_process(measured, "data", config, settings, clips)}


def write_set(folder: str) -> None:
    """Two synthetic clips of 1280x720 in YouTube-VIS's layout, as JPEG like the real ones."""
    import cv2

    from instance_flow_training.worlds.synthetic import WorldConfig, generate_clip
    from instance_flow_training.worlds.world_files import write_ytvis

    write_ytvis([generate_clip(k, "mixed", WorldConfig(size=(720, 1280), frames=8)) for k in range(2)], folder)
    for picture in Path(folder).glob("JPEGImages/*/*.png"):
        image = cv2.imread(str(picture))
        if image is None:
            raise RuntimeError(f"{picture} cannot be read")
        cv2.imwrite(str(picture.with_suffix(".jpg")), image)
    truth = Path(folder) / "instances.json"
    truth.write_text(truth.read_text().replace(".png", ".jpg"))


def show(title: str, rows: Iterator[Row]) -> list[Row]:
    """Print a table in Markdown, row by row as they come."""
    print(f"\n{title}\n", flush=True)
    kept: list[Row] = []
    for row in rows:
        if not kept:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        print("| " + " | ".join(_text(value) for value in row.values()) + " |", flush=True)
        kept.append(row)
    return kept


def _text(value: str | float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="only this one (default: all that are there)")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="which tables (default: all)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per row (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=24, help="timed clips per kind of data (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of the step on the CPU (default: torch's choice)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    if min(options.steps, options.clips) < 1:
        parser.error("--steps and --clips must be at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device is cuda, but torch {torch.__version__} finds no CUDA device here")
    there = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    about = {**machine(), "torch": torch.__version__, "threads": options.threads or torch.get_num_threads()}
    report: dict[str, Any] = {"machine": about}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for device in there:
        common = (f"device={device}", f"threads={options.threads}")
        if "step" in options.tables:
            report[f"step {device}"] = show(f"The step alone ({device})", step_rows(device, common, options.steps))
        if "loop" in options.tables:
            report[f"loop {device}"] = show(f"With its data ({device})", loop_rows(device, common, options.steps))
    if "data" in options.tables:
        report["data"] = show("Data alone", data_rows(options.clips))
    if options.json:
        write_json(options.json, report, indent=1)


if __name__ == "__main__":
    main()
