# SPDX-License-Identifier: Apache-2.0
"""Places in metres of objects in a depth image, and the filter of their motion."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.declare import declared
from instance_flow.formats.rotations import to_matrices, to_quaternions
from instance_flow.spatial import kalman
from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.measure import Places, SpatialConfig, depth_problem, measure
from instance_flow.structures import SPATIAL_STATES
from instance_flow.tracking.motion import Motions, follow_in_space

SIZE = (96, 128)
K = np.array([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]])
CAMERA = CameraModel(K)
Depth = NDArray[Any]


def boxes_of(labels: NDArray[np.int32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
    places = [np.nonzero(labels == i) for i in ids]
    return np.array([(x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1) for y, x in places], np.float32).reshape(-1, 4)


def place(depth: Depth, labels: NDArray[np.int32], camera: CameraModel = CAMERA, **settings: Any) -> Places:
    ids = np.unique(labels[labels > 0]).astype(np.int64)
    return measure(depth, labels, ids, boxes_of(labels, ids), camera, SpatialConfig(**settings))


def one_object(left: int = 40, top: int = 30, width: int = 40, height: int = 30) -> NDArray[np.int32]:
    labels = np.zeros(SIZE, np.int32)
    labels[top : top + height, left : left + width] = 7
    return labels


def expected(left: int = 40, top: int = 30, width: int = 40, height: int = 30, z: float = 2.0) -> NDArray[np.float64]:
    x, y = left + (width - 1) / 2, top + (height - 1) / 2
    return np.array([(x - 63.5) / 100 * z, (y - 47.5) / 100 * z, z])


def in_millimetres(depth: Depth) -> Depth:
    return np.rint(depth * 1000).astype(np.uint16)


def some(share: float) -> NDArray[np.bool_]:
    return np.random.default_rng(5).random(SIZE) < share


def spoiled(depth: Depth, where: NDArray[np.bool_], value: float) -> Depth:
    return np.where(where, np.array(value, depth.dtype), depth)


FLAT = np.full(SIZE, 2.0, np.float32)
RIGHT_HALF = np.arange(SIZE[1])[None] >= 66 + np.zeros((SIZE[0], 1))
DEPTHS: dict[str, Callable[[], Depth]] = {
    "metres": lambda: FLAT,
    "double precision": lambda: FLAT.astype(np.float64),
    "half precision": lambda: FLAT.astype(np.float16),
    "millimetres": lambda: in_millimetres(FLAT),
    "big-endian millimetres": lambda: in_millimetres(FLAT).astype(">u2"),
    "a view that is not contiguous": lambda: np.repeat(in_millimetres(FLAT), 2, 1)[:, ::2],
    "holes of 0": lambda: spoiled(in_millimetres(FLAT), some(0.5), 0),
    "holes of 65535": lambda: spoiled(in_millimetres(FLAT), some(0.5), 65535),
    "holes of NaN": lambda: spoiled(FLAT, some(0.5), np.nan),
    "holes of infinity": lambda: spoiled(FLAT, some(0.5), np.inf),
    "holes of minus infinity": lambda: spoiled(FLAT, some(0.5), -np.inf),
    "negative holes": lambda: spoiled(FLAT, some(0.5), -1),
    "background in a third of the mask": lambda: spoiled(FLAT, some(0.33), 5),
    "something in front in a third of the mask": lambda: spoiled(FLAT, some(0.33), 0.7),
    "edges of background": lambda: np.where(
        cv2.erode((one_object() > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, FLAT, 6
    ),
}


@pytest.mark.parametrize("depth", DEPTHS.values(), ids=DEPTHS)
def test_a_plane_is_placed_whatever_its_depth_image_looks_like(depth: Callable[[], Depth]) -> None:
    found = place(depth(), one_object())
    assert [SPATIAL_STATES[k] for k in found.states] == ["measured"]
    np.testing.assert_allclose(found.positions[0], expected(), atol=0.03)
    assert found.positions[0, 2] == pytest.approx(2.0, abs=2e-3)
    np.testing.assert_allclose(found.extents[0], (0.8, 0.6, 0), atol=0.09)
    assert found.points[0] >= 20


SHAPES = {
    "a pole, all edge": (60, 10, 1, 60),
    "a wire, all edge": (4, 50, 120, 1),
    "at the corner of the image": (0, 0, 20, 20),
    "the whole image": (0, 0, 128, 96),
    "small": (70, 50, 6, 6),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_objects_of_any_shape_are_placed(shape: tuple[int, int, int, int]) -> None:
    found = place(in_millimetres(FLAT), one_object(*shape), min_points=12)
    # The grid of samples may leave out the last rows and columns.
    np.testing.assert_allclose(found.positions[0], expected(*shape), atol=0.05)


STATES: dict[str, tuple[Depth, str]] = {
    "all zero": (np.zeros(SIZE, np.uint16), "too few points"),
    "all 65535": (np.full(SIZE, 65535, np.uint16), "too few points"),
    "all NaN": (np.full(SIZE, np.nan, np.float32), "too few points"),
    "all negative": (-FLAT, "too few points"),
    "nearly all holes": (spoiled(FLAT, some(0.99), 0), "too few points"),
    "far away": (FLAT * 20, "too far"),
    "infinite, which says too far": (FLAT * np.float32(np.inf), "too far"),
    "beyond single precision": (np.full(SIZE, 1e300), "too far"),
    "millimetres that are taken for metres": (in_millimetres(FLAT).astype(np.float32), "too far"),
}


@pytest.mark.parametrize(("depth", "state"), STATES.values(), ids=STATES)
def test_what_cannot_be_placed_is_unknown_and_says_why(depth: Depth, state: str) -> None:
    found = place(depth, one_object())
    assert [SPATIAL_STATES[k] for k in found.states] == [state]
    for name in ("positions", "covariances", "extents", "box_centers", "rotations", "reaches"):
        assert np.isnan(getattr(found, name)).all(), name
    assert found.points.tolist() == [0]


def test_every_object_has_its_own_state() -> None:
    labels = one_object()
    labels[:20, :20], labels[70:90, 90:120] = 3, 9
    depth = FLAT.copy()
    depth[:20, :20], depth[70:90, 90:120] = np.nan, 30
    assert [SPATIAL_STATES[k] for k in place(depth, labels).states] == ["too few points", "measured", "too far"]


def test_a_frame_without_objects_has_no_places() -> None:
    found = place(FLAT, np.zeros(SIZE, np.int32))
    assert found.positions.shape == (0, 3)
    assert found.rotations.shape == (0, 3, 3)


def matrix(**entries: float) -> NDArray[np.float64]:
    out = K.copy()
    for name, value in entries.items():
        out[int(name[1]), int(name[2])] = value
    return out


PROBLEMS: dict[str, tuple[Any, CameraModel | None, str, str]] = {
    "no depth": (None, CAMERA, "no depth", ""),
    "a list": ([[1.0]], CAMERA, "bad depth", "the depth is list; expected .H, W. uint16"),
    "signed": (FLAT.astype(np.int32), CAMERA, "bad depth", "the depth is int32"),
    "bytes": (FLAT.astype(np.uint8), CAMERA, "bad depth", "the depth is uint8"),
    "complex": (FLAT.astype(np.complex64), CAMERA, "bad depth", "the depth is complex64"),
    "three channels": (np.zeros((*SIZE, 3), np.float32), CAMERA, "bad depth", "expected .H, W."),
    "of half the size": (
        FLAT[::2, ::2],
        CAMERA,
        "size mismatch",
        "has 64 x 48 pixels and the image 128 x 96",
    ),
    "empty": (FLAT[:0], CAMERA, "size mismatch", "has 128 x 0 pixels"),
    "no camera": (FLAT, None, "bad camera", "no camera calibration; give camera="),
    "K of zeros": (FLAT, CameraModel(np.zeros((3, 3))), "bad camera", "focal lengths 0 and 0; expected"),
    "K of NaN": (FLAT, CameraModel(matrix(k00=np.nan)), "bad camera", "focal lengths nan"),
    "negative focal length": (FLAT, CameraModel(matrix(k11=-100)), "bad camera", "100 and -100"),
    "focal length of a unit image": (FLAT, CameraModel(matrix(k00=0.8)), "bad camera", "0.8 and 100"),
    "nine numbers": (FLAT, CameraModel(K.ravel()), "bad camera", "of shape .9,.; expected K with 3 rows"),
    "words": (FLAT, CameraModel(np.array(["a"])), "bad camera", "is no numbers"),
    "transposed": (FLAT, CameraModel(K.T), "bad camera", "is not .fx s cx"),
    "principal point of another camera": (FLAT, CameraModel(matrix(k02=640)), "bad camera", "far outside"),
    "calibrated at another size": (
        FLAT,
        replace(CAMERA, size=(480, 640)),
        "bad camera",
        "is of 640 x 480 pixels",
    ),
    "three coefficients": (
        FLAT,
        replace(CAMERA, distortion=(0.1, 0, 0)),
        "bad camera",
        "'plumb_bob' with 3",
    ),
    "distortion of NaN": (FLAT, replace(CAMERA, distortion=(np.nan,) * 5), "bad camera", "no row of finite numbers"),
    "unknown lens": (
        FLAT,
        replace(CAMERA, distortion=(0.1,) * 4, distortion_model="odd\n"),
        "bad camera",
        r"is 'odd\\+n' with 4",
    ),
    "a pose that scales": (FLAT, replace(CAMERA, pose=np.diag([2.0, 2, 2, 1])), "bad camera", "pose is no"),
    "a pose of NaN": (FLAT, replace(CAMERA, pose=np.full((4, 4), np.nan)), "bad camera", "pose is no"),
    "right": (FLAT, replace(CAMERA, distortion=(0.0,) * 5, size=SIZE, pose=np.eye(4)), "measured", ""),
    "no distortion model, as of rectified images": (FLAT, replace(CAMERA, distortion_model=""), "measured", ""),
}


@pytest.mark.parametrize(("depth", "camera", "state", "sentence"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_wrong_depth_or_camera_is_one_sentence(
    depth: Any, camera: CameraModel | None, state: str, sentence: str
) -> None:
    index, found = depth_problem(depth, camera, SIZE)
    assert SPATIAL_STATES[index] == state
    assert bool(found) == bool(sentence)
    assert "\n" not in found
    assert re.search(sentence, found), found


LENSES = {
    "plumb_bob": (-0.28, 0.09, 0.001, -0.002, 0.0),
    "rational_polynomial": (0.3, -0.1, 0.0005, -0.0003, 0.02, 0.5, -0.15, 0.03),
    "equidistant": (0.02, -0.01, 0.003, -0.001),
}


@pytest.mark.parametrize(("model", "coefficients"), LENSES.items(), ids=LENSES)
def test_distortion_is_undone(model: str, coefficients: tuple[float, ...]) -> None:
    k = np.array([[300.0, 0, 320], [0, 300, 240], [0, 0, 1]])
    camera = CameraModel(k, coefficients, model)
    true = np.array([[-1.4, -0.9, 2.0], [1.5, 1.0, 2.2], [0.1, -0.7, 1.5]])
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    pixels = project(true[:, None], np.zeros(3), np.zeros(3), k, np.array(coefficients))[0].reshape(-1, 2)
    labels, depth = np.zeros((480, 640), np.int32), np.zeros((480, 640), np.float32)
    for row, (x, y) in enumerate(np.rint(pixels).astype(int)):
        labels[y - 3 : y + 4, x - 3 : x + 4], depth[y - 3 : y + 4, x - 3 : x + 4] = row + 1, true[row, 2]
    found = place(depth, labels, camera)
    np.testing.assert_allclose(found.positions, true, atol=2 / 300)  # half a pixel is rounded
    plain = place(depth, labels, CameraModel(k))
    assert np.abs(plain.positions - true).max() > 0.03


def test_a_long_wire_in_a_large_image_is_seen() -> None:
    for labels in (np.zeros((20, 3000), np.int32), np.zeros((3000, 20), np.int32)):
        (labels[7] if labels.shape[0] == 20 else labels[:, 7])[:] = 1
        found = place(np.full(labels.shape, 2.0, np.float32), labels, CameraModel(matrix(k02=10, k12=10)))
        assert found.points[0] > 100


def test_the_pose_takes_answers_into_another_frame() -> None:
    """A robot's camera: looking forward, 1 m over the ground, 3 m ahead of where the map begins."""
    pose = np.array([[0.0, 0, 1, 3], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]])
    here, there = place(FLAT, one_object()), place(FLAT, one_object(), replace(CAMERA, pose=pose))
    x, y, z = here.positions[0]
    np.testing.assert_allclose(there.positions[0], (3 + z, -x, 1 - y), atol=1e-6)
    np.testing.assert_allclose(there.covariances[0], pose[:3, :3] @ here.covariances[0] @ pose[:3, :3].T, atol=1e-12)
    np.testing.assert_allclose(there.extents, here.extents)
    np.testing.assert_allclose(there.rotations[0], pose[:3, :3] @ here.rotations[0])


