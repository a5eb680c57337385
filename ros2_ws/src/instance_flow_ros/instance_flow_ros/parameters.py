# SPDX-License-Identifier: Apache-2.0
"""ROS parameters out of frozen dataclasses: a field is a parameter, its metadata the descriptor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

Config = TypeVar("Config")

RAW, COMPRESSED = "raw", "compressed"


@dataclass(frozen=True)
class NodeConfig:
    """What the node itself has to know; how frames are worked on is in instance_flow.AssemblyConfig."""

    autostart: bool = field(
        default=True, metadata={"description": "configure and activate at the start, without a lifecycle manager"}
    )
    model: str = field(default="", metadata={"description": "path of the ONNX model; empty = the bundled one"})
    provider: str = field(
        default="auto",
        metadata={
            "description": "what the model runs on; only auto falls back to the CPU: auto, cpu, cuda or tensorrt"
        },
    )
    image_transport: str = field(
        default=RAW,
        metadata={
            "description": "raw: sensor_msgs/Image on the topic image; compressed: CompressedImage on image/compressed"
        },
    )

    def __post_init__(self) -> None:
        if self.image_transport not in (RAW, COMPRESSED):
            raise ValueError(f"parameter image_transport is {self.image_transport!r}; expected {RAW} or {COMPRESSED}")


def declare(node: Node, config: type) -> None:
    """Declare a parameter for each field of a dataclass, with its default, description and range."""
    for parameter in fields(config):
        node.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))


def read(node: Node, config: type[Config]) -> Config:
    """Build the dataclass from the node's parameters; it may refuse them with a ValueError."""
    names = [parameter.name for parameter in fields(config)]  # type: ignore[arg-type]
    return config(**{name: node.get_parameter(name).value for name in names})


def unknown(given: Iterable[str], node: Node) -> list[str]:
    """Names among those given to the node that are none of its parameters."""
    return sorted(name for name in given if not name.startswith("qos_overrides.") and not node.has_parameter(name))


def _descriptor(parameter: Field[Any]) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=parameter.metadata["description"])
    limits = parameter.metadata.get("range")
    if limits is None:
        return descriptor
    if isinstance(parameter.default, float):
        low, high = (float(limit) for limit in limits)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    else:
        low, high = (int(limit) for limit in limits)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor
