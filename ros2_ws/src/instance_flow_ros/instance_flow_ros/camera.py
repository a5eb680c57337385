# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: its images come in, its tracks go out, and it keeps its own stream and figures."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from instance_flow_msgs.msg import TrackedInstanceArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from instance_flow import Pipeline, Tracks
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.image_encodings import decode_compressed
from instance_flow.formats.messages import to_instance_array, to_label_pixels
from instance_flow.formats.stamps import stamp_problem, to_nanoseconds
from instance_flow.overlap import Overlap, Pending
from instance_flow.pictures.draw import overlay
from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.cloud import object_points
from instance_flow.spatial.measure import SpatialConfig
from instance_flow.spatial.pairing import DepthRequest
from instance_flow.spatial.transforms import TransformBuffer
from instance_flow.stream import Stream
from instance_flow.structures import Image as Pixels
from instance_flow.structures import InstanceFlowError
from instance_flow_ros import detections, in_space, middleware
from instance_flow_ros.bridge import Bridge, to_rgb
from instance_flow_ros.conversions import TYPES
from instance_flow_ros.depth import DepthTopics
from instance_flow_ros.diagnostics import (
    ANSWERED,
    BROKEN,
    DROPPED,
    JITTER,
    LOST,
    MISSING,
    PAIRED,
    RECEIVED,
    REFUSED,
    TOPIC,
    UNMASKED,
    CameraStatistics,
    StampGaps,
)
from instance_flow_ros.graph import why_silent
from instance_flow_ros.parameters import COMPRESSED, NONE, NodeConfig, StreamConfig

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

INNERMOST = -8
"""Calls of a traceback that are logged: a long message loses its end, where the error stands."""
_QUIET, _REPEAT = 5.0, 300.0
"""Seconds between two lines of log about bad frames of one camera: at least, and where they say the same."""
_LOST_SHARE = 10
"""One in so many images lost is reported."""
_BREAKS = 2
"""Breaks of the stream in one period that are more than a recording which begins again."""


def lost_images(recent: Mapping[str, int], topic: str) -> str:
    """What to do where more than a tenth of a period's images did not come; empty where they did.

    recent: counts of the period by event.
    """
    lost = max(recent[LOST], recent[MISSING])
    sent = recent[RECEIVED] + lost
    if lost * _LOST_SHARE < sent:
        return ""
    return (
        f"{lost} of about {sent} images on {topic} were lost on the way. Large images need our Fast DDS profile in the "
        f"shell of their publisher, too: export {middleware.PROFILE_VARIABLES[0]}={middleware.profile_path()}"
    )


@dataclass(frozen=True)
class ReceivedImage:
    """A message, when it came by time.monotonic(), and, where the node has depth, the request for its own."""

    message: Image | CompressedImage
    arrived: float
    depth: DepthRequest | None = None


@dataclass(frozen=True)
class Begun:
    """A frame whose objects are not assembled yet."""

    frame: ReceivedImage
    pending: Pending


