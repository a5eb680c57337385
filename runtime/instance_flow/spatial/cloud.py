# SPDX-License-Identifier: Apache-2.0
"""The points of tracked objects in space, each with its object."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.kernels.input import kernel_input
from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.measure import depth_units, pixel_ray
from instance_flow.structures import FloatArray, LabelMap


def object_points(
    depth: NDArray[Any], label_map: LabelMap, camera: CameraModel, max_depth: float
) -> tuple[FloatArray, NDArray[np.int32]]:
    """All points of all objects: (M, 3) float32 x, y, z in metres, and the track id (M,) int32 of each.

    Args:
        depth, camera: as of ``measure``.   label_map: (H, W) int32 of ids, 0 = background.
        max_depth: metres, beyond which depth counts as unknown.
    """
    values, scale, invalid = depth_units(depth)
    rays = kernel_input(camera.rays((depth.shape[0], depth.shape[1])), np.float32)
    intrinsics = np.array(camera.intrinsics, np.float64)
    labels = kernel_input(label_map, np.int32)
    points, owners = _points(values, scale, invalid, labels, intrinsics, rays, float(max_depth))
    if camera.pose is not None:
        points = (points @ camera.pose[:3, :3].T + camera.pose[:3, 3]).astype(np.float32)
    return points, owners


def compile_kernels() -> None:
    """Compile ahead all that ``object_points`` needs, whatever the depth image and camera are."""
    nothing, camera = np.zeros((1, 1), np.int32), CameraModel(np.eye(3))
    for kind in (np.uint16, np.float32):
        object_points(nothing.astype(kind), nothing, camera, 1.0)


@njit(cache=True, nogil=True)
def _points(
    depth: NDArray[Any],
    scale: float,
    invalid: float,
    label_map: LabelMap,
    intrinsics: NDArray[np.float64],
    rays: FloatArray,
    max_depth: float,
) -> tuple:  # type: ignore[type-arg]
    height, width = label_map.shape
    count = 0
    for y in range(height):
        for x in range(width):
            count += label_map[y, x] > 0
    points, owners = np.empty((count, 3), np.float32), np.empty(count, np.int32)
    found = 0
    for y in range(height):
        for x in range(width):
            value = depth[y, x]
            if label_map[y, x] <= 0 or not value > 0 or value == invalid or value * scale > max_depth:
                continue
            across, down = pixel_ray(x, y, intrinsics, rays)
            if np.isfinite(across) and np.isfinite(down):
                z = value * scale
                points[found, 0], points[found, 1], points[found, 2] = across * z, down * z, z
                owners[found] = label_map[y, x]
                found += 1
    return points[:found], owners[:found]
