# SPDX-License-Identifier: Apache-2.0
"""How long steps take, and how much of that they wait for data."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from instance_flow.doctor.machine import inspect_processor

T = TypeVar("T")

WAITING_LIMIT = 0.05
"""Share of a step; a step that waits longer for its data is starved."""


@dataclass(frozen=True)
class Timing:
    """Seconds that ``steps`` steps took, and how many of these they waited for data."""

    steps: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.steps + other.steps, self.seconds + other.seconds, self.waiting + other.waiting)

    @property
    def share(self) -> float:
        """Of the time that went by waiting, 0 .. 1."""
        return self.waiting / self.seconds if self.seconds else 0.0

    @property
    def per_step(self) -> float:
        """Seconds."""
        return self.seconds / max(self.steps, 1)


class StepClock:
    """Times steps and the waits for their data; the first step, in which workers start, is left out.

    On CUDA the host runs ahead, and its waiting does no harm while the device still works. There a wait is the time
    that the device stood idle, between two events on its own clock. They are read when the time is taken, not before:
    reading them makes the host wait for the device.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._waits: list[tuple[Any, Any]] = []
        self._timing = Timing()
        self._since: float | None = None

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, and how long the loop waited for them is noted."""
        source = iter(batches)
        while True:
            before = self._mark()
            batch = next(source, None)
            if batch is None:
                return
            if self._since is not None:
                self._waits.append((before, self._mark()))
            yield batch

    def done(self) -> None:
        """One more step is done."""
        if self._since is None:
            self._start()
        else:
            self._timing += Timing(1)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile, such as a validation, is no part of a step."""
        self._stop()
        yield
        self._start()

    def take(self) -> Timing:
        """The time since the last call."""
        if self._since is not None:
            self._stop()
            self._start()
        timing, self._timing = self._timing, Timing()
        return timing

    def _stop(self) -> None:
        if self._since is not None:
            self._wait_for_device()
            waited = sum(self._between(*moments) for moments in self._waits)
            self._timing += Timing(0, time.perf_counter() - self._since, waited)
        self._since, self._waits = None, []

    def _start(self) -> None:
        self._wait_for_device()
        self._since = time.perf_counter()

    def _mark(self) -> Any:
        """A moment: in seconds, or on CUDA an event."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, before: Any, after: Any) -> float:
        return before.elapsed_time(after) / 1000 if self._device.type == "cuda" else after - before

    def _wait_for_device(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def cores_per_process() -> int:
    """How many cores each of the training processes on this machine can count on."""
    processor = inspect_processor()
    cores = min(processor.cores, processor.quota or processor.cores)
    return max(1, int(cores) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def expected(compute: float, making: float, workers: int) -> Timing:
    """The timing of a step of ``compute`` seconds whose data take one core ``making`` seconds."""
    waiting = max(0.0, making / workers - compute) if workers else making
    return Timing(1, compute + waiting, waiting)


def workers_needed(timing: Timing, workers: int) -> int:
    """How many workers make the data while a step computes, judged by starved steps with ``workers`` of them."""
    # While steps wait, all workers are busy; without workers the loop itself is, as long as it waits.
    busy = workers or timing.share
    return max(1, math.ceil(busy * timing.seconds / max(timing.seconds - timing.waiting, 1e-9)))


def advice(timing: Timing, workers: int, cores: int) -> str:
    """One sentence where the steps are starved, else ""."""
    if timing.share <= WAITING_LIMIT:
        return ""
    needed = workers_needed(timing, workers)
    sentence = f"the step waits for data {timing.share:.0%} of its time; data.workers is {workers}, {needed} would do"
    if needed <= cores:
        return f"{sentence}: set data.workers={needed}"
    return f"{sentence}, but a process has {cores} core(s) here: take more cores or smaller images"
