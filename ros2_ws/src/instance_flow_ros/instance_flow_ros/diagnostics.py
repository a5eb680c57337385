# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics: counts and latencies of the time since it last said so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from threading import Lock
from time import monotonic

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from numpy.typing import NDArray

RECEIVED, ANSWERED, DROPPED, REFUSED = "received", "answered", "dropped", "refused"
LOST, BROKEN, UNMASKED = "lost", "broken", "unmasked"
_NAMES = {
    RECEIVED: "frames received",
    ANSWERED: "frames answered",
    DROPPED: "frames dropped",
    REFUSED: "frames refused",
    LOST: "frames lost on the way",
    BROKEN: "breaks of the stream",
    UNMASKED: "masks left out",
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
            "rate (Hz)": f"{self.rate:.2f}",
            **{
                f"{name} {part} (ms)": f"{seconds * 1e3:.1f}"
                for name, values in spans.items()
                for part, seconds in zip(("p50", "p95"), values, strict=True)
            },
            "live tracks": str(self.live_tracks),
            **{name: str(self.total[event]) for event, name in _NAMES.items()},
        }


class Statistics:
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
    """Give a status. level: one of DiagnosticStatus.OK, WARN, ERROR."""
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
