# SPDX-License-Identifier: Apache-2.0
"""What ``--save`` adds to a run's files: the tracks in the formats that other tools read.

As in ``outputs``, each is a context manager that gives a function to call with every frame and its tracks. Frames
count from 1 in all of them but the table: MOTChallenge and COCO do, and so do the names that ``ffmpeg -i VIDEO
-fps_mode passthrough frame_%06d.jpg`` gives the frames of a video. Ids continue through resets, so none stands for two
objects. Everything is written as the frames come.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.atomic import replacing
from instance_flow.formats.rle import compress, label_run_lengths
from instance_flow.formats.video import Frame
from instance_flow.replay.numbers import RunNumbers
from instance_flow.replay.outputs import Add
from instance_flow.structures import NUMBERS, InstanceFlowError, SourceError, Track, Tracks

SAVES = {"mot": "tracks_mot.txt", "csv": "tracks.csv", "coco": "tracks_coco.json", "crops": "crops", "txt": "labels"}
"""Name of the file or folder by the format that is asked for."""
CROPS_PER_TRACK, CROPPED_TRACKS = 5, 1000
"""Most pictures of a track, those of its best scores; and most tracks that have any, the first ones."""

_MARK = ".instance-flow"
"""In folders that a run wrote. ``labels`` may as well be the user's own labels, which no run may replace."""
_PAGE = re.compile(r"(.+)\.[^.]*#(\d+)")
"""``Frame.name`` of a page of a picture file: its stem, and the page from 0."""

_log = logging.getLogger("instance_flow")


def save_output(
    form: str,
    folder: Path,
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    *,
    in_space: bool = False,
) -> AbstractContextManager[Add]:
    """The output of a format of ``SAVES``.   category_ids: for ``coco``, by class_id; None = class_id + 1.

    in_space: whether tracks have places in metres, for ``csv``.
    """
    if form == "coco":
        return coco_output(folder, class_names, category_ids)
    if form == "csv":
        return csv_output(folder, class_names, in_space=in_space)
    return {"mot": mot_output, "crops": crops_output, "txt": txt_output}[form](folder)


def is_saved(folder: Path) -> bool:
    """Whether a run wrote this folder."""
    return (folder / _MARK).is_file()


@contextmanager
def mot_output(folder: Path) -> Iterator[Add]:
    """``tracks_mot.txt``: MOTChallenge results, ``frame,id,left,top,width,height,score,-1,-1,-1``.

    Frames, ids and pixels count from 1, as the benchmark says. The format knows one class, and objects of all classes
    stand in it.
    """
    numbers = RunNumbers()
    with _text_file(folder / SAVES["mot"]) as write:

        def add(frame: Frame, tracks: Tracks) -> None:
            numbered = numbers(tracks)
            for track, (x, y, width, height) in zip(numbered, numbered.boxes.tolist(), strict=True):
                box = f"{x + 1:g},{y + 1:g},{width:g},{height:g}"
                write(f"{frame.number + 1},{track.id},{box},{track.score:.6g},-1,-1,-1\n")

        yield add


@contextmanager
def csv_output(folder: Path, class_names: Sequence[str], *, in_space: bool = False) -> Iterator[Add]:
    """``tracks.csv``: a heading, and a row for each object of each frame; an empty cell is an unknown number.

    ``number`` is the frame's place in the source and ``frame`` that among the frames that could be used, both from 0.
    The other columns are those of ``Track.numbers``, x before y; with ``in_space`` also x, y and z in metres.
    """
    heading = ["number", "frame", "stamp", "name", *NUMBERS, *("xyz" if in_space else "")]
    numbers, names = RunNumbers(), dict(enumerate(class_names))
    with _text_file(folder / SAVES["csv"]) as write:
        write(_csv_line(heading))

        def add(frame: Frame, tracks: Tracks) -> None:
            numbered = replace(numbers(tracks), names=names)
            for track in numbered:
                place = numbered.positions[track.row].tolist() if in_space else []
                cells = [_cell(value) for value in track.numbers().values()] + [_cell(value) for value in place]
                write(_csv_line([frame.number, numbered.frame_index, frame.stamp, frame.name, *cells]))

        yield add


