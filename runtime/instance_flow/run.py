# SPDX-License-Identifier: Apache-2.0
"""A pipeline over a whole source, with its outputs, its progress bar and what there is to say about it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from types import FrameType

import numpy as np
from tqdm import tqdm

from instance_flow.outputs import Add
from instance_flow.pipeline import Pipeline
from instance_flow.structures import SourceError
from instance_flow.video import Frame, Source


@dataclass
class Statistics:
    """What a run did: its frames, rows of tracks (objects), ids, and the seconds that each step took."""

    frames: int = 0
    objects: int = 0
    ids: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False

    def latency_ms(self, percentile: float) -> float:
        """Milliseconds from image to tracks that so many per cent of the frames stay below."""
        return float(np.percentile(self.seconds, percentile)) * 1e3


def run(
    source: Source,
    pipeline: Pipeline,
    outputs: Sequence[AbstractContextManager[Add]],
    *,
    max_frames: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Statistics:
    """Step through a source, give every frame to every output, and stop early where ``stopped`` says so.

    The pipeline is warmed up with the size of the first frame, so that all frames are timed alike.
    Raises SourceError where a frame cannot be read or differs in size from the first; no output is written then.
    """
    statistics = Statistics()
    total = source.length if max_frames is None else min(max_frames, source.length or max_frames)
    frames = _of_one_size(islice(source, max_frames), source.name)
    with ExitStack() as stack:
        adders = [stack.enter_context(output) for output in outputs]
        for frame in stack.enter_context(tqdm(frames, source.name, total, unit="frame", disable=None)):
            if not statistics.frames:
                pipeline.warmup(frame.image.shape)
            start = perf_counter()
            tracks = pipeline.step(frame.image, frame.stamp)
            statistics.seconds.append(perf_counter() - start)
            for add in adders:
                add(frame, tracks)
            statistics.frames += 1
            statistics.objects += len(tracks)
            statistics.ids.update(tracks.ids.tolist())
            if stopped():
                statistics.interrupted = True
                break
    return statistics


@contextmanager
def stop_at_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that can be asked between frames; the second one is the usual exception."""
    pressed = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _of_one_size(frames: Iterator[Frame], name: str) -> Iterator[Frame]:
    first: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        shape = frame.image.shape[:2]
        first = first or shape
        if shape != first:
            raise SourceError(
                f"{name}: frame {number} {f'({frame.name}) ' if frame.name else ''}is {shape[1]} x {shape[0]}, but the "
                f"frames before it are {first[1]} x {first[0]}; run each size by itself"
            )
        yield frame
