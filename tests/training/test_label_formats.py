# SPDX-License-Identifier: Apache-2.0
"""Labels as tools export them: each form is known by what it holds, read to the pixel, and refused in one sentence."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from instance_flow.formats.ytvis import decode_segmentation
from instance_flow.structures import SourceError
from instance_flow_training.config import ConfigError, load_config
from instance_flow_training.data.annotated_clips import paint_labels
from instance_flow_training.data.cli import main
from instance_flow_training.data.formats import source as sources
from instance_flow_training.data.label_sources import open_label_set, open_labels, open_truth
from instance_flow_training.data.merging import split_set
from instance_flow_training.data.video_sets import VideoSet
from instance_flow_training.datasets import open_training_data
from instance_flow_training.targets import IGNORE
from instance_flow_training.validate import ValidationConfig, check_validation

HEIGHT, WIDTH = 24, 32
SQUARE = [(4, 4), (12, 4), (12, 12), (4, 12)]
"""Corners x, y of 8 x 8 pixels."""
RING = np.zeros((HEIGHT, WIDTH), np.uint8)
RING[13:22, 15:28] = 1
RING[16:19, 18:24] = 0


def square(left: int = 4, top: int = 4) -> NDArray[np.uint8]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + 8, left : left + 8] = 1
    return mask


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def flat(points: list[tuple[int, int]]) -> list[int]:
    return [number for point in points for number in point]


def coco(file: str, first_id: int = 0) -> dict[str, Any]:
    """A polygon and a ring of run lengths, as Roboflow has them: under a root category that has no objects."""
    edges = np.flatnonzero(np.diff(RING.T.ravel(), prepend=0, append=0))
    counts = np.diff(edges, prepend=0, append=HEIGHT * WIDTH).tolist()
    return {
        "images": [{"id": first_id, "file_name": file, "height": HEIGHT, "width": WIDTH}],
        "categories": [
            {"id": 0, "name": "things", "supercategory": "none"},
            {"id": 1, "name": "car", "supercategory": "things"},
            {"id": 2, "name": "person", "supercategory": "things"},
        ],
        "annotations": [
            {"id": 0, "image_id": first_id, "category_id": 1, "segmentation": [flat(SQUARE)], "iscrowd": 0},
            {
                **{"id": 1, "image_id": first_id, "category_id": 2, "iscrowd": 0},
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
            },
        ],
    }


def roboflow(root: Path) -> None:
    for split in ("train", "valid", "test"):
        pictures(root / split, f"{split}_jpg.rf.0.jpg")
        data = coco(f"{split}_jpg.rf.0.jpg")
        write(root / split / "_annotations.coco.json", data if split != "test" else {**data, "annotations": []})
    write(root / "README.roboflow.txt", "exported")


def coco_beside(picture: str, name: str, root: Path) -> None:
    """Labels in a folder of their own, and pictures in another."""
    pictures((root / picture).parent, Path(picture).name)
    write(root / "annotations/instances_all.json", coco(name))


def cvat_coco(root: Path) -> None:
    pictures(root / "images/default", "a.png")
    write(root / "annotations/instances_default.json", coco("a.png"))


def ring_window() -> str:
    rows = RING[13:22, 15:28].ravel()
    edges = np.flatnonzero(np.diff(rows, prepend=0, append=0))
    return ", ".join(str(run) for run in np.diff(edges, prepend=0, append=len(rows)))


CVAT_LABELS = "".join(f"<label><name>{name}</name><attributes/></label>" for name in ("car", "person", "empty"))


def cvat_images(root: Path) -> None:
    """With a group of two polygons, a rotated box, an ellipse, and what is no mask."""
    pictures(root / "images", "a.png", "sub/b.png")
    points = ";".join(f"{x}.00,{y}.00" for x, y in SQUARE)
    moved = ";".join(f"{x + 16}.00,{y}.00" for x, y in SQUARE)
    write(
        root / "annotations.xml",
        f"""<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
        <meta><task><size>2</size><mode>annotation</mode><labels>{CVAT_LABELS}</labels></task></meta>
        <image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">
          <polygon label="car" source="manual" occluded="0" points="{points}" z_order="0"></polygon>
          <mask label="person" source="manual" rle="{ring_window()}" left="15" top="13" width="13" height="9"/>
          <points label="car" points="1.00,2.00"/><tag label="empty"/>
        </image>
        <image id="1" name="sub/b.png" width="{WIDTH}" height="{HEIGHT}">
          <polygon label="car" points="{points}" group_id="3"/><polygon label="car" points="{moved}" group_id="3"/>
          <ellipse label="person" cx="16" cy="18" rx="5" ry="3"/>
          <box label="person" xtl="1" ytl="14" xbr="5" ybr="18" rotation="90.0"/>
        </image></annotations>""",
    )


def cvat_video(root: Path) -> None:
    """A track that is outside in the second of three frames, and a shape, which CVAT writes as a track of one frame."""
    pictures(root / "images", *(f"frame_{t:06d}.PNG" for t in (10, 12, 14)))
    points = ";".join(f"{x},{y}" for x, y in SQUARE)
    shapes = "".join(
        f'<polygon frame="{t}" keyframe="1" outside="{int(t == 12)}" occluded="0" points="{points}"/>'
        for t in (10, 12, 14)
    )
    ring = f'rle="{ring_window()}" left="15" top="13" width="13" height="9"'
    write(
        root / "annotations.xml",
        f"""<annotations><version>1.1</version><meta><task><size>3</size><mode>interpolation</mode>
        <labels>{CVAT_LABELS}</labels>
        <original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size></task></meta>
        <track id="0" label="car" source="manual">{shapes}</track>
        <track id="1" label="person"><mask frame="12" keyframe="1" outside="0" {ring}/>
        <mask frame="14" keyframe="1" outside="1" {ring}/></track></annotations>""",
    )


def pack_rle(values: NDArray[np.uint8]) -> list[int]:
    """Label Studio's bytes of RGBA values: counts of 3, 4, 8 and 16 bits."""
    bits = f"{len(values):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    starts = np.flatnonzero(np.diff(values.astype(int), prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
        kind, size = next((k, size) for k, size in enumerate((3, 4, 8, 16)) if end - start <= 1 << size)
        # A single value is written as a list of one, others as a value that is repeated.
        bits += f"{int(end - start > 1)}{kind:02b}{end - start - 1:0{size}b}{values[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def region(kind: str, **value: Any) -> dict[str, Any]:
    return {
        **{"id": "r", "type": kind, "value": value, "original_width": WIDTH, "original_height": HEIGHT},
        **{"image_rotation": 0, "from_name": "label", "to_name": "image"},
    }


