# SPDX-License-Identifier: Apache-2.0
"""The node of a command that takes part in the graph for a while: doctor, healthcheck, play."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


@contextmanager
def command_node(name: str) -> Iterator[Node]:
    """A node in a context of its own, without /rosout and parameter services; both end with the block."""
    context = rclpy.Context()
    # No signal handlers: Ctrl-C is the command's own, and rclpy would shut down in the middle of a message.
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name, context=context, enable_rosout=False, start_parameter_services=False)
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()