@contextmanager
def coco_output(folder: Path, class_names: Sequence[str], category_ids: Sequence[int] | None = None) -> Iterator[Add]:
    """``tracks_coco.json``: a COCO data set of the frames, masks as compressed run lengths.

    An annotation also has its ``score``, so that the list of annotations can be given to ``COCO.loadRes``, and its
    ``track_id``. An image's id is the frame's place in the source from 1.
    category_ids: by class_id; None = class_id + 1.
    """
    path, numbers = folder / SAVES["coco"], RunNumbers()
    ids = range(1, len(class_names) + 1) if category_ids is None else category_ids
    heads = {"info": {"description": "tracks by instance-flow"}, "licenses": []}
    categories = [{"id": k, "name": name} for k, name in zip(ids, class_names, strict=True)]
    with _text_file(path) as write, _scratch_file(path) as images:
        write(f'{json.dumps({**heads, "categories": categories})[:-1]}, "annotations": [')
        annotations = pictures = 0

        def add(frame: Frame, tracks: Tracks) -> None:
            nonlocal annotations, pictures
            numbered, image_id = numbers(tracks), frame.number + 1
            height, width = tracks.label_map.shape
            name = frame.name or f"frame_{image_id:06d}.jpg"
            image = {"id": image_id, "file_name": name, "width": width, "height": height}
            with _told(path):
                images.write(f"{',' if pictures else ''}\n{json.dumps(image)}")
            pictures += 1
            for track, runs in zip(numbered, label_run_lengths(numbered.label_map, numbered.ids), strict=True):
                annotation = {
                    **{"id": annotations + 1, "image_id": image_id, "category_id": ids[track.class_id]},
                    "segmentation": {"size": [height, width], "counts": compress(runs)},
                    **{"bbox": numbered.boxes[track.row].tolist(), "area": track.area, "iscrowd": 0},
                    **{"score": round(track.score, 6), "track_id": track.id},
                }
                write(f"{',' if annotations else ''}\n{json.dumps(annotation)}")
                annotations += 1

        yield add
        write('\n], "images": [')
        with _told(path):
            images.seek(0)
            while part := images.read(2**20):
                write(part)
        write("\n]}\n")


@contextmanager
def crops_output(folder: Path) -> Iterator[Add]:
    """``crops/ID/frame_000001_0.932.png``: the best-scored pictures of each track, transparent but for its mask.

    At most ``CROPS_PER_TRACK`` of each of the first ``CROPPED_TRACKS`` tracks, so that an endless stream fills no disk.
    """
    numbers, too_many = RunNumbers(), False
    best: dict[int, list[tuple[float, Path]]] = {}
    with _own_folder(folder / SAVES["crops"]) as place:
        full = SAVES["crops"], CROPPED_TRACKS

        def add(frame: Frame, tracks: Tracks) -> None:
            nonlocal too_many
            for track in numbers(tracks):
                if track.id not in best and len(best) >= CROPPED_TRACKS:
                    if not too_many:
                        _log.warning("%s has pictures of the first %d tracks, and none of later ones", *full)
                    too_many = True
                    continue
                kept = best.setdefault(track.id, [])
                if len(kept) == CROPS_PER_TRACK and track.score <= kept[-1][0]:
                    continue
                path = place / str(track.id) / f"frame_{frame.number + 1:06d}_{track.score:.3f}.png"
                with _told(folder / SAVES["crops"]):
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(_cut_out(frame, track))
                kept.append((track.score, path))
                kept.sort(key=lambda entry: -entry[0])
                for _, worst in kept[CROPS_PER_TRACK:]:
                    worst.unlink()
                del kept[CROPS_PER_TRACK:]

        yield add


@contextmanager
def txt_output(folder: Path) -> Iterator[Add]:
    """``labels/NAME.txt`` for each frame, as ultralytics' ``save_txt`` writes tracks: ``class x1 y1 x2 y2 ... id``.

    The polygon goes through the middles of the object's outer pixels, as fractions of the image's width and height:
    filled together with its outline, as OpenCV and ultralytics do, it is the mask again. Holes are filled, and parts
    that do not touch are joined by a line, since the format has one polygon for an object. A frame without objects has
    an empty file.
    """
    numbers = RunNumbers()
    with _own_folder(folder / SAVES["txt"]) as place:

        def add(frame: Frame, tracks: Tracks) -> None:
            size = np.array(tracks.label_map.shape[::-1])
            lines = []
            for track in numbers(tracks):
                points = ((_polygon(track) + 0.5) / size).reshape(-1).tolist()
                lines.append(f"{track.class_id}{' %g' * len(points) % tuple(points)} {track.id}\n")
            with _told(folder / SAVES["txt"]):
                (place / _free_name(place, frame)).write_text("".join(lines))

        yield add


