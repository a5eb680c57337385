# SPDX-License-Identifier: Apache-2.0
"""How every identity moves: the filter of ``spatial.kalman`` in the image, by centers and instance flow, and in space,
by depth. No id depends on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.kalman import predicted, updated
from instance_flow.spatial.measure import MEASURED, Places, SpatialConfig
from instance_flow.structures import InstanceFlowError, Instances, IntArray
from instance_flow.tracking.memory import Reference
from instance_flow.tracking.snapshot import Snapshot, pack_stamp, take, unpack_stamp

Array = NDArray[np.float64]

# Of the filter in the image, in units of ``flow_error``, and seconds; set on synthetic worlds (docs/spatial.md).
CENTER_ERROR = 0.3
"""Standard deviation of a center."""
FLOW_ERROR = 3.0
"""That of a flow whose pixels agree."""
ACCELERATION = 60.0
"""Root of the spectral density of the acceleration."""
SPEED = 150.0
"""Standard deviation of the speed of an object of which nothing is known."""
FORGOTTEN = 60.0
"""Seconds without a measurement after which a motion is started anew."""
_FARTHEST = 1e9


@dataclass
class _Motion:
    """state: (2D,) float64.   covariance: (2D, 2D) float64.   stamp: of the last measurement, nanoseconds.

    reach: largest extent that was seen lately (``Places.reaches``), 0 in the image.
    """

    state: Array
    covariance: Array
    stamp: int
    reach: float = 0.0


class Motions:
    """Position and velocity of identities in so many dimensions, each as of its last measurement."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._held: dict[int, _Motion] = {}

    def predict(
        self, ids: Sequence[int], start: Array, first: Array, stamp: int, density: float
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """State (N, 2D) and covariance (N, 2D, 2D) at a stamp, and which of them (N,) were known before.

        An identity that is not known, was measured too long ago, or after the stamp, as where a clock was set back,
        begins at ``start`` (N, 2D) with the covariance ``first`` (N, 2D, 2D).
        """
        held = [self._held.get(identity) for identity in ids]
        known = np.array([m is not None and 0 <= stamp - m.stamp <= FORGOTTEN * 1e9 for m in held], bool)
        state, covariance, seconds = start.copy(), first.copy(), np.zeros(len(held))
        for row in np.flatnonzero(known).tolist():
            motion = held[row]
            assert motion is not None
            state[row], covariance[row] = motion.state, motion.covariance
            seconds[row] = (stamp - motion.stamp) * 1e-9
        state[known], covariance[known] = predicted(state[known], covariance[known], seconds[known], density)
        return state, covariance, known

    def reaches(self, ids: Sequence[int]) -> Array:
        """The last ``Places.reaches`` of each identity, (N,) metres; 0 for an unknown identity."""
        return np.array([self._held[i].reach if i in self._held else 0.0 for i in ids])

    def keep(
        self, ids: Sequence[int], state: Array, covariance: Array, stamp: int, reaches: Array | None = None
    ) -> None:
        """Store states (N, 2D) and covariances (N, 2D, 2D) at a stamp in nanoseconds; reaches as of ``reaches``."""
        for row, identity in enumerate(ids):
            reach = 0.0 if reaches is None else float(reaches[row])
            self._held[identity] = _Motion(state[row].copy(), covariance[row].copy(), stamp, reach)

    def retain(self, ids: Collection[int]) -> None:
        """Drop all identities but these."""
        for identity in [i for i in self._held if i not in ids]:
            del self._held[identity]

    def snapshot(self, name: str) -> Snapshot:
        """As plain arrays, a row for each identity."""
        held, d = list(self._held.values()), 2 * self.dimensions
        return {
            f"{name}.ids": np.array(list(self._held), np.int64),
            f"{name}.state": np.array([m.state for m in held], np.float64).reshape(-1, d),
            f"{name}.covariance": np.array([m.covariance for m in held], np.float64).reshape(-1, d, d),
            f"{name}.stamp": np.array([pack_stamp(m.stamp) for m in held], np.int64),
            f"{name}.reach": np.array([m.reach for m in held], np.float64),
        }

    def restored(self, name: str, snapshot: Mapping[str, NDArray[Any]], known: Collection[int]) -> Motions:
        """What a snapshot holds of the known ids.

        Raises InstanceFlowError where a part is missing, or is not what it should be.
        """
        d, out = 2 * self.dimensions, Motions(self.dimensions)
        ids = take(snapshot, f"{name}.ids", np.integer, None).tolist()
        state = take(snapshot, f"{name}.state", np.floating, len(ids), d)
        covariance = take(snapshot, f"{name}.covariance", np.floating, len(ids), d, d)
        stamp = take(snapshot, f"{name}.stamp", np.integer, len(ids))
        reach = take(snapshot, f"{name}.reach", np.floating, len(ids))
        sound = all((np.abs(numbers) < _FARTHEST).all() for numbers in (state, covariance, reach))
        if not sound or len(set(ids)) != len(ids) or not set(ids).issubset(known):
            raise InstanceFlowError(
                f"the snapshot is damaged: {name!r} holds numbers that are out of range, or ids that are not different "
                "ones among the tracks; start the stream anew"
            )
        # A covariance that is none would break the filter frames later.
        values = np.linalg.eigvalsh(covariance)
        symmetric = np.allclose(covariance, covariance.transpose(0, 2, 1), rtol=1e-6, atol=1e-12)
        if not (symmetric and (values[:, 0] >= -1e-9 * values[:, -1]).all() and (values[:, -1] > 0).all()):
            raise InstanceFlowError(
                f"the snapshot is damaged: {name!r} holds a matrix that is no covariance; start the stream anew"
            )
        for row, identity in enumerate(ids):
            seen = unpack_stamp(stamp[row])
            if seen is None:
                raise InstanceFlowError(
                    f"the snapshot is damaged: {name!r} holds a motion without a stamp; start the stream anew"
                )
            out._held[identity] = _Motion(state[row].copy(), covariance[row].copy(), seen, float(reach[row]))
        return out


def follow_in_image(
    motions: Motions,
    ids: IntArray,
    instances: Instances,
    references: Sequence[Reference],
    stamp: int | None,
    unit: float,
) -> tuple[Array, Array]:
    """Velocity (M, 2) in cells per second of every object of a frame, and its covariance (M, 2, 2); NaN where unknown.

    Measured are the center, and by each reference that shows the identity the mean velocity since then: minus its flow,
    over its own interval, within what flow misses by, what the object's pixels disagree on, and how much the velocity
    may have changed meanwhile.

    unit: ``flow_error``, in cells.
    """
    m = len(ids)
    nothing = np.full((m, 2), np.nan), np.full((m, 2, 2), np.nan)
    if stamp is None or not m:
        return nothing
    rows, density = ids.tolist(), (ACCELERATION * unit) ** 2
    spread = np.array([CENTER_ERROR * unit] * 2 + [SPEED * unit] * 2) ** 2
    start = np.concatenate([instances.centers, np.zeros((m, 2))], 1).astype(np.float64)
    state, covariance, known = motions.predict(rows, start, np.tile(np.diag(spread), (m, 1, 1)), stamp, density)
    h, noise = np.eye(4), np.tile(spread[0] * np.eye(2), (m, 1, 1))
    state[known], covariance[known] = updated(
        state[known], covariance[known], instances.centers[known] - state[known, :2], h[:2], noise[known]
    )
    weight, total = np.zeros(m), np.zeros((m, 2))
    for flow, std, reference in zip(instances.flows, instances.flow_std, references, strict=True):
        if reference.stamp is None or reference.stamp >= stamp:
            continue
        shown, seconds = set(reference.ids.tolist()), (stamp - reference.stamp) * 1e-9
        held = np.array([identity in shown for identity in rows], bool)
        variance = ((FLOW_ERROR * unit) ** 2 + std.astype(np.float64) ** 2) / seconds**2 + density * seconds / 3
        weight[held] += 1 / variance[held]
        total[held] -= flow[held] / (seconds * variance[held])[:, None]
    by = weight > 0
    if by.any():
        velocity = total[by] / weight[by, None]
        state[by], covariance[by] = updated(
            state[by], covariance[by], velocity - state[by, 2:], h[2:], np.eye(2) / weight[by, None, None]
        )
    motions.keep(rows, state, covariance, stamp)
    # As wide as that of an object of which nothing is known, or nearly: after long out of sight, too.
    unknown = covariance[:, 2, 2] > spread[2] / 2
    return np.where(unknown[:, None], np.nan, state[:, 2:]), np.where(
        unknown[:, None, None], np.nan, covariance[:, 2:, 2:]
    )


def follow_in_space(
    motions: Motions,
    ids: IntArray,
    places: Places,
    velocities: Array,
    errors: Array,
    camera: CameraModel,
    stamp: int | None,
    config: SpatialConfig,
) -> tuple[Array, Array]:
    """Position and velocity (N, 6), metres and m/s, and their covariance (N, 6, 6), of the objects of a frame.

    Everything is NaN where ``places`` has no position, and velocities are where nothing is known of them.

    velocities, errors: (N, 2) pixels per second (y, x) in the image and (N, 2, 2) their covariance, NaN where unknown.
    camera: without a ``problem``.
    """
    state, covariance = np.full((len(ids), 6), np.nan), np.full((len(ids), 6, 6), np.nan)
    there = places.states == MEASURED
    if not there.any():
        return state, covariance
    rows, n = ids[there].tolist(), int(there.sum())
    first = np.zeros((n, 6, 6))
    first[:, :3, :3], first[:, 3:, 3:] = places.covariances[there], config.object_speed**2 * np.eye(3)
    start = np.concatenate([places.positions[there], np.zeros((n, 3))], 1)
    if stamp is None:
        # There is a position, but no time that it could be compared at.
        state[there, :3], covariance[there, :3, :3] = start[:, :3], first[:, :3, :3]
        return state, covariance
    now, spread, known = motions.predict(rows, start, first, stamp, config.object_acceleration**2)
    # Parts of an object that appear or are hidden shift the middle of its visible surface.
    before, reaches = motions.reaches(rows), places.reaches[there]
    shift = np.where(before > 0, reaches - before, 0.0)
    noise = places.covariances[there] + (shift**2)[:, None, None] * np.eye(3)
    reaches = np.maximum(reaches, 0.95 * before)
    now[known], spread[known] = updated(
        now[known], spread[known], start[known, :3] - now[known, :3], np.eye(3, 6), noise[known]
    )
    fresh = ~known & np.isfinite(velocities[there]).all(1) & np.isfinite(errors[there]).all((1, 2))
    # Motion of the camera cannot be separated from that of the object here; the second depth resolves it.
    if fresh.any() and camera.pose is None:
        now[fresh], spread[fresh] = _started(
            now[fresh], spread[fresh], velocities[there][fresh], errors[there][fresh], camera
        )
    motions.keep(rows, now, spread, stamp, reaches)
    state[there], covariance[there] = now, spread
    unknown = np.trace(covariance[:, 3:, 3:], axis1=1, axis2=2) > 2.5 * config.object_speed**2
    state[unknown, 3:] = np.nan
    return state, covariance


def _started(
    state: Array, covariance: Array, velocities: Array, errors: Array, camera: CameraModel
) -> tuple[Array, Array]:
    """With the first depth of an object whose instance flow is known: how fast it moves across the ray. Of
    u = fx x / z + cx the derivative is fx (vx - x / z vz) / z, and likewise of v."""
    fx, fy, *_ = camera.intrinsics
    x, y, z = state[:, 0], state[:, 1], state[:, 2]
    h = np.zeros((len(state), 2, 6))
    h[:, 0, 4], h[:, 0, 5] = fy / z, -fy * y / z**2
    h[:, 1, 3], h[:, 1, 5] = fx / z, -fx * x / z**2
    return updated(state, covariance, velocities, h, errors)
