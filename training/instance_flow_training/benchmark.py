# SPDX-License-Identifier: Apache-2.0
"""``instance-flow-validate``: a model, or the oracle, on made worlds, beside the same masks tracked by mask IoU."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from instance_flow.cli import parse_settings
from instance_flow.pipeline import Pipeline
from instance_flow.structures import InstanceFlowError, Tracks
from instance_flow_training.iou_tracking import retrack_by_iou
from instance_flow_training.oracle import OracleNetwork
from instance_flow_training.scoring import held_out_clips, score_tracks, track_clip
from instance_flow_training.synthetic import SITUATIONS, Clip, WorldConfig

COLUMNS = ("AP", "AP50", "HOTA", "IDF1", "IDSW")


def numbers(clips: Sequence[Clip], tracks: Sequence[Sequence[Tracks]]) -> dict[str, float]:
    """AP over classes; HOTA, IDF1 and id switches with all classes taken as one, so that they judge tracking alone."""
    result = score_tracks(clips, tracks)
    return {
        name: float((result if name.startswith("AP") else result["tracking"]["class_agnostic"])[name])
        for name in COLUMNS
    }


def out_of_reach(clip: Clip, references: int) -> int:
    """How often an object comes back that no reference shows: away longer than the recent frames, not in the anchor."""
    anchor = next((t for t, labels in enumerate(clip.labels) if labels.any()), 0)
    count = 0
    for row in range(1, len(clip.class_ids) + 1):
        seen = [t for t, labels in enumerate(clip.labels) if (labels == row).any()]
        if seen and seen[0] != anchor:
            count += sum(b - a > references - 1 for a, b in itertools.pairwise(seen))
    return count


def run(pipeline: Pipeline | None, clips: Sequence[Clip]) -> dict[str, Any]:
    """Track every clip, by the oracle if there is no pipeline; numbers per situation and overall for both trackers."""
    progress = tqdm(clips, unit="clip", dynamic_ncols=True)
    flow = [track_clip(pipeline or Pipeline(OracleNetwork(clip)), clip) for clip in progress]
    iou = [retrack_by_iou(frames) for frames in flow]
    groups = {"all": list(range(len(clips)))}
    for situation in SITUATIONS:
        rows = [i for i, clip in enumerate(clips) if clip.situation == situation]
        groups |= {situation: rows} if rows else {}
    return {
        name: {
            "clips": len(rows),
            "instance flow": numbers([clips[i] for i in rows], [flow[i] for i in rows]),
            "mask IoU": numbers([clips[i] for i in rows], [iou[i] for i in rows]),
            "out of reach": sum(out_of_reach(clips[i], 4) for i in rows),
        }
        for name, rows in groups.items()
    }


def format_report(report: dict[str, Any]) -> str:
    """The table for people."""
    head = "situation    clips  tracker        " + "".join(f"{name:>8}" for name in COLUMNS) + "   out of reach"
    lines = [head]
    for name, group in report.items():
        for tracker in ("instance flow", "mask IoU"):
            values = group[tracker]
            cells = "".join(f"{values[c]:8.0f}" if c == "IDSW" else f"{values[c]:8.3f}" for c in COLUMNS)
            tail = f"{group['out of reach']:>15}" if tracker == "instance flow" else ""
            lines.append(f"{name:<12} {group['clips']:>5}  {tracker:<14}{cells}{tail}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="instance-flow-validate", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("model", nargs="?", type=Path, help="an exported .onnx model")
    what.add_argument("--oracle", action="store_true", help="the truth in place of a model")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=0, help="training uses seeds from 1000000 on")
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the assembly")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    try:
        pipeline = None if options.oracle else Pipeline.load(options.model, "auto", parse_settings(options.set))
        clips = held_out_clips(options.first_seed, options.clips, WorldConfig(frames=options.frames))
        report = run(pipeline, clips)
    except (InstanceFlowError, ValueError) as error:
        print(f"instance-flow-validate: error: {error}", file=sys.stderr)
        return 2
    print(format_report(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
