# SPDX-License-Identifier: Apache-2.0
"""What threads, spinning and affinity of the network do to its own time, and to another process on the same cores.

    python bench/threads.py                                  # the bundled model
    python bench/threads.py MODEL --rate 10 --seconds 5

Of each setting: the network's time alone, frame after frame; then at the rate of a camera beside a process that counts
as fast as it can, which stands for everything else on the machine. Settings take turns, so that what disturbs hits all.
``turns`` is how far that process came, in parts of what it does alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time, sleep

import numpy as np

from instance_flow.network.execution import ExecutionConfig
from instance_flow.network.installation import bundled_model_path
from instance_flow.network.onnx import OnnxNetwork

ALONE, ROUNDS = 20, 3
COUNTER = """
import sys, time
turns, end = 0, time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    for _ in range(1000): pass
    turns += 1
print(turns)
"""


class Setting:
    """A network with one configuration, and what was measured of it."""

    def __init__(self, model: Path, config: ExecutionConfig):
        self.config, self.network = config, OnnxNetwork(model, "cpu", config)
        rng = np.random.default_rng(0)
        self._image = rng.integers(0, 255, (*self.network.info.input_size, 3), dtype=np.uint8)
        features = self.network.predict(self._image, []).features
        self._references = [features] * self.network.info.max_references
        self.alone: list[float] = []
        self.beside: list[float] = []
        self.turns: list[float] = []
        self.load: list[float] = []

    def frame(self) -> float:
        """Seconds of one frame."""
        begun = perf_counter()
        self.network.predict(self._image, self._references)
        return perf_counter() - begun

    def run(self, rate: float, seconds: float, turns_alone: float) -> None:
        """One round."""
        self.alone += [self.frame() for _ in range(ALONE)]
        with counter(seconds) as other:
            wall, cpu = perf_counter(), process_time()
            while other.poll() is None:
                self.beside.append(self.frame())
                sleep(max(0.0, 1 / rate - self.beside[-1]))
            self.load.append((process_time() - cpu) / (perf_counter() - wall))
            self.turns.append(read(other) / turns_alone)


def counter(seconds: float) -> subprocess.Popen[str]:
    """The other process."""
    return subprocess.Popen([sys.executable, "-c", COUNTER, str(seconds)], stdout=subprocess.PIPE, text=True)


def read(other: subprocess.Popen[str]) -> int:
    """How far it came."""
    return int(other.communicate()[0])


def configs() -> dict[str, ExecutionConfig]:
    """Threads with and without spinning, and held on the last core."""
    last = str(max(os.sched_getaffinity(0)))
    rows = {
        f"{threads or 'all'} threads{', spinning' * spinning}": ExecutionConfig(threads=threads, spinning=spinning)
        for threads in (1, 2, 0)
        for spinning in (False, True)
    }
    return rows | {f"2 threads, affinity {last}": ExecutionConfig(threads=2, affinity=last)}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second beside the other process")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    options = parser.parse_args()
    model = options.model or bundled_model_path()
    settings = {name: Setting(model, config) for name, config in configs().items()}
    alone = max(read(counter(options.seconds)) for _ in range(ROUNDS))
    for _ in range(ROUNDS):
        for setting in settings.values():
            setting.run(options.rate, options.seconds, alone)
    print("| | alone, least ms | median | beside, least ms | median | CPU of a core | turns of the other process |")
    print("|---|---|---|---|---|---|---|")
    for name, setting in settings.items():
        figures = [1e3 * figure(times) for times in (setting.alone, setting.beside) for figure in (min, np.median)]
        cells = [f"{value:.1f}" for value in figures]
        print(f"| {name} | {' | '.join(cells)} | {100 * min(setting.load):.0f} % | {100 * max(setting.turns):.0f} % |")


if __name__ == "__main__":
    main()
