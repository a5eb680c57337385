# SPDX-License-Identifier: Apache-2.0
"""Views, colours, the ways of stills, the draws of frames, and the settings that steer them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from instance_flow_training.augment import (
    STILL_FRAMES,
    change_colour,
    draw_colour,
    draw_motion,
    draw_view,
    warp_image,
    warp_labels,
)
from instance_flow_training.datasets import BEFORE_OR_AFTER, REFERENCE_FRAMES, DataConfig, draw_frames

SIZE = (120, 160)


@pytest.mark.parametrize("seed", range(20))
def test_a_view_is_the_plain_crop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    labels = rng.integers(0, 9, SIZE, dtype=np.uint8)
    view = draw_view(rng, SIZE, (64, 96), [1.0], flip=True)
    (x, y, _), mirrored = np.linalg.inv(view).astype(int) @ [0, 0, 1], view[0, 0] < 0
    columns = slice(x, x - 96 if x >= 96 else None, -1) if mirrored else slice(x, x + 96)
    np.testing.assert_array_equal(warp_image(image, view, (64, 96)), image[y : y + 64, columns])
    np.testing.assert_array_equal(warp_labels(labels, view, (64, 96)), labels[y : y + 64, columns])


def test_a_view_at_half_the_size_is_the_mean_of_four_pixels() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    view = draw_view(rng, SIZE, (60, 80), [0.5], flip=False)
    means = image.reshape(60, 2, 80, 2, 3).mean((1, 3))
    np.testing.assert_allclose(warp_image(image, view, (60, 80)), means, atol=1)


@pytest.mark.parametrize("point", [(0, 0), (119, 159), (60, 20)], ids=str)
@pytest.mark.parametrize("crop", [(64, 64), (256, 256), (64, 256)], ids=str)
def test_a_point_to_show_lies_in_the_view(point: tuple[int, int], crop: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        x, y, _ = draw_view(rng, SIZE, crop, (0.5, 1.0, 1.7), True, show=point) @ [point[1], point[0], 1]
        assert -0.5 <= y <= crop[0] - 0.5
        assert -0.5 <= x <= crop[1] - 0.5


def test_views_reach_every_side_and_both_mirrorings() -> None:
    rng = np.random.default_rng(1)
    views = [draw_view(rng, SIZE, (96, 96), (0.5, 1.0), True) for _ in range(300)]
    assert {round(abs(view[0, 0]), 2) for view in views} == {0.5, 1.0}
    assert 0.4 < np.mean([view[0, 0] < 0 for view in views]) < 0.6
    tops = [view[1, 2] for view in views if view[1, 1] == 1.0]
    assert (min(tops), max(tops)) == (-24, 0)
    assert not any(draw_view(rng, SIZE, (96, 96), (1.0,), False)[0, 0] < 0 for _ in range(20))


def test_the_way_of_a_still_is_smooth() -> None:
    corners = np.array([[0, 0, 1], [639, 0, 1], [0, 479, 1], [639, 479, 1]], float).T
    for seed in range(50):
        motion = draw_motion(np.random.default_rng(seed), (480, 640))
        assert motion.shape == (STILL_FRAMES, 3, 3)
        moved = motion @ corners
        points = moved[:, :2] / moved[:, 2:]
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        assert (moved[:, 2] > 0.5).all()
        assert steps.max() < 0.15 * 640
        assert np.abs(np.diff(points, 2, axis=0)).max() < 0.05 * 640


def coloured(pixel: tuple[int, int, int], strength: float) -> list[list[int]]:
    image = np.full((2, 2, 3), pixel, np.uint8)
    return [change_colour(image, draw_colour(np.random.default_rng(k), strength))[1, 1].tolist() for k in range(20)]


def test_colour_of_no_strength_changes_nothing() -> None:
    assert coloured((200, 40, 90), 0.0) == [[200, 40, 90]] * 20


def test_colour_keeps_grey_grey_and_changes_all_else() -> None:
    greys, reds = np.array(coloured((90, 90, 90), 0.5)), np.array(coloured((150, 90, 70), 0.2))
    assert np.ptp(greys, axis=1).max() <= 1
    assert greys[:, 0].min() < 70 < 110 < greys[:, 0].max()
    assert len(np.unique(reds, axis=0)) > 15
    assert (reds.argmax(1) == 0).all()  # red stays the strongest


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 30])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("mode", REFERENCE_FRAMES)
def test_draws_of_frames(length: int, count: int, mode: str) -> None:
    rng = np.random.default_rng(length + count)
    for _ in range(100):
        frames = draw_frames(rng, length, count, mode)
        assert len(frames) == count
        assert frames == sorted(frames) or mode == BEFORE_OR_AFTER
        assert 0 <= min(frames) <= max(frames) < length
        assert len(set(frames)) == min(count, length)


def test_references_near_and_anywhere() -> None:
    rng = np.random.default_rng(0)
    mixed = np.array([draw_frames(rng, 30, 3, "mixed") for _ in range(600)])
    anywhere = np.array([draw_frames(rng, 30, 3, "anywhere") for _ in range(600)])
    assert set(np.diff(mixed)[:, 1]) == {1, 2, 3}
    assert np.diff(mixed)[:, 0].max() > 20
    assert np.diff(anywhere)[:, 1].max() > 20
    assert set(anywhere.ravel()) == set(range(30))
    uniform = np.array([np.sort(rng.choice(30, 3, replace=False)) for _ in range(600)])
    np.testing.assert_allclose(anywhere.mean(0), uniform.mean(0), atol=1.0)


@pytest.mark.parametrize(("length", "count"), [(30, 2), (30, 3), (2, 2), (2, 3)])
def test_the_papers_references_are_later_frames_as_often_as_earlier_ones(length: int, count: int) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_frames(rng, length, count, BEFORE_OR_AFTER) for _ in range(2000)])
    gaps = drawn[:, -1] - drawn[:, 0]
    assert abs(np.mean(gaps > 0) - np.mean(gaps < 0)) < 0.08
    assert set(drawn.ravel()) == set(range(length))
    # The clip shows its frames in this order: the reference of the last one is drawn like it.
    assert np.ptp(drawn.mean(0)) < 1.0


def test_worlds_draw_what_they_always_drew() -> None:
    drawn = [draw_frames(np.random.default_rng([1_000_000, i]), 30, 3) for i in range(6)]
    assert drawn == WORLD_DRAWS


WORLD_DRAWS = [[14, 19, 21], [0, 1, 3], [0, 1, 3], [0, 8, 10], [1, 23, 24], [0, 4, 6]]


BAD_SETTINGS = {
    "source": ({"source": "davis"}, "data.source is 'davis'; it must be one of worlds, youtube_vis, coco"),
    "reference_frames": ({"reference_frames": "near"}, "one of mixed, anywhere"),
    "cutouts": ({"cutouts": 1.5}, "data.cutouts is 1.5; it must be a number from 0 to 1"),
    "balance": ({"balance": -0.1}, "data.balance is -0.1; it must be a number from 0 to 1"),
    "crop": ({"crop": (640, 630)}, "data.crop is [640, 630]; it must be [height, width], multiples of 32"),
    "crop of three": ({"crop": (64, 64, 64)}, "data.crop"),
    "no scales": ({"scales": ()}, "data.scales is []"),
    "a scale of nothing": ({"scales": (1.0, 0.0)}, "numbers above 0"),
    "colour": ({"colour": 2.0}, "data.colour is 2.0"),
    "frames": ({"frames_per_clip": 0}, "data.frames_per_clip is 0"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="data") as caught:
        DataConfig(**fields)
    assert message in str(caught.value)
