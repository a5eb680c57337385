# SPDX-License-Identifier: Apache-2.0
"""The sources of ``instance-flow run``: their options, and how they are opened."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from instance_flow.commands.values import above_zero, whole
from instance_flow.formats.video import BagSource, PictureSource, VideoSource
from instance_flow.sources.live import RECONNECTS, LiveSource
from instance_flow.sources.naming import Input

OpenedSource = PictureSource | VideoSource | BagSource | LiveSource


def add_sources(parser: argparse.ArgumentParser) -> None:
    """SOURCE, and the options that decide how it is read."""
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="video file, picture, folder of pictures or of videos, glob, .mcap, .db3, bag folder; camera (0, "
        "/dev/video0), rtsp:// or http:// address, - for standard input. Several files: each has a folder in DIR",
    )
    parser.add_argument(
        "--rate",
        type=above_zero,
        metavar="HZ",
        help="frames per second of pictures, which have no times; velocities are unknown without it",
    )
    parser.add_argument(
        "--duration",
        type=above_zero,
        metavar="SECONDS",
        help="stop after so many seconds, by the times of a recording or, of a stream, by this machine's clock",
    )
    parser.add_argument(
        "--reconnect",
        type=whole,
        default=RECONNECTS,
        metavar="N",
        help="attempts in a row to reach a lost camera or network stream again (default: %(default)s; 0 = none)",
    )


def open_input(options: argparse.Namespace, given: Input, topics: Sequence[str]) -> OpenedSource:
    """Open a source as the options say. Raises ValueError for a duration where the source knows no times."""
    source = given.open(topics, rate=options.rate, duration=options.duration, reconnects=options.reconnect)
    if options.duration is not None and not source.has_times:
        raise ValueError(f"{given.path or given.name} has no times, so --duration needs --rate HZ beside it")
    return source


@contextmanager
def closing_source(source: OpenedSource) -> Iterator[OpenedSource]:
    """Close a camera or a stream at the end, also after an error."""
    try:
        yield source
    finally:
        if isinstance(source, LiveSource):
            source.close()


def default_folder(given: Input) -> Path:
    """``out/NAME``. What a camera saw cannot be recorded again, so a stream gets a folder that is not there yet."""
    folder = Path("out") / given.name
    if given.path is None:
        tries = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
        while folder.exists():
            folder = next(tries)
    return folder


def follow(source: OpenedSource, stopped: Callable[[], object]) -> Callable[[], object]:
    """The same question; a stream asks it, too, while it has no frame."""
    if isinstance(source, LiveSource):
        source.stopped = stopped
    return stopped


def unknown_velocities(source: OpenedSource) -> dict[str, str]:
    """What the summary says where no velocity can be known."""
    if source.has_times or source.length == 1:
        return {}
    return {"velocities": "unknown, as the source has no times; give --rate HZ"}
