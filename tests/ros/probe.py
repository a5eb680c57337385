# SPDX-License-Identifier: Apache-2.0
"""The other side of a node under test: sends it images, hears its answers, calls its services."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from time import monotonic, time_ns
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from instance_flow_msgs.msg import TrackedInstanceArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_process import NodeProcess
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instance_flow.structures import Image as Pixels
from instance_flow_ros.bridge import ImageBridge

TIMEOUT = 60.0
"""Seconds: far more than anything takes, even the first compilation of the kernels beside a busy machine."""

_MANY = 1000
"""Messages that may wait while a test does not listen."""


class Probe:
    """A ROS node in this process, with a context of its own. It is the node's only camera unless others are added."""

    def __init__(self, process: NodeProcess, namespace: str) -> None:
        self.process = process
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("probe", namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._statuses: defaultdict[str, list[DiagnosticStatus]] = defaultdict(list)
        self._told: defaultdict[str, list[int]] = defaultdict(list)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.camera = ProbeCamera(self)
        self.answers = self.camera.answers
        self.statuses = self.statuses_of("stream")

    def close(self) -> None:
        """End the node under test and this one."""
        self.process.stop()
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def until(self, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
        """Wait until the condition gives something true, and give that; ``what`` says in words what is awaited."""
        deadline = monotonic() + timeout
        while not (value := condition()):
            if self.process.exit_code is not None:
                raise AssertionError(f"the node ended before {what}; its log:\n{self.process.log_tail()}")
            if monotonic() > deadline:
                raise AssertionError(f"waited in vain for: {what}; the node's log:\n{self.process.log_tail()}")
            self._executor.spin_once(timeout_sec=0.05)
        return value

    def until_logged(self, words: str) -> None:
        """Wait until the node has printed something."""
        self.until(lambda: words in self.process.log(), f"{words!r} in the log")

    def listen(self, message_type: Any, topic: str, qos: QoSProfile | int = 10) -> list[Any]:
        """Give a list that every message on a topic is added to from now on."""
        heard: list[Any] = []
        self.node.create_subscription(message_type, topic, heard.append, qos)
        return heard

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service of the node under test and give the response."""
        client = self.node.create_client(service_type, f"instance_flow/{name}")
        self.until(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        self.until(future.done, f"response of {name}")
        self.node.destroy_client(client)
        return future.result()

    def state(self) -> str:
        """Label of the node's lifecycle state."""
        label: str = self.call(GetState, "get_state", GetState.Request()).current_state.label
        return label

    def change_state(self, label: str) -> bool:
        """Ask for a transition by its label."""
        request = ChangeState.Request(transition=Transition(label=label))
        return bool(self.call(ChangeState, "change_state", request).success)

    def set_parameter(self, name: str, value: Any) -> tuple[bool, str]:
        """Set one parameter; whether that was accepted, and why not."""
        message = Parameter(name, value=value).to_parameter_msg()
        result = self.call(SetParameters, "set_parameters", SetParameters.Request(parameters=[message])).results[0]
        return result.successful, result.reason

    def until_active(self) -> Probe:
        """Wait until the node is active and hears our images."""
        self.until(lambda: self.state() == "active", "state active")
        self.camera.until_heard()
        return self

    def send(self, message: Any) -> None:
        """Publish an image message."""
        self.camera.send(message)

    def ask(self, image: Pixels, stamp: int) -> TrackedInstanceArray:
        """Send an image (H, W, 3) RGB and give the answer to it."""
        return self.camera.ask(to_message(image, stamp))

    def statuses_of(self, stream: str) -> list[DiagnosticStatus]:
        """Give the list that the node's diagnostics of a stream, as "front", are added to."""
        return self._statuses[stream]

    def next_status(self, stream: str = "stream") -> DiagnosticStatus:
        """The node's diagnostics, of a period that begins after this call."""
        now = time_ns()
        self.until(lambda: sum(told > now for told in self._told[stream]) > 1, "two diagnostics")
        return self.statuses_of(stream)[-1]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        mine = f"{self.node.get_namespace().lstrip('/')}/instance_flow: "
        for status in message.status:
            if status.name.startswith(mine):
                stream, told = status.name.removeprefix(mine), message.header.stamp
                self._statuses[stream].append(status)
                self._told[stream].append(told.sec * 10**9 + told.nanosec)


class ProbeCamera:
    """One of the node's cameras; the name is empty where the node has but one."""

    def __init__(
        self, probe: Probe, name: str = "", message_type: type = Image, qos: QoSProfile | int = 1, topic: str = "image"
    ) -> None:
        prefix = f"{name}/" if name else ""
        self._probe = probe
        self._images = probe.node.create_publisher(message_type, f"{prefix}{topic}", qos)
        self.answers: list[TrackedInstanceArray] = []
        self._topic = f"instance_flow/{prefix}instances"
        self.listen()

    def listen(self) -> None:
        """Hear the answers; so it is from the beginning."""
        self._ears = self._probe.node.create_subscription(TrackedInstanceArray, self._topic, self.answers.append, _MANY)

    def stop_listening(self) -> None:
        """Do not hear answers any more."""
        self._probe.node.destroy_subscription(self._ears)

    def until_heard(self) -> ProbeCamera:
        """Wait until the node subscribes to the images."""
        self._probe.until(self._images.get_subscription_count, "a subscription to our images")
        return self

    def send(self, message: Any) -> None:
        """Publish an image message."""
        self._images.publish(message)

    def ask(self, message: Any) -> TrackedInstanceArray:
        """Send an image message and give the answer to it.

        Discovery is finished on our side before it is on the node's, so the very first image is sent until it is heard.
        """
        while True:
            self.send(message)
            answer = self._wait_for_answer(message.header, 10.0 if self.answers else 0.5)
            if answer is not None:
                return answer

    def close(self) -> None:
        """Stop publishing, as a driver that ends."""
        self._probe.node.destroy_publisher(self._images)

    def _wait_for_answer(self, header: Header, seconds: float) -> TrackedInstanceArray | None:
        deadline = monotonic() + seconds
        heard = len(self.answers)

        def answered() -> bool:
            return any(answer.header == header for answer in self.answers[heard:]) or monotonic() > deadline

        self._probe.until(answered, "an answer")
        return next((answer for answer in self.answers[heard:] if answer.header == header), None)


def values(status: DiagnosticStatus) -> dict[str, str]:
    """What a status holds, by name."""
    return {pair.key: pair.value for pair in status.values}


def to_message(image: Pixels, stamp: int, encoding: str = "rgb8") -> Image:
    """Image message of pixels in an encoding, stamp in nanoseconds."""
    return ImageBridge().cv2_to_imgmsg(image, encoding, to_header(stamp))


def to_header(stamp: int) -> Header:
    """Header of an image, stamp in nanoseconds."""
    seconds, nanoseconds = divmod(stamp, 10**9)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id="camera_optical_frame")