def test_the_box_lies_along_a_slanted_board() -> None:
    """1.2 m x 0.4 m, turned by 40 degrees about the vertical."""
    normal = np.array([np.sin(np.radians(40)), 0, -np.cos(np.radians(40))])
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    rays = np.stack([(xs - 63.5) / 100, (ys - 47.5) / 100, np.ones(SIZE)], -1)
    points = rays * ((normal @ [0, 0, 2.5]) / (rays @ normal))[..., None]
    along = points @ [np.cos(np.radians(40)), 0, np.sin(np.radians(40))]
    middle = 2.5 * np.sin(np.radians(40))
    labels = ((np.abs(along - middle) < 0.6) & (np.abs(points[..., 1]) < 0.2)).astype(np.int32)
    found = place(points[..., 2].astype(np.float32), labels)
    np.testing.assert_allclose(found.extents[0], (1.2, 0.4, 0), atol=0.12)
    np.testing.assert_allclose(np.abs(found.rotations[0, :, 2]), np.abs(normal), atol=0.02)
    np.testing.assert_allclose(found.rotations[0].T @ found.rotations[0], np.eye(3), atol=1e-9)
    assert np.linalg.det(found.rotations[0]) == pytest.approx(1)


def test_the_position_is_the_mean_of_the_masks_points() -> None:
    """Beside a plain formula, on a mask that is small enough to be looked at as a whole."""
    rng = np.random.default_rng(2)
    depth = (2 + 0.002 * rng.standard_normal(SIZE)).astype(np.float32)
    labels = one_object(50, 40, 12, 12)
    ys, xs = np.nonzero(cv2.erode((labels > 0).astype(np.uint8), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)))
    z = depth[ys, xs].astype(np.float64)
    points = np.stack([(xs - 63.5) / 100 * z, (ys - 47.5) / 100 * z, z], 1)
    np.testing.assert_allclose(place(depth, labels).positions[0], points.mean(0), atol=1e-6)