def percent(points: list[tuple[int, int]]) -> list[list[float]]:
    return [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in points]


def studio_task(picture: str, *regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"image": picture}, "annotations": [{"result": list(regions), **more}], "predictions": []}


def label_studio(root: Path) -> None:
    """An uploaded file, which has a new name, and a file of a storage; a cancelled annotation; a rotated box."""
    pictures(root / "images", "0a1b2c3d-a.png", "sub/b.png")
    alpha = np.repeat((RING * 255).ravel()[:, None], 4, 1).ravel()
    car, person = {"polygonlabels": ["car"]}, {"brushlabels": ["person"]}
    first = studio_task(
        "/data/upload/3/0a1b2c3d-a.png",
        region("polygonlabels", points=percent(SQUARE), closed=True, **car),
        region("brushlabels", format="rle", rle=pack_rle(alpha), **person),
        region("choices", choices=["sunny"]),
    )
    first["annotations"].insert(0, {"was_cancelled": True, "result": [region("polygonlabels", points=[], **car)]})
    box = {"x": 50.0, "y": 50.0, "width": 25.0, "height": 25.0, "rotation": 0, "rectanglelabels": ["person"]}
    second = studio_task("/data/local-files/?d=somewhere/sub/b.png", region("rectanglelabels", **box))
    write(root / "project-1-at-2024.json", [first, second])


def label_studio_minimal(root: Path) -> None:
    pictures(root, "a.png")
    shape = {"points": percent(SQUARE), "polygonlabels": ["car"], "original_width": WIDTH, "original_height": HEIGHT}
    write(root / "min.json", [{"image": "/data/upload/1/12345678-a.png", "id": 1, "label": [shape], "annotator": 1}])


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def labelme_file(root: Path, name: str, *shapes: dict[str, Any]) -> None:
    pictures(root, f"{name}.png")
    data = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.png", "imageData": "QUJD"}
    write(root / f"{name}.json", {**data, "imageHeight": HEIGHT, "imageWidth": WIDTH})


def labelme(root: Path) -> None:
    """A mask within its box, two parts of one object, and pixels to be ignored; a name that looks like a part's."""
    cut = RING[13:22, 15:28] * 255
    png = base64.b64encode(cv2.imencode(".png", cut)[1].tobytes()).decode()
    labelme_file(root, "test_1", shape("car", SQUARE), shape("person", [[15, 13], [27, 21]], "mask", mask=png))
    moved = [(x + 16, y) for x, y in SQUARE]
    ignored = shape("__ignore__", [[0, 20], [8, 20], [8, 24], [0, 24]])
    labelme_file(root, "b", shape("car", SQUARE, group_id=1), shape("car", moved, group_id=1), ignored)


def yolo(root: Path, lines: str | None = None) -> None:
    """As Roboflow writes it, its paths one folder too high."""
    text = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in SQUARE)
    pictures(root, "train/images/a.jpg", "train/images/none.jpg", "valid/images/b.jpg")
    write(root / "train/labels/a.txt", f"1 {text}\n" if lines is None else lines)
    write(root / "valid/labels/b.txt", f"0 {text}\n" if lines is None else lines)
    write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['person', 'car']\n")


def yolo_listed(root: Path) -> None:
    """As CVAT writes it: names by number, pictures in a text file."""
    text = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in SQUARE)
    pictures(root, "images/train/a.png")
    write(root / "labels/train/a.txt", f"0 {text}\n")
    write(root / "train.txt", "images/train/a.png\n")
    write(root / "data.yaml", "path: ./\ntrain: train.txt\nnames:\n  0: car\n")


