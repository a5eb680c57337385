# SPDX-License-Identifier: Apache-2.0
"""Depth as another camera sees it, beside what that camera would have measured: a box before a slanted wall."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.registration import _pixel, registered

Floats = NDArray[np.float64]
SIZE = (120, 160)


def intrinsics(focal: float, size: tuple[int, int], skew: float = 0.0) -> Floats:
    return np.array([[focal, skew, size[1] / 2 - 0.5], [0, focal, size[0] / 2 - 0.5], [0, 0, 1]])


def turned(x: float, y: float, z: float, *rotation: float) -> Floats:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = cv2.Rodrigues(np.radians(rotation))[0], (x, y, z)
    return out


def projected(rays: Floats, camera: CameraModel) -> Floats:
    """Pixels (N, 2) of rays (N, 2)."""
    fx, fy, cx, cy, skew = camera.intrinsics
    d = np.array(camera.distortion)
    if d.any():
        project = cv2.fisheye.projectPoints if camera.distortion_model == "equidistant" else cv2.projectPoints
        points = np.concatenate([rays, np.ones((len(rays), 1))], 1)[:, None]
        rays = np.asarray(project(points, np.zeros(3), np.zeros(3), np.eye(3), d)[0], np.float64).reshape(-1, 2)
    return rays @ [[fx, 0], [skew, fy]] + (cx, cy)


def rays_of(camera: CameraModel, size: tuple[int, int]) -> Floats:
    """(H, W, 3), x / z, y / z and 1, by Newton's method."""
    pixels = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), -1).reshape(-1, 2).astype(float)
    rays = np.zeros_like(pixels)
    for _ in range(12):
        here = projected(rays, camera)
        slopes = np.stack([projected(rays + step, camera) - here for step in np.eye(2) * 1e-6], -1) / 1e-6
        rays = rays - np.linalg.solve(slopes, (here - pixels)[..., None])[..., 0]
    assert np.abs(projected(rays, camera) - pixels).max() < 1e-6
    return np.concatenate([rays, np.ones((len(rays), 1))], 1).reshape(*size, 3)


def rendered(camera: CameraModel, size: tuple[int, int], transform: Floats, box: bool = True) -> tuple[Floats, Any]:
    """Depth in metres, and where the box is; ``transform`` takes points of the scene to the camera."""
    start = -transform[:3, :3].T @ transform[:3, 3]
    ways = rays_of(camera, size) @ transform[:3, :3]
    normal = np.array([0.3, -0.2, 1.0])
    depth = (3.0 - start @ normal) / (ways @ normal)
    turn = cv2.Rodrigues(np.radians((0.0, 35, 10)))[0].T
    with np.errstate(divide="ignore"):
        near, far = (
            (side * np.array([0.35, 0.3, 0.3]) - turn @ (start - (0.05, 0, 1.6))) / (ways @ turn.T) for side in (-1, 1)
        )
    enter, leave = np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)
    hit = (enter < leave) & (enter > 0) & box
    return np.where(hit, enter, depth), hit


def millimetres(metres: Any) -> NDArray[np.uint16]:
    return np.rint(metres * 1000).astype(np.uint16)


def eroded(mask: Any, pixels: int = 2) -> Any:
    return cv2.erode(np.asarray(mask, np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8), borderValue=1) > 0


