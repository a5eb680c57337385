# SPDX-License-Identifier: Apache-2.0
"""Settings of Fast DDS and of memory that whole images need. They must stand before rclpy.init."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

# Fast DDS 2 (Humble, Jazzy) and Fast DDS 3 (Kilted and later) look for their profiles under different names.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_BUFFER = 32 * 2**20
KEPT_HEAP = 256 * 2**20


def profile_path() -> Path:
    """Path of the Fast DDS profiles that carry images: shared memory of 16 MiB and large socket buffers."""
    return Path(get_package_share_directory("instance_flow_ros")) / "config" / "fastdds_images.xml"


def prepare() -> None:
    """Choose our Fast DDS profiles unless the user has chosen some, and keep the memory of images between frames.

    Without the first, Fast DDS splits an image into pieces that do not fit its shared memory, and loses most of them.
    Without the second, glibc gives the memory of each image back at once: thousands of page faults for every frame.
    """
    if not any(name in os.environ for name in PROFILE_VARIABLES):
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(profile_path())))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc only
        mallopt(_M_MMAP_THRESHOLD, LARGEST_BUFFER)
        mallopt(_M_TRIM_THRESHOLD, KEPT_HEAP)
