# SPDX-License-Identifier: Apache-2.0
"""Checks of a header's stamp, which ROS 2 does not make: sec is any int32, nanosec any uint32."""

from __future__ import annotations

from typing import Any

SECOND = 10**9
"""Nanoseconds."""


def stamp_problem(stamp: Any) -> str:
    """What is wrong with a builtin_interfaces/Time, as a sentence for the user; empty where nothing is.

    A stamp with a problem counts as missing. Taken as a time, one bad stamp among good ones would be a jump back and
    then forward, and all objects would lose their ids twice.
    """
    sec, nanosec = int(stamp.sec), int(stamp.nanosec)
    if sec < 0:
        return f"the stamp is before 1970 ({sec} s); check the clock of the camera's driver"
    if nanosec >= SECOND:
        return f"the stamp has {nanosec} nanoseconds, which is a second or more; fix the driver that sets it"
    if not sec and not nanosec:
        return "the stamp is 0, so it was never set; fix the driver that leaves it out"
    return ""


def to_nanoseconds(stamp: Any) -> int | None:
    """Give a builtin_interfaces/Time in nanoseconds; None for one with a problem."""
    return None if stamp_problem(stamp) else int(stamp.sec) * SECOND + int(stamp.nanosec)
