# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes in metres: boxes that move on a plane, seen by a moving pinhole camera, as image and depth.

The world frame is that of REP 103: x forward, y left, z up, the plane is z = 0. The camera's optical frame is x right,
y down, z forward. A scene is a pure function of its seed and configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.declare import SIZE, check, setting
from instance_flow.structures import Image, IntArray, LabelMap
from instance_flow_training.worlds.synthetic import CLASS_NAMES, MOST_FRAMES, MOST_RATE, Clip

Array = NDArray[np.float64]

SITUATION = "depth"
"""Name of these scenes among the situations."""

_COEFFICIENTS = (0, 4, 5, 8, 12, 14)
_HEIGHT, _PITCH = 1.2, 0.12  # of the camera over the plane in metres, and downwards in radians
_MOMENT = 1e-4  # seconds between which velocities are differences: exact to 1e-7 m/s


@dataclass(frozen=True)
class DepthSceneConfig:
    """What can be chosen about a scene."""

    size: tuple[int, int] = setting((480, 640), "in pixels", 16, 16_384, parts=SIZE)
    frames: int = setting(30, "length of the scene", 1, MOST_FRAMES)
    rate: float = setting(15.0, "frames per second", high=MOST_RATE, above=0)
    objects: int = setting(4, "number of boxes", 1, 1000)
    distance: tuple[float, float] = setting(
        (2.0, 6.0),
        "of an object from the camera at first, in metres",
        high=1000,
        above=0,
        parts=("nearest", "farthest"),
    )
    speed: float = setting(1.0, "of the fastest object, m/s", 0, 1000)
    camera_speed: float = setting(0.3, "forward, m/s", -1000, 1000)
    camera_turn: float = setting(0.2, "largest turn, radians per second, to both sides in turn", 0, 100)
    noise: float = setting(
        1.0, "of the depth, in units of a stereo camera's: standard deviation 0.005 + 0.003 z^2 metres", 0, 1000
    )
    holes: float = setting(0.1, "share of pixels without depth", 0, 1)
    max_range: float = setting(12.0, "metres, beyond which the sensor gives 0", high=65, above=0)
    distortion: tuple[float, ...] = setting((), "OpenCV's coefficients (plumb_bob) of the lens", -1000, 1000, of=float)

    def __post_init__(self) -> None:
        check(self)
        if self.distance[0] > self.distance[1]:
            raise ValueError(f"distance is {list(self.distance)}; the first must be at most the second")
        if len(self.distortion) not in _COEFFICIENTS:
            raise ValueError(
                f"distortion has {len(self.distortion)} coefficients; OpenCV's models have one of "
                f"{', '.join(map(str, _COEFFICIENTS))}"
            )


