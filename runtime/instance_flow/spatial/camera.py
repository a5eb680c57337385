# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera that a depth image was taken with, and the rays of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import shown

Array = NDArray[np.float64]

RAY_STEP = 8
"""Pixels between the rays that are undistorted; in between, rays are interpolated."""
_NODES = 257
"""Rays of each row and column of those that are projected; in between, pixels are interpolated: within 0.03 of a pixel
for lenses of 120 degrees."""
_BEYOND = 0.05
"""By how much more than the image they reach on each side, as a share of it."""
_LONGEST = 1e6
_REFINEMENTS = 10
_COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
"""Numbers of coefficients that a distortion model of CameraInfo may have."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """Intrinsics in pixels of the image that is tracked, and where the camera is.

    A wrong one is no error: ``problem`` says in one sentence what is wrong, and positions are unknown.

    matrix: (3, 3), K of CameraInfo. Points are in the camera's optical frame (REP 103): x right, y down, z forward.
    distortion: OpenCV's coefficients of ``distortion_model``; none, or all 0, for a rectified image.
    distortion_model: plumb_bob, rational_polynomial or equidistant, as in CameraInfo.
    size: (height, width) of the images that it was calibrated for, None where unknown.
    pose: (4, 4), from the optical frame to the frame of the answers at the time of the image, as TF gives it. None =
        answers are in the optical frame, and velocities are relative to the camera.
    """

    matrix: Array
    distortion: Array | tuple[float, ...] = ()
    distortion_model: str = "plumb_bob"
    size: tuple[int, int] | None = None
    pose: Array | None = None

    def problem(self, size: tuple[int, int]) -> str:
        """What is wrong with it for an image of (height, width), in one sentence; empty where nothing is."""
        matrix, distortion = _numbers(self.matrix), _numbers(self.distortion)
        if matrix is None or matrix.shape != (3, 3):
            found = "no numbers" if matrix is None else f"of shape {matrix.shape}"
            return f"the camera matrix is {found}; expected K with 3 rows and 3 columns, so calibrate the camera"
        focal, center = matrix[[0, 1], [0, 1]], matrix[:2, 2]
        if not (np.isfinite(matrix).all() and (focal >= 1).all() and (focal <= _LONGEST).all()):
            return (
                f"the camera matrix has the focal lengths {focal[0]:g} and {focal[1]:g}; expected 1 to {_LONGEST:g} "
                "pixels, so calibrate the camera or let its driver publish the calibration"
            )
        if matrix[1, 0] or (matrix[2] != (0, 0, 1)).any():
            return "the camera matrix is not [fx s cx; 0 fy cy; 0 0 1]; give K of CameraInfo, row by row"
        height, width = size
        # It may lie outside of a picture that was cut out of a larger one, but not far.
        if (np.abs(center / (width, height) - 0.5) > 1.5).any():
            return (
                f"the camera matrix has its principal point at ({center[0]:g}, {center[1]:g}), far outside the image "
                f"of {width} x {height} pixels; give the calibration of this image size"
            )
        if self.size is not None and tuple(self.size) != size:
            return (
                f"the calibration is of {self.size[1]} x {self.size[0]} pixels and the image has {width} x {height}; "
                "give the calibration of this image size"
            )
        if distortion is None or distortion.ndim != 1 or not np.isfinite(distortion).all():
            return "the distortion is no row of finite numbers; give D of CameraInfo, or none for a rectified image"
        if distortion.any() and len(distortion) not in _COEFFICIENTS.get(self.distortion_model, ()):
            known = ", ".join(f"{name} {' or '.join(map(str, n))}" for name, n in _COEFFICIENTS.items())
            return (
                f"the distortion model is {shown(self.distortion_model)!r} with {len(distortion)} coefficients; these "
                f"are known: {known}"
            )
        if self.pose is not None and not is_pose(self.pose):
            return "the camera's pose is no (4, 4) matrix of a rotation and a translation; look the transform up again"
        return ""

    @property
    def intrinsics(self) -> tuple[float, float, float, float, float]:
        """fx, fy, cx, cy and skew in pixels."""
        k = np.asarray(self.matrix, np.float64)
        return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]), float(k[0, 1])

    def rays(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Rays of every ``RAY_STEP``-th row and column of an image (height, width), from 0 to beyond the last: (h, w,
        2) float32, x / z and y / z. Empty without distortion, as then they follow from the intrinsics."""
        distortion = np.asarray(self.distortion, np.float64)
        if not distortion.any():
            return np.zeros((0, 0, 2), np.float32)
        matrix = np.asarray(self.matrix, np.float64)
        return _undistorted(matrix.tobytes(), distortion.tobytes(), self.distortion_model, *size)

    def pixels(self, size: tuple[int, int]) -> tuple[Array, NDArray[np.float32]]:
        """Pixels of the rays on a regular grid that covers an image (height, width) and a small margin.

        Returns:
            x / z and y / z of the first ray, then their steps from ray to ray, (4,); and the pixel x, y of every ray,
            (h, w, 2) float32, NaN outside of the image. Empty without distortion: they follow from the intrinsics.
        """
        distortion = np.asarray(self.distortion, np.float64)
        if not distortion.any():
            return np.zeros(4), np.zeros((0, 0, 2), np.float32)
        matrix = np.asarray(self.matrix, np.float64)
        return _projected(matrix.tobytes(), distortion.tobytes(), self.distortion_model, *size)


