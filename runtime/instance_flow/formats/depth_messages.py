# SPDX-License-Identifier: Apache-2.0
"""From ROS messages of depth to arrays and back, without ROS.

Messages are objects with the fields of the ROS 2 types, those of rclpy as well as those of rosbags. Depth is as REP 118
has it: uint16 millimetres or float32 metres.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.image_encodings import check_size, pixel_values, read_picture
from instance_flow.formats.picture_size import picture_size

Depth = NDArray[np.uint16] | NDArray[np.float32]

RAW_DEPTH = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
"""Encodings of depth, and their values."""

HEADER = struct.Struct("<iff")
"""What compressed_depth_image_transport puts before the PNG: which quantisation, of which there is but one, and its two
parameters a and b: value = a / metres + b, 0 = unknown. Those of 16UC1 mean nothing."""

FARTHEST, _STEPS = 10.0, 100.0
"""Defaults of compressed_depth_image_transport: the farthest metres that are kept, and how many values are of 1 m."""

_COMPRESSED = "compressedDepth"
_PNG = b"\x89PNG\r\n\x1a\n"


def to_depth(message: Any) -> Depth:
    """The (H, W) depth of a sensor_msgs/Image or CompressedImage: uint16 millimetres or float32 metres, native order.

    Images are 16UC1, mono16 or 32FC1; their result may be a view of the message's data. Compressed ones are PNG of
    compressed_depth_image_transport ("16UC1; compressedDepth png"); what is unknown in one of 32FC1 becomes NaN.
    Raises ValueError, in one sentence, for any other encoding or format, for more than ``MAX_PIXELS``, and for data
    that do not fit or cannot be decoded.
    """
    if hasattr(message, "encoding"):
        if message.encoding not in RAW_DEPTH:
            raise ValueError(
                f"a depth image of encoding '{shown(message.encoding)}' cannot be read; expected "
                f"{', '.join(RAW_DEPTH)}, so take the camera's depth topic"
            )
        return pixel_values(
            message.data, message.height, message.width, message.step, message.encoding, bool(message.is_bigendian)
        )
    if not hasattr(message, "format"):
        raise ValueError(f"depth is a sensor_msgs/Image or CompressedImage, not a {shown(type(message).__name__)}")
    return _decompress(bytes(memoryview(message.data)), _encoding(message.format))


def compress(depth: Depth, farthest: float = FARTHEST) -> bytes:
    """The data of a compressedDepth message of (H, W) depth: uint16 millimetres as they are; float32 metres by their
    inverse, in steps that grow with their square: 1 cm at 10 m and 0.1 mm at 1 m. What is farther than ``farthest``, so
    near that its value has more than 16 bits (0.15 m), or no number, becomes unknown.
    """
    a = b = 0.0
    values: NDArray[Any] = np.asarray(depth)
    if values.dtype != np.uint16:
        a = _STEPS * (_STEPS + 1)
        b = 1 - a / farthest
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = values.astype(np.float64)
            steps = np.rint(a / metres + b)
            known = (metres > 0) & (metres <= farthest) & (steps <= np.iinfo(np.uint16).max)
        values = np.where(known, steps, 0).astype(np.uint16)
    return HEADER.pack(0, a, b) + cv2.imencode(".png", values)[1].tobytes()


def _encoding(text: str) -> str:
    """Encoding of the depth before it was compressed; ValueError for a format that is not read."""
    encoding, _, rest = (part.strip() for part in text.partition(";"))
    words = rest.split()
    if encoding in RAW_DEPTH and words in ([_COMPRESSED], [_COMPRESSED, "png"]):
        return encoding
    found = f"the format of the compressed depth is '{shown(text)}'"
    expected = f"expected '16UC1; {_COMPRESSED} png' or '32FC1; {_COMPRESSED} png'"
    if "rvl" in rest.lower():
        raise ValueError(f"{found}, and RVL is not read; {expected}, so set the publisher's format parameter to png")
    raise ValueError(f"{found}; {expected}, so take the camera's {_COMPRESSED} topic, or its raw depth")


def _decompress(data: bytes, encoding: str) -> Depth:
    if len(data) < HEADER.size:
        raise ValueError(f"the compressed depth has {len(data)} bytes; expected a header of {HEADER.size} and a PNG")
    file = data[HEADER.size :]
    if not file.startswith(_PNG):
        raise ValueError(f"the compressed depth has {len(file)} bytes behind its header that are no PNG; it is damaged")
    check_size(*picture_size(file))
    values = read_picture(file, cv2.IMREAD_UNCHANGED)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise ValueError(
            f"the PNG of the compressed depth holds {values.dtype} of shape {values.shape}; expected one channel of 16 "
            "bits"
        )
    if RAW_DEPTH[encoding] == np.uint16:
        return values
    # The field for the kind of quantisation is not read: there is only one, and not all publishers fill the field in.
    _, a, b = HEADER.unpack_from(data)
    if not (0 < a < np.inf and np.isfinite(b)):
        raise ValueError(
            f"the header of the compressed depth has the parameters {a:g} and {b:g}; expected finite ones, the first "
            "above 0, so it is damaged"
        )
    steps = values - np.float32(b)
    known = (values > 0) & (steps > 0)
    return np.divide(np.float32(a), steps, out=np.full(values.shape, np.nan, np.float32), where=known)
