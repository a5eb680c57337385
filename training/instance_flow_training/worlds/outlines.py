# SPDX-License-Identifier: Apache-2.0
"""Moving outlines of the six classes and of the foreground occluders, as polygons to be filled back to front.

Local coordinates are (x, y), x points where the object is heading, and the longest extent is about 1 (-0.5 .. 0.5).
Every outline is a pure function of a phase in radians, that of the beat of wings, tail or legs, and of four numbers in
-1 .. 1 which make one fish fatter than another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Shape = NDArray[np.float32]


class Part(NamedTuple):
    """One polygon. points: (K, 2) float32 (x, y), before the squash.

    tone: brightness of the texture, 1 = as it is.   ink: how much a dark line colour replaces the texture, 0 .. 1.
    """

    points: Points
    tone: float = 1.0
    ink: float = 0.0


@dataclass(frozen=True)
class Outline:
    """The parts of one object at one moment. squash: (x, y) factors that bend outline and texture alike."""

    parts: list[Part]
    squash: tuple[float, float] = (1.0, 1.0)


def _polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, np.float32)


def _rounded(points: Points, times: int = 2) -> Points:
    """Cut the corners of a closed polygon (Chaikin's scheme)."""
    for _ in range(times):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return points.astype(np.float32)


def _mirrored(points: Points) -> Points:
    return points * np.array([1, -1], np.float32)


def _circle(count: int) -> Points:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


_CIRCLE_12, _CIRCLE_32 = _circle(12), _circle(32)


def _ellipse(x: float, y: float, radius_x: float, radius_y: float, unit: Points = _CIRCLE_32) -> Points:
    return unit * np.array([radius_x, radius_y], np.float32) + np.array([x, y], np.float32)


def _profile(xs: Points, widths: Points) -> Points:
    """Body of half-width widths[i] at xs[i], closed along the spine."""
    return np.concatenate([np.stack([xs, widths], 1), np.stack([xs, -widths], 1)[::-1]]).astype(np.float32)


def _ribbon(path: Points, width: float, taper: float) -> Points:
    """Thin strip along a path (K, 2) that narrows from width to width * taper."""
    along = np.gradient(path, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    half = (0.5 * width * np.linspace(1, taper, len(path)))[:, None]
    return np.concatenate([path + half * normal, (path - half * normal)[::-1]]).astype(np.float32)


_FISH_X = np.linspace(0.5, -0.3, 14).astype(np.float32)
_FISH_WIDTH = np.interp(-_FISH_X, [-0.5, -0.42, -0.28, -0.1, 0.1, 0.3], [0.0, 0.09, 0.155, 0.17, 0.11, 0.03]).astype(
    np.float32
)
_FISH_BODY = _profile(_FISH_X, _FISH_WIDTH)
_FISH_TAIL = _rounded(_polygon((-0.24, 0.03), (-0.53, 0.27), (-0.4, 0.0), (-0.53, -0.27), (-0.24, -0.03)), 1)
_FISH_FIN = _rounded(_polygon((0.16, 0.12), (0.0, 0.36), (-0.08, 0.32), (0.0, 0.12)), 1)
_FISH_GILL = _polygon((0.24, 0.11), (0.2, 0.04), (0.2, -0.04), (0.24, -0.11), (0.215, -0.04), (0.215, 0.04))


def _fish(phase: float, shape: Shape) -> Outline:
    def swim(points: Points) -> Points:
        behind = 0.5 - points[:, 0]
        bent = points.copy()
        bent[:, 1] += 0.13 * behind * behind * np.sin(phase - 3.5 * behind)
        return bent

    parts = [
        Part(swim(_FISH_FIN), 0.75),
        Part(swim(_mirrored(_FISH_FIN)), 0.75),
        Part(swim(_FISH_TAIL), 0.82),
        Part(swim(_FISH_BODY)),
        Part(swim(_FISH_GILL), 0.0, 0.7),
        Part(swim(_ellipse(0.36, 0.085, 0.032, 0.032, _CIRCLE_12)), 0.0, 1.0),
        Part(swim(_ellipse(0.36, -0.085, 0.032, 0.032, _CIRCLE_12)), 0.0, 1.0),
    ]
    return Outline(parts, (1.0, 1.0 + 0.2 * float(shape[0])))


_FOREWING = _rounded(
    _polygon((0.14, 0.0), (0.3, 0.22), (0.44, 0.44), (0.36, 0.52), (0.1, 0.46), (-0.02, 0.3), (-0.02, 0.0))
)
_HINDWING = _rounded(
    _polygon((0.04, 0.0), (0.02, 0.28), (-0.1, 0.42), (-0.3, 0.4), (-0.46, 0.26), (-0.34, 0.12), (-0.14, 0.0))
)
_WING_SPOT = _ellipse(0.26, 0.37, 0.06, 0.06)
_FEELER = _ribbon(_polygon((0.26, 0.02), (0.38, 0.07), (0.46, 0.15)), 0.03, 0.8)


def _butterfly(phase: float, shape: Shape) -> Outline:
    flap = 0.72 + 0.28 * float(np.sin(phase))
    parts = [
        Part(_HINDWING, 0.8),
        Part(_mirrored(_HINDWING), 0.8),
        Part(_FOREWING, 1.05),
        Part(_mirrored(_FOREWING), 1.05),
        Part(_WING_SPOT, 0.2, 0.7),
        Part(_mirrored(_WING_SPOT), 0.2, 0.7),
        Part(_FEELER, 0.2, 0.8),
        Part(_mirrored(_FEELER), 0.2, 0.8),
        Part(_ellipse(0.02, 0.0, 0.3, 0.045 / flap), 0.25, 0.75),
    ]
    return Outline(parts, (1.0 + 0.1 * float(shape[0]), flap))


_BEETLE_BACK = _ellipse(-0.12, 0.0, 0.31, 0.23)
_BEETLE_CHEST = _ellipse(0.18, 0.0, 0.13, 0.17)
_BEETLE_HEAD = _ellipse(0.32, 0.0, 0.09, 0.1)
_BEETLE_HORN = _ribbon(_polygon((0.34, 0.05), (0.43, 0.1), (0.5, 0.05)), 0.055, 0.5)
_BEETLE_SEAM = _polygon((0.06, 0.012), (-0.42, 0.012), (-0.42, -0.012), (0.06, -0.012))
_BEETLE_COLLAR = _polygon((0.075, 0.2), (0.075, -0.2), (0.05, -0.2), (0.05, 0.2))


def _beetle(phase: float, shape: Shape) -> Outline:
    legs = []
    for side in (1.0, -1.0):
        for row, (hip, foot) in enumerate(((0.18, 0.32), (0.0, 0.0), (-0.18, -0.36))):
            swing = 0.07 * float(np.sin(phase + np.pi * (row + (side > 0))))
            knee = (hip + 0.45 * (foot - hip) + 0.5 * swing, side * 0.34)
            path = _polygon((hip, side * 0.12), knee, (foot + swing, side * 0.46))
            legs.append(Part(_ribbon(path, 0.07, 0.65), 0.35, 0.55))
    parts = [
        *legs,
        Part(_BEETLE_HORN, 0.3, 0.6),
        Part(_mirrored(_BEETLE_HORN), 0.3, 0.6),
        Part(_BEETLE_HEAD, 0.4, 0.5),
        Part(_BEETLE_CHEST, 0.8),
        Part(_BEETLE_BACK),
        Part(_BEETLE_SEAM, 0.2, 0.6),
        Part(_BEETLE_COLLAR, 0.3, 0.5),
    ]
    return Outline(parts, (1.0, 1.0 + 0.12 * float(shape[0])))


_STAR_ARM = np.arange(5, dtype=np.float32)


def _star(phase: float, shape: Shape) -> Outline:
    tip_angle = 2 * np.pi * _STAR_ARM / 5 + 0.16 * np.sin(phase + 2.4 * _STAR_ARM)
    tip = 0.5 * (1 + 0.1 * np.sin(phase + 1.7 * _STAR_ARM + float(shape[1])))
    notch_angle = 2 * np.pi * (_STAR_ARM + 0.5) / 5
    angles = np.stack([tip_angle - 0.1, tip_angle + 0.1, notch_angle], 1).ravel()
    radii = np.stack([tip, tip, np.full(5, 0.18 + 0.03 * shape[0])], 1).ravel()
    body = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1).astype(np.float32)
    dots = [
        Part(_ellipse(0.24 * float(np.cos(a)), 0.24 * float(np.sin(a)), 0.03, 0.03, _CIRCLE_12), 0.3, 0.6)
        for a in tip_angle
    ]
    return Outline([Part(_rounded(body, 2)), *dots])


_BELL_SIDE = [(0.5, 0.14), (0.38, 0.34), (0.04, 0.43), (0.07, 0.2)]
_BELL = _rounded(_polygon(*_BELL_SIDE, (0.0, 0.0), *[(x, -y) for x, y in reversed(_BELL_SIDE)]))
_BELL_RIM = _polygon(
    (0.13, 0.4), (0.17, 0.2), (0.13, 0.0), (0.17, -0.2), (0.13, -0.4), (0.21, -0.2), (0.17, 0.0), (0.21, 0.2)
)
_TENTACLE_X = np.linspace(0.08, -0.5, 7).astype(np.float32)


def _jellyfish(phase: float, shape: Shape) -> Outline:
    behind = 0.08 - _TENTACLE_X
    tentacles = []
    for row, root in enumerate((-0.27, -0.09, 0.09, 0.27)):
        wave = 0.11 * behind * np.sin(phase - 7 * behind + 0.8 * row) * 2
        path = np.stack([_TENTACLE_X + 0.12 * (row in (0, 3)) * behind, root * (1 - 0.3 * behind) + wave], 1)
        tentacles.append(Part(_ribbon(path.astype(np.float32), 0.085, 0.5), 0.7))
    parts = [*tentacles, Part(_BELL), Part(_BELL_RIM, 0.55, 0.3)]
    pulse = 0.1 * float(np.sin(phase))
    return Outline(parts, (1.0 - 0.5 * pulse, 1.0 + pulse + 0.1 * float(shape[0])))


_FUSELAGE = _profile(
    np.array([0.5, 0.47, 0.4, 0.2, -0.2, -0.42, -0.5], np.float32),
    np.array([0.0, 0.035, 0.06, 0.075, 0.07, 0.035, 0.015], np.float32),
)
_WING = _polygon((0.18, 0.0), (-0.04, 0.46), (-0.1, 0.5), (-0.17, 0.5), (-0.08, 0.0))
_TAILPLANE = _polygon((-0.34, 0.0), (-0.45, 0.2), (-0.52, 0.2), (-0.48, 0.0))
_ENGINE = _polygon((0.1, 0.2), (0.1, 0.27), (-0.04, 0.27), (-0.04, 0.2))
_COCKPIT = _ellipse(0.38, 0.0, 0.05, 0.035, _CIRCLE_12)


def _plane(phase: float, shape: Shape) -> Outline:
    bank = 0.1 * float(np.sin(phase))
    parts = [
        Part(_ENGINE, 0.35, 0.4),
        Part(_mirrored(_ENGINE), 0.35, 0.4),
        Part(_WING, 0.9 + bank),
        Part(_mirrored(_WING), 0.9 - bank),
        Part(_TAILPLANE, 0.75 + bank),
        Part(_mirrored(_TAILPLANE), 0.75 - bank),
        Part(_FUSELAGE, 1.15),
        Part(_COCKPIT, 0.1, 0.8),
    ]
    return Outline(parts, (1.0, 0.92 + 0.08 * float(np.cos(phase)) + 0.06 * float(shape[0])))


_POST = _polygon((-0.5, -0.5), (0.5, -0.46), (0.5, 0.46), (-0.5, 0.5))


def _post(phase: float, shape: Shape) -> Outline:  # noqa: ARG001
    return Outline([Part(_POST)], (1.0, 0.12))


_BUSH_ANGLE = np.linspace(0, 2 * np.pi, 90, endpoint=False)


def _bush(phase: float, shape: Shape) -> Outline:
    leaves = np.abs(np.sin((4.5 + np.round(1.5 * shape[0])) * _BUSH_ANGLE + 0.1 * np.sin(phase)))
    radius = 0.36 + 0.1 * leaves + 0.04 * np.sin(2 * _BUSH_ANGLE + 3 * shape[1])
    rim = np.stack([radius * np.cos(_BUSH_ANGLE), radius * np.sin(_BUSH_ANGLE)], 1).astype(np.float32)
    return Outline([Part(rim, 0.75), Part(rim * 0.75, 0.95), Part(rim[::-1] * 0.45, 1.15)], (1.0, 0.85))


_ROCK_ANGLE = 2 * np.pi * np.arange(7) / 7


def _rock(phase: float, shape: Shape) -> Outline:  # noqa: ARG001
    radius = 0.42 + 0.08 * np.sin(5 * _ROCK_ANGLE + 3 * shape[0]) + 0.06 * np.sin(3 * _ROCK_ANGLE + 3 * shape[1])
    rim = np.stack([radius * np.cos(_ROCK_ANGLE), radius * np.sin(_ROCK_ANGLE)], 1).astype(np.float32)
    return Outline([Part(_rounded(rim, 1))], (1.0, 0.8 + 0.1 * float(shape[2])))


OBJECTS: dict[str, Callable[[float, Shape], Outline]] = {
    "fish": _fish,
    "butterfly": _butterfly,
    "beetle": _beetle,
    "star": _star,
    "jellyfish": _jellyfish,
    "plane": _plane,
}
"""The classes, in the order of their class ids."""

OCCLUDERS: dict[str, Callable[[float, Shape], Outline]] = {"post": _post, "bush": _bush, "rock": _rock}
"""Foreground that hides objects and is labelled background."""