ALIKE = CameraModel(intrinsics(150, SIZE))
FINE, FINE_SIZE = CameraModel(intrinsics(320, (240, 320))), (240, 320)
COARSE, COARSE_SIZE = CameraModel(intrinsics(70, (60, 80))), (60, 80)
BESIDE = turned(0.05, 0.01, 0.005, 1, -2, 0.5)
PLUMB_BOB = (-0.28, 0.09, 0.001, -0.002, 0.0)
RATIONAL = (0.3, -0.1, 0.0005, -0.0003, 0.02, 0.5, -0.15, 0.03)
TILTED = (*RATIONAL, 0.001, 0.0, 0.001, 0.0, 0.02, -0.01)
EQUIDISTANT = (0.02, -0.01, 0.003, -0.001)
Scene = tuple[CameraModel, CameraModel, tuple[int, int], Floats]
SCENES: dict[str, Scene] = {
    "beside": (ALIKE, ALIKE, SIZE, BESIDE),
    "far beside": (ALIKE, ALIKE, SIZE, turned(0.2, 0, 0, 0, -5, 0)),
    "above, which looks down": (ALIKE, ALIKE, SIZE, turned(0, 0.3, 0, -8, 0, 0)),
    "a finer image": (ALIKE, FINE, FINE_SIZE, BESIDE),
    "a much finer image": (COARSE, FINE, FINE_SIZE, BESIDE),
    "a coarser image": (ALIKE, COARSE, COARSE_SIZE, BESIDE),
    "pixels that are not square": (ALIKE, CameraModel(np.diag([2.0, 1, 1]) @ ALIKE.matrix), (120, 320), BESIDE),
    "mounted on its side": (ALIKE, ALIKE, SIZE, turned(0.05, 0, 0, 0, 0, 90)),
    "mounted at 45 degrees, finer": (ALIKE, FINE, FINE_SIZE, turned(0.05, 0, 0, 0, 0, 45)),
    "ahead of it": (ALIKE, ALIKE, SIZE, turned(0, 0, -0.3, 0, 0, 0)),
    "skew": (CameraModel(intrinsics(150, SIZE, 6)), CameraModel(intrinsics(150, SIZE, -4)), SIZE, BESIDE),
    "a lens of the depth camera": (replace(ALIKE, distortion=PLUMB_BOB), ALIKE, SIZE, BESIDE),
    "a lens of the colour camera": (ALIKE, replace(ALIKE, distortion=PLUMB_BOB), SIZE, BESIDE),
    "rational": (ALIKE, replace(FINE, distortion=RATIONAL, distortion_model="rational_polynomial"), FINE_SIZE, BESIDE),
    "tilted": (ALIKE, replace(ALIKE, distortion=TILTED, distortion_model="rational_polynomial"), SIZE, BESIDE),
    "both equidistant": (
        replace(ALIKE, distortion=EQUIDISTANT, distortion_model="equidistant"),
        replace(FINE, distortion=EQUIDISTANT, distortion_model="equidistant"),
        FINE_SIZE,
        BESIDE,
    ),
    "lenses and skew": (
        CameraModel(intrinsics(150, SIZE, 6), PLUMB_BOB),
        CameraModel(intrinsics(150, SIZE, -4), PLUMB_BOB),
        SIZE,
        BESIDE,
    ),
}


@pytest.mark.parametrize("whole", [True, False], ids=["millimetres", "metres"])
@pytest.mark.parametrize(("depth_camera", "camera", "size", "transform"), SCENES.values(), ids=SCENES)
def test_it_is_what_the_colour_camera_would_have_measured(
    depth_camera: CameraModel, camera: CameraModel, size: tuple[int, int], transform: Floats, whole: bool
) -> None:
    taken, _ = rendered(depth_camera, SIZE if depth_camera is not COARSE else COARSE_SIZE, np.eye(4))
    truth, box = rendered(camera, size, transform)
    depth = millimetres(taken) if whole else taken.astype(np.float32)
    found = registered(depth, depth_camera, camera, size, transform)
    assert (found.shape, found.dtype) == (size, np.uint16 if whole else np.float32)
    metres = np.where(found > 0, found / 1000, np.nan) if whole else found
    # One pixel at a metre. Within a footprint the depth is that of its middle; the box's sides are steep.
    pixel = 1 / min(depth_camera.intrinsics[0], camera.intrinsics[0])
    edge = 1 + int(np.ceil(max(1, size[1] / taken.shape[1])))
    for inside, least in ((eroded(box, edge), 0.99), (eroded(~box, edge), 0.5)):
        known = inside & np.isfinite(metres)
        assert known.sum() >= least * inside.sum() > 30  # no gaps; of the box a side may be hidden
        error = np.abs(metres - truth)[known]
        assert np.median(error) < 0.5 * pixel
        assert np.quantile(error, 0.99) < 3 * pixel
        assert error.max() < 0.1  # the wall is half a metre behind the box and more


def test_noise_leaves_no_gaps() -> None:
    noise = np.random.default_rng(4).standard_normal(SIZE)
    taken = rendered(ALIKE, SIZE, np.eye(4), box=False)[0] * (1 + 0.004 * noise)
    found = registered(taken.astype(np.float32), ALIKE, FINE, FINE_SIZE, BESIDE)
    assert np.isfinite(found[20:-20, 20:-20]).all()


