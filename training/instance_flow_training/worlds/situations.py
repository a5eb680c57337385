# SPDX-License-Identifier: Apache-2.0
"""The situations of synthetic worlds: one row of numbers for each."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Situation:
    """What happens in a world. Ranges are (low, high); lengths are fractions of the image's height, times are frames.

    speed: object sizes per frame.   largest: cap of the objects' size.
    crossing, hidden, leaving: shares of the objects that cross a look-alike, pass behind an occluder, leave the view.
    must: the role that the first object plays.
    look_alike: chance that an object takes its class and nearly its look from an earlier one.
    occluders: number of posts, bushes and rocks, as far as hidden objects do not ask for more.
    drift: speed of the camera.   jerk, sway: height of its jumps and swings.
    zoom: its largest log factor.   turn: its largest rotation in radians.
    step: frames of time per picture.
    turnover: 0 = one cast for the whole clip; else so many frames bring as many further objects as there were, and each
        object comes, crosses the view, leaves and perhaps comes back, until it is gone for good.
    """

    speed: tuple[float, float] = (0.02, 0.35)
    largest: float = 0.6
    crossing: float = 0.0
    hidden: float = 0.0
    leaving: float = 0.0
    must: str = "wander"
    look_alike: float = 0.4
    occluders: tuple[int, int] = (0, 1)
    drift: tuple[float, float] = (0.0, 0.008)
    jerk: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.02)
    zoom: float = 0.05
    turn: float = 0.03
    step: int = 1
    turnover: int = 0


_MIXED = Situation(
    speed=(0.02, 0.45),
    crossing=0.3,
    hidden=0.15,
    leaving=0.15,
    look_alike=0.5,
    occluders=(0, 3),
    drift=(0.0, 0.03),
    jerk=(0.0, 0.08),
    sway=(0.0, 0.05),
    zoom=0.12,
    turn=0.08,
)
TABLE: dict[str, Situation] = {
    "mixed": _MIXED,
    "crossing": Situation(speed=(0.3, 0.7), largest=0.3, crossing=0.8, must="crossing"),
    "fast": Situation(speed=(0.6, 1.3), look_alike=0.4),
    "occlusion": Situation(
        speed=(0.2, 0.6), largest=0.26, hidden=0.6, must="hidden", occluders=(1, 2), drift=(0.0, 0.003)
    ),
    "reentry": Situation(speed=(0.25, 0.8), largest=0.3, leaving=0.6, must="leaving", sway=(0.0, 0.01), zoom=0.03),
    "pan": Situation(
        speed=(0.02, 0.4), occluders=(0, 3), drift=(0.02, 0.1), jerk=(0.1, 0.3), sway=(0.05, 0.2), zoom=0.2, turn=0.16
    ),
    "low_rate": replace(_MIXED, step=3),
}
ENDLESS: dict[str, Situation] = {
    "stream": Situation(
        speed=(0.12, 0.4),
        largest=0.35,
        look_alike=0.5,
        occluders=(4, 12),
        drift=(0.01, 0.04),
        sway=(0.0, 0.03),
        zoom=0.1,
        turn=0.05,
        turnover=60,
    ),
}
"""For clips of hundreds of frames, and by name only: training and benchmark take those of TABLE in turn."""
_IDENTICAL_OBJECTS = Situation(
    speed=(0.1, 0.5), largest=0.35, crossing=0.4, look_alike=1.0, drift=(0.0, 0.02), sway=(0.0, 0.04)
)
REAL: dict[str, Situation] = {
    name: replace(row, largest=min(0.9, 1.7 * row.largest))
    for name, row in {**TABLE, "twins": _IDENTICAL_OBJECTS}.items()
}
"""Of worlds of cut-outs, larger as most of them are slender. All objects of "twins" are the same one."""
