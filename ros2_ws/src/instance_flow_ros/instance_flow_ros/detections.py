# SPDX-License-Identifier: Apache-2.0
"""The tracks as vision_msgs/Detection2DArray, where vision_msgs is installed: boxes for the tools that know it."""

from __future__ import annotations

from instance_flow_msgs.msg import TrackedInstance, TrackedInstanceArray
from std_msgs.msg import Header

try:
    from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesis, ObjectHypothesisWithPose
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
    hypothesis = ObjectHypothesis(class_id=instance.class_name, score=instance.score)
    result = ObjectHypothesisWithPose(hypothesis=hypothesis)
    return Detection2D(header=header, results=[result], bbox=box, id=str(instance.id))
