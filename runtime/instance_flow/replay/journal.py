# SPDX-License-Identifier: Apache-2.0
"""The journal of a run: every result so far, and now and then the state of its streams, so that a run that was stopped
in any way resumes from there.

A folder of two files. ``answers``: a line of JSON that says what the run belongs to, then one record per result: its
length, the CRC-32 of its bytes (both uint32, little-endian), its bytes (``frame_results.pack``). It is only
appended to. ``snapshot.npz``: the streams (``Stream.snapshot``), and how many of the results and bytes led to
them; what comes after these is cut off when the run is resumed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np

from instance_flow.replay.frame_results import FrameResult, pack, unpack
from instance_flow.stream import Stream
from instance_flow.structures import InstanceFlowError
from instance_flow.tracking.snapshot import Snapshot, read_snapshot, take, write_snapshot

FOLDER = "run.journal"
"""Beside the files of a run; no camera can have that name."""

FRAMES_PER_SNAPSHOT = 50
"""So many frames are worked on again at most. A snapshot takes about as long as one frame."""

_RECORD = struct.Struct("<II")
_log = logging.getLogger("instance_flow")


def hold(handle: int | BinaryIO, folder: Path) -> None:
    """Lock an open file or folder for the run that writes into ``folder``; InstanceFlowError where another one does."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InstanceFlowError(
            f"{folder}: another run is writing there; wait for its end, or choose another folder"
        ) from None


class Journal:
    """Use it as a context manager: it is opened, and locked, and left in place unless it was completed.

    Args:
        folder: its own; made where it is missing.
        belongs_to: what the results depend on, of values that JSON can say. A journal of anything else is begun anew.
        interval: frames between two snapshots.

    Attributes:
        length: number of results of the run before, which ``past`` gives.

    Raises InstanceFlowError where another run has it open.
    """

    def __init__(self, folder: Path, belongs_to: Mapping[str, Any], interval: int = FRAMES_PER_SNAPSHOT) -> None:
        self.folder = folder
        self.length = 0
        self._heading = json.dumps(dict(belongs_to), sort_keys=True).encode() + b"\n"
        self._interval = interval
        self._since_snapshot = 0
        self._written = 0
        self._snapshot: Snapshot = {}
        self._complete = False

    def __enter__(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            path = self.folder / "answers"
            path.touch()
            self._file = stack.enter_context(path.open("r+b"))
            hold(self._file, self.folder.parent)
            self._find_past()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run without any result has nothing to resume from.
        if self._complete or not self._written:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._stack.close()

    def past(self) -> Iterator[FrameResult]:
        """The results of the run before, as far as its last snapshot; to be taken before anything is added."""
        self._file.seek(len(self._heading))
        for _ in range(self.length):
            data = self._read_record()
            if data is None:
                raise InstanceFlowError(f"{self.folder} is damaged; remove it, and run again from the beginning")
            yield unpack(data)

    def restore(self, streams: Sequence[Stream]) -> None:
        """Put the streams into the state of the last snapshot; where that is damaged, the run begins anew."""
        snapshots = [
            {name.removeprefix(f"{k}/"): a for name, a in self._snapshot.items() if name.startswith(f"{k}/")}
            for k in range(len(streams) if self.length else 0)
        ]
        self._snapshot = {}
        try:
            for stream, own in zip(streams, snapshots, strict=False):
                stream.check(own)
        except InstanceFlowError as error:
            _log.warning("%s: %s. The run begins anew", self._snapshot_path, error)
            self.length = self._written = 0
            self._begin_anew()
            return
        for stream, own in zip(streams, snapshots, strict=False):
            stream.restore(own)

    def add(self, result: FrameResult) -> None:
        """Append the next result."""
        data = pack(result)
        self._file.seek(0, os.SEEK_END)
        self._file.write(_RECORD.pack(len(data), crc32(data)) + data)
        # What the system has is kept even if the process is killed.
        self._file.flush()
        self._written += 1

    def end_frame(self, streams: Sequence[Stream]) -> None:
        """Tell that a frame is done; now and then the streams are saved."""
        self._since_snapshot += 1
        if self._since_snapshot >= self._interval:
            self.save(streams)

    def save(self, streams: Sequence[Stream]) -> None:
        """Save the streams: a run that is stopped later is resumed from here."""
        # A snapshot of results that a power failure takes away would be worse than none.
        os.fsync(self._file.fileno())
        states = {
            f"{number}/{name}": array
            for number, stream in enumerate(streams)
            for name, array in stream.snapshot().items()
        }
        places = {"answers": np.array(self._written), "bytes": np.array(self._file.seek(0, os.SEEK_END))}
        write_snapshot(self._snapshot_path, states | places)
        self._since_snapshot = 0

    def complete(self) -> None:
        """Tell that the run came to its end: the journal goes when it is left."""
        self._complete = True

    def _find_past(self) -> None:
        heading = self._file.readline()
        if heading == self._heading:
            self._load_snapshot()
        elif heading:
            _log.warning(
                "%s is of a run with another source, model or settings, which cannot be resumed; this run starts anew",
                self.folder,
            )
        if not self.length:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._snapshot_path.unlink(missing_ok=True)
        self._file.truncate(0)
        self._file.seek(0)
        self._file.write(self._heading)

    @property
    def _snapshot_path(self) -> Path:
        return self.folder / "snapshot.npz"

    def _load_snapshot(self) -> None:
        path = self._snapshot_path
        try:
            if not path.exists():
                return
            self._snapshot = read_snapshot(path)
            length, end = (int(take(self._snapshot, name, np.integer)) for name in ("answers", "bytes"))
        except InstanceFlowError as error:
            _log.warning("%s: the run begins anew", error)
            return
        if self._is_sound(length, end):
            self.length = self._written = length
            self._file.truncate(end)

    def _is_sound(self, length: int, end: int) -> bool:
        """Whether so many whole records end at this byte."""
        for _ in range(length):
            if self._read_record() is None:
                break
        return length > 0 and self._file.tell() == end

    def _read_record(self) -> bytes | None:
        """The bytes of the next record; None where it is damaged or cut off."""
        head = self._file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return None
        length, checksum = _RECORD.unpack(head)
        data = self._file.read(length)
        return data if len(data) == length and crc32(data) == checksum else None
