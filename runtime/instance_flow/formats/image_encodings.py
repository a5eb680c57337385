# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a ROS image message to an RGB array, without ROS. Bags and the ROS node share it.

Encodings are those of sensor_msgs/image_encodings.hpp, Humble to Rolling, that hold colours or grey values. Wherever
ROS leaves the channel order open (``8UC3``, ``16UC4``) it is OpenCV's: blue first. 16-bit images are scaled by
255 / 65535 whatever they hold, so that a depth or thermal picture does not flicker from frame to frame. YUV is ITU-R
BT.601 with 16..235 for luma, Bayer patterns are interpolated linearly. Encodings of measurements (``32FC1``, ``16SC1``)
and of two values a pixel are refused: nothing says what colours they are.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.picture_size import picture_size
from instance_flow.structures import MAX_PIXELS, Image

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
_HALF_CHROMA: dict[str, int] = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
# Luma plane first, then as many rows of interleaved chroma, twice as long. OpenCV has no conversion from it.
_FULL_CHROMA = "nv24"
_BT601 = np.array([[1.164383, 0, 1.596027], [1.164383, -0.391762, -0.812968], [1.164383, 2.017232, 0]])
_FROM_YUV = np.column_stack([_BT601, _BT601 @ (-16, -128, -128)])

ENCODINGS: tuple[str, ...] = (*_PACKED, *_HALF_CHROMA, _FULL_CHROMA)
"""Every encoding that :func:`decode_raw` reads."""

_LONGEST_NAME = 64
"""Characters of an encoding that is looked at to say what is wrong with it; no real one has half as many."""

_WITHOUT_COLOURS = re.compile(r"(8|16|32|64)[USF]C\d*")

# Names of values that are not converted: the type as OpenCV writes it, or what a pixel holds.
_GENERIC = re.compile(r"((?:8|16|32|64)[US]|(?:16|32|64)F)C(\d{0,4})")
_TYPE_BY_LETTER = {"U": "u", "S": "i", "F": "f"}
_NAMED = re.compile(r"(mono|bayer|bgra|rgba|bgr|rgb)(?:_[rgb]{4})?(8|16)")
_CHANNELS_OF_NAME = {"mono": 1, "bayer": 1, "bgr": 3, "rgb": 3, "bgra": 4, "rgba": 4}
_INTERLEAVED = ("uyvy", "yuyv", "yuv422", "yuv422_yuy2")


def decode_raw(data: Any, height: int, width: int, step: int, encoding: str, is_bigendian: bool = False) -> Image:
    """Turn the pixels of a sensor_msgs/Image into (height, width, 3) uint8 RGB, C-contiguous.

    data: any contiguous buffer of bytes (bytes, array.array, memoryview, numpy array). rgb8 without row padding is not
        copied: the result then is a view of ``data``.
    step: bytes from one row to the next, row padding included; the last row may lack its padding.
    Raises ValueError for an encoding that is unknown or holds no colours, for more than ``MAX_PIXELS``, and for sizes
    that do not fit the data.
    """
    check_size(height, width)
    if encoding in _HALF_CHROMA:
        return _decode_half_chroma(data, height, width, step, encoding)
    if encoding == _FULL_CHROMA:
        return _decode_full_chroma(data, height, width, step)
    if encoding not in _PACKED:
        raise ValueError(_why_unsupported(encoding))
    size, channels, conversion = _PACKED[encoding]
    _check_grid(height, width, channels, encoding)
    dtype = np.dtype(np.uint8 if size == 1 else ">u2" if is_bigendian else "<u2")
    pixels = _plane(data, (height, width, channels), step, dtype, encoding)
    if size == 2:  # before the conversion, which is much faster on bytes
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    return _as_image(pixels if conversion is None else cv2.cvtColor(pixels, conversion))


def decode_compressed(data: Any, format: str = "", upright: bool = False) -> Image:
    """Turn the bytes of a JPEG, PNG, WebP, TIFF, BMP, GIF or PNM file into (H, W, 3) uint8 RGB.

    The first picture is taken of an animation, 16 bits are brought to 8, transparency is left out.

    upright: turn the picture as its EXIF orientation says, as viewers and labelling tools do; for files. A camera's
        pixels stay where they are: a turn would part the masks from the calibration.
    format: that of the sensor_msgs/CompressedImage, as ``bayer_rggb8; jpeg compressed``: image_transport compresses a
        Bayer pattern as if it were a grey picture.
    Raises ValueError where they are not such a picture, where it is cut off, for more than ``MAX_PIXELS``, and for a
    JPEG of so many scans that it would take seconds (``picture_size``). A file that is damaged within may give a
    picture with grey or false parts: not all formats have check sums.
    """
    if "compressedDepth" in format:
        raise ValueError(
            f"an image of format '{shown(format)}' holds distances, not colours; take the compressed topic of the "
            "camera's colour image"
        )
    file = bytes(memoryview(data))
    try:
        check_size(*picture_size(file))
    except ValueError as error:
        raise ValueError(f"{error} (its format: {shown(format)})" if format else str(error)) from error
    encoding = format.partition(";")[0].strip()
    if encoding.startswith("bayer_") and encoding in _PACKED and "bgr8" not in format:
        mosaic = read_picture(file, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        _check_grid(mosaic.shape[0], mosaic.shape[1], 1, encoding)
        return _as_image(cv2.cvtColor(mosaic, _PACKED[encoding][2] or 0))
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return _as_image(cv2.cvtColor(read_picture(file, flags), cv2.COLOR_BGR2RGB))


def layout(encoding: str) -> tuple[np.dtype[Any], int]:
    """The type of a value and the number of values of a pixel, of an encoding whose pixels stand side by side.

    Raises ValueError for any other encoding.
    """
    if generic := _GENERIC.fullmatch(encoding):
        kind, channels = generic.groups()
        if int(channels or 1):
            return np.dtype(f"{_TYPE_BY_LETTER[kind[-1]]}{int(kind[:-1]) // 8}"), int(channels or 1)
    elif named := _NAMED.fullmatch(encoding):
        name, bits = named.groups()
        return np.dtype(f"u{int(bits) // 8}"), _CHANNELS_OF_NAME[name]
    elif encoding in _INTERLEAVED:
        return np.dtype(np.uint8), 2
    raise ValueError(f"the values of image encoding '{shown(encoding)}' cannot be had as an array")


def pixel_values(
    data: Any, height: int, width: int, step: int, encoding: str, is_bigendian: bool = False
) -> NDArray[Any]:
    """The values of a sensor_msgs/Image as they are, in native byte order: (height, width), and (height, width,
    channels) where a pixel has several. A view of ``data`` where it can be.

    data, step: as in ``decode_raw``.   Raises ValueError as it does, but holds any type of value.
    """
    native, channels = layout(encoding)
    check_size(height, width)
    dtype = native.newbyteorder(">" if is_bigendian else "<")
    pixels = _plane(data, (height, width, channels), step, dtype, encoding)
    return pixels[:, :, 0] if channels == 1 else pixels


def check_size(height: int, width: int) -> None:
    """Raises ValueError for an image without pixels, or of more than ``MAX_PIXELS``."""
    if height < 1 or width < 1:
        raise ValueError(f"the image is empty: height {height}, width {width}")
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"the image has {height} rows of {width} pixels, more than the {MAX_PIXELS} pixels that are read at most; "
            "have the driver send a smaller one"
        )


