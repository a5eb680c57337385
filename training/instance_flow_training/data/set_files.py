# SPDX-License-Identifier: Apache-2.0
"""Files of a data set: which they are, whether all are there, and one sentence about the first that is not right."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from instance_flow.formats import rle
from instance_flow.formats.image_encodings import check_size, decode_compressed
from instance_flow.formats.json_files import paused_collection
from instance_flow.formats.picture_size import picture_size
from instance_flow.formats.ytvis import Annotation, Segmentation, Video
from instance_flow.structures import Image, SourceError

log = logging.getLogger(__name__)

_OUTSIDE = 0.05
"""How far a polygon may leave the image, as a fraction of its longer side; farther, it belongs to another image."""

_READERS = 8
"""Threads that read headers: they wait for the disk most of the time."""
_MANY = 10_000
"""Number of pictures from which the wait is logged."""
_ORIENTATION = 0x112
_TAIL = 1 << 16
"""Bytes at the end of a PNG in which a chunk after the pixels lies."""


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
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: is not JSON ({error}); get or write the file again") from error


class Header(NamedTuple):
    """Of a picture file. size: (height, width) of what ``read_frame`` gives.   turned: its EXIF orientation is not 1.

    sideways: it is turned by 90 degrees, so that the stored picture has the other size.
    """

    size: tuple[int, int]
    turned: bool
    sideways: bool


def read_header(path: Path) -> Header:
    """Size and orientation without the pixels; raises SourceError for what is no picture, or a JPEG or PNG cut off."""
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            stored = picture_size(data)
            check_size(*stored)
            orientation = _orientation(file, data)
            if orientation is None:
                return Header(decode_compressed(data, upright=True).shape[:2], False, False)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as a picture: {error}") from error
    sideways = orientation in (5, 6, 7, 8)
    return Header(stored[::-1] if sideways else stored, orientation in range(2, 9), sideways)


def check_pictures(images: Path, videos: Iterable[Video]) -> tuple[list[str], list[str]]:
    """Whether every frame is a picture of its video's size, by its header.

    Returns a sentence for each that is not, and what to tell the user of the others.
    """
    frames = [(images / name, video.height, video.width) for video in videos for name in video.file_names]

    def examine(frame: tuple[Path, int, int]) -> tuple[str, bool]:
        path, height, width = frame
        try:
            header = read_header(path)
            _check_frame(path, header, height, width)
        except SourceError as error:
            return str(error), False
        return "", header.turned

    if len(frames) > _MANY:
        log.info(f"looking at the headers of {len(frames)} pictures in {images}")
    with warnings.catch_warnings(), ThreadPoolExecutor(_READERS) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        examined = list(pool.map(examine, frames))
    turned = sum(is_turned for _, is_turned in examined)
    notes = [f"{turned} picture(s) are turned upright, as their EXIF orientation says"] if turned else []
    return [problem for problem, _ in examined if problem], notes


def read_frame(path: Path, height: int, width: int) -> Image:
    """A picture (height, width, 3) uint8 RGB, upright by its EXIF orientation.

    Raises SourceError where the file is damaged or has another size.
    """
    try:
        image = decode_compressed(path.read_bytes(), upright=True)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as a picture: {error}") from error
    _check_frame(path, Header(image.shape[:2], False, False), height, width)
    return image


def _check_frame(path: Path, header: Header, height: int, width: int) -> None:
    if header.size == (height, width):
        return
    if header.sideways and header.size == (width, height):
        raise SourceError(
            f"{path}: is {header.size[0]} x {header.size[1]} pixels (height x width) when turned upright by its EXIF "
            f"orientation, but the annotations are for {height} x {width}, the picture as it is stored; label the "
            "upright picture, or remove the orientation from the file"
        )
    raise SourceError(
        f"{path}: is {header.size[0]} x {header.size[1]} pixels (height x width), but the annotations are for "
        f"{height} x {width}; use the frames as they come with the data set"
    )


def _orientation(file: BinaryIO, data: mmap) -> int | None:
    """The EXIF orientation, 1 where there is none; None without Pillow, which a robot's install does not have.

    Found as OpenCV finds it: XMP and PNG's text do not count.
    """
    try:
        from PIL import Image as Pillow
        from PIL.TiffImagePlugin import TiffImageFile
    except ModuleNotFoundError:
        return None
    try:
        with Pillow.open(file, formats=("JPEG", "PNG", "WEBP", "TIFF")) as picture:
            if isinstance(picture, TiffImageFile):
                return int(picture.tag_v2.get(_ORIENTATION, 1))
            if picture.format == "PNG" and "exif" not in picture.info and b"eXIf" in data[-_TAIL:]:
                picture.load()  # The chunk may follow the pixels.
            tags = Pillow.Exif()
            tags.load(picture.info.get("exif") or b"")
            return int(tags.get(_ORIENTATION, 1))
    except Exception:  # Whatever is wrong with a file's metadata, its pixels may be right: OpenCV does not turn it.
        return 1


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
