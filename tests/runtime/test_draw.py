# SPDX-License-Identifier: Apache-2.0
"""What is drawn where: masks, contours, arrows, labels, sheets; and colours that can be told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from label_map_tracks import label_map_tracks
from numpy.typing import NDArray

from instance_flow.pictures.draw import colours, contact_sheet, overlay
from instance_flow.structures import Image, Tracks

NAMES = ("ball", "box")


def tracks_of(label_map: NDArray[np.int32], velocity: tuple[float, float] = (np.nan, np.nan)) -> Tracks:
    """Tracks of a label map that are not new, all with one velocity (dy, dx)."""
    tracks = label_map_tracks(label_map)
    count = len(tracks)
    return replace(
        tracks,
        class_ids=tracks.ids % 2,
        scores=np.full(count, 0.75, np.float32),
        velocities=np.full((count, 2), velocity, np.float32),
        states=np.ones(count, np.int64),
    )


def square(track_id: int = 3, size: int = 96, low: int = 32, high: int = 64) -> NDArray[np.int32]:
    label_map = np.zeros((size, size), np.int32)
    label_map[low:high, low:high] = track_id
    return label_map


def gray(label_map: NDArray[np.int32]) -> Image:
    return np.full((*label_map.shape, 3), 128, np.uint8)


def test_a_mask_is_tinted_in_the_colour_of_its_id_and_the_rest_left_alone() -> None:
    label_map = square()
    image = gray(label_map)
    drawn = overlay(image, tracks_of(label_map), NAMES, labels=False)
    inside = drawn[40:56, 40:56].reshape(-1, 3)
    np.testing.assert_allclose(inside, np.broadcast_to(0.55 * 128 + 0.45 * colours([3])[0], inside.shape), atol=1)
    far = np.ones(label_map.shape, bool)
    far[28:68, 28:68] = False
    assert (drawn[far] == 128).all()
    assert (image == 128).all(), "the image that was given stays as it was"


def test_the_contour_is_crisp() -> None:
    label_map = square()
    drawn = overlay(gray(label_map), tracks_of(label_map), NAMES, labels=False)
    np.testing.assert_allclose(drawn[32, 36:60], np.broadcast_to(colours([3])[0], (24, 3)), atol=25)


def test_a_hole_keeps_the_picture() -> None:
    label_map = square(low=16, high=80)
    label_map[36:60, 36:60] = 0
    drawn = overlay(gray(label_map), tracks_of(label_map), NAMES, labels=False)
    assert (drawn[40:56, 40:56] == 128).all()


def test_objects_that_touch_keep_their_own_colours() -> None:
    label_map = square(1)
    label_map[32:64, 48:64] = 2
    drawn = overlay(gray(label_map), tracks_of(label_map), NAMES, labels=False)
    for column, track_id in ((38, 1), (58, 2)):
        np.testing.assert_allclose(drawn[48, column], 0.55 * 128 + 0.45 * colours([track_id])[0], atol=1)


def test_a_label_stands_over_the_box_and_within_the_image() -> None:
    label_map = square()
    tracks = tracks_of(label_map)
    plain = overlay(gray(label_map), tracks, NAMES, labels=False)
    labelled = overlay(gray(label_map), tracks, NAMES)
    rows = np.flatnonzero((plain != labelled).any(axis=(1, 2)))
    assert rows.min() >= 32 - 20
    assert rows.max() < 32
    below = square(low=0, high=20)
    assert (
        overlay(gray(below), tracks_of(below), NAMES) != overlay(gray(below), tracks_of(below), NAMES, labels=False)
    ).any()


def test_labels_of_objects_in_one_place_do_not_cover_each_other() -> None:
    label_map = np.zeros((200, 200), np.int32)
    label_map[100:140, 40:80] = 1
    label_map[102:138, 44:76] = 2
    drawn = overlay(gray(label_map), tracks_of(label_map), NAMES)
    for track_id in (1, 2):
        flat = (drawn == colours([track_id])[0]).all(axis=-1)
        assert flat.sum() > 150, "the ground of the label can be seen"


@pytest.mark.parametrize("class_names", [(), ("ball", "a name with an ümlaut")], ids=["no names", "not ASCII"])
def test_any_names_will_do(class_names: tuple[str, ...]) -> None:
    label_map = square()
    assert overlay(gray(label_map), tracks_of(label_map), class_names).shape == (96, 96, 3)


@pytest.mark.parametrize(
    ("velocity", "seconds", "arrow"),
    [
        ((0.0, 60.0), 0.5, (48, 74)),
        ((-60.0, 0.0), 0.5, (22, 48)),
        ((0.0, 60.0), 0.0, None),
        ((0.0, 2.0), 0.5, None),
        ((np.nan, np.nan), 0.5, None),
        ((1e30, 1e30), 0.5, (66, 66)),
    ],
    ids=["right", "up", "turned off", "hardly any", "unknown", "absurd"],
)
def test_arrows(velocity: tuple[float, float], seconds: float, arrow: tuple[int, int] | None) -> None:
    label_map = square()
    plain = overlay(gray(label_map), tracks_of(label_map), NAMES, labels=False, arrow_seconds=0)
    drawn = overlay(gray(label_map), tracks_of(label_map, velocity), NAMES, labels=False, arrow_seconds=seconds)
    if arrow is None:
        np.testing.assert_array_equal(drawn, plain)
    else:
        assert (drawn[arrow] > 220).all()


def test_an_arrow_fades_as_its_velocity_is_less_certain_and_what_is_new_has_none() -> None:
    label_map, strength = square(), []
    plain = overlay(gray(label_map), tracks_of(label_map), NAMES, labels=False).astype(int)
    certain = tracks_of(label_map, (0.0, 60.0))
    for deviation in (0.0, 10.0, 30.0, 60.0, 1000.0):
        covariances = np.full((1, 2, 2), np.eye(2) * deviation**2, np.float32)
        drawn = overlay(gray(label_map), replace(certain, velocity_covariances=covariances), NAMES, labels=False)
        strength.append(int(np.abs(drawn.astype(int) - plain).sum()))
    assert strength == sorted(strength, reverse=True)
    assert strength[0] > 1.9 * strength[2] > strength[3] > strength[4] == 0
    new = replace(certain, states=np.zeros(1, np.int64))
    np.testing.assert_array_equal(overlay(gray(label_map), new, NAMES, labels=False), plain)


@pytest.mark.parametrize("shape", [(1, 1), (2, 700), (8, 8), (300, 3)], ids=str)
def test_tiny_and_narrow_images(shape: tuple[int, int]) -> None:
    label_map = np.ones(shape, np.int32)
    assert overlay(gray(label_map), tracks_of(label_map, (5.0, 5.0)), NAMES).shape == (*shape, 3)


def test_no_tracks() -> None:
    label_map = np.zeros((8, 8), np.int32)
    np.testing.assert_array_equal(overlay(gray(label_map), tracks_of(label_map), NAMES), gray(label_map))


def test_an_image_of_another_size_is_refused() -> None:
    label_map = square()
    with pytest.raises(ValueError, match=r"image is \(90, 96\) but the label map \(96, 96\)"):
        overlay(gray(label_map)[6:], tracks_of(label_map), NAMES)


def test_colours_are_stable_and_neighbours_differ() -> None:
    many = colours(np.arange(1, 2001))
    assert many.shape == (2000, 3)
    assert many.dtype == np.uint8
    np.testing.assert_array_equal(colours([7, 1999]), many[[6, 1998]])
    for apart in range(1, 13):
        distance = np.abs(many[apart:].astype(int) - many[:-apart]).sum(axis=1)
        assert distance.min() > 60, f"ids that are {apart} apart look alike"
    assert colours([]).shape == (0, 3)


@pytest.mark.parametrize(("count", "columns", "rows", "across"), [(1, 4, 1, 1), (4, 4, 1, 4), (7, 3, 3, 3)])
def test_contact_sheet(count: int, columns: int, rows: int, across: int) -> None:
    frames = [np.full((40, 80, 3), 10 * number + 40, np.uint8) for number in range(count)]
    sheet = contact_sheet(frames, columns=columns, width=40)
    assert sheet.shape == (rows * 24 + 4, across * 44 + 4, 3)
    for number in range(count):
        row, column = divmod(number, across)
        assert (sheet[24 * row + 4 : 24 * row + 24, 44 * column + 4 : 44 * column + 44] == 10 * number + 40).all()


def test_captions() -> None:
    frame = np.full((120, 200, 3), 200, np.uint8)
    sheet = contact_sheet([frame, frame], ["0", "frame 1"], width=200)
    assert (sheet[:40, :100] < 60).sum() > 0
    with pytest.raises(ValueError, match="1 captions for 2 frames"):
        contact_sheet([frame, frame], ["0"])
    with pytest.raises(ValueError, match="at least one frame"):
        contact_sheet([])
