# SPDX-License-Identifier: Apache-2.0
"""The training loop: train, log, validate, save; started again, it resumes from the last checkpoint.

The same samples make up the same steps on any number of processes.
"""

from __future__ import annotations

import math
import os
import signal
import tempfile
import threading
import time
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instance_flow.structures import InstanceFlowError
from instance_flow_training.config import ConfigError, TrainConfig
from instance_flow_training.loop.pictures import training_panels
from instance_flow_training.loop.step import first_clip, forward_losses, forward_maps, update
from instance_flow_training.loop.step_clock import StepClock, Timing
from instance_flow_training.loop.training_log import TrainingLog
from instance_flow_training.loop.training_run import TrainingRun, open_run
from instance_flow_training.losses import BatchTargets
from instance_flow_training.validate import validate
from instance_flow_training.weights.checkpoint import BEST, CHECKPOINT, load_checkpoint, save_checkpoint
from instance_flow_training.weights.initialise import build_network

__all__ = ["build_network", "forward_losses", "learning_rate", "train"]


def learning_rate(config: TrainConfig, step: int, seconds: float = 0.0) -> float:
    """Poly decay (section IV-A) after a short linear warm-up; ``seconds``: of training so far."""
    left = 1 - share_done(config, step, seconds)
    return config.learning_rate * min(1.0, (step + 1) / config.warmup) * left**config.poly_power


def share_done(config: TrainConfig, step: int, seconds: float) -> float:
    """Of the run, by its steps or its time, whichever is nearer its end."""
    return max(step / config.steps, min(1.0, seconds / (60 * config.minutes)) if config.minutes else 0.0)


def train(config: TrainConfig, out: Path) -> Path:
    """Train to ``config.steps``; returns the last checkpoint's path.

    A checkpoint in ``out`` is resumed from its step, exactly; steps that were taken after it was saved are taken again.
    The checkpoint that validated best is ``best.pt`` beside it. Raises ConfigError or InstanceFlowError.
    """
    if is_first_process():
        check_writable(out)
    run = open_run(config, out / CHECKPOINT)
    folder = out / "tensorboard" if run.fabric.is_global_zero else None
    # Several processes are ended by torchrun, and not all at the same step.
    listening = StopRequest() if run.fabric.world_size == 1 else nullcontext(StopRequest())
    with (
        closing(TrainingLog(folder, run.step, config.steps, config.batch, config.data.workers)) as log,
        listening as stop,
    ):
        train_steps(run, log, out, stop)
    return out / CHECKPOINT


class Stopped(Exception):
    """The run was asked to stop, and has saved its checkpoint."""


class StopRequest:
    """SIGINT and SIGTERM, once: ``asked`` for the loop to see after its step. The second one does as it always does."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: Any) -> None:
        self.asked = True
        signal.signal(number, self._before[number])


def train_steps(run: TrainingRun, log: TrainingLog, out: Path, stop: StopRequest) -> None:
    """The loop, the same on every process; the first one also speaks, validates and saves while the others wait."""
    config, first = run.config, run.fabric.is_global_zero
    last = run.step if is_over(run) else config.stop_at or config.steps
    alone = run.fabric.world_size == 1
    saved_at = time.monotonic()
    started = saved_at - run.seconds
    clock = StepClock(run.fabric.device)
    batches = clock.waiting(run.passes(last))
    for step in range(run.step, last):
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(config, step, run.seconds) * group["scale"]
        passes = list(islice(batches, config.accumulate))
        terms = update(run.fabric, run.module, run.optimizer, passes, config)
        run.step = done = step + 1
        clock.done()
        run.seconds = shared_seconds(run, time.monotonic() - started)
        last = done if is_over(run) else last
        log.count_step(share_done(config, done, run.seconds))
        logs, pictures = _due(config.log_every, done), _due(config.pictures_every, done)
        validates = _due(config.validation.every, done, last) or is_time_to_validate(run, done == last)
        # By the clock and on a signal only where no other process would have to do the same at the same step.
        ending = alone and stop.asked
        late = alone and config.save_minutes and time.monotonic() - saved_at > 60 * config.save_minutes
        saves = _due(config.save_every, done, last) or bool(late) or ending
        if logs or validates or saves:
            # Before a checkpoint too: a broken network must not take the place of a sound one.
            means = mean_over_processes(run, terms)
        if logs:
            log.losses(means, learning_rate(config, step, run.seconds), done)
            log.speed(slowest_process(run, clock.take()), done)
        if pictures or validates or saves:
            with clock.paused():
                if first and pictures:
                    log.picture("maps", picture(run, *passes[0]), done)
                if first and validates:
                    validate_and_keep_best(run, log, out / BEST)
                if validates:
                    run.validated_at = run.seconds
                run.missed = run.fabric.broadcast(run.missed)
                last = done if is_over(run) else last
                if first and (saves or done == last):
                    save_checkpoint(out / CHECKPOINT, run.state())
                    saved_at = time.monotonic()
                run.fabric.barrier()
                run.module.train()
        if done == last:
            break
        if ending:
            raise Stopped(f"stopped at step {done}; saved {out / 'checkpoint.pt'}: the same command resumes there")
    log.speed(slowest_process(run, clock.take()), run.step)


def is_over(run: TrainingRun) -> bool:
    """Before its steps are done: its time is up, or validations have long not been better."""
    config = run.config
    too_long = config.minutes and run.seconds >= 60 * config.minutes
    return bool(too_long or (config.validation.patience and run.missed >= config.validation.patience))


def is_time_to_validate(run: TrainingRun, last: bool) -> bool:
    """By the clock."""
    minutes = run.config.validation.minutes
    return minutes > 0 and (last or run.seconds - run.validated_at >= 60 * minutes)


def shared_seconds(run: TrainingRun, seconds: float) -> float:
    """The first process's time on all of them, since their learning rates must be equal."""
    counts = run.config.minutes or run.config.validation.minutes
    return float(run.fabric.broadcast(seconds)) if counts and run.fabric.world_size > 1 else seconds


