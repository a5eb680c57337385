# SPDX-License-Identifier: Apache-2.0
"""Size of the messages of ~/instances, and the time to fill them.

Bytes on the wire, with masks, for images of 640 x 480; milliseconds, the median of the frames and the least of a few
runs each.

    python bench/ros_messages.py        # with ros2_ws/install/setup.bash sourced

Made objects: ellipses with wavy outlines in a random place, the more the smaller, none of which hides another. Real
objects: those that the bundled model finds in the demo's recording.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import islice
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import serialize_message
from ros_setup import REPOSITORY, Row, parser, show
from std_msgs.msg import Header

from instance_flow import Pipeline, Tracks
from instance_flow.formats.bags import BagImages
from instance_flow.formats.messages import to_instance_array
from instance_flow.network.installation import bundled_model_path
from instance_flow_ros.conversions import TYPES

_HEIGHT, _WIDTH = 480, 640
_TRIALS = 20
_RUNS = 10
_NAMES = [f"class_{number}" for number in range(100)]
_HEADER = Header(frame_id="camera_optical_frame")


def main() -> None:
    """Measure and print a table."""
    chosen = parser(__doc__).parse_args()
    rows: list[Row] = []
    for objects in (1, 10, 30):
        rng = np.random.default_rng(objects)
        rows.append(row(f"made, {_WIDTH} x {_HEIGHT}", [make_tracks(rng, objects) for _ in range(_TRIALS)]))
    found = list(recorded())
    height, width = found[0].label_map.shape
    rows.append(row(f"recorded, {width} x {height}", found))
    show(rows, chosen.json)


def row(images: str, found: list[Tracks]) -> Row:
    """Give medians: of the objects, of the bytes with and without masks, and of an image of labels for comparison."""
    whole = statistics.median(size(tracks) for tracks in found)
    bare = statistics.median(size(tracks, mask_budget=1) for tracks in found)
    area = statistics.median(float(np.median(tracks.areas)) for tracks in found if len(tracks))
    return {
        "images": images,
        "objects": round(statistics.median(len(tracks) for tracks in found)),
        "pixels each": round(area),
        "bytes": round(whole),
        "without masks": round(bare),
        "label image": found[0].label_map.size * 2,
        "fill (ms)": statistics.median(fill_seconds(tracks) for tracks in found) * 1e3,
    }


def size(tracks: Tracks, mask_budget: int = 0) -> int:
    """Bytes of a serialised message."""
    return len(serialize_message(to_instance_array(TYPES, tracks, _HEADER, _NAMES, mask_budget)))


def fill_seconds(tracks: Tracks) -> float:
    """Least time of a few runs from tracks to a message."""
    times = []
    for _ in range(_RUNS):
        start = perf_counter()
        to_instance_array(TYPES, tracks, _HEADER, _NAMES)
        times.append(perf_counter() - start)
    return min(times)


def make_tracks(rng: np.random.Generator, objects: int) -> Tracks:
    """Objects that fill a quarter of the image together, but none of which is larger than 160 pixels."""
    label_map = np.zeros((_HEIGHT, _WIDTH), np.int32)
    radius = min(80.0, float(np.sqrt(0.25 * _HEIGHT * _WIDTH / objects / np.pi)))
    track = 1
    while track <= objects:
        inside = _outline(rng, radius)
        if not label_map[inside].any():
            label_map[inside] = track
            track += 1
    boxes, areas = _measure(label_map, objects)
    numbers = np.arange(objects)
    return Tracks(
        frame_index=0,
        label_map=label_map,
        ids=numbers + 1,
        class_ids=numbers % 10,
        scores=rng.random(objects, np.float32),
        semantic_scores=rng.random(objects, np.float32),
        center_scores=rng.random(objects, np.float32),
        centers=rng.random((objects, 2), np.float32),
        boxes=boxes,
        areas=areas,
        velocities=rng.random((objects, 2), np.float32),
        states=np.ones(objects, np.int64),
        ages=numbers,
        age_seconds=rng.random(objects),
        reference_frames=numbers,
        distances=rng.random(objects, np.float32),
    )


def _outline(rng: np.random.Generator, radius: float) -> NDArray[np.bool_]:
    """Pixels of an ellipse whose outline waves."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    margin = min(1.3 * radius, _HEIGHT / 2 - 1)
    dy, dx = y - rng.uniform(margin, _HEIGHT - margin), x - rng.uniform(margin, _WIDTH - margin)
    stretch = rng.uniform(0.7, 1.4)
    waves = 1 + 0.1 * np.sin(rng.integers(3, 9) * np.arctan2(dy, dx) + rng.uniform(0, 7))
    return np.asarray(np.hypot(dy * stretch, dx / stretch) < radius * waves)


def _measure(label_map: NDArray[np.int32], objects: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    places = [np.argwhere(label_map == track) for track in range(1, objects + 1)]
    corners = [(place.min(0), place.max(0) + 1) for place in places]
    boxes = [(low[1], low[0], high[1] - low[1], high[0] - low[0]) for low, high in corners]
    return np.array(boxes, np.float32), np.array([len(place) for place in places], np.int64)


def recorded() -> Iterator[Tracks]:
    """What the bundled model finds in the demo's recording."""
    pipeline = Pipeline.load(bundled_model_path())
    for image in islice(BagImages(REPOSITORY / "ros2_ws" / "demo" / "demo.mcap"), 60):
        yield pipeline.step(image.image, image.stamp)


if __name__ == "__main__":
    main()
