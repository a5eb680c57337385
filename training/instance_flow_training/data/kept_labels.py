# SPDX-License-Identifier: Apache-2.0
"""The labels of a training run in its folder: two parts, and the state of the sources that they were read from."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instance_flow.formats.json_files import write_json
from instance_flow.structures import SourceError
from instance_flow_training.data.conversion import COPY, LABELS, NONE, packed_picture, write_set
from instance_flow_training.data.formats.source import walk
from instance_flow_training.data.video_sets import VideoSet

PARTS = TRAIN, VAL = "train", "val"
ABOUT = "sources.json"
_ELSEWHERE = (".yaml", ".yml", ".txt")
"""Files that may name labels which lie anywhere."""


def state_of(paths: Sequence[Path], *more: Any) -> str | None:
    """A text that differs where these folders and files do: by names, sizes and times, without opening a file.

    more: what else decides how they are read.   None: there is no such text, as labels may lie elsewhere.
    Raises SourceError for a path that is not there.
    """
    digest = hashlib.sha256(repr(more).encode())
    for path in paths:
        if not path.exists():
            raise SourceError(f"{path}: there is no such file or folder; check the path")
        files = list(walk(path)) if path.is_dir() else [path]
        if any(file.suffix.lower() in (_ELSEWHERE[:2] if path.is_dir() else _ELSEWHERE) for file in files):
            return None
        for file in files:
            state = file.stat() if file.exists() else os.lstat(file)  # A link may lead nowhere.
            digest.update(repr((os.path.abspath(file), state.st_size, state.st_mtime_ns)).encode("utf-8", "replace"))
    return digest.hexdigest()


def write_parts(folder: Path, parts: Sequence[VideoSet], about: Mapping[str, Any]) -> None:
    """Both sets into a new folder, with ``about`` beside them. Pictures out of zip files are copied, others stay where
    they are."""
    for name, found in zip(PARTS, parts, strict=True):
        write_set(found, folder / name, COPY if packed_picture(found) else NONE)
    write_json(folder / ABOUT, about)


def read_about(folder: Path) -> dict[str, Any]:
    """What ``write_parts`` was told; empty where no whole labels are there, or those of an older version."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    whole = all((folder / name / LABELS).is_file() for name in PARTS)
    return about if whole and isinstance(about, dict) else {}


def same_labels(first: Path, second: Path) -> bool:
    """Whether two folders hold the same labels and the same copies of pictures, to the byte."""
    return all(_same(first / name, second / name) for name in PARTS)


def _same(first: Path, second: Path) -> bool:
    if not (first.is_dir() and second.is_dir()):
        return False
    names = [sorted(str(path.relative_to(root)) for path in root.rglob("*")) for root in (first, second)]
    files = [name for name in names[0] if (first / name).is_file()]
    return names[0] == names[1] and not any(filecmp.cmpfiles(first, second, files, shallow=False)[1:])
