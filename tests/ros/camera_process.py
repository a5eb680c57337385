# SPDX-License-Identifier: Apache-2.0
"""A camera in a process of its own, as its driver would be: images at a fixed rate, with or without reliability.

    camera_process.py IMAGES.npy --topic /camera/image_raw --answers /instance_flow/instances --rate 30 --frames 90

The process sends its first image until the node answers, prints "ready", and waits for a line on standard input. Then
it sends the images (N, H, W, 3) RGB in turn, stamped with the time of day, and prints stamp and time.monotonic_ns() of
each as JSON; then it waits for the end of standard input. With --depth, the topic of a depth camera, each image is
followed by its depth, a slope of millimetres, and preceded by its calibration, on camera_info beside that topic.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from instance_flow_msgs.msg import TrackedInstanceArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from instance_flow_ros import middleware
from instance_flow_ros.bridge import ImageBridge

_PATIENCE = 60.0


class CameraProcess:
    """The process, as its parent sees it. For use with ``with``.

    topic, answers, depth: full names; no depth where that is empty.   images: a file of numpy.
    """

    def __init__(
        self,
        images: Path,
        topic: str,
        answers: str,
        *,
        rate: float = 30.0,
        frames: int = 90,
        reliable: bool = False,
        depth: str = "",
    ) -> None:
        command = [sys.executable, __file__, str(images), "--topic", topic, "--answers", answers]
        command += ["--rate", str(rate), "--frames", str(frames), *(["--reliable"] if reliable else [])]
        command += ["--depth", depth] if depth else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> CameraProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def until_ready(self) -> None:
        """Wait until the node has answered to an image."""
        if self._read() != "ready\n":
            raise RuntimeError("the camera did not start; what it said stands above")

    def film(self) -> dict[int, int]:
        """Have the images sent; gives their stamps, and when each was published by time.monotonic_ns()."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return dict(json.loads(self._read()))

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def main() -> None:
    """Run the camera."""
    options = parse()
    middleware.prepare()
    rclpy.init()
    try:
        messages = [ImageBridge().cv2_to_imgmsg(image, "rgb8", Header()) for image in np.load(options.images)]
        node = rclpy.create_node("camera")
        reliability = ReliabilityPolicy.RELIABLE if options.reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=1, reliability=reliability)
        publisher: Any = node.create_publisher(Image, options.topic, qos)
        if options.depth:
            publisher = DepthCamera(node, publisher, options.depth, messages[0], qos)
        knock(node, publisher, messages[0], options.answers)
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(film(publisher, messages, options.rate, options.frames)), flush=True)
        sys.stdin.read()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        with suppress(Exception):  # A signal that comes just now does the same.
            rclpy.try_shutdown()


class DepthCamera:
    """Publishes an image with what belongs to it."""

    def __init__(self, node: Node, images: Any, topic: str, image: Image, qos: QoSProfile) -> None:
        self._images, height, width = images, image.height, image.width
        self._depths = node.create_publisher(Image, topic, qos)
        self._infos = node.create_publisher(CameraInfo, f"{topic.rpartition('/')[0]}/camera_info", qos)
        slope = np.linspace(4000, 1000, height).astype(np.uint16)
        self._depth = ImageBridge().cv2_to_imgmsg(np.tile(slope[:, None], width), "16UC1", image.header)
        k = np.array((width, 0, width / 2, 0, width, height / 2, 0, 0, 1), np.float64)
        self._info = CameraInfo(header=image.header, height=height, width=width, distortion_model="plumb_bob", k=k)

    def publish(self, image: Image) -> None:
        """Calibration, image and depth of one time."""
        self._info.header = self._depth.header = image.header
        self._infos.publish(self._info)
        self._images.publish(image)
        self._depths.publish(self._depth)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--answers", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--reliable", action="store_true")
    parser.add_argument("--depth", default="")
    return parser.parse_args()


def knock(node: Node, publisher: Any, message: Image, topic: str) -> None:
    """Send an image until the node answers, as both find one another one side at a time."""
    answers: list[TrackedInstanceArray] = []
    subscription = node.create_subscription(TrackedInstanceArray, topic, answers.append, 10)
    deadline = time.monotonic() + _PATIENCE
    while not answers:
        send(publisher, message)
        rclpy.spin_once(node, timeout_sec=0.5)
        if time.monotonic() > deadline:
            raise TimeoutError("the node does not answer to images")
    node.destroy_subscription(subscription)


def film(publisher: Any, messages: list[Image], rate: float, frames: int) -> list[tuple[int, int]]:
    """Send images; never two of them closer than the rate says, however late the machine makes the first of them."""
    sent: list[tuple[int, int]] = []
    for frame in range(frames):
        if sent:
            time.sleep(max(0.0, 1 / rate - (time.monotonic_ns() - sent[-1][1]) / 1e9))
        sent.append(send(publisher, messages[frame % len(messages)]))
    return sent


def send(publisher: Any, message: Image) -> tuple[int, int]:
    """Publish an image that is taken now; gives its stamp and time.monotonic_ns()."""
    stamp = time.time_ns()
    message.header.stamp = Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
    now = time.monotonic_ns()
    publisher.publish(message)
    return stamp, now


if __name__ == "__main__":
    main()
