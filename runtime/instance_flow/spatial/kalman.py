# SPDX-License-Identifier: Apache-2.0
"""The Kalman filter of constant velocity, of many objects at once, in any number of dimensions.

State of an object: x = (p, v), position and velocity in D dimensions, with covariance P (2D, 2D). Its acceleration is
taken for white noise of spectral density q, so that over t seconds

    p' = p + t v + e_p,   v' = v + e_v,   cov(e_p, e_v) = q [t^3/3  t^2/2; t^2/2  t] (times I)
    x' = F x,             P' = F P F^T + Q(t),   F = [I  t I; 0  I]

from the integrals of the noise: e_v = int a, e_p = int (t - s) a(s) ds, and E a(s) a(s') = q delta(s - s'). After t
seconds without a measurement the velocity's standard deviation has grown to at least sqrt(q t).

A measurement z = H x + e, cov(e) = R, changes x by the gain that leaves the least variance, K = P H^T (H P H^T + R)^-1:

    x <- x + K (z - H x),   P <- (I - K H) P (I - K H)^T + K R K^T

The second form holds for any K and stays symmetric and positive where rounding would spoil (I - K H) P.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def predicted(state: Array, covariance: Array, seconds: Array, density: float) -> tuple[Array, Array]:
    """State (N, 2D) and covariance (N, 2D, 2D) after so many seconds (N,).

    density: q, spectral density of the acceleration, in units of length squared per cubic second.
    """
    d = state.shape[1] // 2
    t, eye = seconds[:, None, None], np.eye(d)
    f = np.tile(np.eye(2 * d), (len(state), 1, 1))
    f[:, :d, d:] = t * eye
    q = np.empty_like(f)
    q[:, :d, :d], q[:, d:, d:] = t**3 / 3 * eye, t * eye
    q[:, :d, d:] = q[:, d:, :d] = t**2 / 2 * eye
    return (f @ state[:, :, None])[:, :, 0], f @ covariance @ f.transpose(0, 2, 1) + density * q


def updated(state: Array, covariance: Array, residual: Array, observation: Array, noise: Array) -> tuple[Array, Array]:
    """State and covariance, as of ``predicted``, after a measurement of each object.

    residual: (N, K), what was measured minus what the state says of it.
    observation: H, (K, 2D) or (N, K, 2D).   noise: R, (N, K, K).
    """
    h = np.broadcast_to(observation, (len(state), *observation.shape[-2:]))
    cross = covariance @ h.transpose(0, 2, 1)
    gain = np.linalg.solve(h @ cross + noise, cross.transpose(0, 2, 1)).transpose(0, 2, 1)
    rest = np.eye(state.shape[1]) - gain @ h
    after = rest @ covariance @ rest.transpose(0, 2, 1) + gain @ noise @ gain.transpose(0, 2, 1)
    return state + (gain @ residual[:, :, None])[:, :, 0], (after + after.transpose(0, 2, 1)) / 2