@dataclass(frozen=True, repr=False)
class DepthClip:
    """A rendered scene of T frames with N objects.

    images: (T, H, W, 3) uint8 RGB.   labels: (T, H, W) int32, 0 = background, k + 1 = object k.
    depths: (T, H, W) uint16 millimetres as the sensor gives them.   true_depths: (T, H, W) float32 metres, inf = sky.
    stamps: (T,) int64 nanoseconds.   matrix: (3, 3) K.   distortion: plumb_bob.
    poses: (T, 4, 4), optical frame to world at each stamp, as TF gives it.
    positions, velocities: (T, N, 3) of the middle of each box in the world, metres and m/s.
    sizes: (N, 3) metres, along the box's own x, y and z.   yaws: (N,) radians.
    """

    images: Image
    labels: LabelMap
    depths: NDArray[np.uint16]
    true_depths: NDArray[np.float32]
    class_ids: IntArray
    stamps: IntArray
    matrix: Array
    distortion: tuple[float, ...]
    poses: Array
    positions: Array
    velocities: Array
    sizes: Array
    yaws: Array
    config: DepthSceneConfig

    def clip(self, seed: int = 0) -> Clip:
        """The scene without its depth, as for ``OracleNetwork``.   seed: what it was drawn from."""
        return Clip(self.images, self.labels, self.class_ids, seed, SITUATION, self.config.rate)

    def from_camera(self) -> tuple[Array, Array]:
        """Positions and velocities (T, N, 3) of the middle of each box in the optical frame of its time: velocities are
        relative to the camera, whose own motion and turn are in them."""

        def at(shift: float) -> Array:
            poses = np.array([_pose(self.config, stamp / 1e9 + shift) for stamp in self.stamps])
            away = self.positions + shift * self.velocities - poses[:, None, :3, 3]
            return np.einsum("tji,tnj->tni", poses[:, :3, :3], away)

        return at(0), (at(_MOMENT) - at(-_MOMENT)) / (2 * _MOMENT)

    def surfaces(self, t: int) -> Array:
        """(N, 3) in the optical frame of frame t: mean of the points of each object that are seen; NaN if hidden."""
        rays = _rays(self.config.size, self.matrix, self.distortion)
        points = rays * self.true_depths[t].astype(np.float64)[..., None]
        out = np.full((len(self.sizes), 3), np.nan)
        for k in range(len(self.sizes)):
            mask = self.labels[t] == k + 1
            if mask.any():
                out[k] = points[mask].mean(0)
        return out


