# SPDX-License-Identifier: Apache-2.0
"""Data sets as they are distributed: found, read, checked whole before training, and refused in one clear sentence."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from pycocotools import mask as coco_masks

from instance_flow.formats.video import open_source
from instance_flow.structures import SourceError
from instance_flow_training.data.annotated_clips import MOST_OBJECTS, ClipSet, Packed, paint_labels
from instance_flow_training.data.class_tables import COCO_SHARED, OVIS, YOUTUBE_VIS_2019, YOUTUBE_VIS_2021
from instance_flow_training.data.set_files import read_frame, read_header
from instance_flow_training.data.still_sets import open_still_set
from instance_flow_training.data.video_sets import open_video_set
from instance_flow_training.datasets import DataConfig, clip_shares, open_training_data
from instance_flow_training.targets import IGNORE
from instance_flow_training.validate import ValidationConfig, check_validation
from instance_flow_training.worlds.synthetic import CLASS_NAMES, WorldConfig, generate_clip
from instance_flow_training.worlds.world_files import write_ytvis

Change = Callable[[dict[str, Any]], object]
HEIGHT, WIDTH = 24, 32
SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]
"""Corners x, y of a square of 8 x 8 pixels."""


def run_lengths(rows: slice, columns: slice) -> dict[str, Any]:
    """A box as compressed run lengths, by COCO's own tools."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[rows, columns] = 1
    rle = coco_masks.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def write_pictures(folder: Path, names: list[str], size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), np.full((*size, 3), 90, np.uint8))


def video_data() -> dict[str, Any]:
    """Two videos of two frames: mask forms in turn, a crowd, an object that is not in every frame."""
    box = run_lengths(slice(14, 20), slice(2, 9))
    plain = {"size": [HEIGHT, WIDTH], "counts": [5 * HEIGHT, 3 * HEIGHT, (WIDTH - 8) * HEIGHT]}
    return {
        "videos": [
            {
                "id": v,
                "height": HEIGHT,
                "width": WIDTH,
                "length": 2,
                "file_names": [f"v{v}/00000.jpg", f"v{v}/00005.jpg"],
            }
            for v in (3, 8)
        ],
        "categories": [{"id": 7, "name": "sedan"}, {"id": 2, "name": "person"}],
        "annotations": [
            {"id": 1, "video_id": 3, "category_id": 7, "iscrowd": 0, "segmentations": [[SQUARE], None]},
            {"id": 2, "video_id": 3, "category_id": 2, "iscrowd": 0, "segmentations": [box, box]},
            {"id": 3, "video_id": 3, "category_id": 2, "iscrowd": 1, "segmentations": [plain, None]},
            {"id": 4, "video_id": 8, "category_id": 2, "segmentations": [box, box]},
        ],
    }


def still_data() -> dict[str, Any]:
    names = {1: "person", 3: "car", 4: "motorcycle", 44: "bottle"}
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH} for i in (9, 25, 30)]
    return {
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in names.items()],
        "annotations": [
            {"id": 11, "image_id": 9, "category_id": 3, "iscrowd": 0, "segmentation": [SQUARE]},
            {"id": 12, "image_id": 25, "category_id": 44, "iscrowd": 0, "segmentation": [SQUARE]},
            {
                "id": 13,
                "image_id": 9,
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 2 * HEIGHT, (WIDTH - 2) * HEIGHT]},
            },
        ],
    }


@pytest.fixture
def videos(tmp_path: Path) -> Callable[..., Path]:
    """Write a set laid out like YouTube-VIS 2021, after a change; gives its root."""

    def write(change: Change = dict.copy) -> Path:
        data = video_data()
        write_pictures(tmp_path / "train/JPEGImages", [name for v in data["videos"] for name in v["file_names"]])
        change(data)
        (tmp_path / "train/instances.json").write_text(json.dumps(data))
        return tmp_path

    return write


@pytest.fixture
def stills(tmp_path: Path) -> Callable[..., Path]:
    """Write a set laid out like COCO 2017, after a change; gives its root."""

    def write(change: Change = dict.copy) -> Path:
        data = still_data()
        write_pictures(tmp_path / "train2017", [entry["file_name"] for entry in data["images"]])
        change(data)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(data))
        return tmp_path

    return write


def test_videos_are_read_as_annotated(videos: Callable[..., Path]) -> None:
    found = open_video_set(videos())
    assert found.class_names == ("person", "sedan")  # by ascending category id
    assert len(found.clips) == 2
    clip = found.clips[0]
    assert clip.class_ids.tolist() == [1, 0]
    first, second = paint_labels(clip, 0), paint_labels(clip, 1)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, 5:8] = IGNORE
    expected[4:12, 4:12] = 1
    expected[14:20, 2:9] = 2
    np.testing.assert_array_equal(first, expected)
    assert np.unique(second).tolist() == [0, 2]
    assert read_frame(found.images / clip.files[1], HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)


LAYOUTS = {
    "YouTube-VIS 2021": ("train/instances.json", "train/JPEGImages"),
    "YouTube-VIS 2019": ("train.json", "train/JPEGImages"),
    "OVIS": ("annotations_train.json", "train"),
    "synthetic worlds": ("instances.json", "JPEGImages"),
}


