# SPDX-License-Identifier: Apache-2.0
"""Latency that the node adds to the network's time, and lost images.

The real node, and a camera beside it.

    python bench/ros_latency.py               # 640x480 and 1280x720, best effort and reliable, 30 images per second
    python bench/ros_latency.py --rate 10     # where the network cannot keep up with 30
    python bench/ros_latency.py --set threads=1 --set pipelined=true
    python bench/ros_latency.py --depth       # with depth and calibration beside every image

With ros2_ws/install/setup.bash sourced. The camera's process sends images of the demo's recording in the size asked
for, as any driver with our Fast DDS profile would. All times are milliseconds, medians where nothing else is said.

* network, beyond: from the node's diagnostics, the network's own time and all else from the callback of an image to the
  end of publishing its answer.
* latency, added: from the camera's publish to the callback of a subscriber in another process, and what of it is not
  the network: "beyond", and the middleware's two ways.

Of images that come while the network works only the newest is answered, and it has waited: with a network slower than
the camera, "beyond" and "added" hold that wait as well.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import monotonic_ns
from typing import Any

import cv2
import numpy as np
from ros_setup import REPOSITORY, Row, add_settings, bench_domain, parser, probed_node, settings, show

_SIZES = ((640, 480), (1280, 720))
_IMAGES = 30


def main() -> None:
    """Measure and print a table."""
    options = parser(__doc__)
    add_settings(options)
    options.add_argument("--rate", type=float, default=30.0, help="images per second (default: %(default)s)")
    options.add_argument("--frames", type=int, default=300, help="images to send (default: %(default)s)")
    options.add_argument("--depth", action="store_true", help="send depth, too, and place the objects in metres")
    chosen = options.parse_args()
    given = settings(chosen) | ({"depth": "raw"} if chosen.depth else {})
    rows: list[Row] = []
    with bench_domain() as folder, probed_node(folder, **given) as node:
        node.until(lambda: node.state() == "active", "state active")
        for width, height in _SIZES:
            np.save(folder / "images.npy", list(pictures(width, height)))
            for reliable in (False, True):
                name = {"size": f"{width}x{height}", "QoS": "reliable" if reliable else "best effort"}
                film = (folder / "images.npy", reliable, chosen.rate, chosen.frames, chosen.depth)
                rows.append({**name, **measure(node, *film)})
    show(rows, chosen.json)


def pictures(width: int, height: int) -> Iterator[np.ndarray]:
    """Images of the demo's recording, in another size."""
    from instance_flow.formats.bags import BagImages

    for image in islice(BagImages(REPOSITORY / "ros2_ws" / "demo" / "demo.mcap"), _IMAGES):
        yield cv2.resize(image.image, (width, height), interpolation=cv2.INTER_AREA)


def measure(node: Any, images: Path, reliable: bool, rate: float, frames: int, depth: bool = False) -> dict[str, float]:
    """Have a camera send images to an active node, and give what became of them."""
    from camera_process import CameraProcess
    from probe import values

    names = ("image", "instance_flow/instances", "depth")
    topic, answers, depth_topic = (node.node.resolve_topic_name(name) for name in names)
    with CameraProcess(
        images, topic, answers, rate=rate, frames=frames, reliable=reliable, depth=depth_topic if depth else ""
    ) as camera:
        camera.until_ready()
        before = values(node.next_status())
        told = len(node.statuses)
        with arrival_times(node, answers) as arrived, ThreadPoolExecutor(1) as pool:
            film = pool.submit(camera.film)
            node.until(film.done, "the images to be sent", 600.0)
            after = values(node.next_status())
        sent = film.result()
    periods = [values(status) for status in node.statuses[told:] if "nan" not in values(status)["network p50 (ms)"]]
    network, beyond, worst = (
        statistics.median(float(period[f"{name} (ms)"]) for period in periods)
        for name in ("network p50", "beyond the network p50", "beyond the network p95")
    )
    latencies = [(arrived[stamp] - time) / 1e6 for stamp, time in sent.items() if stamp in arrived]
    p50, p95 = (float(value) for value in np.percentile(latencies, (50, 95)))
    events = ("received", "dropped", "with depth")
    counts = {name: int(after[f"frames {name}"]) - int(before[f"frames {name}"]) for name in events}
    return {
        "sent": len(sent),
        "received": counts["received"],
        "answered": len(latencies),
        "dropped": counts["dropped"],
        **({"with depth": counts["with depth"]} if depth else {}),
        "network": network,
        "beyond": beyond,
        "beyond p95": worst,
        "latency": p50,
        "latency p95": p95,
        "added": p50 - network,
    }


@contextmanager
def arrival_times(node: Any, topic: str) -> Iterator[dict[int, int]]:
    """Give a table of stamps, and when the first answer with it was heard, by time.monotonic_ns()."""
    from instance_flow_msgs.msg import TrackedInstanceArray

    arrived: dict[int, int] = {}

    def note(message: TrackedInstanceArray) -> None:
        stamp = message.header.stamp
        arrived.setdefault(stamp.sec * 10**9 + stamp.nanosec, monotonic_ns())

    subscription = node.node.create_subscription(TrackedInstanceArray, topic, note, 100)
    yield arrived
    node.node.destroy_subscription(subscription)


if __name__ == "__main__":
    main()
