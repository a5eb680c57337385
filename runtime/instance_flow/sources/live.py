# SPDX-License-Identifier: Apache-2.0
"""A stream as a source: a thread reads it into a buffer of one frame, and the tracker takes it from there."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Condition, Event, Thread
from typing import Any

import cv2
import numpy as np

from instance_flow.formats.video import PLAYBACK_RATE, USUAL_RATE, Frame, Refuse, SourceCamera, is_rate, next_stamp
from instance_flow.sources.streams import READ_SECONDS, Connection, Stream
from instance_flow.structures import Image, SourceError

RECONNECTS = 10
"""Default number of attempts in a row to reconnect to a stream."""

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0
"""Seconds before the first attempt; each further one waits twice as long."""
_STEADY = 10.0
"""Seconds after which a connection counts as good, so that the attempts are counted anew."""
_POLL = 0.1

_log = logging.getLogger("instance_flow")


class LiveSource:
    """Frames of a camera, a network stream or standard input; a ``Source`` that can be read once.

    The newest frame is taken: of those that arrive while another is tracked, all but the last are dropped and counted.
    Stamps are the times of arrival, in nanoseconds since 1970, by a clock that never runs back. A lost stream is
    connected to again. Of a recording (standard input, a video file over HTTP) every frame is kept, with the times of
    its container, and its end is the end.

    Args:
        reconnects: attempts in a row after which a lost stream is given up.
        duration: seconds after which ``frames`` ends, of a recording by its own times; None = never.
        rate: frames per second of a recording that knows no times; None = its frames have no stamps.

    Attributes:
        recorded: whether it is a recording.   dropped, reconnected: counts since ``frames`` began.
        lost: why the stream was given up after its first frame; empty unless it was.
        stopped: called while waiting for a frame; ``frames`` ends when it returns true.

    Waits for the first frame. Raises SourceError where none comes, ValueError for a rate that the stream knows itself.
    """

    def __init__(
        self, stream: Stream, *, reconnects: int = RECONNECTS, duration: float | None = None, rate: float | None = None
    ) -> None:
        self.name, self.label = stream.name, stream.label
        self.recorded, self.has_times, self._container_times, self.rate = False, True, False, PLAYBACK_RATE
        self.dropped = self.reconnected = 0
        self.lost = ""
        self.stopped: Callable[[], object] = lambda: False
        self.length: int | None = None
        self._stream, self._reconnects, self._duration, self._given_rate = stream, reconnects, duration, rate
        self._clock = time.time_ns() - time.monotonic_ns()
        self._place: tuple[Image, int | None] | None = None
        self._changed, self._closed = Condition(), Event()
        self._received = 0
        self._error = ""
        self._ended = False
        self._thread = Thread(target=self._read, name=stream.label, daemon=True)
        self._thread.start()
        try:
            with self._changed:
                # In short steps, between which Ctrl-C is heard.
                while not self._changed.wait_for(lambda: self._place or self._ended, _POLL):
                    pass
        except BaseException:
            self.close()
            raise
        if self._place is None:
            raise SourceError(self._error)
        if rate is not None and not (self.recorded and not self._container_times):
            self.close()
            raise ValueError(f"--rate is for pictures and streams without times, but {self.label} has its own")
        self.cameras: Sequence[SourceCamera] = (SourceCamera("", "", self.length, self.rate),)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames(lambda *_: None)

    def frames(self, refuse: Refuse) -> Iterator[Frame]:  # noqa: ARG002 - decoders pass over what they cannot read
        """See Source; from the newest frame on."""
        by_clock = math.inf if self._duration is None or (self.recorded and self.has_times) else self._duration
        end = time.monotonic() + by_clock
        first, number = None, 0
        with self._changed:
            self.dropped = self.reconnected = 0
        try:
            while time.monotonic() < end and (taken := self._take(end)) is not None:
                image, stamp = taken
                first = stamp if first is None else first
                if self._is_over(first, stamp):
                    break
                yield Frame(image, stamp, "", "", number=number)
                number += 1
        finally:
            self.close()
        if self._error:
            self.lost = self._error

    def _is_over(self, first: int | None, stamp: int | None) -> bool:
        """Whether a recording has lasted for ``duration`` by its own times, as a file would have."""
        if self._duration is None or not self.recorded or first is None or stamp is None:
            return False
        return stamp - first >= self._duration * 1e9

    def close(self) -> None:
        """Close the stream."""
        self._closed.set()
        self._stream.close()
        with self._changed:
            self._changed.notify_all()
        # If a thread returned from OpenCV while Python ends, the process would crash.
        self._thread.join(READ_SECONDS + 1)

    def facts(self) -> dict[str, Any]:
        """Its entries in the summary of a run."""
        if self.recorded:
            return {}
        return {
            "dropped": self.dropped,
            **({"reconnected": self.reconnected} if self.reconnected else {}),
            **({"lost": self.lost} if self.lost else {}),
        }

    def _take(self, end: float) -> tuple[Image, int | None] | None:
        """The next frame; None at the end."""
        with self._changed:
            while self._place is None:
                if self._ended or self.stopped() or time.monotonic() >= end:
                    return None
                self._changed.wait(_POLL)
            taken, self._place = self._place, None
            self._changed.notify_all()
            return taken

    def _put(self, image: Image, stamp: int | None) -> None:
        with self._changed:
            while self.recorded and self._place is not None and not self._closed.is_set():
                self._changed.wait()
            self.dropped += self._place is not None
            self._place = image, stamp
            self._received += 1
            self._changed.notify_all()

    def _read(self) -> None:
        """The thread: connections, one after the other, until the stream ends or is given up."""
        failed, error = 0, "no frame came"
        while not self._closed.is_set():
            begun, before = time.monotonic(), self._received
            try:
                error = self._read_connection()
            except SourceError as trouble:
                error = str(trouble)
            except Exception as trouble:  # An exception of a thread would be lost.
                error = f"{self.label}: {trouble}"
            if self._closed.is_set() or not self._received:
                break
            if self.recorded:
                error = ""
                break
            if self._received > before and time.monotonic() - begun > _STEADY:
                failed = 0
            if failed >= self._reconnects:
                error += f"; given up after {failed} attempts to connect again" if failed else ""
                break
            wait = min(_FIRST_WAIT * 2**failed, _LONGEST_WAIT)
            failed += 1
            _log.warning("%s; attempt %d of %d to connect again in %g s", error, failed, self._reconnects, wait)
            self._closed.wait(wait)
        with self._changed:
            self._error = "" if self._closed.is_set() else error
            self._ended = True
            self._changed.notify_all()

    def _read_connection(self) -> str:
        """Read until a connection ends; gives why it did."""
        connection = self._stream.open()
        capture = connection.capture
        try:
            if not self._received:
                self._describe(connection)
            stamp: int | None = None
            count = 0
            while not self._closed.is_set():
                found, bgr = capture.read()
                came = self._clock + time.monotonic_ns()
                if not found:
                    break
                if not self.recorded:
                    stamp = came
                elif self._container_times:
                    stamp = next_stamp(capture, stamp, self.rate)
                elif self.has_times:
                    stamp = round(count * 1e9 / self.rate)
                self.reconnected += count == 0 and self._received > 0
                count += 1
                self._put(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), stamp)
        finally:
            capture.release()
        if connection.length is not None and count < connection.length and not self._closed.is_set():
            _log.warning("%s: only %d of its %d frames could be read", self.label, count, connection.length)
        if count:
            return f"{self.label}: the stream was lost"
        return f"{self.label}: sends no frame that can be decoded; expected video"

    def _describe(self, connection: Connection) -> None:
        """Take over what the first connection says of the stream."""
        rate = connection.capture.get(cv2.CAP_PROP_FPS)
        self.recorded, self._container_times, self.length = connection.recorded, connection.has_times, connection.length
        self.has_times = not connection.recorded or connection.has_times or self._given_rate is not None
        self.rate = float(rate) if is_rate(rate) else USUAL_RATE
        if self.recorded and self._given_rate:
            self.rate = self._given_rate
