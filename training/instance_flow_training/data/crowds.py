# SPDX-License-Identifier: Apache-2.0
"""Whether an annotation that says ``iscrowd`` is a group that is left out, or an object with a painted mask.

In COCO's own files run-length masks are crowds, about one annotation in a hundred. CVAT and Datumaro write
``"iscrowd": 1`` to say no more than that a mask is run lengths, as those of their brush are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from instance_flow.formats.ytvis import Annotation

AUTO, IGNORED, OBJECTS = "auto", "ignore", "objects"
CROWDS = (AUTO, IGNORED, OBJECTS)
_NEARLY_ALL = 0.95
_MANY = 0.5


def settle_crowds(
    annotations: Sequence[Annotation], crowds: str, entries: Iterable[Any]
) -> tuple[list[Annotation], list[str]]:
    """The annotations with crowds as ``crowds`` says, one of ``CROWDS``, and what to tell the user.

    auto: crowds of run lengths are objects where nearly all run lengths are crowds, and either at least half of all
    annotations are such crowds, or the file is from CVAT.
    entries: the annotations as the file has them.
    """
    painted = [_has_run_lengths(entry) for entry in annotations]
    grouped = [entry.is_crowd and mask for entry, mask in zip(annotations, painted, strict=True)]
    count, alike = sum(grouped), sum(grouped) >= _NEARLY_ALL * sum(painted)
    if crowds == OBJECTS:
        chosen = [entry.is_crowd for entry in annotations]
        count = sum(chosen)
    elif crowds == AUTO and count and alike and (count >= _MANY * len(annotations) or _from_cvat(entries)):
        chosen = grouped
    else:
        hint = crowds == AUTO and count and alike
        notes = [f'crowds with masks of run lengths: {count}; if they are objects, set data.crowds = "objects"']
        return list(annotations), notes if hint else []
    taken = [replace(e, is_crowd=False) if c else e for e, c in zip(annotations, chosen, strict=True)]
    if not count:
        return taken, []
    reason = "as data.crowds says" if crowds == OBJECTS else "since the file says so of (nearly) all its run lengths"
    undo = "" if crowds == OBJECTS else '; if they are groups, set data.crowds = "ignore"'
    return taken, [f"annotations with iscrowd = 1 that are taken for objects: {count}, {reason}{undo}"]


def _has_run_lengths(annotation: Annotation) -> bool:
    return any(isinstance(mask, dict) for mask in annotation.segmentations)


def _from_cvat(entries: Iterable[Any]) -> bool:
    """Whether annotations carry the attribute that CVAT gives to each of its own."""
    return any(isinstance(entry.get("attributes"), Mapping) and "occluded" in entry["attributes"] for entry in entries)
