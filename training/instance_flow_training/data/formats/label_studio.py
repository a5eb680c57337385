# SPDX-License-Identifier: Apache-2.0
"""Label Studio's JSON and JSON-MIN exports: polygons, brush masks, ellipses and rectangles (labelstud.io/guide).

Coordinates are hundredths of the picture's width and height. A brush mask is the bytes of an RGBA picture, packed by
thi.ng's rle-pack: 32 bits say how many values there are, 5 bits the bits of a value less 1, four times 4 bits the bits
of the four kinds of counts less 1. Then, to the end: 1 bit whether one value is repeated, 2 bits the kind of count, the
count less 1, and one value, or as many as the count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.image_encodings import check_size
from instance_flow_training.data.crowds import AUTO
from instance_flow_training.data.formats.build import SetBuilder, ellipse, flat_polygon, run_length_mask, turned_box
from instance_flow_training.data.formats.source import PICTURES, Source, naming, split_of
from instance_flow_training.data.merging import merge_sets
from instance_flow_training.data.set_files import read_header
from instance_flow_training.data.video_sets import VideoSet

NAME = "Label Studio"
_LABELS = ("polygonlabels", "brushlabels", "ellipselabels", "rectanglelabels", "labels")
_HEADER_BITS = 32 + 5 + 4 * 4


def find(source: Source) -> list[Path]:
    """JSON lists of tasks."""
    return [path for path in source.with_ending(".json") if _is_label_studio(source.json(path))]


def read(source: Source, files: list[Path], split: str, _crowds: str = AUTO, lenient: bool = False) -> VideoSet:
    """Every task a still. Of a task that several people labelled, the ground truth, or else the last one, is taken."""
    chosen = source.in_split({path: split_of(path, source.root, by_name=source.whole) for path in files}, split)
    return merge_sets([_read(source, path, lenient) for path in chosen])


def _is_label_studio(data: Any) -> bool:
    if not isinstance(data, list) or not data or not isinstance(data[0], Mapping):
        return False
    first = data[0]
    if isinstance(first.get("data"), Mapping):
        return "annotations" in first or "completions" in first
    minimal = any(_regions_of_minimal(task) for task in data if isinstance(task, Mapping))
    return minimal and any(_picture_of(task) for task in data if isinstance(task, Mapping))


def _read(source: Source, path: Path, lenient: bool) -> VideoSet:
    builder = SetBuilder(NAME, path, source.root)
    with naming(path):
        for index, task in enumerate(source.json(path)):
            if not isinstance(task, Mapping):
                raise ValueError(f"task {index} is no JSON object")
            _read_task(source, path, task, f"task {shown(task.get('id', index))}", builder)
    return builder.build(lenient)


def _read_task(source: Source, path: Path, task: Mapping[str, Any], where: str, builder: SetBuilder) -> None:
    written = _picture_of(task)
    if written is None:
        raise ValueError(f"{where} names no picture in its data; export a project of pictures")
    picture = source.picture(written, path.parent, path.parent / "images")
    builder.claim(picture, where)
    regions = [region for region in _regions(task, where, builder) if isinstance(region.get("value"), Mapping)]
    stated = [(r["original_height"], r["original_width"]) for r in regions if r.get("original_width")]
    if len(set(stated)) > 1:
        raise ValueError(f"{where} states several sizes of its picture; label each picture in a task of its own")
    height, width = (int(n) for n in stated[0]) if stated else read_header(picture).size
    builder.video([picture], height, width)
    labelled = {region.get("id") for region in regions if _kind(region["value"])}
    for region in regions:
        if _kind(region["value"]):
            _read_region(region, (height, width), where, builder)
        # Of <Polygon> beside <Labels> there are two entries of one region, one of them with its label.
        elif region.get("id") not in labelled and any(key in region["value"] for key in ("points", "rle", "x")):
            builder.leave_out("regions without a label")


def _kind(value: Mapping[str, Any]) -> str | None:
    """The key of a region's labels."""
    return next((key for key in _LABELS if isinstance(value.get(key), list) and value[key]), None)


def _read_region(region: Mapping[str, Any], size: tuple[int, int], where: str, builder: SetBuilder) -> None:
    value = region["value"]
    label = str(value[_kind(value)][0])
    if region.get("image_rotation"):
        raise ValueError(f"{where} was labelled on a turned picture; turn the file itself and label it upright")
    height, width = size
    category = builder.category(label)
    if "rle" in value:
        builder.part(None, category, 0, run_length_mask(_brush(value["rle"], height, width, where), height, width))
    elif "points" in value:
        points = [[x * width / 100, y * height / 100] for x, y in value["points"]]
        builder.part(None, category, 0, [flat_polygon(points, f'{where}: "{shown(label)}"')])
    elif "radiusX" in value:
        x, y, rx, ry = (float(value[key]) / 100 for key in ("x", "y", "radiusX", "radiusY"))
        turn = float(value.get("rotation") or 0)
        builder.part(None, category, 0, [ellipse(x * width, y * height, rx * width, ry * height, turn)])
    elif "height" in value:
        x, y, w, h = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
        x, y, w, h = x * width, y * height, w * width, h * height
        # Label Studio turns a rectangle about its upper left corner.
        builder.box(None, category, 0, turned_box(x, y, w, h, float(value.get("rotation") or 0), (x, y)))
    else:
        builder.leave_out(str(region.get("type") or "region"))


