# SPDX-License-Identifier: Apache-2.0
"""A source run into a folder: its cameras, the files that are wanted of each, and the journal to go on with."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instance_flow import outputs
from instance_flow.atomic import remove_leftovers
from instance_flow.outputs import Add
from instance_flow.pipeline import Pipeline
from instance_flow.replay.as_live import Comparison, chosen_frames
from instance_flow.replay.journal import FOLDER, Journal
from instance_flow.replay.run import Lane, run
from instance_flow.replay.settings import NO_BAG, Settings, Wanted
from instance_flow.replay.summary import about_run, describe_as_live, summarise_as_live, summarise_camera, summarise_run
from instance_flow.replay.tracks_bag import FORMS, tracks_bag_output
from instance_flow.run_statistics import Statistics
from instance_flow.structures import Network
from instance_flow.video import BagSource, Camera, Source

_FILES = (*outputs.FILES, *FORMS.values())

_log = logging.getLogger("instance_flow")


@dataclass(frozen=True)
class _Part:
    """One camera's part of a run. ``lanes``: the one that the files are of; for ``as_live`` also that of all frames."""

    camera: Camera
    folder: Path
    files: tuple[str, ...]
    lanes: list[Lane]
    comparison: Comparison | None

    def dropped(self) -> int:
        """How many frames the machine that is played did not manage."""
        lane = self.lanes[0]
        return 0 if lane.chosen is None else sum(n not in lane.chosen for n in range(lane.statistics.seen))


def replay(
    source: Source,
    path: Path,
    folder: Path,
    network: Network,
    settings: Settings,
    wanted: Wanted,
    *,
    stopped: Callable[[], object] = lambda: False,
    progress: bool = True,
) -> dict[str, Any]:
    """Run a source into a folder, or go on with a run that was stopped before its end; gives its summary.

    path: where the source was opened.   network: of these settings.
    One camera's files go into the folder itself, those of several into a folder per camera. Files of earlier runs that
    this one does not write are removed at its end.
    Raises what ``run`` does, and ValueError where the source cannot do what is wanted.
    """
    parts = _parts(source, path, folder, network, settings, wanted)
    lanes = [lane for part in parts for lane in part.lanes]
    facts = {**identify(path, source), **settings.facts(), "as_live": wanted.as_live}
    with _journal(folder, {**facts, "runs_on": lanes[0].pipeline.provider}, wanted) as journal:
        for part in parts:
            for name in _FILES:
                remove_leftovers(part.folder / name)
        run(source, lanes, journal=journal, max_frames=wanted.max_frames, stopped=stopped, progress=progress)
    taken_over = 0 if journal is None else journal.length
    summary = summarise_run(source.name, lanes[0].pipeline, lanes[0].statistics.interrupted, taken_over)
    cameras = {part.camera.name: _summarise(part, wanted) for part in parts}
    return {**summary, **cameras.get("", {"cameras": cameras})}


def identify(path: Path, source: Source) -> dict[str, Any]:
    """What a journal, or a finished run, knows its source by: its place, its files, their sizes and times of change."""
    whole = path.resolve()
    files = sorted(file for file in whole.iterdir() if file.is_file()) if whole.is_dir() else [whole]
    states = [(file.name, (state := file.stat()).st_size, state.st_mtime_ns) for file in files]
    return {"source": str(whole), "files": states, "topics": [camera.topic for camera in source.cameras]}


@contextmanager
def _journal(folder: Path, belongs_to: Mapping[str, Any], wanted: Wanted) -> Iterator[Journal | None]:
    if wanted.panels:
        # They show what the network said of every frame, which no journal holds.
        yield None
        return
    with Journal(folder / FOLDER, belongs_to) as journal:
        if journal.length:
            _log.warning("%s: going on with the run that was stopped; remove it to begin anew", journal.folder)
        yield journal