def to_camera(message: Any) -> CameraModel:
    """The camera model, without a pose, of a sensor_msgs/CameraInfo: K, D, distortion model, and the image's size where
    it is given.

    A calibration that is none, as K of zeros, is left to ``CameraModel.problem``.
    Raises ValueError where K has not nine numbers, and for binning or a region of interest: K is of the whole image
    then, and not of the one that is sent.
    """
    matrix = np.asarray(message.k, np.float64).ravel()
    if len(matrix) != 9:
        raise ValueError(f"K of the camera info has {len(matrix)} numbers; expected 9, row by row")
    height, width = int(message.height), int(message.width)
    if max(message.binning_x, message.binning_y) > 1:
        raise ValueError(
            f"the camera info has a binning of {message.binning_x} x {message.binning_y}, and K is of the image "
            "without it; have the driver send images without binning, or a calibration of the binned ones"
        )
    region = message.roi
    whole = not (region.x_offset or region.y_offset) and region.width in (0, width) and region.height in (0, height)
    if not whole:
        raise ValueError(
            f"the camera info has a region of interest of {region.width} x {region.height} pixels at "
            f"({region.x_offset}, {region.y_offset}) of {width} x {height}, and K is of the whole image; have "
            "the driver send whole images, or a calibration of the region"
        )
    size = (height, width) if height or width else None
    return CameraModel(matrix.reshape(3, 3), tuple(map(float, message.d)), str(message.distortion_model), size)


@lru_cache(maxsize=16)
def _projected(
    matrix: bytes, distortion: bytes, model: str, height: int, width: int
) -> tuple[Array, NDArray[np.float32]]:
    k, d = np.frombuffer(matrix).reshape(3, 3), np.frombuffer(distortion)
    edge = _undistorted(matrix, distortion, model, height, width).astype(np.float64).reshape(-1, 2)
    edge = edge[np.isfinite(edge).all(1)]
    if not len(edge):
        return np.array((0.0, 0, 1, 1)), np.full((2, 2, 2), np.nan, np.float32)
    low, high = edge.min(0), edge.max(0)
    low, high = low - _BEYOND * (high - low), high + _BEYOND * (high - low)
    step = (high - low) / (_NODES - 1)
    rays = low + step * np.stack(np.meshgrid(np.arange(_NODES), np.arange(_NODES)), -1).reshape(-1, 2)
    bent = _distorted(rays[:, None], d, model).reshape(-1, 2)
    # A polynomial turns back beyond the image, and would put into it what lies far outside.
    bent[np.hypot(*rays.T) > (1 + _BEYOND) * np.hypot(*edge.T).max()] = np.nan
    out = (bent @ k[:2, :2].T + k[:2, 2]).reshape(_NODES, _NODES, 2).astype(np.float32)
    out.flags.writeable = False
    return np.concatenate([low, step]), out


@lru_cache(maxsize=16)
def _undistorted(matrix: bytes, distortion: bytes, model: str, height: int, width: int) -> NDArray[np.float32]:
    k, d = np.frombuffer(matrix).reshape(3, 3), np.frombuffer(distortion)
    ys, xs = np.arange(0, height + RAY_STEP, RAY_STEP), np.arange(0, width + RAY_STEP, RAY_STEP)
    pixels = np.stack(np.meshgrid(xs, ys), -1).astype(np.float64).reshape(-1, 1, 2)
    # OpenCV would leave out the skew of K, so it is given the identity in its place.
    bent = np.linalg.solve(k[:2, :2], (pixels - k[:2, 2])[..., None])[..., 0]
    undistort = cv2.fisheye.undistortPoints if model == "equidistant" else cv2.undistortPoints
    rays = np.asarray(undistort(bent, np.eye(3), d), np.float64)
    # OpenCV's own five iterations leave errors of pixels in the corners of wide lenses.
    for _ in range(_REFINEMENTS):
        rays = rays - (_distorted(rays, d, model) - bent)
    missed = np.abs(_distorted(rays, d, model) - bent).max((1, 2)) * k[[0, 1], [0, 1]].max()
    # Beyond where a polynomial turns back there is no ray.
    rays[~(missed < 0.1)] = np.nan
    out = rays.reshape(len(ys), len(xs), 2).astype(np.float32)
    out.flags.writeable = False
    return out


def _distorted(rays: Array, d: Array, model: str) -> Array:
    """Rays (N, 1, 2) as the lens bends them, (N, 1, 2): without its camera matrix."""
    with np.errstate(all="ignore"):
        points = np.concatenate([rays, np.ones((len(rays), 1, 1))], -1)
        project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
        return np.asarray(project(points, np.zeros(3), np.zeros(3), np.eye(3), d)[0], np.float64).reshape(-1, 1, 2)


def _numbers(values: object) -> Array | None:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return None


def is_pose(values: object) -> bool:
    """Whether it is a (4, 4) matrix of a rotation and a translation."""
    pose = _numbers(values)
    if pose is None or pose.shape != (4, 4) or not np.isfinite(pose).all() or (pose[3] != (0, 0, 0, 1)).any():
        return False
    rotation = pose[:3, :3]
    return bool(np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0)
