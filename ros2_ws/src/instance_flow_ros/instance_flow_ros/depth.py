# SPDX-License-Identifier: Apache-2.0
"""Depth images and the calibration of one camera: they come in, each image gets its own, and what is wrong is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from instance_flow.formats.depth_messages import to_camera, to_depth
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.stamps import stamp_problem, to_nanoseconds
from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.pairing import DepthPairing, DepthRequest
from instance_flow_ros.graph import why_silent
from instance_flow_ros.parameters import COMPRESSED, StreamConfig

_WAITING = 4
"""Messages that may wait for the node."""
_POLICIES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


class DepthInput:
    """What ``Camera`` knows of depth. ``take`` and ``placed`` belong to the thread that finishes images.

    Args:
        name: of the camera, empty for the only one of a node.
        transport: raw or compressed.
    """

    def __init__(self, node: LifecycleNode, name: str, transport: str, config: StreamConfig) -> None:
        self._node = node
        prefix = f"{name}/" if name else ""
        kind, suffix = (CompressedImage, "/compressedDepth") if transport == COMPRESSED else (Image, "")
        base: str = node.resolve_topic_name(f"{prefix}depth")
        self._inputs: tuple[tuple[type, str, Callable[[Any], None], str], ...] = (
            (kind, f"{base}{suffix}", self._on_depth, "depth images"),
            (CameraInfo, node.resolve_topic_name(f"{prefix}camera_info"), self._on_camera_info, "calibration"),
        )
        self._subscriptions: list[Subscription] = []
        self._pairing = DepthPairing()
        self._unreadable = self._uncalibrated = self._unplaced = ""
        self.configure(config)

    @property
    def topics(self) -> list[str]:
        """Where depth and calibration are listened to."""
        return [topic for _, topic, _, _ in self._inputs]

    def configure(self, config: StreamConfig) -> None:
        """Take settings, from the next image on."""
        self._wait = config.depth_wait
        self._pairing.tolerance = config.depth_tolerance

    def subscribe(self) -> None:
        """Listen to depth and calibration; ValueError as of ``Camera.subscribe``."""
        newest = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=_WAITING, reliability=ReliabilityPolicy.BEST_EFFORT)
        for kind, topic, callback, _ in self._inputs:
            try:
                subscription = self._node.create_subscription(
                    kind, topic, callback, newest, qos_overriding_options=QoSOverridingOptions(_POLICIES)
                )
            except Exception as error:  # as in Camera.subscribe
                raise ValueError(f"listening to {topic} failed: {error}") from error
            self._subscriptions.append(subscription)

    def unsubscribe(self) -> None:
        """Stop receiving depth."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def clear(self) -> None:
        """Forget what came so far."""
        self._pairing.clear()

    def request(self, stamp: int | None) -> DepthRequest:
        """Have the depth kept that belongs to an image that has just come; stamp in nanoseconds."""
        return self._pairing.request(stamp)

    def take(self, request: DepthRequest, arrived: float) -> tuple[Any, CameraModel | None]:
        """Depth and calibration for ``Pipeline.track``; what cannot be read is given as it is and counts as bad depth.

        arrived: when the image came, by time.monotonic(): ``depth_wait`` counts from then on.
        """
        message, camera = self._pairing.take(request, arrived + self._wait)
        if message is None:
            return None, camera
        try:
            return to_depth(message), camera
        except Exception as error:  # The answer in pixels must not depend on it, whatever is wrong.
            self._unreadable = shown(f"a depth image could not be read: {error}", MESSAGE)
            return message, camera

    def placed(self, problem: str) -> None:
        """Tell what ``Pipeline.spatial_problem`` says of an image."""
        self._unplaced = problem

    def problems(self) -> Iterator[str]:
        """Why nothing is known in metres, of the time since this was last asked; the first cause only."""
        report = self._pairing.report()
        unreadable, self._unreadable = self._unreadable, ""
        causes = (
            lambda: "" if report.depths else self._why_silent(0),
            lambda: self._uncalibrated,
            lambda: "" if report.calibrated else self._why_silent(1),
            lambda: unreadable,
            lambda: report.problem(self._pairing.tolerance),
            lambda: self._unplaced,
        )
        for cause in causes:
            if words := cause():
                yield f"nothing is known in metres: {words}"
                return

    def _why_silent(self, which: int) -> str:
        if len(self._subscriptions) <= which:
            return ""
        kind, _, _, what = self._inputs[which]
        return why_silent(self._node, self._subscriptions[which], kind, what)

    def _on_depth(self, message: Image | CompressedImage) -> None:
        stamp = to_nanoseconds(message.header.stamp)
        if stamp is None:
            self._unreadable = f"the depth images cannot be paired: {stamp_problem(message.header.stamp)}"
        else:
            self._pairing.add_depth(stamp, message)

    def _on_camera_info(self, message: CameraInfo) -> None:
        try:
            camera, self._uncalibrated = to_camera(message), ""
        except ValueError as error:
            camera, self._uncalibrated = None, shown(f"the calibration cannot be used: {error}", MESSAGE)
        self._pairing.add_camera(to_nanoseconds(message.header.stamp) or 0, camera)
