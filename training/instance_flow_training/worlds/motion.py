# SPDX-License-Identifier: Apache-2.0
"""The script of a synthetic world: which objects there are, and how each one moves.

Conventions are those of ``camera``. A script knows nothing of pixels, so one script serves every resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from instance_flow_training.worlds import outlines, textures
from instance_flow_training.worlds.camera import CameraPath, Path, cut, film, swing
from instance_flow_training.worlds.situations import Situation
from instance_flow_training.worlds.textures import TextureSpec

Generator = np.random.Generator

MOST_OBJECTS = 254
"""Objects of a clip; their labels are bytes, and 255 is for pixels that are not to be judged."""


@dataclass(frozen=True)
class Thing:
    """One object or occluder over the T frames, as the camera sees it.

    class_id: row of the class names, -1 for an occluder.   shape: (4,) float32 in -1 .. 1, for the outline.
    centers: (T, 2).   velocities: (T, 2) per frame of time.   scales: (T,) size in the image.
    angles: (T,) radians from x towards y.   phases: (T,) radians, of the outline's beat.
    """

    kind: str
    class_id: int
    texture: TextureSpec
    shape: NDArray[np.float32]
    centers: Path
    velocities: Path
    scales: Path
    angles: Path
    phases: Path


@dataclass(frozen=True)
class _Actor:
    """One object before its path is known: what it is and how large."""

    kind: str
    class_id: int
    texture: TextureSpec
    shape: NDArray[np.float32]
    size: float
    speed: float


@dataclass(frozen=True)
class Script:
    """Everything that happens in a world.

    things: objects first, then occluders.   order: rows of things from back to front.   class_ids: (N,) of the objects.
    ground_velocities: (T, 2) motion of the ground in the image, per frame of time.
    """

    things: tuple[Thing, ...]
    order: tuple[int, ...]
    camera: CameraPath
    ground_velocities: Path
    class_ids: NDArray[np.int64]


def write_script(
    rng: Generator,
    situation: Situation,
    frames: int,
    aspect: float,
    objects: tuple[int, int],
    object_size: tuple[float, float],
    draw_kind: Callable[[Generator], tuple[str, int]] | None = None,
) -> Script:
    """Draw a script of ``frames`` pictures for a view of height 1 and width ``aspect``.

    draw_kind: gives kind and class_id of an object; None = made creatures. Other objects stay upright.
    """
    return _Director(rng, situation, frames, aspect, draw_kind).direct(objects, object_size)


class _Director:
    """Draws cast, camera and paths; holds what all of them need: generator, situation, time (T,), half view (2,)."""

    def __init__(
        self,
        rng: Generator,
        situation: Situation,
        frames: int,
        aspect: float,
        draw_kind: Callable[[Generator], tuple[str, int]] | None,
    ) -> None:
        self.rng, self.situation = rng, situation
        self.upright = draw_kind is not None
        self.draw_kind = draw_kind or _draw_creature
        # One frame of time before the first picture and after the last, so that every velocity is defined.
        self.time = np.arange(-1, (frames - 1) * situation.step + 2, dtype=np.float64)
        self.half = np.array([aspect / 2, 0.5])
        self.camera = film(rng, situation, self.time)
        slow_clips = situation.speed[0] < 0.1
        self.tempo = float(np.exp(rng.uniform(np.log(0.4), 0))) if slow_clips else 1.0

    def direct(self, objects: tuple[int, int], object_size: tuple[float, float]) -> Script:
        roles = self._roles(int(self.rng.integers(objects[0], objects[1] + 1)))
        if self.situation.turnover:
            roles = ["visiting"] * min(len(roles) * math.ceil(len(self.time) / self.situation.turnover), MOST_OBJECTS)
        cast = self._cast(roles, object_size)
        hidden = [actor.size for actor, role in zip(cast, roles, strict=True) if role == "hidden"]
        occluders = self._occluders(hidden)
        things: list[Thing] = []
        for row, (actor, role) in enumerate(zip(cast, roles, strict=True)):
            if role == "crossing":
                things += map(self._perform, cast[row : row + 2], self._cross(actor))
            elif role == "hidden":
                behind = occluders[int(self.rng.integers(min(len(occluders), len(hidden))))]
                things.append(self._perform(actor, self._hide(actor, *behind)))
            elif role == "leaving":
                things.append(self._perform(actor, self._leave(actor)))
            elif role == "visiting":
                things.append(self._perform(actor, self._visit(actor)))
            elif role == "wander":
                things.append(self._perform(actor, self._wander(actor.size, actor.speed)))
        order = [int(k) for k in self.rng.permutation(len(things))]
        things += [self._pose_static(actor, path) for actor, path in occluders]
        order += range(len(order), len(things))
        class_ids = np.array([actor.class_id for actor in cast], np.int64)
        ground = cut(self.camera.ground_velocities(), self.situation.step)
        return Script(tuple(things), tuple(order), self.camera.cut(self.situation.step), ground, class_ids)

    # Cast

    def _roles(self, count: int) -> list[str]:
        """One role for each object. A "crossing" object is followed by its partner, "crossed"."""
        situation = self.situation
        shares = np.array([situation.crossing, situation.hidden, situation.leaving, 0.0])
        shares[3] = max(0.0, 1 - shares.sum())
        roles: list[str] = []
        while len(roles) < count:
            drawn = str(self.rng.choice(["crossing", "hidden", "leaving", "wander"], p=shares))
            role = situation.must if not roles else drawn
            if role == "crossing":
                roles += ["crossing", "crossed"] if count - len(roles) > 1 else ["wander"]
            else:
                roles.append(role)
        return roles

    def _cast(self, roles: list[str], object_size: tuple[float, float]) -> list[_Actor]:
        cast: list[_Actor] = []
        low, high = np.log(object_size)
        for role in roles:
            size = min(float(np.exp(self.rng.uniform(low, high))), self.situation.largest)
            actor = self._draw_actor(size)
            if role == "crossed":
                actor = replace(self._imitate(cast[-1], actor), speed=cast[-1].speed)
            elif cast and self.rng.random() < self.situation.look_alike:
                actor = self._imitate(cast[int(self.rng.integers(len(cast)))], actor)
            cast.append(actor)
        return cast

    def _draw_actor(self, size: float) -> _Actor:
        kind, class_id = self.draw_kind(self.rng)
        shape = self.rng.uniform(-1, 1, 4).astype(np.float32)
        low, high = np.log(self.situation.speed)
        # At most a fifth of the view's width per picture (a look-alike of a larger object: twice that), or else the
        # borders would throw an object back more often than it is seen.
        fastest = 0.4 * self.half[0] / self.situation.step
        speed = min(float(np.exp(self.rng.uniform(low, high))) * size * self.tempo, fastest)
        return _Actor(kind, class_id, textures.random_spec(self.rng), shape, size, speed)

    def _imitate(self, model: _Actor, actor: _Actor) -> _Actor:
        """Take kind, and nearly look and size, from the model; the speed in sizes per frame stays the actor's own."""
        size = model.size * float(self.rng.uniform(0.85, 1.0))
        shape = (0.8 * model.shape + 0.2 * actor.shape).astype(np.float32)
        texture = textures.look_alike(model.texture, self.rng)
        return replace(model, texture=texture, shape=shape, size=size, speed=actor.speed * size / actor.size)

    def _occluders(self, hidden: list[float]) -> list[tuple[_Actor, Path]]:
        """Occluders and their paths on the stage; the first, at most three, are large enough for the hidden objects."""
        low, high = self.situation.occluders
        extra = int(self.rng.integers(low, high + 1))
        covers = [max(hidden)] * min(3, len(hidden)) if hidden else []
        covers += list(self.rng.uniform(0.06, 0.2, max(0, extra - len(covers))))
        return [self._place_occluder(float(cover), row < len(hidden)) for row, cover in enumerate(covers)]

    def _place_occluder(self, cover: float, central: bool) -> tuple[_Actor, Path]:
        kind = str(self.rng.choice(list(outlines.OCCLUDERS), p=[0.55, 0.3, 0.15]))
        width = cover * self.rng.uniform(0.9, 1.3)
        size = float(width / 0.12) if kind == "post" else float(1.5 * width)
        shape = self.rng.uniform(-1, 1, 4).astype(np.float32)
        actor = _Actor(kind, -1, textures.occluder_spec(self.rng), shape, size, 0.0)
        seen_at = int(self.rng.integers(len(self.time)))
        place = self.rng.uniform(-1, 1, 2) * self.half * (0.55 if central else 0.95)
        nearness = 1.0 if central else float(self.rng.uniform(1.0, 1.3))
        camera = self.camera
        path = place - nearness * (camera.drift - camera.drift[seen_at]) - (nearness - 1) * camera.shift
        return actor, path

    # Paths on the stage, (T, 2)

    def _heading(self) -> NDArray[np.float64]:
        """Random unit vector, more often along the longer side of the view."""
        angle = self.rng.uniform(0, 2 * np.pi)
        vector = self.half * (np.cos(angle), np.sin(angle))
        return vector / np.linalg.norm(vector)

    def _wander(self, size: float, speed: float) -> Path:
        """At constant speed along gentle bends, thrown back by the borders."""
        bends = swing(self.rng, self.time, float(self.rng.uniform(0.1, 1.2)))
        heading = self._heading()
        cosine, sine = np.cos(bends), np.sin(bends)
        steps = speed * np.stack([cosine * heading[0] - sine * heading[1], sine * heading[0] + cosine * heading[1]], 1)
        bound = self._bound(size)
        return _fold(self.rng.uniform(-bound, bound) + np.cumsum(steps, 0), -bound, bound)

    def _bound(self, size: float) -> NDArray[np.float64]:
        return np.maximum(self.half - 0.4 * size, 0.1)

    def _cross(self, actor: _Actor) -> list[Path]:
        """Two that pass close to each other again and again around a slowly moving middle."""
        reach = actor.size * self.rng.uniform(0.9, 1.8)
        along = self._heading()
        across = np.array([-along[1], along[0]])
        gap = actor.size * self.rng.uniform(-0.2, 0.2)
        room = np.maximum(self._bound(actor.size) - reach * np.abs(along), 0.02)
        slow = 0.08 * actor.size
        start = self.rng.uniform(-1, 1, 2) * room + np.cumsum(np.full((len(self.time), 2), slow) * self._heading(), 0)
        middle = _fold(start, -room, room)
        first = actor.speed * self.time + self.rng.uniform(0, 4 * reach)
        paths = []
        for sign, lag in ((1, 0.0), (-1, self.rng.uniform(-0.3, 0.3) * reach)):
            sweep = _fold(first + lag, -reach, reach)[:, None]
            paths.append(middle + sign * (sweep * along + gap * across))
        return paths

    def _hide(self, actor: _Actor, occluder: _Actor, place: Path) -> Path:
        """To and fro behind an occluder, and back into the view should that have gone."""
        across = self.rng.uniform(-0.3, 0.3) if occluder.kind == "post" else self.rng.uniform(0, np.pi)
        width = 0.12 * occluder.size if occluder.kind == "post" else 0.8 * occluder.size
        reach = 0.5 * width + actor.size * self.rng.uniform(0.7, 1.3)
        sweep = _fold(actor.speed * self.time + self.rng.uniform(0, 4 * reach), -reach, reach)
        bound = self._bound(actor.size)
        path = place + sweep[:, None] * np.array([np.cos(across), np.sin(across)])
        if occluder.kind == "post":
            path = path + np.array([0, 1]) * swing(self.rng, self.time, 0.15)[:, None]
        return _fold(path, -bound, bound)

    def _leave(self, actor: _Actor) -> Path:
        """Out of the view over one border, away for some frames, and back."""
        path = self._wander(actor.size, 0.3 * actor.speed)
        axis = int(self.rng.random() < 0.4)
        side = float(self.rng.choice([-1, 1]))
        length = self.time[-1]
        away = min(self.rng.uniform(3, 9) * self.situation.step, length / 3)
        turning = self.rng.uniform(0.2, 0.6) * length + away / 2
        wall = self.half[axis] + 0.62 * actor.size + 0.5 * actor.speed * away
        back = -self.half[axis] + 0.4 * actor.size
        path[:, axis] = side * _fold(wall + actor.speed * (self.time - turning), back, wall)
        return path

    def _visit(self, actor: _Actor) -> Path:
        """Across the view one to three times, to and fro, out of sight for some frames between; then gone for good."""
        path = self._wander(actor.size, 0.3 * actor.speed)
        axis = int(self.rng.random() < 0.3)
        away = np.exp(self.rng.uniform(np.log(4), np.log(120)))
        wall = self.half[axis] + 0.7 * actor.size + 0.5 * actor.speed * away
        crossing = 2 * wall / actor.speed
        entry = self.rng.uniform(-crossing, self.time[-1])
        end = 2 * wall * int(self.rng.integers(1, 4))
        way = _fold(np.clip(actor.speed * (self.time - entry), 0, end) - wall, -wall, wall)
        path[:, axis] = self.rng.choice([-1, 1]) * way
        return path

    # From the stage to the image

    def _perform(self, actor: _Actor, stage: Path) -> Thing:
        """Let the object face where it goes (a star spins), breathe in depth, and beat its wings."""
        rng, time = self.rng, self.time
        depth = np.exp(swing(self.rng, self.time, float(rng.uniform(0, 0.2))))
        beat = 2 * np.pi * (rng.uniform(0.04, 0.14) * time + rng.random())
        if self.upright:
            angles = swing(self.rng, self.time, 0.1)
        elif actor.kind == "star":
            angles = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.15, 0.15) * time
        else:
            angles = _facing(stage) + swing(self.rng, self.time, 0.15)
        return self._seen(actor, stage, actor.size * depth, angles, beat)

    def _pose_static(self, actor: _Actor, stage: Path) -> Thing:
        ones = np.ones(len(self.time))
        upright = np.pi / 2 + self.rng.uniform(-0.2, 0.2) if actor.kind == "post" else 0.0
        beat = 2 * np.pi * (0.03 * self.time + self.rng.random())
        return self._seen(actor, stage, actor.size * ones, upright * ones, beat)

    def _seen(self, actor: _Actor, stage: Path, sizes: Path, angles: Path, phases: Path) -> Thing:
        """Apply the camera and keep the shown frames of time."""
        centers = self.camera.project(stage)
        paths = (
            centers,
            np.gradient(centers, axis=0),
            sizes * self.camera.zooms,
            angles + self.camera.turns,
            phases,
        )
        shown = (cut(path, self.situation.step) for path in paths)
        return Thing(actor.kind, actor.class_id, actor.texture, actor.shape, *shown)


def _draw_creature(rng: Generator) -> tuple[str, int]:
    kinds = list(outlines.OBJECTS)
    class_id = int(rng.integers(len(kinds)))
    return kinds[class_id], class_id


def _fold(path: Path, low: Path | float, high: Path | float) -> Path:
    """Reflect a path at two walls as often as it takes."""
    span = np.subtract(high, low)
    return low + span - np.abs((path - low) % (2 * span) - span)


def _facing(path: Path) -> Path:
    """Direction of motion (T,) in radians, smoothed over five frames."""
    steps = np.gradient(path, axis=0)
    kernel = np.array([1, 2, 3, 2, 1]) / 9
    padded = np.pad(steps, ((2, 2), (0, 0)), mode="edge")
    smooth = [np.convolve(padded[:, axis], kernel, mode="valid") for axis in (0, 1)]
    return np.arctan2(smooth[1], smooth[0])
