# SPDX-License-Identifier: Apache-2.0
"""A pipeline over a whole source, with its outputs, its progress bar and what there is to say about it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from time import perf_counter
from types import FrameType

from tqdm import tqdm

from instance_flow.outputs import Add
from instance_flow.pipeline import Pipeline
from instance_flow.run_statistics import Statistics
from instance_flow.structures import SourceError
from instance_flow.video import Frame, Source


def run(
    source: Source,
    pipeline: Pipeline,
    outputs: Sequence[AbstractContextManager[Add]],
    statistics: Statistics,
    *,
    max_frames: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Step through a source, give every frame to every output, and stop early where ``stopped`` says so.

    statistics: empty; filled as the run goes.
    The pipeline is warmed up with the size of the first frame, so that all frames are timed alike.
    Raises SourceError where a frame cannot be read or differs in size from the first; no output is written then.
    """
    total = source.length if max_frames is None else min(max_frames, source.length or max_frames)
    frames = _of_one_size(islice(source, max_frames), source.name)
    with ExitStack() as stack:
        adders = [stack.enter_context(output) for output in outputs]
        begun = perf_counter()
        for frame in stack.enter_context(tqdm(frames, source.name, total, unit="frame", disable=None)):
            if not statistics.frames:
                pipeline.warmup(frame.image.shape)
                begun = perf_counter()
            start = perf_counter()
            tracks = pipeline.step(frame.image, frame.stamp)
            statistics.add(tracks, perf_counter() - start)
            for add in adders:
                add(frame, tracks)
            statistics.elapsed = perf_counter() - begun
            if stopped():
                statistics.interrupted = True
                break


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
