# SPDX-License-Identifier: Apache-2.0
"""Image messages of every encoding, and what colours they are by formulas in plain numpy.

Written from the definitions: the channel order in the name; 16 bits to 8 by 255 / 65535; YUV by ITU-R BT.601 with
16..235 for luma and 16..240 for chroma, each chroma value for all pixels that share it; a missing Bayer colour is the
mean of its sites among the eight neighbours.

All that turns messages into arrays runs through the one table, ``GOLDEN``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Values = NDArray[np.int64]
Planes = list[tuple[Values, int]]
"""Rows of values, each with how many steps lie between two of its rows."""
Paint = Callable[[np.random.Generator, int, int], tuple[Planes, Floats]]
"""From height and width to an image in some encoding, and its colours (height, width, 3), NaN where not defined."""

REGULAR, ODD = (6, 8), (5, 7)
FLAT_COLOUR = (200, 120, 40)


@dataclass(frozen=True)
class Golden:
    """A sensor_msgs/Image, and the colours (height, width, 3) that it must give, NaN where any will do."""

    name: str
    encoding: str
    height: int
    width: int
    step: int
    is_bigendian: bool
    data: bytes
    expected: Floats
    tolerance: float

    def check(self, image: NDArray[np.uint8]) -> None:
        """Fail unless an image holds the colours expected."""
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.shape == self.expected.shape
        defined = np.isfinite(self.expected)
        np.testing.assert_allclose(image[defined], self.expected[defined], rtol=0, atol=self.tolerance)


@dataclass(frozen=True)
class Family:
    """One encoding: how to paint noise, and one colour where that is another test, in which sizes, how exactly."""

    paint: Paint
    flat: Paint | None
    bits: int
    regular: tuple[int, int]
    smallest: tuple[int, int]
    tolerance: float
    flat_tolerance: float = 0.0


def _channels(order: str, count: int, bits: int) -> Family:
    """``order`` tells which of ``count`` channels are red, green and blue."""

    def paint(rng: np.random.Generator, height: int, width: int) -> tuple[Planes, Floats]:
        values = rng.integers(0, 2**bits, (height, width, count))
        values.reshape(-1)[:2] = (0, 2**bits - 1)[: values.size]
        rgb = np.stack([values[..., int(channel)] for channel in order], axis=-1)
        return [(values.reshape(height, -1), 1)], rgb * 255 / (2**bits - 1)

    return Family(paint, None, bits, ODD, (1, 1), 0 if bits == 8 else 0.5)


def _bayer(pattern: str, bits: int) -> Family:
    scale = (2**bits - 1) // 255

    def colour_of_sites(height: int, width: int) -> NDArray[np.str_]:
        tile = np.array(list(pattern)).reshape(2, 2)
        return tile[np.arange(height)[:, None] % 2, np.arange(width) % 2]

    def paint(rng: np.random.Generator, height: int, width: int) -> tuple[Planes, Floats]:
        values, sites = rng.integers(0, 2**bits, (height, width)), colour_of_sites(height, width)
        rgb = np.full((height, width, 3), np.nan)
        for y, x in np.ndindex(height - 2, width - 2):
            around, kinds = values[y : y + 3, x : x + 3], sites[y : y + 3, x : x + 3]
            for channel, letter in enumerate("rgb"):
                known = around[1, 1] if kinds[1, 1] == letter else around[kinds == letter].mean()
                rgb[y + 1, x + 1, channel] = known / scale
        return [(values, 1)], rgb

    def flat(_: np.random.Generator, height: int, width: int) -> tuple[Planes, Floats]:
        colours = dict(zip("rgb", FLAT_COLOUR, strict=True))
        values = np.vectorize(colours.__getitem__)(colour_of_sites(height, width)) * scale
        return [(values, 1)], np.broadcast_to(np.array(FLAT_COLOUR, float), (height, width, 3))

    return Family(paint, flat, bits, ODD, (3, 3), 0.5 if bits == 8 else 1.0)


def to_rgb(y: Values, u: Values, v: Values) -> Floats:
    """Colours of luma and chroma by ITU-R BT.601."""
    luma, blue, red = 1.164383 * (y - 16.0), u - 128.0, v - 128.0
    rgb = np.stack([luma + 1.596027 * red, luma - 0.391762 * blue - 0.812968 * red, luma + 2.017232 * blue], axis=-1)
    return np.clip(rgb, 0, 255)


def to_yuv(red: float, green: float, blue: float) -> tuple[int, int, int]:
    """The other way round, from the definition of luma: 0.299 red + 0.587 green + 0.114 blue."""
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = 112 * (blue - luma) / (255 * 0.886), 112 * (red - luma) / (255 * 0.701)
    return round(16 + 219 * luma / 255), round(128 + u), round(128 + v)


def _yuv(pack: Callable[[Values, Values, Values], Planes], share: tuple[int, int]) -> Family:
    """``share``: rows and columns of pixels that have one chroma value in common."""

    def spread(y: Values, u: Values, v: Values) -> tuple[Planes, Floats]:
        u_all, v_all = (plane.repeat(share[0], axis=0).repeat(share[1], axis=1) for plane in (u, v))
        return pack(y, u, v), to_rgb(y, u_all, v_all)

    def paint(rng: np.random.Generator, height: int, width: int) -> tuple[Planes, Floats]:
        u, v = rng.integers(16, 241, (2, height // share[0], width // share[1]))
        return spread(rng.integers(16, 236, (height, width)), u, v)

    def flat(_: np.random.Generator, height: int, width: int) -> tuple[Planes, Floats]:
        y, u, v = to_yuv(*FLAT_COLOUR)
        small = (height // share[0], width // share[1])
        planes, _rgb = spread(np.full((height, width), y), np.full(small, u), np.full(small, v))
        return planes, np.broadcast_to(np.array(FLAT_COLOUR, float), (height, width, 3))

    return Family(paint, flat, 8, ODD if share == (1, 1) else REGULAR, share, 1.5, 1.5)


def _uyvy(y: Values, u: Values, v: Values) -> Planes:
    return [(np.stack([u, y[:, ::2], v, y[:, 1::2]], axis=-1).reshape(len(y), -1), 1)]


def _yuyv(y: Values, u: Values, v: Values) -> Planes:
    return [(np.stack([y[:, ::2], u, y[:, 1::2], v], axis=-1).reshape(len(y), -1), 1)]


def _nv12(y: Values, u: Values, v: Values) -> Planes:
    return [(y, 1), (np.stack([u, v], axis=-1).reshape(len(u), -1), 1)]


def _nv21(y: Values, u: Values, v: Values) -> Planes:
    return _nv12(y, v, u)


def _nv24(y: Values, u: Values, v: Values) -> Planes:
    return [(y, 1), (np.stack([u, v], axis=-1).reshape(len(u), -1), 2)]


FAMILIES: dict[str, Family] = {
    **{f"rgb{bits}": _channels("012", 3, bits) for bits in (8, 16)},
    **{f"bgr{bits}": _channels("210", 3, bits) for bits in (8, 16)},
    **{f"rgba{bits}": _channels("012", 4, bits) for bits in (8, 16)},
    **{f"bgra{bits}": _channels("210", 4, bits) for bits in (8, 16)},
    **{f"mono{bits}": _channels("000", 1, bits) for bits in (8, 16)},
    **{f"{bits}UC1": _channels("000", 1, bits) for bits in (8, 16)},
    **{f"{bits}UC3": _channels("210", 3, bits) for bits in (8, 16)},
    **{f"{bits}UC4": _channels("210", 4, bits) for bits in (8, 16)},
    **{f"bayer_{p}{bits}": _bayer(p, bits) for p in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)},
    **{name: _yuv(_uyvy, (1, 2)) for name in ("uyvy", "yuv422")},
    **{name: _yuv(_yuyv, (1, 2)) for name in ("yuyv", "yuv422_yuy2")},
    "nv12": _yuv(_nv12, (2, 2)),
    "nv21": _yuv(_nv21, (2, 2)),
    "nv24": _yuv(_nv24, (1, 1)),
}
"""Every encoding of sensor_msgs/image_encodings.hpp, Humble to Rolling, that holds colours or grey values."""


def _bytes(planes: Planes, dtype: np.dtype[np.generic], step: int, rng: np.random.Generator) -> bytes:
    """Rows one below the other, with noise between the end of a row and the next step."""
    parts = []
    for values, steps in planes:
        rows = values.astype(dtype).view(np.uint8).reshape(len(values), -1)
        whole = rng.integers(0, 256, (len(rows), steps * step), dtype=np.uint8)
        whole[:, : rows.shape[1]] = rows
        parts.append(whole.tobytes())
    return b"".join(parts)


def _vectors(encoding: str, family: Family) -> Iterator[Golden]:
    rng = np.random.default_rng(zlib.crc32(encoding.encode()))
    layouts = [
        ("tight", family.paint, family.regular, 0),
        ("padded", family.paint, family.regular, 24),
        ("odd padding", family.paint, family.regular, 5),
        ("smallest", family.paint, family.smallest, 0),
    ]
    if family.flat is not None:
        layouts.append(("flat", family.flat, family.regular, 0))
    for layout, paint, (height, width), padding in layouts:
        for is_bigendian in (False, True) if family.bits == 16 else (False,):
            dtype = np.dtype(np.uint8) if family.bits == 8 else np.dtype(">u2" if is_bigendian else "<u2")
            planes, expected = paint(rng, height, width)
            step = planes[0][0].shape[1] * dtype.itemsize + padding
            data = _bytes(planes, dtype, step, rng)
            name = f"{encoding} {layout}" + " big-endian" * is_bigendian
            tolerance = family.flat_tolerance if layout == "flat" else family.tolerance
            yield Golden(name, encoding, height, width, step, is_bigendian, data, expected, tolerance)


GOLDEN: list[Golden] = [golden for encoding, family in FAMILIES.items() for golden in _vectors(encoding, family)]
