# SPDX-License-Identifier: Apache-2.0
"""Which bag of a folder shows which video of a ground truth, and which class of a model is which of its categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from instance_flow.formats.bags import is_bag
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.json_files import read_json
from instance_flow.formats.ytvis import GroundTruth, Video
from instance_flow.structures import SourceError


@dataclass(frozen=True)
class Matching:
    """Pairs of bag and video by the bag's name; and the names of bags and videos that have no partner."""

    pairs: dict[str, tuple[Path, Video]]
    lone_bags: list[str]
    lone_videos: list[str]


def find_bags(folder: Path) -> dict[str, Path]:
    """The bags in a folder by their names, without .mcap or .db3; SourceError where there is none, or a name twice."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; give one that holds bags (.mcap, .db3, bag folders)")
    paths = sorted(path for path in folder.iterdir() if is_bag(path))
    if not paths:
        raise SourceError(f"{folder} holds no bags (.mcap, .db3, bag folders)")
    names = [path.name if path.is_dir() else path.stem for path in paths]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SourceError(f"{folder} holds two bags named {twice[0]}; rename or remove one of them")
    return dict(zip(names, paths, strict=True))


def match_bags(bags: Mapping[str, Path], ground_truth: GroundTruth, mapping: Path | None = None) -> Matching:
    """Find each bag's video: the one whose pictures (``file_names``) lie in a folder of the bag's name.

    mapping: JSON file with an object {name of a bag: name or id of a video}, for those that are named differently.
    Raises SourceError where a name stands for two videos, the mapping is damaged, or nothing matches.
    """
    by_name = videos_by_name(ground_truth)
    wanted = {name: by_name[name] for name in bags if name in by_name}
    for bag, video in _read_mapping(mapping).items() if mapping else ():
        if bag not in bags:
            raise SourceError(f"{mapping}: there is no bag named '{shown(bag)}'; bags: {_listing(bags)}")
        wanted[bag] = _find_video(video, by_name, ground_truth, mapping)
    pairs = {name: (bags[name], wanted[name]) for name in bags if name in wanted}
    taken = Counter(video.id for _, video in pairs.values())
    if taken and (most := taken.most_common(1)[0])[1] > 1:
        both = [name for name, (_, video) in pairs.items() if video.id == most[0]]
        raise SourceError(f"the bags {' and '.join(both)} are both of video {most[0]}; map each to a video of its own")
    if not pairs:
        raise SourceError(
            f"no bag has the name of a video of {ground_truth.source}; bags: {_listing(bags)}; videos: "
            f"{_listing(by_name) or 'their file_names are in no folder'}; map them by a file (--videos)"
        )
    lone_videos = [_name(video) or f"id {video.id}" for video in ground_truth.videos if video.id not in taken]
    return Matching(pairs, [name for name in bags if name not in pairs], lone_videos)


def match_categories(class_names: Sequence[str], ground_truth: GroundTruth) -> tuple[int, ...]:
    """The category id of each class of a model: that of its name; SourceError where the two have no name in common.

    A class that is no category gets an id that none has, since what it finds is none of the true objects.
    """
    ids = {category.name: category.id for category in ground_truth.categories}
    if not ids.keys() & set(class_names):
        raise SourceError(
            f"{ground_truth.source}: none of its categories ({_listing(ids)}) is a class of the model "
            f"({_listing(class_names)})"
        )
    unknown = max(ids.values()) + 1
    return tuple(ids.get(name, unknown) for name in class_names)


def videos_by_name(ground_truth: GroundTruth) -> dict[str, Video]:
    """The videos by the name of the folder that their pictures lie in; SourceError where two have the same."""
    named: dict[str, Video] = {}
    for video in ground_truth.videos:
        name = _name(video)
        if name in named:
            raise SourceError(f"{ground_truth.source}: two videos have their pictures in a folder named {shown(name)}")
        if name:
            named[name] = video
    return named


def _name(video: Video) -> str:
    """The folder of its pictures; empty where they are in none."""
    return PurePosixPath(video.file_names[0]).parent.name if video.file_names else ""


def _read_mapping(path: Path) -> dict[str, Any]:
    mapping = read_json(path)
    if not isinstance(mapping, dict):
        raise SourceError(f'{path}: expected a JSON object {{"name of a bag": "name of a video" or its id}}')
    return mapping


def _find_video(wanted: Any, by_name: Mapping[str, Video], ground_truth: GroundTruth, source: Path | None) -> Video:
    by_id = {video.id: video for video in ground_truth.videos}
    found = by_name.get(wanted) if isinstance(wanted, str) else by_id.get(wanted)
    if found is None:
        raise SourceError(
            f"{source}: {shown(repr(wanted))} is neither the name nor the id of a video of {ground_truth.source}"
        )
    return found


def _listing(names: Mapping[str, Any] | Sequence[str]) -> str:
    some = list(names)[:5]
    return ", ".join(map(shown, some)) + (f" and {len(names) - len(some)} more" if len(names) > len(some) else "")
