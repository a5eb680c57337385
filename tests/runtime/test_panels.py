# SPDX-License-Identifier: Apache-2.0
"""Panels: each tile at its place, showing its own map and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.assembly.preprocess import fit
from instance_flow.pictures.draw import class_colours, colours
from instance_flow.pictures.flow_colours import NOTHING, flow_colours
from instance_flow.pictures.panels import Panels, nice, tile_size
from instance_flow.pictures.tile_page import GAP, GROUND, HEADING, TITLE, Tile, tile_page
from instance_flow.pictures.tiles import heat_colours, heat_tile, identities_tile, offset_tile, semantic_tile
from instance_flow.pipeline import Observation
from instance_flow.structures import NEW, Image, Instances, ModelInfo, Prediction, Tracks
from instance_flow.tracking.memory import Reference

HEIGHT, WIDTH, STRIDE = 288, 480, 4
"""Such that tiles are as large as the picture."""
INFO = ModelInfo(name="test model", class_names=("ball", "box"), input_size=(HEIGHT, WIDTH))
LEFT, RIGHT = (slice(24, 48), slice(12, 36)), (slice(24, 48), slice(72, 108))
"""Cells of two objects."""


def floats(values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def observation(references: int = 4, objects: int = 2) -> Observation:
    """The frame after ``references`` frames: objects 1 (class 0, left) and 2 (class 1, right), constant vectors."""
    h, w = HEIGHT // STRIDE, WIDTH // STRIDE
    parts = (LEFT, RIGHT)[:objects]
    semantic = np.full((3, h, w), 0.05, np.float32)
    semantic[0] = 0.9
    labels = np.zeros((h, w), np.int32)
    heat, offset = np.full((h, w), 0.3, np.float32), np.zeros((2, h, w), np.float32)
    for k, part in enumerate(parts):
        semantic[0][part], semantic[k + 1][part] = 0.1, 0.85
        labels[part] = k + 1
        heat[part] = 0.6 + 0.2 * k
        offset[(slice(None), *part)] = np.array([(0, 3), (-2, 0)][k], np.float32)[:, None, None]
    reference_offset = np.stack([offset * (r + 1) for r in range(references)]) if references else np.empty((0, 2, h, w))
    centers = np.array([(36, 24), (36, 90)], np.float32)[:objects]
    flows = np.zeros((references, objects, 2), np.float32)
    flows[:, :, 1] = 2.0
    ids = np.arange(1, objects + 1)
    ones = np.ones((objects, 2), np.float32)
    flow_std, appearance = np.zeros((references, objects), np.float32), np.zeros((objects, 512), np.float32)
    instances = Instances(labels, centers, np.full(objects, 0.6, np.float32), ones, flows, flow_std, appearance)
    label_map = labels.repeat(STRIDE, 0).repeat(STRIDE, 1)
    tracks = tracks_of(label_map, ids, references)
    maps = Prediction(semantic, heat, offset, reference_offset.astype(np.float32), None)
    past = [Reference(frame, None, None, centers, ids) for frame in range(references)]
    return Observation(fit(picture(), (HEIGHT, WIDTH)), maps, instances, past, ids, tracks)


def picture(shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Image:
    return np.full((*shape, 3), 140, np.uint8)


def tracks_of(label_map: NDArray[np.int32], ids: NDArray[np.int64], frame: int) -> Tracks:
    count = len(ids)
    boxes = [(x.start * STRIDE, y.start * STRIDE, 96, 96) for y, x in (LEFT, RIGHT)][:count]
    return Tracks(
        frame_index=frame,
        label_map=label_map,
        ids=ids,
        class_ids=ids - 1,
        scores=np.full(count, 0.5, np.float32),
        semantic_scores=np.full(count, 0.8, np.float32),
        center_scores=np.full(count, 0.6, np.float32),
        centers=np.array([(145, 97), (145, 361)], np.float32)[:count].reshape(-1, 2),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        areas=np.full(count, 9216, np.int64),
        velocities=np.full((count, 2), np.nan, np.float32),
        states=np.ones(count, np.int64),
        ages=np.full(count, frame, np.int64),
        age_seconds=np.full(count, frame / 10),
        reference_frames=np.full(count, frame - 1 if frame else NEW, np.int64),
        distances=np.full(count, 1.0, np.float32),
    )


def tile_at(page: Image, row: int, column: int) -> Image:
    """The tile of a page whose tiles are as large as the picture."""
    top, left = HEADING + row * (TITLE + HEIGHT + GAP) + TITLE, GAP + column * (WIDTH + GAP)
    return page[top : top + HEIGHT, left : left + WIDTH]


ON_LEFT, ON_RIGHT, OUTSIDE = (110, 60), (110, 400), (40, 250)
"""Pixels of a tile within the objects, clear of rings, numbers and arrows, and on the background."""


def test_each_map_has_its_tile() -> None:
    seen = observation()
    page = Panels(INFO, 4).draw(picture(), seen)

    assert tile_at(page, 0, 0)[OUTSIDE].tolist() == [140, 140, 140]
    identities, semantic, heat = tile_at(page, 0, 1), tile_at(page, 0, 3), tile_at(page, 1, 0)
    np.testing.assert_array_equal([identities[ON_LEFT], identities[ON_RIGHT]], colours([1, 2]))
    np.testing.assert_array_equal([semantic[ON_LEFT], semantic[ON_RIGHT]], class_colours([0, 1]))
    np.testing.assert_array_equal(heat[ON_LEFT], heat_colours(floats([[0.6]]))[0, 0])
    np.testing.assert_array_equal(heat[ON_RIGHT], heat_colours(floats([[0.8]]))[0, 0])
    for tile in (identities, semantic):
        assert tile[OUTSIDE].tolist() == list(NOTHING)
    assert heat[OUTSIDE].max() < 10, "heat on the background means nothing"


def test_offsets_are_shown_in_pixels_newest_reference_first() -> None:
    """The rim of the wheels is the next round number: 12 pixels give 15, and 4 times that (newest) 50."""
    seen = observation()
    page = Panels(INFO, 4).draw(picture(), seen)
    for place, factor, rim in (((1, 1), 1, 15), ((2, 0), 4, 50), ((2, 1), 3, 50), ((2, 2), 2, 50), ((2, 3), 1, 50)):
        tile = tile_at(page, *place)
        for pixel, vector in ((ON_LEFT, (0, 12)), (ON_RIGHT, (-8, 0))):
            expected = flow_colours(floats(vector).reshape(2, 1, 1) * factor, rim)[0, 0]
            np.testing.assert_array_equal(tile[pixel], expected)
        assert tile[OUTSIDE].tolist() == list(NOTHING)


def test_unmasked_offsets_are_shown_everywhere() -> None:
    page = Panels(INFO, 4, masked=False).draw(picture(), observation())
    assert tile_at(page, 1, 1)[OUTSIDE].tolist() == [255, 255, 255], "no offset at all is white"
    np.testing.assert_array_equal(tile_at(page, 1, 0)[OUTSIDE], heat_colours(floats([[0.3]]))[0, 0])


def test_flow_arrows_lead_to_where_the_object_was() -> None:
    """2 cells to the right are 8 pixels: an arrow from column 98 (cell 24) to 106 in the newest reference."""
    seen = observation()
    tile = tile_at(Panels(INFO, 4).draw(picture(), seen), 0, 2)
    assert (tile[145:147, 98:104] > 200).all(), "the arrow's shaft is white"
    assert tile[OUTSIDE].tolist() == [58, 58, 58], "the picture, dark and grey"
    for pixel, track_id in ((ON_LEFT, 1), (ON_RIGHT, 2)):
        tint = flow_colours(floats([[[0]], [[8]]]), 8)[0, 0]
        np.testing.assert_allclose(tile[pixel], 0.5 * 58 + 0.5 * tint, atol=1, err_msg=f"object {track_id}")


@pytest.mark.parametrize("references", [0, 1, 3])
def test_places_of_references_that_are_not_there_yet_stay_empty(references: int) -> None:
    page = Panels(INFO, 4).draw(picture(), observation(references))
    assert page.shape == Panels(INFO, 4).draw(picture(), observation()).shape
    for column in range(4):
        drawn = (tile_at(page, 2, column)[ON_LEFT] != NOTHING).any()
        assert drawn == (column < references)


@pytest.mark.parametrize(("wild", "rim"), [(1, 15), (3, 150)], ids=["one wild frame", "most frames"])
def test_wheels_follow_what_most_frames_show(wild: int, rim: float) -> None:
    panels, usual = Panels(INFO, 4), observation()
    long = replace(usual, prediction=replace(usual.prediction, offset=usual.prediction.offset * 10))
    for seen in [long] * wild + [usual]:
        panels.draw(picture(), seen)
    tile = tile_at(panels.draw(picture(), usual), 1, 1)
    np.testing.assert_array_equal(tile[ON_LEFT], flow_colours(floats([[[0]], [[12]]]), rim)[0, 0])


@pytest.mark.parametrize("objects", [0, 1])
def test_few_objects(objects: int) -> None:
    page = Panels(INFO, 4).draw(picture(), observation(4, objects))
    assert (tile_at(page, 0, 1)[ON_RIGHT] == NOTHING).all()
    assert (tile_at(page, 0, 1)[ON_LEFT] != NOTHING).any() == bool(objects)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((288, 480), (288, 480)), ((1080, 1920), (270, 480)), ((1280, 720), (360, 202)), ((96, 128), (360, 480))],
    ids=["as it is", "large", "upright", "small"],
)
def test_tile_size(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert tile_size(*shape) == expected


@pytest.mark.parametrize("shape", [(2000, 3), (3, 2000), (1, 1)], ids=str)
def test_absurd_shapes_have_panels_too(shape: tuple[int, int]) -> None:
    seen = observation()
    tracks = replace(seen.tracks, label_map=np.zeros(shape, np.int32))
    fitted = fit(picture(shape), (HEIGHT, WIDTH))
    page = Panels(INFO, 4).draw(picture(shape), replace(seen, tracks=tracks, fitted=fitted))
    assert page.shape[0] % 2 == page.shape[1] % 2 == 0
    assert page.shape[1] > 1600


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, 1e-6), (1.0, 1.0), (1.01, 1.5), (9.0, 10.0), (61.0, 80.0), (100.0, 100.0), (0.021, 0.03)],
)
def test_round_numbers(value: float, expected: float) -> None:
    assert nice(value) == pytest.approx(expected)


def test_many_classes_are_counted_where_there_is_no_place() -> None:
    names = tuple(f"a class with a long name {k}" for k in range(60))
    info, seen = replace(INFO, class_names=names), observation(4, 2)
    panels, few = Panels(info, 4), Panels(INFO, 4)
    panels._classes = set(range(60))
    assert panels.draw(picture(), seen).shape == few.draw(picture(), seen).shape


def test_a_page_of_tiles() -> None:
    tiles = [Tile("title", "note", np.full((40, 500, 3), 60 * k, np.uint8)) for k in (1, 2, 3)]
    page = tile_page([tiles[:2], tiles[2:]], ("left", "right"))
    assert page.shape == (HEADING + 2 * (TITLE + 40 + GAP) + GAP // 2, 2 * 500 + 3 * GAP, 3)
    for k, (row, column) in enumerate(((0, 0), (0, 1), (1, 0))):
        top, left = HEADING + TITLE + row * (40 + TITLE + GAP), GAP + column * (500 + GAP)
        assert (page[top : top + 40, left : left + 500] == 60 * (k + 1)).all()
        assert (page[top - TITLE : top, left : left + 60] > 200).any(), "a title stands over the tile"
        assert page[top, left - 1].tolist() == list(GROUND)


def test_between_cells_lies_the_edge_of_a_mask() -> None:
    semantic = np.full((2, 4, 4), 0.1, np.float32)
    semantic[0, :, :2] = semantic[1, :, 2:] = 0.9
    tile = semantic_tile(semantic, (16, 16))
    assert (tile[:, :8] == NOTHING).all()
    assert (tile[:, 8:] == class_colours([0])).all()


def test_a_ring_stands_around_each_center() -> None:
    tile = heat_tile(np.zeros((20, 20), np.float32), (80, 80), floats([(5, 14)]))
    rows, columns = np.nonzero((tile > 100).any(-1))
    assert (rows.mean(), columns.mean()) == pytest.approx(((5 + 0.5) * 4 - 0.5, (14 + 0.5) * 4 - 0.5), abs=0.6)
    assert tile[22, 58].max() < 10, "the ring is open"


def test_a_track_too_small_for_the_tile_keeps_its_number() -> None:
    label_map = np.zeros((400, 400), np.int32)
    label_map[1, 1] = 1
    tracks = replace(tracks_of(label_map, np.array([1]), 3), centers=floats([(1, 1)]))
    assert (identities_tile(tracks, (40, 40)) == 255).any()


def test_offsets_that_are_unknown_are_not_shown() -> None:
    tile = offset_tile(np.full((2, 3, 3), np.nan, np.float32), 1.0, (9, 9))
    assert (tile == NOTHING).all()
