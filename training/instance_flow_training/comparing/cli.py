# SPDX-License-Identifier: Apache-2.0
"""``instance-flow-validate``: a model, or the oracle, on synthetic worlds; and its masks tracked by other methods."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from instance_flow.commands.values import add_scales, add_set, described, parse_settings, whole
from instance_flow.evaluation.average_precision import SIZE_LIMITS
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.json_files import write_json
from instance_flow.pipeline import Pipeline
from instance_flow.structures import InstanceFlowError
from instance_flow_training.comparing.calibration import calibrate, find, write_costs
from instance_flow_training.comparing.comparison import COLUMNS, CONTENDERS, Comparison, Contender, available
from instance_flow_training.comparing.judgement import judge
from instance_flow_training.comparing.scoring import held_out_clips, track_clip
from instance_flow_training.data.class_tables import ALL_CLASSES
from instance_flow_training.data.label_sources import open_truth
from instance_flow_training.worlds.cutouts import open_cutouts
from instance_flow_training.worlds.oracle import OracleNetwork, TrueMasksNetwork
from instance_flow_training.worlds.synthetic import (
    ALL_SITUATIONS,
    CUTOUT_SIZE,
    REAL_SITUATIONS,
    SITUATIONS,
    Clip,
    WorldConfig,
)

SIZE_COLUMNS = ("AP", "AP50", "AR1", "AR100")
CUTOUT_VIEW = (288, 512)
"""(height, width) of worlds of cut-outs: the pictures that these come from have no more to show."""
ALL = "all"
"""Value of ``--trackers``: every tracker whose package is installed."""


def unreferenced_recoveries(clip: Clip, references: int) -> int:
    """How often an object comes back that no reference shows: away longer than the recent frames, not in the anchor."""
    anchor = next((t for t, labels in enumerate(clip.labels) if labels.any()), 0)
    count = 0
    for row in range(1, len(clip.class_ids) + 1):
        seen = [t for t, labels in enumerate(clip.labels) if (labels == row).any()]
        if seen and seen[0] != anchor:
            count += sum(b - a > references - 1 for a, b in itertools.pairwise(seen))
    return count


def with_true_masks(pipeline: Pipeline, clip: Clip) -> Pipeline:
    """The truth's objects, and of the pipeline's network the instance flow alone."""
    config = replace(pipeline.config, center_threshold=0.0, center_window=0.0)
    return Pipeline(TrueMasksNetwork(pipeline.network, clip), config)


def run(
    pipeline: Pipeline | None, clips: Sequence[Clip], contenders: dict[str, Contender], true_masks: bool = False
) -> dict[str, Any]:
    """Run the pipeline, or the oracle if there is none, over every clip; numbers per situation and overall.

    true_masks: the truth's objects, and of the pipeline's network only the instance flow.
    """
    comparison = Comparison(contenders)
    for clip in tqdm(clips, unit="clip", dynamic_ncols=True):
        if pipeline is None:
            chosen = Pipeline(OracleNetwork(clip))
        elif true_masks:
            chosen = with_true_masks(pipeline, clip)
        else:
            chosen = pipeline
        comparison.add(clip, track_clip(chosen, clip))
    report = {
        name: {
            "clips": len(rows),
            **comparison.numbers(rows),
            "out of reach": sum(unreferenced_recoveries(clips[i], 4) for i in rows),
        }
        for name, rows in comparison.groups()
    }
    first = next(iter(contenders))
    return {"situations": report, "sizes": {limits: comparison.sizes(first, limits) for limits in SIZE_LIMITS}}


def rows_of(report: dict[str, Any]) -> list[list[str]]:
    """The table's head and rows as text."""
    rows = [["situation", "clips", "tracker", *COLUMNS, "out of reach"]]
    for name, group in report["situations"].items():
        for label, values in group.items():
            if isinstance(values, dict):
                cells = [f"{values[c]:.0f}" if c == "IDSW" else f"{values[c]:.3f}" for c in COLUMNS]
                rows.append([name, str(group["clips"]), label, *cells, str(group["out of reach"])])
    return rows


def size_rows_of(report: dict[str, Any]) -> list[list[str]]:
    """The second table: AP and AR by size, by both definitions of small, medium and large."""
    rows = [["limits", "size", *SIZE_COLUMNS]]
    for limits, sizes in report["sizes"].items():
        for size, values in sizes.items():
            rows.append([limits, size, *("-" if values[c] < 0 else f"{values[c]:.3f}" for c in SIZE_COLUMNS)])
    return rows


def format_report(report: dict[str, Any], markdown: bool = False) -> str:
    """The tables for people."""
    tables = ((rows_of(report), 3), (size_rows_of(report), 2))
    return "\n\n".join(_format_table(rows, left, markdown) for rows, left in tables)


