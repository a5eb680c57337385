# SPDX-License-Identifier: Apache-2.0
"""Tracks as an object: what a loop, an id, a filter, a picture and other tools get of a frame."""

from __future__ import annotations

import math
import re
import sys
from base64 import b64decode
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from red_thing import frames

from instance_flow import Pipeline, Tracks
from instance_flow.pictures.draw import overlay
from instance_flow.structures import NEW, NUMBERS

NAMES = {0: "person", 1: "car", 2: "<b>"}


def three() -> Tracks:
    """A person, a car and another person; the last one is new."""
    label_map = np.zeros((40, 60), np.int32)
    label_map[5:15, 10:40] = 3
    label_map[20:30, 0:8] = 5
    label_map[30:32, 50:60] = 9
    return Tracks(
        frame_index=12,
        label_map=label_map,
        ids=np.array([3, 5, 9]),
        class_ids=np.array([0, 1, 0]),
        scores=np.array([0.9, 0.3, 0.25], np.float32),
        semantic_scores=np.array([0.95, 0.5, 0.5], np.float32),
        center_scores=np.array([0.95, 0.6, 0.5], np.float32),
        centers=np.array([(9.5, 24.5), (24.5, 3.5), (30.5, 54.5)], np.float32),
        boxes=np.array([(10, 5, 30, 10), (0, 20, 8, 10), (50, 30, 10, 2)], np.float32),
        areas=np.array([300, 80, 20]),
        velocities=np.array([(-4, 30), (1, 2), (np.nan, np.nan)], np.float32),
        states=np.array([1, 2, 0]),
        ages=np.array([4, 11, 0]),
        age_seconds=np.array([0.4, 1.1, np.nan]),
        reference_frames=np.array([11, 8, NEW]),
        distances=np.array([1.5, 2.5, np.nan], np.float32),
        names=NAMES,
    )


def nobody() -> Tracks:
    tracks = three().filter(min_score=1.0)
    assert not len(tracks)
    return tracks


def test_a_track_has_x_before_y_and_python_numbers() -> None:
    tracks = three()
    assert [track.id for track in tracks] == [3, 5, 9]
    track = tracks[3]
    assert (track.box, track.center, track.velocity) == ((10, 5, 40, 15), (24.5, 9.5), (30, -4))
    assert (track.class_id, track.class_name, track.state, track.age, track.area) == (0, "person", "tracked", 4, 300)
    assert (track.reference_frame, track.distance, round(track.score, 2)) == (11, 1.5, 0.9)
    assert tracks.class_names == ["person", "car", "person"]
    new = tracks[np.int64(9)]
    assert (new.state, new.reference_frame) == ("new", NEW)
    assert all(map(math.isnan, (*new.velocity, new.distance, new.age_seconds)))
    assert {type(value) for track in tracks for value in track.numbers().values()} == {int, float, str}
    assert replace(tracks, names={})[5].class_name == "class 1"


def test_a_mask_is_that_of_the_id() -> None:
    tracks = three()
    assert tracks.mask(5).dtype == np.bool_
    np.testing.assert_array_equal(tracks.mask(5), tracks.label_map == 5)
    assert [int(track.mask.sum()) for track in tracks] == tracks.areas.tolist()


