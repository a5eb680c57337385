# SPDX-License-Identifier: Apache-2.0
"""What decides about a run's tracks, and what is written of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from instance_flow.formats.messages import MASK_BUDGET
from instance_flow.formats.ytvis import GroundTruth
from instance_flow.network.execution import ExecutionConfig
from instance_flow.network.installation import versions
from instance_flow.network.multiscale import open_network
from instance_flow.network.protocol import Network
from instance_flow.settings import AssemblyConfig
from instance_flow.stream import MAX_GAP

NO_BAG = "none"


@dataclass(frozen=True)
class Settings:
    """What decides about the tracks of a frame.

    execution: how the network runs; it alone decides about nothing.
    size: (height, width) of the network's input, None = the model's own.
    """

    model: Path
    provider: str = "auto"
    config: AssemblyConfig = field(default_factory=AssemblyConfig)
    scales: tuple[float, ...] = ()
    max_gap: float = MAX_GAP
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    size: tuple[int, int] | None = None

    def load(self) -> Network:
        """Open the model; raises ModelError and ValueError as ``Pipeline.load`` does."""
        return open_network(self.model, self.provider, self.execution, self.size, self.scales)

    def facts(self) -> dict[str, Any]:
        """The settings, with the hash of the model file, as JSON holds them."""
        return {
            "model": sha256(self.model.read_bytes()).hexdigest(),
            "provider": self.provider,
            "config": asdict(self.config),
            "scales": list(self.scales),
            "size": list(self.size) if self.size else None,
            "max_gap": self.max_gap,
            "version": versions()["instance-flow"],
        }


@dataclass(frozen=True)
class OutputOptions:
    """Which files a run writes beside those that every run writes, and of what.

    save: formats of ``saves.SAVES``.
    bag: a form of ``tracks_bag.FORMS``, or "none".   label_images: a topic of that bag as well.
    mask_budget: bytes, as of the live node's parameter.
    video_id, category_ids: in results.json; category_ids by class_id, None = class_id + 1.
    max_frames: of all cameras together; None = all.   duration: seconds of the source; None = all.
    as_live: frames per second of the machine that is played; None = one that manages every frame.
    ground_truth: what the frames that are dropped cost is measured against it, too.
    """

    save: tuple[str, ...] = ()
    video: bool = True
    report: bool = True
    panels: bool = False
    bag: str = "mcap"
    label_images: bool = False
    mask_budget: int = MASK_BUDGET
    video_id: int = 1
    category_ids: tuple[int, ...] | None = None
    max_frames: int | None = None
    duration: float | None = None
    as_live: float | None = None
    ground_truth: GroundTruth | None = None
