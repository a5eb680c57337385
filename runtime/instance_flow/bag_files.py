# SPDX-License-Identifier: Apache-2.0
"""The storage files of a ROS 2 bag: packed, with a write-ahead log, partly lost, beside a metadata.yaml that is wrong.

What lies in the storage files is what a bag holds; metadata.yaml is only compared with it. Converters rewrite it,
recorders that died have not written it, and readers pass over what disagrees without a word.
"""

from __future__ import annotations

import heapq
import logging
import shutil
import sqlite3
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from instance_flow.structures import SourceError

if TYPE_CHECKING:
    from rosbags.rosbag2 import Reader

STORAGE = {".mcap": "mcap", ".db3": "sqlite3"}
"""Names of the forms of storage, by the endings of their files."""
PACKED = ".zstd"
METADATA = "metadata.yaml"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
URI_CHARACTERS = "#?%"
"""SQLite is given a file's name as an address, in which these have a meaning."""

_WINDOW = 64
"""Messages within which an MCAP file without an index is put in order."""

_log = logging.getLogger("instance_flow")


@lru_cache(maxsize=256)
def _warn(text: str) -> None:
    """Log once: a bag is opened several times in a run."""
    _log.warning("%s", text)


@dataclass(frozen=True)
class Metadata:
    """What metadata.yaml says: names of the storage files, and the number of messages by topic."""

    files: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


def is_storage(path: Path) -> bool:
    """Whether a file's name is that of a storage file, packed or not."""
    name = path.with_suffix("") if path.suffix == PACKED else path
    return name.suffix in STORAGE


def storage_files(folder: Path) -> list[Path]:
    """Those of a folder in the order of their names; of one form alone, and the unpacked one of twins."""
    found = sorted(path for path in folder.iterdir() if is_storage(path)) if folder.is_dir() else []
    plain = {path.name for path in found}
    kept = [path for path in found if path.suffix != PACKED or path.name.removesuffix(PACKED) not in plain]
    mcap = [path for path in kept if ".mcap" in path.suffixes]
    return mcap or kept


