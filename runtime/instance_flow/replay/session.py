# SPDX-License-Identifier: Apache-2.0
"""A source run into a folder: its cameras, the files that are written for each, and the journal to resume from."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from instance_flow.formats.atomic import remove_leftovers
from instance_flow.formats.bag_writer import is_written
from instance_flow.formats.video import PLAYBACK_RATE, BagSource, PictureSource, Source, SourceCamera
from instance_flow.network.protocol import Network
from instance_flow.pipeline import Pipeline
from instance_flow.replay import outputs, saves
from instance_flow.replay.as_live import LiveComparison, chosen_frames, find_video
from instance_flow.replay.depth import DepthSource
from instance_flow.replay.journal import FOLDER, Journal, hold
from instance_flow.replay.outputs import Add
from instance_flow.replay.paced import paced
from instance_flow.replay.run import Lane, run
from instance_flow.replay.settings import NO_BAG, OutputOptions, Settings
from instance_flow.replay.summary import about_run, describe_as_live, summarise_as_live, summarise_camera, summarise_run
from instance_flow.replay.tracks_bag import FORMS, tracks_bag_output
from instance_flow.report.run_statistics import Statistics
from instance_flow.sources.live import LiveSource
from instance_flow.structures import SourceError

_FILES = (*outputs.FILES, *FORMS.values(), *saves.SAVES.values())

_log = logging.getLogger("instance_flow")


@dataclass(frozen=True)
class _Part:
    """One camera's part of a run.

    files: names of those that it writes.   lanes: the one that the files are of; for ``as_live`` also that of all
    frames.   as_live: called at the end, what the frames that were dropped cost; empty where every frame is run.
    """

    camera: SourceCamera
    folder: Path
    files: tuple[str, ...]
    lanes: list[Lane]
    as_live: Callable[[], dict[str, Any]]


def replay(
    source: Source,
    path: Path | None,
    folder: Path,
    network: Network,
    settings: Settings,
    output_options: OutputOptions,
    *,
    stopped: Callable[[], object] = lambda: False,
    progress: bool = True,
    watch: Add | None = None,
) -> dict[str, Any]:
    """Run a source into a folder, or resume a run that was stopped before its end; gives its summary.

    path: where the source was opened, None for a stream, which cannot be resumed.   network: of these settings.
    watch: called with every frame and its tracks, after they were written.
    One camera's files go into the folder itself, those of several into a folder per camera. Files of earlier runs that
    this one does not write are removed at its end.
    Raises what ``run`` does, ValueError where the source cannot do what is asked, and SourceError where the folder is
    the source's own.
    """
    parts = _parts(source, path, folder, network, settings, output_options, watch)
    if path is not None:
        _check_apart(path, parts)
    lanes = [lane for part in parts for lane in part.lanes]
    placed = None if settings.depth is None else DepthSource(source, path, settings.depth)
    facts = {**identify(path, source), **settings.facts(), "as_live": output_options.as_live}
    with ExitStack() as stack:
        belongs_to = {**facts, "runs_on": lanes[0].pipeline.provider, "panels": output_options.panels}
        journal = stack.enter_context(_journal(folder, belongs_to, is_resumable(path, output_options)))
        for part in parts:
            stack.enter_context(locked(part.folder))
            for name in _FILES:
                remove_leftovers(part.folder / name)
        run(
            placed or source,
            lanes,
            journal=journal,
            max_frames=output_options.max_frames,
            duration=output_options.duration,
            stopped=stopped,
            progress=progress,
            depth=placed is not None,
        )
    taken_over = sum(part.lanes[-1].taken_over for part in parts)
    summary = summarise_run(source.name, lanes[0].pipeline, lanes[0].statistics.interrupted, taken_over)
    if isinstance(source, LiveSource):
        summary |= source.facts()
    cameras = {part.camera.name: _summarise(part) for part in parts}
    if placed is not None:
        for index, part in enumerate(parts):
            cameras[part.camera.name] |= _summarise_depth(placed, index, part)
    return {**summary, **cameras.get("", {"cameras": cameras})}


def identify(path: Path | None, source: Source) -> dict[str, Any]:
    """What a journal, or a finished run, knows its source by: its place, its files, their sizes and times of change."""
    if path is None:
        return {"source": source.name}
    whole = path.resolve()
    files: Sequence[Path] = [whole]
    if isinstance(source, PictureSource):
        files = source.files
    elif whole.is_dir():
        files = sorted(file for file in whole.iterdir() if file.is_file())
    states = [(file.name, (state := file.stat()).st_size, state.st_mtime_ns) for file in files]
    return {"source": str(whole), "files": states, "topics": [camera.topic for camera in source.cameras]}


def is_resumable(path: Path | None, output_options: OutputOptions) -> bool:
    """Whether a run of this source can be resumed after it was stopped: a stream cannot be read again, and panels show
    the network's maps of every frame, which no journal holds."""
    return path is not None and not output_options.panels


