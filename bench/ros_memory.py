# SPDX-License-Identifier: Apache-2.0
"""Does the node's memory grow? Resident memory of the real node while it answers image after image.

    python bench/ros_memory.py --frames 20000        # with ros2_ws/install/setup.bash sourced

The network is the one of the tests, on images of 128 x 96, so that it takes minutes. The number of objects changes all
the time; every 500 images the stream pauses, every 1,700 it begins anew. What is measured is everything but the
network: messages, streams, tracks, references.
"""

from __future__ import annotations

from pathlib import Path

from ros_setup import Row, bench_domain, parser, probed_node, resident_mib, show

_AT = (0, 1_000, 5_000, 10_000, 20_000)
_PAUSE, _RESTART = 500, 1_700


def main() -> None:
    """Measure and print a table."""
    options = parser(__doc__)
    options.add_argument("--frames", type=int, default=_AT[-1])
    chosen = options.parse_args()
    show(measure(chosen.frames), chosen.json)


def measure(frames: int) -> list[Row]:
    """Give resident MiB after some numbers of frames."""
    from blobs import BLUE, RED, draw, write_model

    places = [(x, y) for y in (16, 48, 80) for x in (16, 48, 80, 112)]
    pictures = [draw([(x, y, (RED, BLUE)[k % 2]) for k, (x, y) in enumerate(places[:n])]) for n in range(len(places))]
    rows: list[Row] = []
    with bench_domain() as folder:
        write_model(folder / "blobs.onnx")
        with probed_node(folder, model=folder / "blobs.onnx", provider="cpu") as node:
            node.until_active().ask(pictures[0], 1)
            stamp = 0
            for frame in range(frames + 1):
                if frame in _AT or frame == frames:
                    threads = len(list(Path(f"/proc/{node.process.pid}/task").iterdir()))
                    rows.append({"frames": frame, "MiB": resident_mib(node.process.pid), "threads": threads})
                stamp = 0 if frame % _RESTART == 0 else stamp + (5 if frame % _PAUSE == 0 else 0) * 10**9
                stamp += 10**9 // 30
                node.ask(pictures[frame * 7 // 5 % len(pictures)], stamp)
                node.answers.clear()
    return rows


if __name__ == "__main__":
    main()
