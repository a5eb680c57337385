# SPDX-License-Identifier: Apache-2.0
"""How fast a step is on this device, and nothing of what it learns: memory, layout of maps, kernels, Adam's own way."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from instance_flow.declare import check, setting

_NEVER_TRIM, _MAPPED_PIECES = (-1, -1), (-4, 0)
"""Parameter and value of glibc's mallopt: M_TRIM_THRESHOLD, M_MMAP_MAX."""


@dataclass(frozen=True)
class SpeedConfig:
    """Each changes at most the last digits of a step, not what is learnt; figures in docs/training.md."""

    channels_last: bool = setting(
        True, "keep the channels of a pixel side by side in memory, as the kernels of CPUs and tensor cores want it"
    )
    keep_memory: bool = setting(
        True,
        "on the CPU, hold on to the memory of a step for the next one. Without it the system takes it back and gives "
        "it anew, page by page, hundreds of thousands of times a step",
    )
    fused_adam: bool = setting(False, "Adam in one kernel for all weights; not with 16-mixed")
    cudnn_benchmark: bool = setting(
        True, "on CUDA, let cuDNN try its ways of each convolution at the first step of a size"
    )
    tf32: bool = setting(
        False,
        "on CUDA, products of matrices (the attention) with 10 bits behind the point, as convolutions have in any case",
    )

    def __post_init__(self) -> None:
        check(self, "speed.")

    @property
    def memory_format(self) -> torch.memory_format:
        """Of weights and maps."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def prepare(device: torch.device, config: SpeedConfig) -> None:
    """Set what belongs to the whole process, before the first step. Nothing here touches the numbers of a CPU."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = config.cudnn_benchmark
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    elif config.keep_memory:
        keep_freed_memory()


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory in this process, and in those forked from it; False where it cannot.

    Only glibc can. Memory does not grow beyond the largest step's, as the next step asks for the same again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    done = [mallopt(*option) for option in (_NEVER_TRIM, _MAPPED_PIECES)]
    return all(done)


def make_optimizer(
    network: nn.Module, learning_rate: float, rates: Mapping[str, float], config: SpeedConfig
) -> torch.optim.Adam:
    """Adam of all that is trained; fused=None is torch's choice, which on a CPU goes through the weights one by one.

    rates: of parts by their names, as shares of ``learning_rate``; ``scale`` of the optimizer's groups.
    """
    by_length = sorted(rates.items(), key=lambda item: -len(item[0]))
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = next((rate for part, rate in by_length if f"{name}.".startswith(f"{part}.")), 1.0)
            groups.setdefault(rate, []).append(parameter)
    return torch.optim.Adam(
        [{"params": members, "lr": learning_rate * scale, "scale": scale} for scale, members in groups.items()],
        lr=learning_rate,
        fused=True if config.fused_adam else None,
    )
