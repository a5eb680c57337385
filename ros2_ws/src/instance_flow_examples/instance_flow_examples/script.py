# SPDX-License-Identifier: Apache-2.0
"""What the scripts for a planner share: the topics of the node, parameters that are checked, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection

import rclpy
from instance_flow_msgs.msg import ClassTable, TrackedInstanceArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

_INSTANCES = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

# Otherwise `-p seconds:=2`, which is an integer, would end the process; `number` and `text` say what is wrong.
_ANY = ParameterDescriptor(dynamic_typing=True)


def listen(node: Node, wanted: Collection[str], receive: Callable[[TrackedInstanceArray], None]) -> None:
    """Listen to the node's objects. wanted: names of classes; those that its model does not know are logged."""

    def check(table: ClassTable) -> None:
        for name in sorted(set(wanted) - set(table.class_names)):
            node.get_logger().error(
                f"model {table.model} has no class '{name}', so nothing is found; it has {', '.join(table.class_names)}"
            )

    node.create_subscription(ClassTable, "instance_flow/class_table", check, _LATCHED)
    node.create_subscription(TrackedInstanceArray, "instance_flow/instances", receive, _INSTANCES)


def number(node: Node, name: str, default: float, lowest: float, highest: float) -> float:
    """Declare a parameter and give its value. Raises ValueError where it is no number of that range."""
    value = node.declare_parameter(name, default, _ANY).value
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ValueError(f"the parameter {name} is {value!r}; expected a number from {lowest:g} to {highest:g}")
    return float(value)


def text(node: Node, name: str) -> str:
    """Declare a parameter, empty unless it is set, and give its value. Raises ValueError where it is no text."""
    value = node.declare_parameter(name, "", _ANY).value
    if not isinstance(value, str):
        raise ValueError(f"the parameter {name} is {value!r}; expected a text, in double quotes: -p {name}:='\"...\"'")
    return value.strip()


def run(make: Callable[[], Node]) -> int:
    """Run a node until told to stop; gives the exit code, 2 where a parameter is not what it can be."""
    rclpy.init()
    try:
        rclpy.spin(make())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0
