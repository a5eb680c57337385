# SPDX-License-Identifier: Apache-2.0
"""CPU time and wake-ups of the node while no image arrives.

Percentages of one core.

    python bench/ros_idle.py        # with ros2_ws/install/setup.bash sourced

The node is active, and reports once a second on /diagnostics that its image topic has no publisher. "publisher silent":
there is a camera, but it sends nothing; "after images": it has sent some, and stopped.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from ros_setup import Row, add_settings, bench_domain, parser, probed_node, settings, show

_IMAGES = 20


def main() -> None:
    """Measure and print a table."""
    options = parser(__doc__)
    add_settings(options)
    options.add_argument("--seconds", type=float, default=20.0, help="of each measurement (default: %(default)s)")
    chosen = options.parse_args()
    with bench_domain() as folder, probed_node(folder, **settings(chosen)) as node:
        node.until_active()
        rows = [{"node": "publisher silent", **measure(node, chosen.seconds)}]
        image = np.zeros((480, 640, 3), np.uint8)
        for number in range(1, _IMAGES + 1):
            node.ask(image, number * 10**8)
        rows.append({"node": "after images", **measure(node, chosen.seconds)})
    show(rows, chosen.json)


def measure(node: Any, seconds: float) -> Row:
    """Give what a node takes while nothing is asked of it, once it has come to rest."""
    settled = monotonic() + 2.0
    node.until(lambda: monotonic() > settled, "rest")
    begun, before = monotonic(), usage(node.process.pid)
    node.until(lambda: monotonic() > begun + seconds, "the end of the measurement", seconds + 60)
    period = monotonic() - begun
    cpu, wakeups = (b - a for a, b in zip(before, usage(node.process.pid), strict=True))
    return {"seconds": period, "CPU (s)": cpu, "% of one core": 100 * cpu / period, "wake-ups per s": wakeups / period}


def usage(pid: int) -> tuple[float, int]:
    """CPU seconds of a process so far, user and system, and how often its threads gave up the processor to wait."""
    # The name of the process, in brackets, may hold spaces: fields count from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), sum(_switches(task) for task in Path(f"/proc/{pid}/task").iterdir())


def _switches(task: Path) -> int:
    lines = (task / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


if __name__ == "__main__":
    main()
