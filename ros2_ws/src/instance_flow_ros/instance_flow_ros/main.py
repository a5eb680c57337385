# SPDX-License-Identifier: Apache-2.0
"""The process around the node."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor

from instance_flow_ros import middleware
from instance_flow_ros.node import InstanceFlowNode


class RosLog(logging.Handler):
    """Let what the runtime logs, as a GPU that did not start, be seen in the log of ROS."""

    def __init__(self, node: InstanceFlowNode) -> None:
        super().__init__(logging.WARNING)
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on a warning or an error."""
        self._logger.warning(record.getMessage())


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop; gives 0, or 1 where a parameter is not what it can be."""
    middleware.prepare()
    rclpy.init(args=None if args is None else list(args))
    node = None
    try:
        node = InstanceFlowNode()
        logging.getLogger("instance_flow").addHandler(RosLog(node))
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        node.autostart()
        executor.spin()
    except ParameterException as error:
        print(f"instance_flow: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    except Exception:
        # A signal shuts rclpy down at once, whatever the executor or a callback is doing with it just then.
        if rclpy.ok():
            raise
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0
