# SPDX-License-Identifier: Apache-2.0
"""The storage files of a ROS 2 bag, also compressed, with a write-ahead log, incomplete, or with a wrong metadata.yaml.

The storage files decide what a bag holds; metadata.yaml is only compared with them. Converters rewrite it,
recorders that died have not written it, and readers ignore differences without a warning.
"""

from __future__ import annotations

import heapq
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO

from instance_flow.formats.foreign_text import shown
from instance_flow.structures import SourceError

if TYPE_CHECKING:
    from rosbags.rosbag2 import Reader

STORAGE = {".mcap": "mcap", ".db3": "sqlite3"}
"""Names of the forms of storage, by the endings of their files."""
PACKED = ".zstd"
METADATA = "metadata.yaml"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_ENDINGS = {_MCAP_MAGIC: ".mcap", b"SQLite format 3\0": ".db3", ZSTD_MAGIC: PACKED}
"""What the files of each form begin with, whatever their names end in."""
_ROS1_MAGIC = b"#ROSBAG"
MAX_UNPACKED = int(os.environ.get("INSTANCE_FLOW_MAX_UNPACKED_MB", "1024")) * 2**20
"""Bytes that one chunk or one message may have once unpacked: a few kB of zstd can hold gigabytes of zeros."""
_LEFT_FREE = 2**30
"""Bytes of the disk of temporary files that unpacking leaves free."""
URI_CHARACTERS = "#?%"
"""SQLite is given a file's name as an address, in which these have a meaning."""

_REASON = 200
"""Characters of what a reader says of a file: it may be made of the file's bytes."""
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


def ending_by_content(path: Path) -> str:
    """.mcap, .db3 or .zstd by how the file begins; empty where it is none of them, or cannot be read."""
    head = first_bytes(path)
    return next((ending for magic, ending in _ENDINGS.items() if head.startswith(magic)), "")


def is_ros1(path: Path) -> bool:
    """Whether the file is a bag of ROS 1, whatever its name."""
    return first_bytes(path).startswith(_ROS1_MAGIC)