def yolo_from_elsewhere(root: Path) -> None:
    """Made on another machine, for a notebook; pictures are reached through a link, as are their labels."""
    yolo_listed(root / "real")
    (root / "set/train").mkdir(parents=True)
    for name in ("images", "labels"):
        (root / "set/train" / name).symlink_to(root / "real" / name / "train")
    write(root / "set/data.yaml", "path: /content/set\ntrain: /content/set/train/images\nnames: [car]\n")
    (root / "real/data.yaml").unlink()


def labelme_old(root: Path) -> None:
    """Of a version that stated neither sizes nor kinds, on Windows."""
    pictures(root / "img", "a.png")
    data = {"shapes": [{"label": "car", "points": SQUARE}], "imagePath": "..\\img\\a.png", "imageData": None}
    write(root / "ann/a.json", data)


def palette_picture(path: Path, labels: NDArray[np.uint8], mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Pillow.fromarray(labels, "L" if mode == "L" else None)
    if mode == "P":
        picture = Pillow.fromarray(labels).convert("L")
        picture = Pillow.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([value for k in range(256) for value in (k * 7 % 256, k * 31 % 256, k)])
    picture.save(path)


def claimed(path: Path, width: int, height: int) -> None:
    """The PNG file says that it is of this size."""
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


def cut(path: Path) -> None:
    """Half of the file's pixels are missing."""
    data = path.read_bytes()
    start = data.index(b"IDAT")
    path.write_bytes(data[: start + 4 + (len(data) - start) // 4])


def davis(root: Path, mode: str = "P") -> None:
    pictures(root / "JPEGImages/480p/cars", "00000.jpg", "00001.jpg", "00002.jpg")
    for t in (0, 2):
        labels = np.where(RING, 2, square()).astype(np.uint8)
        labels[0] = 255
        palette_picture(root / f"Annotations/480p/cars/{t:05d}.png", labels, mode)


def youtube_vos(root: Path) -> None:
    pictures(root / "train/JPEGImages/v1", "00000.jpg")
    palette_picture(root / "train/Annotations/v1/00000.png", np.where(RING, 2, square()).astype(np.uint8))
    objects = {"1": {"category": "car", "frames": ["00000"]}, "2": {"category": "person", "frames": ["00000"]}}
    write(root / "train/meta.json", {"videos": {"v1": {"objects": objects}}})


def davis_2016(root: Path) -> None:
    pictures(root / "JPEGImages/bear", "00000.jpg")
    palette_picture(root / "Annotations/bear/00000.png", square() * 255, "L")


def ytvis(root: Path) -> None:
    pictures(root / "JPEGImages/v", "0.jpg", "1.jpg")
    data = {
        "videos": [{"id": 1, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": ["v/0.jpg", "v/1.jpg"]}],
        "categories": [{"id": 5, "name": "car"}],
        "annotations": [{"id": 1, "video_id": 1, "category_id": 5, "segmentations": [[flat(SQUARE)], None]}],
    }
    write(root / "instances.json", data)


def cocovid(root: Path) -> None:
    pictures(root / "v", "0.png", "1.png")
    images = [
        {"id": t, "video_id": 1, "frame_id": t, "file_name": f"v/{t}.png", "height": HEIGHT, "width": WIDTH}
        for t in (0, 1)
    ]
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "instance_id": 4, "segmentation": [flat(SQUARE)]}
    categories = [{"id": 1, "name": "car"}]
    write(
        root / "a.json",
        {"videos": [{"id": 1}], "images": images, "categories": categories, "annotations": [annotation]},
    )


def bbox_mask(left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


BOTH = {"car": [square()], "person": [RING]}
TWO_PARTS = square() | square(20)
VOID = bbox_mask(0, 0, WIDTH, 1)

# The form's name, and by frame the masks of each class; "box" = known by its box alone, "ignored" = crowds.
FORMS: dict[str, tuple[Callable[[Path], None], str, dict[str, dict[str, list[NDArray[np.uint8]]]]]] = {
    "Roboflow": (
        roboflow,
        "Roboflow COCO",
        {"train_jpg.rf.0.jpg": BOTH, "valid_jpg.rf.0.jpg": BOTH, "test_jpg.rf.0.jpg": {}},
    ),
    "CVAT, COCO": (cvat_coco, "COCO", {"a.png": BOTH}),
    "COCO, all pictures in one folder": (partial(coco_beside, "images/a.png", "a.png"), "COCO", {"a.png": BOTH}),
    "COCO, names from the root": (partial(coco_beside, "pictures/a.png", "pictures/a.png"), "COCO", {"a.png": BOTH}),
    "CVAT, images": (cvat_images, "CVAT for images 1.1", {"a.png": BOTH, "b.png": {"car": [TWO_PARTS], "person": []}}),
    "CVAT, video": (
        cvat_video,
        "CVAT for video 1.1",
        {
            "frame_000010.PNG": {"car": [square()]},
            "frame_000012.PNG": {"person": [RING]},
            "frame_000014.PNG": {"car": [square()]},
        },
    ),
    "Label Studio": (
        label_studio,
        "Label Studio",
        {"0a1b2c3d-a.png": BOTH, "b.png": {"box person": [bbox_mask(16, 12, 24, 18)]}},
    ),
    "Label Studio, JSON-MIN": (label_studio_minimal, "Label Studio", {"a.png": {"car": [square()]}}),
    "labelme": (
        labelme,
        "labelme",
        {"test_1.png": BOTH, "b.png": {"car": [TWO_PARTS], "ignored": [bbox_mask(0, 20, 8, 24)]}},
    ),
    "YOLO": (yolo, "YOLO", {"a.jpg": {"car": [square()]}, "none.jpg": {}, "b.jpg": {"person": [square()]}}),
    "YOLO with a list": (yolo_listed, "YOLO", {"a.png": {"car": [square()]}}),
    "labelme, old": (labelme_old, "labelme", {"a.png": {"car": [square()]}}),
    "DAVIS": (
        davis,
        "palette PNGs (DAVIS, YouTube-VOS)",
        {f"0000{t}.jpg": {"object": [square(), RING], "ignored": [VOID]} for t in (0, 2)},
    ),
    "DAVIS, grey": (
        lambda root: davis(root, "L"),
        "palette PNGs (DAVIS, YouTube-VOS)",
        {f"0000{t}.jpg": {"object": [square(), RING], "ignored": [VOID]} for t in (0, 2)},
    ),
    "DAVIS 2016": (davis_2016, "palette PNGs (DAVIS, YouTube-VOS)", {"00000.jpg": {"object": [square()]}}),
    "YouTube-VOS": (youtube_vos, "palette PNGs (DAVIS, YouTube-VOS)", {"00000.jpg": BOTH}),
    "YouTube-VIS": (ytvis, "YouTube-VIS", {"0.jpg": {"car": [square()]}, "1.jpg": {}}),
    "CocoVID": (cocovid, "CocoVID", {"0.png": {"car": [square()]}, "1.png": {}}),
}


def masks_of(found: VideoSet) -> dict[str, dict[str, list[NDArray[np.uint8]]]]:
    """Masks by the last part of each frame's name and the class."""
    names = {category.id: category.name for category in found.truth.categories}
    shown: dict[str, dict[str, list[NDArray[np.uint8]]]] = {}
    for video in found.truth.videos:
        for frame, name in enumerate(video.file_names):
            assert (found.images / name).is_file()
            held = shown.setdefault(Path(name).name, {})
            for entry in found.truth.annotations:
                if entry.video_id != video.id:
                    continue
                mask = entry.segmentations[frame]
                label = "ignored" if entry.is_crowd else names[entry.category_id]
                if mask is not None:
                    held.setdefault(label, []).append(decode_segmentation(mask, video.height, video.width))
                elif entry.boxes and entry.boxes[frame]:
                    x, y, w, h = (round(number) for number in entry.boxes[frame])
                    held.setdefault(f"box {label}", []).append(bbox_mask(x, y, x + w, y + h))
    return shown


def zipped(root: Path, folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder / "export"), "zip", root))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("make", "form", "expected"), FORMS.values(), ids=FORMS)
def test_every_form_is_known_and_read_to_the_pixel(
    tmp_path: Path,
    make: Callable[[Path], None],
    form: str,
    expected: dict[str, dict[str, list[NDArray[np.uint8]]]],
    packed: bool,
) -> None:
    root = tmp_path / "root"
    make(root)
    found = open_labels([zipped(root, tmp_path) if packed else root])
    shown = masks_of(found)
    assert found.form == form
    assert f"read as {form}" in found.notes
    assert shown.keys() == expected.keys()
    for name, classes in expected.items():
        for label, masks in classes.items():
            # Masks of curves are compared elsewhere.
            for mask, wanted in zip(shown[name].get(label, []), masks, strict=bool(masks)):
                np.testing.assert_array_equal(mask, wanted, err_msg=f"{name} {label}")
        if not classes:
            assert not shown[name]


def test_a_yolo_set_of_another_machine_is_found(tmp_path: Path) -> None:
    yolo_from_elsewhere(tmp_path)
    found = open_labels([tmp_path / "set"])
    np.testing.assert_array_equal(masks_of(found)["a.png"]["car"][0], square())


@pytest.mark.parametrize("split", ["", "train"])
def test_yolo_labels_whose_picture_is_gone_are_told(tmp_path: Path, split: str) -> None:
    yolo(tmp_path)
    (tmp_path / "train/labels/notes.txt").write_bytes(b"\xe9 no labels")
    assert "without a picture" not in " ".join(open_labels([tmp_path], split=split).notes)
    lost = tmp_path / "train/labels/lost.txt"
    write(lost, "0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    assert (
        f"label files without a picture are left out: 1, such as {lost}" in open_labels([tmp_path], split=split).notes
    )


def test_a_folder_is_listed_as_often_for_many_pictures_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[str] = []
    scandir = os.scandir

    def counted(path: Any) -> Any:
        listings.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    for count in (2, 20):
        root = tmp_path / str(count)
        for number in range(count):
            labelme_file(root, f"p{number}", shape("car", SQUARE))
        assert len(open_labels([root]).truth.videos) == count
    few, many = (listings.count(str(tmp_path / name)) for name in ("2", "20"))
    assert few == many > 0


def test_ellipses_and_boxes_of_cvat(tmp_path: Path) -> None:
    cvat_images(tmp_path)
    found = open_labels([tmp_path])
    shown = masks_of(found)["b.png"]
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((x - 16) / 5) ** 2 + ((y - 18) / 3) ** 2 < 1
    assert np.count_nonzero(shown["person"][0] != inside) <= 4
    np.testing.assert_array_equal(shown["box person"][0], bbox_mask(1, 14, 5, 18))
    assert "left out, as they are no masks: points 1, tag 1" in found.notes
    assert [category.name for category in found.truth.categories] == ["car", "person", "empty"]


def test_a_track_keeps_its_identity_and_one_label_file_will_do(tmp_path: Path) -> None:
    cvat_video(tmp_path)
    (video,) = (found := open_labels([tmp_path / "annotations.xml"])).truth.videos
    car, person = found.truth.annotations
    assert video.length == 3
    assert [mask is not None for mask in car.segmentations] == [True, False, True]
    assert [mask is not None for mask in person.segmentations] == [False, True, False]


@pytest.mark.parametrize(("make", "form", "expected"), FORMS.values(), ids=FORMS)
def test_what_is_converted_is_read_again_the_same(
    tmp_path: Path, make: Callable[[Path], None], form: str, expected: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "root")
    assert main(["convert", str(tmp_path / "root"), str(tmp_path / "out")]) == 0
    assert f"read as {form}" in capsys.readouterr().out
    before, after = open_labels([tmp_path / "root"]), open_labels([tmp_path / "out"])
    assert after.form == "YouTube-VIS"
    one, other = masks_of(before), masks_of(after)
    assert one.keys() == other.keys() == expected.keys()
    for name, classes in one.items():
        assert classes.keys() == other[name].keys()
        for label, masks in classes.items():
            for mask, again in zip(masks, other[name][label], strict=True):
                np.testing.assert_array_equal(mask, again)


WAYS = {"copy": ("copy", False, False), "link": ("link", True, False), "none": ("none", None, True)}


@pytest.mark.parametrize(("pictures_as", "linked", "absolute"), WAYS.values(), ids=WAYS)
def test_pictures_are_copied_linked_or_left(
    tmp_path: Path, pictures_as: str, linked: bool | None, absolute: bool
) -> None:
    labelme(tmp_path / "root")
    assert main(["convert", str(tmp_path / "root"), str(tmp_path / "out"), "--pictures", pictures_as]) == 0
    copied = tmp_path / "out/JPEGImages/b.png"
    assert copied.exists() == (linked is not None)
    assert copied.is_symlink() == bool(linked)
    names = [video.file_names[0] for video in open_labels([tmp_path / "out"]).truth.videos]
    assert all(Path(name).is_absolute() == absolute for name in names)


def labelled(root: Path, *names: str) -> Path:
    """labelme pictures that show one object of each class."""
    labelme_file(root, "p", *(shape(name, [(x + 9 * k, y) for x, y in SQUARE]) for k, name in enumerate(names)))
    return root


def test_several_sources_have_one_table_of_classes(tmp_path: Path) -> None:
    """The second knows no person, so that what it does not label is not background."""
    one, other = labelled(tmp_path / "one", "car", "person"), tmp_path / "other"
    yolo_listed(other)
    found = open_label_set([one, other])
    assert found.class_names == ("car", "person")
    assert any('no class "person"' in note for note in found.notes)
    values = [set(np.unique(paint_labels(found.clips[k], 0))) for k in range(2)]
    assert values == [{0, 1, 2}, {1, IGNORE}]
    only = open_label_set([one, other], classes="car")
    assert not any('no class "person"' in note for note in only.notes)  # which is not trained
    assert set(np.unique(paint_labels(only.clips[1], 0))) == {0, 1}
    again = open_label_set([one, other], rename={"person": "car"})
    assert again.class_names == ("car",)
    assert set(np.unique(paint_labels(again.clips[1], 0))) == {0, 1}


def test_what_is_to_be_ignored_is_so_whatever_classes_are_trained(tmp_path: Path) -> None:
    labelme(tmp_path)
    found = open_label_set([tmp_path], classes="person")
    labels = [paint_labels(found.clips[k], 0) for k in range(len(found.clips))]
    assert any((values == IGNORE).any() for values in labels)


SPLIT_FORMS = {
    "Roboflow": (roboflow, ["train_jpg.rf.0.jpg"]),
    "YOLO": (yolo, ["a.jpg"]),
    "labelme, where names are no parts": (labelme, ["b.png", "test_1.png"]),
}


@pytest.mark.parametrize(("make", "names"), SPLIT_FORMS.values(), ids=SPLIT_FORMS)
def test_training_takes_the_part_that_is_for_it(tmp_path: Path, make: Callable[[Path], None], names: list[str]) -> None:
    make(tmp_path)
    found = open_label_set([tmp_path])
    assert [Path(found.clips[k].files[0]).name for k in range(len(found.clips))] == names


def test_a_config_names_sources(tmp_path: Path) -> None:
    cvat_images(tmp_path / "one")
    labelme(tmp_path / "two")
    file = tmp_path / "config.toml"
    names = json.dumps([str(zipped(tmp_path / "one", tmp_path)), str(tmp_path / "two")])
    write(file, f'[data]\nsource = "auto"\nannotations = {names}\ncrop = [64, 64]\n[data.rename]\nempty = "car"\n')
    config = load_config(file, []).data
    data = open_training_data(config, total=4, batch=2)
    assert data.class_names == ("car", "person")
    assert data[0].images.shape == (3, 64, 64, 3)
    assert load_config(file, [f"data.annotations={tmp_path / 'two'}", "data.rename={}"]).data.rename == {"empty": "car"}
    for problem in (f"data.annotations={names}", 'data.rename={"a":"b"}'):
        with pytest.raises(ConfigError, match=r'data\.source = "auto"'):
            load_config(file, ["data.source=coco", problem])


def test_a_set_is_split_by_whole_videos_and_every_class_stays(tmp_path: Path) -> None:
    for number in range(10):
        labelme_file(tmp_path, f"p{number}", shape("car", SQUARE), *([shape("rare", SQUARE)] if number == 4 else []))
    found = open_labels([tmp_path])
    for seed in range(5):
        train, val = split_set(found, 0.3, seed)
        assert (len(train.truth.videos), len(val.truth.videos)) == (7, 3)
        assert not {v.id for v in train.truth.videos} & {v.id for v in val.truth.videos}
        assert {entry.category_id for entry in train.truth.annotations} == {1, 2}
    assert split_set(found, 0.3, 0)[1] == split_set(found, 0.3, 0)[1] != split_set(found, 0.3, 1)[1]
    with pytest.raises(SourceError, match="too few"):
        split_set(open_labels([labelled(tmp_path / "one", "car")]))


def test_validation_takes_any_source_and_its_part(tmp_path: Path) -> None:
    yolo(tmp_path / "one")
    labelme(tmp_path / "two")
    found = open_truth(zipped(tmp_path / "one", tmp_path))
    assert [Path(video.file_names[0]).name for video in found.truth.videos] == ["b.jpg"]
    crowds = [entry for entry in open_truth(tmp_path / "two").truth.annotations if entry.is_crowd]
    assert sorted(entry.category_id for entry in crowds) == [1, 2]  # what is to be ignored is so for each class
    config = ValidationConfig(every=1, annotations=str(tmp_path / "two"))
    check_validation(config, ("car",))
    with pytest.raises(ValueError, match="none of the classes"):
        check_validation(config, ("boat",))


def suspicious(root: Path) -> None:
    far = [(x + 21.5, y + 10) for x, y in SQUARE]
    labelme_file(root, "twice", shape("car", SQUARE), shape("car", SQUARE), shape("Car", SQUARE))
    labelme_file(root, "edge", shape("car", far), shape("car", [[1, 1], [3, 1], [3, 3], [1, 3]]))
    labelme_file(root, "box", shape("car", [[1, 1], [9, 9]], "rectangle"))
    labelme_file(root, "bare")
    labelme_file(root, "size", shape("car", SQUARE))
    assert cv2.imwrite(str(root / "size.png"), np.zeros((HEIGHT + 6, WIDTH, 3), np.uint8))
    pictures(root, "unnamed.png")


def test_inspect_says_what_is_suspicious_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suspicious(tmp_path / "root")
    sheet = tmp_path / "sheet.png"
    assert main(["inspect", str(tmp_path / "root"), "--sheet", str(sheet)]) == 0
    text = capsys.readouterr().out
    for said in (
        "read as labelme",
        "pictures that no label file names are left out: 1",
        "5 pictures; 6 objects of 2 classes, 0 ignored regions",
        "objects labelled twice (1): twice.png: car",
        "masks that leave the picture (1): edge.png: car by 2 pixels",
        "objects of less than 16 pixels (1): edge.png: car of 4",
        "boxes without a mask (1): box.png: car",
        "pictures without labels (1): bare.png",
        'classes of nearly the same name (1): "car" and "Car"',
        "size.png: is 30 x 32 pixels",
    ):
        assert said in text, said
    drawn = cv2.imread(str(sheet))
    assert drawn is not None
    assert drawn.shape[1] > 640
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20
    # What inspect only reports, training and convert refuse.
    assert main(["convert", str(tmp_path / "root"), str(tmp_path / "out")]) == 2
    assert "size.png: is 30 x 32 pixels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("instances.json", b" " * (3 * 2**20))
    assert path.stat().st_size < 10_000
    return path


def packed_as(path: Path, name: str, method: int = zipfile.ZIP_DEFLATED, link: bool = False) -> Path:
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    info.external_attr = (0o120777 if link else 0o100644) << 16
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(info, "{}")
    return path


def damaged_zip(path: Path) -> Path:
    cvat_coco(path.parent / "whole")
    data = bytearray(zipped(path.parent / "whole", path.parent).read_bytes())
    start = data.index(b"annotations/instances_default.json") + 60
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    return path


def made(root: Path, make: Callable[..., object], *arguments: Any) -> Path:
    make(root, *arguments)
    return root


def giant(root: Path) -> None:
    pictures(root, "a.png")
    image = {"id": 1, "file_name": "a.png", "width": 10**9, "height": 10**9}
    entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0}
    write(
        root / "instances.json", {"images": [image], "annotations": [entry], "categories": [{"id": 1, "name": "car"}]}
    )


def both(root: Path, *makers: Callable[[Path], object]) -> Path:
    for make in makers:
        make(root)
    return root


def changed(root: Path, make: Callable[[Path], None], name: str, old: str, new: str) -> Path:
    """A set with something else in one of its files."""
    make(root)
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))
    return root


