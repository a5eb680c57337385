# SPDX-License-Identifier: Apache-2.0
"""A folder of bags measured against ground truth: every bag is run, by any executor, and the results are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from instance_flow.evaluation.evaluate import evaluate_data
from instance_flow.evaluation.in_metres import evaluate_in_metres
from instance_flow.formats.json_files import read_json, write_json
from instance_flow.formats.video import open_source
from instance_flow.formats.ytvis import GroundTruth, write_results
from instance_flow.network.protocol import Network
from instance_flow.replay import outputs
from instance_flow.replay.bag_matching import Matching
from instance_flow.replay.session import identify, replay
from instance_flow.replay.settings import NO_BAG, OutputOptions, Settings
from instance_flow.replay.tracks_bag import FORMS
from instance_flow.structures import InstanceFlowError, SourceError

FINISHED = "finished.json"
"""In the folder of a bag: what its files were made of, and the summary. Only a bag that was run to its end has it."""

STOP = ".stop"
"""While this file is there, the bags of the folder stop at the next frame. It reaches workers on any machine."""

NOT_BEGUN = "not begun"

_POLL = 0.5
_PATIENCE = 10.0
"""Seconds that jobs have to see that they are stopped; where no worker takes them, nothing else ends the wait."""


@dataclass(frozen=True)
class Job:
    """One bag to be run, by a process anywhere that sees the same files.

    length: frames of its video in the ground truth.   stop: file whose being there stops the run.
    """

    bag: Path
    folder: Path
    settings: Settings
    output_options: OutputOptions
    topics: tuple[str, ...]
    length: int
    stop: Path


@dataclass(frozen=True)
class Outcome:
    """The result of one bag: a summary, or the problem. ``before``: it had been finished by an earlier command."""

    summary: Mapping[str, Any] | None
    problem: str = ""
    before: bool = False


def make_jobs(
    matching: Matching, folder: Path, settings: Settings, output_options: OutputOptions, topics: Sequence[str] = ()
) -> dict[str, Job]:
    """One job per matched bag, by its name; its files go into a folder of that name.

    All paths are absolute, since a worker may have been started in another folder.
    """
    folder = folder.absolute()
    settings = replace(settings, model=settings.model.absolute())
    return {
        name: Job(
            bag.absolute(),
            folder / name,
            settings,
            replace(output_options, video_id=video.id),
            tuple(topics),
            video.length,
            folder / STOP,
        )
        for name, (bag, video) in matching.pairs.items()
    }


def run_job(job: Job) -> Outcome:
    """Run one bag, resume it, or find that it is finished; the outcome says what is wrong with it."""
    try:
        return _run(job)
    except (InstanceFlowError, ValueError, OSError) as error:
        return Outcome(None, str(error))


def run_jobs(
    jobs: Mapping[str, Job], executor: Executor, stopped: Callable[[], object] = lambda: False
) -> Iterator[tuple[str, Outcome]]:
    """Give each job's outcome as it comes. Where ``stopped`` says so, those under way end early and no more are begun.

    executor: of any engine that keeps the interface of concurrent.futures.
    """
    stops = {job.stop for job in jobs.values()}
    _remove(stops)  # A command that was killed may have left its own.
    names: dict[Future[Outcome], str] = {executor.submit(_begin, job): name for name, job in jobs.items()}
    waiting, end = set(names), inf
    try:
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
            if stopped() and end == inf:
                end = monotonic() + _PATIENCE
                _touch(stops)
            if monotonic() > end:
                for future in waiting:
                    future.cancel()
            for future in done | {future for future in waiting if future.cancelled()}:
                yield names[future], _outcome(future, end < inf)
            waiting = {future for future in waiting if not future.cancelled()}
    finally:
        # Where a worker may still be at a bag that was given up, the file stays for it; the next command removes it.
        if monotonic() < end:
            _remove(stops)


def merge_and_evaluate(
    ground_truth: GroundTruth,
    jobs: Mapping[str, Job],
    folder: Path,
    size_limits: str,
    spatial_truth: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Put the results of finished jobs together in the folder, and measure them against their videos alone.

    spatial_truth: by the name of each bag, the truth of its scene in metres; None = that is not measured.
    Writes results.json and evaluation.json; gives the numbers of ``evaluation.evaluate``, and those in metres under
    ``in_metres``.
    """
    ids = {job.output_options.video_id for job in jobs.values()}
    truth = replace(
        ground_truth,
        videos=tuple(video for video in ground_truth.videos if video.id in ids),
        annotations=tuple(entry for entry in ground_truth.annotations if entry.video_id in ids),
    )
    ordered = sorted(jobs.values(), key=lambda job: job.output_options.video_id)
    results = [entry for job in ordered for entry in read_json(job.folder / outputs.RESULTS)]
    numbers = evaluate_data(truth, results, size_limits=size_limits)
    if spatial_truth is not None:
        pairs = [(spatial_truth[name], job.folder / outputs.TABLE) for name, job in jobs.items()]
        numbers["in_metres"] = evaluate_in_metres(pairs)
    write_results(folder / outputs.RESULTS, results)
    write_json(folder / "evaluation.json", numbers, indent=2)
    return numbers


