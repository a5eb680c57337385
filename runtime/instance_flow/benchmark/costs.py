# SPDX-License-Identifier: Apache-2.0
"""What frames cost: stage by stage, from the camera's image to the message and the drawn picture."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import numpy as np

from instance_flow.formats.messages import MessageTypes, to_instance_array
from instance_flow.network.stages import STAGES, Stopwatch
from instance_flow.pictures.draw import overlay
from instance_flow.pipeline import Pipeline
from instance_flow.structures import Image

NETWORK = ("upload", "network", "download")
STEP, OTHER, MESSAGE, DRAW = "step", "other", "message fill", "draw"
ROWS = (*STAGES, OTHER, MESSAGE, DRAW)
"""What a whole frame consists of. OTHER is the part of ``Pipeline.step`` that belongs to none of its stages."""
BEYOND, WHOLE = "beyond the network", "whole frame"
"""BEYOND: without the network, the copies to and from its device, and drawing, which is done only when subscribed."""

PERIOD = 10**9 // 30
"""Nanoseconds between the stamps of two frames."""
MESSAGE_TYPES = MessageTypes(
    TrackedInstanceArray=SimpleNamespace,
    TrackedInstance=SimpleNamespace,
    RunLengthMask=SimpleNamespace,
    ClassTable=SimpleNamespace,
    Box2D=SimpleNamespace,
    Vector2D=SimpleNamespace,
    Instance3D=SimpleNamespace,
    Point=SimpleNamespace,
    Vector3=SimpleNamespace,
    Quaternion=SimpleNamespace,
    Pose=SimpleNamespace,
    uint32s=lambda runs: array("I", runs.tobytes()),
)
"""Plain stand-ins for the messages' classes: what filling them costs without any middleware."""
HEADER = SimpleNamespace(frame_id="camera")

StageCost = dict[str, float]
"""median_ms, p95_ms: wall time.   cpu_ms: median of the process's CPU time, all threads together.   share: 0 to 1."""


class Costs:
    """Wall and CPU seconds of every stage of every frame so far."""

    def __init__(self) -> None:
        self._wall: dict[str, list[float]] = {name: [] for name in (*ROWS, STEP, BEYOND, WHOLE)}
        self._cpu: dict[str, list[float]] = {name: [] for name in self._wall}

    def add(self, pipeline: Pipeline, watch: Stopwatch) -> None:
        """Take a frame: the stages of the pipeline's latest step, and a watch with laps STEP, MESSAGE and DRAW."""
        _add(self._wall, pipeline.seconds, watch.seconds)
        _add(self._cpu, pipeline.cpu_seconds, watch.cpu_seconds)

    def summary(self) -> dict[str, StageCost]:
        """ROWS, STEP, BEYOND and WHOLE. A share is of all time of all frames; those of ROWS add up to 1."""
        total = sum(sum(self._wall[name]) for name in ROWS)
        return {
            name: {
                "median_ms": 1e3 * float(np.median(seconds)),
                "p95_ms": 1e3 * float(np.percentile(seconds, 95)),
                "cpu_ms": 1e3 * float(np.median(self._cpu[name])),
                "share": sum(seconds) / total,
            }
            for name, seconds in self._wall.items()
        }


def _add(rows: dict[str, list[float]], stages: Mapping[str, float], laps: Mapping[str, float]) -> None:
    parts = {name: stages.get(name, 0.0) for name in STAGES}
    parts[OTHER] = max(0.0, laps[STEP] - sum(parts.values()))
    parts |= {name: laps[name] for name in (MESSAGE, DRAW)}
    beyond = sum(seconds for name, seconds in parts.items() if name not in (*NETWORK, DRAW))
    for name, seconds in {**parts, STEP: laps[STEP], BEYOND: beyond, WHOLE: sum(laps.values())}.items():
        rows[name].append(seconds)


class Run:
    """A pipeline that goes through the same pictures again and again.

    Attributes:
        costs: of the frames that were timed.   objects: number of tracks in each of them.
    """

    def __init__(self, pipeline: Pipeline, images: Sequence[Image]):
        self.pipeline, self.images = pipeline, images
        self.costs = Costs()
        self.objects: list[int] = []
        self._number = 0

    def settle(self) -> None:
        """Compile, warm up, and fill the references: the frames after this cost alike."""
        self.pipeline.warmup(self.images[0].shape)
        for _ in range(self.pipeline.info.max_references + 2):
            self._frame()

    def time_frame(self) -> None:
        """Go through one more picture."""
        watch, objects = self._frame()
        self.costs.add(self.pipeline, watch)
        self.objects.append(objects)

    def _frame(self) -> tuple[Stopwatch, int]:
        image, stamp = self.images[self._number % len(self.images)], self._number * PERIOD
        self._number += 1
        names = self.pipeline.info.class_names
        watch = Stopwatch()
        tracks = self.pipeline.step(image, stamp)
        watch.lap(STEP)
        to_instance_array(MESSAGE_TYPES, tracks, HEADER, names)
        watch.lap(MESSAGE)
        overlay(image, tracks, names)
        watch.lap(DRAW)
        return watch, len(tracks)


def time_in_turns(runs: Sequence[Run], frames: int, done: Callable[[], object]) -> None:
    """Time so many frames of every run, turn by turn, so that whatever else the machine does slows all alike.

    done: called after every turn.
    """
    for run in runs:
        run.settle()
    for _ in range(frames):
        for run in runs:
            run.time_frame()
        done()
