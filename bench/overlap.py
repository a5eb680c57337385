# SPDX-License-Identifier: Apache-2.0
"""Frames per second with and without overlap of network and assembly, where the network runs on a device of its own.

    python bench/overlap.py

The network sleeps for so many milliseconds, as a GPU would leave the CPU alone, and gives maps that were made before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

import numpy as np

from instance_flow import Pipeline
from instance_flow.benchmark.scenes import ExactNetwork, Scene
from instance_flow.network.protocol import Network, Prediction
from instance_flow.overlap import pipelined
from instance_flow.stream import Stream
from instance_flow.structures import Image

MILLISECONDS, OBJECTS, SIZE = (2, 5, 10), (1, 16, 64), (384, 640)
POSES = 8
PERIOD = 10**9 // 30


class SleepingNetwork(Network):
    """Another network's predictions, each made only once, after a sleep."""

    def __init__(self, network: ExactNetwork, seconds: float):
        self.info = network.info
        self._network, self._seconds = network, seconds
        self._made: dict[tuple[int, ...], Prediction] = {}

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:
        """See Network."""
        key = (int(image[0, 0, 0]), *references)
        if key not in self._made:
            self._made[key] = self._network.predict(image, references)
        time.sleep(self._seconds)
        return self._made[key]


def frames_per_second(stream: Stream, frames: Sequence[tuple[Image, int, str]], overlapping: bool) -> float:
    """Of one pass over the frames."""
    stream.reset()
    begin = time.perf_counter()
    if overlapping:
        for _ in pipelined(stream, frames):
            pass
    else:
        for frame in frames:
            stream.step(*frame)
    return len(frames) / (time.perf_counter() - begin)


def rows(count: int, rounds: int) -> Iterator[tuple[int, int, float, float]]:
    """Milliseconds, objects, and the median frames per second without and with overlap, taken in turns."""
    for objects in OBJECTS:
        scene = Scene(SIZE, [objects] * POSES)
        frames = [(scene.images[k % len(scene.images)], k * PERIOD, "") for k in range(count)]
        for milliseconds in MILLISECONDS:
            stream = Stream(Pipeline(SleepingNetwork(ExactNetwork(scene), milliseconds / 1e3)))
            for overlapping in (False, True):  # compiles, and makes the maps
                frames_per_second(stream, frames, overlapping)
            found = [[frames_per_second(stream, frames, way) for way in (False, True)] for _ in range(rounds)]
            without, having = np.median(found, axis=0)
            yield milliseconds, objects, float(without), float(having)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=150, help="frames of one pass (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="passes (default: %(default)s)")
    options = parser.parse_args()
    print("| network ms | objects | frames/s | with overlap | ratio |\n|---:|---:|---:|---:|---:|")
    for milliseconds, objects, without, having in rows(options.frames, options.rounds):
        print(f"| {milliseconds} | {objects} | {without:.0f} | {having:.0f} | {having / without:.2f} |", flush=True)


if __name__ == "__main__":
    main()
