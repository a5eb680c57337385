# SPDX-License-Identifier: Apache-2.0
"""The output files of a run. Each is written completely or not at all.

An output is a context manager that gives a function to call with every frame and its tracks. Leaving it finishes its
files; leaving it with an exception drops them.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instance_flow.formats.atomic import replacing
from instance_flow.formats.video import Frame, opencv_path
from instance_flow.formats.video_writer import VideoWriter
from instance_flow.formats.ytvis import ResultsCollector, write_results
from instance_flow.pictures.birds_eye import birds_eye
from instance_flow.pictures.draw import contact_sheet, overlay
from instance_flow.pictures.panels import Panels
from instance_flow.pipeline import Observation, Pipeline
from instance_flow.replay.numbers import RunNumbers
from instance_flow.report.page import report_page
from instance_flow.report.run_statistics import Statistics
from instance_flow.report.samples import EvenSamples
from instance_flow.structures import NEW, SPATIAL_STATES, STATES, Image, SourceError, Tracks

RESULTS, TABLE, VIDEO, SHEET = "results.json", "tracks.jsonl", "overlay.mp4", "contact_sheet.png"
PANELS, PANELS_SHEET, REPORT = "panels.mp4", "panels.png", "report.html"
FILES = (RESULTS, TABLE, VIDEO, SHEET, PANELS, PANELS_SHEET, REPORT)
"""Every file here; those that a run does not write would be of another one."""

Add = Callable[[Frame, Tracks], None]

_log = logging.getLogger("instance_flow")

_SHEET_FRAMES = 12
_SHEET_COLUMNS = 3
_SHEET_WIDTH = 480
_PANELS_FRAMES = 3


@contextmanager
def results_output(
    folder: Path, statistics: Statistics, video_id: int = 1, category_ids: Sequence[int] | None = None
) -> Iterator[Add]:
    """``results.json``: YouTube-VIS results of one video under that id.

    statistics: those that the run fills; they say how many frames there were, also such as could not be used.
    category_ids: by class_id; None = class_id + 1.
    The format has one entry per track, so all masks of the run are held until its end, compressed. An id after a reset
    is another track than before. The format has one size per video, that of the first frame here: frames of another
    size stand in it without objects.
    """
    collector, numbers, sizes = ResultsCollector(category_ids=category_ids), RunNumbers(), _FirstSize()

    def add(frame: Frame, tracks: Tracks) -> None:
        height, width = tracks.label_map.shape
        numbered = numbers(tracks)
        if sizes.is_first(height, width):
            collector.add(numbered, frame.number)
        elif sizes.others == 1:
            _log.warning(
                "frame %d is %d x %d, the first one %d x %d: %s holds one size per video, so frames of another size "
                "are in it without objects",
                *(frame.number, width, height, sizes.first[1], sizes.first[0], RESULTS),
            )

    with replacing(folder / RESULTS) as path:
        yield add
        write_results(path, collector.results(video_id, statistics.seen))


@contextmanager
def table_output(folder: Path, class_names: Sequence[str], spatial_frame: str | None = None) -> Iterator[Add]:
    """``tracks.jsonl``: one line of JSON per frame, with every object's numbers and why it has its id.

    ``number`` is the frame's place in the source, ``frame`` that in its stream, which begins at 0 again after a reset.
    spatial_frame: of what is known in metres, empty = the image's; None = that is left out.
    """
    with replacing(folder / TABLE) as path, path.open("w", encoding="utf-8") as file:

        def add(frame: Frame, tracks: Tracks) -> None:
            rows = [
                table_row(tracks, row, class_names) | ({} if spatial_frame is None else _row_in_space(tracks, row))
                for row in range(len(tracks))
            ]
            line = {
                **{"number": frame.number, "frame": tracks.frame_index, "stamp": frame.stamp, "name": frame.name},
                **({} if spatial_frame is None else {"spatial_frame": spatial_frame or frame.frame_id}),
                "tracks": rows,
            }
            file.write(json.dumps(line) + "\n")

        yield add


@contextmanager
def video_output(folder: Path, class_names: Sequence[str], rate: float) -> Iterator[Add]:
    """``overlay.mp4`` at so many frames per second; frames of another size than the first one are scaled to it."""
    sizes = _FirstSize()
    with VideoWriter(folder / VIDEO, rate) as video:
        yield lambda frame, tracks: video.write(sizes.scaled(overlay(frame.image, tracks, class_names)))


@contextmanager
def sheet_output(folder: Path, class_names: Sequence[str]) -> Iterator[Add]:
    """``contact_sheet.png``: overlays of frames spread evenly over the run."""
    samples = EvenSamples(_SHEET_FRAMES)
    yield _sampling(samples, class_names)
    if samples.chosen():
        _write_sheet(folder / SHEET, samples.chosen(), _SHEET_COLUMNS, _SHEET_WIDTH)


@contextmanager
def panels_output(folder: Path, pipeline: Pipeline, rate: float) -> Iterator[Add]:
    """``panels.mp4``, the network's maps and the results, frame by frame; and ``panels.png``, a few of them.

    The pipeline's observer is this output's until it ends.
    """
    panels = Panels(pipeline.info, pipeline.config.references or pipeline.info.max_references)
    latest: list[Observation] = []
    samples, sizes, count = EvenSamples(_PANELS_FRAMES), _FirstSize(), itertools.count()

    def observe(observation: Observation) -> None:
        latest[:] = [observation]

    before, pipeline.observer = pipeline.observer, observe
    try:
        with VideoWriter(folder / PANELS, rate) as video:

            def add(frame: Frame, _: Tracks) -> None:
                picture, place = sizes.scaled(panels.draw(frame.image, latest[0])), next(count)
                video.write(picture)
                if samples.accepts(place):
                    samples.add(place, picture)

            yield add
    finally:
        pipeline.observer = before
    if samples.chosen():
        width = samples.chosen()[0][1].shape[1]
        _write_sheet(folder / PANELS_SHEET, samples.chosen(), 1, width, captions=False)


@contextmanager
def report_output(
    folder: Path,
    about: Callable[[], Mapping[str, Mapping[str, Any]]],
    class_names: Sequence[str],
    statistics: Statistics,
) -> Iterator[Add]:
    """``report.html``: the run as one page that needs nothing else. ``about`` gives, at the end, what
    ``report.report_page`` wants; statistics are those that the run fills."""
    samples, above = EvenSamples(_SHEET_FRAMES), EvenSamples(_SHEET_FRAMES)
    with replacing(folder / REPORT) as path:
        add_overlay, add_above = _sampling(samples, class_names), _sampling_above(above)

        def add(frame: Frame, tracks: Tracks) -> None:
            add_overlay(frame, tracks)
            add_above(frame, tracks)

        yield add
        page = report_page(about(), statistics, class_names, samples.chosen(), above.chosen())
        # A file's name may hold bytes that are no text at all.
        path.write_text(page, encoding="utf-8", errors="replace")


def table_row(tracks: Tracks, row: int, class_names: Sequence[str]) -> dict[str, Any]:
    """Numbers of one track as JSON holds them; x points right, y points down, None stands for what is unknown.

    ``kept`` says why the object has its id: the reference frame that it was matched with, and the distance in pixels
    between the two centers there; for an object re-identified by appearance, the last frame that showed it, and no
    distance. It is None for a new id.
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
        "state": STATES[tracks.states[row]],
        "age": int(tracks.ages[row]),
        "age_seconds": _number(tracks.age_seconds[row]),
        "kept": None if reference == NEW else kept,
    }


