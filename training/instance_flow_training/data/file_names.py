# SPDX-License-Identifier: Apache-2.0
"""Files of a data set by the names in its label file, which another system may have written.

A name that is not there as it stands is looked for with the separators and absolute paths of Windows, percent-encoded,
in the other Unicode form (NFC, NFD), with its ending in the other case, and, where it is absolute or repeats the folder
of the pictures, without its first folders. Only names say which file it is: no file is opened.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from instance_flow.formats.ytvis import Video
from instance_flow.structures import SourceError

_ABSOLUTE = re.compile(r"([A-Za-z]:)?/|[A-Za-z][A-Za-z0-9+.-]*://")
"""Of a name with slashes: a drive, a root, a share (//server), or a URL."""
_SHOWN = 3


class Frames:
    """The files below a folder; each folder in it is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, frozenset[str]] = {}
        self._plain: dict[str, dict[str, list[str]]] = {}

    def has(self, name: str) -> bool:
        """Whether there is a file of exactly this name."""
        folder, _, file = name.rpartition("/")
        return file in self._listing(folder or ("/" if name.startswith("/") else ""))

    def find(self, name: str) -> list[str]:
        """Names of the files that ``name`` may mean, relative to ``root``: one, if it is clear which, or none."""
        if self.has(name):
            return [name]
        for written in dict.fromkeys((name, name.replace("\\", "/"), unquote(name).replace("\\", "/"))):
            parts = [part for part in written.split("/") if part not in ("", ".")]
            absolute = _ABSOLUTE.match(written) is not None
            for first in range(len(parts)):
                if first and not absolute and _plain(parts[first - 1]) != _plain(self.root.absolute().name):
                    continue
                found = self._walk("", parts[first:])
                if found:
                    return found
        return []

    def similar(self, name: str) -> list[str]:
        """Some files that ``name`` might mean, but that it is not safe to take: for a message."""
        parts = [part for part in unquote(name).replace("\\", "/").split("/") if part not in ("", ".")]
        stem = os.path.splitext(_plain(parts[-1]))[0].casefold() if parts else ""
        folders = ["/".join(parts[first:-1]) for first in range(len(parts))]
        return [
            f"{folder}/{file}" if folder else file
            for folder in dict.fromkeys(folders)
            for file in sorted(self._listing(folder))
            if os.path.splitext(_plain(file))[0].casefold() == stem
        ]

    def _walk(self, folder: str, parts: Sequence[str]) -> list[str]:
        """Files below ``folder`` that fit, part by part."""
        exact = parts[0] in self._listing(folder)
        names = [parts[0]] if exact else self._plain_listing(folder).get(_plain(parts[0]), [])
        paths = [f"{folder}/{name}" if folder else name for name in names]
        if len(parts) == 1:
            return paths
        return [found for path in paths for found in self._walk(path, parts[1:])]

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            try:
                with os.scandir(self.root / folder) as entries:
                    self._listings[folder] = frozenset(entry.name for entry in entries)
            except (OSError, ValueError):  # ValueError: a name with a zero byte
                self._listings[folder] = frozenset()
        return self._listings[folder]

    def _plain_listing(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._plain:
            plain: dict[str, list[str]] = {}
            for name in sorted(self._listing(folder)):
                plain.setdefault(_plain(name), []).append(name)
            self._plain[folder] = plain
        return self._plain[folder]


def find_images(folders: Sequence[Path], first: str) -> Path:
    """The first of ``folders`` that holds the file ``first``, else the first that exists; SourceError without one."""
    for folder in folders:
        if Frames(folder).has(first):
            return folder
    for folder in folders:
        if len(Frames(folder).find(first)) == 1:
            return folder
    for folder in folders:
        if folder.is_dir():
            return folder
    tried = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise SourceError(f"no folder of images at {tried}; name the folder that holds {first} by --images (data.images)")


def find_frames(images: Path, videos: Iterable[Video]) -> tuple[list[Video], list[str], list[str]]:
    """The videos with the names that their files have in ``images``.

    Returns them, a sentence for each frame that is not there or may be several files, and what to tell the user.
    """
    files = Frames(images)
    found, others = [], []
    problems: list[str] = []
    taken: dict[str, str] = {}
    for video in videos:
        names = []
        for name in video.file_names:
            fitting = files.find(name)
            if len(fitting) != 1:
                # Looking for similar names takes long; only the first problem is shown in full.
                problems.append(_not_found(files, name, video.id, fitting, bool(problems)))
                continue
            names.append(fitting[0])
            if fitting[0] != name:
                others.append((name, fitting[0]))
            before = taken.setdefault(fitting[0], name)
            if before != name:
                problems.append(
                    f"{before!r} and {name!r} both seem to be {images / fitting[0]}; give each its own file"
                )
        found.append(replace(video, file_names=tuple(names)))
    notes = []
    if others:
        name, file = others[0]
        notes.append(f'{len(others)} file name(s) are written otherwise on disk, such as "{name}": {images / file}')
    return found, problems, notes


def _not_found(files: Frames, name: str, video_id: int, fitting: Sequence[str], brief: bool) -> str:
    if fitting:
        listed = ", ".join(fitting[:_SHOWN])
        return f'the frame "{name}" of id {video_id} may be any of {listed} in {files.root}; write which it is'
    missing = f"the frame {files.root / name} of id {video_id} does not exist"
    similar = [] if brief else files.similar(name)[:_SHOWN]
    if not similar:
        return missing
    return f"{missing}; {' or '.join(similar)} would fit: write it so, or name its folder by --images (data.images)"


def _plain(name: str) -> str:
    """A file's name as it is compared: decoded, NFC, its ending in lower case."""
    stem, ending = os.path.splitext(unicodedata.normalize("NFC", unquote(name)))
    return stem + ending.lower()
