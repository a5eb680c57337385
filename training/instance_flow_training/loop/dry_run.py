# SPDX-License-Identifier: Apache-2.0
"""``instance-flow-train CONFIG --dry-run``: what a run will take, before anyone rents GPUs for it. Writes nothing."""

from __future__ import annotations

import itertools
import math
import resource
import time
from collections.abc import Iterable

import torch
from torch import Tensor

from instance_flow_training.config import TrainConfig
from instance_flow_training.datasets import collate
from instance_flow_training.loop.step import forward_maps, update
from instance_flow_training.loop.step_clock import cores_per_process, expected
from instance_flow_training.loop.training_run import TrainingRun, open_run
from instance_flow_training.losses import BatchTargets


def dry_run(config: TrainConfig) -> str:
    """Open everything, take two steps, and say in a few lines what was found; "" on all processes but the first."""
    run = open_run(config, None)
    shares = run.shares(config.steps)
    # Untimed: the first clip of a process takes longer.
    run.data[next(iter(shares))[0]]
    began = time.perf_counter()
    passes = [collate([run.data[i] for i in share]) for share in itertools.islice(shares, config.accumulate)]
    per_clip = (time.perf_counter() - began) / (len(passes) * shares.share)
    first, later = (_timed_step(run, passes) for _ in range(2))
    if not run.fabric.is_global_zero:
        return ""
    images, targets = passes[0]
    names, trained = run.data.class_names, [p for p in run.network.parameters() if p.requires_grad]
    making, workers = per_clip * shares.share * len(passes), config.data.workers
    return "\n".join(
        [
            f"processes  {run.fabric.world_size} on {run.fabric.device}, precision {config.precision}, "
            f"{config.accumulate} pass(es) of {shares.share} clips per process and step",
            f"classes    {len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
            f"batch      images {tuple(images.shape)}, up to {targets.centers.shape[1]} objects in a frame",
            f"maps       {_shapes(run, images[: config.data.frames_per_clip])}",
            f"network    {_millions(run.network.parameters())} parameters, {_millions(trained)} of them trained",
            f"memory     {peak_memory(run.fabric.device) / 2**30:.1f} GiB at most in this process",
            f"time       {later:.2f} s/step (the first took {first:.2f} s): {config.steps:,} steps in "
            f"{config.steps * later / 3600:.1f} h, if data are there in time{_by_the_clock(config, later)}",
            f"data       {per_clip:.3f} s per clip on one core: data.workers={max(1, math.ceil(making / later))} keep "
            f"up with a process, which has {cores_per_process()} core(s) here; with the {workers} of the configuration "
            f"it waits for data {expected(later, making, workers).share:.0%} of its time",
        ]
    )


def _by_the_clock(config: TrainConfig, seconds: float) -> str:
    """How far steps of so many seconds come in the time that the run has, where that ends it."""
    if not config.minutes or config.steps * seconds <= 60 * config.minutes:
        return ""
    steps = int(60 * config.minutes / seconds)
    return f"; it ends after {config.minutes:g} minutes, some {steps:,} steps of {config.batch} clips"


def _timed_step(run: TrainingRun, passes: list[tuple[Tensor, BatchTargets]]) -> float:
    began = time.perf_counter()
    update(run.fabric, run.module, run.optimizer, passes, run.config)["total"].item()
    return time.perf_counter() - began


@torch.no_grad()
def _shapes(run: TrainingRun, clip: Tensor) -> str:
    maps = forward_maps(run.network, clip.to(run.fabric.device), run.config.data.frames_per_clip)
    shapes = {**maps.intra._asdict(), "reference_offset": maps.reference_offset}
    return "one clip: " + ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in shapes.items())


def _millions(parameters: Iterable[Tensor]) -> str:
    return f"{sum(p.numel() for p in parameters) / 1e6:.2f} M"


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's memory where there is one, else of this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
