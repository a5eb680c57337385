# SPDX-License-Identifier: Apache-2.0
"""Depth as the colour camera would see it, from a depth camera beside it.

A pixel (u, v) of depth z is the point p = z r(u, v), r its ray; the other camera sees it at P(T p), P its projection,
in the depth of T p. Of all that fall on one of its pixels the nearest counts: what lies behind is hidden from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.kernels.input import kernel_input
from instance_flow.spatial.camera import CameraModel, is_pose
from instance_flow.spatial.measure import depth_problem, depth_units, pixel_ray
from instance_flow.structures import MAX_PIXELS, FloatArray

Array = NDArray[np.float64]

_STEP = 0.05
"""Neighbours whose depths differ by less than this share are of one surface, which has no gap between them. Less would
open steep floors and walls, more would close what is between an object and the wall behind."""
_WIDEST = 4.0
"""Most that a footprint reaches from its middle, in depth pixels spread over the colour image. What is nearly in the
lens would cover all of it, for every pixel."""
_MARGIN = 0.1
"""Pixels that a footprint is wider on each side: the sensor's noise moves neighbours apart, in two directions at once.
Below half a pixel, so that depth of the same camera stays as it is."""
# What is called for every pixel has inline="always": LLVM leaves it a call, and all takes a fifth longer.


def registered(
    depth: NDArray[Any], depth_camera: CameraModel, camera: CameraModel, size: tuple[int, int], transform: Array
) -> NDArray[Any]:
    """The depth image that ``camera`` would take, pixel by pixel that of its image of ``size``.

    Every pixel covers what it covers of the surface that it shows, so that a finer image has no holes, and steep
    surfaces none through which the background shows. What only ``camera`` sees, behind an edge, stays unknown.

    Args:
        depth: (H, W) uint16 millimetres or floating point metres; 0, 65535 (of uint16), NaN and negative values are
            unknown, +inf is too far, and lies where its ray points to.
        depth_camera: what took it; its ``pose`` and that of ``camera`` are ignored.
        size: (height, width) of the colour image.
        transform: (4, 4), T_camera_depth_camera in metres: takes points from the optical frame of the depth image to
            that of the colour image (``TransformBuffer.lookup``).

    Returns:
        ``size``, uint16 millimetres with 0 for unknown, or float32 metres with NaN.

    Raises:
        ValueError: the depth, a camera, the size or the transform is none; one sentence that says what to do.
    """
    problem = _problem(depth, depth_camera, camera, size, transform)
    if problem:
        raise ValueError(problem)
    values, scale, invalid = depth_units(depth)
    moved = np.array(transform, np.float64)
    moved[:3, 3] /= scale
    grid, pixels = camera.pixels((int(size[0]), int(size[1])))
    seen = _seen(
        values,
        invalid,
        np.array(depth_camera.intrinsics),
        kernel_input(depth_camera.rays((depth.shape[0], depth.shape[1])), np.float32),
        moved,
        np.array(camera.intrinsics),
        grid,
        kernel_input(pixels, np.float32),
    )
    fx, fy, skew = (camera.intrinsics[k] for k in (0, 1, 4))
    along = np.array(((fx, skew), (0.0, fy))) @ moved[:2, :2] / depth_camera.intrinsics[:2]
    widest = _WIDEST * (1 + max(size[0] / depth.shape[0], size[1] / depth.shape[1]))
    out = _splat(seen, np.ascontiguousarray(along), int(size[0]), int(size[1]), widest)
    if values.dtype.kind == "u":
        # Beyond 65534 there is no number left for it.
        return np.where(out < 65534.5, np.rint(out), 0).astype(np.uint16)
    return out


def compile_kernels() -> None:
    """Compile ahead all that ``registered`` needs, whatever the depth image and cameras are."""
    camera = CameraModel(np.eye(3))
    for kind in (np.uint16, np.float32):
        registered(np.zeros((1, 1), kind), camera, camera, (1, 1), np.eye(4))


def _problem(depth: Any, depth_camera: CameraModel, camera: CameraModel, size: tuple[int, int], transform: Any) -> str:
    height, width = size
    if not (height >= 1 and width >= 1 and height * width <= MAX_PIXELS):
        return (
            f"the colour image has {width} x {height} pixels; expected 1 to {MAX_PIXELS}, so give its height and width"
        )
    if depth is None:
        return "there is no depth image; give (H, W) uint16 in millimetres or float32 in metres"
    shape = depth.shape if isinstance(depth, np.ndarray) else (0, 0)
    if isinstance(depth, np.ndarray) and not depth.size:
        return f"the depth image has the shape {shape} and no pixels; expected (H, W), so check its driver"
    _, problem = depth_problem(depth, depth_camera, shape)
    if problem:
        return f"of the depth camera: {problem}"
    problem = camera.problem((height, width))
    if problem:
        return f"of the colour camera: {problem}"
    if not is_pose(transform):
        return (
            "the transform from the depth camera to the colour camera is no (4, 4) matrix of a rotation and a "
            "translation; look it up again"
        )
    return ""


@njit(cache=True, nogil=True)
def _seen(
    depth: NDArray[Any],
    invalid: float,
    intrinsics: Array,
    rays: FloatArray,
    transform: Array,
    onto: Array,
    grid: Array,
    pixels: FloatArray,
) -> FloatArray:
    """Where the other camera sees each pixel, and how far away: (H, W, 3) float32 of u, v and depth; a depth of NaN
    where there is none.

    depth: (H, W) in the unit of the transform's translation, of which ``invalid`` is no value.   rays: as of
    ``CameraModel.rays``.   onto: fx, fy, cx, cy, skew of the other camera.   grid, pixels: its ``CameraModel.pixels``.
    """
    height, width = depth.shape
    out = np.empty((height, width, 3), np.float32)
    for v in range(height):
        for u in range(width):
            out[v, u, 2] = np.nan
            z = float(depth[v, u])
            if not z > 0 or z == invalid:  # NaN is not above 0
                continue
            ray_x, ray_y = pixel_ray(u, v, intrinsics, rays)
            x = transform[0, 0] * ray_x + transform[0, 1] * ray_y + transform[0, 2]
            y = transform[1, 0] * ray_x + transform[1, 1] * ray_y + transform[1, 2]
            ahead = transform[2, 0] * ray_x + transform[2, 1] * ray_y + transform[2, 2]
            far = z
            if z < np.inf:  # of what is infinitely far, the camera's place changes nothing
                x, y, far = x * z + transform[0, 3], y * z + transform[1, 3], ahead * z + transform[2, 3]
                ahead = far
            if not ahead > 0:
                continue
            out[v, u, 0], out[v, u, 1] = _pixel(x / ahead, y / ahead, onto, grid, pixels)
            if not np.isnan(out[v, u, 0]):
                out[v, u, 2] = far
    return out


@njit(cache=True, nogil=True, inline="always")
def _pixel(x: float, y: float, intrinsics: Array, grid: Array, pixels: FloatArray) -> tuple:  # type: ignore[type-arg]
    """Where a camera sees a ray, the inverse of ``pixel_ray``; NaN far outside of the image."""
    height, width, _ = pixels.shape
    if height == 0:
        return intrinsics[0] * x + intrinsics[4] * y + intrinsics[2], intrinsics[1] * y + intrinsics[3]
    column, row = (x - grid[0]) / grid[2], (y - grid[1]) / grid[3]
    if not (0 <= column < width - 1 and 0 <= row < height - 1):
        return np.nan, np.nan
    j, i = int(column), int(row)
    v, u = row - i, column - j
    p, q, r, t = (1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u
    at_x = p * pixels[i, j, 0] + q * pixels[i, j + 1, 0] + r * pixels[i + 1, j, 0] + t * pixels[i + 1, j + 1, 0]
    at_y = p * pixels[i, j, 1] + q * pixels[i, j + 1, 1] + r * pixels[i + 1, j, 1] + t * pixels[i + 1, j + 1, 1]
    return at_x, at_y


@njit(cache=True, nogil=True)
def _splat(seen: FloatArray, along: Array, rows: int, columns: int, widest: float) -> FloatArray:
    """Depth (rows, columns) of the nearest that covers each pixel, NaN where nothing does.

    seen: as of ``_seen``.   along: (2, 2), columns are where one depth pixel to the right and one down lead to, in
    pixels, for a point that is alone.   widest: pixels.
    """
    height, width, _ = seen.shape
    out = np.full((rows, columns), np.nan, np.float32)
    for y in range(height):
        for x in range(width):
            z = seen[y, x, 2]
            if np.isnan(z):
                continue
            u, v = seen[y, x, 0], seen[y, x, 1]
            left_u, left_v, right_u, right_v = _reach(seen, y, x, 0, 1, along[0, 0] / 2, along[1, 0] / 2)
            up_u, up_v, down_u, down_v = _reach(seen, y, x, 1, 0, along[0, 1] / 2, along[1, 1] / 2)
            low_u, high_u = min(left_u, right_u) + min(up_u, down_u), max(left_u, right_u) + max(up_u, down_u)
            low_v, high_v = min(left_v, right_v) + min(up_v, down_v), max(left_v, right_v) + max(up_v, down_v)
            low_u, high_u = u + max(low_u, -widest) - _MARGIN, u + min(high_u, widest) + _MARGIN
            low_v, high_v = v + max(low_v, -widest) - _MARGIN, v + min(high_v, widest) + _MARGIN
            # Before they become whole numbers: they may be larger than any.
            if not (low_u < columns and high_u > -1 and low_v < rows and high_v > -1):
                continue
            first, last = int(np.ceil(max(low_u, 0.0))), int(np.floor(min(high_u, columns - 1.0)))
            for row in range(int(np.ceil(max(low_v, 0.0))), int(np.floor(min(high_v, rows - 1.0))) + 1):
                for column in range(first, last + 1):
                    if not out[row, column] <= z:  # nor is NaN
                        out[row, column] = z
    return out


@njit(cache=True, nogil=True, inline="always")
def _reach(seen: FloatArray, y: int, x: int, down: int, right: int, alone_u: float, alone_v: float) -> tuple:  # type: ignore[type-arg]
    """Half of the way to the neighbours before and after a pixel, (u, v) each: where its footprint ends. Where one is
    of another surface the other is mirrored, and without any a pixel reaches as far as the cameras' resolutions say."""
    before = _one_surface(seen, y, x, y - down, x - right)
    after = _one_surface(seen, y, x, y + down, x + right)
    u, v = seen[y, x, 0], seen[y, x, 1]
    before_u, before_v, after_u, after_v = -alone_u, -alone_v, alone_u, alone_v
    if before:
        before_u, before_v = (seen[y - down, x - right, 0] - u) / 2, (seen[y - down, x - right, 1] - v) / 2
    if after:
        after_u, after_v = (seen[y + down, x + right, 0] - u) / 2, (seen[y + down, x + right, 1] - v) / 2
    if before and not after:
        after_u, after_v = -before_u, -before_v
    if after and not before:
        before_u, before_v = -after_u, -after_v
    return before_u, before_v, after_u, after_v


@njit(cache=True, nogil=True, inline="always")
def _one_surface(seen: FloatArray, y: int, x: int, other_y: int, other_x: int) -> bool:
    if not (0 <= other_y < seen.shape[0] and 0 <= other_x < seen.shape[1]):
        return False
    z, other = seen[y, x, 2], seen[other_y, other_x, 2]
    return z == other or abs(z - other) < _STEP * min(z, other)