def generate_depth_clip(seed: int, config: DepthSceneConfig = DepthSceneConfig()) -> DepthClip:
    """Draw and render a scene."""
    rng = np.random.default_rng(seed)
    height, width = config.size
    focal = 0.95 * width
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    rays = _rays(config.size, matrix, config.distortion)
    seconds = np.arange(config.frames) / config.rate
    poses = np.array([_pose(config, t) for t in seconds])
    sizes = rng.uniform((0.3, 0.3, 0.5), (0.9, 0.9, 1.7), (config.objects, 3))
    yaws = rng.uniform(-np.pi, np.pi, config.objects)
    away = np.linspace(*config.distance, config.objects) if config.objects > 1 else np.array([np.mean(config.distance)])
    beside = rng.permutation(np.linspace(-0.35, 0.35, config.objects)) * away
    heading, speed = rng.uniform(-np.pi, np.pi, config.objects), config.speed * rng.uniform(0.3, 1, config.objects)
    velocity = np.stack([np.cos(heading) * speed, np.sin(heading) * speed, np.zeros(config.objects)], 1)
    middle = seconds[len(seconds) // 2]
    positions = np.stack([away, beside, sizes[:, 2] / 2], 1) + velocity * (seconds - middle)[:, None, None]
    colours = rng.uniform(60, 230, (config.objects, 3))
    images, labels, depths, exact = [], [], [], []
    for t in range(config.frames):
        image, label, depth = _render(rays, poses[t], positions[t], sizes, yaws, colours)
        images.append(image)
        labels.append(label)
        exact.append(depth)
        depths.append(_sensed(rng, depth, config))
    return DepthClip(
        np.stack(images),
        np.stack(labels),
        np.stack(depths),
        np.stack(exact),
        np.arange(config.objects, dtype=np.int64) % len(CLASS_NAMES),
        np.rint(seconds * 1e9).astype(np.int64),
        matrix,
        config.distortion,
        poses,
        positions,
        np.broadcast_to(velocity, positions.shape).copy(),
        sizes,
        yaws,
        config,
    )


def _pose(config: DepthSceneConfig, t: float) -> Array:
    """Forward, and turning to and fro once in 4 seconds."""
    yaw = config.camera_turn * 2 / np.pi * np.sin(np.pi / 2 * t)
    forward = np.array([np.cos(yaw) * np.cos(_PITCH), np.sin(yaw) * np.cos(_PITCH), -np.sin(_PITCH)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = config.camera_speed * t, 0.0, _HEIGHT
    return pose


def _rays(size: tuple[int, int], matrix: Array, distortion: tuple[float, ...]) -> Array:
    """(H, W, 3) of every pixel, with z = 1."""
    ys, xs = np.mgrid[: size[0], : size[1]].astype(np.float64)
    pixels = np.stack([xs, ys], -1).reshape(-1, 1, 2)
    coefficients = np.array(distortion or (0.0,) * 4)
    flat = (pixels - matrix[:2, 2]) / matrix[[0, 1], [0, 1]]
    # Where there is no distortion the first guess is right.
    for _ in range(30 if distortion else 0):
        points = np.concatenate([flat, np.ones((len(flat), 1, 1))], -1)
        seen = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, coefficients)[0]
        flat = flat - (seen.reshape(-1, 1, 2) - pixels) / matrix[[0, 1], [0, 1]]
    return np.concatenate([flat.reshape(*size, 2), np.ones((*size, 1))], -1)


def _render(
    rays: Array, pose: Array, positions: Array, sizes: Array, yaws: Array, colours: Array
) -> tuple[Image, LabelMap, NDArray[np.float32]]:
    """Image, labels and depth: with z = 1 in the rays, how far a ray goes is the depth."""
    world, origin = rays @ pose[:3, :3].T, pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(world[..., 2] < 0, -origin[2] / world[..., 2], np.inf)
        ground = origin + world * np.where(np.isfinite(depth), depth, 0)[..., None]
        tiles = (np.floor(ground[..., 0] * 2) + np.floor(ground[..., 1] * 2)) % 2
        image = np.where(np.isfinite(depth), 95 + 40 * tiles, 180)[..., None] * np.array([1.0, 0.97, 0.9])
        label = np.zeros(depth.shape, np.int32)
        for k, (position, size, yaw) in enumerate(zip(positions, sizes, yaws, strict=True)):
            turn = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
            start, along = turn @ (origin - position), world @ turn.T
            one, other = (-size / 2 - start) / along, (size / 2 - start) / along
            enter, leave = np.minimum(one, other), np.maximum(one, other)
            near = enter.max(-1)
            hit = (near < leave.min(-1)) & (near > 0.05) & (near < depth)
            spots = np.floor((start + along * np.where(hit, near, 0)[..., None]) * 6).sum(-1) % 2
            shade = 0.7 + 0.15 * enter.argmax(-1) - 0.12 * spots
            image = np.where(hit[..., None], colours[k] * shade[..., None], image)
            label, depth = np.where(hit, k + 1, label).astype(np.int32), np.where(hit, near, depth)
    return np.clip(image, 0, 255).astype(np.uint8), label, depth.astype(np.float32)


def _sensed(rng: np.random.Generator, depth: NDArray[np.float32], config: DepthSceneConfig) -> NDArray[np.uint16]:
    """What a stereo camera makes of it: noise that neighbours share, mixed depths at edges, holes in patches."""
    z = np.where(np.isfinite(depth), depth, 0).astype(np.float64)
    grain = rng.standard_normal((2, *depth.shape))
    patches = cv2.GaussianBlur(grain[1], (0, 0), 4)
    patches /= patches.std()
    sensed = z + config.noise * (0.005 + 0.003 * z**2) * (0.7 * grain[0] + 0.7 * patches)
    low, high = cv2.erode(z, np.ones((3, 3))), cv2.dilate(z, np.ones((3, 3)))
    edge = high - low > 0.05 + 0.05 * z
    sensed = np.where(edge, low + (high - low) * rng.random(depth.shape), sensed)
    if config.holes:
        blobs = cv2.GaussianBlur(rng.standard_normal(depth.shape), (0, 0), 3)
        sensed[blobs > np.quantile(blobs, 1 - config.holes)] = 0
        sensed[edge & (rng.random(depth.shape) < 0.5)] = 0
    sensed[(z > config.max_range) | (sensed <= 0)] = 0
    return np.rint(sensed * 1000).astype(np.uint16)
