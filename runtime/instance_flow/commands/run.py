# SPDX-License-Identifier: Apache-2.0
"""The command ``instance-flow run``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from instance_flow.commands.sources import (
    OpenedSource,
    add_sources,
    closing_source,
    default_folder,
    follow,
    open_input,
    unknown_velocities,
)
from instance_flow.commands.values import (
    SIGNALLED,
    above_zero,
    add_command,
    add_settings,
    format_report,
    output_folder,
    positive,
    read_settings,
    save_formats,
    whole,
)
from instance_flow.commands.watch import Watchers, add_watching, watching
from instance_flow.formats.bags import bag_topics, image_topics, is_bag
from instance_flow.formats.messages import MASK_BUDGET
from instance_flow.formats.ytvis import GroundTruth, load_ground_truth
from instance_flow.network.protocol import Network
from instance_flow.replay import outputs
from instance_flow.replay.bag_matching import videos_by_name
from instance_flow.replay.run import stop_at_signal
from instance_flow.replay.saves import SAVES
from instance_flow.replay.session import is_resumable, replay
from instance_flow.replay.settings import NO_BAG, OutputOptions, Settings
from instance_flow.replay.tracks_bag import FORMS
from instance_flow.sources.naming import Input, find_inputs
from instance_flow.structures import SourceError

_log = logging.getLogger("instance_flow")


def add_run(commands: Any) -> None:
    """Add ``run`` to the commands."""
    parser = add_command(
        commands,
        "run",
        "track the objects of a camera, a stream, a video, pictures, or a ROS 2 bag",
        "instance-flow run 0 --show",
        "instance-flow run VIDEO.mp4 --classes person,car --conf 0.3 --save csv",
    )
    parser.set_defaults(command=run_command)
    add_sources(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the files; out/<name of the source> unless given"
    )
    topics = parser.add_mutually_exclusive_group()
    topics.add_argument(
        "--topic",
        action="append",
        default=[],
        help="topic of images, for a bag with several; may be given again: each is a camera with ids of its own, and "
        "with a folder of its own in DIR",
    )
    topics.add_argument("--all-topics", action="store_true", help="take every topic of images in the bag")
    add_settings(parser)
    parser.add_argument(
        "--max-frames", type=positive, metavar="N", help="stop after so many frames of the source, all topics together"
    )
    _add_outputs(parser)
    _add_as_live(parser)
    add_watching(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run_command(options: argparse.Namespace) -> int:
    """Track the objects of a source and write what came out into a folder."""
    settings = read_settings(options)
    if options.ground_truth and options.as_live is None:
        raise ValueError("--ground-truth measures what dropped frames cost, so it needs --as-live RATE")
    inputs = find_inputs(options.source)
    truth = load_ground_truth(options.ground_truth) if options.ground_truth else None
    if len(inputs) == 1:
        return _run_one(options, settings, truth, inputs[0])
    return _run_all(options, settings, truth, inputs)


def _run_one(options: argparse.Namespace, settings: Settings, truth: GroundTruth | None, given: Input) -> int:
    with closing_source(open_input(options, given, _topics(options, given))) as source:
        network = settings.load()
        folder = output_folder(options.out or default_folder(given))
        with watching(options, network.info.class_names) as watch, stop_at_signal() as stopped:
            wanted = _output_options(options, truth, source.name)
            summary = _replay(wanted, given, source, folder, network, settings, watch, stopped)
            print(format_report(summary, options.json))
            if stopped():
                return SIGNALLED + stopped()
    if summary.get("lost"):
        raise SourceError(summary["lost"])
    return 0


def _run_all(
    options: argparse.Namespace, settings: Settings, truth: GroundTruth | None, inputs: Sequence[Input]
) -> int:
    """One run after the other; a source that cannot be read does not keep the others from theirs."""
    network, failed = settings.load(), 0
    folder, summaries = output_folder(options.out or Path("out")), {}
    with watching(options, network.info.class_names) as watch, stop_at_signal() as stopped:
        for given in inputs:
            try:
                source = open_input(options, given, _topics(options, given))
                own, wanted = folder / given.name, _output_options(options, truth, source.name)
                summaries[given.name] = _replay(wanted, given, source, own, network, settings, watch, stopped)
            except SourceError as error:
                failed += 1
                _log.error("%s", error)
            if stopped() or watch.closed:
                break
        if summaries:
            print(format_report({"sources": summaries}, options.json))
        if stopped():
            return SIGNALLED + stopped()
    if failed:
        raise SourceError(f"{failed} of {len(inputs)} sources could not be run; each is named above")
    return 0


def _replay(
    output_options: OutputOptions,
    given: Input,
    source: OpenedSource,
    folder: Path,
    network: Network,
    settings: Settings,
    watch: Watchers,
    stopped: Callable[[], int],
) -> dict[str, Any]:
    def ended() -> object:
        return stopped() or watch.closed

    watch.begin(source)
    add = watch.add if watch else None
    going = follow(source, ended)
    summary = replay(source, given.path, folder, network, settings, output_options, stopped=going, watch=add)
    if summary["interrupted"] and is_resumable(given.path, output_options):
        summary["to_go_on"] = "run the same command again"
    return {**summary, **unknown_velocities(source)}


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--save",
        type=save_formats,
        action="extend",
        default=[],
        metavar="A,B",
        help="also write the tracks for other tools: "
        + ", ".join(f"{form} ({name})" for form, name in SAVES.items())
        + "; MOTChallenge text, a table, COCO with masks and track ids, cut-out pictures of each track, YOLO text",
    )
    parser.add_argument("--no-video", action="store_true", help=f"do not write {outputs.VIDEO}")
    parser.add_argument("--no-report", action="store_true", help=f"do not write {outputs.REPORT}")
    parser.add_argument(
        "--panels",
        action="store_true",
        help=f"write {outputs.PANELS} and {outputs.PANELS_SHEET}: the network's maps, the references and the flow; "
        "such a run cannot be resumed",
    )
    parser.add_argument(
        "--bag",
        choices=[*FORMS, NO_BAG],
        default="mcap",
        help=f"form of the bag of the node's messages that is written beside those of a bag's images: {FORMS['mcap']}, "
        f"{FORMS['db3']}, a bag folder, or none (default: %(default)s)",
    )
    parser.add_argument("--label-images", action="store_true", help="write the node's label images into that bag, too")
    parser.add_argument(
        "--mask-budget",
        type=whole,
        default=MASK_BUDGET,
        metavar="BYTES",
        help="most bytes of masks in a message of that bag, as the node's parameter (default: %(default)s; 0 = any)",
    )
    parser.add_argument(
        "--video-id",
        type=positive,
        metavar="N",
        help=f"of the video in {outputs.RESULTS}; that of the ground truth to evaluate against (default: 1, or with "
        "--ground-truth that of the video whose pictures are in a folder of the bag's name)",
    )


def _add_as_live(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-live",
        type=above_zero,
        metavar="RATE",
        help="drop the frames of a bag that the node would drop on a machine that manages so many per second, all "
        "topics together, and say what that costs in identity switches",
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        metavar="FILE",
        help="with --as-live: measure the cost against the bag's video in this file, too",
    )


def _topics(options: argparse.Namespace, given: Input) -> list[str]:
    if not options.all_topics:
        return list(options.topic)
    if given.path is None or not is_bag(given.path):
        raise ValueError(f"{given.path or given.name} is not a bag, so it has no topics")
    if options.depth is None:
        return [topic for topic, count in image_topics(given.path).items() if count]
    there = bag_topics(given.path)
    pictures = [topic for topic, count in image_topics(given.path).items() if count and not there[topic].measures]
    return [topic for topic in pictures if topic != options.depth]


def _output_options(options: argparse.Namespace, ground_truth: GroundTruth | None, name: str) -> OutputOptions:
    return OutputOptions(
        save=tuple(options.save),
        video=not options.no_video,
        report=not options.no_report,
        panels=options.panels,
        bag=options.bag,
        label_images=options.label_images,
        mask_budget=options.mask_budget,
        video_id=options.video_id or (_video_id(ground_truth, name) if ground_truth else 1),
        max_frames=options.max_frames,
        duration=options.duration,
        as_live=options.as_live,
        ground_truth=ground_truth,
    )


def _video_id(ground_truth: GroundTruth, name: str) -> int:
    """The id of the video that a bag of this name shows."""
    video = videos_by_name(ground_truth).get(name)
    if video is None:
        raise SourceError(
            f"{ground_truth.source}: no video has its pictures in a folder named {name}; give its id by --video-id"
        )
    return video.id
