# SPDX-License-Identifier: Apache-2.0
"""CVAT's own XML, version 1.1, for images and for video (docs.cvat.ai, "XML annotation format")."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from instance_flow.formats import rle
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.ytvis import Segmentation
from instance_flow.structures import SourceError
from instance_flow_training.data.crowds import AUTO
from instance_flow_training.data.formats.build import SetBuilder, ellipse, flat_polygon, run_length_mask, turned_box
from instance_flow_training.data.formats.source import Source, naming, read_xml, split_of, to_text
from instance_flow_training.data.merging import merge_sets
from instance_flow_training.data.set_files import read_header
from instance_flow_training.data.video_sets import VideoSet

NAME = "CVAT"
_SHAPES = ("polygon", "mask", "ellipse", "box")
_NO_MASKS = ("polyline", "points", "cuboid", "skeleton", "tag")
_FRAME = re.compile(r"(\d+)$")


def find(source: Source) -> list[Path]:
    """XML files that begin as CVAT's do."""
    return [path for path in source.with_ending(".xml") if _is_cvat(path)]


def read(source: Source, files: list[Path], split: str, _crowds: str = AUTO, lenient: bool = False) -> VideoSet:
    """Images as stills; tracks as one video. Shapes of one label and group are parts of one object."""
    chosen = source.in_split({path: split_of(path, source.root) for path in files}, split)
    roots = {path: read_xml(path) for path in chosen}
    # The files of several tasks have one choice of parts.
    images = source.in_split(
        {image: _split(image) for root in roots.values() for image in root.iterfind("image")}, split
    )
    wanted = set(images)
    return merge_sets(
        [
            _read(source, path, root, wanted, lenient)
            for path, root in roots.items()
            if root.find("image") is None or not wanted.isdisjoint(root.iterfind("image"))
        ]
    )


def _is_cvat(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096)
    # "meta" parts it from the XML of Pascal VOC and the old LabelMe, whose root is "annotation".
    return b"<annotations" in head and (b"<version" in head or b"<meta" in head)


def _read(source: Source, path: Path, root: Element, wanted: Container[Element], lenient: bool) -> VideoSet:
    """wanted: the images that are read."""
    images, tracks = root.findall("image"), root.findall("track")
    if images and tracks:
        raise SourceError(f"{path}: holds images and tracks; export it for images or for video")
    builder = SetBuilder(f"CVAT for {'video' if tracks else 'images'} 1.1", path, source.root)
    with naming(path):
        for label in root.iterfind("./meta//label"):
            # The parts of a skeleton have labels of their own.
            if label.findtext("parent") is None and (name := label.findtext("name")):
                builder.category(name)
        if tracks:
            _read_video(source, path, root, tracks, builder)
        else:
            for image in images:
                if image in wanted:
                    _read_image(source, path, image, builder)
    return builder.build(lenient)


def _split(image: Element) -> str:
    return split_of(Path(f"{image.get('subset', '')}/_").absolute(), Path().absolute())


def _read_image(source: Source, path: Path, image: Element, builder: SetBuilder) -> None:
    name = to_text(image.get("name"), "the name of an image")
    near = [path.parent / "images", path.parent]
    if subset := image.get("subset"):
        near = [path.parent / "images" / subset, *near]
    picture = source.picture(name, *near)
    builder.claim(picture, f"image {image.get('id')}")
    height, width = _number(image, "height"), _number(image, "width")
    builder.video([picture], height, width)
    for shape in image:
        if shape.tag in _NO_MASKS:
            builder.leave_out(shape.tag)
        elif shape.tag in _SHAPES:
            label = to_text(shape.get("label"), "the label of a shape")
            where = f'a {shape.tag} of "{shown(label)}" in {shown(name)}'
            _add(builder, shape, 0, _group(shape, label), builder.category(label), (height, width), where)