def two(root: Path, first: str, second: str) -> list[Path]:
    return [labelled(root / "first", first), labelled(root / "second", second)]


LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><annotations><version>&c;</version></annotations>'

# What is given to the commands, and words of the one sentence that says what is wrong.
BAD: dict[str, tuple[Callable[[Path], Path | list[Path]], tuple[str, ...]]] = {
    "nothing there": (lambda p: p / "no", ("no: there is no such file or folder", "check the path")),
    "an empty folder": (lambda p: made(p / "e", lambda q: q.mkdir()), ("neither pictures nor labels",)),
    "pictures without labels": (
        lambda p: made(p / "root", pictures, "a.png", "b.png"),
        ("root: holds 2 pictures, but no labels", "data.yaml"),
    ),
    "a picture": (lambda p: made(p, pictures, "a.png") / "a.png", ("a.png: holds no labels that can be read",)),
    "a zip bomb": (lambda p: bomb(p / "b.zip"), ("b.zip: holds 3 MiB", "INSTANCE_FLOW_MAX_UNPACKED_MB")),
    "a way out of the folder": (lambda p: packed_as(p / "b.zip", "a/../../x.json"), ('"a/../../x.json"', "outside")),
    "an absolute path": (lambda p: packed_as(p / "b.zip", "/etc/x.json"), ("outside of the folder",)),
    "a path of Windows": (lambda p: packed_as(p / "b.zip", "..\\x.json"), ("outside of the folder",)),
    "a link": (lambda p: packed_as(p / "b.zip", "x.json", link=True), ('its "x.json" is a link',)),
    "a rare packing": (lambda p: packed_as(p / "b.zip", "x.json", zipfile.ZIP_LZMA), ("packs", "rare method")),
    "a damaged zip": (lambda p: damaged_zip(p / "b.zip"), ("b.zip: is a damaged zip file",)),
    "an empty zip": (lambda p: packed_as(p / "b.zip", "x.mp4"), ("b.zip: holds neither pictures nor labels",)),
    "YOLO, boxes": (
        lambda p: made(p / "root", yolo, "0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.1 0.1\n"),
        ("its 4 labels are boxes", "a.txt", "export the set for segmentation"),
    ),
    "YOLO, an odd count": (
        lambda p: made(p / "root", yolo, "0 0.1 0.1 0.2 0.1 0.2\n"),
        ("train/labels/a.txt: line 1 has 5 coordinates, an odd count",),
    ),
    "YOLO, an odd count in the second line": (
        lambda p: made(p / "root", yolo, "0 0.1 0.1 0.2 0.1 0.2 0.2\n0 0.1 0.1 0.2 0.1 0.2 0.2 0.3\n"),
        ("line 2 has 7 coordinates",),
    ),
    "YOLO, a class out of range": (
        lambda p: made(p / "root", yolo, "2 0.1 0.1 0.2 0.1 0.2 0.2\n"),
        ("line 1 has the class 2, but the set names 2 classes, 0 to 1",),
    ),
    "YOLO, a negative class": (lambda p: made(p / "root", yolo, "-1 0 0 1 0 1 1\n"), ("has the class -1",)),
    "YOLO, half a class": (lambda p: made(p / "root", yolo, "0.5 0 0 1 0 1 1\n"), ("has the class 0.5",)),
    "YOLO, pixels": (lambda p: made(p / "root", yolo, "0 4 4 12 4 12 12\n"), ("coordinate 12", "0 to 1")),
    "YOLO, not finite": (lambda p: made(p / "root", yolo, "0 nan 0 1 0 1 1\n"), ("coordinate nan",)),
    "YOLO, words": (lambda p: made(p / "root", yolo, "car 0 0 1 0 1 1\n"), ("line 1 holds 'car 0 0 1 0 1 1'",)),
    "YOLO, no labels": (lambda p: made(p / "root", yolo, ""), ("data.yaml: no label file belongs to its 3 pictures",)),
    "YOLO, no folder": (
        lambda p: changed(p / "root", yolo, "data.yaml", "train: ../train/images", "train: elsewhere"),
        ('data.yaml: there is no folder "elsewhere"',),
    ),
    "YOLO, names that explode": (
        lambda p: changed(p / "root", yolo, "data.yaml", "['person', 'car']", "[&a [x, x], [*a, *a]]"),
        ("data.yaml: has no text for the name of class 0",),
    ),
    "YOLO, a name twice": (
        lambda p: changed(p / "root", yolo, "data.yaml", "['person', 'car']", "[car, car]"),
        ("data.yaml: names car twice",),
    ),
    "YOLO, another number of classes": (
        lambda p: changed(p / "root", yolo, "data.yaml", "nc: 2", "nc: 5"),
        ("data.yaml: says nc: 5, but names 2 classes",),
    ),
    "labelme, no polygons": (
        lambda p: made(
            p / "r", labelme_file, "a", shape("car", [[1, 1], [9, 9]], "rectangle"), shape("x", [[1, 1]], "point")
        ),
        ("a.json: has no polygons and no masks, only point 1, rectangle 1", "draw the outlines"),
    ),
    "labelme, two points": (
        lambda p: made(p / "r", labelme_file, "a", shape("car", [[1, 1], [9, 9]])),
        ('a.json: shape 0 ("car") is a polygon of 2 points',),
    ),
    "labelme, an unknown shape": (
        lambda p: made(p / "r", labelme_file, "a", shape("car", SQUARE, "spline")),
        ("shape 0", "is a spline, but polygons"),
    ),
    "labelme, a broken mask": (
        lambda p: made(p / "r", labelme_file, "a", shape("car", [[1, 1], [9, 9]], "mask", mask="QUJD")),
        ("a.json: shape 0", "a mask that is no picture"),
    ),
    "labelme, no picture": (
        lambda p: changed(p / "r", labelme, "b.json", '"b.png"', '"c.png"'),
        ('b.json: the picture "c.png" is not there', "--images"),
    ),
    "labelme, cut short": (
        lambda p: changed(p / "r", labelme, "b.json", '"imageData"', "{"),
        ("b.json: is not JSON",),
    ),
    "labelme, far outside": (
        lambda p: made(p / "r", labelme_file, "a", shape("car", [[0, 0], [500, 0], [0, 500]])),
        ("bad mask in a.png", "reaches from"),
    ),
    "COCO, a giant": (
        lambda p: made(p / "r", giant),
        ("r/instances.json: ", "1000000000 x 1000000000"),
    ),
    "CVAT, a document type": (lambda p: made(p / "a.xml", write, LAUGHS), ("a.xml: is not XML", "document type")),
    "CVAT, cut short": (
        lambda p: changed(p / "r", cvat_images, "annotations.xml", "</annotations>", ""),
        ("annotations.xml: is not XML, or cut short",),
    ),
    "CVAT, run lengths of another size": (
        lambda p: changed(p / "r", cvat_images, "annotations.xml", 'width="13"', 'width="12"'),
        ('annotations.xml: a mask of "person" in a.png', "run lengths sum to"),
    ),
    "CVAT, no pictures": (
        lambda p: changed(p / "r", cvat_images, "annotations.xml", 'name="a.png"', 'name="z.png"'),
        ('the picture "z.png" is not there', "export the pictures with the labels"),
    ),
    "CVAT, a frame without its picture": (
        lambda p: changed(p / "r", cvat_video, "annotations.xml", 'frame="14"', 'frame="15"'),
        ("in frame 15", "export with the images"),
    ),
    "Label Studio, a brush of another size": (
        lambda p: changed(
            p / "r", label_studio, "project-1-at-2024.json", f'"original_width": {WIDTH}', '"original_width": 31'
        ),
        ("project-1-at-2024.json: task 7 has a brush mask of 3072 values", "has 2976"),
    ),
    "palettes, colours": (
        lambda p: both(p / "r", davis, lambda q: pictures(q / "Annotations/480p/cars", "00000.png")),
        ("00000.png: is a label picture of colours (mode RGB)",),
    ),
    "palettes, larger than can be read": (
        lambda p: both(p / "r", davis, lambda q: claimed(q / "Annotations/480p/cars/00002.png", 10_000, 10_000)),
        ("00002.png: cannot be read as a label picture: the image has 10000 rows of 10000 pixels",),
    ),
    "palettes, giant": (
        lambda p: both(p / "r", davis, lambda q: claimed(q / "Annotations/480p/cars/00002.png", 50_000, 50_000)),
        ("00002.png: cannot be read as a label picture: ",),
    ),
    "palettes, cut off": (
        lambda p: both(p / "r", davis, lambda q: cut(q / "Annotations/480p/cars/00002.png")),
        ("00002.png: cannot be read as a label picture",),
    ),
    "palettes, no picture": (
        lambda p: both(p / "r", davis, lambda q: (q / "JPEGImages/480p/cars/00002.jpg").unlink()),
        ("00002.png: labels a picture that is not in",),
    ),
    "two forms in one folder": (
        lambda p: both(p / "r", labelme, cvat_images),
        ("holds labels in several forms, CVAT (annotations.xml), labelme (b.json)",),
    ),
    "contradictory class names": (
        lambda p: two(p, "Traffic_Light", "traffic light"),
        ('second: calls a class "traffic light"', 'first calls "Traffic_Light"', "--rename"),
    ),
    "one source twice": (lambda p: [labelled(p / "r", "car"), p / "r"], ("r: is named twice",)),
}


@pytest.mark.parametrize("command", ["inspect", "convert"])
@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_sentence_and_nothing_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Path | list[Path]],
    words: tuple[str, ...],
    command: str,
) -> None:
    monkeypatch.setattr(sources, "MAX_UNPACKED", 2 * 2**20)
    (tmp_path / "in").mkdir()
    given = make(tmp_path / "in")
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    paths = [str(path) for path in (given if isinstance(given, list) else [given])]
    sheet = ["--sheet", str(out / "sheet.png")]
    code = main([command, *paths, *(sheet if command == "inspect" else [str(out)])])
    said = capsys.readouterr()
    if command == "inspect" and "bad mask" in words[0]:
        assert (code, "bad mask" in said.out) == (0, True)  # inspect lists it
        return
    assert (code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("instance-flow-data: error: ")
    for word in words:
        assert word in said.err
    assert str(temporary) not in said.err
    assert not out.exists()
    assert not list(temporary.iterdir())
