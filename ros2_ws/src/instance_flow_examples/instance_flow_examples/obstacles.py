#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Publish the boxes of the objects as a cloud of points, which a costmap of nav2 takes as an observation source.

    ros2 run instance_flow_examples obstacles.py --ros-args -p classes:=person,forklift -p seconds:=1.5

With a node of another name, or with several cameras: -r instance_flow/instances:=/detector/front/instances
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Collection

import numpy as np
from instance_flow_msgs.msg import Instance3D, TrackedInstanceArray
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from instance_flow_examples.script import listen, number, run, text

Points = NDArray[np.float64]

MOST_POINTS = 20_000
"""Of one object where it is, and as many of where it will be; they lie further apart where it would have more."""
_MOST_COPIES = 100


class Obstacles(Node):
    """Publishes a cloud for each message, an empty one where no object is measured.

    Parameters: ``classes``, names with commas, empty = all; ``resolution``, metres between points, of the costmap;
    ``seconds`` that objects are moved on by their velocity, 0 = none; ``velocity_deviation``, m/s, the largest standard
    deviation of a velocity that is believed.
    Raises ValueError where one of them is not what it can be.
    """

    def __init__(self) -> None:
        super().__init__("instance_obstacles")
        self._classes = {name.strip() for name in text(self, "classes").split(",")} - {""}
        self._resolution = number(self, "resolution", 0.05, 0.005, 10)
        self._seconds = number(self, "seconds", 1.0, 0, 60)
        self._deviation = number(self, "velocity_deviation", 0.5, 0, 1000)
        self._warned = False
        self._clouds = self.create_publisher(PointCloud2, "obstacles", 10)
        listen(self, self._classes, self._on_instances)

    def _on_instances(self, message: TrackedInstanceArray) -> None:
        seconds = self._seconds
        if seconds and message.spatial_frame_id == message.header.frame_id:
            # There a wall comes nearer when the robot drives, and would be moved on into its way.
            seconds = 0.0
            if not self._warned:
                self._warned = True
                self.get_logger().warning(
                    f"velocities are relative to the camera ('{message.header.frame_id}'), so no object is moved on; "
                    "set target_frame of the instance-flow node to a fixed frame, such as odom"
                )
        points = obstacle_points(message, self._classes, self._resolution, seconds, self._deviation)
        self._clouds.publish(to_cloud(Header(stamp=message.header.stamp, frame_id=message.spatial_frame_id), points))


def obstacle_points(
    message: TrackedInstanceArray, classes: Collection[str], resolution: float, seconds: float, most_deviation: float
) -> Points:
    """Points (M, 3), metres, on the boxes of all measured objects, now and on their way in the seconds to come."""
    parts = [np.empty((0, 3))]
    for instance in message.instances:
        spatial = instance.spatial
        if spatial.state == Instance3D.MEASURED and (not classes or instance.class_name in classes):
            box = box_points(spatial, resolution, MOST_POINTS)
            ways = ways_ahead(spatial, resolution, seconds, most_deviation)
            coarser = box_points(spatial, resolution, MOST_POINTS // max(len(ways), 1))
            parts += [box, *(coarser + way for way in ways)]
    return np.concatenate(parts)


def box_points(spatial: Instance3D, resolution: float, most: int) -> Points:
    """About ``most`` points (M, 3) on the six faces of an object's box at most; from above they fill its footprint."""
    extent = np.array([spatial.extent.x, spatial.extent.y, spatial.extent.z], np.float64)
    area = 2 * (extent[0] * extent[1] + extent[1] * extent[2] + extent[2] * extent[0])
    spacing = max(resolution, math.sqrt(area / most), extent.max() / most * 12)
    axes = [np.linspace(-length / 2, length / 2, math.ceil(length / spacing) + 1) for length in extent]
    faces = []
    for axis in range(3):
        both = [ticks[[0, -1]] if i == axis else ticks for i, ticks in enumerate(axes)]
        faces.append(np.stack(np.meshgrid(*both, indexing="ij"), -1).reshape(-1, 3))
    middle, turn = spatial.box.position, spatial.box.orientation
    return np.concatenate(faces) @ rotation(turn.x, turn.y, turn.z, turn.w).T + (middle.x, middle.y, middle.z)


def ways_ahead(spatial: Instance3D, resolution: float, seconds: float, most_deviation: float) -> Points:
    """How far (K, 3) the object moves on, in steps that leave no gap between its boxes; none if that is uncertain."""
    velocity = np.array([spatial.velocity.x, spatial.velocity.y, spatial.velocity.z])
    covariance = np.reshape(spatial.covariance, (6, 6))[3:, 3:]
    if not seconds or not (np.isfinite(velocity).all() and np.isfinite(covariance).all()):
        return np.empty((0, 3))
    if math.sqrt(max(np.linalg.eigvalsh(covariance)[-1], 0)) > most_deviation:  # in its least certain direction
        return np.empty((0, 3))
    step = max(resolution, min(spatial.extent.x, spatial.extent.y, spatial.extent.z))
    count = min(math.ceil(np.linalg.norm(velocity) * seconds / step), _MOST_COPIES)
    return np.linspace(0, seconds, count + 1)[1:, None] * velocity


def rotation(x: float, y: float, z: float, w: float) -> Points:
    """The matrix (3, 3) of a unit quaternion."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def to_cloud(header: Header, points: Points) -> PointCloud2:
    """The cloud of points (M, 3): x, y, z float32, one after another."""
    data = array("B")
    data.frombytes(points.astype("<f4").tobytes())
    fields = [PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate("xyz")]
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(points),
        data=data,
        is_dense=True,
    )


if __name__ == "__main__":
    sys.exit(run(Obstacles))
