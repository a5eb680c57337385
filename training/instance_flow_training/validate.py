# SPDX-License-Identifier: Apache-2.0
"""Validation while training: the torch network behind the deployed pipeline, on held-out worlds."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instance_flow.declare import check, setting
from instance_flow.network.protocol import Network
from instance_flow.pipeline import Pipeline
from instance_flow.structures import Image, MatchCosts, ModelInfo, Prediction
from instance_flow_training.comparing.scoring import held_out_clips, score_tracks, score_videos, track_clip
from instance_flow_training.data.label_sources import open_truth
from instance_flow_training.data.set_files import read_frame
from instance_flow_training.network.model import INPUT_SIZE, OUTPUT_STRIDE, InstanceFlowNet
from instance_flow_training.worlds.synthetic import CLASS_NAMES, MOST_SEEDS, WorldConfig

log = logging.getLogger(__name__)

METRICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
    *("HOTA", "DetA", "AssA", "IDF1", "IDSW"),
)
MOST_STEPS, MOST_MINUTES = 10**9, 10**6
"""Bounds of settings that nobody reaches, but a mistyped number does."""
HIGHER_IS_BETTER = tuple(name for name in METRICS if name != "IDSW")


@dataclass(frozen=True)
class ValidationConfig:
    """What is scored while training: a data set, or held-out worlds, whose seeds lie far below every training seed."""

    every: int = setting(0, "steps between two validations, 0 = none by steps", 0, MOST_STEPS)
    minutes: float = setting(0.0, "time between two validations, 0 = none by the clock", 0, MOST_MINUTES)
    keep: str = setting("AP", "the number whose best checkpoint is kept as best.pt", choices=HIGHER_IS_BETTER)
    patience: int = setting(
        0, "end the run after so many validations in a row without a better score, 0 = never", 0, MOST_STEPS
    )
    annotations: str = setting(
        "", "a source in any form, as data.annotations, of whose parts val is taken; empty = worlds"
    )
    images: str = setting("", "folder of the pictures; empty = beside the annotations")
    limit: int = setting(0, "only the first so many videos, 0 = all", 0, MOST_STEPS)
    clips: int = setting(8, "number of worlds", 1, 10_000)
    first_seed: int = setting(500, "first seed of the worlds", 0, MOST_SEEDS)
    size: tuple[int, int] = setting((192, 320), "of the network's input", **INPUT_SIZE)

    def __post_init__(self) -> None:
        check(self, "validation.")

    @property
    def happens(self) -> bool:
        """By steps or by the clock."""
        return bool(self.every or self.minutes)


@dataclass(frozen=True)
class ModelDefaults:
    """What an exported model says of how its maps are to be taken; fields and defaults of ``ModelInfo``."""

    center_threshold: float = setting(ModelInfo.center_threshold, "least heat of an object's center", 0, 1)
    center_window: float = setting(
        ModelInfo.center_window,
        "window in which only the hottest center counts, as a fraction of sqrt(height * width) of the input",
        0,
        1,
    )
    max_stray: float = setting(
        ModelInfo.max_stray,
        "farthest that an offset may lead past its object's center, in units of the root of the object's area; 0 = any",
        0,
        100,
    )
    max_distance: float = setting(
        ModelInfo.max_distance,
        "farthest that a center carried by instance flow may lie from a reference's center, as a fraction of "
        "sqrt(height * width) of the input",
        0,
        1,
    )
    min_score: float = setting(ModelInfo.min_score, "least score of an object that is published", 0, 1)
    confirm_frames: int = setting(
        ModelInfo.confirm_frames, "frames in a row that show an object before it is published", 1, 10_000
    )
    match_costs: MatchCosts = field(default_factory=MatchCosts)

    def __post_init__(self) -> None:
        check(self, "defaults.")
        check(self.match_costs, "defaults.match_costs.")

    def fields(self) -> dict[str, Any]:
        """Of ``ModelInfo``."""
        return {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}


class TorchNetwork(Network):
    """The torch network as the runtime takes it; the same maps as the exported file."""

    def __init__(self, network: InstanceFlowNet, info: ModelInfo):
        self.network, self.info = network, info
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def predict(self, image: Image, references: Sequence[tuple[Tensor, Tensor]]) -> Prediction:
        """See ``Network``."""
        stacked = []
        for level, size in enumerate(self.info.feature_sizes(*image.shape[:2])):
            empty = torch.empty((0, self.network.inter.cached_channels, *size), device=self._device)
            stacked.append(torch.cat([empty, *(features[level] for features in references)]))
        outputs = self.network(torch.from_numpy(image[None]).to(self._device), *stacked)
        semantic, center, offset, reference_offset = (x.float().cpu().numpy() for x in outputs[:4])
        return Prediction(semantic, center, offset, reference_offset, outputs[4:])


def model_info(
    network: InstanceFlowNet, size: tuple[int, int], class_names: Sequence[str] = CLASS_NAMES, **more: Any
) -> ModelInfo:
    """What a network says of itself; ``more`` sets further fields."""
    return ModelInfo(
        **{"name": "instance-flow", **more},
        class_names=tuple(class_names),
        input_size=size,
        output_stride=OUTPUT_STRIDE,
        feature_strides=network.inter.feature_strides,
        feature_tokens=network.inter.tokens,
    )


def check_validation(config: ValidationConfig, class_names: Sequence[str]) -> None:
    """Find out before training what would be found out hours later.

    Raises ValueError where there is nothing to score these classes on, SourceError for a bad data set.
    """
    if config.happens and config.annotations:
        found = open_truth(Path(config.annotations), Path(config.images) if config.images else None)
        for note in found.notes:
            log.info(f"{config.annotations}: {note}")
        known = {category.name for category in found.truth.categories}
        if known.isdisjoint(class_names):
            raise ValueError(f"validation.annotations: {found.truth.source} shows none of the classes of [data]")
        # Every validation reads all frames; a damaged one is found now, not after the first hours of training.
        for video in found.truth.videos[: config.limit or None]:
            for name in video.file_names:
                read_frame(found.images / name, video.height, video.width)
    elif config.happens and tuple(class_names) != CLASS_NAMES:
        raise ValueError(
            "validation.every is set, but synthetic worlds do not show the classes of [data]; set "
            "validation.annotations to a held-out set, or validation.every = 0"
        )


def validate(
    network: InstanceFlowNet,
    config: ValidationConfig,
    class_names: Sequence[str] = CLASS_NAMES,
    defaults: ModelDefaults | None = None,
) -> dict[str, float]:
    """``METRICS`` of a network that is being trained, in float32; leaves it in evaluation mode.

    defaults: of the centers. All that is found counts, whatever its score.
    """
    network.eval()
    found = (defaults or ModelDefaults()).fields() | {"min_score": 0.0, "confirm_frames": 1}
    pipeline = Pipeline(TorchNetwork(network, model_info(network, config.size, class_names, **found)))
    if config.annotations:
        images = Path(config.images) if config.images else None
        result = score_videos(pipeline, Path(config.annotations), images, config.limit)
    else:
        clips = held_out_clips(config.first_seed, config.clips, WorldConfig(size=config.size))
        result = score_tracks(clips, [track_clip(pipeline, clip) for clip in clips])
    return {name: float(result[name]) for name in METRICS}
