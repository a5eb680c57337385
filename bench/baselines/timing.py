# SPDX-License-Identifier: Apache-2.0
"""Two ways of doing one thing, timed turn by turn, so that whatever else the machine does slows both alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, process_time

import torch

Row = dict[str, float]
"""ours, theirs: milliseconds per call.   ratio: theirs / ours."""
WALL, CPU = "wall time", "CPU time"

_LEAST_SECONDS = 0.002
_MOST_CALLS = 50


def measure(ours: Callable[[], object], theirs: Callable[[], object], repetitions: int) -> dict[str, Row]:
    """Give the rows of wall time and of CPU time (all threads of the process), by their names ``WALL`` and ``CPU``.

    Each is the median over turns in which first ours runs, then theirs. Both have run before, which compiles what is
    compiled at the first call. What keeps to one thread is told best by its CPU time: on an idle machine both are the
    same, and on a busy one it does not count the waiting.
    """
    calls = [_calls_per_turn(work) for work in (ours, theirs)]
    turns = [[_turn(work, n) for work, n in zip((ours, theirs), calls, strict=True)] for _ in range(repetitions)]
    return {
        clock: row(*(statistics.median(turn[side][place] for turn in turns) for side in (0, 1)))
        for place, clock in enumerate((WALL, CPU))
    }


def row(ours: float, theirs: float) -> Row:
    """Give the row of two times in seconds."""
    return {"ours": 1000 * ours, "theirs": 1000 * theirs, "ratio": theirs / ours}


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use that many threads, 0 = as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _calls_per_turn(work: Callable[[], object]) -> int:
    """How often to call what is over in microseconds: once alone would time the clock, and a cold cache."""
    work()
    seconds, _ = _turn(work, 1)
    return max(1, min(_MOST_CALLS, int(_LEAST_SECONDS / seconds)))


def _turn(work: Callable[[], object], calls: int) -> tuple[float, float]:
    """Give wall and CPU seconds per call."""
    wall, cpu = perf_counter(), process_time()
    for _ in range(calls):
        work()
    return (perf_counter() - wall) / calls, (process_time() - cpu) / calls