class Camera:
    """Made when the node is configured; ``process``, ``begin`` and ``configure`` belong to one thread, the worker's.

    Args:
        name: empty for the only camera of a node.
        pipeline: this camera's own.
        put: hands a frame over to be processed; tells whether an older one was dropped for it.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        inputs: NodeConfig,
        pipeline: Pipeline,
        config: StreamConfig,
        bridge: Bridge,
        put: Callable[[Camera, ReceivedImage], bool],
        transforms: TransformBuffer | None = None,
    ) -> None:
        self.name = name
        self.statistics = CameraStatistics()
        self._gaps = StampGaps()
        self._problem = self._stamp_problem = self._last_break = ""
        self._broke = self._broke_before = self._jittered = False
        self._logged: dict[str, tuple[str, float]] = {}
        self._node, self._bridge, self._put, self._config = node, bridge, put, config
        self._stream = Stream(pipeline, config.max_gap, self._on_break, self._on_jitter)
        self._overlap = Overlap(self._stream)
        compressed = inputs.image_transport == COMPRESSED
        self._kind = CompressedImage if compressed else Image
        base: str = node.resolve_topic_name(f"{name}/image" if name else "image")
        self.topic = f"{base}/compressed" if compressed else base
        self._depth = None if inputs.depth == NONE else DepthTopics(node, name, inputs, config, transforms)
        self._spatial_frame = inputs.target_frame
        self._subscription: Subscription | None = None
        self._outputs: list[LifecyclePublisher] = []
        self._instances = self._create_output(TrackedInstanceArray, "instances", depth=10)
        self._label_image = self._create_output(Image, "label_image")
        self._overlay = self._create_output(Image, "overlay")
        self._derived = [(self._create_output(kind, topic), make) for kind, topic, make in self._forms()]
        if self._depth is not None:
            self._cloud = self._create_output(PointCloud2, "objects_cloud")

    @property
    def topics(self) -> dict[str, str]:
        """All topics that are subscribed to, by their names before they are remapped."""
        return {"image": self.topic, **({} if self._depth is None else self._depth.topics)}

    def subscribe(self) -> None:
        """Subscribe to images. ValueError where the parameters ask for a QoS that does not exist."""
        if self._subscription is not None:
            return
        newest = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        try:
            self._subscription = self._node.create_subscription(
                self._kind,
                self.topic,
                self._on_image,
                newest,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
            )
        except Exception as error:  # rclpy has no common base for what is wrong with an override.
            raise ValueError(f"subscribing to {self.topic} failed: {error}") from error
        self.topic = self._subscription.topic_name
        if self._depth is not None:
            self._depth.subscribe()
        self._node.get_logger().info(f"waiting for images on {self.topic}")

    def unsubscribe(self) -> None:
        """Stop receiving images."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        if self._depth is not None:
            self._depth.unsubscribe()

    def close(self) -> None:
        """Take back all topics."""
        self.unsubscribe()
        for publisher in self._outputs:
            self._node.destroy_lifecycle_publisher(publisher)
        self._outputs.clear()

    def reset(self) -> None:
        """Begin anew with the next image."""
        self._overlap.wait_until_finished()
        self._stream.reset()
        self._gaps = StampGaps()
        if self._depth is not None:
            self._depth.input.clear()

    def configure(self, pipeline_config: Any, config: StreamConfig, spatial: SpatialConfig) -> None:
        """Take settings that the model can have, from the next image on."""
        self._overlap.wait_until_finished()
        self._stream.pipeline.configure(pipeline_config)
        self._stream.pipeline.spatial = spatial
        if self._depth is not None:
            self._depth.configure(config)
        self._stream.max_gap = config.max_gap
        self._config = config

    def process(self, frame: ReceivedImage) -> None:
        """Work on one image and publish what is on it; never raises."""
        if begun := self.begin(frame):
            self.finish(begun)

    def begin(self, frame: ReceivedImage) -> Begun | None:
        """Run the network on an image; never raises, but gives nothing where that fails."""
        message, stamp = frame.message, to_nanoseconds(frame.message.header.stamp)
        self._check_stamp(message.header)
        with self._refusing():
            image = self._decode(message)
            encoding = message.format if isinstance(message, CompressedImage) else message.encoding
            self._broke_before, self._broke = self._broke, False
            return Begun(frame, self._overlap.begin(image, stamp, encoding))
        return None

    def finish(self, begun: Begun) -> None:
        """Publish what is on an image, in the order in which they were begun; never raises."""
        with self._refusing():
            header, stamp = begun.frame.message.header, begun.pending.stamp
            depth, camera = self._depth_of(begun.frame, begun.pending.image)
            tracks = self._overlap.finish(begun.pending, depth=depth, camera=camera)
            if self._depth is not None:
                self._depth.input.placed(self._stream.pipeline.spatial_problem)
            self._publish(header, begun.pending.image, tracks)
            self._publish_cloud(header, tracks, depth, camera)
            now = self._node.get_clock().now().nanoseconds
            self.statistics.answered(
                monotonic() - begun.frame.arrived,
                self._stream.pipeline.network_seconds,
                np.nan if stamp is None else (now - stamp) * 1e-9,
                len(tracks),
            )

    def _depth_of(self, frame: ReceivedImage, image: Pixels) -> tuple[Any, CameraModel | None]:
        if self._depth is None or frame.depth is None:
            return None, None
        depth, camera = self._depth.input.take(
            frame.depth, frame.message.header.frame_id, image.shape[:2], frame.arrived + self._depth.wait
        )
        self.statistics.count(PAIRED, depth is not None)
        return depth, camera

    def judge(self) -> tuple[bytes, str, dict[str, str]]:
        """Level and message of a DiagnosticStatus, and the figures of the time since this was last asked."""
        report = self.statistics.report()
        figures = report.described() | {f"{TOPIC}{name}": topic for name, topic in self.topics.items()}
        if self._subscription is None:
            return DiagnosticStatus.OK, "disabled by ~/enable", figures
        problems = "; ".join(self._problems(report.recent, self._subscription))
        if report.recent[ANSWERED]:
            problems = f"tracking, but {problems}" if problems else ""
        return (DiagnosticStatus.WARN, problems, figures) if problems else (DiagnosticStatus.OK, "tracking", figures)

    def _problems(self, recent: Mapping[str, int], subscription: Subscription) -> Iterator[str]:
        """All that was wrong in a period, by its counts."""
        if recent[REFUSED]:
            yield self._problem
        elif not recent[RECEIVED]:
            yield why_silent(self._node, subscription, self._kind)
        elif not recent[ANSWERED]:
            yield "images come in, but none was answered since the last report"
        if recent[RECEIVED] and (lost := lost_images(recent, self.topic)):
            yield lost
        if recent[BROKEN] >= _BREAKS:
            yield f"again and again {self._last_break}"
        if recent[RECEIVED] and self._stamp_problem:
            yield self._stamp_problem
        if recent[RECEIVED] and self._depth is not None and (words := self._depth.problem()):
            yield words

    def _forms(self) -> Iterator[tuple[type, str, Callable[[TrackedInstanceArray], Any]]]:
        """Type, topic and maker of the messages that are made of ~/instances."""
        if detections.AVAILABLE:
            yield detections.Detection2DArray, "detections", detections.to_detections
        if self._depth is not None:
            yield MarkerArray, "markers", in_space.to_markers
            if detections.AVAILABLE:
                yield detections.Detection3DArray, "detections_3d", detections.to_detections_3d

    def _create_output(self, message_type: type, topic: str, depth: int = 1) -> Any:
        path = f"~/{self.name}/{topic}" if self.name else f"~/{topic}"
        self._outputs.append(self._node.create_lifecycle_publisher(message_type, path, QoSProfile(depth=depth)))
        return self._outputs[-1]

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.statistics.count(RECEIVED)
        stamp = to_nanoseconds(message.header.stamp)
        self.statistics.count(MISSING, self._gaps.add(stamp))
        depth = None if self._depth is None else self._depth.input.request(stamp)
        if self._put(self, ReceivedImage(message, monotonic(), depth)):
            self.statistics.count(DROPPED)

    def _on_lost(self, status: Any) -> None:
        self.statistics.count(LOST, status.total_count_change)

    def _on_break(self, reason: str) -> None:
        """Announce a break; not every one of a row, as when two cameras publish on one topic."""
        self.statistics.count(BROKEN)
        self._broke, self._last_break = True, reason
        if not self._broke_before:
            self._warn(reason)

    def _on_jitter(self, reason: str) -> None:
        self.statistics.count(JITTER)
        if not self._jittered:
            self._jittered = True
            self._warn(f"{reason}; such images are tracked without a time. /diagnostics counts further ones")

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Count and tell what is wrong with an image, instead of raising it."""
        try:
            yield
        except (ValueError, InstanceFlowError) as error:
            self._refuse(f"an image could not be used: {error}")
        except Exception:
            if self._node.context.ok():  # Publishing fails once rclpy is shut down.
                self._refuse(f"an image could not be answered: {traceback.format_exc(INNERMOST)}")

    def _refuse(self, reason: str) -> None:
        self.statistics.count(REFUSED)
        self._problem = shown(reason, MESSAGE)
        self._log_problem(REFUSED, self._problem)

    def _log_problem(self, kind: str, words: str) -> None:
        """Log, but not for every frame. rclpy's own throttle would take all cameras for one."""
        now = monotonic()
        logged, when = self._logged.get(kind, ("", -np.inf))
        if now - when >= (_REPEAT if words == logged else _QUIET):
            self._logged[kind] = words, now
            self._warn(words)

    def _warn(self, words: str) -> None:
        self._node.get_logger().warning(shown(f"{self.topic}: {words}", MESSAGE))

    def _check_stamp(self, header: Header) -> None:
        problem = stamp_problem(header.stamp)
        if problem and not self._stamp_problem:
            self._log_problem(
                "stamp", f"{problem}. Such images are tracked without a time: velocities and ages are unknown"
            )
        self._stamp_problem = problem

    def _decode(self, message: Image | CompressedImage) -> Pixels:
        if isinstance(message, CompressedImage):
            return decode_compressed(message.data, message.format)
        return to_rgb(self._bridge, message)

    def _publish(self, header: Header, image: Pixels, tracks: Tracks) -> None:
        """Publish the outputs that have subscribers; the others are not computed."""
        names = self._stream.pipeline.info.class_names
        wanted = [(output, made_of) for output, made_of in self._derived if output.get_subscription_count()]
        if self._instances.get_subscription_count() or wanted:
            message = to_instance_array(TYPES, tracks, header, names, self._config.mask_budget, self._spatial_frame)
            self.statistics.count(UNMASKED, sum(not instance.has_mask for instance in message.instances))
            self._instances.publish(message)
            for output, made_of in wanted:
                output.publish(made_of(message))
        if self._label_image.get_subscription_count():
            labels = to_label_pixels(tracks.label_map)
            self._label_image.publish(self._bridge.cv2_to_imgmsg(labels, "16UC1", header))
        if self._overlay.get_subscription_count():
            picture = overlay(
                image,
                tracks,
                names,
                arrow_seconds=self._config.overlay_arrow_seconds,
                labels=self._config.overlay_labels,
                opacity=self._config.overlay_opacity,
            )
            self._overlay.publish(self._bridge.cv2_to_imgmsg(picture, "rgb8", header))

    def _publish_cloud(self, header: Header, tracks: Tracks, depth: Any, camera: CameraModel | None) -> None:
        """Publish the objects' points, of an image with depth."""
        pipeline = self._stream.pipeline
        if camera is None or depth is None or pipeline.spatial_problem or not self._cloud.get_subscription_count():
            return
        header = Header(stamp=header.stamp, frame_id=self._spatial_frame or header.frame_id)
        points, owners = object_points(depth, tracks.label_map, camera, pipeline.spatial.max_depth)
        self._cloud.publish(in_space.to_cloud(header, points, owners, tracks))
