# SPDX-License-Identifier: Apache-2.0
"""Image messages to arrays and back by cv_bridge's two calls, `imgmsg_to_cv2` and `cv2_to_imgmsg`.

The official cv_bridge is taken where it is installed and sound. What PyPI has under that name is not: it has no
``header`` argument, reads depth images wrongly without a word, and ignores the padding of rows.
"""

from __future__ import annotations

import inspect
import re
from array import array
from contextlib import suppress
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instance_flow.formats.image_encodings import check_size, decode_raw, layout, pixel_values

_PLAIN = re.compile(r"(mono|bgra|rgba|bgr|rgb)(8|16)")
_LETTER_BY_TYPE = {"u": "U", "i": "S", "f": "F"}


class Bridge(Protocol):
    """The two calls of cv_bridge.CvBridge."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> NDArray[Any]:
        """Give the message's pixels as an array (height, width[, channels])."""
        ...

    def cv2_to_imgmsg(self, cvim: NDArray[Any], encoding: str = "passthrough", header: Header | None = None) -> Image:
        """Make a message of an array (height, width[, channels])."""
        ...


class ImageBridge:
    """Own bridge. Reads row padding and both byte orders; raises ValueError for what it cannot convert."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> NDArray[Any]:
        """Give the pixels of a message as an array in native byte order, (height, width) or (height, width, channels).

        desired_encoding: "passthrough" or the message's own for the values as they are, else rgb8, bgr8 or mono8.
            passthrough keeps the message's memory where it can.
        """
        if desired_encoding == "rgb8":
            return _decode(img_msg)
        if desired_encoding in ("passthrough", img_msg.encoding):
            return pixel_values(*_fields(img_msg))
        rgb = _decode(img_msg)
        if desired_encoding == "bgr8":
            return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        if desired_encoding == "mono8":
            return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        raise ValueError(f"cannot convert to {desired_encoding!r}; expected passthrough, rgb8, bgr8 or mono8")

    def cv2_to_imgmsg(self, cvim: NDArray[Any], encoding: str = "passthrough", header: Header | None = None) -> Image:
        """Make a message of an array (height, width) or (height, width, channels).

        encoding: what the values mean; "passthrough" names it after the array's type, as 8UC3 or 16UC1.
        Raises ValueError where the array is not of that encoding.
        """
        if cvim.ndim not in (2, 3) or cvim.size == 0:
            raise ValueError(f"an image has 2 or 3 dimensions and is not empty, but this array has shape {cvim.shape}")
        channels = cvim.shape[2] if cvim.ndim == 3 else 1
        if encoding == "passthrough":
            encoding = _generic_name(cvim.dtype, channels)
        elif layout(encoding) != (cvim.dtype, channels):
            raise ValueError(f"{encoding} does not hold an array of shape {cvim.shape} and type {cvim.dtype}")
        pixels = np.ascontiguousarray(cvim, cvim.dtype.newbyteorder("<"))
        data = array("B")
        data.frombytes(pixels.data.cast("B"))
        height, width = cvim.shape[:2]
        return Image(
            header=header or Header(),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=pixels.nbytes // height,
            data=data,
        )


def choose_bridge() -> Bridge:
    """Give the official cv_bridge where it is installed and sound, else the own one."""
    try:
        from cv_bridge import CvBridge
    except Exception:  # Built for another numpy, it fails in any way there is.
        return ImageBridge()
    candidate = CvBridge()
    return candidate if is_sound(candidate) else ImageBridge()


def is_sound(bridge: Bridge) -> bool:
    """Whether a bridge copies headers, and brings a 16-bit image with padded rows to an array and back unharmed."""
    header = Header(frame_id="camera")
    padded = Image(header=header, height=2, width=2, encoding="16UC1", step=6)
    padded.data.frombytes(np.array([[1, 300, 9], [65535, 4, 9]], "<u2").tobytes())
    expected = np.array([[1, 300], [65535, 4]], np.uint16)
    try:
        if "header" not in inspect.signature(bridge.cv2_to_imgmsg).parameters:
            return False
        pixels = bridge.imgmsg_to_cv2(padded)
        back = bridge.cv2_to_imgmsg(expected, encoding="16UC1", header=header)
    except Exception:  # Any failure is the answer to the question.
        return False
    same = pixels.dtype == np.uint16 and np.array_equal(pixels, expected)
    return bool(same and back.header == header and back.step == 4 and back.data.tobytes() == expected.tobytes())


def to_rgb(bridge: Bridge, message: Image) -> NDArray[np.uint8]:
    """Give the pixels of a message as (height, width, 3) uint8 RGB.

    The bridge is asked where the official one gives the same bytes as ours, which reads all else: replay, which knows
    no bridge, must see what the node sees.
    Raises ValueError for an image that cannot be read.
    """
    check_size(message.height, message.width)
    if _is_plain(message):
        with suppress(Exception):  # Whatever is wrong with the message, our own decoder says it better.
            return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, "rgb8"))
    return _decode(message)


def _is_plain(message: Image) -> bool:
    """Whether red, green, blue or grey values stand side by side, in rows that begin at a whole pixel.

    The official bridge shears other rows, and swaps bytes by a call that numpy 2 has no longer.
    """
    if message.is_bigendian or not _PLAIN.fullmatch(message.encoding):
        return False
    dtype, channels = layout(message.encoding)
    return bool(message.step % (dtype.itemsize * channels) == 0)


def _decode(message: Image) -> NDArray[np.uint8]:
    return decode_raw(*_fields(message))


def _fields(message: Image) -> tuple[Any, int, int, int, str, bool]:
    return message.data, message.height, message.width, message.step, message.encoding, bool(message.is_bigendian)


def _generic_name(dtype: np.dtype[Any], channels: int) -> str:
    letter = _LETTER_BY_TYPE.get(dtype.kind)
    if letter is None:
        raise ValueError(f"an image holds whole or floating point numbers, not {dtype}")
    return f"{8 * dtype.itemsize}{letter}C{channels}"
