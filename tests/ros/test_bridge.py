# SPDX-License-Identifier: Apache-2.0
"""Images to arrays and back, by the calls of cv_bridge."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from golden_images import GOLDEN, Golden
from golden_messages import to_golden_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instance_flow_ros.bridge import ImageBridge, choose_bridge, is_sound, to_rgb


def message(encoding: str, row: bytes, padding: bytes = b"") -> Image:
    """Two equal rows of two pixels."""
    data = array("B", (row + padding) * 2)
    return Image(height=2, width=2, encoding=encoding, step=len(row + padding), data=data)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_golden_image(golden: Golden) -> None:
    golden.check(to_rgb(ImageBridge(), to_golden_message(golden)))


def test_golden_images_with_the_official_bridge() -> None:
    bridge = choose_bridge()
    if isinstance(bridge, ImageBridge):
        pytest.skip("no sound cv_bridge is installed")
    for golden in GOLDEN:
        golden.check(to_rgb(bridge, to_golden_message(golden)))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Image(), "the image is empty"),
        (Image(height=20_000, width=20_000, step=60_000, encoding="rgb8"), "20000 rows of 20000 pixels, more than"),
        (Image(height=2**32 - 1, width=2**32 - 1, step=2**32 - 1, encoding="mono8"), "more than"),
        (Image(height=2, width=2, step=5, encoding="rgb8", data=array("B", bytes(12))), "step is 5 bytes"),
        (Image(height=2, width=2, step=6, encoding="rgb8", data=array("B", bytes(11))), "the image has 11 bytes"),
        (Image(height=2, width=2, step=8, encoding="32FC1", data=array("B", bytes(16))), "holds measurements"),
        (Image(height=2, width=2, step=6, encoding="RGB8", data=array("B", bytes(12))), "did you mean rgb8"),
        (Image(height=2, width=2, step=6, data=array("B", bytes(12))), "image encoding '' is not supported"),
    ],
    ids=["empty", "giant", "overflow", "short step", "short data", "depth", "capitals", "no encoding"],
)
def test_what_is_wrong_is_said(bad: Image, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_rgb(choose_bridge(), bad)


@pytest.mark.parametrize(
    ("dtype", "channels", "encoding", "generic"),
    [
        ("u1", 1, "mono8", "8UC1"),
        ("u1", 3, "rgb8", "8UC3"),
        ("u1", 4, "bgra8", "8UC4"),
        ("u2", 1, "16UC1", "16UC1"),
        ("u2", 3, "rgb16", "16UC3"),
        ("i2", 1, "16SC1", "16SC1"),
        ("i4", 2, "32SC2", "32SC2"),
        ("f4", 1, "32FC1", "32FC1"),
        ("f8", 2, "64FC2", "64FC2"),
    ],
)
def test_array_comes_back_as_it_was(dtype: str, channels: int, encoding: str, generic: str) -> None:
    shape = (3, 5) if channels == 1 else (3, 5, channels)
    pixels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    bridge, header = ImageBridge(), Header(frame_id="camera")
    named, unnamed = bridge.cv2_to_imgmsg(pixels, encoding, header), bridge.cv2_to_imgmsg(pixels[:, ::1])
    assert (named.header, named.encoding, unnamed.encoding) == (header, encoding, generic)
    assert (named.step, len(named.data)) == (pixels.nbytes // 3, pixels.nbytes)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(named), pixels)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(unnamed), pixels)


@pytest.mark.parametrize("wanted", ["bgr8", "mono8"])
def test_colours_on_request(wanted: str) -> None:
    red = message("rgb8", b"\xff\x00\x00" * 2)
    expected = {"bgr8": [0, 0, 255], "mono8": 76}[wanted]
    assert (ImageBridge().imgmsg_to_cv2(red, wanted) == expected).all()


def test_big_endian_values_are_swapped() -> None:
    swapped = message("16UC1", b"\x01\x02\x03\x04")
    swapped.is_bigendian = 1
    np.testing.assert_array_equal(ImageBridge().imgmsg_to_cv2(swapped), [[0x0102, 0x0304]] * 2)


@pytest.mark.parametrize(
    ("encoding", "pixels", "words"),
    [
        ("rgb8", np.zeros((2, 2), np.uint8), "rgb8 does not hold"),
        ("16UC1", np.zeros((2, 2), np.uint8), "16UC1 does not hold"),
        ("rgb9", np.zeros((2, 2, 3), np.uint8), "'rgb9'"),
        ("passthrough", np.zeros((2, 2), bool), "not bool"),
        ("passthrough", np.zeros(2, np.uint8), "2 or 3 dimensions"),
    ],
    ids=["channels", "type", "unknown", "bool", "flat"],
)
def test_wrong_array_is_refused(encoding: str, pixels: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImageBridge().cv2_to_imgmsg(pixels, encoding)


@pytest.mark.parametrize(
    ("broken", "wanted"),
    [
        (message("16UC1", b"\x01\x02"), "passthrough"),
        (Image(encoding="mono8"), "passthrough"),
        (message("nv12", b"\x01\x02"), "passthrough"),
        (message("8FC1", b"\x01\x02"), "passthrough"),
        (message("rgb8", b"\x01" * 6), "yuv422"),
    ],
    ids=["short_step", "empty", "no_plain_values", "no_such_type", "unknown_wish"],
)
def test_wrong_message_is_refused(broken: Image, wanted: str) -> None:
    with pytest.raises(ValueError, match=r"step|empty|cannot"):
        ImageBridge().imgmsg_to_cv2(broken, wanted)


class WithoutHeader(ImageBridge):
    """As the package of that name on PyPI."""

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str = "passthrough") -> Image:  # type: ignore[override]
        return super().cv2_to_imgmsg(cvim, encoding)


class BlindToPadding(ImageBridge):
    def imgmsg_to_cv2(self, img_msg: Image, *_: Any) -> Any:
        return np.frombuffer(img_msg.data, np.uint16)[: img_msg.height * img_msg.width].reshape(2, 2)


class Raising(ImageBridge):
    def imgmsg_to_cv2(self, *_: Any) -> Any:
        raise AttributeError("tostring")


@pytest.mark.parametrize(
    ("candidate", "sound"),
    [(ImageBridge(), True), (WithoutHeader(), False), (BlindToPadding(), False), (Raising(), False)],
    ids=["own", "no_header", "no_padding", "raising"],
)
def test_unsound_bridge_is_not_chosen(candidate: Any, sound: bool) -> None:
    assert is_sound(candidate) == sound


class WrongOnOddRows(ImageBridge):
    """As the official bridge: sheared where a row does not begin at a whole pixel, lost where bytes must be swapped."""

    def imgmsg_to_cv2(self, img_msg: Image, *_: Any) -> Any:
        if img_msg.is_bigendian:
            raise AttributeError("newbyteorder")
        layout = (img_msg.height, img_msg.step // 3, 3)
        return np.ndarray(layout, np.uint8, img_msg.data)[:, : img_msg.width]


def test_what_the_official_bridge_reads_wrongly_is_read_by_ours() -> None:
    for golden in GOLDEN:
        if golden.encoding in ("rgb8", "rgb16") and (golden.is_bigendian or "odd" in golden.name):
            golden.check(to_rgb(WrongOnOddRows(), to_golden_message(golden)))
