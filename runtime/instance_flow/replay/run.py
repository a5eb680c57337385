# SPDX-License-Identifier: Apache-2.0
"""Streams over a whole source, with their outputs, the progress bar and warnings."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from time import perf_counter
from types import FrameType

from tqdm import tqdm

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.video import Frame, Source
from instance_flow.pipeline import Pipeline
from instance_flow.replay.frame_results import FrameResult
from instance_flow.replay.journal import Journal
from instance_flow.replay.numbers import RunNumbers
from instance_flow.replay.outputs import Add
from instance_flow.report.run_statistics import Statistics
from instance_flow.stream import MAX_GAP, Stream
from instance_flow.structures import InstanceFlowError, SourceError

_log = logging.getLogger("instance_flow")


@dataclass
class Lane:
    """One camera's frames on their way through a stream to the outputs.

    camera: index into ``Source.cameras``.   chosen: numbers of the frames to be worked on; None = all.
    statistics: filled as the run goes.
    taken_over, seconds_before: how many frames an earlier run had worked on, and for how long.
    """

    pipeline: Pipeline
    outputs: Sequence[AbstractContextManager[Add]]
    statistics: Statistics
    camera: int = 0
    chosen: frozenset[int] | None = None
    max_gap: float = MAX_GAP
    stream: Stream = field(init=False)
    taken_over: int = field(init=False, default=0)
    seconds_before: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.stream = Stream(self.pipeline, self.max_gap, self._note_break, self._note_jitter)
        self._numbers = RunNumbers()
        self._adders: list[Add] = []
        self._break = self._jitter = ""

    def open(self, stack: ExitStack) -> None:
        """Open the outputs; they are finished with the stack."""
        self._adders = [stack.enter_context(output) for output in self.outputs]

    def accepts(self, camera: int, number: int) -> bool:
        """Whether a frame is to be worked on here."""
        return camera == self.camera and (self.chosen is None or number in self.chosen)

    def process(self, frame: Frame) -> FrameResult:
        """Work on a frame; one that cannot be used is refused, as the live node does."""
        start, self._break, self._jitter = perf_counter(), "", ""
        try:
            tracks = self.stream.step(
                frame.image, frame.stamp, frame.encoding, depth=frame.depth, camera=frame.calibration
            )
        except (ValueError, InstanceFlowError) as error:
            return FrameResult(None, refusal=f"frame {frame.number}: {error}", breaks=self._break, jitter=self._jitter)
        return FrameResult(tracks, perf_counter() - start, breaks=self._break, jitter=self._jitter)

    def take(self, frame: Frame, result: FrameResult) -> None:
        """Hand a result to the outputs."""
        if result.breaks:
            self.statistics.note_break(f"frame {frame.number}: {result.breaks}")
        if result.jitter:
            if not self.statistics.jitter:
                _log.warning(
                    "frame %d: %s; it is tracked without a time, and so are others", frame.number, result.jitter
                )
            self.statistics.jitter += 1
        if result.tracks is None:
            self.refuse(result.refusal)
            return
        self.statistics.add(self._numbers(result.tracks), result.seconds)
        self.statistics.with_depth += frame.depth is not None
        for add in self._adders:
            add(frame, result.tracks)

    def refuse(self, reason: str) -> None:
        """Count a frame that cannot be used, and say so once."""
        if not self.statistics.refused:
            _log.warning("%s; it is left out, and so will be others that cannot be used", reason)
        self.statistics.refuse(reason)

    def _note_jitter(self, reason: str) -> None:
        self._jitter = reason

    def _note_break(self, reason: str) -> None:
        _log.warning("%s", reason)
        self._break = reason


def run(
    source: Source,
    lanes: Sequence[Lane],
    *,
    journal: Journal | None = None,
    max_frames: int | None = None,
    duration: float | None = None,
    stopped: Callable[[], object] = lambda: False,
    progress: bool = True,
    depth: bool = False,
) -> None:
    """Step through a source, give every frame to every lane that wants it, and stop early where ``stopped`` says so.

    journal: open; what it knows of an earlier run is not worked on again.   max_frames: of all cameras together.
    duration: seconds from the first stamp on.
    progress: show a bar, on a terminal.   depth: whether frames come with depth.
    The network is warmed up first, so that all frames are timed alike.
    Raises SourceError where the source ends in an error, or holds not one frame that can be used; no output is written.
    """
    lanes[0].pipeline.warmup(lanes[0].pipeline.info.input_size, depth=depth)
    streams = [lane.stream for lane in lanes]
    past: Iterator[FrameResult] = iter(())
    if journal is not None:
        journal.restore(streams)
        past = journal.past()
    with ExitStack() as stack:
        for lane in lanes:
            lane.open(stack)
        begun, interrupted = perf_counter(), False
        for frame in stack.enter_context(_frames(source, lanes, max_frames, duration, progress)):
            fresh = _step(lanes, frame, past, journal)
            elapsed = perf_counter() - begun + sum(lane.seconds_before for lane in lanes)
            for lane in lanes:
                lane.statistics.elapsed = elapsed
            if fresh and journal is not None:
                journal.end_frame(streams)
            if stopped():
                interrupted = True
                break
        else:
            # A stream that is stopped while it waits for a frame ends by itself.
            interrupted = bool(stopped())
        _finish(source, lanes, interrupted)
        if journal is not None and interrupted:
            journal.save(streams)
    if journal is not None and not interrupted:
        journal.complete()


@contextmanager
def stop_at_signal() -> Iterator[Callable[[], int]]:
    """Turn the first Ctrl-C or SIGTERM into a question that can be asked between frames: the signal's number, or 0. The
    second Ctrl-C is the usual exception."""
    received = 0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received = received or number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _frames(
    source: Source, lanes: Sequence[Lane], max_frames: int | None, duration: float | None, progress: bool
) -> tqdm[Frame]:
    total = source.length if max_frames is None else min(max_frames, source.length or max_frames)

    def refuse(camera: int, number: int, reason: str) -> None:
        for lane in lanes:
            if lane.camera == camera:
                lane.statistics.seen = number + 1
            if lane.accepts(camera, number):
                lane.refuse(reason)

    frames: Iterator[Frame] = islice(source.frames(refuse), max_frames)
    if duration is not None:
        frames, total = takewhile(_lasts(duration), frames), None
    return tqdm(frames, shown(source.name), total, unit="frame", disable=None if progress else True)


def _lasts(duration: float) -> Callable[[Frame], bool]:
    """Whether a frame is less than so many seconds after the first one."""
    first: int | None = None

    def lasts(frame: Frame) -> bool:
        nonlocal first
        if frame.stamp is None:
            return True
        first = frame.stamp if first is None else first
        return frame.stamp - first < duration * 1e9

    return lasts


def _step(lanes: Sequence[Lane], frame: Frame, past: Iterator[FrameResult], journal: Journal | None) -> bool:
    """Process a frame in every lane, out of the journal as far as it goes; tells whether one had to be worked on."""
    fresh = False
    for lane in lanes:
        if lane.camera == frame.camera:
            lane.statistics.seen = frame.number + 1
        if not lane.accepts(frame.camera, frame.number):
            continue
        result = next(past, None)
        if result is None:
            fresh, result = True, lane.process(frame)
            if journal is not None:
                journal.add(result)
        else:
            lane.taken_over += 1
            lane.seconds_before += result.seconds
        lane.take(frame, result)
    return fresh


def _finish(source: Source, lanes: Sequence[Lane], interrupted: bool) -> None:
    for lane in lanes:
        lane.statistics.interrupted = interrupted
    if interrupted or any(lane.statistics.frames for lane in lanes):
        return
    reasons = [reason for lane in lanes for reason in lane.statistics.refusals]
    raise SourceError(reasons[0] if reasons else f"{source.name}: holds no frame")
