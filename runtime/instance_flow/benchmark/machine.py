# SPDX-License-Identifier: Apache-2.0
"""The machine that figures belong to, and the memory of this process."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

from instance_flow.doctor.machine import inspect_processor
from instance_flow.network.gpu.nvidia import inspect_gpu

MEBIBYTE = 2**20


def machine() -> dict[str, str | int]:
    """processor, cores that this process may use, memory of the machine, gpu ("" = none that CUDA finds), load.

    The load is that of the last minute: above 0.5, others have worked here and the figures are too high.
    """
    gpu = inspect_gpu()
    return {
        "processor": _processor_name(),
        "cores": inspect_processor().cores,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEBIBYTE,
        "gpu": "" if gpu is None else gpu.name,
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def memory_mib() -> dict[str, float]:
    """What this process has in memory: resident_mib now, peak_mib at most so far."""
    found = dict.fromkeys(("VmRSS", "VmHWM"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    for line in _lines("/proc/self/status"):
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) / 1024
    return {"resident_mib": found["VmRSS"], "peak_mib": found["VmHWM"]}


def _processor_name() -> str:
    """As /proc/cpuinfo or, on a board, the device tree has it."""
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "model name":
            return value.strip()
    board = "".join(_lines("/proc/device-tree/model")).strip("\0 ")
    return board or platform.processor() or platform.machine()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
