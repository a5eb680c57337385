# SPDX-License-Identifier: Apache-2.0
"""labelme: a JSON file for each picture, with polygons, circles and masks (github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.image_encodings import check_size
from instance_flow.formats.picture_size import picture_size
from instance_flow.structures import SourceError
from instance_flow_training.data.crowds import AUTO
from instance_flow_training.data.formats.build import SetBuilder, ellipse, flat_polygon, run_length_mask
from instance_flow_training.data.formats.source import Source, naming, split_of, to_text
from instance_flow_training.data.set_files import read_header
from instance_flow_training.data.video_sets import ANY_CATEGORY, VideoSet

NAME = "labelme"
_IGNORED, _BACKGROUND = "__ignore__", "_background_"
"""labelme's own names for pixels that are to be ignored, and for what is no object."""
_NO_MASKS = ("line", "linestrip", "point", "points")


def find(source: Source) -> list[Path]:
    """JSON files of one picture with a list of shapes."""
    return [path for path in source.with_ending(".json") if _is_labelme(source.json(path))]


def read(source: Source, files: list[Path], split: str, _crowds: str = AUTO, lenient: bool = False) -> VideoSet:
    """Every picture a still. Shapes of one label and group_id are parts of one object."""
    chosen = source.in_split({path: split_of(path, source.root) for path in files}, split)
    builder = SetBuilder(NAME, source.path, source.root)
    kinds: Counter[str] = Counter()
    for path in chosen:
        with naming(path):
            kinds.update(_read_picture(source, path, builder))
    if kinds and not any(kinds[kind] for kind in ("polygon", "mask", "circle")):
        listed = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        raise SourceError(
            f"{chosen[0] if len(chosen) == 1 else source.path}: has no polygons and no masks, only {listed}; draw the "
            "outlines of the objects as polygons, or their masks"
        )
    return builder.build(lenient)


def _is_labelme(data: Any) -> bool:
    return isinstance(data, Mapping) and isinstance(data.get("shapes"), list) and "imagePath" in data


def _read_picture(source: Source, path: Path, builder: SetBuilder) -> Counter[str]:
    data = source.json(path)
    picture = source.picture(to_text(data["imagePath"], "imagePath").replace("\\", "/"), path.parent)
    builder.claim(picture, path)
    # Old versions did not state the size.
    stated = data.get("imageHeight") is not None
    height, width = (_whole(data, "imageHeight"), _whole(data, "imageWidth")) if stated else read_header(picture).size
    builder.video([picture], height, width)
    kinds: Counter[str] = Counter()
    for index, shape in enumerate(data["shapes"]):
        if not isinstance(shape, Mapping):
            raise ValueError(f"shape {index} is no JSON object")
        label, group = to_text(shape.get("label"), f"the label of shape {index}"), shape.get("group_id")
        if label == _BACKGROUND:
            continue
        kind, where = str(shape.get("shape_type") or "polygon"), f'shape {index} ("{shown(label)}")'
        kinds[kind] += 1
        if kind in _NO_MASKS:
            builder.leave_out(f"{kind}s" if kind == "line" else kind)
            continue
        ignored = label == _IGNORED
        category = ANY_CATEGORY if ignored else builder.category(label)
        key = None if group is None else (label, str(group))
        points = shape.get("points")
        if kind == "rectangle":
            (x, y), (far_x, far_y) = _pair(points, where)
            box = [min(x, far_x), min(y, far_y), abs(far_x - x), abs(far_y - y)]
            if ignored:
                left, top, w, h = box
                corners = [left, top, left + w, top, left + w, top + h, left, top + h]
                builder.part(key, category, 0, [corners], is_crowd=True)
            else:
                builder.box(key, category, 0, box)
            continue
        if kind == "circle":
            (x, y), (edge_x, edge_y) = _pair(points, where)
            radius = math.hypot(edge_x - x, edge_y - y)
            mask: Any = [ellipse(x, y, radius, radius)]
        elif kind == "mask":
            (x, y), _ = _pair(points, where)
            mask = run_length_mask(_mask(shape.get("mask"), where), height, width, int(x), int(y))
        elif kind == "polygon":
            mask = [flat_polygon(points, where)]
        else:
            raise ValueError(f"{where} is a {shown(kind)}, but polygons, masks, circles and rectangles are read")
        builder.part(key, category, 0, mask, is_crowd=ignored)
    return kinds


def _whole(data: Mapping[str, Any], key: str) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"has {key} = {shown(value)}, but a whole number of at least 1 is needed")
    return value


def _pair(points: Any, where: str) -> list[tuple[float, float]]:
    try:
        pair = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError):
        pair = []
    if len(pair) != 2 or not np.isfinite(pair).all():
        raise ValueError(f"{where} must have 2 points x, y")
    return pair


def _mask(text: Any, where: str) -> Any:
    """The PNG in a shape of labelme, nonzero = object."""
    try:
        data = base64.b64decode(text, validate=True)
        check_size(*picture_size(data))
        mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (TypeError, binascii.Error, ValueError, cv2.error) as error:
        raise ValueError(f"{where} has a mask that is no picture ({shown(error)}); save the file again") from error
    if mask is None:
        raise ValueError(f"{where} has a mask that is a damaged picture; save the file again")
    return mask
