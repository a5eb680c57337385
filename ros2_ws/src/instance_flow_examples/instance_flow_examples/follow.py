#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Publish where to go to follow one object, as a goal of nav2.

    ros2 run instance_flow_examples follow.py --ros-args -p class_name:=person -p distance:=1.5

It is published on goal_update, which nav2's GoalUpdater reads. Without that: -r goal_update:=/goal_pose
With a node of another name, or with several cameras: -r instance_flow/instances:=/detector/front/instances
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from instance_flow_msgs.msg import Instance3D, TrackedInstance, TrackedInstanceArray
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Header

from instance_flow.spatial.transforms import TransformUnknown
from instance_flow_examples.script import listen, number, run, text
from instance_flow_ros.frames import AVAILABLE, TransformListener

Vector = NDArray[np.float64]

_TOLERANCE = 0.1
"""Seconds: the transforms of an image may come a little after its objects."""


@dataclass(frozen=True)
class Level:
    """A quaternion x, y, z, w that turns forward, left, up to the axes of a frame (REP 103), and its matrix (3, 3)."""

    quaternion: tuple[float, float, float, float]
    matrix: Vector


OPTICAL = Level((0.5, -0.5, 0.5, 0.5), np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]))
"""A camera that is level: x right, y down, z forward."""
UPRIGHT = Level((0.0, 0.0, 0.0, 1.0), np.eye(3))
"""A frame of the robot or of the world: x forward, y left, z up."""


class Unplaced(Exception):
    """Why there is no goal for an image."""


class Follow(Node):
    """Publishes a goal for each image where the object has a place.

    Parameters: either ``id``, the object's number, or ``class_name``, of which the nearest object is chosen and then
    kept; ``distance``, metres to keep from it.
    Raises ValueError where one of them is not what it can be.
    """

    def __init__(self) -> None:
        super().__init__("instance_follower")
        self._class_name = text(self, "class_name")
        self._id = round(number(self, "id", 0, 0, 2**63))
        self._distance = number(self, "distance", 0.0, 0, 1000)
        if bool(self._id) == bool(self._class_name):
            raise ValueError("set either the parameter id or class_name: -p class_name:=person")
        self._frame_index = -1
        self._following: bool | None = None
        self._frames = TransformListener(self, _TOLERANCE).buffer if AVAILABLE else None
        self._goals = self.create_publisher(PoseStamped, "goal_update", 10)
        listen(self, [self._class_name] if self._class_name else [], self._on_instances)

    def _on_instances(self, message: TrackedInstanceArray) -> None:
        if message.frame_index < self._frame_index and self._class_name and self._id:
            self.get_logger().warning(f"the stream begins anew, and ids with it: choosing a {self._class_name} again")
            self._id, self._following = 0, None
        self._frame_index = message.frame_index
        try:
            camera = self._camera_place(message)
            instance = self._choose(message, camera)
        except Unplaced as reason:
            if self._following is not False:
                self.get_logger().warning(f"no goal: {reason}")
            self._following = False
            return
        if not self._following:
            self.get_logger().info(f"following {instance.class_name} {instance.id}")
        self._id, self._following = instance.id, True
        level = OPTICAL if message.spatial_frame_id == message.header.frame_id else UPRIGHT
        header = Header(stamp=message.header.stamp, frame_id=message.spatial_frame_id)
        pose = goal(place_of(instance), camera, level, self._distance)
        self._goals.publish(PoseStamped(header=header, pose=pose))

    def _choose(self, message: TrackedInstanceArray, camera: Vector) -> TrackedInstance:
        """The object that is followed; raises Unplaced where it has no place in this image."""
        if not self._id:
            known = [
                instance
                for instance in message.instances
                if instance.class_name == self._class_name and instance.spatial.state == Instance3D.MEASURED
            ]
            if not known:
                raise Unplaced(f"no {self._class_name} with a place in metres is seen yet")
            return min(known, key=lambda instance: float(np.linalg.norm(place_of(instance) - camera)))
        for instance in message.instances:
            if instance.id == self._id:
                if instance.spatial.state != Instance3D.MEASURED:
                    raise Unplaced(f"object {self._id} is seen, but its place in metres is not known")
                return instance
        raise Unplaced(f"object {self._id} is not seen; waiting for it")

    def _camera_place(self, message: TrackedInstanceArray) -> Vector:
        """Where the camera was (3,); raises Unplaced where that is not known."""
        target, source = message.spatial_frame_id, message.header.frame_id
        if target == source:
            return np.zeros(3)
        if self._frames is None:
            raise Unplaced(
                f"places are in '{target}', and where '{source}' is in it is unknown, as tf2_msgs is not installed; "
                "install it, or leave target_frame of the instance-flow node empty"
            )
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        try:
            camera: Vector = self._frames.lookup(target, source, stamp)[:3, 3]
        except TransformUnknown as error:
            raise Unplaced(str(error)) from error
        return camera


def place_of(instance: TrackedInstance) -> Vector:
    """An object's place (3,) in metres."""
    place = instance.spatial.position
    return np.array([place.x, place.y, place.z])


def goal(place: Vector, camera: Vector, level: Level, distance: float) -> Pose:
    """A pose that faces a place (3,), as seen from a camera (3,), from so many metres before it, all level."""
    forward, left, _ = level.matrix.T @ (place - camera)
    yaw = math.atan2(left, forward)
    x, y, z = place - distance * level.matrix @ (math.cos(yaw), math.sin(yaw), 0)
    qx, qy, qz, qw = level.quaternion
    sin, cos = math.sin(yaw / 2), math.cos(yaw / 2)
    turn = Quaternion(x=qx * cos + qy * sin, y=qy * cos - qx * sin, z=qz * cos + qw * sin, w=qw * cos - qz * sin)
    return Pose(position=Point(x=float(x), y=float(y), z=float(z)), orientation=turn)


if __name__ == "__main__":
    sys.exit(run(Follow))
