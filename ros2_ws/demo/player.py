# SPDX-License-Identifier: Apache-2.0
"""Play the images of a bag to a running node, in a process of its own, as `ros2 bag play` would.

Usage: player.py BAG SENT.json. When each image was sent is written to SENT.json; the end of standard input ends the
player. Publisher and node find one another one side at a time, so the last image is sent until the node answers to it;
then the bag is played from its beginning, and the stamps that run back make the node begin anew, whatever image of the
knocking it still has in hand.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from instance_flow_msgs.msg import TrackedInstanceArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CompressedImage, Image

from instance_flow.formats.atomic import replacing
from instance_flow.formats.bags import COMPRESSED, BagImages
from instance_flow_ros import middleware

_PATIENCE = 30.0


def main(bag: Path, sent: Path) -> None:
    """Play the one topic of images in ``bag``."""
    images = BagImages(bag)
    stamps = [image.stamp for image in images]
    kind, messages = read(bag, images.topic)
    middleware.prepare()
    rclpy.init()
    try:
        node = rclpy.create_node("player")
        publisher = node.create_publisher(CompressedImage if kind == COMPRESSED else Image, images.topic, 10)
        knock(node, publisher, messages[-1][1])
        times = play(publisher, messages)
        with replacing(sent) as whole:
            whole.write_text(json.dumps(dict(zip(stamps, times, strict=True))))
        sys.stdin.read()
    except Exception:
        if rclpy.ok():  # Told to end, rclpy is shut down at once, and all else fails.
            raise
    finally:
        rclpy.try_shutdown()


def read(bag: Path, topic: str) -> tuple[str, list[tuple[int, bytes]]]:
    """Type of a topic, and its messages as the bag holds them, each with the time of its recording in nanoseconds."""
    with Reader(bag) as reader:
        connections = [connection for connection in reader.connections if connection.topic == topic]
        messages = [(received, bytes(data)) for _, received, data in reader.messages(connections)]
    return connections[0].msgtype, messages


def knock(node: Node, publisher: Any, message: bytes) -> None:
    """Send a message until the node has answered."""
    answers: list[TrackedInstanceArray] = []
    node.create_subscription(TrackedInstanceArray, "/instance_flow/instances", answers.append, 10)
    deadline = time.monotonic() + _PATIENCE
    while not answers:
        publisher.publish(message)
        rclpy.spin_once(node, timeout_sec=1.0)
        if time.monotonic() > deadline:
            raise TimeoutError("the node does not answer to images")


def play(publisher: Any, messages: list[tuple[int, bytes]]) -> list[int]:
    """Publish at the times of the recording; gives when each was published, by time.monotonic_ns()."""
    times = []
    start, first = time.monotonic_ns(), messages[0][0]
    for received, message in messages:
        time.sleep(max(0, start + received - first - time.monotonic_ns()) / 1e9)
        if not rclpy.ok():
            raise ExternalShutdownException
        times.append(time.monotonic_ns())
        publisher.publish(message)
    return times


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
