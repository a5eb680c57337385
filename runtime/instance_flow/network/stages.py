# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes."""

from __future__ import annotations

from time import perf_counter, process_time

STAGES = ("fit", "upload", "network", "download", "grouping", "matching", "masks")
"""Of ``Pipeline.step``, in order. Upload and download are copies to and from the network's device."""


class Stopwatch:
    """Seconds of each stage of one frame, by the clock and by the processor.

    Attributes:
        seconds: wall time of each stage so far.
        cpu_seconds: processor time of the whole process in that while, all of its threads together.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._wall, self._cpu = perf_counter(), process_time()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage; one may come several times."""
        wall, cpu = perf_counter(), process_time()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + wall - self._wall
        self.cpu_seconds[stage] = self.cpu_seconds.get(stage, 0.0) + cpu - self._cpu
        self._wall, self._cpu = wall, cpu

    def skip(self) -> None:
        """Leave out the time since the last lap, as when a frame waited for its turn."""
        self._wall, self._cpu = perf_counter(), process_time()
