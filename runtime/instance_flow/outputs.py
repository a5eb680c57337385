# SPDX-License-Identifier: Apache-2.0
"""The files that a run leaves behind, each of them whole or not there at all.

An output is a context manager that gives a function to call with every frame and its tracks. Leaving it finishes its
files; leaving it with an exception drops them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instance_flow.atomic import replacing
from instance_flow.draw import contact_sheet, overlay
from instance_flow.structures import NEW, Image, SourceError, Tracks
from instance_flow.video import Frame, VideoWriter
from instance_flow.ytvis import ResultsCollector, write_results

RESULTS, TABLE, VIDEO, SHEET = "results.json", "tracks.jsonl", "overlay.mp4", "contact_sheet.png"

Add = Callable[[Frame, Tracks], None]

_VIDEO_ID = 1
_SHEET_FRAMES = 12
_SHEET_COLUMNS = 3
_SHEET_WIDTH = 480


@contextmanager
def results_output(folder: Path) -> Iterator[Add]:
    """``results.json``: YouTube-VIS results of one video, number 1; category ids are class_id + 1."""
    collector = ResultsCollector()
    with replacing(folder / RESULTS) as path:
        yield lambda _, tracks: collector.add(tracks)
        write_results(path, collector.results(_VIDEO_ID))


@contextmanager
def table_output(folder: Path, class_names: Sequence[str]) -> Iterator[Add]:
    """``tracks.jsonl``: one line of JSON per frame, with every object's numbers and why it has its id."""
    with replacing(folder / TABLE) as path, path.open("w", encoding="utf-8") as file:

        def add(frame: Frame, tracks: Tracks) -> None:
            rows = [table_row(tracks, row, class_names) for row in range(len(tracks))]
            line = {"frame": tracks.frame_index, "stamp": frame.stamp, "name": frame.name, "tracks": rows}
            file.write(json.dumps(line) + "\n")

        yield add


@contextmanager
def video_output(folder: Path, class_names: Sequence[str], rate: float) -> Iterator[Add]:
    """``overlay.mp4`` at so many frames per second."""
    with VideoWriter(folder / VIDEO, rate) as video:
        yield lambda frame, tracks: video.write(overlay(frame.image, tracks, class_names))


@contextmanager
def sheet_output(folder: Path, class_names: Sequence[str]) -> Iterator[Add]:
    """``contact_sheet.png``: overlays of frames spread evenly over the run."""
    samples: list[tuple[int, Image]] = []
    step = 1

    def add(frame: Frame, tracks: Tracks) -> None:
        nonlocal samples, step
        if tracks.frame_index % step:
            return
        samples.append((tracks.frame_index, _shrunk(overlay(frame.image, tracks, class_names))))
        # How long a source is, only its end tells: take ever wider steps.
        if len(samples) == 2 * _SHEET_FRAMES:
            samples, step = samples[::2], 2 * step

    yield add
    if samples:
        _write_sheet(folder / SHEET, samples)


def table_row(tracks: Tracks, row: int, class_names: Sequence[str]) -> dict[str, Any]:
    """Numbers of one track as JSON holds them; x points right, y points down, None stands for what is unknown.

    ``kept`` says why the object has its id: the reference frame that it was matched with, and the distance in pixels
    between the two centers there. It is None for a new id.
    """
    class_id, reference = int(tracks.class_ids[row]), int(tracks.reference_frames[row])
    kept = {"reference_frame": reference, "distance": _number(tracks.distances[row])}
    return {
        "id": int(tracks.ids[row]),
        "class_id": class_id,
        "class_name": class_names[class_id],
        "score": _number(tracks.scores[row]),
        "semantic_score": _number(tracks.semantic_scores[row]),
        "center_score": _number(tracks.center_scores[row]),
        "box": [_number(value) for value in tracks.boxes[row]],
        "center": _vector(tracks.centers[row]),
        "velocity": _vector(tracks.velocities[row]),
        "area": int(tracks.areas[row]),
        "age": int(tracks.ages[row]),
        "kept": None if reference == NEW else kept,
    }


def _shrunk(image: Image) -> Image:
    """A copy no wider than it will be on the sheet, since many are kept."""
    factor = min(1.0, _SHEET_WIDTH / image.shape[1])
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def _write_sheet(path: Path, samples: list[tuple[int, Image]]) -> None:
    chosen = np.unique(np.linspace(0, len(samples) - 1, _SHEET_FRAMES).round().astype(int))
    frames, captions = [samples[k][1] for k in chosen], [f"frame {samples[k][0]}" for k in chosen]
    sheet = contact_sheet(frames, captions, _SHEET_COLUMNS, _SHEET_WIDTH)
    with replacing(path) as temporary:
        if not cv2.imwrite(str(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise SourceError(f"{path}: cannot be written; is the disk full?")


def _vector(point: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, float | None]:
    return {"x": _number(point[1]), "y": _number(point[0])}


def _number(value: np.floating[Any]) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None