def _check_apart(path: Path, parts: Sequence[_Part]) -> None:
    """A run must neither write over what it reads, nor remove that as a file of an earlier run."""
    whole = path.resolve()
    for part in parts:
        folder = part.folder.resolve()
        taken = [folder / name for name in _FILES]
        if whole == folder or any(place == whole or place in whole.parents for place in taken):
            raise SourceError(f"{part.folder}: a run there would write over its source {path}; name another folder")


@contextmanager
def _journal(folder: Path, belongs_to: Mapping[str, Any], resumable: bool) -> Iterator[Journal | None]:
    """It keeps other runs out of the folder, also where this one cannot be resumed."""
    with Journal(folder / FOLDER, belongs_to) as journal:
        if journal.length:
            _log.warning("%s: resuming the run that was stopped; remove it to start from the beginning", journal.folder)
        yield journal if resumable else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, so that no other run writes its files there. Raises InstanceFlowError
    where one does."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # Some network file systems cannot lock a folder.
            hold(handle, folder)
        yield
    finally:
        os.close(handle)


def _parts(
    source: Source,
    path: Path | None,
    folder: Path,
    network: Network,
    settings: Settings,
    output_options: OutputOptions,
    watch: Add | None,
) -> list[_Part]:
    chosen: list[frozenset[int]] | None = None
    if output_options.ground_truth is not None:
        find_video(output_options.ground_truth, output_options.video_id)  # an error now, and not after hours
    if output_options.as_live is not None:
        if not isinstance(source, BagSource):
            raise ValueError(
                f"{path or source.name}: only a bag says when its images arrived, so nothing else can be played as live"
            )
        chosen = chosen_frames(source.arrivals(), output_options.as_live)
    parts = []
    for index, camera in enumerate(source.cameras):
        frames = chosen[index] if chosen is not None and index < len(chosen) else None
        own = folder / camera.name if camera.name else folder
        about = _about(source, path)
        parts.append(
            _part(
                index,
                camera,
                frames,
                about,
                own,
                network,
                settings,
                output_options,
                watch,
                live=isinstance(source, LiveSource) and not source.recorded,
            )
        )
    return parts


def _about(source: Source, path: Path | None) -> Callable[[], dict[str, Any]]:
    """The report's facts of a source; a stream's are known at its end."""
    if isinstance(source, LiveSource):
        return lambda: {"name": source.name, "stream": source.label, **source.facts()}
    whole = (path or Path(source.name)).resolve()
    return lambda: {"name": whole.name if whole.is_dir() else whole.stem, "path": str(path)}


