# SPDX-License-Identifier: Apache-2.0
"""``instance-flow-ablate``: every alternative of the paper's Tables II to VII, trained and scored on synthetic worlds.

As in section IV-A the backbone, the semantic and the intra-frame decoder are trained first, once for each seed; every
variant starts from them with fresh fusions, its inter-frame decoder being a copy of the intra-frame decoder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from instance_flow.assembly.matching import instance_flows
from instance_flow.commands.values import add_overrides, described
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.json_files import write_json
from instance_flow.network.protocol import Network
from instance_flow.pipeline import Matcher, Pipeline
from instance_flow.replay.worker_processes import local_processes
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import InstanceFlowError
from instance_flow_training.ablating.ablation_tables import OURS, PRETRAINING, TABLES, VARIANTS, Row
from instance_flow_training.ablating.alternatives import match_by_affinity, match_by_average, match_by_iou
from instance_flow_training.comparing.scoring import held_out_clips, score_tracks, track_clip
from instance_flow_training.config import ConfigError, load_config
from instance_flow_training.network.maps import OUTPUT_STRIDE
from instance_flow_training.targets import frame_targets
from instance_flow_training.validate import TorchNetwork, model_info
from instance_flow_training.weights.checkpoint import load_network
from instance_flow_training.worlds.synthetic import Clip, WorldConfig

MATCHERS: dict[str, Matcher | None] = {
    "flow": None,
    "average": match_by_average,
    "iou": match_by_iou,
    "affinity": match_by_affinity,
}
METRICS = ("AP", "AP50", "AP75", "IDF1", "IDSW")
FRAMES_BACK = (1, 3, 10, 20)
"""Of the references that flow errors are measured for."""
SEED_STRIDE = 100_000
"""Two seeds, and a run and its pre-training, have no training clip in common, if a run takes less than half as many."""


def train_variant(
    config: Path, out: Path, variant: str, seed: int, changes: Sequence[str], pretraining: Path | None
) -> Path:
    """Train one variant, or resume its training, in a process of its own; returns its folder.

    Raises InstanceFlowError with the end of the training's output where that fails.
    """
    folder = out / f"{variant}-{seed}"
    first_clip = 1_000_000 + seed * SEED_STRIDE
    if pretraining is not None:
        first_clip += SEED_STRIDE // 2
    settings = [f"seed={seed}", f"data.first_seed={first_clip}"]
    if pretraining is not None:
        settings += [f"init.checkpoint={pretraining / 'checkpoint.pt'}", "init.inter_from_intra=true"]
    settings += changes
    command = [sys.executable, "-m", "instance_flow_training.train", str(config), "--out", str(folder)]
    command += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InstanceFlowError(f"training of {folder.name} failed: {last_line}")
    return folder


@cache
def _clips(size: tuple[int, int], count: int) -> list[Clip]:
    return held_out_clips(500, count, WorldConfig(size=size))


def score_row(row: Row, folder: Path, clips: int) -> dict[str, float]:
    """The numbers of one row for one trained network; kept beside the checkpoint, and made again where it is newer."""
    kept, checkpoint = folder / "scores" / f"{row.key}-{clips}.json", folder / "checkpoint.pt"
    if kept.exists() and kept.stat().st_mtime_ns >= checkpoint.stat().st_mtime_ns:
        return json.loads(kept.read_text())
    torch.set_num_threads(1)
    network, config, class_names = load_network(checkpoint)
    size = config.data.sizes[-1]
    info = model_info(network, size, class_names, max_references=5, max_distance=0.3)
    pipeline = Pipeline(TorchNetwork(network, info), AssemblyConfig(**{**OURS, **row.assembly}), MATCHERS[row.matcher])
    truth = _clips(size, clips)
    result = score_tracks(truth, [track_clip(pipeline, clip) for clip in truth])
    agnostic = result["tracking"]["class_agnostic"]
    numbers = {name: float((result if name.startswith("AP") else agnostic)[name]) for name in METRICS}
    if row.measures_flow:
        numbers |= flow_errors(pipeline.network, truth)
    write_json(kept, numbers)
    return numbers


def flow_errors(network: Network, clips: Sequence[Clip]) -> dict[str, float]:
    """How far the instance flow (Eq. 3) on true masks misses the true one, in pixels of the image: median and 90th
    percentile over the objects of every fifth frame, for references so many frames back."""
    errors: dict[int, list[float]] = {gap: [] for gap in FRAMES_BACK}
    for clip in clips:
        targets = [frame_targets(labels, clip.class_ids) for labels in clip.labels]
        features = [network.predict(image, []).features for image in clip.images]
        for t in range(0, len(clip.images), 5):
            gaps = [gap for gap in FRAMES_BACK if gap <= t]
            if not gaps:
                continue
            prediction = network.predict(clip.images[t], [features[t - gap] for gap in gaps])
            labels = targets[t].labels.astype(np.int32)
            flows = instance_flows(prediction.offset, prediction.reference_offset, labels, len(clip.class_ids))
            for gap, flow in zip(gaps, flows, strict=True):
                missed = np.linalg.norm(flow - (targets[t - gap].centers - targets[t].centers), axis=1)
                errors[gap].extend((missed[np.isfinite(missed)] * OUTPUT_STRIDE).tolist())
    return {
        f"flow{gap}_{name}": float(np.percentile(found, percent)) if found else float("nan")
        for gap, found in errors.items()
        for name, percent in (("median", 50), ("p90", 90))
    }


def run(
    config: Path,
    out: Path,
    tables: Sequence[str],
    seeds: Sequence[int],
    jobs: int,
    pretrain_steps: int,
    clips: int,
    overrides: Sequence[str] = (),
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Train what the tables need, score their rows: {table: {row label: numbers of every seed}}."""
    rows = [(table, row) for table in tables for row in TABLES[table].rows]
    variants = list(dict.fromkeys(row.variant for _, row in rows))
    with ThreadPoolExecutor(jobs) as pool:
        changes = [*overrides, *PRETRAINING, f"steps={pretrain_steps}"]
        starts = list(
            _progress(
                pool.map(lambda seed: train_variant(config, out, "pretraining", seed, changes, None), seeds),
                len(seeds),
                "pre-training",
            )
        )
        wanted = [(variant, seed, start) for seed, start in zip(seeds, starts, strict=True) for variant in variants]
        trained = list(
            _progress(
                pool.map(lambda w: train_variant(config, out, w[0], w[1], [*overrides, *VARIANTS[w[0]]], w[2]), wanted),
                len(wanted),
                "training",
            )
        )
    folder = {(variant, seed): path for (variant, seed, _), path in zip(wanted, trained, strict=True)}
    to_score = [(row, folder[row.variant, seed]) for _, row in rows for seed in seeds]
    with local_processes(jobs) as processes:
        scores = list(
            _progress(
                processes.map(score_row, *zip(*to_score, strict=True), [clips] * len(to_score)),
                len(to_score),
                "scoring",
            )
        )
    report: dict[str, dict[str, list[dict[str, float]]]] = {table: {} for table in tables}
    for n, (table, row) in enumerate(rows):
        report[table][row.label] = scores[n * len(seeds) : (n + 1) * len(seeds)]
    return report


