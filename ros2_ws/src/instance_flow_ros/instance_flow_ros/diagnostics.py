# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics: counts and latencies of the time since it last said so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from threading import Lock
from time import monotonic

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

RECEIVED, ANSWERED, DROPPED, REFUSED = "received", "answered", "dropped", "refused"


@dataclass(frozen=True)
class Report:
    """What happened in one period. recent, total: number of frames by event, in the period and since the start.

    rate: frames answered per second.   latencies: (p50, p95) seconds from a frame's arrival to its answer, NaN if none.
    """

    recent: Counter[str]
    total: Counter[str]
    rate: float
    latencies: tuple[float, float]
    live_tracks: int


class Statistics:
    """Counts what happens to frames: RECEIVED, DROPPED for a newer one, REFUSED, ANSWERED. For use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._began = monotonic()
        self._recent: Counter[str] = Counter()
        self._total: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._live_tracks = 0

    def count(self, event: str) -> None:
        """Count one frame."""
        with self._lock:
            self._recent[event] += 1
            self._total[event] += 1

    def answered(self, arrived: float, live_tracks: int) -> None:
        """Count a frame that is answered now; it arrived at ``arrived`` by time.monotonic()."""
        self.count(ANSWERED)
        with self._lock:
            self._latencies.append(monotonic() - arrived)
            self._live_tracks = live_tracks

    def report(self) -> Report:
        """Sum up the period that ends now; the next one begins."""
        with self._lock:
            now = monotonic()
            seconds, self._began = now - self._began, now
            recent, self._recent = self._recent, Counter()
            latencies, self._latencies = self._latencies, []
            total, live_tracks = Counter(self._total), self._live_tracks
        p50, p95 = np.percentile(latencies, (50, 95)) if latencies else (np.nan, np.nan)
        rate = recent[ANSWERED] / seconds if seconds else 0.0
        return Report(recent, total, rate, (float(p50), float(p95)), live_tracks)


def to_diagnostics(
    stamp: Time, name: str, hardware_id: str, level: bytes, message: str, values: dict[str, str]
) -> DiagnosticArray:
    """Give the message with one status. level: one of DiagnosticStatus.OK, WARN, ERROR."""
    status = DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])


def describe(report: Report) -> dict[str, str]:
    """Put a report in words and units."""
    p50, p95 = report.latencies
    return {
        "rate (Hz)": f"{report.rate:.2f}",
        "latency p50 (ms)": f"{p50 * 1e3:.1f}",
        "latency p95 (ms)": f"{p95 * 1e3:.1f}",
        "live tracks": str(report.live_tracks),
        **{f"frames {event}": str(report.total[event]) for event in (RECEIVED, ANSWERED, DROPPED, REFUSED)},
    }
