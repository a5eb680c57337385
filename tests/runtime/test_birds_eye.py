# SPDX-License-Identifier: Apache-2.0
"""What stands where on the picture from above."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from label_map_tracks import label_map_tracks

from instance_flow.pictures.birds_eye import birds_eye
from instance_flow.pictures.draw import colours
from instance_flow.spatial.camera import CameraModel
from instance_flow.structures import Image, Tracks

CAMERA = CameraModel(np.array([[32.0, 0, 31.5], [0, 32, 23.5], [0, 0, 1]]))
QUARTER = np.array([[0.0, 0, 1, 5], [0, 1, 0, 0], [-1, 0, 0, 3], [0, 0, 0, 1]])
"""A quarter turn about the vertical, and elsewhere."""


def one(position: tuple[float, float, float], velocity: float = np.nan, deviation: float = 0.0) -> Tracks:
    """A box of 1 x 0.5 x 0.5 m along x, which moves along x; 60 pixels are a metre."""
    labels = np.zeros((48, 64), np.int32)
    labels[10:20, 10:20] = 3
    known = {"positions": [position], "box_centers": [position], "extents": [(1.0, 0.5, 0.5)], "rotations": [np.eye(3)]}
    motion = {"spatial_velocities": [(velocity, 0, 0)], "spatial_covariances": [deviation**2 * np.eye(6)]}
    rows: dict[str, Any] = {name: np.array(value, np.float32) for name, value in (known | motion).items()}
    return replace(label_map_tracks(labels), **rows)


def coloured(picture: Image) -> tuple[float, ...]:
    """Mean column and row of the pixels in the colour of the track, and their width and height."""
    rows, columns = np.nonzero(np.abs(picture.astype(int) - colours([3])[0]).max(2) < 8)
    found = (columns.mean(), rows.mean(), np.ptp(columns), np.ptp(rows)) if len(rows) else ()
    return tuple(float(number) for number in found)


@pytest.mark.parametrize(
    ("position", "place"),
    {
        "ahead": ((0, 0, 4), (240, 239)),
        "right": ((2, 0, 4), (360, 239)),
        "near, left": ((-1, 0, 2), (180, 359)),
    }.values(),
    ids=["ahead", "right", "near, left"],
)
@pytest.mark.parametrize("pose", [None, QUARTER], ids=["camera", "pose"])
def test_place_and_footprint(position: tuple[float, float, float], place: tuple[int, int], pose: Any) -> None:
    tracks = one(position)
    if pose is not None:
        moved = (pose[:3, :3] @ np.array(position) + pose[:3, 3])[None].astype(np.float32)
        tracks = replace(tracks, positions=moved, box_centers=moved, rotations=pose[None, :3, :3])
    column, row, width, height = coloured(birds_eye(tracks, replace(CAMERA, pose=pose)))
    assert (column, row) == pytest.approx(place, abs=3)
    assert (width, height) == pytest.approx((60, 30), abs=3)


def test_the_arrow_leads_to_where_it_will_be_and_an_unknown_velocity_has_none() -> None:
    still, moving = (birds_eye(one((0, 0, 4), velocity), CAMERA) for velocity in (np.nan, 2.0))
    columns = np.nonzero((still != moving).any(2))[1]
    assert columns.max() == pytest.approx(360, abs=3)


def test_it_fades_with_uncertainty() -> None:
    sure, unsure, lost = (birds_eye(one((0, 0, 4), np.nan, s), CAMERA)[239, 240].astype(int) for s in (0, 0.25, 50))
    np.testing.assert_allclose(unsure, (sure + lost) / 2, atol=6)
    assert np.abs(sure - lost).max() > 60


@pytest.mark.parametrize("position", [(np.nan,) * 3, (0, 0, 9), (5, 0, 4), (0, 0, -1)], ids=str)
def test_what_is_not_shown_is_counted(position: tuple[float, float, float]) -> None:
    picture = birds_eye(one(position), CAMERA)
    assert not coloured(picture)
    assert picture[:16, -90:].max() > 200


@pytest.mark.parametrize("options", [{"size": (0, 480)}, {"reach": 0.0}, {"reach": np.nan}], ids=str)
def test_nothing_to_draw_on_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected at least 32 pixels"):
        birds_eye(one((0, 0, 4)), CAMERA, **options)