def test_the_covariance_is_that_of_the_errors() -> None:
    """Noise that all pixels share, as a sensor's: errors are within what is promised, and not ten times below it."""
    rng, ratios = np.random.default_rng(3), []
    for z in (1.0, 2.0, 4.0):
        sigma = 0.005 + 0.003 * z**2
        for _ in range(20):
            depth = (z + sigma / 2 * rng.standard_normal() + sigma * rng.standard_normal(SIZE)).astype(np.float32)
            found = place(depth, one_object())
            miss = found.positions[0] - expected(z=z)
            ratios.append(float(miss @ np.linalg.solve(found.covariances[0], miss)))
    assert 0.1 < np.mean(ratios) < 3


def test_an_object_that_the_edge_of_the_image_cuts_is_less_certain() -> None:
    whole, cut = (place(FLAT, one_object(left)).covariances[0] for left in (1, 0))
    assert cut[0, 0] > 20 * whole[0, 0]


def test_half_an_object_hidden_moves_the_filter_less_than_a_step_as_wide() -> None:
    """It stands still; at last its left half is hidden, so that the middle of what is seen is 0.2 m further right."""
    camera, ids, unknown = CameraModel(K), np.array([1]), np.full((1, 2), np.nan)

    def speed(last: NDArray[np.int32]) -> float:
        motions = Motions(3)
        for t in range(11):
            seen = place(FLAT, one_object() if t < 10 else last)
            state, _ = follow_in_space(
                motions, ids, seen, unknown, np.full((1, 2, 2), np.nan), camera, round(t * 1e8), SpatialConfig()
            )
        return float(state[0, 3])

    assert 0 < speed(one_object(60, width=20)) < speed(one_object(50)) / 2