def _format_table(rows: list[list[str]], left: int, markdown: bool) -> str:
    """left: number of columns of text before those of numbers."""
    if markdown:
        rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def choose_contenders(names: str) -> dict[str, Contender]:
    """Read ``--trackers``. Raises ValueError for an unknown name, InstanceFlowError for one that is not installed."""
    if names == ALL:
        found, reason = available(list(CONTENDERS))
        if reason:
            left_out = ", ".join(name for name in CONTENDERS if name not in found)
            print(f"instance-flow-validate: left out {left_out}: {reason}", file=sys.stderr)
        return found
    chosen = [name.strip() for name in names.split(",")]
    unknown = [name for name in chosen if name not in CONTENDERS]
    if unknown:
        raise ValueError(f"unknown tracker {unknown[0]!r}; choose from {', '.join(CONTENDERS)}, or {ALL}")
    found, reason = available(chosen)
    if reason:
        raise InstanceFlowError(reason)
    return found


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    does = "measure a model and other trackers on synthetic worlds or real videos"
    examples = (
        "instance-flow-validate model.onnx --clips 40",
        "instance-flow-validate model.onnx --videos val.json --images images",
    )
    parser = argparse.ArgumentParser(prog="instance-flow-validate", **described(does, *examples))
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="an exported .onnx model")
    what.add_argument("--oracle", action="store_true", help="the truth in place of a model")
    parser.add_argument("--clips", type=int, default=40, help="how many worlds (default 40)")
    parser.add_argument(
        "--first-seed",
        type=whole,
        default=0,
        help="seed of the first world (default 0); training uses 1000000 and above",
    )
    parser.add_argument("--frames", type=int, default=30, help="of each clip (default 30)")
    parser.add_argument(
        "--situation",
        choices=list(dict.fromkeys((*ALL_SITUATIONS, *REAL_SITUATIONS))),
        help=f"only this one (default: {', '.join(SITUATIONS)} in turn; of cut-outs also {REAL_SITUATIONS[-1]})",
    )
    parser.add_argument(
        "--cutouts",
        type=Path,
        metavar="JSON",
        help="worlds of real objects, cut out of the pictures of this data set in YouTube-VIS's form",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of that set's pictures, if not beside the JSON"
    )
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="JSON",
        help="the real videos or stills of this data set in YouTube-VIS's form, in place of worlds; no other trackers",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="OUT",
        help="choose the constants of the matching on these clips, and write the model with them; shows no table",
    )
    parser.add_argument(
        "--trackers", default=ALL, metavar="A,B", help=f"{', '.join(CONTENDERS)}, or {ALL} that are installed (default)"
    )
    parser.add_argument(
        "--true-masks", action="store_true", help="the truth's objects, and of the model only the instance flow"
    )
    parser.add_argument(
        "--uniform", action="store_true", help="all objects of a clip in the same colours, so that appearance is no cue"
    )
    add_scales(parser, "MODEL")
    add_set(parser)
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    return parser


_OF_WORLDS = (
    *("clips", "first_seed", "frames", "situation", "cutouts", "calibrate", "trackers", "true_masks", "uniform"),
    *("markdown", "json"),
)
"""Options that say nothing of real videos."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """What was asked for; options that do not go together end the process."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.oracle and (options.true_masks or options.scales or options.set or options.calibrate):
        parser.error("--oracle has no network: --true-masks, --scales, --set and --calibrate have nothing to act on")
    if options.oracle and options.videos:
        parser.error("--oracle knows the truth of worlds alone, not that of --videos")
    of_worlds = [name for name in _OF_WORLDS if getattr(options, name) != parser.get_default(name)]
    if options.videos and of_worlds:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in of_worlds)
        parser.error(f"--videos takes the place of worlds, so {given} would do nothing; leave one of them out")
    return options


def choose_clips(options: argparse.Namespace, pipeline: Pipeline | None) -> list[Clip]:
    """The clips that the options ask for."""
    world = WorldConfig(frames=options.frames, uniform=options.uniform)
    situations: Sequence[str] = SITUATIONS
    cutouts = None
    if options.cutouts:
        classes = ALL_CLASSES if pipeline is None else ",".join(pipeline.info.class_names)
        cutouts = open_cutouts(options.cutouts, options.images, classes)
        world, situations = replace(world, size=CUTOUT_VIEW, object_size=CUTOUT_SIZE), REAL_SITUATIONS
    if pipeline is not None and options.true_masks:
        world = replace(world, size=pipeline.info.input_size)
    situations = [options.situation] if options.situation else situations
    return held_out_clips(options.first_seed, options.clips, world, situations, cutouts)


def calibrate_model(model: Path, pipeline: Pipeline, clips: Sequence[Clip], true_masks: bool, out: Path) -> None:
    """Choose the constants of the matching for a model on these clips, and write it with them."""
    found = [
        find(with_true_masks(pipeline, clip) if true_masks else pipeline, clip)
        for clip in tqdm(clips, unit="clip", dynamic_ncols=True)
    ]
    costs, before, after = calibrate(pipeline.info, found, lambda line: print(line, file=sys.stderr))
    write_costs(model, out, costs)
    print(f"before  {before}\nafter   {after}\n{costs}\nwrote {out}")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parse(arguments)
    try:
        contenders = choose_contenders(options.trackers)
        pipeline = None
        if not options.oracle:
            pipeline = Pipeline.load(options.model, "auto", parse_settings(options.set), options.scales)
        if pipeline is not None and options.videos:
            print(judge(pipeline, open_truth(options.videos, options.images)).text())
            return 0
        clips = choose_clips(options, pipeline)
        if pipeline is not None and options.calibrate:
            calibrate_model(options.model, pipeline, clips, options.true_masks, options.calibrate)
            return 0
        report = run(pipeline, clips, contenders, options.true_masks)
    except (InstanceFlowError, ValueError) as error:
        print(f"instance-flow-validate: error: {shown(error, MESSAGE)}", file=sys.stderr)
        return 2
    print(format_report(report, options.markdown))
    if options.json:
        write_json(options.json, report, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
