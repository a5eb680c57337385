#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Subscribe to an instance-flow node, and to the images that it works on.

    ros2 run instance_flow_examples listener.py --ros-args -r image:=/camera/image_raw

With a node of another name, or with several cameras: -r instance_flow/instances:=/detector/front/instances
"""

from __future__ import annotations

import rclpy
from instance_flow_msgs.msg import ClassTable, TrackedInstance, TrackedInstanceArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image

from instance_flow_examples.masks import window
from instance_flow_examples.pairs import StampPairs

STATES = {
    TrackedInstance.NEW: "new",
    TrackedInstance.TRACKED: "tracked",
    TrackedInstance.RECOVERED: "recovered",
}

# The class table is published once and kept for those who come later: only a subscriber that asks for the past gets it.
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

# Best effort fits every camera; a reliable subscriber gets nothing, without an error, from one that is best effort.
CAMERA = qos_profile_sensor_data

# The node publishes reliably. Ask for that where no frame may be missing; best effort is enough for the newest.
INSTANCES = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class InstanceListener(Node):
    """Logs the classes once, and the objects of each image."""

    def __init__(self) -> None:
        super().__init__("instance_listener")
        pairs = StampPairs(self._on_pair)
        self.create_subscription(ClassTable, "instance_flow/class_table", self._on_class_table, LATCHED)
        self.create_subscription(Image, "image", pairs.add_first, CAMERA)
        self.create_subscription(TrackedInstanceArray, "instance_flow/instances", pairs.add_second, INSTANCES)

    def _on_class_table(self, table: ClassTable) -> None:
        self.get_logger().info(f"model {table.model} knows {', '.join(table.class_names)}")

    def _on_pair(self, image: Image, message: TrackedInstanceArray) -> None:
        """Use both: the pixels of `image` are those that the masks of `message` speak of."""
        stamp = message.header.stamp
        self.get_logger().info(
            f"{stamp.sec}.{stamp.nanosec:09d}: {image.encoding} image of {image.width} x {image.height}, "
            f"{len(message.instances)} objects"
        )
        for instance in message.instances:
            self.get_logger().info(describe(instance))


def describe(instance: TrackedInstance) -> str:
    """Put one object in words."""
    # Without a mask, which mask_budget can take away, area still says how many pixels the object has.
    pixels = f"{window(instance.mask).sum()} pixels" if instance.has_mask else f"no mask, {instance.area} pixels"
    velocity = f"({instance.velocity.x:.1f}, {instance.velocity.y:.1f}) px/s"
    return f"id {instance.id}: {instance.class_name}, {STATES[instance.state]}, velocity {velocity}, {pixels}"


def main() -> None:
    """Spin until interrupted."""
    rclpy.init()
    try:
        rclpy.spin(InstanceListener())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
