# SPDX-License-Identifier: Apache-2.0
"""What a training run works with, on each of its processes: data, network, optimizer, and how far it has come."""

from __future__ import annotations

import dataclasses
import logging
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from torch import nn
from torch.utils.data import DataLoader

from instance_flow.formats.foreign_text import shown
from instance_flow.structures import ModelError
from instance_flow_training.config import ConfigError, TrainConfig
from instance_flow_training.datasets import TrainingData, collate, open_training_data
from instance_flow_training.loop.distributed import SharesOfBatches, start
from instance_flow_training.loop.step import TrainingStep
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.speed import make_optimizer, prepare
from instance_flow_training.validate import check_validation
from instance_flow_training.weights.checkpoint import load_checkpoint
from instance_flow_training.weights.initialise import build_network, initialise

log = logging.getLogger(__name__)


@dataclass
class TrainingRun:
    """network: bare, for checkpoints and validation.   module, optimizer: as Fabric wraps them.

    step: steps done, in ``seconds`` of training.
    best: metric, value and step of the best validation so far, or empty.
    missed: validations in a row since then.   validated_at: ``seconds`` at the last one.
    """

    config: TrainConfig
    fabric: Fabric
    precision: Precision
    data: TrainingData
    network: InstanceFlowNet
    module: Any
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    missed: int = 0
    validated_at: float = 0.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: enough to resume exactly, and to export.

        No random state: a sample depends on its number alone, and nothing in a step draws random numbers.
        """
        return {
            "step": self.step,
            "seconds": self.seconds,
            "missed": self.missed,
            "validated_at": self.validated_at,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "best": self.best,
            "config": dataclasses.asdict(self.config),
            "class_names": list(self.data.class_names),
        }

    def shares(self, last: int) -> SharesOfBatches:
        """This process's sample numbers for the steps from ``step`` to ``last``, one pass at a time."""
        config, fabric = self.config, self.fabric
        steps = range(self.step, last)
        return SharesOfBatches(steps, config.batch, config.accumulate, fabric.global_rank, fabric.world_size)

    def passes(self, last: int) -> DataLoader[Any]:
        """The same samples, collated."""
        workers = self.config.data.workers
        # Here and not in the workers: one that is forked with OpenCV's threads would wait for them for ever.
        cv2.setNumThreads(1)
        return DataLoader(
            self.data,
            batch_sampler=self.shares(last),
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.fabric.device.type == "cuda",
            prefetch_factor=self.config.data.prefetch if workers else None,
            worker_init_fn=_leave_interrupts_to_the_loop,
        )


def _leave_interrupts_to_the_loop(_: int) -> None:
    """A terminal sends Ctrl-C to the workers too; the loop still waits for what they are making."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def open_run(config: TrainConfig, checkpoint: Path | None) -> TrainingRun:
    """Begin, or resume from ``checkpoint`` if that file exists.

    Raises ConfigError or InstanceFlowError where a setting, a data set or a file is not what it should be.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    fabric, precision = start(config)
    prepare(fabric.device, config.speed)
    try:
        data = open_training_data(config.data, config.steps * config.batch, config.batch)
        check_validation(config.validation, data.class_names)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    network = build_network(config, len(data.class_names))
    check_parts(network, config)
    if fabric.world_size > 1 and config.sync_batch_norm and not config.freeze_batch_norm:
        if fabric.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        else:
            log.info("no synchronised batch norm on CPUs: every process takes the statistics of its own share")
    network = network.to(fabric.device, memory_format=config.speed.memory_format)  # type: ignore[call-overload]
    step = TrainingStep(network, config, data.class_names)
    optimizer = make_optimizer(network, config.learning_rate, config.rates, config.speed)
    run = TrainingRun(config, fabric, precision, data, network, step, optimizer)
    # The first process reads and tells the others: a checkpoint lies on its machine alone.
    state = load_checkpoint(checkpoint) if fabric.is_global_zero and checkpoint and checkpoint.exists() else None
    state = fabric.broadcast(state)
    if state is None:
        initialise(network, data.class_names, config.init)
    else:
        resume(run, state, str(checkpoint))
    run.module, run.optimizer = fabric.setup(step, optimizer, move_to_device=False)
    return run


def check_parts(network: InstanceFlowNet, config: TrainConfig) -> None:
    """Raises ConfigError where a setting names a part that the network has not."""
    names = {name for name, _ in network.named_modules()} | {name for name, _ in network.named_parameters()}
    for setting in ("frozen", "frozen_norms", "rates"):
        for name in getattr(config, setting):
            if name not in names:
                raise ConfigError(
                    f"{setting} names {name!r}, which this network has not; its parts are "
                    f"{', '.join(part for part, _ in network.named_children())}, and theirs, as backbone.features.0"
                )


def resume(run: TrainingRun, state: dict[str, Any], source: str) -> None:
    """Take up a checkpoint's state. Raises ConfigError where it belongs to another network or other classes."""
    hint = f"give another --out, or begin a new run from it with --set init.checkpoint={source}"
    theirs, ours = list(state["class_names"]), list(run.data.class_names)
    if theirs != ours:
        of_theirs, of_ours = (", ".join(map(shown, names[:3])) for names in (theirs, ours))
        raise ConfigError(
            f"{source} was trained with {len(theirs)} classes ({of_theirs}, ...), the data here have {len(ours)} "
            f"({of_ours}, ...); {hint}"
        )
    try:
        for group in state["optimizer"]["param_groups"]:
            # How Adam is computed is a setting of this run, which the file must not bring along.
            group["fused"] = run.optimizer.defaults["fused"]
        run.network.load_state_dict(state["network"])
        run.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(f"{source} holds a network of another shape than this [model]: {reason}; {hint}") from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {shown(error)}"
        raise ModelError(f"{source}: damaged: its optimizer cannot be read ({reason}); {hint}") from error
    run.precision.load_state_dict(state.get("precision", {}))
    run.step, run.seconds, run.missed = state["step"], state.get("seconds", 0.0), state.get("missed", 0)
    run.validated_at = state.get("validated_at", 0.0)
    best = state.get("best", {})
    run.best = best if best.get("metric") == run.config.validation.keep else {}
    log.info(f"resuming from {source} at step {run.step}")
