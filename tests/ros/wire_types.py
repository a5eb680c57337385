# SPDX-License-Identifier: Apache-2.0
"""The messages of the node as a DDS participant sees them that knows nothing of ROS, written down from the .msg files.

No `from __future__ import annotations` here: Cyclone DDS reads the annotations themselves.
"""

from dataclasses import dataclass

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float32, float64, int32, int64, sequence, uint8, uint16, uint32, uint64

_PACKAGE = "instance_flow_msgs::msg::dds_"


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class Vector2D(IdlStruct, typename=f"{_PACKAGE}::Vector2D_"):
    x: float32
    y: float32


@dataclass
class Box2D(IdlStruct, typename=f"{_PACKAGE}::Box2D_"):
    x: float32
    y: float32
    width: float32
    height: float32


@dataclass
class RunLengthMask(IdlStruct, typename=f"{_PACKAGE}::RunLengthMask_"):
    x: uint32
    y: uint32
    width: uint32
    height: uint32
    runs: sequence[uint32]  # type: ignore[type-arg]


@dataclass
class Point(IdlStruct, typename="geometry_msgs::msg::dds_::Point_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Vector3(IdlStruct, typename="geometry_msgs::msg::dds_::Vector3_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Quaternion(IdlStruct, typename="geometry_msgs::msg::dds_::Quaternion_"):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
class Pose(IdlStruct, typename="geometry_msgs::msg::dds_::Pose_"):
    position: Point
    orientation: Quaternion


@dataclass
class Instance3D(IdlStruct, typename=f"{_PACKAGE}::Instance3D_"):
    state: uint8
    points: uint32
    position: Point
    velocity: Vector3
    covariance: array[float32, 36]  # type: ignore[type-arg, valid-type]
    box: Pose
    extent: Vector3


@dataclass
class TrackedInstance(IdlStruct, typename=f"{_PACKAGE}::TrackedInstance_"):
    id: uint64
    label: uint16
    state: uint8
    class_id: uint32
    class_name: str
    score: float32
    semantic_score: float32
    center_score: float32
    box: Box2D
    area: uint32
    center: Vector2D
    velocity: Vector2D
    velocity_covariance: array[float32, 4]  # type: ignore[type-arg, valid-type]
    spatial: Instance3D
    age: uint32
    age_seconds: float64
    reference_frame: int64
    matched_distance: float32
    has_mask: bool
    mask: RunLengthMask


@dataclass
class TrackedInstanceArray(IdlStruct, typename=f"{_PACKAGE}::TrackedInstanceArray_"):
    header: Header
    height: uint32
    width: uint32
    frame_index: uint64
    spatial_frame_id: str
    instances: sequence[TrackedInstance]  # type: ignore[type-arg]


@dataclass
class ClassTable(IdlStruct, typename=f"{_PACKAGE}::ClassTable_"):
    header: Header
    model: str
    weights_sha256: str
    class_names: sequence[str]  # type: ignore[type-arg]
