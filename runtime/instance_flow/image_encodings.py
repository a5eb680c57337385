# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a ROS image message to an RGB array, with no ROS in sight. Bags and the ROS node share it.

Encodings are those of sensor_msgs/image_encodings.hpp. Wherever ROS leaves the channel order open (``8UC3``, ``16UC4``)
it is OpenCV's: blue first. 16-bit images are scaled by 255 / 65535 whatever they hold, so that a depth or thermal
picture does not flicker from frame to frame.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import Image

# Bytes per channel, channels, and what turns them into RGB (None: they are RGB already).
_PACKED: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (1, 3, None),
    "bgr8": (1, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (1, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (1, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": (1, 3, cv2.COLOR_BGR2RGB),
    "8UC4": (1, 4, cv2.COLOR_BGRA2RGB),
    "rgb16": (2, 3, None),
    "bgr16": (2, 3, cv2.COLOR_BGR2RGB),
    "rgba16": (2, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": (2, 4, cv2.COLOR_BGRA2RGB),
    "mono16": (2, 1, cv2.COLOR_GRAY2RGB),
    "16UC1": (2, 1, cv2.COLOR_GRAY2RGB),
    "16UC3": (2, 3, cv2.COLOR_BGR2RGB),
    "16UC4": (2, 4, cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": (1, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, 1, cv2.COLOR_BayerGRBG2RGB),
    "bayer_rggb16": (2, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr16": (2, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg16": (2, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg16": (2, 1, cv2.COLOR_BayerGRBG2RGB),
    "uyvy": (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": (1, 2, cv2.COLOR_YUV2RGB_YUYV),
    "yuv422_yuy2": (1, 2, cv2.COLOR_YUV2RGB_YUYV),
}
# Luma plane first, then half as many rows of interleaved chroma.
_PLANAR: dict[str, int] = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}

ENCODINGS: tuple[str, ...] = (*_PACKED, *_PLANAR)
"""Every encoding that :func:`decode_raw` reads."""


def decode_raw(data: Any, height: int, width: int, step: int, encoding: str, is_bigendian: bool = False) -> Image:
    """Turn the pixels of a sensor_msgs/Image into (height, width, 3) uint8 RGB, C-contiguous.

    data: any contiguous buffer of bytes (bytes, array.array, memoryview, numpy array). rgb8 without row padding is not
        copied: the result then is a view of ``data``.
    step: bytes from one row to the next, row padding included; the last row may lack its padding.
    Raises ValueError for an unknown encoding, and for sizes that do not fit the data.
    """
    if height < 1 or width < 1:
        raise ValueError(f"the image is empty: height {height}, width {width}")
    if encoding in _PLANAR:
        return _decode_planar(data, height, width, step, encoding)
    if encoding not in _PACKED:
        raise ValueError(f"image encoding {encoding!r} is not supported; supported are {', '.join(ENCODINGS)}")
    size, channels, conversion = _PACKED[encoding]
    if channels == 2 and width % 2:
        raise ValueError(f"{encoding} shares its colour between two pixels and needs an even width, not {width}")
    dtype = np.dtype(np.uint8 if size == 1 else ">u2" if is_bigendian else "<u2")
    pixels = _rows(data, height, width * channels, step, dtype, encoding).reshape(height, width, channels)
    rgb = pixels if conversion is None else cv2.cvtColor(pixels, conversion)
    return _as_image(rgb if size == 1 else cv2.convertScaleAbs(rgb, alpha=1 / 257))


def decode_compressed(data: Any) -> Image:
    """Turn the bytes of a JPEG, PNG, or any other picture file that OpenCV reads into (H, W, 3) uint8 RGB.

    Raises ValueError where they are not such a picture.
    """
    buffer = np.frombuffer(data, np.uint8)
    # A camera's pixels stay where they are: an EXIF turn would part the masks from the calibration.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(buffer, flags) if buffer.size else None
    except cv2.error as error:  # a picture of more pixels than OpenCV takes
        raise ValueError(f"a compressed image cannot be decoded: {error.err}") from error
    if bgr is None:
        raise ValueError(
            f"{buffer.size} bytes of compressed image are not a JPEG, PNG or other picture that can be read"
        )
    return _as_image(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _rows(data: Any, height: int, length: int, step: int, dtype: np.dtype[Any], encoding: str) -> NDArray[Any]:
    """(height, length) array of native byte order out of rows that start every ``step`` bytes."""
    row_bytes = length * dtype.itemsize
    if step < row_bytes:
        raise ValueError(f"step is {step} bytes, but a row of {encoding} takes {row_bytes}")
    needed = step * (height - 1) + row_bytes
    available = memoryview(data).nbytes
    if available < needed:
        raise ValueError(
            f"the image has {available} bytes, but {height} rows of {encoding} with step {step} take {needed}"
        )
    view = np.ndarray((height, length), dtype, data, strides=(step, dtype.itemsize))
    return np.ascontiguousarray(view, dtype.newbyteorder("="))


def _decode_planar(data: Any, height: int, width: int, step: int, encoding: str) -> Image:
    if height % 2 or width % 2:
        raise ValueError(f"{encoding} needs an even height and width, not {height} x {width}")
    rows = height + height // 2
    # Drivers disagree about the step of these encodings (width, 1.5 or 2 times it); the size of a tight buffer tells.
    stride = width if memoryview(data).nbytes == rows * width else step
    return _as_image(cv2.cvtColor(_rows(data, rows, width, stride, np.dtype(np.uint8), encoding), _PLANAR[encoding]))


def _as_image(pixels: NDArray[Any]) -> Image:
    return pixels.astype(np.uint8, copy=False)
