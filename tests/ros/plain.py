# SPDX-License-Identifier: Apache-2.0
"""Messages of any implementation, made comparable."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


def plain(message: Any) -> Any:
    """A message of rclpy, rosbags or Cyclone DDS as names, lists and texts; in texts NaN equals NaN."""
    if hasattr(message, "get_fields_and_field_types"):
        return {name: plain(getattr(message, name)) for name in message.get_fields_and_field_types()}
    if dataclasses.is_dataclass(message):
        # rosbags has the constants and the name of the type among the fields; only fields begin with a small letter.
        names = [field.name for field in dataclasses.fields(message) if field.name[0].islower()]
        return {name: plain(getattr(message, name)) for name in names}
    if isinstance(message, np.ndarray):
        return plain(message.tolist())
    if isinstance(message, str) or not hasattr(message, "__iter__"):
        return repr(message)
    return [plain(item) for item in message]
