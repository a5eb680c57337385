# SPDX-License-Identifier: Apache-2.0
"""The topics of depth and calibration beside the images of one camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from instance_flow.spatial.inputs import DepthInput
from instance_flow.spatial.transforms import TransformBuffer
from instance_flow_ros.graph import why_silent
from instance_flow_ros.parameters import COMPRESSED, NodeConfig, StreamConfig

_WAITING = 4
"""Messages that may wait for the node."""
_POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


class DepthTopics:
    """Subscriptions that feed a ``DepthInput``; reports why nothing arrives.

    Args:
        name: of the camera, empty for the only one of a node.
        transforms: of the node; None where it subscribes to no transforms.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        inputs: NodeConfig,
        config: StreamConfig,
        transforms: TransformBuffer | None,
    ) -> None:
        self._node = node
        self.input = DepthInput(inputs.depth_registered, inputs.target_frame, transforms)
        prefix = f"{name}/" if name else ""
        kind, suffix = (CompressedImage, "/compressedDepth") if inputs.depth == COMPRESSED else (Image, "")
        topics: list[tuple[type, str, Callable[[Any], None], str]] = [
            (kind, f"{prefix}depth{suffix}", self.input.add_depth, "depth images"),
            (CameraInfo, f"{prefix}camera_info", self.input.add_camera, "calibration"),
        ]
        if not inputs.depth_registered:
            info = f"{prefix}depth/camera_info"
            topics.append((CameraInfo, info, self.input.add_depth_camera, "calibration of the depth camera"))
        self._kinds = [(kind, node.resolve_topic_name(topic), callback, what) for kind, topic, callback, what in topics]
        self._names = [topic.removeprefix(prefix) for _, topic, _, _ in topics]
        self._subscriptions: list[Subscription] = []
        self.configure(config)

    @property
    def topics(self) -> dict[str, str]:
        """All topics that are subscribed to, by their names before they are remapped."""
        return dict(zip(self._names, (topic for _, topic, _, _ in self._kinds), strict=True))

    def configure(self, config: StreamConfig) -> None:
        """Apply settings, from the next image on."""
        self.wait = config.depth_wait
        self.input.pairing.tolerance = config.depth_tolerance

    def subscribe(self) -> None:
        """Subscribe to all topics. Raises ValueError as ``Camera.subscribe`` does."""
        newest = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=_WAITING, reliability=ReliabilityPolicy.BEST_EFFORT)
        for kind, topic, callback, _ in self._kinds:
            try:
                subscription = self._node.create_subscription(
                    kind, topic, callback, newest, qos_overriding_options=QoSOverridingOptions(_POLICIES)
                )
            except Exception as error:  # as in Camera.subscribe
                raise ValueError(f"subscribing to {topic} failed: {error}") from error
            self._subscriptions.append(subscription)

    def unsubscribe(self) -> None:
        """Remove all subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def problem(self) -> str:
        """Why positions in metres were unknown since the last call, in one sentence; empty where nothing is wrong."""
        report = self.input.report()
        for subscription, (kind, _, _, what), came in zip(
            self._subscriptions, self._kinds, (report.depths, *report.calibrated), strict=False
        ):
            if not came:
                return f"nothing is known in metres: {why_silent(self._node, subscription, kind, what)}"
        return f"nothing is known in metres: {report.problem}" if report.problem else ""
