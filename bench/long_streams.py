# SPDX-License-Identifier: Apache-2.0
"""Identities on streams without an end: objects come, leave and come back, and the camera pans on and on.

    python bench/long_streams.py models/instance-flow-worlds.onnx --rules anchor_frames=0 reference_policy=recent
    python bench/long_streams.py --oracle --clips 2                # the truth in place of a network
    python bench/long_streams.py --memory 20000                    # does memory grow with the frames?

Every rule is settings of the assembly, "key=value,key=value". Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from evaluator import memory_mib
from tqdm import tqdm

from instance_flow.commands.values import parse_settings
from instance_flow.network.protocol import Network
from instance_flow.pipeline import Pipeline
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import FloatArray, Image, InstanceFlowError, ModelInfo, Prediction
from instance_flow_training.comparing.id_counts import IdCounts, count_ids
from instance_flow_training.comparing.scoring import score_tracks
from instance_flow_training.worlds.oracle import OracleNetwork
from instance_flow_training.worlds.synthetic import Clip, WorldConfig, generate_clip

_MEANS = ("AP50", "HOTA", "AssA", "IDF1")
_SETTLED = 200
"""Frames after which libraries have taken the memory that they keep."""


@dataclass(frozen=True)
class Row:
    """One clip under one rule. held: most identities in the tracker.   growth: MiB from frame 200 to the last one."""

    scores: dict[str, float]
    switches: int
    counts: IdCounts
    held: int
    growth: float


def run_clip(network: Network, config: AssemblyConfig, clip: Clip) -> Row:
    pipeline = Pipeline(network, config)
    frames, held, before = [], 0, 0.0
    for t, image in enumerate(clip.images):
        frames.append(pipeline.step(image, round(t * 1e9 / clip.rate)))
        held = max(held, len(pipeline._tracker))
        if t == _SETTLED:
            before = memory_mib("VmRSS")
    kept = sum(frame.label_map.nbytes for frame in frames[_SETTLED:]) / 2**20
    growth = memory_mib("VmRSS") - before - kept
    found = score_tracks([clip], [frames])
    agnostic = found["tracking"]["class_agnostic"]
    scores = {name: float((found if name == "AP50" else agnostic)[name]) for name in _MEANS}
    return Row(scores, int(agnostic["IDSW"]), count_ids(clip, frames), held, growth)


def print_table(rules: dict[str, list[Row]]) -> None:
    """Markdown; scores are means over the clips, the most held and grown is of any clip, the rest are sums."""
    print("| rule | AP50 | HOTA | AssA | IDF1 | IDSW | objects | ids | shared ids | handovers | held | MiB grown |")
    print("|---|" + "---:|" * 11)
    for rule, rows in rules.items():
        scores = [f"{mean(row.scores[name] for row in rows):.3f}" for name in _MEANS]
        sums = [sum(column) for column in zip(*((row.switches, *astuple(row.counts)) for row in rows), strict=True)]
        most = f"{max(row.held for row in rows)} | {max(row.growth for row in rows):.1f}"
        print(f"| {rule} | {' | '.join(scores)} | {' | '.join(map(str, sums))} | {most} |")


class Crowd(Network):
    """A network that costs next to nothing: 0 to 30 objects at random places, other ones in every frame.

    Its features are so large that a reference that is not released shows in the memory.
    """

    info = ModelInfo(name="crowd", class_names=("thing",), input_size=(96, 160), center_window=0.01)

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def predict(self, image: Image, references: Sequence[FloatArray]) -> Prediction:
        h, w = image.shape[0] // 4, image.shape[1] // 4
        center = np.zeros((h, w), np.float32)
        count = int(self._rng.integers(31))
        center.flat[self._rng.choice(h * w, count, replace=False)] = 1
        semantic = np.stack([1 - center, center])
        towards = np.zeros((len(references), 2, h, w), np.float32)
        return Prediction(semantic, center, np.zeros((2, h, w), np.float32), towards, np.ones(2**18, np.float32))


def measure_memory(frames: int) -> Iterator[tuple[int, float, int, int, int]]:
    """Frames so far, MiB held, identities and references held, ids given: at ten frames of the stream."""
    pipeline, rng = Pipeline(Crowd()), np.random.default_rng(1)
    images = rng.integers(0, 255, (16, 96, 160, 3), np.uint8)
    given = 0
    for t in tqdm(range(1, frames + 1), unit="frame", dynamic_ncols=True):
        tracks = pipeline.step(images[t % 16], t * 10**8)
        given = max(given, int(tracks.ids.max(initial=0)))
        if t == _SETTLED or t % (frames // 10) == 0:
            yield t, memory_mib("VmRSS"), len(pipeline._tracker), len(pipeline._memory.references), given


def _clips(options: argparse.Namespace) -> Iterator[Clip]:
    config = WorldConfig(frames=options.frames)
    for seed in range(options.first_seed, options.first_seed + options.clips):
        yield generate_clip(seed, "stream", config)


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("model", nargs="?", type=Path)
    what.add_argument("--oracle", action="store_true")
    what.add_argument("--memory", type=int, metavar="FRAMES")
    parser.add_argument("--rules", nargs="+", default=["anchor_frames=0", "reference_policy=recent", ""])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=600)
    options = parser.parse_args()
    if options.memory:
        print("| frames | MiB | identities held | references held | ids given |\n|---:|---:|---:|---:|---:|")
        for t, mib, held, references, given in measure_memory(options.memory):
            print(f"| {t} | {mib:.1f} | {held} | {references} | {given} |")
        return 0
    try:
        configs = {rule: parse_settings([pair for pair in rule.split(",") if pair]) for rule in options.rules}
        rows: dict[str, list[Row]] = {rule or "default": [] for rule in configs}
        network: Any = None if options.oracle else Pipeline.load(options.model, "cpu").network
        for clip in tqdm(_clips(options), total=options.clips, unit="clip", dynamic_ncols=True):
            for rule, config in configs.items():
                rows[rule or "default"].append(run_clip(network or OracleNetwork(clip), config, clip))
    except (InstanceFlowError, ValueError) as error:
        print(f"long_streams.py: error: {error}", file=sys.stderr)
        return 2
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
