# SPDX-License-Identifier: Apache-2.0
"""The settings of a run: those that its tracks depend on, and those of its outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from instance_flow.declare import check, setting
from instance_flow.formats.messages import MASK_BUDGET
from instance_flow.formats.ytvis import GroundTruth
from instance_flow.network.execution import ExecutionConfig
from instance_flow.network.installation import versions
from instance_flow.network.multiscale import open_network
from instance_flow.network.protocol import Network
from instance_flow.settings import AssemblyConfig
from instance_flow.spatial.measure import SpatialConfig
from instance_flow.spatial.pairing import TOLERANCE
from instance_flow.stream import MAX_GAP

NO_BAG = "none"


@dataclass(frozen=True)
class DepthSettings:
    """Which messages of a bag its tracks are placed by in metres, and how.

    topic: of depth images; empty = found by name and type.   camera_info: topic of the images' calibration; empty = the
        one beside the images.
    registered: whether depth is registered to the images; if not, it is registered here, by the ``camera_info`` beside
        the depth and the transform between the two frames.
    target_frame: of all answers in metres, looked up in /tf and /tf_static; empty = the images' own.
    """

    topic: str = ""
    camera_info: str = ""
    registered: bool = True
    target_frame: str = ""
    depth_tolerance: float = setting(
        TOLERANCE, "most seconds between the stamps of an image and of its depth image", 0, 60
    )
    transform_tolerance: float = setting(
        0.0, "seconds by which the stamp of an image may miss the transforms of the bag", 0, 10
    )
    spatial: SpatialConfig = field(default_factory=SpatialConfig)

    def __post_init__(self) -> None:
        check(self)

    @property
    def needs_transforms(self) -> bool:
        """Whether frames must be looked up."""
        return not self.registered or bool(self.target_frame)


@dataclass(frozen=True)
class Settings:
    """The settings that the tracks of a frame depend on.

    execution: how the network runs; no track depends on it.
    size: (height, width) of the network's input, None = the model's own.
    depth: None = nothing is placed in metres.
    """

    model: Path
    provider: str = "auto"
    config: AssemblyConfig = field(default_factory=AssemblyConfig)
    scales: tuple[float, ...] = ()
    max_gap: float = MAX_GAP
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    size: tuple[int, int] | None = None
    depth: DepthSettings | None = None

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
            "depth": asdict(self.depth) if self.depth else None,
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
