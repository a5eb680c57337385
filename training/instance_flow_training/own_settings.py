# SPDX-License-Identifier: Apache-2.0
"""What ``instance-flow-train --data`` chooses by the number of pictures, the time, and the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from instance_flow.doctor.machine import inspect_processor

_FRAMES = 2
"""Of a clip."""
_MOST_CLIPS = 32
"""In a step over all GPUs, as in the paper."""
_BYTES_PER_PIXEL = {True: 1000, False: 3000}
"""Of what a step keeps for its backward pass, by the pixels of all frames: with frozen parts, as of the bundled weights
(on a CPU 760 were measured), and without."""
_OF_GPU = 0.7
"""Share of a GPU's memory that may be planned with; convolutions want room to work in."""
_LEAST_STEPS, _PASSES = 2_000, 1_000
"""A run ends after so many steps, or when it has seen each picture so often, whichever is more; mostly its time is up
before."""
_VALIDATIONS, _PATIENCE = 8, 4
_LEAST_FRAMES, _LEAST_VIDEOS = 20, 4
"""To validate on, where there are so many."""


@dataclass(frozen=True)
class Machine:
    """cores: for each process.   gpu_memory: bytes of each one's GPU, 0 = there is none.   processes: of the run."""

    cores: int
    gpu_memory: int = 0
    processes: int = 1


def this_machine() -> Machine:
    """The machine of this process, and how torchrun shares it out."""
    processor = inspect_processor()
    cores = int(min(processor.cores, processor.quota or processor.cores))
    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    processes, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return Machine(max(1, cores // local), memory, processes)


def chosen(
    pictures: int, held: Sequence[int], minutes: float, size: tuple[int, int], machine: Machine, frozen: bool = True
) -> dict[str, Any]:
    """Differences from the default settings, by their keys.

    pictures: pictures and videos to train on.   held: frames of each one to validate on.   minutes: for the training.
    size: (height, width) of the input that the model is for.   frozen: parts of the network are not trained.
    """
    on_gpu = machine.gpu_memory > 0
    # What the input shows of a picture is cut a little smaller on a CPU, at about the scale that it is seen at.
    crop = [max(96, round(side * (1.0 if on_gpu else 0.65) / 32) * 32) for side in size]
    batch = _batch(crop, machine, frozen)
    # A validation takes about a tenth of the time between two.
    frames = max(_LEAST_FRAMES, minutes * (30 if on_gpu else 3))
    mean = sum(held) / max(1, len(held))
    return {
        "steps": max(_LEAST_STEPS, _PASSES * pictures // batch),
        "minutes": minutes,
        "batch": batch,
        "data": {
            "crop": crop,
            "frames_per_clip": _FRAMES,
            "workers": max(1, min(8, machine.cores - 1) if on_gpu else min(4, machine.cores // 2)),
        },
        "validation": {
            "minutes": minutes / _VALIDATIONS,
            "patience": _PATIENCE,
            "limit": min(len(held), max(_LEAST_VIDEOS, round(frames / max(1.0, mean)))),
        },
    }


def in_words(settings: Mapping[str, Any], pictures: int) -> str:
    """What was chosen, in a sentence for the log."""
    height, width = settings["data"]["crop"]
    validation = settings["validation"]
    seen = settings["steps"] * settings["batch"] / pictures
    return (
        f"chosen for {pictures} pictures or videos and this machine: {settings['batch']} clips of {width}x{height} a "
        f"step, at most {settings['steps']:,} steps (each picture {seen:,.0f} times) in {settings['minutes']:g} "
        f"minutes, a validation on {validation['limit']} every {validation['minutes']:.3g} minutes; --set changes each"
    )


def _batch(crop: Sequence[int], machine: Machine, frozen: bool) -> int:
    """Clips of a step over all processes, as many for each."""
    if not machine.gpu_memory:
        return max(1, 4 // machine.processes) * machine.processes
    clip = _FRAMES * crop[0] * crop[1] * _BYTES_PER_PIXEL[frozen]
    most = min(16, max(1, _MOST_CLIPS // machine.processes))
    fitting = (n for n in (16, 8, 4, 2) if n <= most and n * clip <= _OF_GPU * machine.gpu_memory)
    return next(fitting, 1) * machine.processes
