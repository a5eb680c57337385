# SPDX-License-Identifier: Apache-2.0
"""A source of labels: a folder, a zip file, or one file of labels, with the pictures that belong to it."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from instance_flow.formats.bag_files import MAX_UNPACKED
from instance_flow.formats.foreign_text import shown
from instance_flow.structures import SourceError
from instance_flow_training.data.file_names import Frames
from instance_flow_training.data.set_files import read_json

T = TypeVar("T")

PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"))
_WANTED = PICTURES | {".json", ".xml", ".yaml", ".yml", ".txt"}
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_MEMBERS = 2**20
_BLOCK = 2**20
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""
_SPLITS = {
    "train": "train",
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    "test": "test",
}
_UNPACKED: dict[str, str] = {}
"""Temporary folders, which stay for as long as the process, and the folder of the zip file that is unpacked in each."""
_ROOTS: dict[tuple[str, int, int], Path] = {}
"""Where a zip file of this path, time and size is unpacked."""
SPLITS = ("train", "val", "test")
_YEAR = re.compile(r"(?<=[a-z])(19|20)\d\d$")


class Source:
    """path: as the user named it.   root: the folder that holds everything.   files: those that may hold labels.

    whole: a folder or zip file is the source, rather than one file in a folder.
    parts: the splits of what was read so far, "" for what is of none.

    The files of a zip are unpacked into a temporary folder that stays for as long as the process.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """images: a further folder that pictures are looked for in. Raises SourceError where there is nothing to read.

        A zip file is refused whole where it would write outside of its folder, or more than ``MAX_UNPACKED`` bytes.
        """
        self.path, self.images = path, images
        self.parts: set[str] = set()
        self._json: dict[Path, Any] = {}
        self._pictures: dict[Path, list[Path]] = {}
        self._frames: dict[Path, Frames] = {}
        self._by_name: dict[str, list[Path]] | None = None
        if not path.exists():
            raise SourceError(f"{path}: there is no such file or folder; check the path")
        self.root = path if path.is_dir() else path.absolute().parent
        self.unpacked = path.is_file() and zipfile.is_zipfile(path)
        if self.unpacked:
            self.root = _unpacked(path)
        self.whole = path.is_dir() or self.unpacked
        self.files = list(walk(self.root)) if self.whole else [path]
        if images is not None and not images.is_dir():
            raise SourceError(f"{images}: is no folder; give the folder of the pictures by --images (data.images)")

    def with_ending(self, *endings: str) -> list[Path]:
        """The label files with one of these endings."""
        return [path for path in self.files if path.suffix.lower() in endings]

    def json(self, path: Path) -> Any:
        """What a JSON file holds, read once. labelme's copy of the picture in it is dropped."""
        if path not in self._json:
            data = read_json(path)
            if isinstance(data, dict):
                data.pop("imageData", None)
            self._json[path] = data
        return self._json[path]

    def pictures(self, folder: Path | None = None) -> list[Path]:
        """Pictures below a folder, by name."""
        folder = self.root if folder is None else folder
        if folder not in self._pictures:
            files = self.files if self.whole and folder == self.root else walk(folder)
            self._pictures[folder] = [path for path in files if path.suffix.lower() in PICTURES]
        return self._pictures[folder]

    def in_split(self, splits: Mapping[T, str], split: str) -> list[T]:
        """What belongs to a split, of things with the split of each; all for "", and where there are no parts. For
        train, where nothing says so, what is not of val or test, or else everything. Adds to ``parts``."""
        self.parts.update(splits.values())
        chosen = [thing for thing, its in splits.items() if its == split]
        if not split or not any(splits.values()):
            return list(splits)
        if not chosen and split == "train":
            return [thing for thing, its in splits.items() if not its] or list(splits)
        return chosen

    def picture(self, written: str, *near: Path) -> Path:
        """The picture that a label file calls ``written``: in one of the folders ``near``, or else the only one of its
        name in the source. Raises SourceError where it is not there, or may be several."""
        name = _file_name(written)
        folders = [*near, *([self.images] if self.images else []), self.root]
        for folder in dict.fromkeys(folders):
            if folder not in self._frames:
                self._frames[folder] = Frames(folder)
            fitting = self._frames[folder].find(name) if not os.path.isabs(name) else []
            if len(fitting) == 1:
                return folder / fitting[0]
        bare = PurePosixPath(name.replace("\\", "/")).name
        for last in dict.fromkeys((bare, _UPLOADED.sub("", bare, count=1))):
            found = self._named(last)
            if len(found) == 1:
                return found[0]
            if found:
                listed = ", ".join(str(path) for path in found[:3])
                raise SourceError(f'the picture "{shown(written)}" may be any of {listed}; give each its own name')
        raise SourceError(
            f'the picture "{shown(written)}" is not there; export the pictures with the labels, or put them beside '
            "them, or name their folder by --images (data.images)"
        )

    def _named(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            folders = dict.fromkeys([self.root, *([self.images] if self.images else [])])
            for path in dict.fromkeys(path for folder in folders for path in self.pictures(folder)):
                self._by_name.setdefault(path.name, []).append(path)
        return self._by_name.get(name, [])


def packed_name(text: object) -> str:
    """A path or a message with the path of the zip file in place of the folder that it is unpacked into."""
    named = str(text)
    for temporary, folder in _UNPACKED.items():
        named = named.replace(temporary, folder)
    return named


def remove_unpacked() -> None:
    """Remove what zip files were unpacked into; no set that was read from one can be used any more."""
    for temporary in list(_UNPACKED):
        shutil.rmtree(temporary, ignore_errors=True)
        del _UNPACKED[temporary]
    _ROOTS.clear()


atexit.register(remove_unpacked)


def read_xml(path: Path) -> Element:
    """The root of an XML file; raises SourceError for what is none, and for one that declares a document type, which no
    labelling tool writes but which can make a small file grow without bound."""
    parser = XMLParser(target=_Plain())
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                parser.feed(block)
        root: Element = parser.close()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    except (ParseError, ValueError, LookupError) as error:
        raise SourceError(f"{path}: is not XML, or cut short ({shown(error)}); export it again") from error
    return root


class _Plain(TreeBuilder):
    def doctype(self, *_: Any) -> None:
        raise ValueError("it declares a document type")


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; raises SourceError where it is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(read_text(path))
    except (YAMLError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: is not YAML ({shown(' '.join(str(error).split()), 200)}); correct it") from error


def read_text(path: Path) -> str:
    """A text file; raises SourceError where it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def split_of(path: Path, root: Path, by_name: bool = False) -> str:
    """The part of a set that a file belongs to by the names of its folders: one of ``SPLITS``, or "" for none.

    by_name: a word of the file's own name counts too, as in instances_val2017.json; not for files named as pictures.
    """
    parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-1:]
    words = [*parts[:-1], *(re.split(r"[_\-.]", path.stem) if by_name else [])]
    return next((_SPLITS[plain] for word in words if (plain := _YEAR.sub("", word.lower())) in _SPLITS), "")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the label file before what is wrong with it: errors of values and of what is missing."""
    try:
        yield
    except KeyError as error:
        raise SourceError(f"{path}: has no {error}; export it again") from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise SourceError(f"{path}: {shown(error, 400)}") from error
    except SourceError as error:
        if str(path) in str(error):
            raise
        raise SourceError(f"{path}: {error}") from error


def _file_name(written: str) -> str:
    """Of a URL, or of Label Studio's way to name a file, the part that names a file."""
    if "://" not in written and not written.startswith("/data/"):
        return written
    address = urlsplit(written)
    inner = parse_qs(address.query).get("d")
    if inner:
        return inner[0].lstrip("/")
    return PurePosixPath(unquote(address.path)).name


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones, in the order of their names; links are followed, each folder once."""

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions")

    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        # In a circle of links the same folder comes again.
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(here) / name for name in sorted(files) if not name.startswith("."))


def _unpacked(path: Path) -> Path:
    """The folder that a zip file is unpacked into, once for as long as it stays as it is."""
    state = path.stat()
    known = str(path.absolute()), state.st_mtime_ns, state.st_size
    if known not in _ROOTS:
        temporary = Path(mkdtemp(prefix="instance-flow-"))
        _UNPACKED[str(temporary)] = str(path.absolute().parent)
        # Named as the zip file is, so that a message about a file in it can name it.
        root = temporary / path.name
        try:
            _unpack(path, root)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _ROOTS[known] = root
    return _ROOTS[known]


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as packed:
            members = _checked(packed, path)
            folder.mkdir()
            for name, member in members.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as data, target.open("xb") as file:
                    shutil.copyfileobj(data, file, _BLOCK)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: is a damaged zip file ({shown(error)}); get or export it again") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise SourceError(f"{path}: cannot be unpacked ({shown(error)}); unpack it and give the folder") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be unpacked into {folder.parent}: {error.strerror or error}") from error


def _checked(packed: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Labels and pictures by where they are put, all of them within the folder; SourceError for what may do harm."""
    members = packed.infolist()
    if len(members) > _MOST_MEMBERS:
        raise SourceError(f"{path}: holds {len(members)} files, but at most {_MOST_MEMBERS} are unpacked; split it")
    wanted: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        name = member.filename.replace("\\", "/")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
            raise SourceError(
                f'{path}: its file "{shown(name)}" would be put outside of the folder that it is unpacked into; do not '
                "use this file, export it again"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise SourceError(f'{path}: its "{shown(name)}" is a link; pack the file itself')
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if member.is_dir() or hidden or PurePosixPath(name).suffix.lower() not in _WANTED:
            continue
        if member.flag_bits & 1:
            raise SourceError(f"{path}: is encrypted; unpack it yourself and give the folder")
        if member.compress_type not in _PACKED:
            raise SourceError(f'{path}: packs "{shown(name)}" by a rare method; unpack it yourself and give the folder')
        if name in wanted:
            raise SourceError(f'{path}: holds "{shown(name)}" twice; pack it again')
        wanted[name] = member
    # Python reads no more of a file than is stated here.
    size = sum(member.file_size for member in wanted.values())
    if size > MAX_UNPACKED:
        raise SourceError(
            f"{path}: holds {-(-size >> 20)} MiB, more than the {MAX_UNPACKED >> 20} MiB that are unpacked at most; if "
            "that is right, set the environment variable INSTANCE_FLOW_MAX_UNPACKED_MB to more, or unpack it yourself "
            "and give the folder"
        )
    return wanted


def to_text(value: Any, what: str) -> str:
    """A text, as it must be; raises ValueError."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} is {shown(json.dumps(value, default=str))}, but a name is needed")
    return value
