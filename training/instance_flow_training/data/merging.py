# SPDX-License-Identifier: Apache-2.0
"""Several sets as one, with one table of classes by name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from filecmp import cmp
from pathlib import Path
from typing import Any

import numpy as np

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video
from instance_flow.structures import SourceError
from instance_flow_training.data.class_tables import ALL_CLASSES, categories_in_use, is_list
from instance_flow_training.data.video_sets import ANY_CATEGORY, VideoSet


def merge_sets(sets: Sequence[VideoSet]) -> VideoSet:
    """One set with the videos of all, the classes joined by name, and new ids. One set alone stays as it is.

    Its file names are absolute. Raises SourceError where there is no set.
    """
    if len(sets) == 1:
        return sets[0]
    tables = [class_names(found) for found in sets]
    names = dict.fromkeys(name for table in tables for name in table.values())
    new_categories = {name: number for number, name in enumerate(names, 1)}
    videos: list[Video] = []
    annotations: list[Annotation] = []
    partial: set[int] = set()
    for found, table in zip(sets, tables, strict=True):
        new_ids = {}
        for number, video in enumerate(found.truth.videos, len(videos) + 1):
            files = tuple(str((found.images / name).absolute()) for name in video.file_names)
            videos.append(replace(video, id=number, file_names=files))
            new_ids[video.id] = number
        partial.update(new_ids[number] for number in found.partial)
        for entry in found.truth.annotations:
            if entry.category_id in table or entry.category_id == ANY_CATEGORY:
                name = table.get(entry.category_id)
                category_id = ANY_CATEGORY if name is None else new_categories[name]
                number = len(annotations) + 1
                annotations.append(replace(entry, id=number, video_id=new_ids[entry.video_id], category_id=category_id))
    categories = tuple(Category(number, name) for name, number in new_categories.items())
    entries: list[Mapping[str, Any]] = [vars(category) for category in categories]
    source = ", ".join(dict.fromkeys(found.truth.source for found in sets))
    return VideoSet(
        GroundTruth(tuple(videos), categories, tuple(annotations), source),
        *(Path("/"), frozenset(partial), entries),
        tuple(dict.fromkeys(note for found in sets for note in found.notes)),
        tuple(problem for found in sets for problem in found.problems),
        ", ".join(dict.fromkeys(found.form for found in sets)),
    )


def class_names(found: VideoSet) -> dict[int, str]:
    """The names of a set's classes by category id, without a category that only stands above others."""
    used = {entry.category_id for entry in found.truth.annotations}
    return categories_in_use(found.categories, used, ALL_CLASSES)[0]


def rename_classes(found: VideoSet, names: Mapping[str, str]) -> VideoSet:
    """The set with other names for its classes, so that several become one where they get the same."""
    entries = [{**entry, "name": names.get(str(entry.get("name")), entry.get("name"))} for entry in found.categories]
    categories = tuple(replace(entry, name=names.get(entry.name, entry.name)) for entry in found.truth.categories)
    return replace(found, categories=entries, truth=replace(found.truth, categories=categories))


def check_names(sets: Mapping[str, VideoSet]) -> None:
    """Raises SourceError where two sources name what is clearly the same class differently, such as Car and car.

    sets: by how the user names them.
    """
    first: dict[str, tuple[str, str]] = {}
    for source, found in sets.items():
        for name in class_names(found).values():
            other, before = first.setdefault(plain_name(name), (source, name))
            if before != name and other != source:
                raise SourceError(
                    f'{source}: calls a class "{shown(name)}" that {other} calls "{shown(before)}"; give both one name '
                    f'with --rename "{shown(name)}={shown(before)}" or data.rename'
                )


