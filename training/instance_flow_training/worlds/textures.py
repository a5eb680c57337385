# SPDX-License-Identifier: Apache-2.0
"""Colours and textures, drawn from a generator in a way that does not depend on the resolution.

Every random number is drawn for a fixed grid or a fixed list and then brought to the size that is asked for, so the
same generator state gives the same picture at 192 x 320 and at 384 x 640.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Image = NDArray[np.uint8]
Palette = tuple[tuple[float, float, float], ...]
"""Colours as (hue, saturation, value) in 0..1, for the values 0 .. 1 of a field, evenly spaced."""

KINDS = ("stripes", "spots", "marble", "rings", "patches", "gradient")
_FIXED_POINT = 4


@dataclass(frozen=True)
class TextureSpec:
    """What one object looks like. frequency: cycles over its length.   angle: radians.   seed: of phase and noise."""

    kind: str
    frequency: float
    angle: float
    palette: Palette
    seed: int


def random_spec(rng: np.random.Generator) -> TextureSpec:
    """Draw a vivid look for an object."""
    hue, saturation, value = rng.random(), rng.uniform(0.45, 0.9), rng.uniform(0.65, 1.0)
    accent = hue + rng.choice([0.08, -0.08, 0.33, 0.5])
    palette = (
        (hue, min(1.0, saturation + 0.1), 0.55 * value),
        (hue, saturation, value),
        (accent, saturation * rng.uniform(0.25, 1.0), min(1.0, value + 0.15)),
    )
    kind = str(rng.choice(KINDS))
    return TextureSpec(kind, rng.uniform(2.0, 4.5), rng.uniform(0, np.pi), palette, int(rng.integers(1 << 31)))


def look_alike(spec: TextureSpec, rng: np.random.Generator) -> TextureSpec:
    """The same pattern and nearly the same colours: another phase, a small shift of hue and brightness."""
    shift = rng.uniform(0.015, 0.06) * rng.choice([-1, 1])
    value = rng.uniform(0.85, 1.1)
    palette = tuple((h + shift, s, min(1.0, v * value)) for h, s, v in spec.palette)
    angle = spec.angle + rng.uniform(-0.6, 0.6)
    frequency = spec.frequency * rng.uniform(0.8, 1.25)
    return replace(spec, palette=palette, angle=angle, frequency=frequency, seed=int(rng.integers(1 << 31)))


def occluder_spec(rng: np.random.Generator) -> TextureSpec:
    """Earthy, less vivid looks for posts, bushes and rocks."""
    hue, saturation, value = rng.choice([0.08, 0.1, 0.28, 0.35, 0.6]), rng.uniform(0.1, 0.55), rng.uniform(0.35, 0.8)
    palette = (
        (hue, saturation, 0.6 * value),
        (hue, saturation, value),
        (hue + 0.04, saturation, 1.2 * min(0.8, value)),
    )
    kind = str(rng.choice(["stripes", "marble", "patches"]))
    return TextureSpec(kind, rng.uniform(2.0, 6.0), rng.uniform(0, np.pi), palette, int(rng.integers(1 << 31)))


def dark_ink(spec: TextureSpec) -> FloatArray:
    """Line colour (3,) float32 RGB 0..255 that goes with the palette."""
    hue, saturation, value = spec.palette[0]
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, min(1, 0.6 * saturation), 0.28 * value), np.float32)


def object_texture(spec: TextureSpec, side: int) -> Image:
    """Texture (side, side, 3) uint8 over the local square -0.6 .. 0.6."""
    rng = np.random.default_rng(spec.seed)
    along = (np.arange(side, dtype=np.float32) + 0.5) / side * 1.2 - 0.6
    x, y = along[None, :], along[:, None]
    grain = _noise(rng, side, side, 5, 5)
    phase = rng.uniform(0, 2 * np.pi)
    turned = x * np.float32(np.cos(spec.angle)) + y * np.float32(np.sin(spec.angle))
    field: NDArray[Any]
    if spec.kind == "stripes":
        field = 0.5 + 0.6 * np.sin(2 * np.pi * spec.frequency * turned + phase + 2.5 * (grain - 0.5))
    elif spec.kind == "rings":
        center = rng.uniform(-0.2, 0.2, 2)
        field = 0.5 + 0.6 * np.sin(2 * np.pi * spec.frequency * np.hypot(x - center[0], y - center[1]) + phase)
    elif spec.kind == "marble":
        field = 0.6 * grain + 0.7 * _noise(rng, side, side, 12, 12) - 0.15
    elif spec.kind == "patches":
        field = 0.5 + 4 * (_noise(rng, side, side, 7, 7) - 0.5)
    elif spec.kind == "gradient":
        field = 0.5 + 0.9 * turned + 0.4 * (grain - 0.5)
    else:
        field = _spots(rng, side, 0.35 * grain + 0.15)
    return colour(field, spec.palette)


def colour(field: NDArray[Any], palette: Palette) -> Image:
    """Map a field (h, w) of 0..1 to an image (h, w, 3) uint8 RGB along the palette."""
    stops = np.array([colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in palette]) * 255
    at = np.linspace(0, 255, len(stops))
    table = np.stack([np.interp(np.arange(256), at, stops[:, channel]) for channel in range(3)], 1)
    index = cv2.convertScaleAbs(np.clip(field, 0, 1), alpha=255)
    return np.asarray(cv2.applyColorMap(index, table.round().astype(np.uint8)[:, None, :]), np.uint8)


def _noise(rng: np.random.Generator, height: int, width: int, rows: int, columns: int) -> FloatArray:
    """Smooth noise (height, width) of about 0..1 with rows x columns bumps."""
    grid = rng.random((rows, columns), np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _spots(rng: np.random.Generator, side: int, field: FloatArray) -> FloatArray:
    for x, y, radius in rng.uniform((0, 0, 0.04), (1, 1, 0.11), (18, 3)):
        center = (_fixed(x * side), _fixed(y * side))
        cv2.circle(field, center, _fixed(radius * side), 1.0, -1, cv2.LINE_8, _FIXED_POINT)
    return field


def _fixed(value: float) -> int:
    return round((value - 0.5) * (1 << _FIXED_POINT))


def background(rng: np.random.Generator, height: int, width: int) -> Image:
    """Ground (height, width, 3) uint8: noise, ripples, planks or tiles, with flat shapes lying about on it."""
    hue, value = rng.random(), rng.uniform(0.3, 0.8)
    saturation = rng.uniform(0.08, 0.42) if rng.random() < 0.8 else rng.uniform(0.42, 0.62)
    contrast = rng.uniform(0.15, 0.4)
    palette = (
        (hue, saturation, value * (1 - contrast)),
        (hue + rng.uniform(-0.05, 0.05), saturation * 0.9, value),
        (hue + rng.uniform(-0.12, 0.12), saturation * 0.7, min(1.0, value * (1 + contrast))),
    )
    aspect = 10 / 6
    field = np.full((height, width), 0.1, np.float32)
    fine, coarse = rng.uniform(0.05, 0.3, 2)
    for rows, weight in ((4, 0.45), (13, coarse), (37, 0.6 * fine), (110, fine)):
        field += np.float32(weight) * _noise(rng, height, width, rows, round(rows * aspect))
    _structure(rng, field)
    picture = colour(field, palette)
    _paint_clutter(rng, picture)
    return picture


def _structure(rng: np.random.Generator, field: FloatArray) -> None:
    """Add planks, tiles, ripples or nothing to a field, in place."""
    height, width = field.shape
    x = np.arange(width, dtype=np.float32)[None, :] / height
    y = np.arange(height, dtype=np.float32)[:, None] / height
    angle, frequency, depth = rng.uniform(0, np.pi), rng.uniform(4, 12), rng.uniform(0.1, 0.35)
    cosine, sine = np.float32(frequency * np.cos(angle)), np.float32(frequency * np.sin(angle))
    across, along = x * cosine + y * sine, y * cosine - x * sine
    kind = rng.choice(["plain", "ripples", "planks", "tiles"])
    if kind == "ripples":
        wave = np.sin(2 * np.pi * across + 6 * field)
        field += np.float32(0.5 * depth) * wave
    elif kind != "plain":
        joint = np.abs(across % 1 - 0.5) > 0.46
        if kind == "tiles":
            joint |= np.abs(along % 1 - 0.5) > 0.46
        field -= np.float32(depth) * joint


def _paint_clutter(rng: np.random.Generator, picture: Image) -> None:
    """Paint pebbles, paper and sticks, so that bright colour is not enough to find an object, in place."""
    height, width = picture.shape[:2]
    for _ in range(int(rng.integers(0, 22))):
        center, radius = rng.random(2) * (width, height), 0.5 * height * np.exp(rng.uniform(np.log(0.03), np.log(0.13)))
        corners, roundness, stretch, angle = rng.integers(3, 9), rng.random(), rng.uniform(0.15, 1), rng.uniform(0, 6.3)
        radii = radius * rng.uniform(0.75, 1, 9)[:corners]
        hue, saturation, value = rng.random(), rng.uniform(0.05, 0.9), rng.uniform(0.25, 1)
        turn = 2 * np.pi * np.arange(corners) / corners
        points = np.stack([radii * np.cos(turn), stretch * radii * np.sin(turn)], 1)
        if roundness < 0.5:
            for _ in range(2):
                after = np.roll(points, -1, 0)
                points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
        turned = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + center
        paint = tuple(255 * c for c in colorsys.hsv_to_rgb(hue, saturation, value))
        fixed = np.round((turned - 0.5) * (1 << _FIXED_POINT)).astype(np.int32)
        cv2.fillPoly(picture, [fixed], paint, cv2.LINE_AA, _FIXED_POINT)
