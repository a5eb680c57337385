# SPDX-License-Identifier: Apache-2.0
"""Look at labels, and convert them: folders, zip files and label files as labelling tools export them."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from instance_flow.commands.exit_codes import run_to_end
from instance_flow.commands.values import SIGNALLED, add_command, add_rename, described
from instance_flow.formats.atomic import replacing
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.structures import SourceError
from instance_flow_training.data.conversion import COPY, LINK, NONE, PICTURES, write_set
from instance_flow_training.data.crowds import AUTO, CROWDS
from instance_flow_training.data.formats.source import SPLITS, packed_name, remove_unpacked
from instance_flow_training.data.inspection import inspect_set
from instance_flow_training.data.label_sheet import label_sheet
from instance_flow_training.data.label_sources import KNOWN, open_labels
from instance_flow_training.data.video_sets import VideoSet

_TERMINATED = SIGNALLED + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 for bad input."""
    options = make_parser().parse_args(arguments)
    # Otherwise what zip files were unpacked into would stay.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        return run_to_end("instance-flow-data", lambda: int(options.command(options)), packed_name)
    finally:
        remove_unpacked()
        signal.signal(signal.SIGTERM, before)


def inspect_command(options: argparse.Namespace) -> int:
    """Print what there is, and write the sheet."""
    _check_sheet(options.sheet)
    found = _open(options, lenient=True)
    inspection = inspect_set(found)
    sheet = label_sheet(found)
    whole, data = cv2.imencode(options.sheet.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not whole:
        raise SourceError(f"{options.sheet}: cannot be written as a picture; name a .jpg or .png file")
    with replacing(options.sheet) as file:
        file.write_bytes(np.asarray(data).tobytes())
    for line in (*found.notes, *inspection.table()):
        print(shown(line, MESSAGE))
    if inspection.suspicious:
        print("suspicious:")
    for kind in inspection.suspicious:
        print(f"  {shown(kind, MESSAGE)}")
    print(f"{options.sheet}: labels over pictures, to look at")
    return 0


def convert_command(options: argparse.Namespace) -> int:
    """Write the set in YouTube-VIS's form."""
    found = _open(options, lenient=False)
    write_set(found, options.out, options.pictures)
    for note in found.notes:
        print(shown(note, MESSAGE))
    frames = sum(video.length for video in found.truth.videos)
    print(f"{options.out}: {frames} pictures and {len(found.truth.annotations)} annotations written")
    return 0


def _open(options: argparse.Namespace, lenient: bool) -> VideoSet:
    wanted = options.sources, options.images, options.split, options.crowds, dict(options.rename)
    return open_labels(*wanted, lenient=lenient)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    does = "look at labels as labelling tools export them, and convert them"
    examples = "instance-flow-data inspect export.zip --sheet labels.png", "instance-flow-data convert export.zip mine"
    parser = argparse.ArgumentParser(prog="instance-flow-data", **described(does, *examples))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    inspect = add_command(
        commands,
        "inspect",
        "say what labels there are and what is suspicious, and draw them over pictures",
        "instance-flow-data inspect export.zip --sheet labels.png",
    )
    inspect.set_defaults(command=inspect_command)
    _add_sources(inspect)
    inspect.add_argument(
        "--sheet",
        type=Path,
        default=Path("labels.jpg"),
        metavar="FILE",
        help="picture of labels over pictures, .jpg or .png (default: %(default)s)",
    )
    convert = add_command(
        commands,
        "convert",
        "write labels in YouTube-VIS's form",
        "instance-flow-data convert export.zip mine --rename Car=car",
    )
    convert.set_defaults(command=convert_command)
    _add_sources(convert)
    convert.add_argument("out", type=Path, metavar="OUT", help="folder to write: a new or empty one")
    convert.add_argument(
        "--pictures",
        choices=PICTURES,
        default=COPY,
        help=f"{COPY} them, {LINK} to them, or {NONE}: name them where they are (default: %(default)s)",
    )
    return parser


def _add_sources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", type=Path, nargs="+", metavar="SRC", help=f"folders, zip files or label files: {KNOWN}")
    add("--images", type=Path, metavar="DIR", help="a further folder in which pictures are looked for")
    add("--split", choices=SPLITS, default="", help="only this part of sources that have parts (default: everything)")
    add("--crowds", choices=CROWDS, default=AUTO, help='what "iscrowd": 1 means in COCO (default: %(default)s)')
    add_rename(parser)


def _check_sheet(path: Path) -> None:
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise SourceError(f"{path}: --sheet writes a picture; name a .jpg or .png file")
    if path.is_dir():
        raise SourceError(f"{path}: is a folder; name a file in it")


if __name__ == "__main__":
    sys.exit(main())
