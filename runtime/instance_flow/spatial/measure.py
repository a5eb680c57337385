# SPDX-License-Identifier: Apache-2.0
"""Where the objects of a label map are in a depth image, and how large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.declare import check, setting
from instance_flow.kernels.input import kernel_input
from instance_flow.spatial.camera import RAY_STEP, CameraModel
from instance_flow.structures import SPATIAL_STATES, FloatArray, IntArray, LabelMap

Array = NDArray[np.float64]

MEASURED, NO_DEPTH, BAD_DEPTH, SIZE_MISMATCH, BAD_CAMERA, TOO_FEW, TOO_FAR = range(len(SPATIAL_STATES))

_SAMPLES = 256
"""Depths of an object that are looked at, spread evenly over its mask: more would cost time and hardly add."""
_BINS = 128
"""Of the percentiles of the extent: a bin is less than one hundredth of it."""
_TAIL = 0.02
"""Share of an object's points beyond each face of its box."""


@dataclass(frozen=True)
class SpatialConfig:
    """Parameters of the depth sensor and of the objects' motion. The sensor's defaults are those of a stereo camera of
    50 mm baseline at 640 pixels."""

    max_depth: float = setting(
        20.0,
        "distance in metres beyond which depth counts as unknown: its errors grow with the square of the distance",
        0.1,
        1000.0,
    )
    min_points: int = setting(20, "fewest samples of depth that an object is placed by", 1, _SAMPLES)
    depth_floor: float = setting(
        0.005, "the standard deviation of depth at z metres is depth_floor + depth_growth * z^2 metres", 1e-6, 10.0
    )
    depth_growth: float = setting(
        0.003, "per metre, see depth_floor; a time-of-flight camera's is a third of a stereo camera's", 0.0, 10.0
    )
    object_acceleration: float = setting(
        1.0,
        "how hard objects accelerate, in m/s^2 that last for a second. Higher follows changes sooner and is noisier",
        1e-3,
        1000.0,
    )
    object_speed: float = setting(3.0, "how fast objects may be, in m/s", 1e-3, 1000.0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Places:
    """What one depth image says of the N objects of a frame; NaN where ``states`` is not MEASURED.

    states: (N,) int64, index into ``SPATIAL_STATES``.   points: (N,) int64 samples of depth that were used.
    positions: (N, 3) x, y, z in metres, the middle of the surface that is seen.
    covariances: (N, 3, 3) m^2, of the position.   extents: (N, 3) metres, of the oriented box, longest first.
    box_centers: (N, 3) metres.   rotations: (N, 3, 3), columns are the axes of the box, right-handed.
    reaches: (N,) metres, root mean square distance of the points from their middle.
    """

    states: IntArray
    points: IntArray
    positions: Array
    covariances: Array
    extents: Array
    box_centers: Array
    rotations: Array
    reaches: Array


def depth_problem(depth: Any, camera: CameraModel | None, size: tuple[int, int]) -> tuple[int, str]:
    """Why depth and camera cannot be used for an image (height, width): an index into ``SPATIAL_STATES`` and one
    sentence; MEASURED and "" where they can."""
    if depth is None:
        return NO_DEPTH, ""
    if (
        not isinstance(depth, np.ndarray)
        or depth.ndim != 2
        or depth.dtype.kind + str(depth.dtype.itemsize) not in ("u2", "f2", "f4", "f8")
    ):
        found = f"{depth.dtype} {depth.shape}" if isinstance(depth, np.ndarray) else type(depth).__name__
        return BAD_DEPTH, f"the depth is {found}; expected (H, W) uint16 in millimetres or float32 in metres"
    if depth.shape != size:
        return SIZE_MISMATCH, (
            f"the depth image has {depth.shape[1]} x {depth.shape[0]} pixels and the image {size[1]} x {size[0]}; "
            "register the depth to the image (most drivers: align_depth)"
        )
    if camera is None:
        return BAD_CAMERA, "there is depth but no camera calibration; give camera=CameraModel(K)"
    problem = camera.problem(size)
    return (BAD_CAMERA if problem else MEASURED), problem


def measure(
    depth: NDArray[Any],
    label_map: LabelMap,
    ids: IntArray,
    boxes: FloatArray,
    camera: CameraModel,
    config: SpatialConfig = SpatialConfig(),
) -> Places:
    """Place every object of a label map.

    Of an object's mask the edge is cut off, where depth is of the background or a mixture. Of the depths that are left,
    the half that lies closest together is found (it may begin anywhere: up to half of the mask may be background, holes
    or something in front), and all points near its median count. Position is their mean.

    Args:
        depth: (H, W) uint16 millimetres or floating point metres, registered to the image; 0, 65535 (of uint16), NaN
            and negative values are unknown, +inf is too far.
        label_map: (H, W) int32 of ids, 0 = background.   ids: (N,).   boxes: (N, 4) float32 x, y, width, height.
        camera: without a ``problem``.
    """
    values, scale, invalid = depth_units(depth)
    intrinsics = np.array(camera.intrinsics, np.float64)
    edges = np.empty((len(ids), 4), np.int64)
    edges[:, :2], edges[:, 2:] = np.floor(boxes[:, :2]), np.ceil(boxes[:, :2] + boxes[:, 2:])
    counts, far, means, spreads, points, slopes, cut = _points(
        values,
        scale,
        invalid,
        kernel_input(label_map, np.int32),
        kernel_input(ids, np.int64),
        edges,
        intrinsics,
        kernel_input(camera.rays((depth.shape[0], depth.shape[1])), np.float32),
        # A whole number would be another type, and all would be compiled again.
        float(config.max_depth),
        config.min_points,
        float(config.depth_floor),
        float(config.depth_growth),
    )
    seen = counts >= config.min_points
    states = np.where(seen, MEASURED, np.where(far >= config.min_points, TOO_FAR, TOO_FEW)).astype(np.int64)
    rotations = _axes(spreads)
    low, high = _percentiles(points, counts, means, rotations)
    extents = high - low + _cut_off(cut, means, rotations, intrinsics)
    centers = means + np.einsum("nij,nj->ni", rotations, (low + high) / 2)
    height, width = label_map.shape
    cut_by_edge = (edges[:, :2] <= 0).any(1) | (edges[:, 2] >= width) | (edges[:, 3] >= height)
    covariances = _covariances(means, spreads, slopes, cut_by_edge, config, intrinsics)
    if camera.pose is not None:
        turn, shift = camera.pose[:3, :3], camera.pose[:3, 3]
        means, centers = means @ turn.T + shift, centers @ turn.T + shift
        covariances, rotations = turn @ covariances @ turn.T, turn @ rotations
    reaches = np.sqrt(np.trace(spreads, axis1=1, axis2=2))
    unknown = ~seen
    for array in (means, covariances, extents, centers, rotations, reaches):
        array[unknown] = np.nan
    return Places(states, np.where(seen, counts, 0), means, covariances, extents, centers, rotations, reaches)


def depth_units(depth: NDArray[Any]) -> tuple[NDArray[Any], float, float]:
    """A depth image for the kernels: its array as uint16 or float32, metres per unit, and the value that means unknown.

    +inf means "too far to measure" (REP 117); NaN, 0 and negative values are unknown.
    """
    if depth.dtype.kind == "u":
        return kernel_input(depth, np.uint16), 1e-3, 65535.0
    with np.errstate(over="ignore"):
        return kernel_input(depth, np.float32), 1.0, -1.0


def compile_kernels() -> None:
    """Compile ahead all that ``measure`` needs, whatever the depth image, camera and settings are."""
    camera, nothing = CameraModel(np.eye(3)), np.zeros((1, 1), np.int32)
    for kind in (np.uint16, np.float32):
        measure(nothing.astype(kind), nothing, np.zeros(0, np.int64), np.zeros((0, 4), np.float32), camera)


def _covariances(
    means: Array,
    spreads: Array,
    slopes: Array,
    cut_by_edge: NDArray[np.bool_],
    config: SpatialConfig,
    intrinsics: Array,
) -> Array:
    """Along the ray what the sensor misses by, which neighbouring pixels share; across it a pixel, as masks do; and in
    every direction a twentieth of the object's own spread, as its mask differs from frame to frame. Where the
    image's edge cuts an object, the size of the missing part is unknown: half of the spread."""
    z = means[:, 2]
    along = (config.depth_floor + config.depth_growth * z**2) / 2
    across = z / np.sqrt(intrinsics[0] * intrinsics[1])
    rays = means / np.maximum(z, 1e-9)[:, None]
    length = (rays**2).sum(1)
    ray = rays[:, :, None] * rays[:, None, :]
    flat = np.eye(3) - ray / np.maximum(length, 1.0)[:, None, None]
    return (
        along[:, None, None] ** 2 * ray
        + across[:, None, None] ** 2 * flat
        + spreads * np.where(cut_by_edge, 1 / 4, 1 / 400)[:, None, None]
        + slopes[:, None, None] * ray
    )


def _cut_off(cut: Array, means: Array, rotations: Array, intrinsics: Array) -> Array:
    """Metres (N, 3) that the edges took of the axes, of pixels (N,) cut off on either side."""
    along = np.einsum("ni,nij->nj", means, rotations) / np.maximum(np.linalg.norm(means, axis=1), 1e-9)[:, None]
    size = 2 * cut * means[:, 2] / np.sqrt(intrinsics[0] * intrinsics[1])
    return size[:, None] * np.sqrt(np.maximum(1 - along**2, 0))


def _axes(spreads: Array) -> Array:
    """Right-handed axes (N, 3, 3) in columns, the longest first; each points to where its largest part is positive."""
    _, vectors = np.linalg.eigh(spreads)
    axes = vectors[:, :, ::-1].copy()
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
    axes *= np.where(largest < 0, -1.0, 1.0)
    axes[:, :, 2] *= np.where(np.linalg.det(axes) < 0, -1.0, 1.0)[:, None]
    return axes


@njit(cache=True, nogil=True)
def _points(
    depth: NDArray[Any],
    scale: float,
    invalid: float,
    label_map: LabelMap,
    ids: IntArray,
    edges: NDArray[np.int64],
    intrinsics: Array,
    rays: FloatArray,
    max_depth: float,
    min_points: int,
    depth_floor: float,
    depth_growth: float,
) -> tuple:  # type: ignore[type-arg]
    """Of each object: number of points (N,), of samples beyond max_depth (N,), mean (N, 3) and covariance (N, 3, 3) of
    the points, the points (N, _SAMPLES, 3) float32 themselves, the variance of z that the choice of points leaves, and
    the pixels that the mask lost on either side.

    depth: (H, W) in units of ``scale`` metres, of which ``invalid`` is no value.   edges: (N, 4) left, top, right,
    bottom.   intrinsics: fx, fy, cx, cy, skew.   rays: as of ``CameraModel.rays``.
    """
    n = len(ids)
    counts, far = np.zeros(n, np.int64), np.zeros(n, np.int64)
    means, spreads, slopes = np.zeros((n, 3)), np.zeros((n, 3, 3)), np.zeros(n)
    cut = np.zeros(n)
    points = np.empty((n, _SAMPLES, 3), np.float32)
    zs = np.empty(_SAMPLES, np.float32)
    places = np.empty((_SAMPLES, 2), np.int64)
    for k in range(n):
        area = _area(label_map, ids[k], edges[k])
        if area == 0:
            continue
        erosion = min(4, 1 + int(0.04 * np.sqrt(area)))
        steps = _steps(area, edges[k])
        while True:
            found, far[k] = _samples(
                depth, scale, invalid, label_map, ids[k], edges[k], steps, erosion, max_depth, zs, places
            )
            # Something thin is all edge.
            if found >= min_points or far[k] >= min_points or erosion == 0:
                break
            erosion = 0
        if found < min_points:
            continue
        low, high = _near(zs[:found], depth_floor, depth_growth)
        m = 0
        for i in range(found):
            z = zs[i]
            if low <= z <= high:
                x, y = pixel_ray(places[i, 1], places[i, 0], intrinsics, rays)
                if np.isfinite(x) and np.isfinite(y):
                    points[k, m, 0], points[k, m, 1], points[k, m, 2] = x * z, y * z, z
                    m += 1
        counts[k], cut[k] = m, erosion + (steps[0] + steps[1]) / 4
        if m < min_points:
            continue
        for i in range(m):
            for a in range(3):
                means[k, a] += points[k, i, a]
        for a in range(3):
            means[k, a] /= m
        for i in range(m):
            for a in range(3):
                for b in range(a + 1):
                    spreads[k, a, b] += (points[k, i, a] - means[k, a]) * (points[k, i, b] - means[k, b])
        for a in range(3):
            for b in range(a + 1):
                spreads[k, a, b] /= m
                spreads[k, b, a] = spreads[k, a, b]
        # With many points left out, which ones is a matter of chance.
        slopes[k] = spreads[k, 2, 2] * (found - m) / found
    return counts, far, means, spreads, points, slopes, cut


@njit(cache=True, nogil=True)
def _area(label_map: LabelMap, identity: int, edges: NDArray[np.int64]) -> int:
    """Pixels of an object, by every other row and column of a large one."""
    step = 2 if (edges[2] - edges[0]) * (edges[3] - edges[1]) > 4 * _SAMPLES else 1
    area = 0
    for y in range(max(edges[1], 0), min(edges[3], label_map.shape[0]), step):
        for x in range(max(edges[0], 0), min(edges[2], label_map.shape[1]), step):
            area += label_map[y, x] == identity
    return area * step * step


@njit(cache=True, nogil=True)
def _steps(area: int, edges: NDArray[np.int64]) -> tuple[int, int]:
    """Rows and columns from one sample to the next, so that there are at most about _SAMPLES; finer across what is
    narrow, which a coarse grid would miss."""
    height, width = edges[3] - edges[1], edges[2] - edges[0]
    even = int(np.ceil(np.sqrt(area / _SAMPLES)))
    row, column = max(1, min(even, height // 8)), max(1, min(even, width // 8))
    if column < even:
        row = max(1, int(np.ceil(area / (_SAMPLES * column))))
    elif row < even:
        column = max(1, int(np.ceil(area / (_SAMPLES * row))))
    return row, column


@njit(cache=True, nogil=True)
def _samples(
    depth: NDArray[Any],
    scale: float,
    invalid: float,
    label_map: LabelMap,
    identity: int,
    edges: NDArray[np.int64],
    steps: tuple[int, int],
    erosion: int,
    max_depth: float,
    zs: FloatArray,
    places: NDArray[np.int64],
) -> tuple:  # type: ignore[type-arg]
    """Fill depths in metres and their (row, column); give how many there are, and how many lie too far."""
    height, width = label_map.shape
    found, far = 0, 0
    for y in range(max(edges[1], 0) + steps[0] // 2, min(edges[3], height), steps[0]):
        up, down = max(y - erosion, 0), min(y + erosion, height - 1)
        for x in range(max(edges[0], 0) + steps[1] // 2, min(edges[2], width), steps[1]):
            if label_map[y, x] != identity or label_map[up, x] != identity or label_map[down, x] != identity:
                continue
            if label_map[y, max(x - erosion, 0)] != identity or label_map[y, min(x + erosion, width - 1)] != identity:
                continue
            value = depth[y, x]
            if not value > 0 or value == invalid:  # NaN is not above 0
                continue
            z = value * scale
            if z > max_depth:
                far += 1
            elif found < len(zs):
                zs[found], places[found, 0], places[found, 1] = z, y, x
                found += 1
    return found, far


@njit(cache=True, nogil=True)
def _near(zs: FloatArray, depth_floor: float, depth_growth: float) -> tuple:  # type: ignore[type-arg]
    """Nearest and farthest depth that belong to the object, of all depths in its mask (K,)."""
    ordered = np.sort(zs)
    half = (len(ordered) + 1) // 2
    best, start = np.inf, 0
    for i in range(len(ordered) - half + 1):
        length = ordered[i + half - 1] - ordered[i]
        if length < best:
            best, start = length, i
    middle = ordered[start + half // 2]
    noise = depth_floor + depth_growth * middle * middle
    # Half of a normal distribution lies within 1.35 sigma, so this is 3 sigma to both sides; of an even one, all of it.
    width = max(2.25 * best, 3.0 * noise)
    return middle - width, middle + width


@njit(cache=True, nogil=True)
def pixel_ray(x: int, y: int, intrinsics: Array, rays: FloatArray) -> tuple:  # type: ignore[type-arg]
    """x / z and y / z of a pixel."""
    if rays.shape[0] == 0:
        ray_y = (y - intrinsics[3]) / intrinsics[1]
        return (x - intrinsics[2] - intrinsics[4] * ray_y) / intrinsics[0], ray_y
    i, j = y // RAY_STEP, x // RAY_STEP
    v, u = (y - i * RAY_STEP) / RAY_STEP, (x - j * RAY_STEP) / RAY_STEP
    p, q, r, t = (1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u
    ray_x = p * rays[i, j, 0] + q * rays[i, j + 1, 0] + r * rays[i + 1, j, 0] + t * rays[i + 1, j + 1, 0]
    ray_y = p * rays[i, j, 1] + q * rays[i, j + 1, 1] + r * rays[i + 1, j, 1] + t * rays[i + 1, j + 1, 1]
    return ray_x, ray_y


@njit(cache=True, nogil=True)
def _percentiles(points: FloatArray, counts: IntArray, means: Array, axes: Array) -> tuple:  # type: ignore[type-arg]
    """Lower and upper percentile (N, 3) of each object's points along its axes, from their mean, in metres."""
    n = len(counts)
    low, high = np.zeros((n, 3)), np.zeros((n, 3))
    along = np.empty(_SAMPLES)
    bins = np.empty(_BINS, np.int64)
    for k in range(n):
        m = counts[k]
        for a in range(3):
            if m == 0:
                continue
            least, most = np.inf, -np.inf
            for i in range(m):
                along[i] = 0.0
                for b in range(3):
                    along[i] += (points[k, i, b] - means[k, b]) * axes[k, b, a]
                least, most = min(least, along[i]), max(most, along[i])
            size = (most - least) / _BINS
            if not size > 0:
                low[k, a], high[k, a] = least, most
                continue
            bins[:] = 0
            for i in range(m):
                bins[min(int((along[i] - least) / size), _BINS - 1)] += 1
            low[k, a] = least + size * _bin_of(bins, _TAIL * m)
            high[k, a] = most - size * _bin_of(bins[::-1], _TAIL * m)
    return low, high


@njit(cache=True, nogil=True)
def _bin_of(bins: NDArray[np.int64], rank: float) -> float:
    """Where in the bins so many have been passed, with fractions."""
    passed = 0
    for b in range(len(bins)):
        if passed + bins[b] > rank:
            return b + (rank - passed) / bins[b]
        passed += bins[b]
    return float(len(bins))