def test_what_only_the_colour_camera_sees_is_unknown() -> None:
    """The box hides a strip of the wall from the depth camera, as wide as its disparity less that of the wall."""
    taken, _ = rendered(ALIKE, SIZE, np.eye(4))
    there = turned(0.2, 0, 0, 0, 0, 0)
    truth, box = rendered(ALIKE, SIZE, there)
    found = registered(taken.astype(np.float32), ALIKE, ALIKE, SIZE, there)
    row, last = 60, int(np.flatnonzero(box[60])[0]) - 1
    gap = np.isnan(found[row, : last + 1])[::-1]
    strip = int(np.argmax(~gap[2:])) + 2
    assert strip == pytest.approx(0.2 * 150 * (1 / truth[row, last + 3] - 1 / truth[row, last - strip]), abs=3)


NOISE = np.random.default_rng(3)
NOISY = rendered(ALIKE, SIZE, np.eye(4))[0] * (1 + 0.02 * NOISE.standard_normal(SIZE))
HOLES = NOISE.random(SIZE) < 0.2
LENSED = replace(ALIKE, distortion=PLUMB_BOB)
IDENTITIES: dict[str, tuple[Any, CameraModel, Any]] = {
    "millimetres": (np.where(HOLES, 0, millimetres(NOISY)), ALIKE, np.where(HOLES, 0, millimetres(NOISY))),
    "65535": (np.where(HOLES, np.uint16(65535), millimetres(NOISY)), ALIKE, np.where(HOLES, 0, millimetres(NOISY))),
    "big-endian": (millimetres(NOISY).astype(">u2"), ALIKE, millimetres(NOISY)),
    "not contiguous": (np.repeat(millimetres(NOISY), 2, 1)[:, ::2], ALIKE, millimetres(NOISY)),
    "metres": (np.where(HOLES, np.nan, NOISY).astype("f4"), ALIKE, np.where(HOLES, np.nan, NOISY).astype("f4")),
    "half precision": (NOISY.astype("f2"), ALIKE, NOISY.astype("f2").astype("f4")),
    "double precision": (NOISY, ALIKE, NOISY.astype("f4")),
    "0 and negative": (np.where(HOLES, -1, NOISY), ALIKE, np.where(HOLES, np.nan, NOISY).astype("f4")),
    "too far": (np.where(HOLES, np.inf, NOISY), ALIKE, np.where(HOLES, np.inf, NOISY).astype("f4")),
    "nothing known": (np.zeros(SIZE, np.uint16), ALIKE, np.zeros(SIZE, np.uint16)),
    "plumb_bob": (millimetres(NOISY), LENSED, millimetres(NOISY)),
    "equidistant": (
        millimetres(NOISY),
        replace(ALIKE, distortion=EQUIDISTANT, distortion_model="equidistant"),
        millimetres(NOISY),
    ),
    "skew": (millimetres(NOISY), CameraModel(intrinsics(150, SIZE, 6), PLUMB_BOB), millimetres(NOISY)),
}


@pytest.mark.parametrize(("depth", "camera", "expected"), IDENTITIES.values(), ids=IDENTITIES)
def test_at_the_same_place_depth_stays_as_it_is(depth: Any, camera: CameraModel, expected: Any) -> None:
    found = registered(depth, camera, camera, SIZE, np.eye(4))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def pixel_at(z: float) -> NDArray[np.float32]:
    out = np.zeros(SIZE, np.float32)
    out[60, 80] = z
    return out


PLACES: dict[str, tuple[NDArray[Any], CameraModel, Floats, list[float]]] = {
    "alone, in an image twice as fine": (pixel_at(2), CameraModel(intrinsics(300, FINE_SIZE)), np.eye(4), [2.0] * 4),
    "alone, nearer to the other camera": (pixel_at(2), ALIKE, turned(0, 0, -1, 0, 0, 0), [1.0] * 4),
    "behind the other camera": (pixel_at(2), ALIKE, turned(0, 0, -3, 0, 0, 0), []),
    "beside the image": (pixel_at(2), ALIKE, turned(5, 0, 0, 0, 0, 0), []),
    "beside the round image of a lens, whose polynomial turns back": (
        cv2.dilate(pixel_at(2), np.ones((5, 5))),
        CameraModel(intrinsics(60, SIZE), (-0.3, 0, 0, 0)),
        turned(1.8, 1.6, 0, 0, 0, 0),
        [],
    ),
    "in the other lens": (pixel_at(2), ALIKE, turned(0, 0, -2 + 1e-6, 0, 0, 0), []),
    "beyond 65.534 m": (millimetres(pixel_at(60)), ALIKE, turned(0, 0, 6, 0, 0, 0), []),
    "infinitely far, wherever the camera is": (pixel_at(np.inf), ALIKE, turned(5, 0, 0, 0, 0, 0), [np.inf]),
}