def _parts(
    source: Source, path: Path, folder: Path, network: Network, settings: Settings, wanted: Wanted
) -> list[_Part]:
    chosen: list[frozenset[int]] | None = None
    if wanted.as_live is not None:
        if not isinstance(source, BagSource):
            raise ValueError(f"{path}: only a bag says when its images arrived, so nothing else can be played as live")
        chosen = chosen_frames(source.arrivals()[: wanted.max_frames], wanted.as_live)
    parts = []
    for index, camera in enumerate(source.cameras):
        frames = chosen[index] if chosen is not None and index < len(chosen) else None
        own = folder / camera.name if camera.name else folder
        parts.append(_part(index, camera, frames, path, own, network, settings, wanted))
    return parts


def _part(
    index: int,
    camera: Camera,
    chosen: frozenset[int] | None,
    path: Path,
    folder: Path,
    network: Network,
    settings: Settings,
    wanted: Wanted,
) -> _Part:
    pipeline, statistics = Pipeline(network, settings.config), Statistics()
    comparison = None if chosen is None else Comparison(chosen)

    def about() -> dict[str, dict[str, Any]]:
        facts = about_run(path, camera, pipeline, settings)
        return facts if comparison is None else {**facts, "As live": describe_as_live(_summarise_as_live(part, wanted))}

    own = _outputs(folder, camera, pipeline, statistics, about, wanted)
    lanes = [Lane(pipeline, list(own.values()), statistics, index, chosen, settings.max_gap)]
    if comparison is not None:
        lanes[0].outputs = [*lanes[0].outputs, comparison.live()]
        full = Pipeline(network, settings.config)
        lanes.append(Lane(full, [comparison.full()], Statistics(), index, None, settings.max_gap))
    part = _Part(camera, folder, tuple(name for names in own for name in names), lanes, comparison)
    return part


def _outputs(
    folder: Path,
    camera: Camera,
    pipeline: Pipeline,
    statistics: Statistics,
    about: Callable[[], Mapping[str, Mapping[str, Any]]],
    wanted: Wanted,
) -> dict[tuple[str, ...], AbstractContextManager[Add]]:
    """What writes the files of one camera, by their names."""
    names = pipeline.info.class_names
    chosen: dict[tuple[str, ...], AbstractContextManager[Add]] = {
        (outputs.RESULTS,): outputs.results_output(folder, statistics, wanted.video_id, wanted.category_ids),
        (outputs.TABLE,): outputs.table_output(folder, names),
        (outputs.SHEET,): outputs.sheet_output(folder, names),
    }
    # Only a bag has the headers and times that its companion is made of.
    if camera.topic and wanted.bag != NO_BAG:
        name = FORMS[wanted.bag]
        chosen[name,] = tracks_bag_output(
            folder / name,
            pipeline.info,
            camera.name,
            label_images=wanted.label_images,
            mask_budget=wanted.mask_budget,
        )
    if wanted.video:
        chosen[outputs.VIDEO,] = outputs.video_output(folder, names, camera.rate)
    if wanted.panels:
        chosen[outputs.PANELS, outputs.PANELS_SHEET] = outputs.panels_output(folder, pipeline, camera.rate)
    if wanted.report:
        chosen[outputs.REPORT,] = outputs.report_output(folder, about, names, statistics)
    return chosen


def _summarise(part: _Part, wanted: Wanted) -> dict[str, Any]:
    files = [str(part.folder / name) for name in part.files]
    summary = summarise_camera(part.lanes[0].statistics, files, _remove_old_files(part))
    return summary if part.comparison is None else {**summary, "as_live": _summarise_as_live(part, wanted)}


def _summarise_as_live(part: _Part, wanted: Wanted) -> dict[str, Any]:
    statistics, comparison = part.lanes[0].statistics, part.comparison
    if comparison is None or wanted.as_live is None:
        return {}
    cost = comparison.cost(statistics.seen, wanted.ground_truth, wanted.video_id)
    return summarise_as_live(wanted.as_live, statistics.seen, part.dropped(), cost)


def _remove_old_files(part: _Part) -> list[str]:
    """Remove the files of earlier runs that this one did not write, so that all in the folder are of one run."""
    removed = []
    for path in (part.folder / name for name in _FILES if name not in part.files):
        if path.is_file():
            path.unlink()
        elif (path / "metadata.yaml").is_file():
            shutil.rmtree(path)
        else:
            continue
        removed.append(str(path))
    return removed
