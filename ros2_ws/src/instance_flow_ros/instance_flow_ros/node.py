# SPDX-License-Identifier: Apache-2.0
"""The node: parameters in, a pipeline built, images handed over, tracks published. Nothing else happens here."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from instance_flow_msgs.msg import TrackedInstanceArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from instance_flow import AssemblyConfig, Pipeline, Tracks
from instance_flow.draw import overlay
from instance_flow.image_encodings import decode_compressed
from instance_flow.installation import bundled_model_path
from instance_flow.structures import Image as Pixels
from instance_flow.structures import InstanceFlowError
from instance_flow_ros import detections, parameters
from instance_flow_ros.bridge import choose_bridge, to_rgb
from instance_flow_ros.conversions import to_instance_array, to_label_pixels, to_nanoseconds
from instance_flow_ros.diagnostics import (
    ANSWERED,
    DROPPED,
    RECEIVED,
    REFUSED,
    Report,
    Statistics,
    describe,
    to_diagnostics,
)
from instance_flow_ros.parameters import NodeConfig
from instance_flow_ros.stream import Stream
from instance_flow_ros.worker import NewestItemWorker

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

_DIAGNOSTICS_PERIOD = 1.0
_QUIET = 5.0
"""Seconds between two lines of log about bad frames."""


@dataclass(frozen=True)
class Frame:
    """A message and when it came, by time.monotonic()."""

    message: Image | CompressedImage
    arrived: float


class InstanceFlowNode(LifecycleNode):
    """Configured = model loaded and warmed up; active = subscribed to images and publishing."""

    def __init__(self) -> None:
        super().__init__("instance_flow")
        parameters.declare(self, NodeConfig)
        parameters.declare(self, AssemblyConfig)
        self._bridge = choose_bridge()
        self._statistics = Statistics()
        self._pipeline: Pipeline | None = None
        self._stream: Stream | None = None
        self._worker: NewestItemWorker[Frame] | None = None
        self._subscription: Subscription | None = None
        self._outputs: list[LifecyclePublisher] = []
        self._enabled = True
        self._problem = ""
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(_DIAGNOSTICS_PERIOD, self._publish_diagnostics)

    @property
    def topic(self) -> str:
        """Full name of the topic of images; image_transport appends the transport to the remapped name."""
        name: str = self.resolve_topic_name("image")
        transport = self.get_parameter("image_transport").value
        return f"{name}/compressed" if transport == parameters.COMPRESSED else name

    def autostart(self) -> None:
        """Configure and activate, if the parameter autostart says so."""
        if self.get_parameter("autostart").value and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """Stop working, for good."""
        self._stop()
        self.destroy_node()

    # Transitions. rclpy swallows exceptions in them, so what fails is told here.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._problem = ""
        try:
            self._configure()
        except (InstanceFlowError, ValueError) as error:
            return self._fail(str(error))
        except Exception:
            return self._fail(f"configuring failed in an unexpected way:\n{traceback.format_exc()}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if super().on_activate(state) != SUCCESS:
            return FAILURE
        try:
            self._worker = NewestItemWorker(self._answer, "instance_flow")
            self._subscribe()
        except Exception as error:
            self._stop()
            super().on_deactivate(state)
            return self._fail(f"listening to {self.topic} failed: {error}")
        self.get_logger().info(f"waiting for images on {self.topic}")
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return super().on_shutdown(state)

    def _fail(self, problem: str) -> TransitionCallbackReturn:
        self._problem = problem
        self.get_logger().error(problem)
        return FAILURE

    def _configure(self) -> None:
        config, assembly = parameters.read(self, NodeConfig), parameters.read(self, AssemblyConfig)
        for name in parameters.unknown(self._parameter_overrides, self):
            valid = ", ".join(field.name for field in (*fields(NodeConfig), *fields(AssemblyConfig)))
            self.get_logger().warning(f"parameter {name} is not known and has no effect; known are {valid}")
        start = monotonic()
        model = config.model or bundled_model_path()
        self.get_logger().info(f"loading model {model} (provider {config.provider})")
        pipeline = Pipeline.load(model, provider=config.provider, config=assembly)
        self.get_logger().info(
            f"loaded model {pipeline.info.name} on {pipeline.provider} in {monotonic() - start:.1f} s; warming up, "
            "which takes longer the first time"
        )
        start = monotonic()
        pipeline.warmup(pipeline.info.input_size)
        self.get_logger().info(
            f"warmed up in {monotonic() - start:.1f} s; objects: {', '.join(pipeline.info.class_names)}"
        )
        self._pipeline, self._stream = pipeline, Stream(pipeline, self._report_reset)
        self._instances = self._create_output(TrackedInstanceArray, "~/instances", depth=10)
        self._label_image = self._create_output(Image, "~/label_image")
        self._overlay = self._create_output(Image, "~/overlay")
        if detections.AVAILABLE:
            self._detections = self._create_output(detections.Detection2DArray, "~/detections")

    def _create_output(self, message_type: type, topic: str, depth: int = 1) -> Any:
        self._outputs.append(self.create_lifecycle_publisher(message_type, topic, QoSProfile(depth=depth)))
        return self._outputs[-1]

    def _release(self) -> None:
        """Drop what configuring made."""
        if self._pipeline is None:
            return
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._outputs.clear()
        self._pipeline = self._stream = None
        self._problem = ""

    def _subscribe(self) -> None:
        """Listen to images, while active and enabled."""
        if self._subscription is not None or self._worker is None or not self._enabled:
            return
        newest = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        compressed = self.get_parameter("image_transport").value == parameters.COMPRESSED
        self._subscription = self.create_subscription(
            CompressedImage if compressed else Image,
            self.topic,
            self._on_image,
            newest,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None

    def _stop(self) -> None:
        self._unsubscribe()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    # Frames. _on_image runs in the executor's thread, all that follows in the worker's.

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.count(RECEIVED)
        if self._worker is not None and self._worker.put(Frame(message, monotonic())):
            self._statistics.count(DROPPED)

    def _answer(self, frame: Frame) -> None:
        try:
            image = self._decode(frame.message)
            tracks = self._stream.step(image, to_nanoseconds(frame.message.header))  # type: ignore[union-attr]
            self._publish(frame.message.header, image, tracks)
            self._statistics.answered(frame.arrived, len(tracks))
        except (ValueError, InstanceFlowError) as error:
            self._refuse(f"an image could not be used: {error}")
        except Exception:
            if self.context.ok():  # Publishing fails once rclpy is shut down.
                self._refuse(f"an image could not be answered:\n{traceback.format_exc()}")

    def _decode(self, message: Image | CompressedImage) -> Pixels:
        if isinstance(message, CompressedImage):
            return decode_compressed(message.data)
        return to_rgb(self._bridge, message)

    def _publish(self, header: Header, image: Pixels, tracks: Tracks) -> None:
        names = self._pipeline.info.class_names  # type: ignore[union-attr]
        message = to_instance_array(tracks, header, names)
        self._instances.publish(message)
        if detections.AVAILABLE and self._detections.get_subscription_count():
            self._detections.publish(detections.to_detections(message))
        if self._label_image.get_subscription_count():
            labels = to_label_pixels(tracks.label_map)
            self._label_image.publish(self._bridge.cv2_to_imgmsg(labels, "16UC1", header))
        if self._overlay.get_subscription_count():
            self._overlay.publish(self._bridge.cv2_to_imgmsg(overlay(image, tracks, names), "rgb8", header))

    def _refuse(self, reason: str) -> None:
        self._statistics.count(REFUSED)
        self._problem = reason
        self.get_logger().warning(reason, throttle_duration_sec=_QUIET)

    def _report_reset(self, reason: str) -> None:
        self.get_logger().warning(f"{reason}: all tracks are forgotten, ids begin at 1 again")

    # Services and parameters.

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._stream is not None
        response.message = "ids begin at 1 again with the next image" if self._stream else "the node is not configured"
        if self._stream is not None and self._pipeline is not None:
            self._stream.begin_anew(self._pipeline)
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        if self._enabled:
            self._subscribe()
        else:
            self._unsubscribe()
        response.success = True
        response.message = f"working on images: {'on' if self._enabled else 'off'}"
        return response

    def _on_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        """Take new settings at once, by a stream that begins anew. What the model was loaded with stays as it is."""
        names = {parameter.name for parameter in changed}
        fixed = names & {field.name for field in fields(NodeConfig)}
        if self._pipeline is None or self._stream is None:
            return SetParametersResult(successful=True)
        if fixed:
            reason = f"{', '.join(sorted(fixed))} can only be set while the node is unconfigured; clean it up first"
            return SetParametersResult(successful=False, reason=reason)
        settings = {field.name: getattr(self._pipeline.config, field.name) for field in fields(AssemblyConfig)}
        settings.update({parameter.name: parameter.value for parameter in changed if parameter.name in settings})
        try:
            pipeline = Pipeline(self._pipeline.network, AssemblyConfig(**settings))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if pipeline.config != self._pipeline.config:
            self._pipeline = pipeline
            self._stream.begin_anew(pipeline)
            self.get_logger().info("new settings: ids begin at 1 again with the next image")
        return SetParametersResult(successful=True)

    # What the node says of itself.

    def _publish_diagnostics(self) -> None:
        report = self._statistics.report()
        level, message = self._judge(report)
        info = None if self._pipeline is None else self._pipeline.info
        values = describe(report) | {"provider": "" if self._pipeline is None else self._pipeline.provider}
        hardware_id = "" if info is None else info.name
        now = self.get_clock().now().to_msg()
        name = f"{self.get_fully_qualified_name().lstrip('/')}: stream"
        self._diagnostics.publish(to_diagnostics(now, name, hardware_id, level, message, values))

    def _judge(self, report: Report) -> tuple[bytes, str]:
        if self._pipeline is None:
            return (DiagnosticStatus.ERROR, self._problem) if self._problem else (DiagnosticStatus.OK, "not configured")
        if self._worker is None:
            return DiagnosticStatus.OK, "configured, not active"
        if not self._enabled:
            return DiagnosticStatus.OK, "disabled by ~/enable"
        if report.recent[REFUSED]:
            return DiagnosticStatus.WARN, self._problem
        if not report.recent[RECEIVED]:
            return DiagnosticStatus.WARN, f"no images on {self.topic}, {self.count_publishers(self.topic)} publishers"
        if not report.recent[ANSWERED]:
            return DiagnosticStatus.WARN, "images come in, but none was answered since the last report"
        return DiagnosticStatus.OK, "tracking"
