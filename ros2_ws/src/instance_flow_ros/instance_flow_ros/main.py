# SPDX-License-Identifier: Apache-2.0
"""The process around the node."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor

from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow_ros import middleware
from instance_flow_ros.node import InstanceFlowNode


class RosLog(logging.Handler):
    """Let what the runtime logs, as a GPU that did not start, be seen in the log of ROS."""

    def __init__(self, node: InstanceFlowNode) -> None:
        super().__init__(logging.WARNING)
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on a warning or an error."""
        self._logger.warning(shown(record.getMessage(), MESSAGE))


class FirstInterrupt:
    """What Python does on Ctrl-C, but once: the next one would break off the orderly end that the first one began."""

    def __init__(self) -> None:
        self.ending = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        if not self.ending:
            self.ending = True
            raise KeyboardInterrupt


_USAGE = """usage: instance_flow_node [--ros-args [-p PARAMETER:=VALUE ...] [--params-file FILE] [-r FROM:=TO ...] ...]

The instance-flow node: images come in on the topic image, tracks go out on ~/instances.

  instance_flow_node --ros-args -r image:=/camera/image_raw
  instance_flow_node --ros-args -p "cameras:=[front, rear]"     images on front/image and rear/image

Parameters with their meaning are in share/instance_flow_ros/config/instance_flow.yaml.
When something does not work: instance-flow doctor"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop; gives 0, or 1 where a parameter is not what it can be."""
    if {"-h", "--help"} & set(sys.argv[1:] if args is None else args):
        print(_USAGE)
        return 0
    interrupt = FirstInterrupt()
    signal.signal(signal.SIGINT, interrupt)  # Before rclpy, which passes on to it.
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
        print(shown(f"instance_flow: {error}", MESSAGE), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    except Exception:
        # A signal shuts rclpy down, whatever the executor or a callback is doing with it just then; and an interrupt
        # within rclpy's C++ comes out of it as an error of another kind, before rclpy is down.
        if rclpy.ok() and not interrupt.ending:
            raise
    finally:
        interrupt.ending = True
        if node is not None:
            node.close()
        with suppress(Exception):  # A signal that comes just now does the same.
            rclpy.try_shutdown()
    return 0