def _run(job: Job) -> Outcome:
    source = open_source(job.bag, job.topics)
    belongs_to = {
        **identify(job.bag, source),
        **job.settings.facts(),
        "video_id": job.output_options.video_id,
        "category_ids": list(job.output_options.category_ids or ()),
    }
    finished = job.folder / FINISHED
    if (known := _finished(finished, belongs_to, job)) is not None:
        return Outcome(known, before=True)
    if len(source.cameras) > 1 or source.length != job.length:
        raise SourceError(f"{job.bag} has {source.length} images, but its video has {job.length} frames")
    finished.unlink(missing_ok=True)
    network = _load(job.settings, belongs_to["model"])
    summary = replay(
        source, job.bag, job.folder, network, job.settings, job.output_options, stopped=job.stop.exists, progress=False
    )
    if not summary["interrupted"]:
        write_json(finished, {"belongs_to": belongs_to, "summary": summary}, indent=2)
    return Outcome(summary)


@lru_cache(maxsize=1)
def _load(settings: Settings, _model: str) -> Network:
    """The network is loaded once per process, not once per bag.

    _model: hash of the file. A worker of a cluster lives on, and a file of the same name may be another one by then.
    """
    return settings.load()


def _finished(path: Path, belongs_to: Mapping[str, Any], job: Job) -> dict[str, Any] | None:
    """The summary of a bag that was run to its end with just this, and has its files; None where it was not."""
    needed = [path.name, outputs.RESULTS, *(FORMS[form] for form in [job.output_options.bag] if form != NO_BAG)]
    if not all((job.folder / name).exists() for name in needed):
        return None
    try:
        known = read_json(path)
        found, summary = known["belongs_to"], known["summary"]
    except (SourceError, KeyError, TypeError):
        return None
    same = found == {key: _as_json(value) for key, value in belongs_to.items()}
    return dict(summary) if same else None


def _as_json(value: Any) -> Any:
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value


def _begin(job: Job) -> Outcome:
    """Not to be cancelled in place of this: dask cancels what a worker is at, and does not end it."""
    return Outcome(None, NOT_BEGUN) if job.stop.exists() else run_job(job)


def _touch(stops: set[Path]) -> None:
    for path in stops:
        path.touch()


def _remove(stops: set[Path]) -> None:
    for path in stops:
        path.unlink(missing_ok=True)


def _outcome(future: Future[Outcome], stopping: bool) -> Outcome:
    try:
        return future.result()
    except CancelledError:
        scheduler = "given up by the scheduler, which has ended or was restarted"
        return Outcome(None, NOT_BEGUN if stopping else scheduler)
    except Exception as error:  # A worker that was killed, or an engine's own trouble.
        return Outcome(None, f"its worker failed: {' '.join(str(error).split()) or type(error).__name__}")