@pytest.mark.parametrize(
    ("name", "value", "requirement"),
    [
        ("max_depth", 0.0, "a number from 0.1 to 1000.0"),
        ("max_depth", np.inf, "a number from 0.1 to 1000.0"),
        ("min_points", 0, "a whole number from 1 to 256"),
        ("min_points", 257, "a whole number from 1 to 256"),
        ("min_points", 20.0, "a whole number from 1 to 256"),
        ("depth_floor", 0.0, "a number from 1e-06 to 10.0"),
        ("depth_growth", -1.0, "a number from 0.0 to 10.0"),
        ("object_acceleration", "1", "a number from 0.001 to 1000.0"),
        ("object_speed", np.nan, "a number from 0.001 to 1000.0"),
    ],
    ids=str,
)
def test_settings_that_nothing_can_be_measured_with_are_refused(name: str, value: Any, requirement: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name} is {value!r}; it must be {requirement}")):
        SpatialConfig(**{name: value})


def test_every_setting_is_declared_so_that_options_and_parameters_can_be_made_of_it() -> None:
    specs = declared(SpatialConfig)
    assert len(specs) == len(fields(SpatialConfig))
    assert all(spec.metadata["description"] and None not in spec.metadata["range"] for spec in specs)


def test_the_filter_is_that_of_the_text_books() -> None:
    """One dimension, written out."""
    state, p = np.array([[1.0, 2.0]]), np.array([[[4.0, 1.0], [1.0, 3.0]]])
    t, q, r = 0.5, 0.6, 2.0
    state, p = kalman.predicted(state, p, np.array([t]), q)
    np.testing.assert_allclose(state, [[2.0, 2.0]])
    a, b, c = 4 + 2 * t + 3 * t * t + q * t**3 / 3, 1 + 3 * t + q * t**2 / 2, 3 + q * t
    np.testing.assert_allclose(p, [[[a, b], [b, c]]])
    state, p = kalman.updated(state, p, np.array([[5.0]]) - state[:, :1], np.array([[1.0, 0.0]]), np.array([[[r]]]))
    np.testing.assert_allclose(state, [[2 + a / (a + r) * 3, 2 + b / (a + r) * 3]])
    np.testing.assert_allclose(p, [[[a * r / (a + r), b * r / (a + r)], [b * r / (a + r), c - b * b / (a + r)]]])


