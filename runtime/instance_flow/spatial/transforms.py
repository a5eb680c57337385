# SPDX-License-Identifier: Apache-2.0
"""Where coordinate frames are in each other over time, as TF publishes it; the same without ROS, for bags.

T_target_source takes points of ``source`` to ``target``: p_target = T_target_source p_source (REP 105 has the frames).
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.rotations import to_matrices
from instance_flow.structures import InstanceFlowError

Array = NDArray[np.float64]

_DEEPEST = 64
"""Transforms from a frame to its root."""
_FRAMES = 10_000
_SAMPLES = 20_000
"""Kept of one frame, the newest: ten seconds at 2 kHz. Foreign messages must not fill the memory."""
_LONGEST_NAME = 255
_NORM = 0.01
"""By which the squared length of a quaternion may differ from 1, as in tf2."""


class TransformUnknown(InstanceFlowError):
    """A transform that the buffer cannot give at that time."""


@dataclass(frozen=True)
class _Sample:
    parent: str
    translation: Array
    rotation: Array


@dataclass
class _History:
    """Of one child, by rising stamp. A static one has one sample, which holds at any time."""

    static: bool
    stamps: list[int] = field(default_factory=list)
    samples: list[_Sample] = field(default_factory=list)

    def parent(self, stamp: int) -> str:
        """That of the sample nearest in time."""
        i = bisect_left(self.stamps, stamp)
        if i == len(self.stamps) or (i > 0 and stamp - self.stamps[i - 1] < self.stamps[i] - stamp):
            i -= 1
        return self.samples[i].parent

    def drop(self, count: int) -> None:
        del self.stamps[:count], self.samples[:count]


class TransformBuffer:
    """The tree of frames of the last seconds. Any thread may add and look up.

    seconds: how long a moving frame's transforms are kept behind its newest.
    tolerance: seconds by which a stamp may miss what is known; the nearest transform is then taken as it is.
    """

    def __init__(self, seconds: float = 10.0, tolerance: float = 0.0) -> None:
        for name, value in (("seconds", seconds), ("tolerance", tolerance)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value!r}; it must be a finite number of seconds, 0 or more")
        self._kept, self._tolerance = round(seconds * 1e9), round(tolerance * 1e9)
        self._histories: dict[str, _History] = {}
        self._frames: set[str] = set()
        self._lock = Lock()

    def add(
        self,
        parent: str,
        child: str,
        stamp: int,
        translation: Sequence[float] | Array,
        rotation: Sequence[float] | Array,
        static: bool = False,
    ) -> str:
        """Take the place of ``child`` in ``parent``, T_parent_child, at a stamp in nanoseconds.

        A stamp that is known already gets the new transform. One that lies further back than ``seconds`` means that
        the clock was set back, as when a bag is played again: the child's history is then forgotten. Where a child gets
        another parent, each counts at its own stamps.

        translation: x, y, z in metres.   rotation: unit quaternion x, y, z, w.
        static: it holds at any time, whatever the stamp.

        Returns:
            Why it was refused, in one sentence; empty where it was taken.
        """
        place, turn = _numbers(translation, 3), _numbers(rotation, 4)
        problem = _problem(parent, child, stamp, place, turn)
        if problem or place is None or turn is None:
            return problem
        parent, child = _plain(parent), _plain(child)
        sample = _Sample(parent, place, turn / np.linalg.norm(turn))
        with self._lock:
            if len(self._frames | {parent, child}) > _FRAMES:
                return f"the transform of {shown(child)!r} is refused: there are {_FRAMES} frames already, so " + (
                    "let its publisher keep to fixed frame names"
                )
            self._frames |= {parent, child}
            self._insert(child, operator.index(stamp), sample, static)
        return ""

    def _insert(self, child: str, stamp: int, sample: _Sample, static: bool) -> None:
        history = self._histories.get(child)
        if history is None or static or history.static or stamp < history.stamps[-1] - self._kept:
            self._histories[child] = _History(static, [stamp], [sample])
            return
        i = bisect_left(history.stamps, stamp)
        if i < len(history.stamps) and history.stamps[i] == stamp:
            history.samples[i] = sample
            return
        history.stamps.insert(i, stamp)
        history.samples.insert(i, sample)
        too_old = bisect_left(history.stamps, history.stamps[-1] - self._kept)
        history.drop(max(too_old, len(history.stamps) - _SAMPLES))

    def lookup(self, target: str, source: str, stamp: int) -> Array:
        """T_target_source, (4, 4), at a stamp in nanoseconds: takes points of ``source`` to ``target``.

        Between two transforms of a frame, translations are interpolated linearly and rotations along the shortest arc.
        Only the frames below the nearest common ancestor need to be known at the stamp.

        Raises:
            TransformUnknown: says in one sentence which frame is missing, and what to do.
        """
        target, source, stamp = _plain(target), _plain(source), operator.index(stamp)
        wanted = f"there is no transform from {shown(source)!r} to {shown(target)!r}: "
        with self._lock:
            for name in (target, source):
                if name not in self._frames:
                    raise TransformUnknown(
                        f"{wanted}no transform of the frame {shown(name)!r} was received; check its name and that its "
                        "publisher runs"
                    )
            up, down = self._chain(source, stamp, wanted), self._chain(target, stamp, wanted)
            if up[-1] != down[-1]:
                raise TransformUnknown(
                    f"{wanted}they belong to two trees with the roots {shown(up[-1])!r} and {shown(down[-1])!r}; "
                    "publish the transform that connects them"
                )
            while len(up) > 1 and len(down) > 1 and up[-2] == down[-2]:
                up.pop()
                down.pop()
            steps_up = [self._at(child, stamp, wanted) for child in up[:-1]]
            steps_down = [self._at(child, stamp, wanted) for child in down[:-1]]
        return _inverse(_product(steps_down)) @ _product(steps_up)

    def _chain(self, frame: str, stamp: int, wanted: str) -> list[str]:
        """The frame, its parent, and so on up to its root."""
        chain = [frame]
        while (history := self._histories.get(chain[-1])) is not None:
            parent = history.parent(stamp)
            if parent in chain:
                loop = " -> ".join(shown(name, 40) for name in [*chain[chain.index(parent) :][:4], parent])
                raise TransformUnknown(
                    f"{wanted}the frames form a loop, each the parent of the one before ({loop}); stop the publisher "
                    "of one of these transforms"
                )
            chain.append(parent)
            if len(chain) > _DEEPEST + 1:
                raise TransformUnknown(
                    f"{wanted}the frame {shown(frame)!r} has more than {_DEEPEST} frames above it; publish fewer"
                )
        return chain

    def _at(self, child: str, stamp: int, wanted: str) -> tuple[_Sample, _Sample, float]:
        """The samples on either side of a stamp, and how far it lies from the first to the second, 0 to 1."""
        history = self._histories[child]
        stamps, samples = history.stamps, history.samples
        i = bisect_right(stamps, stamp)
        before, after = max(i - 1, 0), min(i, len(stamps) - 1)
        if history.static or stamps[before] == stamp:
            return samples[before], samples[before], 0.0
        if 0 < i < len(stamps) and samples[before].parent == samples[after].parent:
            return samples[before], samples[after], (stamp - stamps[before]) / (stamps[after] - stamps[before])
        nearest = before if stamp - stamps[before] < abs(stamps[after] - stamp) else after
        if abs(stamp - stamps[nearest]) <= self._tolerance:
            return samples[nearest], samples[nearest], 0.0
        name = shown(child)
        if i == len(stamps):
            found = f"a stamp {(stamp - stamps[-1]) / 1e9:.3g} s after the newest transform of {name!r} is needed, an "
            advice = "extrapolation into the future; look up again when it has arrived, or check that clocks agree"
        elif i == 0:
            found = f"a stamp {(stamps[0] - stamp) / 1e9:.3g} s before the oldest transform of {name!r} is needed, an "
            advice = "extrapolation into the past; look up sooner, keep more seconds, or check that clocks agree"
        else:
            parents = f"from {shown(samples[before].parent)!r} to {shown(samples[after].parent)!r}"
            found = f"{name!r} changes its parent {parents} within {(stamps[after] - stamps[before]) / 1e9:.3g} s "
            advice = "around the stamp; look up a stamp before or after, or stop one of the publishers if there are two"
        raise TransformUnknown(f"{wanted}{found}{advice}")


def _plain(name: str) -> str:
    """Without the leading slash that ROS 1 wrote, as tf2 does."""
    return name[1:] if name.startswith("/") else name


def _numbers(values: Any, count: int) -> Array | None:
    try:
        numbers = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _problem(parent: Any, child: Any, stamp: Any, place: Array | None, turn: Array | None) -> str:
    for name, role in ((child, "child"), (parent, "parent")):
        if not isinstance(name, str) or not _plain(name):
            return f"a transform without the name of its {role} frame is refused; let its publisher set the frame ids"
        if len(name) > _LONGEST_NAME:
            return (
                f"a transform is refused: its {role} frame {shown(name)!r} has a name of {len(name)} characters; "
                f"expected at most {_LONGEST_NAME}, so rename it"
            )
    what = f"the transform of {shown(_plain(child))!r} in {shown(_plain(parent))!r} is refused: "
    if _plain(parent) == _plain(child):
        return f"{what}a frame cannot be its own parent; give it another name"
    if isinstance(stamp, bool) or not isinstance(stamp, (int, np.integer)):
        return f"{what}its stamp is {shown(stamp)!r}; expected a whole number of nanoseconds"
    if place is None:
        return f"{what}its translation is no 3 finite numbers; expected x, y and z in metres, so check its publisher"
    if turn is None:
        return f"{what}its rotation is no 4 finite numbers; expected a quaternion x, y, z, w, so check its publisher"
    with np.errstate(over="ignore"):
        squared = float(turn @ turn)
    if not abs(squared - 1) <= _NORM:
        return (
            f"{what}its quaternion has the length {math.sqrt(squared):.3g} and is no rotation; expected length 1, so "
            "normalise it (no rotation is 0, 0, 0, 1)"
        )
    return ""


def _product(steps: list[tuple[_Sample, _Sample, float]]) -> Array:
    """T_root_frame of the steps from a frame up to a root."""
    out = np.eye(4)
    for first, second, share in steps:
        out = _matrix(first, second, share) @ out
    return out


def _matrix(first: _Sample, second: _Sample, share: float) -> Array:
    out = np.eye(4)
    out[:3, 3] = (1 - share) * first.translation + share * second.translation
    out[:3, :3] = to_matrices(_slerp(first.rotation, second.rotation, share))[0]
    return out


def _slerp(first: Array, second: Array, share: float) -> Array:
    """Along the shorter arc between two unit quaternions (Shoemake 1985)."""
    if share == 0:
        return first
    cosine = float(first @ second)
    if cosine < 0:  # q and -q are the same rotation
        second, cosine = -second, -cosine
    # Near 0 the sines cancel; the straight line then differs by less than rounding does.
    if cosine > 1 - 1e-9:
        out = (1 - share) * first + share * second
    else:
        angle = math.acos(cosine)
        out = (math.sin((1 - share) * angle) * first + math.sin(share * angle) * second) / math.sin(angle)
    return np.asarray(out / np.linalg.norm(out))


def _inverse(transform: Array) -> Array:
    out = np.eye(4)
    out[:3, :3] = transform[:3, :3].T
    out[:3, 3] = -transform[:3, :3].T @ transform[:3, 3]
    return out
