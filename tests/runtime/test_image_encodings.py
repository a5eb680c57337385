# SPDX-License-Identifier: Apache-2.0
"""Every encoding against a formula in plain numpy, with row padding, both byte orders, and sizes that do not fit."""

from __future__ import annotations

import array
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.image_encodings import ENCODINGS, decode_compressed, decode_raw

HEIGHT, WIDTH = 6, 8

Pixels = NDArray[np.generic]


def gray(pixels: Pixels) -> Pixels:
    return np.repeat(pixels, 3, axis=2)


def reverse(pixels: Pixels) -> Pixels:
    return pixels[..., 2::-1]


def first_three(pixels: Pixels) -> Pixels:
    return pixels[..., :3]


# Encoding, bytes per channel, channels, and the formula that picks red, green and blue.
PACKED: list[tuple[str, int, int, Callable[[Pixels], Pixels]]] = [
    ("rgb8", 1, 3, first_three),
    ("bgr8", 1, 3, reverse),
    ("rgba8", 1, 4, first_three),
    ("bgra8", 1, 4, reverse),
    ("mono8", 1, 1, gray),
    ("8UC1", 1, 1, gray),
    ("8UC3", 1, 3, reverse),
    ("8UC4", 1, 4, reverse),
    ("rgb16", 2, 3, first_three),
    ("bgr16", 2, 3, reverse),
    ("rgba16", 2, 4, first_three),
    ("bgra16", 2, 4, reverse),
    ("mono16", 2, 1, gray),
    ("16UC1", 2, 1, gray),
    ("16UC3", 2, 3, reverse),
    ("16UC4", 2, 4, reverse),
]


def padded(rows: NDArray[np.uint8], step: int, rng: np.random.Generator) -> bytes:
    """Bytes of (rows, row bytes) with noise between the end of a row and the next step."""
    whole = rng.integers(0, 256, (len(rows), step), dtype=np.uint8)
    whole[:, : rows.shape[1]] = rows
    return whole.tobytes()


def luma_chroma_to_rgb(y: Pixels, u: Pixels, v: Pixels) -> NDArray[np.float64]:
    """ITU-R BT.601 with 16..235 for luma and 16..240 for chroma."""
    luma, blue, red = 1.164383 * (y.astype(float) - 16), u.astype(float) - 128, v.astype(float) - 128
    rgb = np.stack([luma + 1.596027 * red, luma - 0.391762 * blue - 0.812968 * red, luma + 2.017232 * blue], axis=-1)
    return np.clip(rgb, 0, 255)


@pytest.mark.parametrize("padding", [0, 2, 5], ids=["tight", "padded", "odd padding"])
@pytest.mark.parametrize("bigendian", [False, True], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize(("encoding", "size", "channels", "pick"), PACKED, ids=[row[0] for row in PACKED])
def test_packed(
    encoding: str, size: int, channels: int, pick: Callable[[Pixels], Pixels], bigendian: bool, padding: int
) -> None:
    rng = np.random.default_rng(1)
    dtype = np.dtype(np.uint8) if size == 1 else np.dtype(">u2" if bigendian else "<u2")
    pixels = rng.integers(0, 256**size, (HEIGHT, WIDTH, channels)).astype(dtype)
    row_bytes = WIDTH * channels * size
    data = padded(pixels.view(np.uint8).reshape(HEIGHT, row_bytes), row_bytes + padding, rng)

    image = decode_raw(data, HEIGHT, WIDTH, row_bytes + padding, encoding, bigendian)

    expected = pick(pixels).astype(float) * (1.0 if size == 1 else 255 / 65535)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, np.rint(expected))