def test_the_filter_knows_how_far_it_is_out() -> None:
    """500 objects that move as it supposes: the squared error in units of the covariance has the mean 4 of 2 D."""
    rng, n, t, q, sigma = np.random.default_rng(1), 500, 0.1, 2.0, 0.3
    truth = np.concatenate([rng.standard_normal((n, 2)), 3 * rng.standard_normal((n, 2))], 1)
    state, p = np.zeros((n, 4)), np.tile(np.diag([1.0, 1, 9, 9]), (n, 1, 1))
    cov = q * np.kron([[t**3 / 3, t**2 / 2], [t**2 / 2, t]], np.eye(2))
    h, r = np.eye(2, 4), np.tile(sigma**2 * np.eye(2), (n, 1, 1))
    for _ in range(20):
        truth[:, :2] += t * truth[:, 2:]
        truth += rng.multivariate_normal(np.zeros(4), cov, n)
        state, p = kalman.predicted(state, p, np.full(n, t), q)
        measured = truth[:, :2] + sigma * rng.standard_normal((n, 2))
        state, p = kalman.updated(state, p, measured - state[:, :2], h, r)
    miss = truth - state
    assert np.einsum("ni,nij,nj->n", miss, np.linalg.inv(p), miss).mean() == pytest.approx(4, abs=0.4)


@pytest.mark.parametrize("degrees", [0, 90, 179.9, 180, 270])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -2, 3)])
def test_rotations_survive_as_quaternions(axis: tuple[float, ...], degrees: float) -> None:
    unit, half = np.array(axis) / np.linalg.norm(axis), np.radians(degrees) / 2
    quaternion = np.array([[*(unit * np.sin(half)), np.cos(half)]])
    rotation = to_matrices(quaternion)
    np.testing.assert_allclose(rotation, cv2.Rodrigues(unit * 2 * half)[0][None], atol=1e-12)
    back = to_quaternions(rotation)
    assert back[0, 3] >= -1e-12
    np.testing.assert_allclose(np.abs(back @ quaternion.T), 1, atol=1e-12)  # q and -q are the same turn
