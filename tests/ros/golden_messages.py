# SPDX-License-Identifier: Apache-2.0
"""Golden images as messages."""

from __future__ import annotations

from array import array

from golden_images import Golden
from sensor_msgs.msg import Image
from std_msgs.msg import Header


def to_golden_message(golden: Golden, header: Header | None = None) -> Image:
    """The image as a camera would send it."""
    return Image(
        header=header or Header(),
        height=golden.height,
        width=golden.width,
        encoding=golden.encoding,
        is_bigendian=int(golden.is_bigendian),
        step=golden.step,
        data=array("B", golden.data),
    )
