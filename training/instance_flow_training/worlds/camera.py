# SPDX-License-Identifier: Apache-2.0
"""The camera of a synthetic world: drift, sway, jerks, zoom and rotation.

Lengths are fractions of the image's height, points are (x, y) from the middle of the view with y down. The *stage* is
the ground as seen by a camera that only drifts; everything else comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instance_flow_training.worlds.situations import Situation

Path = NDArray[np.float64]
"""Numbers (T,) or points (T, 2) over time."""


@dataclass(frozen=True)
class CameraPath:
    """drift, shift: (T, 2) of the stage over the ground and of the view over the stage. zooms, turns: (T,)."""

    drift: Path
    shift: Path
    zooms: Path
    turns: Path

    def rotations(self) -> Path:
        """(T, 2, 2) matrices from the stage to the image, zoom included."""
        cosine, sine = self.zooms * np.cos(self.turns), self.zooms * np.sin(self.turns)
        return np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)

    def ground_velocities(self) -> Path:
        """(T, 2) motion of the ground in the image, per frame of time."""
        return -np.einsum("tij,tj->ti", self.rotations(), np.gradient(self.drift + self.shift, axis=0))

    def project(self, stage: Path) -> Path:
        """Points (T, 2) on the stage to the image."""
        return np.einsum("tij,tj->ti", self.rotations(), stage - self.shift)

    def cut(self, step: int) -> CameraPath:
        """The frames of time that are shown, see :func:`cut`."""
        return CameraPath(*(cut(path, step) for path in (self.drift, self.shift, self.zooms, self.turns)))


def cut(path: Path, step: int) -> Path:
    """Every ``step``-th frame of time, without the one before the first picture and the one after the last."""
    return path[1:-1:step]


def film(rng: np.random.Generator, situation: Situation, time: Path) -> CameraPath:
    """Draw the motion of the camera at the times (T,)."""
    speed = rng.uniform(*situation.drift)
    heading = rng.uniform(0, 2 * np.pi) + swing(rng, time, 1.2)
    steps = speed * np.stack([np.cos(heading), np.sin(heading)], 1)
    sway = rng.uniform(*situation.sway)
    shift = np.stack([swing(rng, time, sway), swing(rng, time, sway)], 1) + _jerks(rng, situation.jerk, time)
    zooms = np.exp(swing(rng, time, situation.zoom * rng.random()))
    return CameraPath(np.cumsum(steps, 0), shift, zooms, swing(rng, time, situation.turn * rng.random()))


def swing(rng: np.random.Generator, time: Path, amplitude: float) -> Path:
    """Draw smooth wandering (T,) within plus and minus amplitude."""
    frequency, phase = rng.uniform(0.015, 0.07, 2), rng.uniform(0, 2 * np.pi, 2)
    waves = np.sin(2 * np.pi * frequency * time[:, None] + phase)
    return amplitude * (0.65 * waves[:, 0] + 0.35 * waves[:, 1])


def _jerks(rng: np.random.Generator, heights: tuple[float, float], time: Path) -> Path:
    """Draw sudden jumps (T, 2) that die away."""
    path = np.zeros((len(time), 2))
    if heights[1] == 0:
        return path
    for start in rng.uniform(0, time[-1], int(rng.integers(2, 7))):
        heading, height = rng.uniform(0, 2 * np.pi), rng.uniform(*heights)
        since = time - np.floor(start)
        shape = np.where(since >= 0, 0.8 ** np.maximum(since, 0), 0)
        path += height * shape[:, None] * np.array([np.cos(heading), np.sin(heading)])
    return path
