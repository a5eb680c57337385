# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at the machine: processor, shared memory, socket buffers, compiled kernels, OpenCV.

Each part is two functions: `inspect_...` collects facts, `judge_...` makes findings of them and touches nothing.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding
from instance_flow.formats.rle import area

MEBIBYTE = 2**20

SEGMENT = 16 * MEBIBYTE
"""Shared memory that every ROS process takes with the Fast DDS profile that we ship."""

SOCKET_BUFFER = 4 * MEBIBYTE
"""Socket buffer that this profile asks for."""

_SEGMENT_NAME = re.compile("fastrtps_[0-9a-f]{16}")
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


@dataclass(frozen=True)
class Processor:
    """cores: that this process may run on.   quota: cores' worth of time that its container may use; None = all."""

    cores: int
    quota: float | None


def inspect_processor() -> Processor:
    """Count cores; read the quota of the control group, version 2 or 1."""
    quota = None
    for file in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        words = _read(Path("/sys/fs/cgroup") / file).split()
        if words and words[0].isdecimal():
            period = words[1] if len(words) > 1 else _read(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")) or "100000"
            quota = int(words[0]) / int(period)
            break
    return Processor(len(os.sched_getaffinity(0)), quota)


def judge_processor(processor: Processor) -> list[Finding]:
    """The network, the middleware and the camera's driver share the cores."""
    found = f"{processor.cores} cores"
    if processor.quota is not None and processor.quota < processor.cores:
        found += f", of which the container may use {processor.quota:g}"
        advice = "Bind the container to cores (--cpuset-cpus) in place of a share of time (--cpus): ONNX Runtime starts"
        return [Finding(WARNING, "processor", found, f"{advice} a thread for each core that it sees.")]
    if processor.cores < 2:
        advice = "Give it two cores or more: the network starves the middleware and the camera's driver on one."
        return [Finding(WARNING, "processor", "1 core", advice)]
    return [Finding(OK, "processor", found)]


@dataclass(frozen=True)
class SharedMemory:
    """Bytes of /dev/shm in all and free; what ended processes of Fast DDS have left there.

    strangers: other users of this machine whose processes use it now.
    """

    total: int
    free: int
    leftovers: int
    leftover_bytes: int
    strangers: tuple[str, ...] = ()


def inspect_shared_memory(folder: Path = Path("/dev/shm"), user: int | None = None) -> SharedMemory | None:
    """None where there is no such folder. user: id of the one that looks, unless it is that of this process."""
    if not folder.is_dir():
        return None
    space = os.statvfs(folder)
    segments = [path for path in folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name)]
    left = [path for path in segments if _is_left_over(path)]
    sizes = sum(path.stat().st_size for path in left)
    own = os.getuid() if user is None else user
    strangers = _owners(path for path in segments if path not in left) - {own}
    total, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    return SharedMemory(total, free, len(left), sizes, tuple(sorted(map(_user_name, strangers))))


def _owners(segments: Iterable[Path]) -> set[int]:
    found = set()
    for segment in segments:
        with suppress(FileNotFoundError):  # Its process has just ended.
            found.add(segment.stat().st_uid)
    return found


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # A user of a container, whom this machine does not know by name.
        return f"user {uid}"


def _is_left_over(segment: Path) -> bool:
    """Whether the lock is free that the owner of a segment keeps as long as it lives."""
    try:
        with segment.with_name(f"{segment.name}_el").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # Held, or not ours to look at.
        return False
    return True


def judge_shared_memory(memory: SharedMemory | None) -> list[Finding]:
    """Images between the processes of one machine go through it."""
    if memory is None:
        advice = "Mount a tmpfs on /dev/shm; in a container give --shm-size=256m or --ipc=host."
        return [Finding(PROBLEM, "shared memory", "there is no /dev/shm", advice)]
    found = f"/dev/shm has {_mebibytes(memory.free)} free of {_mebibytes(memory.total)}"
    advice = f"Each ROS process takes {_mebibytes(SEGMENT)}: start the container with --shm-size=256m or --ipc=host."
    if memory.free < 2 * SEGMENT:
        findings = [Finding(PROBLEM, "shared memory", f"{found}: too little for a camera and this node", advice)]
    elif memory.free < 4 * SEGMENT:
        findings = [Finding(WARNING, "shared memory", found, advice)]
    else:
        findings = [Finding(OK, "shared memory", found)]
    if memory.leftovers:
        found = f"ended processes have left {memory.leftovers} segments, {_mebibytes(memory.leftover_bytes)}"
        findings.append(Finding(WARNING, "shared memory left over", found, "Remove them with `fastdds shm clean`."))
    if memory.strangers:
        found = f"processes of {', '.join(memory.strangers)} use it too: images never pass between two users in it"
        advice = (
            "Run the camera's driver and the node as one user, or give the node fastdds_images_udp.xml "
            "(docs/deploy.md, One user)."
        )
        findings.append(Finding(WARNING, "shared memory of others", found, advice))
    return findings


