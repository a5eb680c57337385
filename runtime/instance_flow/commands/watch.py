# SPDX-License-Identifier: Apache-2.0
"""Watching ``instance-flow run`` while it runs: ``--show`` and ``--serve``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from instance_flow.commands.sources import OpenedSource
from instance_flow.commands.values import number
from instance_flow.formats.video import Frame
from instance_flow.sources.live import LiveSource
from instance_flow.structures import Tracks
from instance_flow.watching.board import Board
from instance_flow.watching.server import serving
from instance_flow.watching.window import Window

PORT = 8420


class Watchers:
    """A window, a page, both or none; false where there is none."""

    def __init__(self, window: Window | None, board: Board | None) -> None:
        self._window, self._board = window, board

    def __bool__(self) -> bool:
        return self._window is not None or self._board is not None

    @property
    def closed(self) -> bool:
        """Whether the user has closed the window, which ends the run."""
        return self._window is not None and self._window.closed

    def begin(self, source: OpenedSource) -> None:
        """Begin a source: its name and cameras go onto the page."""
        live = source if isinstance(source, LiveSource) and not source.recorded else None
        if self._board is not None:
            names = [camera.name for camera in source.cameras]
            label = source.label if isinstance(source, LiveSource) else source.name
            self._board.begin(label, names, None if live is None else lambda: live.dropped)

    def add(self, frame: Frame, tracks: Tracks) -> None:
        """Show a frame."""
        if self._board is not None:
            self._board.add(frame, tracks)
        if self._window is not None:
            self._window.add(frame, tracks)


def add_watching(parser: argparse.ArgumentParser) -> None:
    """``--show``, ``--serve``, ``--serve-host``."""
    parser.add_argument("--show", action="store_true", help="show the tracks in a window; Q, Esc or closing it ends")
    parser.add_argument(
        "--serve",
        nargs="?",
        type=number(int, low=0, high=65_535, advice="put SOURCE before --serve"),
        const=PORT,
        metavar="PORT",
        help=f"show the tracks on a live web page of this machine (default port: {PORT}; 0 = any that is free); put "
        "SOURCE before it",
    )
    parser.add_argument(
        "--serve-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="with --serve: listen on this address, such as 0.0.0.0 for all; everyone who can reach it sees the "
        "pictures (default: %(default)s)",
    )


@contextmanager
def watching(options: argparse.Namespace, class_names: Sequence[str]) -> Iterator[Watchers]:
    """Open what the options ask for. Raises InstanceFlowError where there can be no window, or the port is taken."""
    with ExitStack() as stack:
        window = stack.enter_context(Window(class_names)) if options.show else None
        board = None
        if options.serve is not None:
            board = Board(class_names)
            address = stack.enter_context(serving(board, options.serve_host, options.serve))
            sys.stderr.write(f"instance-flow: watch at {address}\n")
            sys.stderr.flush()
        yield Watchers(window, board)
