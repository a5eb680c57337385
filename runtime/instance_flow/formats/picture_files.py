# SPDX-License-Identifier: Apache-2.0
"""Picture files that hold several pictures: TIFF of several pages, animated WebP and PNG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.bag_files import first_bytes
from instance_flow.formats.image_encodings import check_size, decode_compressed
from instance_flow.formats.picture_size import picture_size
from instance_flow.structures import Image

_TIFF = (b"II*\0", b"MM\0*")
_PNG, _WEBP = b"\x89PNG", b"RIFF"
_BLOCK = 16 * 2**20
"""Pixels that are decoded at a time: an animation can only be decoded from its beginning."""


def count_pictures(path: Path) -> int:
    """How many pictures a file holds, by its headers; 1 where it cannot be read: decoding it raises the error."""
    if not first_bytes(path).startswith((*_TIFF, _PNG, _WEBP)):
        return 1
    try:
        with path.open("rb") as file:
            # By its number: OpenCV takes no name that is not UTF-8.
            return max(1, int(cv2.imcount(f"/dev/fd/{file.fileno()}")))
    except (OSError, cv2.error):
        return 1


def decode_pictures(data: bytes, count: int) -> Iterator[tuple[Image, int | None]]:
    """The pictures of a file that holds ``count``, in order: (H, W, 3) uint8 RGB each, and the nanoseconds for which an
    animation shows it, None for pages.

    Raises ValueError where one cannot be decoded; those before it have been returned then.
    """
    if count == 1:
        yield decode_compressed(data, upright=True), None
        return
    height, width = picture_size(data)
    check_size(height, width)
    block = max(1, _BLOCK // (height * width))
    read = _pages if data.startswith(_TIFF) else _animation
    for start in range(0, count, block):
        wanted = min(block, count - start)
        pictures = read(np.frombuffer(data, np.uint8), start, wanted)
        yield from pictures
        if len(pictures) < wanted:
            raise ValueError(f"only {start + len(pictures)} of its {count} pictures can be decoded; it is damaged")


def first_duration(path: Path) -> int | None:
    """Nanoseconds for which a file of several pictures shows the first; None for pages, and where it cannot be read."""
    try:
        data = path.read_bytes()
        return None if data.startswith(_TIFF) else _animation(np.frombuffer(data, np.uint8), 0, 1)[0][1]
    except (OSError, ValueError, IndexError):
        return None


def _pages(data: NDArray[np.uint8], start: int, count: int) -> list[tuple[Image, int | None]]:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        _, pages = cv2.imdecodemulti(data, flags, range=(start, start + count))
    except cv2.error as error:
        raise ValueError(f"page {start + 1} or one after it cannot be decoded: {error.err}") from error
    return [(_rgb(page), None) for page in pages]


def _animation(data: NDArray[np.uint8], start: int, count: int) -> list[tuple[Image, int | None]]:
    if not hasattr(cv2, "imdecodeanimation"):
        raise ValueError(
            f"an animation, which OpenCV {cv2.__version__} cannot decode; install opencv-python-headless 4.11 or "
            "newer, or convert it to a video"
        )
    try:
        _, animation = cv2.imdecodeanimation(data, start, count)
    except cv2.error as error:
        raise ValueError(f"picture {start + 1} or one after it cannot be decoded: {error.err}") from error
    durations = np.asarray(animation.durations).ravel()
    return [
        (_rgb(picture), int(milliseconds) * 1_000_000)
        for picture, milliseconds in zip(animation.frames, durations, strict=True)
    ]


def _rgb(picture: NDArray[Any]) -> Image:
    code = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB}.get(picture.ndim if picture.ndim == 2 else picture.shape[2])
    return np.ascontiguousarray(cv2.cvtColor(picture, cv2.COLOR_BGRA2RGB if code is None else code), np.uint8)
