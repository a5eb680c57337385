# SPDX-License-Identifier: Apache-2.0
"""Files of a data set: which they are, whether all are there, and one sentence about the first that is not right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instance_flow import rle
from instance_flow.image_encodings import decode_compressed
from instance_flow.json_files import paused_collection
from instance_flow.structures import Image, SourceError
from instance_flow.ytvis import Annotation, Segmentation, Video

_OUTSIDE = 0.05
"""How far a polygon may leave the image, as a fraction of its longer side; farther, it belongs to another image."""


def find_annotations(path: Path, usual: Sequence[str]) -> Path:
    """The annotation file itself, or for a folder the first of its ``usual`` files; raises SourceError without one."""
    if not path.is_dir():
        return path
    for name in usual:
        if (path / name).is_file():
            return path / name
    raise SourceError(f"{path}: holds none of {', '.join(usual)}; give the path of the annotation file itself")


def damaged_masks(annotations: Iterable[Annotation], videos: dict[int, Video]) -> list[str]:
    """One sentence for every mask whose run lengths do not fill its frame, or whose polygon does not fit into it."""
    problems = []
    for annotation in annotations:
        video = videos[annotation.video_id]
        for frame, mask in enumerate(annotation.segmentations):
            problem = "" if mask is None else _mask_problem(mask, video.height, video.width)
            if problem:
                problems.append(f"annotation {annotation.id} has a bad mask in {video.file_names[frame]}: {problem}")
    return problems


def raise_first(source: Path, problems: Sequence[str]) -> None:
    """Raise SourceError with the first problem and the number of the others, if there is one."""
    if problems:
        more = f" (and {len(problems) - 1} more problems like this)" if len(problems) > 1 else ""
        raise SourceError(f"{source}: {problems[0]}{more}")


@paused_collection()
def read_json(path: Path) -> Any:
    """What a JSON file holds; raises SourceError where it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check data.annotations") from error
    except ValueError as error:
        raise SourceError(f"{path}: is not JSON ({error}); get or write the file again") from error


def read_frame(path: Path, height: int, width: int) -> Image:
    """A picture (height, width, 3) uint8 RGB; raises SourceError where the file is damaged or has another size."""
    try:
        image = decode_compressed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as a picture: {error}") from error
    if image.shape[:2] != (height, width):
        raise SourceError(
            f"{path}: is {image.shape[0]} x {image.shape[1]} pixels (height x width), but the annotations are for "
            f"{height} x {width}; use the frames as they come with the data set"
        )
    return image


def _mask_problem(mask: Segmentation, height: int, width: int) -> str:
    try:
        if isinstance(mask, dict):
            _check_run_lengths(mask, height, width)
        else:
            _check_polygons(mask, height, width)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def _check_run_lengths(mask: dict[str, Any], height: int, width: int) -> None:
    _, size = rle.parse(mask)
    if size != (height, width):
        raise ValueError(f"its size is {list(size)}, but the image's is [{height}, {width}] (height, width)")


def _check_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> None:
    if not polygons:
        raise ValueError("its list of polygons is empty")
    for polygon in polygons:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError("a polygon is a flat list of at least 3 points x, y, all of them finite numbers")
        slack = _OUTSIDE * max(height, width)
        x, y = points[0::2], points[1::2]
        if min(x.min(), y.min()) < -slack or x.max() > width + slack or y.max() > height + slack:
            raise ValueError(
                f"its polygon reaches from ({x.min():g}, {y.min():g}) to ({x.max():g}, {y.max():g}), "
                f"but the image is {width} x {height} pixels wide and high"
            )
