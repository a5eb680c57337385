# SPDX-License-Identifier: Apache-2.0
"""Any source of labels, in whichever form, as one set: which form it is, is found by what the files hold."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.ytvis import Annotation
from instance_flow.structures import MAX_PIXELS, SourceError
from instance_flow_training.data.annotated_clips import ClipSet
from instance_flow_training.data.class_tables import ALL_CLASSES
from instance_flow_training.data.crowds import AUTO
from instance_flow_training.data.formats import coco, cvat, label_studio, labelme, palette, yolo
from instance_flow_training.data.formats.source import Source, packed_name
from instance_flow_training.data.merging import (
    check_names,
    choose_videos,
    class_names,
    complete_tables,
    merge_sets,
    rename_classes,
    shared_videos,
    shuffled,
    split_set,
)
from instance_flow_training.data.video_sets import ANNOTATION_FILES, ANY_CATEGORY, VideoSet, clip_set_of, read_video_set


class Format(NamedTuple):
    """find: the label files of this form in a source.   read: them, of a split, with crowds settled, lenient or not."""

    name: str
    find: Callable[[Source], list[Path]]
    read: Callable[[Source, list[Path], str, str, bool], VideoSet]


FORMATS = tuple(
    Format(module.NAME, module.find, module.read) for module in (coco, cvat, label_studio, labelme, yolo, palette)
)
MOST_DRAWN = 1000
"""Videos that are kept for validation at random, of however many: more hardly make the result surer."""
KNOWN = "COCO, CocoVID, YouTube-VIS, CVAT XML, Label Studio JSON, labelme, YOLO with data.yaml, or palette PNGs"


def open_labels(
    paths: Sequence[Path],
    images: Path | None = None,
    split: str = "",
    crowds: str = AUTO,
    rename: Mapping[str, str] | None = None,
    classes: str = ALL_CLASSES,
    *,
    lenient: bool = False,
) -> VideoSet:
    """Read one or several sources as one set with one table of classes by name.

    paths: folders, zip files and label files.   images: a further folder in which pictures are looked for.
    split: "train", "val" or "test" of sources that have parts, "" = everything.   crowds: as for ``settle_crowds``.
    rename: new names of classes by their old ones.   classes: those that will be trained, as for ``choose_classes``;
        all of the set are read.
    lenient: bad masks and pictures become ``problems`` of the set.
    Raises SourceError, naming the first thing that is wrong.
    """
    _check_named_once(paths)
    sets: dict[str, VideoSet] = {}
    for path in paths:
        source = Source(path, images)
        with _naming_packed():
            sets[str(path)] = _told(_read(source, split, crowds, lenient), source, len(paths) > 1)
    sets = _renamed(sets, rename or {})
    check_names(sets)
    return merge_sets(complete_tables(sets, classes))


def open_parts(
    paths: Sequence[Path],
    images: Path | None = None,
    val: Path | None = None,
    rename: Mapping[str, str] | None = None,
    share: float = 0.2,
    seed: int = 0,
) -> tuple[VideoSet, VideoSet]:
    """A set to train on and one to validate on, with no picture in both; arguments and errors of ``open_labels``.

    val: the source to validate on, read as by ``open_truth``. Without it that is, of a source that has a part for
        validation, this part, and of the others together ``share`` of their videos, at most ``MOST_DRAWN``, as by
        ``split_set``.
    The videos to validate on come in random order, so that the first so many are like all of them.
    """
    _check_named_once(paths)
    sets: dict[str, VideoSet] = {}
    held: dict[str, VideoSet] = {}
    for path in paths:
        source = Source(path, images)
        with _naming_packed():
            found = _read(source, "train", AUTO, lenient=False)
            part = _part_for_validation(source, found) if val is None else None
        sets[str(path)] = _told(found, source, len(paths) > 1)
        if part is not None:
            held[f"{path} (its part for validation)"] = _told(part, source, len(paths) > 1)
    if val is not None:
        held[f"{val} (to validate on)"] = open_truth(val, images)
    named = _renamed({**sets, **held}, rename or {})
    sets, held = ({name: named[name] for name in some} for some in (sets, held))
    check_names(sets if val is None else named)
    whole = dict(zip(paths, complete_tables(sets), strict=True))
    notes: list[str] = []
    loose = [] if val is not None else [path for path in paths if f"{path} (its part for validation)" not in held]
    trained, validated = [whole[path] for path in paths if path not in loose], list(held.values())
    if validated and val is None:
        count = sum(len(found.truth.videos) for found in validated)
        notes.append(f"{count} pictures or videos are validated on, as the parts of their sources say")
    if loose:
        among = sum(len(whole[path].truth.videos) for path in loose)
        share = min(share, MOST_DRAWN / max(1, among))
        rest, drawn = _drawn([whole[path] for path in loose], share, seed, bool(validated))
        trained.append(rest)
        validated += drawn
        count = sum(len(found.truth.videos) for found in drawn)
        notes.append(
            f"{count} of {among} pictures or videos of {', '.join(map(str, loose))}, drawn at random, are validated on"
        )
    return _apart(merge_sets(trained), shuffled(merge_sets(validated), seed), notes)


def _check_named_once(paths: Sequence[Path]) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise SourceError(f"{path}: is named twice; name each source once")


def _part_for_validation(source: Source, train: VideoSet) -> VideoSet | None:
    """The part of a source that was read for training, without what is in both: that is for training."""
    if "val" not in source.parts:
        return None
    found = _read(source, "val", AUTO, lenient=False)
    spare = {video.id for video in found.truth.videos} - shared_videos(found, train)
    return choose_videos(found, spare) if spare else None


def _drawn(loose: Sequence[VideoSet], share: float, seed: int, optional: bool) -> tuple[VideoSet, list[VideoSet]]:
    """Sets without a part for validation as one to train on and what is drawn of it, nothing where that can be and no
    video can be spared."""
    found = merge_sets(loose)
    try:
        rest, drawn = split_set(found, share, seed)
    except SourceError:
        if optional:
            return found, []
        raise
    return rest, [drawn]


def _apart(train: VideoSet, val: VideoSet, notes: Sequence[str]) -> tuple[VideoSet, VideoSet]:
    """Both sets without a picture in both."""
    again = shared_videos(train, val)
    if len(again) == len(train.truth.videos):
        raise SourceError(
            f"{train.truth.source}: all of its pictures are among those to validate on; name others to validate on, or "
            "none, so that some of them are kept for it"
        )
    if again:
        train = choose_videos(train, {video.id for video in train.truth.videos} - again)
        notes = [*notes, f"{len(again)} pictures or videos are not trained on, as they are validated on"]
    return replace(train, notes=(*train.notes, *notes)), _ignored_in_all(val)


def _renamed(sets: Mapping[str, VideoSet], rename: Mapping[str, str]) -> dict[str, VideoSet]:
    """The sets with other names for their classes. Raises SourceError for a name that none of them has."""
    names = {name for found in sets.values() for name in class_names(found).values()}
    for name in rename:
        if name not in names:
            raise SourceError(
                f'{", ".join(sets)}: has no class "{shown(name)}" to rename; it has {", ".join(sorted(names))}'
            )
    return {source: rename_classes(found, rename) for source, found in sets.items()}


@contextmanager
def _naming_packed() -> Iterator[None]:
    """Errors name what is in a zip file by the zip file."""
    try:
        yield
    except SourceError as error:
        raise SourceError(packed_name(error)) from error


def _told(found: VideoSet, source: Source, several: bool) -> VideoSet:
    """The set with notes that say what it was read as, and of which of several sources they are."""
    where = f"{source.path}: " if several else ""
    return replace(
        found,
        truth=replace(found.truth, source=packed_name(found.truth.source)),
        notes=tuple(packed_name(f"{where}{note}") for note in (f"read as {found.form}", *found.notes)),
        problems=tuple(packed_name(problem) for problem in found.problems),
    )


def open_truth(path: Path, images: Path | None = None) -> VideoSet:
    """A set to measure on: of a source that has parts, its part "val". Arguments and errors of ``open_labels``.

    The root of a set as YouTube-VIS and OVIS distribute it is read as ``read_video_set`` does, since their parts for
    validation come without labels.
    """
    if path.is_dir() and any((path / name).is_file() for name in ANNOTATION_FILES):
        return read_video_set(path, images)
    return _ignored_in_all(open_labels([path], images, "val"))


def _ignored_in_all(found: VideoSet) -> VideoSet:
    """The set with the regions that are to be ignored as crowds of each class: classes are measured one by one."""
    numbers = itertools.count(max((entry.id for entry in found.truth.annotations), default=0) + 1)
    annotations: list[Annotation] = []
    for entry in found.truth.annotations:
        if entry.category_id == ANY_CATEGORY:
            annotations += [
                replace(entry, id=next(numbers), category_id=category.id) for category in found.truth.categories
            ]
        else:
            annotations.append(entry)
    return replace(found, truth=replace(found.truth, annotations=tuple(annotations)))


def open_label_set(
    paths: Sequence[Path],
    images: Path | None = None,
    classes: str = ALL_CLASSES,
    ignore_unlabelled: bool = False,
    crowds: str = AUTO,
    rename: Mapping[str, str] | None = None,
) -> ClipSet:
    """The clips of one or several sources for training, of their part "train" where they have one.

    Arguments and errors of ``open_labels``, and of ``open_video_set``.
    """
    return clip_set_of(open_labels(paths, images, "train", crowds, rename, classes), classes, ignore_unlabelled)


def _read(source: Source, split: str, crowds: str, lenient: bool) -> VideoSet:
    fitting = [(form, files) for form in FORMATS if (files := form.find(source))]
    if len(fitting) > 1:
        listed = ", ".join(f"{form.name} ({files[0].relative_to(source.root)})" for form, files in fitting)
        raise SourceError(f"{source.path}: holds labels in several forms, {listed}; name the label file to read")
    if not fitting:
        raise SourceError(_nothing(source))
    form, files = fitting[0]
    found = form.read(source, files, split, crowds, lenient)
    if not found.truth.videos:
        raise SourceError(f"{source.path}: has no pictures of the part {split!r}; leave the choice of a part away")
    _check_sizes(found)
    if split or not source.whole or form.name == palette.NAME:
        return found
    used = {os.path.abspath(found.images / name) for video in found.truth.videos for name in video.file_names}
    spare = [path for path in source.pictures() if os.path.abspath(path) not in used]
    if spare:
        note = f"pictures that no label file names are left out: {len(spare)}, such as {spare[0]}"
        found = replace(found, notes=(*found.notes, note))
    return found


def _check_sizes(found: VideoSet) -> None:
    """Label files state the sizes of pictures. Those that no picture can have would take their memory when drawn."""
    for video in found.truth.videos:
        if video.height * video.width > MAX_PIXELS:
            raise SourceError(
                f"{found.truth.source}: says {shown(video.file_names[0])} is {video.height} x {video.width} pixels "
                f"(height x width), but at most {MAX_PIXELS} are read; correct its size"
            )


def _nothing(source: Source) -> str:
    """What to say of a source without labels."""
    if source.path.is_file() and not source.unpacked:
        return f"{source.path}: holds no labels that can be read; give {KNOWN}"
    count = len(source.pictures())
    if not count:
        return f"{source.path}: holds neither pictures nor labels; give a folder or zip file with {KNOWN}"
    boxes = any(path.stem == picture.stem for picture in source.pictures() for path in source.with_ending(".txt"))
    if boxes:
        return (
            f"{source.path}: holds {count} pictures and text files of the same names, as YOLO's, but no data.yaml with "
            "the names of the classes; add one"
        )
    return f"{source.path}: holds {count} pictures, but no labels; label them, or add {KNOWN}"
