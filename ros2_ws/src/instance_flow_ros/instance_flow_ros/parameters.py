# SPDX-License-Identifier: Apache-2.0
"""ROS parameters out of frozen dataclasses: a field is a parameter, its metadata the descriptor."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterable
from dataclasses import Field, dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from instance_flow.commands.values import image_size
from instance_flow.declare import check, declared, setting
from instance_flow.formats.messages import MASK_BUDGET
from instance_flow.network.execution import PROVIDER_NAMES
from instance_flow.spatial.pairing import TOLERANCE
from instance_flow.stream import StreamSettings

Config = TypeVar("Config")

RAW, COMPRESSED, NONE = "raw", "compressed", "none"
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


@dataclass(frozen=True)
class NodeConfig:
    """What is decided before the node is configured, beside instance_flow.ExecutionConfig, and stays until it is
    cleaned up."""

    autostart: bool = setting(
        True, "configure and activate at the start; false leaves both to a lifecycle manager. Read at the start only"
    )
    model: str = setting("", "path of the ONNX model; empty = the bundled one")
    provider: str = setting(
        "auto",
        "what the model runs on. Only auto may fall back to the CPU, with a warning; with the others configuring fails "
        "where they do not work",
        choices=PROVIDER_NAMES,
    )
    input_size: str = setting(
        "",
        "WIDTHxHEIGHT of the network's input, multiples of 32, such as 640x384; empty = the model's own. Larger finds "
        "smaller objects and takes longer",
    )
    pipelined: bool = setting(
        False,
        "whether the network works on the next image while the objects of this one are assembled and published: more "
        "images per second, each a little later; the same tracks",
    )
    image_transport: str = setting(
        RAW,
        "raw: sensor_msgs/Image on the topic image; compressed: CompressedImage on image/compressed",
        choices=(RAW, COMPRESSED),
    )
    depth: str = setting(
        NONE,
        "depth images for positions in metres, with camera_info beside them. raw: sensor_msgs/Image on the topic "
        "depth; compressed: CompressedImage on depth/compressedDepth; none: positions are unknown",
        choices=(NONE, RAW, COMPRESSED),
    )
    depth_registered: bool = setting(
        True,
        "whether depth is registered to the image, pixel by pixel. If not, it is registered here, by depth/camera_info "
        "and the transform between the two frames",
    )
    target_frame: str = setting(
        "", "frame of all that is in metres, such as odom, looked up at the image's stamp; empty = the image's own"
    )
    transform_tolerance: float = setting(
        0.0,
        "seconds by which the stamp of an image may miss the transforms that have come; the nearest one is taken",
        0,
        10,
    )
    cameras: tuple[str, ...] = setting(
        ("",),
        "names of several cameras in one process: the topics of each are NAME/image and ~/NAME/instances. All share "
        "the model, and take turns; each has ids of its own. Empty = one camera, with the topics image and ~/instances",
    )

    def __post_init__(self) -> None:
        check(self, "parameter ")
        if self.input_size:
            try:
                image_size(self.input_size)
            except ArgumentTypeError as error:
                raise ValueError(f"parameter input_size: {error}") from None
        for name in self.names:
            if name and not _NAME.fullmatch(name):
                raise ValueError(
                    f"parameter cameras holds {name!r}; a name is letters, digits and _, and begins with a letter"
                )
            if self.names.count(name) > 1:
                raise ValueError(f"parameter cameras holds {name!r} twice; every camera needs a name of its own")

    @property
    def needs_transforms(self) -> bool:
        """Whether frames must be looked up."""
        return needs_transforms(self.depth, self.depth_registered, self.target_frame)

    @property
    def size(self) -> tuple[int, int] | None:
        """``input_size`` as (height, width), None = the model's own."""
        return image_size(self.input_size) if self.input_size else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cameras; one that is empty for a single camera without a name."""
        return tuple(name for name in self.cameras if name) or ("",)


def needs_transforms(depth: str, depth_registered: bool, target_frame: str) -> bool:
    """Whether a node with these parameters looks frames up."""
    return depth != NONE and (not depth_registered or bool(target_frame))


@dataclass(frozen=True)
class StreamConfig(StreamSettings):
    """What can be set at any time, beside instance_flow.AssemblyConfig; no id is lost."""

    mask_budget: int = setting(
        MASK_BUDGET,
        "most bytes of masks in one message of ~/instances; those of the lowest scores are left out, and has_mask says "
        "so; 0 = no bound",
        0,
        2**31 - 1,
    )
    depth_tolerance: float = setting(
        TOLERANCE, "most seconds between the stamps of an image and of its depth image", 0, 60
    )
    depth_wait: float = setting(
        0.0,
        "seconds after its arrival that an image waits for its depth, beyond the time that the network takes anyway; "
        "the cameras of one process wait for one another",
        0,
        10,
    )
    overlay_labels: bool = setting(True, "whether ~/overlay shows class, id and score of each object")
    overlay_opacity: float = setting(0.45, "how strong the masks are on ~/overlay", 0, 1)
    overlay_arrow_seconds: float = setting(
        0.5, "the arrows on ~/overlay lead to where an object will be after this time; 0 = no arrows", 0, 10
    )

    def __post_init__(self) -> None:
        check(self)


def declare(node: Node, config: type, constraints: str) -> None:
    """Declare a parameter for each field of a dataclass, with its default, description, range and constraints.

    What was given to the node is taken as it was meant: a whole number where a number is wanted, and an empty list,
    which in YAML has no type, for the default.
    """
    for parameter in declared(config):
        _correct_override(node._parameter_overrides, parameter)
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        node.declare_parameter(parameter.name, default, _descriptor(parameter, constraints))


def read(node: Node, config: type[Config], changed: Iterable[Parameter] = ()) -> Config:
    """Build the dataclass from the node's parameters, and over them those that are about to change.

    It may refuse them with a ValueError.
    """
    names = [parameter.name for parameter in declared(config)]
    values = {name: node.get_parameter(name).value for name in names}
    values.update({parameter.name: parameter.value for parameter in changed if parameter.name in values})
    return config(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def unknown(given: Iterable[str], node: Node) -> list[str]:
    """Names among those given to the node that are none of its parameters."""
    return sorted(name for name in given if not name.startswith("qos_overrides.") and not node.has_parameter(name))


def _correct_override(overrides: dict[str, Parameter], parameter: Field[Any]) -> None:
    given = overrides.get(parameter.name)
    if given is None:
        return
    if isinstance(parameter.default, tuple) and not given.value:
        del overrides[parameter.name]
    elif isinstance(parameter.default, float) and given.type_ == Parameter.Type.INTEGER:
        overrides[parameter.name] = Parameter(parameter.name, Parameter.Type.DOUBLE, float(given.value))


def unused_qos(given: Iterable[str], node: Node) -> list[str]:
    """Overrides of a QoS that no subscription took, once all of them were made."""
    return sorted(name for name in given if name.startswith("qos_overrides.") and not node.has_parameter(name))


def _descriptor(parameter: Field[Any], constraints: str) -> ParameterDescriptor:
    choices = parameter.metadata.get("choices")
    if choices:
        constraints = f"one of {', '.join(choices)}; {constraints}"
    descriptor = ParameterDescriptor(description=parameter.metadata["description"], additional_constraints=constraints)
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
