# SPDX-License-Identifier: Apache-2.0
"""Records a node's state, answers and diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from instance_flow_msgs.msg import TrackedInstanceArray
from lifecycle_msgs.srv import GetState
from node_process import NodeProcess
from rclpy.serialization import deserialize_message

from instance_flow.formats.stamps import to_nanoseconds


class DemoError(Exception):
    """The node or the player did not do its part. The message is meant for the user."""


@dataclass(frozen=True)
class NodeMessage:
    """A message, its CDR bytes, and when it came, by time.monotonic_ns()."""

    message: TrackedInstanceArray
    data: bytes
    received: int


class Recorder:
    """``answers``: stamp of the image -> what the node says of it, since the stream last began anew."""

    def __init__(self, process: NodeProcess) -> None:
        self._process = process
        self._node = rclpy.create_node("recorder")
        self.answers: dict[int, NodeMessage] = {}
        self.provider = ""
        self._node.create_subscription(
            TrackedInstanceArray, "/instance_flow/instances", self._on_instances, 100, raw=True
        )
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._state = self._node.create_client(GetState, "/instance_flow/get_state")

    def spin(self, until: Callable[[], Any], seconds: float) -> bool:
        """Spin until ``until`` holds or the time is over; gives whether it held. DemoError where the node ended."""
        deadline = time.monotonic() + seconds
        while not until():
            if self._process.exit_code is not None:
                raise DemoError(f"the node ended with exit code {self._process.exit_code}\n{self._process.log_tail()}")
            if time.monotonic() > deadline:
                return False
            rclpy.spin_once(self._node, timeout_sec=0.1)
        return True

    def wait_until_active(self, seconds: float, on_wait: Callable[[], Any]) -> None:
        """Wait for the node to have loaded its model; before, it answers no question, then it is active or failed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            on_wait()
            if not self.spin(self._state.service_is_ready, 0.5):
                continue
            future = self._state.call_async(GetState.Request())
            if not self.spin(future.done, 2.0):
                continue
            label = future.result().current_state.label
            if label == "active":
                return
            raise DemoError(f"the node did not start, it is {label}\n{self._process.log_tail()}")
        raise DemoError(f"the node was not active after {seconds:.0f} s\n{self._process.log_tail()}")

    def _on_instances(self, data: bytes) -> None:
        message = deserialize_message(data, TrackedInstanceArray)
        if message.frame_index == 0:
            self.answers.clear()
        stamp = to_nanoseconds(message.header.stamp) or 0
        self.answers[stamp] = NodeMessage(message, data, time.monotonic_ns())

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for pair in message.status[0].values:
            if pair.key == "provider" and pair.value:
                self.provider = pair.value