def read_picture(file: bytes, flags: int) -> NDArray[Any]:
    """Decode a picture file with OpenCV's flags; ValueError where it cannot. Check its size before."""
    try:
        pixels = cv2.imdecode(np.frombuffer(file, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"a compressed image cannot be decoded: {error.err}") from error
    if pixels is None:
        raise ValueError(f"{len(file)} bytes of compressed image are not a picture that can be read; they are damaged")
    return np.asarray(pixels)


def _check_grid(height: int, width: int, channels: int, encoding: str) -> None:
    """Pixels that share colours with their neighbours need these neighbours."""
    if channels == 2 and width % 2:
        raise ValueError(f"{encoding} shares its colour between two pixels and needs an even width, not {width}")
    if encoding.startswith("bayer_") and min(height, width) < 3:
        raise ValueError(f"{encoding} needs at least 3 x 3 pixels, not {height} x {width}")


def _why_unsupported(encoding: str) -> str:
    name = shown(encoding)
    if len(encoding) > _LONGEST_NAME:  # Nothing is near it, and looking would take seconds.
        return f"image encoding '{name}' is not supported; supported are {', '.join(ENCODINGS)}"
    if _WITHOUT_COLOURS.fullmatch(encoding):
        return (
            f"image encoding '{name}' holds measurements, as depth or motion, not colours or grey values; take the "
            "camera's colour topic, or convert the image to mono8, mono16 or rgb8 before"
        )
    known = {name.lower(): name for name in ENCODINGS}
    near = " or ".join(known[name] for name in get_close_matches(encoding.lower(), known))
    hint = f"did you mean {near}? Supported" if near else "supported"
    return f"image encoding '{name}' is not supported; {hint} are {', '.join(ENCODINGS)}"


def _plane(
    data: Any, shape: tuple[int, int, int], step: int, dtype: np.dtype[Any], encoding: str, offset: int = 0
) -> NDArray[Any]:
    """(height, width, channels) of native byte order out of rows that start every ``step`` bytes from ``offset``."""
    height, width, channels = shape
    row_bytes = width * channels * dtype.itemsize
    if step < row_bytes:
        raise ValueError(f"step is {step} bytes, but a row of {encoding} takes {row_bytes}")
    needed = offset + step * (height - 1) + row_bytes
    available = memoryview(data).nbytes
    if available < needed:
        raise ValueError(
            f"the image has {available} bytes, but {height} rows of {encoding} with step {step} take {needed}"
        )
    view = np.ndarray(shape, dtype, data, offset, (step, channels * dtype.itemsize, dtype.itemsize))
    # An odd step, or a message that lies at an odd address of its bag, parts values from the addresses OpenCV expects.
    return view.astype(dtype.newbyteorder("="), copy=not view.flags.aligned)


def _decode_half_chroma(data: Any, height: int, width: int, step: int, encoding: str) -> Image:
    if height % 2 or width % 2:
        raise ValueError(f"{encoding} needs an even height and width, not {height} x {width}")
    rows = height + height // 2
    planes = _plane(data, (rows, width, 1), _stride(data, rows, width, step), np.dtype(np.uint8), encoding)
    return _as_image(cv2.cvtColor(planes, _HALF_CHROMA[encoding]))


def _decode_full_chroma(data: Any, height: int, width: int, step: int) -> Image:
    stride, dtype = _stride(data, 3 * height, width, step), np.dtype(np.uint8)
    luma = _plane(data, (height, width, 1), stride, dtype, _FULL_CHROMA)
    chroma = _plane(data, (height, width, 2), 2 * stride, dtype, _FULL_CHROMA, offset=height * stride)
    return _as_image(cv2.transform(cv2.merge([luma, chroma]), _FROM_YUV))


def _stride(data: Any, rows: int, width: int, step: int) -> int:
    """Drivers disagree about the step of planes (width, 1.5, 2 or 3 times it); the size of a tight buffer tells."""
    return width if memoryview(data).nbytes == rows * width else step


def _as_image(pixels: NDArray[Any]) -> Image:
    return np.ascontiguousarray(pixels, np.uint8)