@pytest.mark.parametrize("padding", [0, 6], ids=["tight", "padded"])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("uyvy", "uyvy"), ("yuv422", "uyvy"), ("yuyv", "yuyv"), ("yuv422_yuy2", "yuyv")],
)
def test_yuv422(encoding: str, order: str, padding: int) -> None:
    rng = np.random.default_rng(2)
    luma = rng.integers(16, 236, (HEIGHT, WIDTH), dtype=np.uint8)
    u, v = rng.integers(16, 241, (2, HEIGHT, WIDTH // 2), dtype=np.uint8)
    parts = {"uyvy": [u, luma[:, ::2], v, luma[:, 1::2]], "yuyv": [luma[:, ::2], u, luma[:, 1::2], v]}[order]
    rows = np.stack(parts, axis=-1).reshape(HEIGHT, 2 * WIDTH)

    image = decode_raw(padded(rows, 2 * WIDTH + padding, rng), HEIGHT, WIDTH, 2 * WIDTH + padding, encoding)

    expected = luma_chroma_to_rgb(luma, np.repeat(u, 2, axis=1), np.repeat(v, 2, axis=1))
    np.testing.assert_allclose(image, expected, atol=1.5)


@pytest.mark.parametrize(
    ("step", "stride"),
    [(WIDTH, WIDTH), (WIDTH + 4, WIDTH + 4), (WIDTH * 3 // 2, WIDTH), (2 * WIDTH, WIDTH)],
    ids=["tight", "padded", "step says 12 bits a pixel", "step says two channels"],
)
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_yuv420(encoding: str, step: int, stride: int) -> None:
    rng = np.random.default_rng(3)
    luma = rng.integers(16, 236, (HEIGHT, WIDTH), dtype=np.uint8)
    u, v = rng.integers(16, 241, (2, HEIGHT // 2, WIDTH // 2), dtype=np.uint8)
    chroma = np.stack([u, v] if encoding == "nv12" else [v, u], axis=-1).reshape(HEIGHT // 2, WIDTH)

    image = decode_raw(padded(np.concatenate([luma, chroma]), stride, rng), HEIGHT, WIDTH, step, encoding)

    u, v = (plane.repeat(2, axis=0).repeat(2, axis=1) for plane in (u, v))
    np.testing.assert_allclose(image, luma_chroma_to_rgb(luma, u, v), atol=1.5)


@pytest.mark.parametrize("size", [8, 16], ids=["8 bits", "16 bits big-endian"])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer(pattern: str, size: int) -> None:
    """On planes of one colour each, interpolation must give that colour back at every pixel."""
    colour = {"r": 200, "g": 120, "b": 40}
    tile = np.array([colour[letter] for letter in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (HEIGHT // 2, WIDTH // 2))
    pixels = mosaic.astype(np.uint8) if size == 8 else (mosaic * 257).astype(">u2")

    image = decode_raw(pixels.tobytes(), HEIGHT, WIDTH, WIDTH * size // 8, f"bayer_{pattern}{size}", size == 16)

    np.testing.assert_array_equal(image, np.broadcast_to(list(colour.values()), (HEIGHT, WIDTH, 3)))


def test_every_encoding_has_a_test() -> None:
    bayer = {f"bayer_{pattern}{size}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for size in (8, 16)}
    yuv = {"uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21"}
    assert set(ENCODINGS) == {row[0] for row in PACKED} | bayer | yuv


@pytest.mark.parametrize(
    "wrap",
    [bytes, bytearray, memoryview, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8)],
    ids=["bytes", "bytearray", "memoryview", "array", "numpy"],
)
def test_any_buffer_will_do(wrap: Callable[[bytes], object]) -> None:
    pixels = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(decode_raw(wrap(pixels.tobytes()), HEIGHT, WIDTH, WIDTH * 3, "rgb8"), pixels)


def test_the_last_row_may_lack_its_padding() -> None:
    rows = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    data = padded(rows, WIDTH + 3, np.random.default_rng(4))[:-3]
    np.testing.assert_array_equal(decode_raw(data, HEIGHT, WIDTH, WIDTH + 3, "mono8")[..., 0], rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((bytes(24), 0, 8, 24, "rgb8"), "empty: height 0, width 8"),
        ((bytes(24), 1, 8, 24, "32FC1"), "'32FC1' is not supported; supported are rgb8, bgr8"),
        ((bytes(24), 1, 8, 23, "rgb8"), "step is 23 bytes, but a row of rgb8 takes 24"),
        ((bytes(47), 2, 8, 24, "rgb8"), "the image has 47 bytes, but 2 rows of rgb8 with step 24 take 48"),
        ((bytes(14), 1, 7, 14, "uyvy"), "needs an even width, not 7"),
        ((bytes(40), 5, 8, 8, "nv12"), "needs an even height and width, not 5 x 8"),
        ((bytes(11), 2, 2, 8, "mono16"), "the image has 11 bytes, but 2 rows of mono16 with step 8 take 12"),
    ],
    ids=["no rows", "unknown encoding", "short step", "short data", "odd yuv", "odd nv12", "short mono16"],
)
def test_what_does_not_fit_is_said(arguments: tuple[bytes, int, int, int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_raw(*arguments)


@pytest.mark.parametrize("name", [".png", ".jpg"])
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH, 3), (HEIGHT, WIDTH)], ids=["colour", "gray"])
def test_compressed(name: str, shape: tuple[int, ...]) -> None:
    bgr = np.full(shape, 90, np.uint8)
    if len(shape) == 3:
        bgr[..., 0] = 200
    _, data = cv2.imencode(name, bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])
    image = decode_compressed(data.tobytes())
    expected = np.broadcast_to((90, 90, 200 if len(shape) == 3 else 90), (HEIGHT, WIDTH, 3))
    np.testing.assert_allclose(image, expected, atol=2)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0"], ids=["nothing", "text", "JPEG cut off"])
def test_no_picture(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(data)} bytes of compressed image are not"):
        decode_compressed(data)