def inspect_sockets(folder: Path = Path("/proc/sys/net/core")) -> dict[str, int]:
    """Largest socket buffers in bytes, by the kernel's names; those that cannot be read are left out."""
    texts = {f"net.core.{name}": _read(folder / name).strip() for name in ("rmem_max", "wmem_max")}
    return {name: int(text) for name, text in texts.items() if text.isdecimal()}


def judge_sockets(limits: Mapping[str, int]) -> list[Finding]:
    """Images from other machines come through sockets."""
    if not limits:
        found = "net.core.rmem_max cannot be read in here"
        return [Finding(OK, "socket buffers", found, "Look on the host: it should be 4194304 or more.")]
    found = ", ".join(f"{name} = {value}" for name, value in limits.items())
    small = [f"{name}={SOCKET_BUFFER}" for name, value in limits.items() if value < SOCKET_BUFFER]
    if small:
        advice = (
            f"Run `sudo sysctl -w {' '.join(small)}`, and put it into /etc/sysctl.d to last: images from other "
            "machines get lost in smaller buffers."
        )
        return [Finding(WARNING, "socket buffers", f"{found}: less than {SOCKET_BUFFER}", advice)]
    return [Finding(OK, "socket buffers", found)]


@dataclass(frozen=True)
class Kernels:
    """folder: where numba keeps what it has compiled.   lasting: false for a folder that is emptied at boot."""

    folder: Path
    writable: bool
    lasting: bool
    compiled: int


def inspect_kernels() -> Kernels:
    """Ask a compiled function where it is kept: numba chooses by what can be written."""
    folder = Path(str(area.stats.cache_path))
    lasting = not folder.is_relative_to(tempfile.gettempdir())
    return Kernels(folder, can_write(folder), lasting, len(list(folder.glob("*.nbi"))))


def judge_kernels(kernels: Kernels) -> list[Finding]:
    """Without a lasting place for them they are compiled again and again, and the first image waits for it."""
    advice = "Set NUMBA_CACHE_DIR to a folder that the user who runs the node can write and that lasts."
    if not kernels.writable:
        return [Finding(PROBLEM, "compiled kernels", f"{kernels.folder} cannot be written", advice)]
    if not kernels.lasting:
        return [Finding(WARNING, "compiled kernels", f"kept in {kernels.folder}, which a reboot empties", advice)]
    count = f"{kernels.compiled} there" if kernels.compiled else "none yet: the first start takes longer, once"
    return [Finding(OK, "compiled kernels", f"kept in {kernels.folder}, {count}")]


def inspect_opencv() -> dict[str, str]:
    """Versions of the distributions of OpenCV that pip has installed, by name."""
    return {name: found.version for name in _OPENCV for found in metadata.distributions(name=name)}


def judge_opencv(installed: Mapping[str, str], version: str) -> list[Finding]:
    """version: of the cv2 that is imported, which need not come from pip."""
    if len(installed) > 1:
        names = " and ".join(f"{name} {number}" for name, number in installed.items())
        advice = f"Keep one: run `pip uninstall -y {' '.join(installed)}`, then `pip install opencv-python-headless`."
        return [Finding(WARNING, "OpenCV", f"{names} are installed into one and the same folder", advice)]
    return [Finding(OK, "OpenCV", " ".join([*installed, version]))]


def can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder. It is tried: what the modes say is not true for root, nor in /proc."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _mebibytes(count: int) -> str:
    return f"{count / MEBIBYTE:.0f} MiB"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
