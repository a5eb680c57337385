# SPDX-License-Identifier: Apache-2.0
"""Objects in metres as standard messages: markers for RViz and Foxglove, and a point cloud."""

from __future__ import annotations

from array import array

import numpy as np
from geometry_msgs.msg import Point, Pose, Vector3
from instance_flow_msgs.msg import Instance3D, TrackedInstance, TrackedInstanceArray
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from instance_flow.pictures.draw import colours
from instance_flow.structures import FloatArray, Tracks

_BOX_OPACITY = 0.5
_THINNEST = 0.01
"""Metres; RViz draws nothing of a box without thickness."""
_ARROW = Vector3(x=0.04, y=0.08, z=0.0)
"""Metres: diameters of an arrow's shaft and head."""
_LETTERS = 0.15
_NAMES = ("x", "y", "z", "id", "class_id")
_POINT = np.dtype(list(zip(_NAMES, ("<f4", "<f4", "<f4", "<u4", "<u4"), strict=True)))
_DATATYPES = {"f": PointField.FLOAT32, "u": PointField.UINT32}


def to_markers(message: TrackedInstanceArray) -> MarkerArray:
    """Box, velocity and name of every object whose position is known; earlier markers are deleted.

    The arrow of the velocity ends where the object will be in one second.
    """
    header = Header(stamp=message.header.stamp, frame_id=message.spatial_frame_id)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for instance in message.instances:
        if instance.spatial.state == Instance3D.MEASURED:
            markers += _to_markers(instance, header)
    return MarkerArray(markers=markers)


def to_cloud(header: Header, points: FloatArray, owners: NDArray[np.int32], tracks: Tracks) -> PointCloud2:
    """An unordered cloud with the fields x, y, z (float32, metres), id and class_id (uint32).

    points: (M, 3) metres, in the frame of ``header``.   owners: (M,) the track id of each point, ids of ``tracks``.
    """
    values = np.empty(len(points), _POINT)
    values["x"], values["y"], values["z"] = points.T
    values["id"] = owners
    values["class_id"] = tracks.class_ids[np.searchsorted(tracks.ids, owners)] if len(owners) else 0
    data = array("B")
    data.frombytes(values.tobytes())
    fields = [
        PointField(name=name, offset=offset, datatype=_DATATYPES[_POINT[name].kind], count=1)
        for name, offset in zip(_NAMES, range(0, _POINT.itemsize, 4), strict=True)
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(values),
        fields=fields,
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=data.buffer_info()[1],
        data=data,
        is_dense=True,
    )


def _to_markers(instance: TrackedInstance, header: Header) -> list[Marker]:
    spatial, number = instance.spatial, instance.id % 2**31
    red, green, blue = (float(part) / 255 for part in colours([instance.id])[0])
    colour = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    start, way = spatial.position, spatial.velocity
    box = Marker(header=header, ns="boxes", id=number, type=Marker.CUBE, pose=spatial.box)
    box.scale = Vector3(**{axis: max(getattr(spatial.extent, axis), _THINNEST) for axis in "xyz"})
    box.color = ColorRGBA(r=red, g=green, b=blue, a=_BOX_OPACITY)
    name = Marker(header=header, ns="names", id=number, type=Marker.TEXT_VIEW_FACING, color=colour)
    name.pose = Pose(position=start)
    name.scale = Vector3(z=_LETTERS)
    name.text = f"{instance.class_name} {instance.id}"
    markers = [box, name]
    if np.isfinite((way.x, way.y, way.z)).all():
        arrow = Marker(header=header, ns="velocities", id=number, type=Marker.ARROW, scale=_ARROW, color=colour)
        arrow.points = [start, Point(x=start.x + way.x, y=start.y + way.y, z=start.z + way.z)]
        markers.append(arrow)
    return markers
