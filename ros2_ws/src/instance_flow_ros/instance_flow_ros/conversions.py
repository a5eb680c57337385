# SPDX-License-Identifier: Apache-2.0
"""The messages of instance_flow_msgs as rclpy has them; ``formats.messages`` decides what stands in them."""

from __future__ import annotations

from array import array

from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from instance_flow_msgs.msg import (
    Box2D,
    ClassTable,
    Instance3D,
    RunLengthMask,
    TrackedInstance,
    TrackedInstanceArray,
    Vector2D,
)

from instance_flow.formats.messages import MessageTypes
from instance_flow.formats.rle import RunLengths


def _to_array(values: RunLengths) -> array[int]:
    # rclpy takes nothing else without a check of every single number.
    numbers = array("I")
    numbers.frombytes(values.tobytes())
    return numbers


TYPES = MessageTypes(
    TrackedInstanceArray=TrackedInstanceArray,
    TrackedInstance=TrackedInstance,
    RunLengthMask=RunLengthMask,
    ClassTable=ClassTable,
    Box2D=Box2D,
    Vector2D=Vector2D,
    Instance3D=Instance3D,
    Point=Point,
    Vector3=Vector3,
    Quaternion=Quaternion,
    Pose=Pose,
    uint32s=_to_array,
)
