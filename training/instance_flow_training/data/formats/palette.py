# SPDX-License-Identifier: Apache-2.0
"""Folders of label pictures whose pixels hold the numbers of objects: DAVIS, YouTube-VOS, and others in their form.

JPEGImages/VIDEO/00000.jpg belongs to Annotations/VIDEO/00000.png, maybe with a folder for the resolution between. A
number is the same object in all frames of a video; 0 is background, 255 is to be ignored. YouTube-VOS names classes in
a meta.json; elsewhere all objects are of the class "object".
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats import rle
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.image_encodings import check_size
from instance_flow.structures import SourceError
from instance_flow_training.data.crowds import AUTO
from instance_flow_training.data.formats.build import SetBuilder
from instance_flow_training.data.formats.source import Source, naming, split_of
from instance_flow_training.data.video_sets import ANY_CATEGORY, VideoSet

NAME = "palette PNGs"
_LABELS, _PICTURES = "Annotations", "JPEGImages"
_VOID = 255
_ONE_CLASS = "object"


def find(source: Source) -> list[Path]:
    """PNG files below a folder Annotations that has JPEGImages beside it."""
    return [path for path in source.with_ending(".png") if (root := _root(path)) and (root / _PICTURES).is_dir()]


def read(source: Source, files: list[Path], split: str, _crowds: str = AUTO, lenient: bool = False) -> VideoSet:
    """Each folder of label pictures as one video of the frames that have one."""
    videos: dict[Path, list[Path]] = {}
    for path in source.in_split({path: split_of(path, source.root) for path in files}, split):
        videos.setdefault(path.parent, []).append(path)
    builder = SetBuilder("palette PNGs (DAVIS, YouTube-VOS)", source.path, source.root)
    metas: dict[Path, Any] = {}
    more = 0
    for folder, labels in videos.items():
        root = _root(labels[0]) or folder
        if root not in metas:
            metas[root] = _meta(source, root)
        with naming(folder):
            more += _read_video(source, root, sorted(labels), _classes(metas[root], folder.name), builder)
    if more:
        builder.note(f"frames without a label picture are left out: {more}")
    return builder.build(lenient)


def _root(path: Path) -> Path | None:
    """The folder that holds Annotations."""
    return next((folder.parent for folder in path.parents if folder.name == _LABELS), None)


def _meta(source: Source, root: Path) -> Any:
    path = next((path for path in (root / "meta.json", root.parent / "meta.json") if path.is_file()), None)
    data = source.json(path) if path else {}
    videos = data.get("videos") if isinstance(data, Mapping) else None
    return videos if isinstance(videos, Mapping) else {}


def _classes(videos: Mapping[str, Any], name: str) -> dict[int, str]:
    """The classes of a video's objects by their number."""
    entry = videos.get(name)
    objects = entry.get("objects") if isinstance(entry, Mapping) else None
    if not isinstance(objects, Mapping):
        return {}
    return {int(k): str(v["category"]) for k, v in objects.items() if isinstance(v, Mapping) and "category" in v}


def _read_video(source: Source, root: Path, labels: list[Path], classes: Mapping[int, str], builder: SetBuilder) -> int:
    """Gives how many pictures of the video have no labels."""
    place = labels[0].parent.relative_to(root / _LABELS)
    folder = root / _PICTURES / place
    pictures = {path.stem: path for path in source.pictures(folder) if path.parent == folder}
    if not pictures:
        raise SourceError(f"{folder}: holds no pictures, but {labels[0].parent} labels some; put them there")
    files = []
    for path in labels:
        if path.stem not in pictures:
            raise SourceError(f"{path}: labels a picture that is not in {folder}; put it there, or remove the labels")
        files.append(pictures[path.stem])
    maps = [_label_map(path) for path in labels]
    height, width = maps[0].shape
    for path, labelled in zip(labels, maps, strict=True):
        if labelled.shape != (height, width):
            raise SourceError(
                f"{path}: is {labelled.shape[0]} x {labelled.shape[1]} pixels (height x width), but the first of its "
                f"video is {height} x {width}; frames of a video have one size"
            )
    builder.video(files, height, width)
    held = [np.unique(labelled) for labelled in maps]
    everything = set(np.unique(np.concatenate(held)).tolist())
    black_and_white = everything <= {0, _VOID} and _VOID in everything
    if black_and_white:
        builder.note("label pictures of 0 and 255 alone are taken for one object each, as those of DAVIS 2016")
    for frame, (labelled, numbers) in enumerate(zip(maps, held, strict=True)):
        wanted = numbers[numbers > 0]
        for number, runs in zip(wanted.tolist(), rle.label_run_lengths(labelled, wanted), strict=True):
            mask = {"size": [height, width], "counts": rle.compress(runs)}
            ignored = number == _VOID and not black_and_white
            category = ANY_CATEGORY if ignored else builder.category(classes.get(number, _ONE_CLASS))
            builder.part(number, category, frame, mask, is_crowd=ignored)
    return len(pictures.keys() - {path.stem for path in labels})


def _label_map(path: Path) -> NDArray[np.uint8]:
    """Numbers of objects (H, W); raises SourceError for a picture of colours."""
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():
            # Of a picture that is too large check_size says so; Pillow raises an error of its own for giant ones.
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            with Pillow.open(path, formats=("PNG",)) as picture:
                check_size(picture.height, picture.width)
                if picture.mode == "1":
                    return np.asarray(picture, np.uint8) * np.uint8(_VOID)
                if picture.mode not in ("P", "L"):
                    raise SourceError(
                        f"{path}: is a label picture of colours (mode {picture.mode}); save it with a palette, the "
                        "number of the object in each pixel"
                    )
                return np.asarray(picture, np.uint8)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise SourceError(f"{path}: cannot be read as a label picture: {shown(error, 200)}") from error