def _read_video(source: Source, path: Path, root: Element, tracks: list[Element], builder: SetBuilder) -> None:
    if len({track.get("task_id") for track in tracks}) > 1:
        raise ValueError("holds tracks of several tasks, whose frames have the same numbers; export each task alone")
    files = _frame_files(source, path, root)
    size = root.find("./meta//original_size")
    if size is None:
        height, width = read_header(next(iter(files.values()))).size
    else:
        height, width = int(size.findtext("height") or 0), int(size.findtext("width") or 0)
    places = {number: place for place, number in enumerate(files)}
    builder.video(list(files.values()), height, width)
    for track in tracks:
        label = to_text(track.get("label"), "the label of a track")
        key = _group(track, label) or ("track", track.get("id"))
        for shape in track:
            if shape.get("outside") == "1":
                continue
            if shape.tag in _NO_MASKS:
                builder.leave_out(f"{shape.tag} of tracks")
            elif shape.tag in _SHAPES:
                number = _number(shape, "frame")
                where = f'a {shape.tag} of the track {shown(track.get("id"))} ("{shown(label)}") in frame {number}'
                if number not in places:
                    raise ValueError(f"{where}: the picture of this frame is not there; export with the images")
                _add(builder, shape, places[number], key, builder.category(label), (height, width), where)


def _frame_files(source: Source, path: Path, root: Element) -> dict[int, Path]:
    """The pictures of a video by the number of their frame."""
    folder = next((f for f in (path.parent / "images", source.images, path.parent) if f and f.is_dir()), path.parent)
    pictures = source.pictures(folder)
    if not pictures:
        raise ValueError(
            f"the frames are not in {folder}; export the task with its images, or name their folder by --images "
            "(data.images)"
        )
    numbered = {
        int(match[1]): picture
        for picture in pictures
        if picture.stem.startswith("frame_") and (match := _FRAME.search(picture.stem))
    }
    if len(numbered) == len(pictures):
        return dict(sorted(numbered.items()))
    size = root.findtext("./meta/*/size")
    if size and int(size) == len(pictures):
        start = int(root.findtext("./meta/*/start_frame") or 0)
        return dict(enumerate(pictures, start))
    raise ValueError(
        f"has {size or 'an unknown number of'} frames, but {len(pictures)} pictures lie in {folder}, not named "
        "frame_000000 and so on; export the task with its images"
    )


def _add(
    builder: SetBuilder, shape: Element, frame: int, key: Any, category: int, size: tuple[int, int], where: str
) -> None:
    try:
        degrees = float(shape.get("rotation") or 0)
        if shape.tag == "box":
            x, y, right, bottom = (float(shape.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
            about = ((x + right) / 2, (y + bottom) / 2)
            builder.box(key, category, frame, turned_box(x, y, right - x, bottom - y, degrees, about))
        else:
            builder.part(key, category, frame, _mask(shape, degrees, size, where))
    except KeyError as error:
        raise ValueError(f"{where} has no {error}") from error
    except ValueError as error:
        raise ValueError(str(error) if where in str(error) else f"{where}: {error}") from error


def _mask(shape: Element, degrees: float, size: tuple[int, int], where: str) -> Segmentation:
    attributes: Mapping[str, str] = shape.attrib
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = (float(attributes[name]) for name in ("cx", "cy", "rx", "ry"))
        return [ellipse(x, y, radius_x, radius_y, degrees)]
    if shape.tag == "polygon":
        points = [pair.split(",") for pair in attributes["points"].split(";") if pair.strip()]
        return [flat_polygon([[float(number) for number in pair] for pair in points], where)]
    # Row by row within the window, background first.
    left, top, width, height = (int(float(attributes[name])) for name in ("left", "top", "width", "height"))
    runs = np.array([int(count) for count in attributes["rle"].split(",")], np.int64)
    mask = rle.from_run_lengths(runs, (width, height)).T
    return run_length_mask(mask, *size, left, top)


def _group(shape: Element, label: str) -> Any:
    group = shape.get("group_id")
    return ("group", group, label) if group and group != "0" else None


def _number(element: Element, name: str) -> int:
    try:
        return int(element.attrib[name])
    except ValueError:
        raise ValueError(f"an {element.tag} has {name} = {shown(element.get(name))}, not a whole number") from None