def _due(every: int, done: int, last: int = 0) -> bool:
    """Is it time, after so many steps? 0 = never."""
    return every > 0 and (done % every == 0 or done == last)


def mean_over_processes(run: TrainingRun, terms: dict[str, Tensor]) -> dict[str, float]:
    """The loss terms as numbers, the same on every process. Raises InstanceFlowError where the loss is not finite."""
    values = run.fabric.all_reduce(torch.stack(list(terms.values())), reduce_op="mean")
    means = dict(zip(terms, values.tolist(), strict=True))  # type: ignore[union-attr]
    if not math.isfinite(means["total"]):
        raise InstanceFlowError(
            f"the loss is {means['total']} at step {run.step}; resume from the last checkpoint with a lower "
            "learning_rate or clip_gradient, or with precision = '32'"
        )
    return means


def slowest_process(run: TrainingRun, timing: Timing) -> Timing:
    """The longest time and the longest wait of all processes: where one waits for data, all wait for it."""
    own = torch.tensor([timing.seconds, timing.waiting], dtype=torch.float64, device=run.fabric.device)
    seconds, waiting = run.fabric.all_reduce(own, reduce_op="max").tolist()  # type: ignore[union-attr]
    return Timing(timing.steps, seconds, waiting)


def picture(run: TrainingRun, images: Tensor, targets: BatchTargets) -> NDArray[np.uint8]:
    """The maps of a batch's first clip beside their targets; leaves the network in evaluation mode."""
    run.network.eval()
    images, targets = first_clip(images, targets, run.config.data.frames_per_clip, run.fabric.device)
    with torch.no_grad():
        maps = forward_maps(run.network, images, run.config.data.frames_per_clip)
    return training_panels(
        *(images, maps.intra, maps.reference_offset, targets, maps.target, maps.reference, run.data.class_names)
    )


def validate_and_keep_best(run: TrainingRun, log: TrainingLog, best: Path) -> None:
    """Score the network and save it where none was better; leaves it in evaluation mode."""
    scores = validate(run.network, run.config.validation, run.data.class_names, run.config.defaults)
    metric = run.config.validation.keep
    log.validation(scores, metric, run.step, run.best.get("value", -1.0))
    run.missed += 1
    if scores[metric] > run.best.get("value", -1.0):
        run.missed = 0
        run.best = {"metric": metric, "value": scores[metric], "step": run.step}
        save_checkpoint(best, run.state())


def check_writable(out: Path) -> None:
    """Raises ConfigError where no checkpoint could be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written ({error.strerror}); give another folder") from error


def report_of(checkpoint: Path) -> str:
    """The last line of a run: what there is, and what to do with it; "" on all processes but the first."""
    if not is_first_process():
        return ""
    state = load_checkpoint(checkpoint)
    best, exported, best_note = state.get("best"), checkpoint, ""
    if best:
        exported = checkpoint.with_name(BEST)
        best_note = f" best {best['metric']} {best['value']:.3f} at step {best['step']};"
    return f"trained {state['step']} steps;{best_note} export with: instance-flow-export {exported} model.onnx"


def is_first_process() -> bool:
    """Whether this process is the one that speaks, by torchrun's environment."""
    return os.environ.get("RANK", "0") == "0"
