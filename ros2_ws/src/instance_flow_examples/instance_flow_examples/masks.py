# SPDX-License-Identifier: Apache-2.0
"""Masks of instance_flow_msgs as arrays. It needs numpy and nothing else: take the file with you.

The messages may come from rclpy, from rosbags, or from anywhere else: only the names of their fields matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def window(mask: Any) -> NDArray[np.bool_]:
    """Give the pixels (height, width) bool of a RunLengthMask within its own window of the image, True = inside.

    The window's top left pixel is the pixel (mask.y, mask.x) of the image.
    Raises ValueError where the runs do not fill the window.
    """
    runs = np.asarray(mask.runs, np.int64)
    if runs.sum() != mask.width * mask.height:
        raise ValueError(f"the runs make {runs.sum()} pixels, but the window is {mask.width} x {mask.height}")
    inside = np.arange(len(runs)) % 2 == 1
    columns = np.repeat(inside, runs).reshape(mask.width, mask.height)
    return columns.T


def whole_image(mask: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Give the pixels (height, width) bool of a RunLengthMask in the whole image.

    height, width: of the image, as TrackedInstanceArray has them.
    Raises ValueError where the runs do not fill the window, or the window does not lie in the image.
    """
    pixels = np.zeros((height, width), np.bool_)
    _place(pixels, mask, True)
    return pixels


def label_map(message: Any) -> NDArray[np.int32]:
    """Give the map (height, width) int32 of the track ids of a TrackedInstanceArray, 0 = no object.

    An instance without a mask (``has_mask`` is false) leaves no pixels.
    Raises ValueError where a mask is damaged, and for an id above 2^31 - 1.
    """
    labels = np.zeros((message.height, message.width), np.int32)
    for instance in message.instances:
        if instance.id >= 2**31:
            raise ValueError(f"track id {instance.id} does not fit into 32 bits")
        if instance.has_mask:
            _place(labels, instance.mask, int(instance.id))
    return labels


def _place(pixels: NDArray[Any], mask: Any, value: int) -> None:
    """Write a value to the mask's pixels."""
    bottom, right = mask.y + mask.height, mask.x + mask.width
    if bottom > pixels.shape[0] or right > pixels.shape[1]:
        raise ValueError(
            f"the mask reaches to row {bottom} and column {right}, but the image has {pixels.shape[0]} rows and "
            f"{pixels.shape[1]} columns"
        )
    pixels[mask.y : bottom, mask.x : right][window(mask)] = value