def _row_in_space(tracks: Tracks, row: int) -> dict[str, Any]:
    """What is known of one track in metres, as JSON holds it: x, y, z in the order of ``Tracks.positions``; all but the
    state is None where it is unknown. ``covariance`` is (6, 6), of position and velocity."""

    def numbers(values: np.ndarray[Any, Any]) -> list[float] | None:
        # In digits that count: variances are far below a thousandth.
        return [float(f"{value:.6g}") for value in values.tolist()] if np.isfinite(values).all() else None

    covariance = [numbers(line) for line in tracks.spatial_covariances[row]]
    return {
        "spatial_state": SPATIAL_STATES[tracks.spatial_states[row]],
        "position": numbers(tracks.positions[row]),
        "spatial_velocity": numbers(tracks.spatial_velocities[row]),
        "covariance": None if None in covariance else covariance,
        "extent": numbers(tracks.extents[row]),
    }


class _FirstSize:
    """The size of a run's first frame, and how many came in another one."""

    def __init__(self) -> None:
        self.first = (0, 0)
        self.others = 0

    def is_first(self, height: int, width: int) -> bool:
        if not any(self.first):
            self.first = height, width
        if self.first == (height, width):
            return True
        self.others += 1
        return False

    def scaled(self, picture: Image) -> Image:
        if self.is_first(picture.shape[0], picture.shape[1]):
            return picture
        return np.asarray(cv2.resize(picture, self.first[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _sampling(samples: EvenSamples, class_names: Sequence[str]) -> Add:
    """Keep overlays of frames spread evenly over the run."""

    count = itertools.count()

    def add(frame: Frame, tracks: Tracks) -> None:
        place = next(count)
        if samples.accepts(place):
            samples.add(place, _shrunk(overlay(frame.image, tracks, class_names)))

    return add


def _sampling_above(samples: EvenSamples) -> Add:
    """Keep pictures from above of the same frames, as far as they are in metres."""

    count = itertools.count()

    def add(frame: Frame, tracks: Tracks) -> None:
        place = next(count)
        known = tracks.positions[np.isfinite(tracks.positions).all(1)]
        if len(known) and frame.calibration is not None and samples.accepts(place):
            # Seen from the camera, whatever frame they are given in.
            pose = np.eye(4) if frame.calibration.pose is None else frame.calibration.pose
            farthest = float(((known - pose[:3, 3]) @ pose[:3, 2]).max())
            samples.add(place, birds_eye(tracks, frame.calibration, reach=min(max(4.0, math.ceil(farthest) + 1), 1000)))

    return add


def _shrunk(image: Image) -> Image:
    """A copy that fits into a square as wide as a picture of the sheet, since many are kept."""
    factor = min(1.0, _SHEET_WIDTH / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _write_sheet(
    path: Path, samples: Sequence[tuple[int, Image]], columns: int, width: int, *, captions: bool = True
) -> None:
    texts = [f"frame {index}" for index, _ in samples] if captions else []
    sheet = contact_sheet([picture for _, picture in samples], texts, columns, width)
    with replacing(path) as temporary:
        if not cv2.imwrite(opencv_path(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise SourceError(f"{path}: cannot be written; is the disk full?")


def _vector(point: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, float | None]:
    return {"x": _number(point[1]), "y": _number(point[0])}


def _number(value: np.floating[Any]) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None
