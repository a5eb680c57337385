# SPDX-License-Identifier: Apache-2.0
"""The other side of a node under test: sends it images, hears its answers, calls its services."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
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
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instance_flow.structures import Image as Pixels
from instance_flow_ros.bridge import ImageBridge

TIMEOUT = 60.0
"""Seconds: far more than anything takes, even the first compilation of the kernels beside a busy machine."""


class Probe:
    """A ROS node in this process, with a context of its own."""

    def __init__(self, process: NodeProcess, namespace: str) -> None:
        self.process = process
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("probe", namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.answers: list[TrackedInstanceArray] = []
        self.statuses: list[DiagnosticStatus] = []
        self.node.create_subscription(TrackedInstanceArray, "instance_flow/instances", self.answers.append, 10)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._images = self.node.create_publisher(Image, "image", 1)

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
        self.until(self._images.get_subscription_count, "a subscription to our images")
        return self

    def send(self, message: Any) -> None:
        """Publish an image message."""
        self._images.publish(message)

    def ask(self, image: Pixels, stamp: int) -> TrackedInstanceArray:
        """Send an image (H, W, 3) RGB and give the answer to it.

        Discovery is finished on our side before it is on the node's, so the very first image is sent until it is heard.
        """
        message = to_message(image, stamp)
        while True:
            self.send(message)
            answer = self._wait_for_answer(message.header, 10.0 if self.answers else 0.5)
            if answer is not None:
                return answer

    def _wait_for_answer(self, header: Header, seconds: float) -> TrackedInstanceArray | None:
        deadline = monotonic() + seconds
        heard = len(self.answers)

        def answered() -> bool:
            return any(answer.header == header for answer in self.answers[heard:]) or monotonic() > deadline

        self.until(answered, "an answer")
        return next((answer for answer in self.answers[heard:] if answer.header == header), None)

    def next_status(self) -> DiagnosticStatus:
        """The node's diagnostics, of a period that begins after this call."""
        heard = len(self.statuses)
        self.until(lambda: len(self.statuses) > heard + 1, "two diagnostics")
        return self.statuses[-1]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        mine = f"{self.node.get_namespace().lstrip('/')}/instance_flow: stream"
        self.statuses.extend(status for status in message.status if status.name == mine)


def to_message(image: Pixels, stamp: int) -> Image:
    """Image message of (H, W, 3) RGB, stamp in nanoseconds."""
    seconds, nanoseconds = divmod(stamp, 10**9)
    header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id="camera_optical_frame")
    return ImageBridge().cv2_to_imgmsg(image, "rgb8", header)
