# SPDX-License-Identifier: Apache-2.0
"""What others do where we do something else, each written from its description and timed beside ours in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tqdm import tqdm

from baselines.assembly import CASES, assembly_rows
from baselines.association import association_rows
from baselines.grouping import grouping_rows
from baselines.networks import SIZE, engine_rows, export_both, random_network, reference_rows, small_network
from baselines.timing import Row
from instance_flow.benchmark.suite import OBJECTS, SIZES
from instance_flow_training.network.model import InstanceFlowNet, ModelConfig


def all_baselines(quick: bool = False, checkpoint: Path | None = None) -> dict[str, Row]:
    """Time everything; name -> {"ours": ms, "theirs": ms, "ratio": theirs / ours}, the same names in every run.

    quick: 64 objects at 640x384 and the small model alone, without torch.compile; its names are among those of a full
        run.
    checkpoint: of the small model; None = random weights, which take as long.
    """
    few, many = (3, 7) if quick else (7, 15)
    counts, sizes = ((64,), (SIZE,)) if quick else (OBJECTS, SIZES)
    cases = ((64, SIZE),) if quick else CASES
    parts: dict[str, Callable[[], dict[str, Row]]] = {
        "assembly": partial(assembly_rows, few, cases),
        "grouping": partial(grouping_rows, many, counts, sizes),
        "association": partial(association_rows, many, counts),
        "small model": partial(_network_rows, "small", partial(small_network, checkpoint), many, not quick),
    }
    if not quick:
        parts["R50"] = partial(_network_rows, "R50", partial(random_network, ModelConfig()), few, True)
    rows: dict[str, Row] = {}
    for name, part in (progress := tqdm(parts.items(), unit="part", disable=None)):
        progress.set_description(name)
        rows |= part()
    return rows


def _network_rows(name: str, build: Callable[[], InstanceFlowNet], repetitions: int, compiled: bool) -> dict[str, Row]:
    with tempfile.TemporaryDirectory(prefix="instance-flow-baselines-") as folder:
        same = export_both(name, build(), SIZE, Path(folder))
        return {**engine_rows(same, repetitions, compiled), **reference_rows(same, repetitions)}
