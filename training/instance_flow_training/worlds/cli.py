# SPDX-License-Identifier: Apache-2.0
"""Write synthetic clips as a YouTube-VIS data set, bags, videos and contact sheets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from instance_flow.commands.values import described, image_size, option, whole
from instance_flow.declare import declared
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.video_writer import VideoWriter
from instance_flow.pictures.draw import contact_sheet
from instance_flow.structures import InstanceFlowError, SourceError
from instance_flow_training.worlds.depth_scenes import SITUATION as DEPTH
from instance_flow_training.worlds.depth_scenes import DepthClip, DepthSceneConfig, generate_depth_clip
from instance_flow_training.worlds.synthetic import ALL_SITUATIONS, SITUATIONS, Clip, WorldConfig, generate_clip
from instance_flow_training.worlds.world_files import (
    clip_name,
    write_bag,
    write_depth_bag,
    write_spatial_truth,
    write_ytvis,
)

_SHEET_FRAMES = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        config = WorldConfig(size=options.size, frames=options.frames, rate=options.rate)
        _check_empty(options.out)
        options.out.mkdir(parents=True, exist_ok=True)
        _write(options, config)
    except (InstanceFlowError, ValueError, OSError) as error:
        print(f"instance-flow-world: error: {shown(error, MESSAGE)}", file=sys.stderr)
        return 2
    noun = "clip" if options.clips == 1 else "clips"
    print(f"{options.clips} {noun} of {options.frames} frames written to {options.out}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    does = "write synthetic clips with exact labels: a data set, bags, videos, contact sheets"
    examples = ("instance-flow-world worlds --situation crossing --clips 4 --ytvis --sheet",)
    parser = argparse.ArgumentParser(prog="instance-flow-world", **described(does, *examples))
    add, world = parser.add_argument, {spec.name: spec for spec in declared(WorldConfig)}
    add("out", type=Path, metavar="OUT", help="folder for what is written: a new one, or one that is empty")
    add("--seed", type=whole, default=0, help="of the first clip; the next ones count up (default: 0)")
    add(
        "--situation",
        choices=[*ALL_SITUATIONS, DEPTH, "all"],
        default="mixed",
        help=f'"all" takes {", ".join(SITUATIONS)} in turn; "{DEPTH}" is boxes in metres, with a .json of the '
        "truth for each clip, and depth, calibration and transforms in the bags (default: mixed)",
    )
    add("--clips", type=whole, default=1, help="how many (default: 1)")
    add("--frames", type=option(world["frames"]), default=WorldConfig.frames, help="per clip (default: %(default)s)")
    add("--size", type=image_size, default=WorldConfig.size, metavar="WxH", help="in pixels (default: 320x192)")
    add(
        "--rate",
        type=option(world["rate"]),
        default=WorldConfig.rate,
        help="pictures per second (default: %(default)s)",
    )
    add("--ytvis", action="store_true", help="write instances.json and JPEGImages/; the default if nothing is chosen")
    add("--bag", action="store_true", help="write a bag (.mcap) of JPEG images for each clip")
    add("--raw", action="store_true", help="bags carry raw images, and raw depth, instead")
    add("--topic", default="/camera/image_raw", help="of the bags (default: %(default)s)")
    add("--video", action="store_true", help="write a video (.mp4) of each clip")
    add("--sheet", action="store_true", help="write a contact sheet (.png) of each clip")
    return parser


def _check_empty(folder: Path) -> None:
    """Bags and clips that another world left there would pass for those of this one, and not all need be ours."""
    if folder.exists() and not folder.is_dir():
        raise SourceError(f"{folder} is a file; give a new or empty folder")
    if folder.exists() and (first := next(iter(sorted(folder.iterdir())), None)):
        raise SourceError(f"{folder} holds {first.name} already; give a new or empty folder, or empty this one")


def _write(options: argparse.Namespace, config: WorldConfig) -> None:
    clips = _clips(options, config)
    if options.ytvis or not (options.bag or options.raw or options.video or options.sheet):
        write_ytvis(clips, options.out)
    else:
        for _ in clips:
            pass


def _clips(options: argparse.Namespace, config: WorldConfig) -> Iterator[Clip]:
    """Make the clips one after the other, and write the files that each has of its own."""
    situations = SITUATIONS if options.situation == "all" else (options.situation,)
    turns = islice(cycle(situations), options.clips)
    for number, situation in enumerate(tqdm(turns, total=options.clips, unit="clip", desc="making worlds")):
        seed, scene = options.seed + number, None
        if situation == DEPTH:
            scene = generate_depth_clip(seed, DepthSceneConfig(config.size, config.frames, config.rate))
        clip = scene.clip(seed) if scene else generate_clip(seed, situation, config)
        _write_single(clip, scene, options.out / clip_name(clip, number), options)
        yield clip


def _write_single(clip: Clip, scene: DepthClip | None, stem: Path, options: argparse.Namespace) -> None:
    if scene:
        write_spatial_truth(scene, stem.with_suffix(".json"))
    if scene and (options.bag or options.raw):
        write_depth_bag(scene, stem.with_suffix(".mcap"), options.topic, compressed=not options.raw)
    elif options.bag or options.raw:
        write_bag(clip, stem.with_suffix(".mcap"), options.topic, compressed=not options.raw)
    if options.video:
        with VideoWriter(stem.with_suffix(".mp4"), clip.rate) as video:
            for image in clip.images:
                video.write(image)
    if options.sheet:
        shown = np.unique(np.linspace(0, len(clip.images) - 1, _SHEET_FRAMES).round().astype(int))
        sheet = contact_sheet([clip.images[t] for t in shown], [f"{t}" for t in shown])
        _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        stem.with_suffix(".png").write_bytes(np.asarray(data).tobytes())