def _part(
    index: int,
    camera: SourceCamera,
    chosen: frozenset[int] | None,
    about_source: Callable[[], dict[str, Any]],
    folder: Path,
    network: Network,
    settings: Settings,
    output_options: OutputOptions,
    watch: Add | None,
    *,
    live: bool,
) -> _Part:
    pipeline, statistics = _pipeline(network, settings), Statistics()
    comparison = None if chosen is None else LiveComparison(chosen)

    @cache
    def as_live() -> dict[str, Any]:
        if chosen is None or comparison is None or output_options.as_live is None:
            return {}
        dropped = sum(number not in chosen for number in range(statistics.seen))
        cost = comparison.cost(statistics.seen, output_options.ground_truth, output_options.video_id)
        return summarise_as_live(output_options.as_live, statistics.seen, dropped, cost)

    def about() -> dict[str, dict[str, Any]]:
        facts = about_run(about_source(), camera, pipeline, settings)
        return {**facts, "As live": describe_as_live(as_live())} if as_live() else facts

    own = _outputs(folder, camera, pipeline, statistics, about, settings, output_options, live=live)
    opened = list(own.values())
    if watch is not None:
        opened.append(nullcontext(watch))
    lanes = [Lane(pipeline, opened, statistics, index, chosen, settings.max_gap)]
    if comparison is not None:
        lanes[0].outputs = [*lanes[0].outputs, comparison.live()]
        full = _pipeline(network, settings)
        lanes.append(Lane(full, [comparison.full()], Statistics(), index, None, settings.max_gap))
    return _Part(camera, folder, tuple(name for names in own for name in names), lanes, as_live)


def _pipeline(network: Network, settings: Settings) -> Pipeline:
    pipeline = Pipeline(network, settings.config)
    if settings.depth is not None:
        pipeline.spatial = settings.depth.spatial
    return pipeline


def _outputs(
    folder: Path,
    camera: SourceCamera,
    pipeline: Pipeline,
    statistics: Statistics,
    about: Callable[[], Mapping[str, Mapping[str, Any]]],
    settings: Settings,
    output_options: OutputOptions,
    *,
    live: bool,
) -> dict[tuple[str, ...], AbstractContextManager[Add]]:
    """What writes the files of one camera, by their names."""
    names, in_space = pipeline.info.class_names, settings.depth is not None
    chosen: dict[tuple[str, ...], AbstractContextManager[Add]] = {}
    # It holds all masks until its end, and a camera may run for months.
    if not live:
        chosen[outputs.RESULTS,] = outputs.results_output(
            folder, statistics, output_options.video_id, output_options.category_ids
        )
    chosen[outputs.TABLE,] = outputs.table_output(
        folder, names, settings.depth.target_frame if settings.depth else None
    )
    chosen[outputs.SHEET,] = outputs.sheet_output(folder, names)
    # Only a bag has the headers and times that its companion is made of.
    if camera.topic and output_options.bag != NO_BAG:
        name = FORMS[output_options.bag]
        chosen[name,] = tracks_bag_output(
            folder / name,
            pipeline.info,
            camera.name,
            label_images=output_options.label_images,
            mask_budget=output_options.mask_budget,
            spatial_frame=settings.depth.target_frame if settings.depth else "",
        )
    if output_options.video:
        rate = PLAYBACK_RATE if live else camera.rate
        video = outputs.video_output(folder, names, rate)
        chosen[outputs.VIDEO,] = paced(video, rate) if live else video
    if output_options.panels:
        chosen[outputs.PANELS, outputs.PANELS_SHEET] = outputs.panels_output(folder, pipeline, camera.rate)
    for form in output_options.save:
        chosen[saves.SAVES[form],] = saves.save_output(
            form, folder, names, output_options.category_ids, in_space=in_space
        )
    if output_options.report:
        chosen[outputs.REPORT,] = outputs.report_output(folder, about, names, statistics)
    return chosen


def _summarise(part: _Part) -> dict[str, Any]:
    files = [str(path) for path in (part.folder / name for name in part.files) if path.exists()]
    summary = summarise_camera(part.lanes[0].statistics, files, _remove_old_files(part))
    return {**summary, "as_live": part.as_live()} if part.as_live() else summary


def _summarise_depth(placed: DepthSource, camera: int, part: _Part) -> dict[str, Any]:
    problem = placed.problem(camera)
    return {
        **placed.topics[camera].facts(),
        "frames_with_depth": part.lanes[0].statistics.with_depth,
        **({"depth_problem": problem} if problem else {}),
    }


def _remove_old_files(part: _Part) -> list[str]:
    """Remove the files of earlier runs that this one did not write, so that all in the folder are of one run."""
    removed = []
    for path in (part.folder / name for name in _FILES if name not in part.files):
        if path.is_file():
            path.unlink()
        elif is_written(path) or saves.is_saved(path):
            shutil.rmtree(path)
        else:
            continue
        removed.append(str(path))
    return removed
