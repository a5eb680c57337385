# SPDX-License-Identifier: Apache-2.0
"""The node: parameters in, one model loaded, cameras handed over to it, and what the node says of itself."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from instance_flow_msgs.msg import ClassTable
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.messages import to_class_table
from instance_flow.network.execution import ExecutionConfig
from instance_flow.spatial.measure import SpatialConfig
from instance_flow.structures import InstanceFlowError
from instance_flow_ros import parameters
from instance_flow_ros.bridge import choose_bridge
from instance_flow_ros.camera import INNERMOST, Camera, ReceivedImage
from instance_flow_ros.conversions import TYPES
from instance_flow_ros.diagnostics import ONLY, to_status
from instance_flow_ros.frames import TransformListener
from instance_flow_ros.loading import Loading
from instance_flow_ros.parameters import NodeConfig, StreamConfig
from instance_flow_ros.worker import NewestItemWorker

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

_DIAGNOSTICS_PERIOD = 1.0
_FIXED = "can be set only while the node is unconfigured"
_LIVE_KINDS = (AssemblyConfig, StreamConfig, SpatialConfig)
_LIVE = "can be set at any time, counts from the next image on, and loses no id"


class InstanceFlowNode(LifecycleNode):
    """Configured = model loaded and warmed up; active = subscribed to images and publishing."""

    def __init__(self) -> None:
        super().__init__("instance_flow")
        parameters.declare(self, NodeConfig, _FIXED)
        parameters.declare(self, ExecutionConfig, _FIXED)
        for kind in _LIVE_KINDS:
            parameters.declare(self, kind, _LIVE)
        self._bridge = choose_bridge()
        self._pipeline: Pipeline | None = None
        self._cameras: list[Camera] = []
        self._transforms: TransformListener | None = None
        self._worker: NewestItemWorker[Camera, ReceivedImage] | None = None
        self._class_table: Publisher | None = None
        self._enabled = True
        self._problem = ""
        self.add_on_set_parameters_callback(self._on_parameters)
        self._applies_afterwards = hasattr(self, "add_post_set_parameters_callback")
        if self._applies_afterwards:
            self.add_post_set_parameters_callback(self._apply)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # By a clock of its own: under use_sim_time the node's stands still until a simulation or a bag runs.
        self.create_timer(_DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def autostart(self) -> None:
        """Configure and activate, if the parameter autostart says so."""
        if self.get_parameter("autostart").value and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """Stop working, for good."""
        self._stop()
        self.destroy_node()

    # Transitions. rclpy swallows exceptions in them, so failures are logged here.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._problem = ""
        try:
            self._configure()
        except (InstanceFlowError, ValueError) as error:
            problem = str(error)
        except Exception:
            problem = f"configuring failed in an unexpected way: {traceback.format_exc(INNERMOST)}"
            if not self.context.ok():  # What is published after a signal fails wherever it just is.
                problem = "told to end while configuring"
        else:
            return super().on_configure(state)
        self._release()
        return self._fail(problem)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._problem = ""
        if super().on_activate(state) != SUCCESS:
            return FAILURE
        try:
            if self.get_parameter("pipelined").value:
                self._worker = NewestItemWorker(Camera.begin, "instance_flow", Camera.finish)
            else:
                self._worker = NewestItemWorker(Camera.process, "instance_flow")
            self._subscribe_all()
        except ValueError as error:
            self._stop()
            super().on_deactivate(state)
            return self._fail(str(error))
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
        self._problem = "shut down for good; start the process again"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return super().on_error(state)

    def _fail(self, problem: str) -> TransitionCallbackReturn:
        self._problem = shown(problem, MESSAGE)
        self.get_logger().error(self._problem)
        return FAILURE

    def _configure(self) -> None:
        config, assembly = parameters.read(self, NodeConfig), parameters.read(self, AssemblyConfig)
        kinds = (NodeConfig, ExecutionConfig, *_LIVE_KINDS)
        known = [field.name for kind in kinds for field in fields(kind)]
        for name in parameters.unknown(self._parameter_overrides, self):
            words = f"parameter {shown(name)} is not known and has no effect; known are {', '.join(known)}"
            self.get_logger().warning(shown(words, MESSAGE))
        self._pipeline = self._load(config, assembly)
        stream, spatial = parameters.read(self, StreamConfig), parameters.read(self, SpatialConfig)
        if config.needs_transforms:
            self._transforms = TransformListener(self, config.transform_tolerance)
        buffer = None if self._transforms is None else self._transforms.buffer
        for name in config.names:
            pipeline = Pipeline(self._pipeline.network, assembly)
            pipeline.spatial = spatial
            self._cameras.append(Camera(self, name, config, pipeline, stream, self._bridge, self._put, buffer))
        self._publish_class_table()
        # All that was loaded stays; looking for rings in it would hold up a frame now and then.
        gc.freeze()

    def _load(self, config: NodeConfig, assembly: AssemblyConfig) -> Pipeline:
        """Load the model and warm it up in a thread beside, and say every second on /diagnostics how far it is."""
        loading = Loading(config, parameters.read(self, ExecutionConfig), assembly, self.context.ok)
        loading.start()
        logged, start = "", monotonic()
        try:
            while not loading.ended.wait(_DIAGNOSTICS_PERIOD):
                if not self.context.ok():
                    break
                doing = loading.doing
                if doing != logged:
                    self.get_logger().info(shown(f"{doing} ({monotonic() - start:.0f} s so far)", MESSAGE))
                    logged = doing
                self._publish_status_of_all(DiagnosticStatus.OK, f"configuring: {doing}")
        finally:
            # A Ctrl-C ends the waiting, but the process must not end while the network runs. Waiting by join() alone
            # would not do: interrupted, Python 3.11 takes the thread for ended.
            loading.join()
        pipeline = loading.result()
        info = pipeline.info
        words = f"model {info.name} runs on {pipeline.provider}, ready after {monotonic() - start:.1f} s; objects: "
        self.get_logger().info(shown(words + ", ".join(info.class_names), MESSAGE))
        return pipeline

    def _publish_class_table(self) -> None:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._class_table = self.create_publisher(ClassTable, "~/class_table", latched)
        now = self.get_clock().now().to_msg()
        self._class_table.publish(to_class_table(TYPES, self._pipeline.info, Header(stamp=now)))  # type: ignore[union-attr]

    def _release(self) -> None:
        """Drop what configuring made."""
        for camera in self._cameras:
            camera.close()
        self._cameras.clear()
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None
        if self._class_table is not None:
            self.destroy_publisher(self._class_table)
            self._class_table = None
        self._pipeline = None
        self._problem = ""
        # Cameras and their streams know one another; left to itself, the session would keep its threads and its memory
        # of the GPU until Python looks for such rings.
        gc.unfreeze()
        gc.collect()

    def _subscribe_all(self) -> None:
        """Subscribe to images, while active and enabled."""
        if self._worker is not None and self._enabled:
            for camera in self._cameras:
                camera.subscribe()
            for name in parameters.unused_qos(self._parameter_overrides, self):
                topics = ", ".join(topic for camera in self._cameras for topic in camera.topics.values())
                words = f"parameter {shown(name)} has no effect: this node subscribes to {topics}"
                self.get_logger().warning(shown(words, MESSAGE))

    def _unsubscribe_all(self) -> None:
        for camera in self._cameras:
            camera.unsubscribe()

    def _stop(self) -> None:
        self._unsubscribe_all()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _put(self, camera: Camera, frame: ReceivedImage) -> bool:
        return self._worker is not None and self._worker.put(camera, frame)

    def _between_frames(self, function: Callable[[Camera], None]) -> None:
        """Call a function with every camera, when none of them is at work."""
        for camera in self._cameras:
            if self._worker is None:
                function(camera)
            else:
                self._worker.call(partial(function, camera))

    # Services and parameters.

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = bool(self._cameras)
        response.message = "ids begin at 1 again with the next image" if self._cameras else "the node is not configured"
        self._between_frames(Camera.reset)
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        try:
            self._subscribe_all()
        except ValueError as error:
            self._enabled = False
            response.message = shown(error, MESSAGE)
        if not self._enabled:
            self._unsubscribe_all()
        response.success = self._enabled == request.data
        response.message = response.message or f"working on images: {'on' if self._enabled else 'off'}"
        return response

    def _on_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        """Check new settings. What the model was loaded with stays as it is."""
        names = {parameter.name for parameter in changed}
        fixed = names & {field.name for kind in (NodeConfig, ExecutionConfig) for field in fields(kind)}
        if self._pipeline is None:
            return SetParametersResult(successful=True)
        if fixed:
            reason = f"{', '.join(sorted(fixed))} {_FIXED}; clean it up first"
            return SetParametersResult(successful=False, reason=reason)
        try:
            assembly = parameters.read(self, AssemblyConfig, changed)
            assembly.check(self._pipeline.info)
            parameters.read(self, StreamConfig, changed)
            parameters.read(self, SpatialConfig, changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=shown(error, MESSAGE))
        if not self._applies_afterwards:  # Humble: there is no later moment, though another check may still refuse.
            self._apply(changed)
        return SetParametersResult(successful=True)

    def _apply(self, changed: Sequence[Parameter]) -> None:
        """Hand settings that were accepted to the cameras."""
        live = {field.name for kind in _LIVE_KINDS for field in fields(kind)}
        if self._pipeline is None or live.isdisjoint(parameter.name for parameter in changed):
            return
        assembly = parameters.read(self, AssemblyConfig, changed)
        stream, spatial = parameters.read(self, StreamConfig, changed), parameters.read(self, SpatialConfig, changed)
        self._between_frames(lambda camera: camera.configure(assembly, stream, spatial))

    # What the node says of itself.

    def _publish_diagnostics(self) -> None:
        if self._pipeline is None:
            level = DiagnosticStatus.ERROR if self._problem else DiagnosticStatus.OK
            self._publish_status_of_all(level, self._problem or "not configured")
            return
        provider, model = self._pipeline.provider, self._pipeline.info.name
        statuses = []
        for camera in self._cameras:
            level, message, figures = camera.judge()
            if self._worker is None:
                level = DiagnosticStatus.ERROR if self._problem else DiagnosticStatus.OK
                message = self._problem or "configured, not active"
            figures["provider"] = provider
            statuses.append(to_status(self._status_name(camera.name), model, level, message, figures))
        self._publish_status(*statuses)

    def _publish_status_of_all(self, level: bytes, message: str) -> None:
        """Say the same of every camera, while there are none yet."""
        try:
            names = parameters.read(self, NodeConfig).names
        except ValueError:  # Configuring says what is wrong.
            names = ("",)
        self._publish_status(*(to_status(self._status_name(name), "", level, message, {}) for name in names))

    def _publish_status(self, *statuses: DiagnosticStatus) -> None:
        header = Header(stamp=self.get_clock().now().to_msg())
        self._diagnostics.publish(DiagnosticArray(header=header, status=list(statuses)))

    def _status_name(self, camera: str = "") -> str:
        return f"{self.get_fully_qualified_name().lstrip('/')}: {camera or ONLY}"