def _cell(value: float | str) -> float | str:
    if isinstance(value, float):
        return round(value, 4) + 0.0 if math.isfinite(value) else ""  # no -0.0
    return value


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _window(track: Track) -> tuple[slice, slice]:
    """Rows and columns of the object's box."""
    x0, y0, x1, y1 = track.box
    return slice(math.floor(y0), math.ceil(y1)), slice(math.floor(x0), math.ceil(x1))


def _cut_out(frame: Frame, track: Track) -> bytes:
    """The object as a PNG, its surroundings black and transparent."""
    window = _window(track)
    mask = track.tracks.label_map[window] == track.id
    picture = np.zeros((*mask.shape, 4), np.uint8)
    picture[mask, :3] = frame.image[window][mask][:, ::-1]
    picture[mask, 3] = 255
    return cv2.imencode(".png", picture)[1].tobytes()


def _polygon(track: Track) -> NDArray[np.int64]:
    """Outline (P, 2) x, y of the object's outer pixels, P at least 3; parts are joined where they begin."""
    rows, columns = _window(track)
    mask = (track.tracks.label_map[rows, columns] == track.id).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = sorted((outline.reshape(-1, 2).astype(np.int64) for outline in outlines), key=len, reverse=True)
    joined = parts[0]
    for part in parts[1:]:
        near = int(np.abs(joined - part[0]).sum(1).argmin())
        joined = np.concatenate([joined[: near + 1], part, part[:1], joined[near:]])
    joined = np.concatenate([joined, np.repeat(joined[-1:], max(0, 3 - len(joined)), 0)])
    return np.asarray(joined + np.array([columns.start, rows.start]), np.int64)


def _free_name(place: Path, frame: Frame) -> str:
    """The picture's name, ending in .txt; with the frame's number where another picture has the same stem."""
    page = _PAGE.fullmatch(frame.name)
    stem = f"{page[1]}_{int(page[2]) + 1}" if page else Path(frame.name).stem or f"frame_{frame.number + 1:06d}"
    name = f"{stem}.txt"
    while (place / name).exists():
        stem = f"{stem}_{frame.number + 1}"
        name = f"{stem}.txt"
        _log.warning("another picture has the stem of %s; its labels are in %s/%s", frame.name, SAVES["txt"], name)
    return name


@contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name when it is whole, with the mark of a run. Raises SourceError where it would
    take the place of something else."""
    if path.exists() and not is_saved(path) and not (path.is_dir() and not any(path.iterdir())):
        raise SourceError(f"{path} was not written by `instance-flow run`, so no run replaces it; name another --out")
    with replacing(path) as whole:
        with _told(path):
            whole.mkdir()
            (whole / _MARK).write_text("Written by `instance-flow run`; the next run into its folder replaces it.\n")
        yield whole


@contextmanager
def _text_file(path: Path) -> Iterator[Callable[[str], None]]:
    """A text file that appears under its name when it is whole; gives what writes into it."""
    with replacing(path) as whole:
        # A file's name may hold bytes that are no text at all.
        file = whole.open("w", encoding="utf-8", errors="backslashreplace", newline="")

        def write(text: str) -> None:
            with _told(path):
                file.write(text)

        try:
            yield write
        except BaseException:
            with suppress(OSError):
                file.close()
            raise
        with _told(path):
            file.close()


@contextmanager
def _scratch_file(path: Path) -> Iterator[Any]:
    """A text file without a name, on the disk that ``path`` is on."""
    with _told(path):
        file = TemporaryFile("w+", encoding="utf-8", dir=path.parent)  # noqa: SIM115 - to close it may fail as well
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say which file could not be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InstanceFlowError(f"{path}: cannot be written ({reason}); is the disk full?") from error
