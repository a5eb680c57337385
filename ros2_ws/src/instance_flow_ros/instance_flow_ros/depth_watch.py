# SPDX-License-Identifier: Apache-2.0
"""Listens for the doctor to what a node with depth listens to, and sums up what is wrong with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from instance_flow.formats.depth_messages import to_depth
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.stamps import stamp_problem, to_nanoseconds
from instance_flow.spatial.camera import to_camera
from instance_flow.spatial.measure import BAD_DEPTH, SIZE_MISMATCH, depth_problem
from instance_flow.spatial.pairing import DepthPairing, DepthRequest
from instance_flow.spatial.transforms import TransformBuffer, TransformUnknown
from instance_flow_ros.depth_findings import Beside, DepthSeen

_PATIENCE = 1.0
"""Seconds that the depth of an image may come after it."""
_SAMPLES = 5
"""Depth images that are decoded: a second of a slow camera, and little work."""


@dataclass(frozen=True)
class DepthSettings:
    """Of a node, as its parameters have them."""

    registered: bool
    target_frame: str
    tolerance: float


@dataclass
class _Calibration:
    count: int = 0
    message: Any = None

    def receive(self, message: CameraInfo) -> None:
        self.count, self.message = self.count + 1, message

    def problem(self, size: tuple[int, int] | None) -> str:
        """What is wrong with the last one for images of (height, width); empty where nothing is, or none came."""
        if self.message is None:
            return ""
        try:
            camera = to_camera(self.message)
        except ValueError as error:
            return f"the calibration cannot be used: {error}"
        size = size or camera.size
        return camera.problem(size) if size else ""


@dataclass
class _Depths:
    """Depth images that came. samples: the first ones that could be read."""

    count: int = 0
    frame: str = ""
    problem: str = ""
    samples: list[Any] = field(default_factory=list)

    def receive(self, message: Image | CompressedImage) -> None:
        self.count += 1
        self.frame = message.header.frame_id
        self.problem = self.problem or stamp_problem(message.header.stamp)
        if len(self.samples) < _SAMPLES and not self.problem:
            try:
                self.samples.append(np.array(to_depth(message)))
            except ValueError as error:
                self.problem = str(error)


class DepthWatch:
    """Listens on construction.

    Args:
        node: that listens.   watched: full name of the node that is looked at.   prefix: before its names of topics.
        topics: of one of its cameras, by the names that the node has for them, without the prefix.
        transforms: None where there is nothing to look frames up in.
    """

    def __init__(
        self,
        node: Node,
        watched: str,
        prefix: str,
        topics: Mapping[str, str],
        settings: DepthSettings,
        transforms: TransformBuffer | None,
    ) -> None:
        self._node, self._watched, self._settings, self._transforms = node, watched, settings, transforms
        self._pairing = DepthPairing(settings.tolerance)
        self._waiting: deque[tuple[float, DepthRequest]] = deque()
        self._size: tuple[int, int] | None = None
        self._frame = ""
        self._looked_up = 0
        self._unknown: list[str] = []
        self._depths = _Depths()
        self._beside: list[tuple[Beside, _Depths | _Calibration]] = []
        self._depth_calibration = _Calibration()
        kind: Any
        receive: Callable[[Any], None]
        listener: _Depths | _Calibration
        for name, topic in topics.items():
            if name.endswith("camera_info"):
                kind, what = CameraInfo, "calibration"
                calibration = self._depth_calibration if name == "depth/camera_info" else _Calibration()
                listener, receive = calibration, calibration.receive
            else:
                kind, what = (CompressedImage if name.endswith("/compressedDepth") else Image), "depth"
                listener, receive = self._depths, self._on_depth
            beside = Beside(f"{prefix}{name}", topic, what, f"sensor_msgs/msg/{kind.__name__}", {})
            self._beside.append((beside, listener))
            node.create_subscription(kind, topic, receive, qos_profile_sensor_data)

    def on_image(self, message: Image | CompressedImage, size: tuple[int, int] | None) -> None:
        """Take an image of (height, width), None where it cannot be read."""
        self._size, self._frame = size or self._size, message.header.frame_id
        self._waiting.append((monotonic(), self._pairing.request(to_nanoseconds(message.header.stamp))))
        self._settle(_PATIENCE)

    def seen(self, publishers: Mapping[str, Mapping[str, str]], kinds: Mapping[str, str]) -> DepthSeen:
        """Sum up.

        publishers: type by full name of the node, by topic.   kinds: type by topic, of those that are still to be had.
        """
        self._settle(_PATIENCE / 2)
        samples = self._depths.samples
        values = np.concatenate([np.ravel(sample[::4, ::4]) for sample in samples]) if samples else np.zeros(0)
        floating = values.dtype.kind == "f"
        valid = np.isfinite(values) & (values > 0) if floating else (values > 0) & (values < 65535)
        topics = [
            replace(
                beside,
                publishers=publishers.get(beside.topic, {}),
                count=listener.count,
                elsewhere=_elsewhere(beside, kinds),
                problem=shown(self._problem(listener), MESSAGE),
            )
            for beside, listener in self._beside
        ]
        failed = len(self._unknown) * 2 > self._looked_up
        return DepthSeen(
            self._watched,
            tuple(topics),
            (self._frame, self._depths.frame),
            self._settings.registered,
            float(valid.mean()) if len(values) else None,
            float(np.median(values[valid])) if floating and valid.any() else float("nan"),
            self._pairing.report(),
            self._settings.tolerance,
            self._unknown[-1] if failed else "",
        )

    def _on_depth(self, message: Image | CompressedImage) -> None:
        self._depths.receive(message)
        stamp = to_nanoseconds(message.header.stamp)
        if stamp is not None:
            self._pairing.add_depth(stamp, message.header.frame_id)

    def _problem(self, listener: _Depths | _Calibration) -> str:
        shape = self._depths.samples[0].shape if self._depths.samples else None
        if isinstance(listener, _Calibration):
            return listener.problem(shape if listener is self._depth_calibration else self._size)
        if listener.problem or shape is None or self._size is None or not self._settings.registered:
            return listener.problem
        state, words = depth_problem(listener.samples[0], None, self._size)
        return words if state in (BAD_DEPTH, SIZE_MISMATCH) else ""

    def _settle(self, age: float) -> None:
        """Take the depth of images that have waited so long, and look up where they were."""
        while self._waiting and monotonic() - self._waiting[0][0] > age:
            _, request = self._waiting.popleft()
            depth_frame = self._pairing.take(request)
            if self._transforms is None or request.stamp is None:
                continue
            wanted = [(self._settings.target_frame, self._frame)] if self._settings.target_frame else []
            if not self._settings.registered and depth_frame is not None:
                wanted.append((self._frame, depth_frame))
            for target, source in wanted:
                self._looked_up += 1
                try:
                    self._transforms.lookup(target, source, request.stamp)
                except TransformUnknown as error:
                    self._unknown.append(str(error))


def _elsewhere(beside: Beside, kinds: Mapping[str, str]) -> tuple[str, ...]:
    """Topics that could have been meant: of the same type, and depth by its name."""
    word = {"calibration": "", "depth": "depth"}[beside.what]
    if beside.expected.endswith("CompressedImage"):
        word = "/compresseddepth"
    same = [topic for topic, kind in kinds.items() if kind == beside.expected and topic != beside.topic]
    return tuple(sorted(topic for topic in same if word in topic.lower()))
