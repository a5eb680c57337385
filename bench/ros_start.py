# SPDX-License-Identifier: Apache-2.0
"""Time from the start of the node's process to its first answer.

First and second run of the machine.

    python bench/ros_start.py        # with ros2_ws/install/setup.bash sourced

The first run finds no compiled kernels and compiles them; the second one finds those of the first. Images come all the
time, 20 per second, as from a camera that is there already.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from time import monotonic

import numpy as np
from ros_setup import add_settings, bench_domain, parser, probed_node, resident_mib, settings, show

_READY = re.compile(r"ready after ([\d.]+) s")


def main() -> None:
    """Measure and print a table."""
    options = parser(__doc__)
    add_settings(options)
    options.add_argument("--runs", type=int, default=3)
    chosen = options.parse_args()
    with bench_domain() as folder:
        os.environ["NUMBA_CACHE_DIR"] = str(folder / "kernels")
        rows = [{"run": run + 1, **measure(folder, settings(chosen))} for run in range(chosen.runs)]
    show(rows, chosen.json)


def measure(folder: Path, parameters: dict[str, str]) -> dict[str, float]:
    """Start a node and give the seconds until its model was ready, by its own word, and until its first answer came."""
    from probe import to_message

    image = to_message(np.zeros((480, 640, 3), np.uint8), 1)
    start = monotonic()
    with probed_node(folder, **parameters) as node:
        timer = node.node.create_timer(0.05, lambda: node.send(image))
        node.until(lambda: node.answers, "an answer", 600.0)
        seconds = monotonic() - start
        node.node.destroy_timer(timer)
        ready = _READY.search(node.process.log())
        return {
            "model ready (s)": float(ready[1]) if ready else float("nan"),
            "first answer (s)": seconds,
            "MiB": resident_mib(node.process.pid),
        }


if __name__ == "__main__":
    main()
