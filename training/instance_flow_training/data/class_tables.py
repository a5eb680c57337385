# SPDX-License-Identifier: Apache-2.0
"""The classes of the public data sets, and those that COCO shares with YouTube-VIS.

Training reads its classes from the data set's own file; these tables serve to pick COCO's shared ones for pre-training.
Sources: the ``categories`` of YouTube-VIS's instances.json (2019, 2021) and of OVIS's annotations_train.json, in the
order of their ids, which count from 1 ("Vehical" is OVIS's own spelling). Which classes are shared: STEm-Seg (ECCV
2020, github.com/sabarim/STEm-Seg, stemseg/data/metainfo/coco.yaml), and for 2021 the same pairs under its names with
its bird and its flying disc, as in VITA (github.com/sukjunhwang/VITA).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from instance_flow.structures import SourceError

ALL_CLASSES = "all"

YOUTUBE_VIS_2019: tuple[str, ...] = (
    *("person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake", "monkey"),
    *("hand", "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle", "bear"),
    *("motorbike", "giraffe", "leopard", "fox", "deer", "owl", "surfboard", "airplane", "truck", "zebra"),
    *("tiger", "elephant", "snowboard", "boat", "shark", "mouse", "frog", "eagle", "earless_seal", "tennis_racket"),
)
YOUTUBE_VIS_2021: tuple[str, ...] = (
    *("airplane", "bear", "bird", "boat", "car", "cat", "cow", "deer", "dog", "duck"),
    *("earless_seal", "elephant", "fish", "flying_disc", "fox", "frog", "giant_panda", "giraffe", "horse", "leopard"),
    *("lizard", "monkey", "motorbike", "mouse", "parrot", "person", "rabbit", "shark", "skateboard", "snake"),
    *("snowboard", "squirrel", "surfboard", "tennis_racket", "tiger", "train", "truck", "turtle", "whale", "zebra"),
)
OVIS: tuple[str, ...] = (
    *("Person", "Bird", "Cat", "Dog", "Horse", "Sheep", "Cow", "Elephant", "Bear", "Zebra"),
    *("Giraffe", "Poultry", "Giant_panda", "Lizard", "Parrot", "Monkey", "Rabbit", "Tiger", "Fish", "Turtle"),
    *("Bicycle", "Motorcycle", "Airplane", "Boat", "Vehical"),
)

_SHARED_2019: dict[str, str] = {
    "person": "person",
    "bicycle": "motorbike",
    "car": "sedan",
    "motorcycle": "motorbike",
    "airplane": "airplane",
    "train": "train",
    "truck": "truck",
    "boat": "boat",
    "cat": "cat",
    "dog": "dog",
    "horse": "horse",
    "cow": "cow",
    "elephant": "elephant",
    "bear": "bear",
    "zebra": "zebra",
    "giraffe": "giraffe",
    "snowboard": "snowboard",
    "skateboard": "skateboard",
    "surfboard": "surfboard",
    "tennis racket": "tennis_racket",
}

COCO_SHARED: dict[str, dict[str, str]] = {
    "youtube_vis_2019": _SHARED_2019,
    "youtube_vis_2021": {**_SHARED_2019, "car": "car", "bird": "bird", "frisbee": "flying_disc"},
}
"""COCO's name to YouTube-VIS's name. 2019: the "overlapped 20 categories" of section IV-A.

They are 20 of COCO's categories and 19 of YouTube-VIS's, as bicycles are taken for motorbikes. The one further name
that both have, mouse, is a computer's in COCO and an animal in YouTube-VIS, so it is not shared.
"""


def categories_in_use(
    entries: Iterable[Mapping[str, Any]], used: Container[int], classes: str
) -> tuple[dict[int, str], list[str]]:
    """The names of a file's categories by id, for ``choose_classes``, and what to tell the user of the others.

    entries: with id, name and maybe supercategory.   used: ids of categories that have annotations.
    Without a choice of classes, a category above others that has no objects of its own is none, such as the root that
    Roboflow writes.
    """
    entries = list(entries)
    names = {entry["id"]: str(entry.get("name", entry["id"])) for entry in entries}
    above = {
        entry["id"]: names[entry["id"]]
        for entry in entries
        if entry["id"] not in used
        and any(other is not entry and other.get("supercategory") == names[entry["id"]] for other in entries)
    }
    notes = [
        f'the name "{name}" is given to {count} categories; they are taken for one'
        for name, count in Counter(names.values()).items()
        if count > 1 and name not in above.values()
    ]
    if classes == ALL_CLASSES and above:
        listed = ", ".join(f'"{name}"' for name in above.values())
        notes.append(f"the category {listed} stands above others and has no objects: it is no class")
        names = {i: name for i, name in names.items() if i not in above}
    return names, notes


def is_list(classes: str) -> bool:
    """Whether ``classes`` lists names, rather than to say all or to name a table."""
    return classes != ALL_CLASSES and classes not in COCO_SHARED


def choose_classes(names: Mapping[int, str], classes: str, source: Path) -> tuple[list[str], dict[int, int]]:
    """Class names, and the class_id of each category that is trained; objects of the others are background.

    Args:
        names: of the categories by id.
        classes: "all" = all of them by ascending id, categories of one name being one class; a key of ``COCO_SHARED`` =
            those that are shared with it, under its names; else names, in the order of their class_ids, with commas
            between.

    Raises SourceError for a name that is not among the categories, or stands twice.
    """
    ordered = sorted(names)
    if classes == ALL_CLASSES:
        all_names = list(dict.fromkeys(names[i] for i in ordered))
        return all_names, {i: all_names.index(names[i]) for i in ordered}
    listed = [name.strip() for name in classes.split(",")]
    shared = COCO_SHARED.get(classes) or dict(zip(listed, listed, strict=True))
    absent = sorted(shared.keys() - set(names.values()))
    if absent:
        raise SourceError(
            f'{source}: has no category {absent[0]!r}, which data.classes = "{classes}" asks for; it has '
            f"{', '.join(names[i] for i in ordered)}"
        )
    if is_list(classes) and len(shared) < len(listed):
        raise SourceError(f'data.classes = "{classes}" names a class twice')
    class_names = list(dict.fromkeys(shared.values()))
    return class_names, {i: class_names.index(shared[names[i]]) for i in ordered if names[i] in shared}
