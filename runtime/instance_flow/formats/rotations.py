# SPDX-License-Identifier: Apache-2.0
"""Rotation matrices to quaternions x, y, z, w, as geometry_msgs has them, and back; NaN stays NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def to_quaternions(rotations: NDArray[Any]) -> Array:
    """Unit quaternions (N, 4) of rotation matrices (N, 3, 3), w not negative.

    Of the rotation q q^T is known: its diagonal and its off-diagonal sums make four rows, each q times one of its
    components. The row of the largest component loses no digits.
    """
    r = np.asarray(rotations, np.float64).reshape(-1, 3, 3)
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    xy, xz, yz = r[:, 1, 0] + r[:, 0, 1], r[:, 0, 2] + r[:, 2, 0], r[:, 2, 1] + r[:, 1, 2]
    wx, wy, wz = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    rows = np.stack(
        [
            np.stack([1 + xx - yy - zz, xy, xz, wx], -1),
            np.stack([xy, 1 - xx + yy - zz, yz, wy], -1),
            np.stack([xz, yz, 1 - xx - yy + zz, wz], -1),
            np.stack([wx, wy, wz, 1 + xx + yy + zz], -1),
        ],
        1,
    )
    largest = np.nan_to_num(np.einsum("nii->ni", rows)).argmax(1)
    q = rows[np.arange(len(r)), largest]
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return np.asarray(np.where(q[:, 3:] < 0, -q, q))


def to_matrices(quaternions: NDArray[Any]) -> Array:
    """Rotation matrices (N, 3, 3) of quaternions (N, 4), which need not be of length 1."""
    q = np.asarray(quaternions, np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y, z, w = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], 1)
