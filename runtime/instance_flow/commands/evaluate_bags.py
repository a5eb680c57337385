# SPDX-License-Identifier: Apache-2.0
"""The command ``instance-flow evaluate-bags``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from instance_flow.commands.values import SIGNALLED, add_command, add_settings, output_folder, positive, read_settings
from instance_flow.evaluation.average_precision import SIZE_LIMITS
from instance_flow.evaluation.in_metres import check_truth
from instance_flow.evaluation.table import format_table
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.ytvis import load_ground_truth
from instance_flow.replay.bag_evaluation import NOT_BEGUN, Job, Outcome, make_jobs, merge_and_evaluate, run_jobs
from instance_flow.replay.bag_matching import Matching, find_bags, match_bags, match_categories
from instance_flow.replay.run import stop_at_signal
from instance_flow.replay.settings import NO_BAG, OutputOptions, Settings
from instance_flow.replay.tracks_bag import FORMS
from instance_flow.replay.worker_processes import dask_cluster, local_processes, threads_for
from instance_flow.structures import InstanceFlowError, SourceError

_INCOMPLETE = 2


def add_evaluate_bags(commands: Any) -> None:
    """Add ``evaluate-bags`` to the commands."""
    parser = add_command(
        commands,
        "evaluate-bags",
        "run a folder of bags and measure them against ground truth",
        "instance-flow evaluate-bags instances.json BAGS --out DIR --jobs 4",
    )
    parser.set_defaults(command=evaluate_bags_command)
    parser.add_argument("ground_truth", type=Path, metavar="GROUND_TRUTH", help="in YouTube-VIS format")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of bags: .mcap, .db3, bag folders")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the files; bags that were finished there are not run again",
    )
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="bags at a time (default: 1)")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="run the bags on the workers of this dask scheduler, which must see the same files",
    )
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="FILE",
        help="JSON object {name of a bag: name or id of its video}, where the folder of the video's pictures is named "
        "otherwise than the bag",
    )
    parser.add_argument("--topic", action="append", default=[], help="topic of images, for bags with several")
    parser.add_argument(
        "--bag",
        choices=[*FORMS, NO_BAG],
        default="mcap",
        help="form of the bag of the node's messages that is written for each bag (default: %(default)s)",
    )
    add_sizes(parser)
    parser.add_argument(
        "--spatial-truth",
        type=Path,
        metavar="DIR",
        help="with --depth: also measure positions and velocities in metres against NAME.json of each bag's synthetic "
        "scene in this folder",
    )
    add_settings(parser)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """``--sizes`` of the commands that evaluate."""
    parser.add_argument(
        "--sizes",
        choices=list(SIZE_LIMITS),
        default="youtube-vis",
        help="what is small, medium and large: youtube-vis (128^2, 256^2 pixels) or coco (32^2, 96^2)",
    )


def evaluate_bags_command(options: argparse.Namespace) -> int:
    """Run every bag that is not finished, put the results together, and measure them."""
    if options.scheduler and options.jobs > 1:
        raise ValueError(
            "--jobs is for this machine alone; with --scheduler as many bags run as the workers have threads"
        )
    ground_truth = load_ground_truth(options.ground_truth)
    matching = match_bags(find_bags(options.folder), ground_truth, options.videos)
    settings = read_settings(options)
    if not options.scheduler and not settings.execution.threads:
        settings = replace(settings, execution=replace(settings.execution, threads=threads_for(options.jobs)))
    categories = match_categories(settings.load().info.class_names, ground_truth)
    output_options = OutputOptions(video=False, report=False, bag=options.bag, category_ids=categories)
    folder = output_folder(options.out)
    if folder.resolve() == options.folder.resolve():
        raise SourceError(f"{folder} holds the bags themselves; name another folder for --out")
    folder.mkdir(parents=True, exist_ok=True)
    spatial_truth = _spatial_truth(options, settings, matching)
    jobs = make_jobs(matching, folder, settings, output_options, options.topic)
    with stop_at_signal() as stopped:
        with dask_cluster(options.scheduler) if options.scheduler else local_processes(options.jobs) as executor:
            outcomes = dict(tqdm(run_jobs(jobs, executor, stopped), "bags", len(jobs), unit="bag", disable=None))
        print(_table(jobs, outcomes, matching))
        if stopped():
            sys.stderr.write("instance-flow: stopped; run the same command again to resume\n")
            return SIGNALLED + stopped()
    finished = {name: job for name, job in jobs.items() if _is_finished(outcomes.get(name))}
    if not finished:
        raise InstanceFlowError(f"{options.folder}: not one bag could be run to its end")
    numbers = merge_and_evaluate(ground_truth, finished, folder, options.sizes, spatial_truth)
    print("\n" + format_table(numbers))
    return 0 if len(finished) == len(jobs) else _INCOMPLETE


def _spatial_truth(options: argparse.Namespace, settings: Settings, matching: Matching) -> dict[str, Path] | None:
    """The file of each bag; told before hours of work where one is missing."""
    if options.spatial_truth is None:
        return None
    if settings.depth is None:
        raise ValueError("--spatial-truth measures tracks in metres, so it needs --depth beside it")
    files = {name: options.spatial_truth / f"{name}.json" for name in matching.pairs}
    if missing := [file for file in files.values() if not file.is_file()]:
        raise SourceError(
            f"{missing[0]}: there is no such file, but --spatial-truth needs one of each bag ({len(missing)} of "
            f"{len(files)} are missing); instance-flow-world --situation depth writes it beside the bag"
        )
    for file in files.values():
        check_truth(file)
    return files


def _is_finished(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.summary is not None and not outcome.summary["interrupted"]


def _state(outcome: Outcome) -> str:
    if outcome.summary is not None and outcome.summary["interrupted"]:
        return "stopped"
    return "finished before" if outcome.before else "run"


def _table(jobs: Mapping[str, Job], outcomes: Mapping[str, Outcome], matching: Matching) -> str:
    """One line per bag, and what has no partner."""
    rows = [("bag", "frames", "ids", "refused", "state")]
    for name in jobs:
        outcome = outcomes.get(name, Outcome(None, NOT_BEGUN))
        summary = outcome.summary or {}
        frames, ids, refused = (str(summary.get(key, 0)) for key in ("frames", "ids", "refused"))
        rows.append((shown(name), frames, ids, refused, shown(outcome.problem or _state(outcome), MESSAGE)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:4], widths[1:4]), row[4]]) for row in rows]
    if matching.lone_bags:
        lines.append(f"without ground truth, not run: {shown(', '.join(matching.lone_bags), MESSAGE)}")
    if matching.lone_videos:
        lines.append(f"without a bag, not measured: {shown(', '.join(matching.lone_videos), MESSAGE)}")
    return "\n".join(lines)
