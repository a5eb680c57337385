# SPDX-License-Identifier: Apache-2.0
"""Ask a running node how it is, as a supervisor does: exit code 0 if it is well, 1 if it is not or does not answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor

from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow_ros import middleware
from instance_flow_ros.command_node import command_node

HEALTHY, UNHEALTHY = 0, 1

_DEPTH = 100
"""Every node of a robot writes to /diagnostics; those of ours must not be lost among them."""


def judge(statuses: Sequence[DiagnosticStatus]) -> tuple[int, str]:
    """Give the exit code and one line in words for what a node says of itself, one status or more.

    A warning, as that no images come, is for others to act on: the node that gives it is well, and a new start of it
    would not help.
    """
    ill = [status for status in statuses if status.level not in (DiagnosticStatus.OK, DiagnosticStatus.WARN)]
    warned = [status for status in statuses if status.level == DiagnosticStatus.WARN]
    words = "; ".join(shown(f"{status.name}: {status.message}", MESSAGE) for status in ill or warned or statuses)
    if ill:
        return UNHEALTHY, f"unhealthy: {words}"
    return HEALTHY, f"healthy, with a warning: {words}" if warned else f"healthy: {words}"


def ask(name: str, timeout: float) -> tuple[int, str]:
    """Wait for what the node of this full name says next on /diagnostics, ``timeout`` seconds at most, and judge it."""
    received: list[DiagnosticStatus] = []
    prefix = f"{name.strip('/')}: "

    def on_diagnostics(message: DiagnosticArray) -> None:
        received.extend(status for status in message.status if status.name.startswith(prefix))

    # A name with a leading _ is hidden from `ros2 node list`.
    with command_node("_instance_flow_healthcheck") as node:
        executor = SingleThreadedExecutor(context=node.context)
        try:
            node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, _DEPTH)
            executor.add_node(node)
            deadline = monotonic() + timeout
            while not received and monotonic() < deadline:
                executor.spin_once(timeout_sec=max(deadline - monotonic(), 0.0))
        finally:
            executor.shutdown()
    if not received:
        return UNHEALTHY, f"unhealthy: /{prefix}nothing on /diagnostics for {timeout:g} s"
    return judge(received)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; the answer is one line on standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", default="/instance_flow", help="full name of the node (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=8.0, help="seconds to wait for it (default: %(default)s)")
    options = parser.parse_args(args)
    middleware.prepare()
    code, words = ask(options.node, options.timeout)
    sys.stdout.write(f"{words}\n")
    return code