def _picture_of(task: Mapping[str, Any]) -> str | None:
    """What a task calls its picture: under "image", or else the only text that ends as a picture's name does."""
    data = task["data"] if isinstance(task.get("data"), Mapping) else task
    if isinstance(data.get("image"), str):
        return str(data["image"])
    named = [value for value in data.values() if isinstance(value, str) and _is_picture(value)]
    return named[0] if len(named) == 1 else None


def _is_picture(text: str) -> bool:
    return Path(text.partition("?")[0]).suffix.lower() in PICTURES or (
        text.startswith("/data/local-files") and Path(text).suffix.lower() in PICTURES
    )


def _regions(task: Mapping[str, Any], where: str, builder: SetBuilder) -> list[Mapping[str, Any]]:
    if not isinstance(task.get("data"), Mapping):
        return list(_regions_of_minimal(task))
    made = task.get("annotations", task.get("completions")) or []
    if not isinstance(made, list) or not all(isinstance(entry, Mapping) for entry in made):
        raise ValueError(f"{where} has annotations that are no list of JSON objects")
    kept = [entry for entry in made if not entry.get("was_cancelled")]
    if len(kept) > 1:
        builder.note("tasks with several annotations count once: the ground truth, or else the last annotation")
    if not kept:
        return []
    best = max(kept, key=lambda entry: (bool(entry.get("ground_truth")), str(entry.get("updated_at") or "")))
    result = best.get("result") or []
    return [region for region in result if isinstance(region, Mapping)] if isinstance(result, list) else []


def _regions_of_minimal(task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """JSON-MIN has the values themselves, in a list under the name of the tag."""
    for value in task.values():
        if isinstance(value, list):
            for entry in value:
                if isinstance(entry, Mapping) and any(key in entry for key in _LABELS):
                    yield {**entry, "value": entry}


def _brush(data: Any, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """The mask (height, width) of a brush; raises ValueError where it is damaged or of another size."""
    check_size(height, width)
    if not isinstance(data, Sequence) or not all(isinstance(byte, int) and 0 <= byte < 256 for byte in data):
        raise ValueError(f"{where} has a brush mask that is no list of bytes")
    packed = np.array(data, np.uint8)
    expected = height * width * 4
    count = int.from_bytes(packed[:4].tobytes(), "big")
    if len(packed) * 8 < _HEADER_BITS or count != expected:
        raise ValueError(
            f"{where} has a brush mask of {count} values, but the picture of {height} x {width} pixels (height x "
            f"width) has {expected}; export it again"
        )
    alpha = np.zeros(height * width, np.uint8)
    if not _unpack(packed, alpha):
        raise ValueError(f"{where} has a brush mask that is damaged or cut short; export it again")
    # Edges are smooth, but what other tools import may have 1 for "there".
    return (alpha > int(alpha.max()) // 2).reshape(height, width)


@njit(cache=True, nogil=True)
def _bits(packed: NDArray[np.uint8], place: int, count: int) -> int:
    """``count`` bits from bit ``place`` on, highest first; they must be there."""
    value = 0
    for bit in range(place, place + count):
        value = value << 1 | (packed[bit >> 3] >> (7 - (bit & 7)) & 1)
    return value


@njit(cache=True, nogil=True)
def _unpack(packed: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> bool:
    """Give every fourth value into ``alpha``; whether there were enough of them."""
    end, total = len(packed) * 8, 4 * len(alpha)
    word = _bits(packed, 32, 5) + 1
    sizes = np.array([_bits(packed, 37 + 4 * k, 4) + 1 for k in range(4)])
    place, done = 53, 0
    while done < total:
        if place + 3 > end:
            return False
        repeated, size = _bits(packed, place, 1), sizes[_bits(packed, place + 1, 2)]
        place += 3
        if place + size > end:
            return False
        count = _bits(packed, place, size) + 1
        place += size
        if place + word * (1 if repeated else count) > end:
            return False
        value = 0
        for k in range(count):
            if k == 0 or not repeated:
                value = _bits(packed, place, word)
                place += word
            if done < total and done % 4 == 3:
                alpha[done // 4] = min(value, 255)
            done += 1
    return True
