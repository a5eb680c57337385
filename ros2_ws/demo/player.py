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
from sensor_msgs.msg import CompressedImage, Image

from instance_flow.formats.atomic import replacing
from instance_flow.formats.bag_messages import BagMessages, Recorded
from instance_flow.formats.bags import COMPRESSED, BagImages
from instance_flow_ros import middleware

_PATIENCE = 30.0


def main(bag: Path, sent: Path) -> None:
    """Play the one topic of images in ``bag``."""
    images = BagImages(bag)
    stamps = [image.stamp for image in images]
    messages = list(BagMessages(bag, [images.topic]))
    middleware.prepare()
    rclpy.init()
    try:
        node = rclpy.create_node("player")
        kind = CompressedImage if messages[0].message_type == COMPRESSED else Image
        publisher = node.create_publisher(kind, images.topic, 10)
        knock(node, publisher, messages[-1].data)
        times = play(publisher, messages)
        with replacing(sent) as whole:
            whole.write_text(json.dumps(dict(zip(stamps, times, strict=True))))
        sys.stdin.read()
    except Exception:
        if rclpy.ok():  # Told to end, rclpy is shut down at once, and all else fails.
            raise
    finally:
        rclpy.try_shutdown()


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


def play(publisher: Any, messages: list[Recorded]) -> list[int]:
    """Publish at the times of the recording; gives when each was published, by time.monotonic_ns()."""
    times = []
    start, first = time.monotonic_ns(), messages[0].received
    for message in messages:
        time.sleep(max(0, start + message.received - first - time.monotonic_ns()) / 1e9)
        if not rclpy.ok():
            raise ExternalShutdownException
        times.append(time.monotonic_ns())
        publisher.publish(message.data)
    return times


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
