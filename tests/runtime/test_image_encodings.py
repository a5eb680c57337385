# SPDX-License-Identifier: Apache-2.0
"""Raw images of every encoding against formulas in plain numpy, and what does not fit."""

from __future__ import annotations

import array
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from golden_images import FAMILIES, GOLDEN, Golden

from instance_flow.formats.image_encodings import ENCODINGS, MAX_PIXELS, decode_raw

HEIGHT, WIDTH = 6, 8


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_golden_image(golden: Golden) -> None:
    message = golden.data, golden.height, golden.width, golden.step, golden.encoding, golden.is_bigendian
    golden.check(decode_raw(*message))


def test_every_encoding_is_golden() -> None:
    assert set(ENCODINGS) == set(FAMILIES)


@pytest.mark.parametrize("is_bigendian", [False, True], ids=["little-endian", "big-endian"])
def test_all_values_of_16_bits(is_bigendian: bool) -> None:
    values = np.arange(65536)
    data = values.astype(">u2" if is_bigendian else "<u2").tobytes()
    image = decode_raw(data, 256, 256, 512, "mono16", is_bigendian)
    np.testing.assert_array_equal(image[..., 0].reshape(-1), np.rint(values * 255 / 65535))


@pytest.mark.parametrize("step", [WIDTH * 3 // 2, 2 * WIDTH, 3 * WIDTH], ids=["12 bits", "2 channels", "24 bits"])
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24"])
def test_tight_planes_whatever_the_step_says(encoding: str, step: int) -> None:
    """Drivers write bits per pixel times width, or channels times width, where luma takes one byte a pixel."""
    image = next(g for g in GOLDEN if g.name == f"{encoding} tight")
    image.check(decode_raw(image.data, image.height, image.width, step, encoding))


@pytest.mark.parametrize(
    "wrap",
    [bytes, bytearray, memoryview, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8)],
    ids=["bytes", "bytearray", "memoryview", "array", "numpy"],
)
@pytest.mark.parametrize("encoding", ["rgb8", "mono16", "nv24"])
def test_any_buffer_will_do(encoding: str, wrap: Callable[[bytes], object]) -> None:
    golden = next(g for g in GOLDEN if g.name == f"{encoding} padded")
    golden.check(decode_raw(wrap(golden.data), golden.height, golden.width, golden.step, encoding))


def test_values_at_an_odd_address() -> None:
    golden = next(g for g in GOLDEN if g.name == "rgb16 tight")
    odd = np.frombuffer(b"\0" + golden.data, np.uint8)[1:]
    golden.check(decode_raw(odd, golden.height, golden.width, golden.step, "rgb16"))


def test_tight_rgb_is_not_copied() -> None:
    data = np.zeros(HEIGHT * WIDTH * 3, np.uint8)
    assert np.shares_memory(decode_raw(data, HEIGHT, WIDTH, WIDTH * 3, "rgb8"), data)


def test_the_last_row_may_lack_its_padding() -> None:
    golden = next(g for g in GOLDEN if g.name == "mono8 odd padding")
    golden.check(decode_raw(golden.data[:-5], golden.height, golden.width, golden.step, "mono8"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((bytes(24), 0, 8, 24, "rgb8"), "empty: height 0, width 8"),
        ((b"", 0, 0, 0, ""), "empty: height 0, width 0"),
        ((bytes(24), 1, 8, 24, "no_such"), "'no_such' is not supported; supported are rgb8, bgr8"),
        ((bytes(24), 1, 8, 24, "BGR8"), "did you mean bgr8"),
        ((bytes(24), 1, 8, 24, "yuv422_uyvy"), "did you mean .*yuv422"),
        ((bytes(24), 1, 8, 24, "32FC1"), "'32FC1' holds measurements, .*take the camera's colour topic"),
        ((bytes(24), 1, 8, 24, "16SC2"), "'16SC2' holds measurements"),
        ((bytes(24), 1, 8, 24, "8UC2"), "'8UC2' holds measurements"),
        ((bytes(24), 1, 8, 24, "8UC" + "9" * 10**6), r"'8UC9+\.\.\. \(1000003 characters\)' is not supported; supp"),
        ((bytes(24), 1, 8, 23, "rgb8"), "step is 23 bytes, but a row of rgb8 takes 24"),
        ((bytes(47), 2, 8, 24, "rgb8"), "the image has 47 bytes, but 2 rows of rgb8 with step 24 take 48"),
        ((b"", 2, 8, 24, "rgb8"), "the image has 0 bytes"),
        ((bytes(14), 1, 7, 14, "uyvy"), "needs an even width, not 7"),
        ((bytes(40), 5, 8, 8, "nv12"), "needs an even height and width, not 5 x 8"),
        ((bytes(95), 4, 8, 8, "nv24"), "the image has 95 bytes, but 4 rows of nv24 with step 16 take 96"),
        ((bytes(40), 2, 8, 8, "bayer_rggb8"), "needs at least 3 x 3 pixels, not 2 x 8"),
        ((bytes(11), 2, 2, 8, "mono16"), "the image has 11 bytes, but 2 rows of mono16 with step 8 take 12"),
        ((bytes(8), 2**32 - 1, 2**32 - 1, 2**32 - 1, "mono8"), "4294967295 rows of 4294967295 pixels, more than"),
        ((bytes(8), 2**16, 2**10 + 1, 2**31, "mono8"), "65536 rows of 1025 pixels, more than the 67108864 pixels"),
        ((bytes(8), 2**16, 2**10, 2**31, "mono8"), "the image has 8 bytes"),
        ((bytes(8), 2, 8, -8, "mono8"), "step is -8 bytes"),
        ((bytes(8), -1, -8, 8, "mono8"), "the image is empty"),
    ],
    ids=lambda value: None if isinstance(value, tuple) else value[:40],
)
def test_what_does_not_fit_is_said(arguments: tuple[bytes, int, int, int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_raw(*arguments)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr16", "bayer_rggb8", "nv12", "nv24"])
def test_giant_image_takes_no_memory(encoding: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"20000 rows of 20000 pixels, more than the {MAX_PIXELS} pixels"):
            decode_raw(b"", 20_000, 20_000, 120_000, encoding)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