@pytest.mark.parametrize(("depth", "camera", "transform", "expected"), PLACES.values(), ids=PLACES)
def test_a_single_point_is_where_it_belongs(
    depth: NDArray[Any], camera: CameraModel, transform: Floats, expected: list[float]
) -> None:
    found = registered(depth, ALIKE, camera, FINE_SIZE if camera.intrinsics[0] == 300 else SIZE, transform)
    assert found[found > 0].tolist() == expected


def test_what_nearly_touches_the_lens_takes_no_longer() -> None:
    """Every pixel would cover all of the image: 600 times a million writes."""
    found = registered(np.full(SIZE, 1.0, np.float32), ALIKE, FINE, (1000, 1000), turned(0, 0, -1 + 1e-4, 0, 0, 0))
    assert np.isfinite(found).sum() < 1000


FLAT = np.full(SIZE, 2.0, np.float32)
PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "a list": ({"depth": [[1.0]]}, "of the depth camera: the depth is list; expected .H, W. uint16"),
    "bytes": ({"depth": FLAT.astype(np.uint8)}, "the depth is uint8"),
    "three channels": ({"depth": np.zeros((*SIZE, 3), np.float32)}, "the depth is float32 .120, 160, 3."),
    "no pixels": ({"depth": FLAT[:0]}, "has the shape .0, 160. and no pixels"),
    "no depth": ({"depth": None}, "there is no depth image; give"),
    "a calibration of another size": (
        {"depth_camera": replace(ALIKE, size=(480, 640))},
        "depth camera: the calibration",
    ),
    "K of zeros": ({"camera": CameraModel(np.zeros((3, 3)))}, "of the colour camera: the camera matrix has the focal"),
    "an unknown lens": (
        {"camera": replace(ALIKE, distortion=(0.1,) * 3)},
        "of the colour camera: the distortion model",
    ),
    "no colour pixels": ({"size": (0, 640)}, "the colour image has 640 x 0 pixels; expected 1 to"),
    "too many": ({"size": (10**5, 10**5)}, "the colour image has 100000 x 100000 pixels"),
    "three rows": ({"transform": np.eye(4)[:3]}, "the transform from the depth camera .* is no .4, 4. matrix"),
    "NaN": ({"transform": np.full((4, 4), np.nan)}, "is no .4, 4. matrix"),
    "a transform that scales": ({"transform": np.diag([1e3, 1e3, 1e3, 1])}, "is no .4, 4. matrix"),
}


@pytest.mark.parametrize(("wrong", "sentence"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_cannot_be_registered_is_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    right: dict[str, Any] = {
        "depth": FLAT,
        "depth_camera": ALIKE,
        "camera": ALIKE,
        "size": SIZE,
        "transform": np.eye(4),
    }
    with pytest.raises(ValueError, match=r"camera|image|transform") as error:
        registered(**{**right, **wrong})
    assert re.search(sentence, str(error.value)), error.value
    assert "\n" not in str(error.value)


LENSES: dict[str, tuple[CameraModel, tuple[int, int]]] = {
    "plumb_bob": (CameraModel(intrinsics(900, (720, 1280)), PLUMB_BOB), (720, 1280)),
    "tilted, with skew": (CameraModel(intrinsics(900, (720, 1280), 9), TILTED, "rational_polynomial"), (720, 1280)),
    "equidistant, 120 degrees": (CameraModel(intrinsics(600, (720, 1280)), EQUIDISTANT, "equidistant"), (720, 1280)),
}


@pytest.mark.parametrize(("camera", "size"), LENSES.values(), ids=LENSES)
def test_rays_are_projected_to_within_hundredths_of_a_pixel(camera: CameraModel, size: tuple[int, int]) -> None:
    grid, pixels = camera.pixels(size)
    rays = NOISE.uniform(grid[:2] / 2, (grid[:2] + 256 * grid[2:]) / 2, (2000, 2))
    expected = projected(rays, camera)
    found = np.array([_pixel(x, y, np.zeros(5), grid, pixels) for x, y in rays])
    assert np.abs(found - expected).max() < 0.03
