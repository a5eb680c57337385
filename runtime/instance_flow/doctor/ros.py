# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at the settings of ROS and of Fast DDS that stand in the environment.

All are functions of the environment (and, where they take a path, of the file system).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding
from instance_flow.doctor.machine import can_write
from instance_flow.doctor.python import NODE, package_prefix

FAST_DDS = "rmw_fastrtps_cpp"

_LAST_DOMAIN = 232
_RANGES = ("", "SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
_SMALLEST_SEGMENT = 4 * 2**20

# Fast DDS 2 and Fast DDS 3 look for their profiles under different names.
_OLD_PROFILES, _NEW_PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
_WITH_FAST_DDS_2 = ("", "foxy", "galactic", "humble", "iron", "jazzy")


def judge_domain(environment: Mapping[str, str]) -> list[Finding]:
    """Nodes of different domains never see one another."""
    check, text = "ROS_DOMAIN_ID", environment.get("ROS_DOMAIN_ID", "")
    if not text:
        return [Finding(OK, check, "not set: domain 0")]
    advice = "Set it to a number from 0 to 101, the same for all who should hear one another."
    if not text.isdecimal() or int(text) > _LAST_DOMAIN:
        return [Finding(PROBLEM, check, f"{text!r} is no domain: these are 0 to {_LAST_DOMAIN}", advice)]
    if 101 < int(text) < 215:
        found = f"{text}: its ports are among those that Linux hands out to others"
        return [Finding(WARNING, check, found, advice)]
    return [Finding(OK, check, text)]


def judge_discovery(environment: Mapping[str, str]) -> list[Finding]:
    """Who is looked for."""
    check, wanted = "discovery", environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper()
    if environment.get("ROS_LOCALHOST_ONLY") == "1":
        return [Finding(OK, check, "ROS_LOCALHOST_ONLY=1: nodes on this machine only")]
    if wanted not in _RANGES:
        advice = "Unset it, or set it to SUBNET or LOCALHOST."
        return [Finding(PROBLEM, check, f"ROS_AUTOMATIC_DISCOVERY_RANGE={wanted} does not exist", advice)]
    if wanted == "OFF":
        advice = "Unset ROS_AUTOMATIC_DISCOVERY_RANGE, unless ROS_STATIC_PEERS names all peers."
        return [Finding(WARNING, check, "off: a node hears only itself", advice)]
    transports = environment.get("FASTDDS_BUILTIN_TRANSPORTS", "")
    if wanted == "LOCALHOST" and transports:
        found = f"FASTDDS_BUILTIN_TRANSPORTS={transports} has no effect with ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"
        return [Finding(WARNING, check, found, "Use a profile (XML file) in its place, or the range SUBNET.")]
    return [Finding(OK, check, "nodes on this machine only" if wanted == "LOCALHOST" else "this network")]


def installed_middleware(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the RMW implementations that the ament index has."""
    prefixes = filter(None, environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep))
    folders = [Path(prefix) / "share/ament_index/resource_index/rmw_typesupport" for prefix in prefixes]
    names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    return tuple(sorted(names - {"rmw_implementation"}))


def judge_middleware(environment: Mapping[str, str], installed: Sequence[str]) -> list[Finding]:
    """What carries the messages."""
    check, chosen = "middleware", middleware(environment)
    if chosen not in installed:
        found = f"{chosen} is not installed; there is {', '.join(installed) or 'none'}"
        package = f"ros-{environment.get('ROS_DISTRO') or 'jazzy'}-{chosen.replace('_', '-')}"
        advice = f"Run `sudo apt install {package}`, or set RMW_IMPLEMENTATION to one that is."
        return [Finding(PROBLEM, check, found, advice)]
    return [Finding(OK, check, chosen)]


def middleware(environment: Mapping[str, str]) -> str:
    """Name of the RMW implementation that this shell uses."""
    return environment.get("RMW_IMPLEMENTATION") or FAST_DDS


@dataclass(frozen=True)
class Profile:
    """variable: that Fast DDS reads.   value: None = not set.   other: whether only the other variable is set.

    error: why the file cannot be used, "" where it can.   segment: bytes of shared memory that it gives, 0 = not said.
    """

    variable: str
    value: str | None
    other: bool
    error: str = ""
    segment: int = 0


def inspect_profile(environment: Mapping[str, str]) -> Profile:
    """Read the Fast DDS profiles that the environment names."""
    variable, other = _OLD_PROFILES, _NEW_PROFILES
    if environment.get("ROS_DISTRO", "") not in _WITH_FAST_DDS_2:
        variable, other = other, variable
    value = environment.get(variable)
    if not value:
        return Profile(variable, value, value is None and other in environment)
    try:
        root = ElementTree.parse(value).getroot()
        sizes = [int(item.text or 0) for item in root.iter() if item.tag.rpartition("}")[2] == "segment_size"]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        return Profile(variable, value, False, getattr(error, "strerror", None) or str(error))
    return Profile(variable, value, False, segment=max(sizes, default=0))


def judge_profile(profile: Profile, environment: Mapping[str, str]) -> list[Finding]:
    """Fast DDS cuts images into pieces that do not fit its shared memory, unless a profile says otherwise."""
    check = "Fast DDS profile"
    if middleware(environment) != FAST_DDS:
        return []
    variable = profile.variable
    command = f"export {variable}={_shipped(environment)}"
    advice = f"Run `{command}`."
    if profile.other:
        found = f"the variable that this Fast DDS reads, {variable}, is not set, but that of another version is"
        return [Finding(PROBLEM, check, found, advice)]
    if profile.value is None:
        found = "not set in this shell: the node takes its own, but a camera's driver loses large images without it"
        return [Finding(WARNING, check, found, f"In the shell of the driver run `{command}`.")]
    if profile.value == "":
        found = f"{variable} is set to nothing, which Fast DDS takes for a file"
        return [Finding(PROBLEM, check, found, f"Run `unset {variable}`, or `{command}`.")]
    if profile.error:
        return [Finding(PROBLEM, check, f"{profile.value}: {profile.error}; large images get lost", advice)]
    if profile.segment < _SMALLEST_SEGMENT:
        found = f"{profile.value} gives shared memory of {profile.segment or 'the default of 524288'} bytes"
        return [Finding(WARNING, check, f"{found}: less than one image of 1280 x 720", advice)]
    return [Finding(OK, check, profile.value)]


def _shipped(environment: Mapping[str, str]) -> str:
    prefix = package_prefix(NODE, environment)
    folder = prefix / "share" / NODE if prefix else Path(f"ros2_ws/src/{NODE}")
    return str(folder / "config" / "fastdds_images.xml")


def judge_log_folder(environment: Mapping[str, str]) -> list[Finding]:
    """A node that cannot write its log does not start."""
    home = environment.get("ROS_HOME") or os.path.join(environment.get("HOME", "~"), ".ros")
    folder = Path(environment.get("ROS_LOG_DIR") or os.path.join(home, "log")).expanduser()
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if can_write(place):
        return [Finding(OK, "log folder", str(folder))]
    advice = "Set ROS_LOG_DIR to a folder that the user who runs the node can write."
    return [Finding(PROBLEM, "log folder", f"{folder} cannot be written", advice)]