@pytest.mark.parametrize(("json_name", "images"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("named", ["root", "files"])
def test_layouts_of_video_sets(tmp_path: Path, json_name: str, images: str, named: str) -> None:
    data = video_data()
    write_pictures(tmp_path / images, [name for v in data["videos"] for name in v["file_names"]])
    (tmp_path / json_name).write_text(json.dumps(data))
    found = open_video_set(tmp_path) if named == "root" else open_video_set(tmp_path / json_name, tmp_path / images)
    assert found.images == tmp_path / images
    assert len(found.clips) == 2


def test_a_made_data_set_gives_its_own_labels_back(tmp_path: Path) -> None:
    clip = generate_clip(4, "crossing", WorldConfig(size=(64, 96), frames=4))
    write_ytvis([clip], tmp_path)
    found = open_video_set(tmp_path)
    assert found.class_names == CLASS_NAMES
    read = found.clips[0]
    for t in range(4):
        np.testing.assert_array_equal(read_frame(found.images / read.files[t], 64, 96), clip.images[t])
        labels = paint_labels(read, t)
        # Objects that are never seen have no annotation, so the rows may have moved up: compare masks by class.
        for class_id in range(len(CLASS_NAMES)):
            truth = np.isin(clip.labels[t], np.flatnonzero(clip.class_ids == class_id) + 1)
            np.testing.assert_array_equal(np.isin(labels, np.flatnonzero(read.class_ids == class_id) + 1), truth)


def test_stills_are_read_as_annotated(stills: Callable[..., Path]) -> None:
    found = open_still_set(stills())
    assert found.class_names == ("person", "car", "motorcycle", "bottle")
    assert [clip.files for clip in clips_of(found)] == [("000000000009.jpg",), ("000000000025.jpg",)]
    labels = paint_labels(found.clips[0], 0)
    assert (labels[:, :2] == IGNORE).all()
    assert (labels[4:12, 4:12] == 1).all()
    assert np.count_nonzero(labels) == 2 * HEIGHT + 64


def clips_of(found: ClipSet) -> list[Any]:
    return [found.clips[i] for i in range(len(found.clips))]


def all_of_coco(data: dict[str, Any]) -> None:
    names = [*COCO_SHARED["youtube_vis_2021"], "bottle"]
    data["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    for entry, name in zip(data["annotations"], ("bicycle", "bottle", "bottle"), strict=True):
        entry["category_id"] = names.index(name) + 1


@pytest.mark.parametrize(("year", "count"), [("youtube_vis_2019", 19), ("youtube_vis_2021", 21)])
def test_pre_training_on_the_shared_classes(stills: Callable[..., Path], year: str, count: int) -> None:
    found = open_still_set(stills(all_of_coco), classes=year)
    assert len(found.class_names) == count
    (clip,) = clips_of(found)  # the still with a bottle alone shows nothing to learn
    assert [found.class_names[i] for i in clip.class_ids] == ["motorbike"]
    assert np.unique(paint_labels(clip, 0)).tolist() == [0, 1]  # nor is a crowd of bottles a crowd of ours


def test_the_shared_classes() -> None:
    assert [len(YOUTUBE_VIS_2019), len(YOUTUBE_VIS_2021), len(OVIS)] == [40, 40, 25]
    assert len(COCO_SHARED["youtube_vis_2019"]) == 20
    assert set(COCO_SHARED["youtube_vis_2019"].values()) <= set(YOUTUBE_VIS_2019)
    assert set(COCO_SHARED["youtube_vis_2021"].values()) <= set(YOUTUBE_VIS_2021)


def test_smaller_objects_lie_on_top(stills: Callable[..., Path]) -> None:
    inner = [6, 6, 10, 6, 10, 10, 6, 10]

    def overlapping(data: dict[str, Any]) -> None:
        data["annotations"] = [
            {"id": i, "image_id": 9, "category_id": 1, "segmentation": [polygon]}
            for i, polygon in enumerate((inner, SQUARE), 1)
        ]

    labels = paint_labels(open_still_set(stills(overlapping)).clips[0], 0)
    assert np.count_nonzero(labels == 1) == 16
    assert np.count_nonzero(labels == 2) == 64 - 16


def test_more_objects_than_labels_are_masked_from_the_smallest(stills: Callable[..., Path]) -> None:
    def crowded(data: dict[str, Any]) -> None:
        data["annotations"] = [
            {"id": 1, "image_id": 9, "category_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]},
            *(
                {"id": i, "image_id": 9, "category_id": 1, "segmentation": [[x, 4, x + 4, 4, x + 4, 8, x, 8]]}
                for i, x in enumerate(np.linspace(4, 26, MOST_OBJECTS).tolist(), 2)
            ),
        ]

    clip = open_still_set(stills(crowded)).clips[0]
    assert len(clip.class_ids) == MOST_OBJECTS
    assert paint_labels(clip, 0)[0, 0] == IGNORE


@pytest.mark.parametrize("marked", ["one video", "all"])
def test_unlabelled_regions_are_unknown(videos: Callable[..., Path], marked: str) -> None:
    found = open_video_set(
        videos(lambda data: data["videos"][1].update(gt="partial" if marked == "one video" else "full")),
        ignore_unlabelled=marked == "all",
    )
    background = [bool((paint_labels(clip, 1) == 0).any()) for clip in clips_of(found)]
    assert background == ([True, False] if marked == "one video" else [False, False])
    assert np.unique(paint_labels(found.clips[1], 1)).tolist() == [1, IGNORE]


def test_packed_entries_come_back() -> None:
    entries = [{"a": [1.5, None]}, "text", (), {"b": b"\0" * 1000}]
    packed = Packed(entries)
    assert [packed[i] for i in range(len(packed))] == entries


def entry(kind: str, index: int, **fields: Any) -> Change:
    return lambda data: data[kind][index].update(fields)


def mask(frame: int, value: Any) -> Change:
    return lambda data: data["annotations"][1]["segmentations"].__setitem__(frame, value)


SHORT = {"size": [HEIGHT, WIDTH], "counts": [3, 4, 5]}
BAD_VIDEOS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "a missing frame": (
        lambda data: data["videos"][1]["file_names"].__setitem__(1, "v8/00010.jpg"),
        ("train/JPEGImages/v8/00010.jpg of id 8 does not exist",),
    ),
    "a missing folder": (
        lambda data: data["videos"][1].update(file_names=["v9/00000.jpg", "v9/00005.jpg"]),
        ("v9/00000.jpg of id 8 does not exist (and 1 more",),
    ),
    "an unknown video": (entry("annotations", 1, video_id=99), ("(id 2)", "video_id 99")),
    "an unknown category": (
        entry("annotations", 1, category_id=99),
        ("annotation 2 has the category_id 99, which is not among the categories",),
    ),
    "a list that is too short": (
        entry("annotations", 1, segmentations=[None]),
        ("(id 2)", "1 segmentations, but video 3 has 2 frames"),
    ),
    "a mask of another size": (
        mask(1, {"size": [HEIGHT, WIDTH + 1], "counts": "0"}),
        ("(id 2)", "size [24, 33] in frame 1", "[24, 32]"),
    ),
    "run lengths that do not fill the frame": (
        mask(1, SHORT),
        ("annotation 2 has a bad mask in v3/00005.jpg", "sum to 12 pixels"),
    ),
    "damaged run lengths": (
        mask(0, {"size": [HEIGHT, WIDTH], "counts": "\x01\x02"}),
        ("annotation 2 has a bad mask in v3/00000.jpg", "damaged"),
    ),
    "a polygon out of range": (
        mask(0, [[4, 4, 1200, 4, 1200, 700]]),
        ("annotation 2 has a bad mask in v3/00000.jpg", "(4, 4) to (1200, 700)", "32 x 24 pixels wide and high"),
    ),
    "a polygon of two points": (mask(0, [[4, 4, 8, 8]]), ("annotation 2", "at least 3 points")),
    "a polygon that is not finite": (mask(0, [[4, 4, 8, 4, 8, float("nan")]]), ("annotation 2", "finite")),
    "an id twice": (entry("annotations", 1, id=1), ("annotation id 1 stands twice",)),
    "file names that do not fit the length": (entry("videos", 0, length=3), ("(id 3)", "2 file_names", "length is 3")),
    "no file names": (lambda data: data["videos"][0].pop("file_names"), ("video 3 lists no frames",)),
    "a file name that is no text": (
        lambda data: data["videos"][0].update(file_names=["v3/00000.jpg", None]),
        ("(id 3) has a file name that is no text",),
    ),
    "no annotations, as the public validation set": (lambda data: data.pop("annotations"), ("no list 'annotations'",)),
    "no videos": (lambda data: data.update(videos=[], annotations=[]), ("list of videos is empty",)),
    "only crowds": (
        lambda data: [a.update(iscrowd=1, segmentations=[[SQUARE], None]) for a in data["annotations"]],
        ("no annotation shows an object", "crowds: 4", "data.crowds"),
    ),
    "COCO": (lambda data: data.update(images=data.pop("videos")), ('data.source = "coco"',)),
}


@pytest.mark.parametrize(("change", "parts"), BAD_VIDEOS.values(), ids=BAD_VIDEOS)
def test_bad_video_sets_are_named(videos: Callable[..., Path], change: Change, parts: tuple[str, ...]) -> None:
    with pytest.raises(SourceError) as caught:
        open_video_set(videos(change))
    check_message(str(caught.value), "instances.json", *parts)


BAD_STILLS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "a missing picture": (entry("images", 1, file_name="7.jpg"), ("train2017/7.jpg of id 25 does not exist",)),
    "an unknown image": (entry("annotations", 1, image_id=99), ("annotation 12", "image_id 99")),
    "an unknown category": (entry("annotations", 1, category_id=99), ("annotation 12", "category_id 99")),
    "an id twice": (entry("annotations", 1, id=11), ("annotations, entry 1", "(id 11)", "stood before")),
    "a polygon out of range": (
        entry("annotations", 1, segmentation=[[4, 4, 640, 4, 640, 480]]),
        ("annotation 12 has a bad mask in 000000000025.jpg", "(640, 480)"),
    ),
    "a mask of another size": (
        entry("annotations", 2, segmentation={"size": [9, 9], "counts": [81]}),
        ("annotation 13", "its size is [9, 9]"),
    ),
    "run lengths that do not fill the image": (
        entry("annotations", 2, segmentation=SHORT),
        ("annotation 13", "sum to 12 pixels"),
    ),
    "boxes alone": (
        lambda data: [a.update(segmentation=[], bbox=[4, 4, 8, 8]) for a in data["annotations"]],
        ("no annotation shows an object", "boxes without a mask: 3"),
    ),
    "a mask of another kind": (entry("annotations", 1, segmentation="a.png"), ("(id 12)", "list or dict is needed")),
    "captions": (lambda data: data["annotations"][0].pop("category_id"), ("(id 11)", "category_id = None")),
    "no height": (lambda data: data["images"][0].pop("height"), ("images, entry 0", "(id 9)", "height = None")),
    "a height of nothing": (entry("images", 0, height=0), ("(id 9)", "height = 0, but at least 1")),
    "an entry that is no object": (lambda data: data["images"].append(3), ("images, entry 3", "is a int")),
    "no images": (lambda data: data.pop("images"), ("no list 'images'", "instances_*.json")),
    "YouTube-VIS": (lambda data: data.update(videos=data.pop("images")), ('data.source = "youtube_vis"',)),
}


@pytest.mark.parametrize(("change", "parts"), BAD_STILLS.values(), ids=BAD_STILLS)
def test_bad_sets_of_stills_are_named(stills: Callable[..., Path], change: Change, parts: tuple[str, ...]) -> None:
    with pytest.raises(SourceError) as caught:
        open_still_set(stills(change))
    check_message(str(caught.value), "instances_train2017.json", *parts)


def check_message(message: str, *parts: str) -> None:
    assert "\n" not in message
    for part in parts:
        assert part in message


def wrong(**fields: Any) -> DataConfig:
    return DataConfig(**{"source": "youtube_vis", **fields})


WRONG_PLACES: dict[str, tuple[Callable[[Path], DataConfig], str]] = {
    "nothing named": (lambda _: wrong(), "data.annotations must name"),
    "no such file": (lambda root: wrong(annotations=str(root / "none.json")), "none.json: cannot be read"),
    "an empty folder": (lambda root: wrong(annotations=str(root / "annotations")), "holds none of instances.json"),
    "no such images": (
        lambda root: wrong(annotations=str(root / "train"), images=str(root / "pictures")),
        "no folder of images at",
    ),
    "not JSON": (lambda root: wrong(annotations=str(root / "broken.json")), "broken.json: is not JSON"),
    "nested too deep": (lambda root: wrong(annotations=str(root / "deep.json")), "deep.json: is not JSON"),
    "results": (lambda root: wrong(annotations=str(root / "results.json")), "not a list"),
    "results as COCO": (lambda root: wrong(source="coco", annotations=str(root / "results.json")), "not a list"),
    "a choice of classes": (
        lambda root: wrong(annotations=str(root / "train"), classes="youtube_vis_2019"),
        "has no category 'airplane'",
    ),
}


@pytest.mark.parametrize(("config", "message"), WRONG_PLACES.values(), ids=WRONG_PLACES)
def test_wrong_places_are_named(
    videos: Callable[..., Path], config: Callable[[Path], DataConfig], message: str
) -> None:
    root = videos()
    (root / "annotations").mkdir()
    (root / "broken.json").write_text('{"videos": [')
    (root / "results.json").write_text("[]")
    (root / "deep.json").write_text("[" * 100_000)
    with pytest.raises(SourceError) as caught:
        open_training_data(config(root), 4, 2)
    check_message(str(caught.value), message)


def test_listed_classes_have_the_order_of_the_list_and_others_are_background(stills: Callable[..., Path]) -> None:
    """A picture of other classes stays, to show what is none; one without labels does not."""
    found = open_still_set(stills(), classes="motorcycle, car")
    assert found.class_names == ("motorcycle", "car")
    assert [found.clips[k].class_ids.tolist() for k in range(len(found.clips))] == [[1], []]
    assert not paint_labels(found.clips[1], 0).any()


@pytest.mark.parametrize(
    ("classes", "message"), [("car, ovis", "no category 'ovis'"), ("car, car", "names a class twice")]
)
def test_listed_classes_that_cannot_be(stills: Callable[..., Path], classes: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_still_set(stills(), classes=classes)


def test_clips_of_rare_classes_are_drawn_more_often(videos: Callable[..., Path]) -> None:
    """Person is in both clips, sedan in one of two: at a threshold of 1 that clip comes sqrt(2) times as often."""
    shares = clip_shares(open_video_set(videos()), 1.0)
    np.testing.assert_allclose(shares, np.array([2**0.5, 1.0]) / (1 + 2**0.5))
    np.testing.assert_allclose(clip_shares(open_video_set(videos()), 0.5), [0.5, 0.5])


def test_classes_that_the_file_lacks_are_named(stills: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match=r"no category 'airplane', which data\.classes"):
        open_still_set(stills(), classes="youtube_vis_2019")


def test_too_many_classes_are_refused(stills: Callable[..., Path]) -> None:
    def lvis(data: dict[str, Any]) -> None:
        data["categories"] += [{"id": i, "name": f"class {i}"} for i in range(100, 360)]

    with pytest.raises(SourceError, match="has 264 categories; at most 254"):
        open_still_set(stills(lvis))


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-20]), "the JPEG is cut off"),
    "cut off in its header": (lambda path: path.write_bytes(path.read_bytes()[:20]), "cannot be read as a picture"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a picture"),
    "of another size": (lambda path: write_pictures(path.parent, [path.name], (12, 16)), "is 12 x 16 pixels"),
    "a folder": (become_folder, "cannot be read as a picture"),
    "a giant": (lambda path: path.write_bytes(b"P6 100000 100000 255 "), "more than the 67108864 pixels"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_picture_is_named_before_training(
    videos: Callable[..., Path], damage: Callable[[Path], object], message: str
) -> None:
    root = videos()
    path = root / "train/JPEGImages/v8/00005.jpg"
    damage(path)
    with pytest.raises(SourceError) as caught:
        open_training_data(DataConfig(source="youtube_vis", annotations=str(root), crop=(32, 32)), 2, 2)
    check_message(str(caught.value), str(path), message)


def webp_set(root: Path, damaged: int) -> DataConfig:
    """Two stills in WebP, whose headers do not tell that the file is cut off."""
    data = still_data()
    data["images"] = [{**image, "file_name": f"{image['id']}.webp"} for image in data["images"][:2]]
    write_pictures(root, [image["file_name"] for image in data["images"]])
    for image in data["images"][:damaged]:
        path = root / image["file_name"]
        path.write_bytes(path.read_bytes()[:-5])
    (root / "instances.json").write_text(json.dumps(data))
    return DataConfig(source="coco", annotations=str(root), crop=(32, 32))


def test_a_picture_of_damaged_pixels_does_not_end_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = open_training_data(webp_set(tmp_path, 1), 8, 2)
    classes = {int(label) for i in range(8) for label in np.unique(data[i].targets[0].semantic)} - {0, IGNORE}
    assert [data.class_names[k - 1] for k in classes] == ["bottle"]
    assert np.array_equal(data[0].images, data[0].images)
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    check_message(warning, "9.webp: cannot be read as a picture", "it is left out")


def test_a_set_of_damaged_pictures_does(tmp_path: Path) -> None:
    data = open_training_data(webp_set(tmp_path, 2), 8, 2)
    with pytest.raises(SourceError, match="cannot be read as a picture"):
        data[0]


def test_a_damaged_frame_to_validate_on_is_named_before_training(tmp_path: Path) -> None:
    data = video_data()
    for video in data["videos"]:
        video["file_names"] = [f"{video['id']}/{frame}.webp" for frame in range(2)]
        write_pictures(tmp_path, video["file_names"])
    (tmp_path / "instances.json").write_text(json.dumps(data))
    config = ValidationConfig(every=1, annotations=str(tmp_path), limit=1)
    check_validation(config, ("person",))
    for number, checked in ((8, False), (3, True)):
        path = tmp_path / f"{number}/1.webp"
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(SourceError, match=r"3/1\.webp: cannot be read") if checked else nullcontext():
            check_validation(config, ("person",))


TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""What is stored of an upright picture, by EXIF orientation."""


def write_turned(root: Path, kind: str, orientation: int, size: tuple[int, int]) -> None:
    """A picture of a bright square where ``still_data`` has one, stored as a phone does, with labels of it upright."""
    upright = np.full((*size, 3), 20, np.uint8)
    upright[4:12, 4:12] = 230
    exif = Pillow.Exif()
    exif[0x112] = orientation
    stored = Pillow.fromarray(np.ascontiguousarray(TURNS[orientation](upright)))
    more: dict[str, Any] = {} if kind == "tiff" else {"quality": 100}
    stored.save(root / f"a.{kind}", exif=exif, **more)
    data = still_data()
    data["images"] = [{"id": 9, "file_name": f"a.{kind}", "height": size[0], "width": size[1]}]
    data["annotations"] = data["annotations"][:1]
    (root / "instances.json").write_text(json.dumps(data))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_turned_pictures_lie_under_their_labels(tmp_path: Path, kind: str, orientation: int) -> None:
    for size in ((HEIGHT, WIDTH), (WIDTH, WIDTH)):
        write_turned(tmp_path, kind, orientation, size)
        found = open_still_set(tmp_path)
        image = read_frame(tmp_path / f"a.{kind}", *size)
        np.testing.assert_array_equal(image[..., 0] > 128, paint_labels(found.clips[0], 0) == 1)
        assert any("turned upright" in note for note in found.notes) == (orientation > 1)
        (frame,) = open_source(tmp_path / f"a.{kind}")
        np.testing.assert_array_equal(frame.image, image)  # what the runtime sees


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_labels_of_the_stored_picture_are_refused(tmp_path: Path, kind: str, orientation: int) -> None:
    write_turned(tmp_path, kind, orientation, (HEIGHT, WIDTH))
    data = json.loads((tmp_path / "instances.json").read_text())
    data["images"][0].update(height=WIDTH, width=HEIGHT)
    (tmp_path / "instances.json").write_text(json.dumps(data))
    with pytest.raises(SourceError) as caught:
        open_still_set(tmp_path)
    check_message(str(caught.value), f"a.{kind}: is 24 x 32 pixels (height x width) when turned upright", "32 x 24")


def test_without_pillow_pictures_are_decoded_to_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_turned(tmp_path, "jpg", 6, (HEIGHT, WIDTH))
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert read_header(tmp_path / "a.jpg").size == (HEIGHT, WIDTH)


def test_orientation_is_found_where_opencv_finds_it(tmp_path: Path) -> None:
    """Behind the pixels of a PNG, but neither in XMP nor beyond the eight that there are."""
    tag = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    png, jpeg = (cv2.imencode(kind, blank)[1].tobytes() for kind in (".png", ".jpg"))
    chunk = struct.pack(">I", len(tag)) + b"eXIf" + tag + struct.pack(">I", zlib.crc32(b"eXIf" + tag))
    ninth = b"Exif\0\0" + tag.replace(b"\x06", b"\x09")
    files = {
        "behind.png": png[:-12] + chunk + png[-12:],
        **{
            name: jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
            for name, segment in (("xmp.jpg", xmp), ("ninth.jpg", ninth), ("exif.jpg", b"Exif\0\0" + tag))
        },
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        size = read_header(tmp_path / name).size
        assert read_frame(tmp_path / name, *size).shape[:2] == size
        assert size == ((WIDTH, HEIGHT) if name in ("behind.png", "exif.jpg") else (HEIGHT, WIDTH))


def write_still(root: Path, name: str, file: str) -> Path:
    """A set of one picture, ``file``, that the label file calls ``name``; gives the label file."""
    data = still_data()
    data["images"] = [{"id": 9, "file_name": name, "height": HEIGHT, "width": WIDTH}]
    data["annotations"] = data["annotations"][:1]
    write_pictures(root, [file])
    (root / "result.json").write_text(json.dumps(data))
    return root / "result.json"


WRITTEN_OTHERWISE: dict[str, tuple[str, str]] = {
    "a separator of Windows": ("images\\a.png", "images/a.png"),
    "a folder of Windows that is not the pictures'": ("v1\\a.png", "images/v1/a.png"),
    "an absolute path of Windows": ("C:\\Users\\me\\set\\images\\a.png", "images/a.png"),
    "a share": ("\\\\server\\set\\a.png", "images/a.png"),
    "an absolute path of another machine": ("/home/me/set/images/v1/a.png", "images/v1/a.png"),
    "a URL": ("https://example.org/set/a%20b.png", "images/a b.png"),
    "the folder of the pictures again": ("data/images/a.png", "images/a.png"),
    "percent-encoded": ("K%C3%BCche%2F1%20a.png", "images/K\u00fcche/1 a.png"),
    "percent-encoded on disk": ("a b.png", "images/a%20b.png"),
    "a percent sign that encodes nothing": ("100%.png", "images/100%.png"),
    "NFC, but NFD on disk": ("K\u00fcche_01.png", "K\u0075\u0308che_01.png"),
    "NFD, but NFC on disk": ("K\u0075\u0308che/1.png", "images/K\u00fcche/1.png"),
    "an ending in capitals": ("a.PNG", "images/a.png"),
    "an ending in capitals on disk": ("a.png", "images/a.PNG"),
    "all at once": ("D:\\K%C3%BCche\\A.PNG", "images/K\u0075\u0308che/A.png"),
}


@pytest.mark.parametrize(("name", "file"), WRITTEN_OTHERWISE.values(), ids=WRITTEN_OTHERWISE)
def test_files_are_found_however_their_names_are_written(tmp_path: Path, name: str, file: str) -> None:
    found = open_still_set(write_still(tmp_path, name, file))
    assert found.images / found.clips[0].files[0] == tmp_path / file
    told = [note for note in found.notes if "written otherwise" in note]
    assert len(told) == (not file.endswith("100%.png"))


NOT_CLEAR: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "two endings fit": ("a.Png", ["images/a.png", "images/a.PNG"], ("may be any of a.PNG, a.png in",)),
    "another kind of picture": ("a.jpg", ["images/a.png"], ("images/a.jpg of id 9 does not exist; a.png would fit",)),
    "another case of the name": ("IMG.png", ["images/img.png"], ("does not exist; img.png would fit",)),
    "a folder that is not there": ("v1/a.png", ["images/v2/b.png", "images/a.png"], ("; a.png would fit",)),
    "nothing like it": ("c.png", ["images/a.png"], ("images/c.png of id 9 does not exist",)),
}


@pytest.mark.parametrize(("name", "files", "parts"), NOT_CLEAR.values(), ids=NOT_CLEAR)
def test_files_that_are_not_clear_are_named(
    tmp_path: Path, name: str, files: list[str], parts: tuple[str, ...]
) -> None:
    source = write_still(tmp_path, name, files[0])
    write_pictures(tmp_path, files)
    with pytest.raises(SourceError) as caught:
        open_still_set(source)
    check_message(str(caught.value), "result.json", *parts)


def test_one_file_is_not_two_frames(tmp_path: Path) -> None:
    data = still_data()
    for image, folder in zip(data["images"], "xyz", strict=True):
        image["file_name"] = f"C:\\{folder}\\a.png"
    write_pictures(tmp_path / "images", ["a.png"])
    (tmp_path / "result.json").write_text(json.dumps(data))
    with pytest.raises(SourceError, match=r"both seem to be .*images/a\.png"):
        open_still_set(tmp_path / "result.json")


def test_videos_of_windows_are_found(videos: Callable[..., Path]) -> None:
    def windows(data: dict[str, Any]) -> None:
        for video in data["videos"]:
            video["file_names"] = [f"D:\\set\\{name}".replace("/", "\\") for name in video["file_names"]]

    assert open_video_set(videos(windows)).clips[1].files == ("v8/00000.jpg", "v8/00005.jpg")


RUNS = {"size": [HEIGHT, WIDTH], "counts": [4 * HEIGHT, 2 * HEIGHT, (WIDTH - 6) * HEIGHT]}
GROUPED: dict[str, tuple[list[tuple[Any, int]], bool, str, int, str]] = {
    "COCO's": ([([SQUARE], 0)] * 5 + [(RUNS, 1)], False, "auto", 5, 'set data.crowds = "objects"'),
    "a brush, and no more": ([(RUNS, 1)] * 3, False, "auto", 3, 'set data.crowds = "ignore"'),
    "as many brush masks as polygons": (
        [([SQUARE], 0), (RUNS, 1)],
        False,
        "auto",
        2,
        "2 of 3 images are used",
    ),
    "one brush mask among CVAT's polygons": (
        [([SQUARE], 0)] * 5 + [(RUNS, 1)],
        True,
        "auto",
        6,
        "taken for objects: 1,",
    ),
    "a few run lengths that are none": ([(RUNS, 1)] * 30 + [(RUNS, 0)], False, "auto", 31, "taken for objects: 30,"),
    "half of the run lengths": ([(RUNS, 1), (RUNS, 0)], True, "auto", 1, "crowds: 1"),
    "polygons that are crowds": ([([SQUARE], 1), ([SQUARE], 0)], True, "auto", 1, "crowds: 1"),
    "a brush that paints groups": ([(RUNS, 1)] * 3 + [([SQUARE], 0)], True, "ignore", 1, "crowds: 3"),
    "COCO's as objects": ([([SQUARE], 0)] * 5 + [(RUNS, 1)], False, "objects", 6, "as data.crowds says"),
    "none at all": ([([SQUARE], 0)], True, "objects", 1, "crowds: 0"),
}


@pytest.mark.parametrize(("masks", "cvat", "crowds", "count", "note"), GROUPED.values(), ids=GROUPED)
def test_crowds_are_groups_or_painted_objects(
    stills: Callable[..., Path], masks: list[tuple[Any, int]], cvat: bool, crowds: str, count: int, note: str
) -> None:
    def change(data: dict[str, Any]) -> None:
        data["annotations"] = [
            {
                **{"id": i, "image_id": (9, 25)[i % 2], "category_id": 1, "segmentation": mask, "iscrowd": is_crowd},
                **({"attributes": {"occluded": False}} if cvat else {}),
            }
            for i, (mask, is_crowd) in enumerate(masks)
        ]

    found = open_still_set(stills(change), crowds=crowds)
    assert sum(len(clip.class_ids) for clip in clips_of(found)) == count
    assert any(note in told for told in found.notes), found.notes


NO_MASK: dict[str, Any] = {"an empty list": [], "an empty polygon": [[]], "null": None, "an empty object": {}}


@pytest.mark.parametrize("mask", [*NO_MASK.values(), "no such key"], ids=[*NO_MASK, "no such key"])
def test_a_box_without_a_mask_is_not_background(stills: Callable[..., Path], mask: Any) -> None:
    def change(data: dict[str, Any]) -> None:
        first = data["annotations"][0]
        box = {**first, "id": 77, "segmentation": mask, "bbox": [20, 2.0, 40, 6]}
        if mask == "no such key":
            box.pop("segmentation")
        data["annotations"] = [first, box]

    found = open_still_set(stills(change))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:8, 20:] = IGNORE
    expected[4:12, 4:12] = 1
    np.testing.assert_array_equal(paint_labels(found.clips[0], 0), expected)
    assert any("boxes without a mask: 1" in note for note in found.notes)


@pytest.mark.parametrize("box", [None, [], [4, 4, 0, 8], [4, 4, float("nan"), 8], [99, 4, 8, 8], "4 4 8 8"], ids=str)
def test_of_an_object_without_mask_and_box_nothing_is_background(stills: Callable[..., Path], box: Any) -> None:
    def change(data: dict[str, Any]) -> None:
        first = data["annotations"][0]
        data["annotations"] = [first, {**first, "id": 77, "segmentation": [], "bbox": box}]

    labels = paint_labels(open_still_set(stills(change)).clips[0], 0)
    assert np.unique(labels).tolist() == [1, IGNORE]
    assert np.count_nonzero(labels == 1) == 64


def test_frames_of_a_video_may_have_a_box_alone(videos: Callable[..., Path]) -> None:
    def change(data: dict[str, Any]) -> None:
        data["annotations"] = [{**data["annotations"][0], "bboxes": [[4, 4, 8, 8], [0, 0, 8, 8]]}]

    found = open_video_set(videos(change))
    assert np.unique(paint_labels(found.clips[0], 0)).tolist() == [0, 1]
    second = paint_labels(found.clips[0], 1)
    assert (second[:8, :8] == IGNORE).all()
    assert np.count_nonzero(second) == 64


CATEGORIES: dict[str, tuple[list[tuple[int, str, str]], tuple[str, ...], str]] = {
    "a root above all": ([(0, "things", "none"), (1, "box", "things")], ("box",), '"things" stands above others'),
    "a root of the class's name": ([(0, "box", "none"), (1, "box", "box")], ("box",), '"box" stands above others'),
    "a group that has a class's name alone": ([(1, "box", "box"), (2, "disc", "disc")], ("box", "disc"), ""),
    "a class without objects": ([(1, "box", ""), (2, "disc", "")], ("box", "disc"), ""),
    "a name twice": ([(1, "box", ""), (5, "disc", ""), (9, "box", "")], ("box", "disc"), '"box" is given to 2'),
}


@pytest.mark.parametrize(("categories", "classes", "note"), CATEGORIES.values(), ids=CATEGORIES)
@pytest.mark.parametrize("kind", ["stills", "videos"])
def test_categories_that_are_no_classes(
    stills: Callable[..., Path],
    videos: Callable[..., Path],
    kind: str,
    categories: list[tuple[int, str, str]],
    classes: tuple[str, ...],
    note: str,
) -> None:
    def change(data: dict[str, Any]) -> None:
        data["categories"] = [{"id": i, "name": name, "supercategory": above} for i, name, above in categories]
        used = [i for i, name, _ in categories if name == "box"]
        data["annotations"] = data["annotations"][:2]
        for annotation, category in zip(data["annotations"], (1, used[-1]), strict=True):
            annotation["category_id"] = category

    found = open_still_set(stills(change)) if kind == "stills" else open_video_set(videos(change))
    assert found.class_names == classes
    assert {int(i) for clip in clips_of(found) for i in clip.class_ids} == {0}
    told = [line for line in found.notes if "stands above" in line or "is given to" in line]
    assert len(told) == bool(note)
    assert note in "".join(told)


def test_the_check_says_what_there_is(stills: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    root = stills()
    open_training_data(DataConfig(source="coco", annotations=str(root), classes="car, motorcycle"), 4, 2)
    lines = [record.message.removeprefix(f"{root}: ") for record in caplog.records]
    assert lines == [
        'crowds with masks of run lengths: 1; if they are objects, set data.crowds = "objects"',
        "2 of 3 images are used; objects: car 1, motorcycle 0",
        "not trained on: crowds: 0, boxes without a mask: 0, of other categories: 2, seen in no frame: 0",
    ]


def cocovid_of(data: dict[str, Any]) -> dict[str, Any]:
    """``video_data`` as CocoVID has it, its crowd without a name, and a box without a mask."""
    images = [
        {
            "id": 10 * v["id"] + t,
            "video_id": v["id"],
            "frame_id": t,
            "file_name": name,
            "height": HEIGHT,
            "width": WIDTH,
        }
        for v in data["videos"]
        for t, name in enumerate(v["file_names"])
    ]
    annotations = [
        {
            "image_id": 10 * a["video_id"] + t,
            "instance_id": a["id"],
            "segmentation": mask,
            **{k: a[k] for k in a if "_id" in k},
        }
        | {"iscrowd": a.get("iscrowd", 0)}
        for a in data["annotations"]
        for t, mask in enumerate(a["segmentations"])
        if mask
    ]
    annotations.append({"image_id": 81, "instance_id": 99, "category_id": 2, "bbox": [20, 0, 12, 6]})
    videos = [{"id": v["id"], "name": str(v["id"])} for v in data["videos"]]
    numbered = [{"id": i, **a} for i, a in enumerate(annotations)]
    return {"videos": videos, "images": images, "annotations": numbered, "categories": data["categories"]}


@pytest.mark.parametrize("layout", [("ann.json", "."), ("annotations/train_cocoformat.json", "train")], ids=str)
def test_cocovid_is_trained_on(tmp_path: Path, layout: tuple[str, str]) -> None:
    data, (name, images) = video_data(), layout
    write_pictures(tmp_path / images, [file for v in data["videos"] for file in v["file_names"]])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(cocovid_of(data)))
    found = open_video_set(tmp_path / name)
    (tmp_path / "instances.json").write_text(json.dumps(data))
    expected = open_video_set(tmp_path / "instances.json", tmp_path / images)
    assert found.class_names == expected.class_names
    for ours, theirs in zip(clips_of(found), clips_of(expected), strict=True):
        assert (ours.files, ours.class_ids.tolist()) == (theirs.files, theirs.class_ids.tolist())
        np.testing.assert_array_equal(paint_labels(ours, 0), paint_labels(theirs, 0))
    boxed = paint_labels(expected.clips[1], 1)
    boxed[:6, 20:] = IGNORE
    np.testing.assert_array_equal(paint_labels(found.clips[1], 1), boxed)
    with pytest.raises(SourceError, match=r"as YouTube-VIS and CocoVID do; set data\.source"):
        open_still_set(tmp_path / name)


def test_an_empty_list_of_videos_makes_no_video_set(stills: Callable[..., Path]) -> None:
    root = stills(lambda data: data.update(videos=[]))
    assert len(open_still_set(root).clips) == 2
    with pytest.raises(SourceError, match=r'data\.source = "coco"'):
        open_video_set(root / "annotations/instances_train2017.json")
