# SPDX-License-Identifier: Apache-2.0
"""One process or many: device, precision, and each process's share of every batch (Lightning Fabric over torchrun)."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy, SingleDeviceStrategy
from torch.distributed import rendezvous
from torch.utils.data import Sampler

from instance_flow_training.config import ConfigError, TrainConfig

T = TypeVar("T")

PATIENCE = timedelta(hours=4)
"""How long processes wait for the first one, which validates alone."""


_FIRST = "instance_flow/from_first_process"


def from_first_process(make: Callable[[], T]) -> T:
    """What ``make`` returns in the first process, in all that torchrun started. To be called once, before ``start``.

    The others wait for it; where it raises an exception, torchrun ends them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return make()
    store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
    if rank == 0:
        made = make()
        store.set(_FIRST, pickle.dumps(made))
        return made
    store.set_timeout(PATIENCE)
    return cast(T, pickle.loads(store.get(_FIRST)))


class NetworkPrecision(MixedPrecision):
    """Autocast of the network alone. Fabric's own also rounds the inputs, and coordinates need more than 8 bits."""

    def convert_input(self, data: Any) -> Any:
        """As it is."""
        return data


class SharesOfBatches(Sampler[list[int]]):
    """Sample numbers of this process, one pass at a time: N processes together see what one would, in the same steps.

    A step's batch of consecutive samples is cut into ``accumulate`` passes, and each pass into one share per process.

    Args:
        steps: which steps to draw.   batch: samples per step over all processes.
    """

    def __init__(self, steps: range, batch: int, accumulate: int, rank: int, world_size: int):
        self.steps, self.batch, self.accumulate = steps, batch, accumulate
        self.rank, self.world_size = rank, world_size
        self.share = share_of_batch(batch, accumulate, world_size)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            for part in range(self.rank, self.accumulate * self.world_size, self.world_size):
                first = step * self.batch + part * self.share
                yield list(range(first, first + self.share))

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate


def share_of_batch(batch: int, accumulate: int, world_size: int) -> int:
    """Samples per process and pass. Raises ConfigError where the batch cannot be shared evenly."""
    if batch % (accumulate * world_size):
        raise ConfigError(
            f"batch is {batch}, which {world_size} process(es) times accumulate = {accumulate} do not share evenly; "
            f"set batch to a multiple of {accumulate * world_size}"
        )
    return batch // (accumulate * world_size)


def pick_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; it must be auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name!r}; it must be auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"device is {name!r}, but torch {torch.__version__} finds {count} CUDA devices here")
    return device


def precision_of(name: str, device: torch.device) -> Precision:
    """What Fabric runs the network in; its state (the loss scale of 16-mixed) belongs into a checkpoint."""
    return Precision() if name == "32" else NetworkPrecision(name, device.type)  # type: ignore[arg-type]


def start(config: TrainConfig) -> tuple[Fabric, Precision]:
    """Join the other processes that torchrun started, if it did. Raises ConfigError for a device that is not there."""
    device = pick_device(config.device)
    precision = precision_of(config.precision, device)
    world_size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    share_of_batch(config.batch, config.accumulate, world_size)
    if device.type == "cuda" and local > torch.cuda.device_count():
        raise ConfigError(f"torchrun started {local} processes here, but there are {torch.cuda.device_count()} GPUs")
    strategy: SingleDeviceStrategy | DDPStrategy
    if world_size == 1:
        strategy, devices = SingleDeviceStrategy(device), [device.index or 0] if device.type == "cuda" else 1
    else:
        strategy = DDPStrategy(cluster_environment=TorchElasticEnvironment(), timeout=PATIENCE)
        devices = local
    fabric = Fabric(
        accelerator=device.type,
        strategy=strategy,
        devices=devices,
        num_nodes=world_size // local,
        plugins=[precision],
    )
    fabric.launch()
    return fabric, precision