def complete_tables(sets: Mapping[str, VideoSet], classes: str = ALL_CLASSES) -> list[VideoSet]:
    """The sets, those that lack a class of others marked as partly labelled: what they do not label may be of it.

    sets: by how the user names them.   classes: as for ``choose_classes``; what is not trained need not be labelled.
    """
    tables = {source: class_names(found) for source, found in sets.items()}
    everything = {
        tables[source].get(entry.category_id, "") for source, found in sets.items() for entry in found.truth.annotations
    } - {""}
    if is_list(classes):
        everything &= {name.strip() for name in classes.split(",")}
    done = []
    for source, found in sets.items():
        absent = sorted(everything.difference(tables[source].values()))
        if absent:
            listed = ", ".join(f'"{shown(name)}"' for name in absent[:5]) + (", ..." if len(absent) > 5 else "")
            note = (
                f"{source}: has no class {listed}, so that what it does not label may be one, and is left out of the "
                "losses; where that is wrong, list the class in its label file"
            )
            every = frozenset(video.id for video in found.truth.videos)
            found = replace(found, partial=every, notes=(*found.notes, note))
        done.append(found)
    return done


def split_set(found: VideoSet, share: float = 0.2, seed: int = 0) -> tuple[VideoSet, VideoSet]:
    """The set in two, for training and validation, by whole videos at random; ``share`` of them, at least one, in the
    second. A video that alone shows a class stays in the first.

    Raises SourceError where no video can be spared.
    """
    shows: dict[int, set[int]] = {video.id: set() for video in found.truth.videos}
    for entry in found.truth.annotations:
        if not entry.is_crowd and any(entry.segmentations):
            shows[entry.video_id].add(entry.category_id)
    left = {category: sum(category in its for its in shows.values()) for category in set().union(*shows.values())}
    order = np.random.default_rng(seed).permutation(np.array([video.id for video in found.truth.videos], np.int64))
    wanted, held = max(1, round(share * len(order))), set[int]()
    for number in sorted(order.tolist(), key=lambda number: not shows[number]):
        if len(held) < wanted and all(left[category] > 1 for category in shows[number]):
            held.add(number)
            for category in shows[number]:
                left[category] -= 1
    if not any(shows[number] for number in held):
        raise SourceError(
            f"{found.truth.source}: has {len(order)} pictures or videos, too few to keep some for validation; label "
            "more, or name a set for validation"
        )
    return choose_videos(found, shows.keys() - held), choose_videos(found, held)


def shared_videos(found: VideoSet, other: VideoSet) -> set[int]:
    """Ids of the videos of ``found`` that the other set shows, too: one of their files, or files of the same names and
    bytes, as where one export holds what another held."""
    theirs: dict[tuple[str, int], list[str]] = {}
    for video in other.truth.videos:
        for name in video.file_names:
            path = os.path.realpath(other.images / name)
            theirs.setdefault((os.path.basename(path), os.path.getsize(path)), []).append(path)

    def is_shown(video: Video) -> bool:
        files = [os.path.realpath(found.images / name) for name in video.file_names]
        alike = [theirs.get((os.path.basename(path), os.path.getsize(path)), []) for path in files]
        if any(path in some for path, some in zip(files, alike, strict=True)):
            return True
        # Of videos all frames: a black one is in many.
        return all(any(cmp(path, one, shallow=False) for one in some) for path, some in zip(files, alike, strict=True))

    return {video.id for video in found.truth.videos if is_shown(video)}


def choose_videos(found: VideoSet, ids: Iterable[int]) -> VideoSet:
    """The set with only these videos, by id, and all its classes."""
    chosen = set(ids)
    truth = replace(
        found.truth,
        videos=tuple(video for video in found.truth.videos if video.id in chosen),
        annotations=tuple(entry for entry in found.truth.annotations if entry.video_id in chosen),
    )
    return replace(found, truth=truth, partial=found.partial & chosen)


def shuffled(found: VideoSet, seed: int = 0) -> VideoSet:
    """The set with its videos in random order."""
    order = np.random.default_rng(seed).permutation(len(found.truth.videos))
    videos = tuple(found.truth.videos[number] for number in order)
    return replace(found, truth=replace(found.truth, videos=videos))


def by_video(found: VideoSet) -> Iterator[tuple[Video, list[Annotation]]]:
    """Each video with its annotations."""
    entries: dict[int, list[Annotation]] = {video.id: [] for video in found.truth.videos}
    for entry in found.truth.annotations:
        entries[entry.video_id].append(entry)
    return ((video, entries[video.id]) for video in found.truth.videos)


def plain_name(name: str) -> str:
    """A class name as names are compared: without case, and with all that parts words alike."""
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()
