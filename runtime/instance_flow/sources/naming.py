# SPDX-License-Identifier: Apache-2.0
"""From the names that a user gives as sources to the runs that they mean."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instance_flow.formats.bags import is_bag
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.video import PICTURES, BagSource, PictureSource, VideoSource, natural, open_source
from instance_flow.sources.live import RECONNECTS, LiveSource
from instance_flow.sources.streams import PORTS, Address, CameraDevice, StandardInput, Stream
from instance_flow.structures import SourceError

VIDEOS = frozenset(
    f".{ending}"
    for ending in (
        *("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
        *("264", "265", "h264", "h265", "hevc", "mjpeg", "mjpg", "y4m"),
    )
)
"""Name endings of the files of a folder that count as videos, in lower case."""


@dataclass(frozen=True)
class Input:
    """The input of one run.

    name: for its folder of outputs.   origin: a file or folder, or a stream.   pictures: those that are meant of the
    folder ``origin``; none = all.
    """

    name: str
    origin: Path | Stream
    pictures: tuple[Path, ...] = ()

    @property
    def path(self) -> Path | None:
        """The file or folder; None for a stream."""
        return self.origin if isinstance(self.origin, Path) else None

    def open(
        self,
        topics: Sequence[str] = (),
        *,
        rate: float | None = None,
        duration: float | None = None,
        reconnects: int = RECONNECTS,
    ) -> PictureSource | VideoSource | BagSource | LiveSource:
        """Open it; a stream then waits for its first frame. Errors as of ``open_source`` and ``LiveSource``."""
        if not isinstance(self.origin, Path):
            if topics:
                raise ValueError(f"{self.origin.label} is not a bag, so it has no topic {topics[0]}")
            return LiveSource(self.origin, reconnects=reconnects, duration=duration, rate=rate)
        if self.pictures:
            if topics:
                raise ValueError(f"{self.origin} is not a bag, so it has no topic {topics[0]}")
            return PictureSource(self.origin, self.pictures, rate)
        return open_source(self.origin, topics, rate)


def find_inputs(names: Sequence[str]) -> list[Input]:
    """What is meant by names of files, folders, globs, cameras (0, /dev/video0), addresses and ``-``.

    Pictures that are named one by one, or by a glob, are the frames of one stream, as those of a folder are. A folder
    with videos and no pictures stands for its videos. A name of an existing file means that file, whatever else it
    could mean.
    Raises SourceError where something is not there, and for a stream beside other sources.
    """
    origins = [origin for name in names for origin in _origins(name)]
    streams = [origin for origin in origins if not isinstance(origin, Path)]
    if streams and len(origins) > 1:
        raise SourceError(f"{streams[0].label}: a stream is run by itself; start a run of its own for each source")
    if streams:
        return [Input(streams[0].name, streams[0])]
    paths = [origin for origin in origins if isinstance(origin, Path)]
    if len(paths) > 1 and all(path.suffix.lower() in PICTURES and path.is_file() for path in paths):
        # In natural order, since shells put frame 10 before frame 9.
        pictures = sorted(dict.fromkeys(paths), key=lambda file: (file.parent, natural(file)))
        folder = pictures[0].parent
        return [Input(folder.resolve().name or "pictures", folder, tuple(pictures))]
    files = list(dict.fromkeys(file for path in paths for file in _videos_in(path) or [path]))
    return [Input(name, file) for name, file in zip(_distinct_names(files), files, strict=True)]


def _origins(name: str) -> list[Path | Stream]:
    path = Path(name)
    if name == "-":
        return [StandardInput()]
    if path.is_char_device() or (name.startswith("/dev/video") and not path.exists()):
        return [CameraDevice(path)]
    if path.exists():
        return [path]
    if re.fullmatch(r"\d{1,4}", name, re.ASCII):
        return [CameraDevice(Path(f"/dev/video{int(name)}"))]
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", name):
        kind = scheme[1].lower()
        if kind not in PORTS:
            raise SourceError(f"{shown(name)}: {kind} is none of the addresses that can be run: {', '.join(PORTS)}")
        address = Address(kind + name[len(kind) :])
        address.check()
        return [address]
    if glob.has_magic(name):
        found = [Path(file) for file in glob.glob(name, recursive=True)]
        if not found:
            raise SourceError(f"{name}: no file matches")
        return [*sorted(found, key=lambda file: (file.parent, natural(file)))]
    raise SourceError(f"{name}: no such file or folder")


def _videos_in(folder: Path) -> list[Path]:
    """The videos of a folder that holds no pictures and is no bag, in natural order."""
    if not folder.is_dir() or is_bag(folder):
        return []
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    if any(file.suffix.lower() in PICTURES for file in files):
        return []
    return sorted((file for file in files if file.suffix.lower() in VIDEOS), key=natural)


def _distinct_names(files: Sequence[Path]) -> list[str]:
    """The stems of files, with their endings and then with numbers where they would be the same."""
    whole = [file.resolve() for file in files]
    stems = [file.stem if file.is_file() else file.name for file in whole]
    for names in (stems, [file.name for file in whole]):
        if len(set(names)) == len(names):
            return names
    return [f"{number}-{stem}" for number, stem in enumerate(stems, start=1)]
