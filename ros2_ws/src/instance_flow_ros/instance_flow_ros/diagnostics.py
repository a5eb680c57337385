# SPDX-License-Identifier: Apache-2.0
"""The node's diagnostics: counts and latencies of the time since the last report, in the form of diagnostic_updater."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from threading import Lock
from time import monotonic

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import MESSAGE, shown

RECEIVED, ANSWERED, DROPPED, REFUSED = "received", "answered", "dropped", "refused"
LOST, MISSING, BROKEN, UNMASKED, JITTER = "lost", "missing", "broken", "unmasked", "jitter"
PAIRED = "paired"
ONLY = "stream"
"""What the only camera of a node is called in the name of its status."""
TOPIC = "topic "
"""Before the name of a topic in the values of a status, which say what it is remapped to; the doctor reads them."""
_NAMES = {
    RECEIVED: "frames received",
    ANSWERED: "frames answered",
    DROPPED: "frames dropped",
    REFUSED: "frames refused",
    LOST: "frames lost on the way",
    MISSING: "frames missing by their stamps",
    BROKEN: "breaks of the stream",
    JITTER: "stamps that ran back a little",
    UNMASKED: "masks left out",
    PAIRED: "frames with depth",
}


@dataclass(frozen=True)
class Report:
    """What happened in one period. recent, total: by event, in the period and since the start.

    rate: frames answered per second.
    latencies, network: (p50, p95) seconds from a frame's arrival to its answer, and of the network alone.
    beyond: likewise, what each frame took beyond the network's time.
    delays: likewise, from the stamp of an image to its answer; NaN everywhere if there was no frame.
    """

    recent: Counter[str]
    total: Counter[str]
    rate: float
    latencies: tuple[float, float]
    network: tuple[float, float]
    beyond: tuple[float, float]
    delays: tuple[float, float]
    live_tracks: int

    def described(self) -> dict[str, str]:
        """The report in words and units."""
        spans = {
            "latency": self.latencies,
            "network": self.network,
            "beyond the network": self.beyond,
            "stamp to answer": self.delays,
        }
        return {
            "Actual frequency (Hz)": f"{self.rate:.2f}",  # the key of diagnostic_updater's FrequencyStatus
            **{
                f"{name} {part} (ms)": f"{seconds * 1e3:.1f}"
                for name, values in spans.items()
                for part, seconds in zip(("p50", "p95"), values, strict=True)
            },
            "live tracks": str(self.live_tracks),
            **{name: str(self.total[event]) for event, name in _NAMES.items()},
        }


class StampGaps:
    """Tells from the stamps of the images that came how many between them did not; DDS does not always say.

    The usual interval is a low quantile of the latest ones: with half of the images lost, most intervals are double.
    """

    def __init__(self) -> None:
        self._latest: int | None = None
        self._intervals: deque[int] = deque(maxlen=40)

    def add(self, stamp: int | None) -> int:
        """How many images are missing between the one before and this one; stamps are nanoseconds."""
        if stamp is None:
            return 0
        interval = 0 if self._latest is None else stamp - self._latest
        self._latest = stamp
        if not 0 < interval < _PAUSE:
            return 0
        self._intervals.append(interval)
        if len(self._intervals) < _LEAST_INTERVALS:
            return 0
        return max(0, round(interval / float(np.percentile(self._intervals, 20))) - 1)


_PAUSE = 2 * 10**9
"""Nanoseconds without an image that are a pause of the camera rather than a loss."""
_LEAST_INTERVALS = 10


class CameraStatistics:
    """Counts what happens to frames, by the events above. For use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._began = monotonic()
        self._recent: Counter[str] = Counter()
        self._total: Counter[str] = Counter()
        self._seconds: list[tuple[float, float, float, float]] = []
        self._live_tracks = 0

    def count(self, event: str, times: int = 1) -> None:
        """Count an event."""
        with self._lock:
            self._recent[event] += times
            self._total[event] += times

    def answered(self, latency: float, network: float, delay: float, live_tracks: int) -> None:
        """Count a frame that is answered now, with the seconds since it came, in the network, and since its stamp."""
        self.count(ANSWERED)
        with self._lock:
            self._seconds.append((latency, network, latency - network, delay))
            self._live_tracks = live_tracks

    def report(self) -> Report:
        """Sum up the period that ends now; the next one begins."""
        with self._lock:
            now = monotonic()
            period, self._began = now - self._began, now
            recent, self._recent = self._recent, Counter()
            seconds, self._seconds = self._seconds, []
            total, live_tracks = Counter(self._total), self._live_tracks
        rate = recent[ANSWERED] / period if period else 0.0
        latencies, network, beyond, delays = (_p50_p95(column) for column in np.reshape(seconds, (-1, 4)).T)
        return Report(recent, total, rate, latencies, network, beyond, delays, live_tracks)


def _p50_p95(seconds: NDArray[np.float64]) -> tuple[float, float]:
    known = seconds[np.isfinite(seconds)]
    if not len(known):
        return np.nan, np.nan
    p50, p95 = np.percentile(known, (50, 95))
    return float(p50), float(p95)


def to_status(name: str, hardware_id: str, level: bytes, message: str, values: dict[str, str]) -> DiagnosticStatus:
    """Give a status.

    name: "node: camera".   level: one of DiagnosticStatus.OK, WARN, ERROR.
    hardware_id: empty while there is none; diagnostic_updater then asks for the word "none".
    """
    return DiagnosticStatus(
        level=level,
        name=name,
        message=shown(message, MESSAGE),
        hardware_id=shown(hardware_id or "none"),
        values=[KeyValue(key=key, value=shown(value)) for key, value in values.items()],
    )
