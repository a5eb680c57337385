# SPDX-License-Identifier: Apache-2.0
"""The tracks as vision_msgs/Detection2DArray and Detection3DArray, where vision_msgs is installed: boxes for the tools
that know them."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseWithCovariance
from instance_flow_msgs.msg import Instance3D, TrackedInstance, TrackedInstanceArray
from std_msgs.msg import Header

try:
    from vision_msgs.msg import (
        BoundingBox2D,
        BoundingBox3D,
        Detection2D,
        Detection2DArray,
        Detection3D,
        Detection3DArray,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
    )
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = True


def to_detections(message: TrackedInstanceArray) -> Detection2DArray:
    """Give a detection for each instance: its id, class name, score and box."""
    detections = [_to_detection(instance, message.header) for instance in message.instances]
    return Detection2DArray(header=message.header, detections=detections)


def _to_detection(instance: TrackedInstance, header: Header) -> Detection2D:
    box = BoundingBox2D(size_x=instance.box.width, size_y=instance.box.height)
    # The middle of the first pixel is at 0, and half a pixel before it begins the box.
    box.center.position.x = instance.box.x + (instance.box.width - 1) / 2
    box.center.position.y = instance.box.y + (instance.box.height - 1) / 2
    result = ObjectHypothesisWithPose(hypothesis=_to_hypothesis(instance))
    return Detection2D(header=header, results=[result], bbox=box, id=str(instance.id))


def to_detections_3d(message: TrackedInstanceArray) -> Detection3DArray:
    """Give a detection for each instance whose place is known: its id, class name, score, position and box."""
    header = Header(stamp=message.header.stamp, frame_id=message.spatial_frame_id)
    measured = [instance for instance in message.instances if instance.spatial.state == Instance3D.MEASURED]
    return Detection3DArray(header=header, detections=[_to_detection_3d(instance, header) for instance in measured])


def _to_detection_3d(instance: TrackedInstance, header: Header) -> Detection3D:
    spatial = instance.spatial
    # x, y, z; the rotation about each axis is that of the box, whose error is unknown.
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = np.reshape(spatial.covariance, (6, 6))[:3, :3]
    pose = Pose(position=Point(x=spatial.position.x, y=spatial.position.y, z=spatial.position.z))
    pose.orientation = spatial.box.orientation
    result = ObjectHypothesisWithPose(
        hypothesis=_to_hypothesis(instance), pose=PoseWithCovariance(pose=pose, covariance=covariance.ravel())
    )
    box = BoundingBox3D(center=spatial.box, size=spatial.extent)
    return Detection3D(header=header, results=[result], bbox=box, id=str(instance.id))


def _to_hypothesis(instance: TrackedInstance) -> ObjectHypothesis:
    return ObjectHypothesis(class_id=instance.class_name, score=instance.score)
