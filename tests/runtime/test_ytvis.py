# SPDX-License-Identifier: Apache-2.0
"""Reading and writing the YouTube-VIS format, and tracks to results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow.evaluation.evaluate import evaluate
from instance_flow.formats import rle, ytvis
from instance_flow.structures import NEW, SourceError, Tracks

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
    coco = pytest.importorskip("pycocotools.mask")
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


SQUARE = [0, 1, 3, 1, 3, 4, 0, 4]


def cocovid() -> dict[str, Any]:
    """Two videos, their frames in no order; object 7 of both is two objects. A crowd has no name."""
    images = [(11, 1, 0), (12, 1, 10), (10, 1, 5), (20, 2, 0)]
    annotations = [(1, 11, 7, 4), (2, 10, 7, 4), (3, 12, 8, 4), (4, 20, 7, 9)]
    return {
        "videos": [{"id": 2, "name": "b"}, {"id": 1, "name": "a", "gt": "partial"}],
        "images": [
            {"id": i, "video_id": v, "frame_id": t, "file_name": f"{v}/{t}.png", "height": 6, "width": 8}
            for i, v, t in images
        ],
        "categories": [{"id": 4, "name": "box"}, {"id": 9, "name": "disc"}],
        "annotations": [
            *(
                {"id": i, "image_id": image, "instance_id": k, "category_id": c, "segmentation": [SQUARE]}
                for i, image, k, c in annotations
            ),
            {"id": 5, "image_id": 10, "category_id": 4, "iscrowd": 1, "segmentation": rle.encode(RIGHT == 1)},
        ],
    }


def test_cocovid_is_read_as_youtube_vis(tmp_path: Path) -> None:
    (tmp_path / "gt.json").write_text(json.dumps(cocovid()))
    truth = ytvis.load_ground_truth(tmp_path / "gt.json")
    assert [(v.id, v.length, v.file_names) for v in truth.videos] == [
        (2, 1, ("2/0.png",)),
        (1, 3, ("1/0.png", "1/5.png", "1/10.png")),
    ]
    shown = [
        (a.id, a.video_id, a.category_id, a.is_crowd, [m is not None for m in a.segmentations])
        for a in truth.annotations
    ]
    assert shown == [
        (1, 1, 4, False, [True, True, False]),
        (3, 1, 4, False, [False, False, True]),
        (4, 2, 9, False, [True]),
        (5, 1, 4, True, [False, True, False]),
    ]
    square = rle.encode(LEFT == 1)
    results = [
        {
            **{"video_id": a.video_id, "category_id": a.category_id, "score": 1.0},
            "segmentations": [mask and square for mask in a.segmentations],
        }
        for a in truth.annotations
        if not a.is_crowd
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert evaluate(tmp_path / "gt.json", tmp_path / "results.json")["AP"] == pytest.approx(1.0)


def changed(kind: str, index: int, **fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data[kind][index].update(fields)


def tao(data: dict[str, Any]) -> None:
    for kind, old, new in (("images", "frame_id", "frame_index"), ("annotations", "instance_id", "track_id")):
        for entry in data[kind]:
            if old in entry:
                entry[new] = entry.pop(old)


COCOVID: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "TAO": (tao, ""),
    "sizes of the videos": (lambda data: [v.update(height=6, width=8) for v in data["videos"]], ""),
    "instances with names": (lambda data: [a.update(instance_id="a") for a in data["annotations"][:2]], ""),
    "frames in the list's order": (lambda data: [i.pop("frame_id") for i in data["images"]], ""),
    "an instance without a name": (
        lambda data: data["annotations"][1].pop("instance_id"),
        "annotation 1 of the list (id 2) has no instance_id or track_id",
    ),
    "two categories": (
        changed("annotations", 1, category_id=9),
        "(id 2) has the category_id 9, but the same instance_id 7",
    ),
    "twice in a frame": (
        changed("annotations", 1, image_id=11),
        "(id 2) is of instance_id 7 of video 1, which stands twice",
    ),
    "two sizes": (changed("images", 1, height=7), "image 12 is 7 x 8"),
    "a frame twice": (changed("images", 1, frame_id=5), "images 12 and 10 both have frame_id 5"),
    "an image of no video": (changed("images", 0, video_id=3), "(id 11) has the video_id 3"),
    "an image that says no video": (lambda data: data["images"][0].pop("video_id"), "video_id = None"),
    "an image id twice": (changed("images", 1, id=11), "the id 11, which stood before"),
    "an unknown image": (changed("annotations", 0, image_id=99), "(id 1) has the image_id 99"),
    "no size": (lambda data: [i.pop("height") for i in data["images"]], "height = None"),
    "an entry that is no object": (lambda data: data["images"].append(None), "image 4 of the list is no JSON object"),
    "no annotations": (lambda data: data.pop("annotations"), "has no list 'annotations'"),
    "no categories": (lambda data: data.pop("categories"), "has no list 'categories'"),
    "boxes alone": (
        lambda data: [a.update(segmentation=[], bbox=[0, 0, 3, 3]) for a in data["annotations"]],
        "its 5 annotations have no masks",
    ),
}


@pytest.mark.parametrize(("change", "message"), COCOVID.values(), ids=COCOVID)
def test_cocovid_of_all_kinds(change: Callable[[dict[str, Any]], object], message: str) -> None:
    data = cocovid()
    change(data)
    if not message:
        assert [len(ytvis.parse_ground_truth(data).annotations), len(data["videos"])] == [4, 2]
        return
    with pytest.raises(SourceError) as caught:
        ytvis.parse_ground_truth(data, "a.json")
    assert str(caught.value).startswith("a.json: ")
    assert message in str(caught.value)
