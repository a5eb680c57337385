# SPDX-License-Identifier: Apache-2.0
"""Subscriptions to transforms, where tf2_msgs is installed. tf2_ros is not used: replay looks frames up without ROS,
and both must give the same result."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.spatial.inputs import add_transforms
from instance_flow.spatial.transforms import TransformBuffer

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    AVAILABLE, TFMessage = False, None
else:
    AVAILABLE = True

DYNAMIC = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TransformListener:
    """Fills a ``TransformBuffer`` from /tf and /tf_static.

    tolerance: as of the buffer.
    Raises ValueError where tf2_msgs is not installed.
    """

    def __init__(self, node: Node, tolerance: float) -> None:
        if not AVAILABLE:
            raise ValueError(
                "target_frame and depth_registered: false need transforms, but tf2_msgs is not installed; a ROS "
                "installation has it (apt install ros-$ROS_DISTRO-tf2-msgs), the wheels from PyPI have not"
            )
        self.buffer = TransformBuffer(tolerance=tolerance)
        self._node, self._refused = node, set[str]()
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._on_dynamic, DYNAMIC),
            node.create_subscription(TFMessage, "/tf_static", self._on_static, STATIC),
        ]

    def close(self) -> None:
        """Remove both subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _on_dynamic(self, message: Any) -> None:
        self._add(message, static=False)

    def _on_static(self, message: Any) -> None:
        self._add(message, static=True)

    def _add(self, message: Any, static: bool) -> None:
        for frame, problem in add_transforms(self.buffer, message, static):
            if frame not in self._refused and len(self._refused) < _MOST_REFUSED:
                self._refused.add(frame)
                self._node.get_logger().warning(shown(problem, MESSAGE))


_MOST_REFUSED = 20
"""Frames of which a wrong transform is logged, once for each."""