def read_metadata(folder: Path) -> Metadata | None:
    """What the folder's metadata.yaml says; None where there is none, or it cannot be read, which is logged."""
    path = folder / METADATA
    if not path.is_file():
        return None
    from ruamel.yaml import YAML, YAMLError

    try:
        about = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        files = tuple(PurePath(name).name for name in about["relative_file_paths"])
        counts: dict[str, int] = {}
        for topic in about["topics_with_message_count"]:
            name = str(topic["topic_metadata"]["name"])
            counts[name] = counts.get(name, 0) + int(topic["message_count"])
    except (OSError, YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        _warn(f"{path}: cannot be read ({reason}); the files beside it are read without it")
        return None
    return Metadata(files, counts)


def listed_files(folder: Path, metadata: Metadata | None) -> list[Path]:
    """The storage files of a bag folder: those that its metadata names, packed or not, or those that are there.

    What is named and not there is logged. Raises SourceError where nothing is left.
    """
    if metadata is None or not metadata.files:
        return storage_files(folder)
    found, missing = [], []
    for name in metadata.files:
        names = (name, name.removesuffix(PACKED), f"{name}{PACKED}")
        there = next((folder / one for one in names if (folder / one).is_file()), None)
        found += [] if there is None else [there]
        missing += [name] if there is None else []
    if not found:
        found, said = storage_files(folder), f"{folder}: {METADATA} names {', '.join(missing)}, which is not there"
        if not found:
            raise SourceError(f"{said}, and there is no other .mcap or .db3 file")
        _warn(f"{said}; {', '.join(path.name for path in found)} is read instead")
    elif missing:
        _warn(f"{folder}: {', '.join(missing)} of the recording is missing; the other files are read")
    return found


def open_files(files: list[Path], stack: ExitStack) -> list[Reader]:
    """Readers of the files. Of several, those that cannot be read are logged and left out.

    Raises SourceError where none can be read.
    """
    opened = [_open(file, stack) for file in files]
    readers = [reader for reader in opened if not isinstance(reader, SourceError)]
    problems = [problem for problem in opened if isinstance(problem, SourceError)]
    if not readers:
        raise problems[0]
    for problem in problems:
        _warn(f"{problem}. The other files of the recording are read")
    return readers


def _open(file: Path, stack: ExitStack) -> Reader | SourceError:
    """A reader, or what is wrong with the file."""
    from rosbags.rosbag2 import Reader

    try:
        readable = _readable(file, stack)
        try:
            reader = stack.enter_context(Reader(readable))
        except Exception as error:  # Damaged bytes break a parser in any way there is.
            # What is no regular file, as a pipe, is read once at most.
            if readable.suffix != ".mcap" or not readable.is_file():
                raise unreadable(file, error) from error
            return stack.enter_context(Reader(_rewritten(readable, file, _folder(stack), error)))
        if readable.suffix == ".mcap" and not _has_index(readable):
            nothing = ValueError("it has neither an index nor messages")
            return stack.enter_context(Reader(_rewritten(readable, file, _folder(stack), nothing)))
        return reader
    except SourceError as error:
        return error
    except Exception as error:
        return unreadable(file, error)


def _has_index(file: Path) -> bool:
    """False for an MCAP file whose messages stand in no index, so that they must be put in order first."""
    from mcap.reader import SeekingReader

    try:
        with file.open("rb") as source:
            summary = SeekingReader(source).get_summary()
    except Exception:  # The reader of bags says what is wrong.
        return True
    if summary is None or summary.statistics is None:
        return True
    return bool(summary.chunk_indexes) or not summary.statistics.message_count


def _rewritten(readable: Path, file: Path, folder: Path, refusal: Exception) -> Path:
    """An MCAP file that a reader of ROS 2 bags refuses, with those of its messages that are ROS 2's: without a footer
    after a power failure, without an index and a little out of order, without a profile, with JSON or protobuf beside.

    Raises SourceError where it holds none.
    """
    from mcap.records import Channel, Message, Schema
    from mcap.stream_reader import StreamReader
    from mcap.writer import CompressionType, Writer

    target, broken, is_ros1, written = folder / file.name, None, False, 0
    schemas: dict[int, Schema] = {}
    channels: dict[int, int] = {}
    window: list[tuple[int, int, Message]] = []
    with readable.open("rb") as source, target.open("wb") as out:
        writer = Writer(out, compression=CompressionType.NONE, enable_crcs=False)
        writer.start("ros2", "instance-flow")

        def write_earliest() -> None:
            _, _, message = heapq.heappop(window)
            writer.add_message(
                channels[message.channel_id], message.log_time, message.data, message.publish_time, message.sequence
            )

        try:
            for record in StreamReader(source).records:
                if isinstance(record, Schema):
                    schemas[record.id] = record
                    is_ros1 |= record.encoding == "ros1msg"
                elif isinstance(record, Channel) and record.id not in channels:
                    schema = schemas.get(record.schema_id)
                    if schema and record.message_encoding == "cdr" and schema.encoding in ("ros2msg", "ros2idl"):
                        kind = writer.register_schema(schema.name, schema.encoding, schema.data)
                        channels[record.id] = writer.register_channel(
                            record.topic, record.message_encoding, kind, record.metadata
                        )
                elif isinstance(record, Message) and record.channel_id in channels:
                    written += 1
                    heapq.heappush(window, (record.log_time, written, record))
                    if len(window) > _WINDOW:
                        write_earliest()
        except Exception as error:  # Damaged bytes break a parser in any way there is.
            broken = error
        while window:
            write_earliest()
        writer.finish()
    if not written and is_ros1:
        raise SourceError(f"{file}: holds ROS 1 messages; {ros1_advice(file)}")
    if not written:
        raise unreadable(file, refusal) from refusal
    if broken is not None:
        reason = " ".join(str(broken).split()) or type(broken).__name__
        _warn(f"{file}: breaks off ({reason}); the {written} messages before that are read")
    return target


def ros1_advice(file: Path) -> str:
    """What to do with a recording of ROS 1."""
    return f"convert it with `rosbags-convert --src {file} --dst FOLDER` (pip install rosbags) and give that folder"


def unreadable(file: Path, error: Exception) -> SourceError:
    """What to say of a file that a reader stumbled over."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return SourceError(
        f"{file}: cannot be read as a ROS 2 bag: {reason}; "
        "a recording that was cut off can be repaired with `mcap recover` or `ros2 bag reindex`"
    )


def _readable(file: Path, stack: ExitStack) -> Path:
    """The file itself, or a copy that can be read: unpacked, with its write-ahead log, under a plain name."""
    if file.suffix == PACKED:
        file = _unpacked(file, _folder(stack))
    log = file.with_name(f"{file.name}-wal")
    if file.suffix == ".db3" and log.is_file() and log.stat().st_size:
        return _with_log(file, log, _folder(stack))
    if file.suffix == ".db3" and any(character in str(file) for character in URI_CHARACTERS):
        link = _folder(stack) / "bag.db3"
        link.symlink_to(file.resolve())
        return link
    return file


def _folder(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="instance-flow-bag-")))


def _unpacked(file: Path, folder: Path) -> Path:
    zstd = _zstd()
    target = folder / file.name.removesuffix(PACKED)
    try:
        with zstd.open(file, "rb") as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
    except (zstd.ZstdError, EOFError) as error:
        raise SourceError(f"{file}: cannot be unpacked as zstd ({error}); was it cut off?") from error
    return target


def _with_log(file: Path, log: Path, folder: Path) -> Path:
    """A copy of a database with what its recorder, cut off by a power failure, had written to the log beside it."""
    target = folder / file.name
    shutil.copyfile(file, target)
    shutil.copyfile(log, folder / log.name)
    try:
        with closing(sqlite3.connect(target)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise SourceError(f"{log}: holds what {file.name} lacks, but cannot be read ({error})") from error
    _warn(f"{file}: was not closed; it is read with {log.name}")
    return target


def unpack_message(data: bytes) -> bytes:
    """A message as it was published; one that was recorded in compression mode "message" is unpacked."""
    if data[:4] != ZSTD_MAGIC:
        return data
    zstd = _zstd()
    try:
        return bytes(zstd.decompress(data))
    except zstd.ZstdError as error:
        raise ValueError(f"its {len(data)} bytes cannot be unpacked as zstd ({error})") from error


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from backports import zstd  # type: ignore[import-not-found, no-redef, unused-ignore]
    return zstd


def compare_counts(path: Path, metadata: Metadata | None, counts: dict[str, int]) -> None:
    """Log where the files hold fewer messages of a topic than metadata.yaml says."""
    for topic, expected in (metadata.counts if metadata else {}).items():
        if topic in counts and counts[topic] < expected:
            _warn(f"{path}: {METADATA} says {expected} messages on {topic}, the files hold {counts[topic]}")
