# SPDX-License-Identifier: Apache-2.0
"""Memory of the node over many images.

Resident memory of the real node while it answers image after image.

    python bench/ros_memory.py --frames 20000        # with ros2_ws/install/setup.bash sourced
    python bench/ros_memory.py --frames 20000 --model models/instance-flow-everyday.onnx

The network is the one of the tests unless a model is named, on images of 128 x 96, so that it takes minutes; with a
model, on images of its own size. The number of objects changes all the time; every 500 images the stream pauses, every
1,700 it begins anew. At the end the node is cleaned up and configured again, --rounds times.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from ros_setup import Row, add_settings, bench_domain, parser, probed_node, resident_mib, settings, show

_AT = (0, 1_000, 5_000, 10_000, 20_000)
_PAUSE, _RESTART = 500, 1_700
_ROUNDS_SHOWN = 10


def main() -> None:
    """Measure and print a table."""
    options = parser(__doc__)
    options.add_argument("--frames", type=int, default=_AT[-1])
    options.add_argument("--rounds", type=int, default=50, help="times that the node is cleaned up at the end")
    add_settings(options)
    chosen = options.parse_args()
    show(measure(chosen.frames, chosen.rounds, settings(chosen)), chosen.json)


def measure(frames: int, rounds: int, parameters: dict[str, str]) -> list[Row]:
    """Give resident MiB after some numbers of frames, and after some of the rounds."""
    from blobs import BLUE, RED, draw, write_model

    places = [(x, y) for y in (16, 48, 80) for x in (16, 48, 80, 112)]
    pictures = [draw([(x, y, (RED, BLUE)[k % 2]) for k, (x, y) in enumerate(places[:n])]) for n in range(len(places))]
    rows: list[Row] = []
    with bench_domain() as folder:
        if "model" in parameters:
            parameters["model"] = str(Path(parameters["model"]).resolve())
            pictures = [np.asarray(cv2.resize(picture, (640, 384)), np.uint8) for picture in pictures]
        else:
            write_model(folder / "blobs.onnx")
        with probed_node(folder, **{"model": folder / "blobs.onnx", "provider": "cpu", **parameters}) as node:

            def note(frame: int, round_: int) -> None:
                threads = len(list(Path(f"/proc/{node.process.pid}/task").iterdir()))
                memory = resident_mib(node.process.pid)
                rows.append({"frames": frame, "rounds": round_, "MiB": memory, "threads": threads})

            node.until_active().ask(pictures[0], 1)
            stamp = 0
            for frame in range(frames + 1):
                if frame in _AT or frame == frames:
                    note(frame, 0)
                stamp = 0 if frame % _RESTART == 0 else stamp + (5 if frame % _PAUSE == 0 else 0) * 10**9
                stamp += 10**9 // 30
                node.ask(pictures[frame * 7 // 5 % len(pictures)], stamp)
                node.answers.clear()
            for number in range(1, rounds + 1):
                for change in ("deactivate", "cleanup", "configure", "activate"):
                    if not node.change_state(change):
                        raise RuntimeError(f"the node refused to {change}:\n{node.process.log_tail()}")
                node.until_active().ask(pictures[-1], stamp + number * 10**9)
                node.answers.clear()
                if number % _ROUNDS_SHOWN == 0 or number == rounds:
                    note(frames, number)
    return rows


if __name__ == "__main__":
    main()