def _progress(items: Any, total: int, label: str) -> Any:
    return tqdm(items, label, total, dynamic_ncols=True)


def format_tables(report: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Markdown: the mean over the seeds, and the standard deviation where there are several, beside the paper's."""
    parts = []
    for name, rows in report.items():
        table = TABLES[name]
        flow = [f"{gap} back" for gap in FRAMES_BACK] if table.rows[0].measures_flow else []
        lines = [f"### {table.title}", "", "| | paper mAP | paper AP75 | " + " | ".join([*METRICS, *flow]) + " |"]
        lines.append("|---|" + "---:|" * (2 + len(METRICS) + len(flow)))
        for row in table.rows:
            paper = ["-", "-"] if row.paper is None else [f"{value:.1f}" for value in row.paper]
            cells = [_cell(metric, [numbers[metric] for numbers in rows[row.label]]) for metric in METRICS]
            if flow:
                cells += [_flow_cell(gap, rows[row.label]) for gap in FRAMES_BACK]
            lines.append(f"| {row.label} | {' | '.join([*paper, *cells])} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cell(metric: str, values: list[float]) -> str:
    scale, digits = (1, 0) if metric == "IDSW" else (100, 1)
    text = f"{mean(values) * scale:.{digits}f}"
    return f"{text} ± {stdev(values) * scale:.{digits}f}" if len(values) > 1 else text


def _flow_cell(gap: int, seeds: Sequence[dict[str, float]]) -> str:
    return " / ".join(f"{mean(numbers[f'flow{gap}_{name}'] for numbers in seeds):.1f}" for name in ("median", "p90"))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    does = "train and score every alternative of the paper's tables on synthetic worlds"
    examples = ("instance-flow-ablate training/configs/ablations.toml --tables II --seeds 0",)
    parser = argparse.ArgumentParser(prog="instance-flow-ablate", **described(does, *examples))
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="TOML file of the runs, such as training/configs/ablations.toml"
    )
    add_overrides(parser, "a setting of the training in every run, such as data.workers=0")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="which tables (all)")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="a training of each run with each (0 1 2)"
    )
    parser.add_argument("--pretrain-steps", type=int, default=1000, help="steps without the inter-frame losses")
    parser.add_argument("--clips", type=int, default=21, help="held-out clips, of all situations in turn")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablations"), help="a run that was stopped is resumed from here"
    )
    parser.add_argument("--json", type=Path, help="write the numbers of every seed to this file too")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        load_config(options.config, options.overrides)
        if options.clips < 1:
            raise ValueError(f"--clips is {options.clips}; it must be at least 1")
        report = run(
            options.config,
            options.out,
            options.tables,
            options.seeds,
            max(1, options.jobs),
            options.pretrain_steps,
            options.clips,
            options.overrides,
        )
    except (ConfigError, InstanceFlowError, ValueError) as error:
        print(f"instance-flow-ablate: error: {shown(error, MESSAGE)}", file=sys.stderr)
        return 2
    print(format_tables(report))
    if options.json:
        write_json(options.json, report, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