def first_bytes(path: Path) -> bytes:
    """The first 16 bytes; empty unless it is a regular file, as a pipe can be read only once."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(16)
    except OSError:
        pass  # The reader of the file reports what is wrong.
    return b""


def storage_files(folder: Path) -> list[Path]:
    """Storage files of a folder, by name: those of one form, without the packed copies of files that are unpacked."""
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
        reason = shown(" ".join(str(error).split()), _REASON)
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
        found, problem = storage_files(folder), f"{folder}: {METADATA} names {', '.join(missing)}, which is not there"
        if not found:
            raise SourceError(f"{problem}, and there is no other .mcap or .db3 file")
        _warn(f"{problem}; {', '.join(path.name for path in found)} is read instead")
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

    _bound_chunks()
    try:
        if is_ros1(file):
            return SourceError(f"{file}: a bag of ROS 1; {ros1_advice(file)}")
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
    """A copy, with the ROS 2 messages alone, of an MCAP file that readers of ROS 2 bags refuse: without a footer
    after a power failure, without an index and a little out of order, without a profile, with JSON or protobuf beside.

    Raises SourceError where it holds none.
    """
    from mcap.records import Channel, Message, Schema
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
            for record in _records(source):
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
        # Our own bounds say more than the reader of whole files does.
        raise unreadable(file, broken if type(broken) is ValueError else refusal) from refusal
    if broken is not None:
        reason = shown(" ".join(str(broken).split()), _REASON) or type(broken).__name__
        _warn(f"{file}: breaks off ({reason}); the {written} messages before that are read")
    return target


def _records(source: BinaryIO) -> Iterator[Any]:
    """The records of an MCAP file, those of its chunks among them."""
    from mcap.records import Chunk
    from mcap.stream_reader import StreamReader, breakup_chunk

    for record in StreamReader(source, emit_chunks=True).records:
        if isinstance(record, Chunk):
            unpack = _UNPACKERS.get(record.compression)
            if unpack is not None:
                record = replace(record, compression="", data=unpack(record.data, record.uncompressed_size))
            yield from breakup_chunk(record)
        else:
            yield record


def _bound_chunks() -> None:
    """Limit what rosbags unpacks of a chunk to the size that the chunk states, and to ``MAX_UNPACKED``."""
    from rosbags.rosbag2 import storage_mcap

    storage_mcap.DECOMPRESSORS.update(_UNPACKERS)


def ros1_advice(file: Path) -> str:
    """What to do with a recording of ROS 1."""
    return f"convert it with `rosbags-convert --src {file} --dst FOLDER` (pip install rosbags) and give that folder"


def unreadable(file: Path, error: Exception) -> SourceError:
    """The error for a file that a reader cannot read."""
    reason = shown(" ".join(str(error).split()).rstrip("."), _REASON) or type(error).__name__
    problem = f"{file}: cannot be read as a ROS 2 bag: {reason}"
    ending = ending_by_content(file)
    if file.is_file() and not ending:
        problem += "; it does not begin as an MCAP or SQLite file does"
    elif ending == ".mcap" and _is_torn(file):
        problem += "; if it was cut off, `mcap recover` can save what is whole"
    return SourceError(problem)


def _is_torn(file: Path) -> bool:
    """Whether an MCAP file is cut off: a complete one ends with the bytes that it begins with."""
    with file.open("rb") as source:
        source.seek(-len(_MCAP_MAGIC), os.SEEK_END)
        return source.read() != _MCAP_MAGIC


def _readable(file: Path, stack: ExitStack) -> Path:
    """The file itself, or a copy that can be read: unpacked, with its write-ahead log, under a plain name that ends as
    its content asks for."""
    ending = ending_by_content(file) or file.suffix
    if ending == PACKED:
        file = _unpacked(file, _folder(stack))
        ending = ending_by_content(file) or file.suffix
    log, plain = file.with_name(f"{file.name}-wal"), f"bag{ending}"
    if ending == ".db3" and log.is_file() and log.stat().st_size:
        return _with_log(file, log, _folder(stack) / plain)
    is_odd = ending == ".db3" and any(character in str(file) for character in URI_CHARACTERS)
    if ending in STORAGE and (is_odd or ending != file.suffix):
        link = _folder(stack) / plain
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
            while piece := source.read(2**24):
                if shutil.disk_usage(folder).free < _LEFT_FREE + len(piece):
                    raise SourceError(
                        f"{file}: unpacking it takes more room than {folder.parent} has, and leaves less than 1 GiB "
                        "free; set TMPDIR to a folder on a larger disk"
                    )
                out.write(piece)
    except (zstd.ZstdError, EOFError) as error:
        raise SourceError(f"{file}: cannot be unpacked as zstd ({error}); was it cut off?") from error
    return target


def _with_log(file: Path, log: Path, target: Path) -> Path:
    """A copy of a database with what its recorder, cut off by a power failure, had written to the log beside it."""
    shutil.copyfile(file, target)
    shutil.copyfile(log, target.with_name(f"{target.name}-wal"))
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
    return unpack_zstd(data, MAX_UNPACKED)


def unpack_zstd(data: bytes, size: int) -> bytes:
    """At most ``size`` bytes unpacked, and one more to tell that there were more of a chunk.

    Raises ValueError for bytes that are no zstd, and for more than ``MAX_UNPACKED``.
    """
    zstd = _zstd()
    unpacker = zstd.ZstdDecompressor()
    try:
        whole = bytes(unpacker.decompress(data, max_length=_bound(size)))
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"its {len(data)} bytes cannot be unpacked as zstd ({error})") from error
    if not unpacker.eof and len(whole) < _bound(size):
        raise ValueError(f"its {len(data)} bytes cannot be unpacked as zstd (they are cut off)")
    return _checked(whole)


def _unpack_lz4(data: bytes, size: int) -> bytes:
    from lz4.frame import LZ4FrameDecompressor

    try:
        return _checked(LZ4FrameDecompressor().decompress(data, max_length=_bound(size)))
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"its {len(data)} bytes cannot be unpacked as lz4 ({error})") from error


_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {"zstd": unpack_zstd, "lz4": _unpack_lz4}
"""By the names that MCAP has for how a chunk is packed."""


def _bound(size: int) -> int:
    return min(size, MAX_UNPACKED) + 1


def _checked(data: bytes) -> bytes:
    if len(data) > MAX_UNPACKED:
        raise ValueError(
            f"it holds more than the {MAX_UNPACKED >> 20} MiB that are unpacked at most; if that is right, set the "
            "environment variable INSTANCE_FLOW_MAX_UNPACKED_MB to more"
        )
    return data


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
