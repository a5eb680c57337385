# SPDX-License-Identifier: Apache-2.0
"""Subscriptions to transforms, where tf2_msgs is installed. tf2_ros is not used: replay looks frames up without ROS,
and both must give the same result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.spatial.inputs import add_transforms
from instance_flow.spatial.transforms import TransformBuffer

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = True

_DYNAMIC = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
_STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TransformListener:
    """Fills a ``TransformBuffer`` from /tf and /tf_static.

    tolerance: as of the buffer.   log: called with why transforms were refused, None = the node's warnings.
    Raises ValueError where tf2_msgs is not installed.
    """

    def __init__(self, node: Node, tolerance: float, log: Callable[[str], object] | None = None) -> None:
        if not AVAILABLE:
            raise ValueError(
                "target_frame and depth_registered: false need transforms, but tf2_msgs is not installed; a ROS "
                "installation has it (apt install ros-$ROS_DISTRO-tf2-msgs), the wheels from PyPI have not"
            )
        self.buffer = TransformBuffer(tolerance=tolerance)
        self._node, self._log, self._refused = node, log or node.get_logger().warning, set[str]()
        self._subscriptions = [
            node.create_subscription(TFMessage, topic, partial(self._add, static=static), qos)
            for topic, qos, static in (("/tf", _DYNAMIC, False), ("/tf_static", _STATIC, True))
        ]

    def close(self) -> None:
        """Remove both subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _add(self, message: Any, static: bool) -> None:
        for problem in add_transforms(self.buffer, message, static, self._refused):
            self._log(shown(problem, MESSAGE))
