# SPDX-License-Identifier: Apache-2.0
"""Reading and writing the YouTube-VIS format, and tracks to results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from instance_flow import rle, ytvis
from instance_flow.evaluation import evaluate
from instance_flow.structures import NEW, Tracks

LEFT, RIGHT = np.zeros((6, 8), np.int32), np.zeros((6, 8), np.int32)
LEFT[1:4, :3] = 1
RIGHT[2:, 5:] = 1


def tracks_of(frame_index: int, label_map: np.ndarray, class_ids: list[int], scores: list[float]) -> Tracks:
    ids = np.unique(label_map[label_map > 0]).astype(np.int64)
    count = len(ids)
    nothing = np.full(count, np.nan, np.float32)
    return Tracks(
        frame_index=frame_index,
        label_map=label_map,
        ids=ids,
        class_ids=np.array(class_ids, np.int64),
        scores=np.array(scores, np.float32),
        semantic_scores=nothing,
        center_scores=nothing,
        centers=np.zeros((count, 2), np.float32),
        boxes=np.zeros((count, 4), np.float32),
        areas=np.array([(label_map == track_id).sum() for track_id in ids], np.int64),
        velocities=np.zeros((count, 2), np.float32),
        states=np.zeros(count, np.int64),
        ages=np.zeros(count, np.int64),
        age_seconds=np.zeros(count),
        reference_frames=np.full(count, NEW, np.int64),
        distances=nothing,
    )


@pytest.fixture
def frames() -> list[Tracks]:
    """Track 1 in frames 0 and 2, first as class 0, then as class 1; track 5 in frame 2 only; frame 1 is empty."""
    return [
        tracks_of(0, LEFT, [0], [0.5]),
        tracks_of(1, np.zeros_like(LEFT), [], []),
        tracks_of(2, LEFT + 5 * RIGHT, [1, 0], [1.0, 0.25]),
    ]


def test_collector(frames: list[Tracks]) -> None:
    collector = ytvis.ResultsCollector()
    for tracks in frames:
        collector.add(tracks)
    first, second = collector.results(video_id=7)
    assert first["video_id"] == 7
    assert first["category_id"] == 2, "the class of the last frame that shows it, plus 1"
    assert first["score"] == pytest.approx(0.75)
    assert first["segmentations"] == [rle.encode(LEFT == 1), None, rle.encode(LEFT == 1)]
    assert (second["category_id"], second["score"]) == (1, 0.25)
    assert second["segmentations"] == [None, None, rle.encode(RIGHT == 1)]


@pytest.mark.parametrize("category_ids", [{0: 40, 1: 3}, [40, 3]], ids=["mapping", "list"])
def test_collector_of_known_length_and_categories(frames: list[Tracks], category_ids: dict[int, int]) -> None:
    collector = ytvis.ResultsCollector(length=4, category_ids=category_ids)
    for tracks in frames:
        collector.add(tracks)
    results = collector.results(0)
    assert [result["category_id"] for result in results] == [3, 40]
    assert [len(result["segmentations"]) for result in results] == [4, 4]
    collector.add(frames[1])
    with pytest.raises(ValueError, match="4 frames, but this is one more"):
        collector.add(frames[1])


def test_an_empty_video_has_no_results() -> None:
    assert ytvis.ResultsCollector(length=3).results(1) == []


@pytest.fixture
def ground_truth() -> ytvis.GroundTruth:
    """One video of two frames with an object as runs and null, and a crowd as a polygon and compressed."""
    runs = {"size": [6, 8], "counts": rle.run_lengths(LEFT == 1).tolist()}
    polygon = [[4.0, 1.0, 8.0, 1.0, 8.0, 5.0, 4.0, 5.0]]
    return ytvis.GroundTruth(
        videos=(ytvis.Video(3, 6, 8, 2, ("a/0.jpg", "a/1.jpg")),),
        categories=(ytvis.Category(9, "fish"),),
        annotations=(
            ytvis.Annotation(1, 3, 9, [runs, None]),
            ytvis.Annotation(2, 3, 9, [polygon, rle.encode(RIGHT == 1)], [16, 99], is_crowd=True),
        ),
    )


def test_ground_truth_comes_back_as_it_was_written(tmp_path: Path, ground_truth: ytvis.GroundTruth) -> None:
    path = tmp_path / "gt.json"
    ytvis.write_ground_truth(path, ground_truth)
    read = ytvis.load_ground_truth(path)
    assert (read.videos, read.categories, read.source) == (ground_truth.videos, ground_truth.categories, str(path))
    for before, after in zip(ground_truth.annotations, read.annotations, strict=True):
        assert (before.id, before.video_id, before.category_id, before.is_crowd) == (
            *(after.id, after.video_id, after.category_id),
            after.is_crowd,
        )
        for old, new in zip(before.segmentations, after.segmentations, strict=True):
            np.testing.assert_array_equal(ytvis.decode_segmentation(old, 6, 8), ytvis.decode_segmentation(new, 6, 8))
    assert [list(annotation.areas or ()) for annotation in read.annotations] == [[9, None], [16, 99]]
    assert list(tmp_path.iterdir()) == [path]


def test_boxes_equal_those_of_pycocotools(tmp_path: Path, ground_truth: ytvis.GroundTruth) -> None:
    path = tmp_path / "gt.json"
    ytvis.write_ground_truth(path, ground_truth)
    for annotation in json.loads(path.read_text())["annotations"]:
        for mask, box in zip(annotation["segmentations"], annotation["bboxes"], strict=True):
            assert box == (None if mask is None else coco.toBbox(mask).tolist())


def test_results_of_a_collector_can_be_evaluated(
    tmp_path: Path, ground_truth: ytvis.GroundTruth, frames: list[Tracks]
) -> None:
    collector = ytvis.ResultsCollector(length=2, category_ids=[9, 9])
    collector.add(frames[0])
    ytvis.write_ground_truth(tmp_path / "gt.json", ground_truth)
    ytvis.write_results(tmp_path / "results.json", collector.results(3))
    (result,) = ytvis.load_results(tmp_path / "results.json", ground_truth)
    assert (result.video_id, result.category_id, result.score) == (3, 9, 0.5)
    assert evaluate(tmp_path / "gt.json", tmp_path / "results.json")["AP"] == pytest.approx(1.0)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    ytvis.write_results(path, [])
    with pytest.raises(ValueError, match="not JSON compliant"):
        ytvis.write_results(path, [{"score": float("nan")}])
    assert path.read_text() == "[]"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("video", "length"),
    [
        ({"file_names": ["a.jpg", "b.jpg"], "length": 2}, 2),
        ({"file_names": ["a.jpg", "b.jpg"]}, 2),
        ({"length": 5}, 5),
    ],
    ids=["both", "names only", "length only"],
)
def test_length_of_a_video(video: dict[str, object], length: int) -> None:
    data = {"videos": [{"id": 1, "height": 4, "width": 4, **video}], "categories": [], "annotations": []}
    assert ytvis.parse_ground_truth(data).videos[0].length == length


def test_decode_of_nothing_is_empty() -> None:
    np.testing.assert_array_equal(ytvis.decode_segmentation(None, 2, 3), np.zeros((2, 3)))
