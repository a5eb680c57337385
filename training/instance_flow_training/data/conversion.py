# SPDX-License-Identifier: Apache-2.0
"""A set of labels written in YouTube-VIS's form, with its pictures, whole or not at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath

from instance_flow.formats.atomic import replacing
from instance_flow.formats.ytvis import Category, write_ground_truth
from instance_flow.structures import SourceError
from instance_flow_training.data.formats.source import packed_name
from instance_flow_training.data.merging import class_names
from instance_flow_training.data.video_sets import ANY_CATEGORY, VideoSet

COPY, LINK, NONE = PICTURES = ("copy", "link", "none")
LABELS, FOLDER = "instances.json", "JPEGImages"


def packed_picture(found: VideoSet) -> str | None:
    """The place of a picture that was unpacked from a zip file, and goes with this process; None where none was."""
    return next((place for place in _places(found).values() if packed_name(place) != place), None)


def write_set(found: VideoSet, out: Path, pictures: str = COPY) -> None:
    """Write ``out``/instances.json, and ``out``/JPEGImages with the pictures copied or as links to where they are.

    pictures: one of ``PICTURES``; with "none" the labels name the pictures where they are.
    Raises SourceError where ``out`` is a file or holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SourceError(f"{out}: is there already, and no empty folder; give a new or empty folder")
    places = _places(found)
    if pictures != COPY and (packed := packed_picture(found)):
        raise SourceError(f"{packed_name(packed)}: lies in a zip file, which no link can lead into; copy the pictures")
    names = places if pictures == NONE else _short_names(places)
    # Categories that hold nothing but others are left out, and ids count from 1.
    kept = class_names(found)
    rows = {name: number for number, name in enumerate(dict.fromkeys(kept.values()), 1)}
    new_ids = {ANY_CATEGORY: 1, **{old: rows[name] for old, name in kept.items()}}
    truth = replace(
        found.truth,
        categories=tuple(Category(number, name) for name, number in rows.items()),
        videos=tuple(
            replace(video, file_names=tuple(names[name] for name in video.file_names)) for video in found.truth.videos
        ),
        annotations=tuple(
            replace(entry, category_id=new_ids[entry.category_id])
            for entry in found.truth.annotations
            if entry.category_id in new_ids
        ),
    )
    if not rows:
        raise SourceError(
            f"{found.truth.source}: names no class, so that there is nothing to train; label some objects"
        )
    with replacing(out) as folder:
        folder.mkdir()
        if pictures != NONE:
            _bring(places, names, folder / FOLDER, link=pictures == LINK)
        write_ground_truth(folder / LABELS, truth, found.partial)


def _places(found: VideoSet) -> dict[str, str]:
    """Where the pictures are, by the names that the set has for them."""
    files = dict.fromkeys(name for video in found.truth.videos for name in video.file_names)
    return {name: str((found.images / name).absolute()) for name in files}


def _short_names(places: dict[str, str]) -> dict[str, str]:
    """Names below the folder that all pictures share. Where that is one folder alone, only the files' own."""
    said = {name: packed_name(place) for name, place in places.items()}
    root = os.path.commonpath([os.path.dirname(place) for place in said.values()])
    return {name: PurePosixPath(os.path.relpath(place, root)).as_posix() for name, place in said.items()}


def _bring(places: dict[str, str], names: dict[str, str], folder: Path, link: bool) -> None:
    for name, place in places.items():
        target = folder / names[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(place)
        else:
            shutil.copyfile(place, target)
