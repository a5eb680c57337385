# SPDX-License-Identifier: Apache-2.0
"""The newest frame of every camera, drawn when a client asks for it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Any

import cv2

from instance_flow.formats.video import Frame
from instance_flow.pictures.draw import colours, overlay, shrunk
from instance_flow.replay.outputs import table_row
from instance_flow.report.svg import hex_colour
from instance_flow.structures import Tracks

_WIDEST = 1280
"""Pixels of the pictures on view; larger ones are shrunk."""
_QUALITY = 80
_RATE_FRAMES = 30
"""Frames over which their rate is measured."""


@dataclass
class View:
    """One frame of one camera. order: counts all frames of the board. facts: what the run knew then."""

    order: int
    frame: Frame
    tracks: Tracks
    facts: dict[str, Any]
    lock: Lock = field(default_factory=Lock)
    jpeg: bytes = b""


class Board:
    """Hands the newest frames from tracking, which never waits, to any number of client threads.

    A frame is drawn once, by the first client thread that asks for it; without clients nothing is drawn.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self._changed = Condition()
        self._views: dict[int, View] = {}
        self._times: dict[int, deque[float]] = {}
        self._last_ids: dict[int, int] = {}
        self._order = 0
        self._source, self._cameras = "", [""]
        self._dropped: Callable[[], int] | None = None
        self.ended = False

    @property
    def cameras(self) -> int:
        """How many the source has."""
        return len(self._cameras)

    def begin(self, source: str, cameras: Sequence[str], dropped: Callable[[], int] | None) -> None:
        """Begin a source. cameras: names, in the order of ``Frame.camera``. dropped: gives the number of dropped
        frames so far; None for a source that drops none."""
        with self._changed:
            self._source, self._cameras, self._dropped = source, list(cameras), dropped
            self._views, self._times, self._last_ids = {}, {}, {}

    def add(self, frame: Frame, tracks: Tracks) -> None:
        """Show the next frame."""
        now, camera = time.monotonic(), frame.camera
        with self._changed:
            times = self._times.setdefault(camera, deque(maxlen=_RATE_FRAMES))
            times.append(now)
            last = max(self._last_ids.get(camera, 0), int(tracks.ids.max(initial=0)))
            self._last_ids[camera] = last
            self._order += 1
            facts: dict[str, Any] = {
                "source": self._source,
                "cameras": self._cameras,
                "camera": camera,
                "rate": round((len(times) - 1) / (now - times[0]), 1) if len(times) > 1 and now > times[0] else None,
                "last_id": last,
            }
            if self._dropped is not None:
                facts["dropped"] = self._dropped()
                facts["latency_ms"] = round((time.time_ns() - (frame.stamp or 0)) / 1e6, 1)
            self._views[camera] = View(self._order, frame, tracks, facts)
            self._changed.notify_all()

    def end(self) -> None:
        """The run has ended: clients that wait are released."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def look(self, camera: int, after: int, timeout: float) -> View | None:
        """Wait for a frame of a camera whose order is above ``after``; gives the newest frame. After ``timeout``
        seconds, or at the end of the run, it may be an older one, None where there was none."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._order_of(camera) > after, timeout)
            return self._views.get(camera)

    def picture(self, view: View) -> bytes:
        """The frame with its tracks drawn over it, JPEG."""
        with view.lock:
            if not view.jpeg:
                drawn = shrunk(overlay(view.frame.image, view.tracks, self._class_names), _WIDEST)
                bgr = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
                view.jpeg = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
            return view.jpeg

    def state(self, view: View) -> dict[str, Any]:
        """Numbers of a frame as JSON holds them: the run's, and a row per track as ``outputs.table_row`` has it, with
        the ``colour`` in which it is drawn."""
        tracks = view.tracks
        rows = [table_row(tracks, row, self._class_names) for row in range(len(tracks))]
        for row, colour in zip(rows, colours(tracks.ids), strict=True):
            row["colour"] = hex_colour(colour)
        counts = Counter(row["class_name"] for row in rows)
        return {
            **view.facts,
            **{"number": view.frame.number, "frame": tracks.frame_index, "stamp": view.frame.stamp},
            "counts": dict(counts.most_common()),
            "tracks": rows,
        }

    def _order_of(self, camera: int) -> int:
        view = self._views.get(camera)
        return view.order if view is not None else 0