@pytest.mark.parametrize("key", [0, -1, 4, 2.5, "3", None], ids=repr)
def test_an_id_that_is_not_there(key: Any) -> None:
    assert key not in three()
    for look in (three().__getitem__, three().mask):
        with pytest.raises(KeyError, match=re.escape(f"frame 12 has no track with the id {key!r}") + ".*3, 5, 9"):
            look(key)
    with pytest.raises(KeyError, match="the ids are none"):
        nobody()[key]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, [3, 5, 9]),
        ({"classes": "person"}, [3, 9]),
        ({"classes": ["car", "<b>"]}, [5]),
        ({"classes": 1}, [5]),
        ({"classes": np.array([0, 1])}, [3, 5, 9]),
        ({"classes": []}, []),
        ({"min_score": 0.3}, [3, 5]),
        ({"min_score": 0.30001}, [3]),
        ({"classes": "person", "min_score": 0.5}, [3]),
        ({"min_score": 1}, []),
    ],
    ids=str,
)
def test_a_filter_leaves_rows_and_pixels_of_the_same_tracks(wanted: dict[str, Any], ids: list[int]) -> None:
    tracks = three()
    left = tracks.filter(**wanted)
    assert left.ids.tolist() == ids
    assert left.label_map.dtype == np.int32
    np.testing.assert_array_equal(left.label_map, np.where(np.isin(tracks.label_map, ids), tracks.label_map, 0))
    for track in left:
        assert repr(track.numbers()) == repr(tracks[track.id].numbers())
    assert len(tracks) == 3, "the tracks themselves stay"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"classes": "zebra"}, "there is no class 'zebra'; the classes are 0 'person', 1 'car', 2 '<b>'"),
        ({"classes": [0, 7]}, "there is no class 7"),
        ({"min_score": 3}, "min_score is 3, but scores lie between 0 and 1"),
        ({"min_score": math.nan}, "min_score is nan"),
    ],
    ids=str,
)
def test_a_filter_for_what_cannot_be(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        three().filter(**wanted)


def test_without_names_a_filter_takes_numbers_only() -> None:
    tracks = replace(three(), names={})
    assert tracks.filter(classes=[1]).ids.tolist() == [5]
    with pytest.raises(ValueError, match="names are not known here, so give class_ids"):
        tracks.filter(classes="person")


def test_a_repr_says_what_is_there_in_one_line() -> None:
    assert repr(three()) == "<Tracks of frame 12, 60 x 40: 3 tracks: 3 'person' 0.90, 5 'car' 0.30, 9 'person' 0.25>"
    assert repr(nobody()) == "<Tracks of frame 12, 60 x 40: 0 tracks>"
    assert repr(three()[3]) == "<Track 3 'person' 0.90, box 10, 5, 40, 15, 30 px/s, tracked>"
    assert "px/s" not in repr(three()[9])
    row = np.zeros(500, np.int64)
    crowd = replace(three(), ids=row + np.arange(1, 501), class_ids=row, scores=row.astype(np.float32))
    assert repr(crowd).endswith("10 'person' 0.00, 490 more>")


def test_a_drawing_has_the_names_of_the_model() -> None:
    tracks, image = three(), np.full((40, 60, 3), 96, np.uint8)
    np.testing.assert_array_equal(tracks.draw(image), overlay(image, tracks, ("person", "car", "<b>")))
    np.testing.assert_array_equal(tracks.draw(), tracks.draw(image))
    assert not np.array_equal(tracks.draw(), replace(tracks, names={}).draw())
    assert (image == 96).all()
    others: tuple[Any, ...] = (image[:, :50], image[..., 0], image.astype(np.float32))
    for other in others:
        with pytest.raises(ValueError, match="image is"):
            tracks.draw(other)


def test_a_notebook_shows_masks_and_a_table() -> None:
    label_map = np.repeat(np.repeat(three().label_map, 20, 0), 20, 1)
    tracks = replace(three(), label_map=label_map, class_ids=np.array([0, 2, 0]))
    page = tracks._repr_html_()
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    picture = cv2.imdecode(np.frombuffer(b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (320, 480, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    assert page.count("<tr>") == 4
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert nobody()._repr_html_().count("<tr>") == 1


def test_supervision_gets_the_same_objects() -> None:
    supervision = pytest.importorskip("supervision")
    tracks = three()
    found = tracks.to_supervision()
    np.testing.assert_array_equal(found.xyxy, [track.box for track in tracks])
    np.testing.assert_array_equal(found.mask, [track.mask for track in tracks])
    assert (found.tracker_id.tolist(), found.class_id.tolist()) == ([3, 5, 9], [0, 1, 0])
    assert found["class_name"].tolist() == tracks.class_names
    assert found[found.confidence > 0.5].tracker_id.tolist() == [3]
    zone = supervision.PolygonZone(np.array([(0, 0), (60, 0), (60, 20), (0, 20)]))
    assert zone.trigger(found).tolist() == [True, False, False]
    empty = nobody().to_supervision()
    assert (len(empty), empty.xyxy.shape, empty.mask.shape) == (0, (0, 4), (0, 40, 60))


def test_pandas_gets_a_row_for_each_object() -> None:
    pytest.importorskip("pandas")
    table = three().to_pandas()
    assert table.columns.tolist() == list(NUMBERS)
    assert table[["id", "x0", "y0", "x1", "y1", "velocity_x"]].iloc[1].tolist() == [5, 0, 20, 8, 30, 2]
    assert table.loc[table.class_name == "person", "score"].max() == pytest.approx(0.9)
    assert nobody().to_pandas().columns.tolist() == list(NUMBERS)


@pytest.mark.parametrize("name", ["supervision", "pandas"])
def test_a_library_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"^{name} is not installed; install it with `pip install {name}`$"):
        getattr(three(), f"to_{name}")()


def test_the_pipeline_names_its_tracks(model: Any) -> None:
    pipeline = Pipeline.load(model, "cpu")
    found = [pipeline.step(image, number * 10**8) for number, image in enumerate(frames(3))]
    assert [tracks.class_names for tracks in found] == [["red"]] * 3
    (track,) = found[-1]
    assert track.box == (32, 32, 56, 56)
    x, y = track.velocity
    assert (x, y) == pytest.approx((80, 0), abs=1), "to the right"
    assert track.mask[33, 34]
