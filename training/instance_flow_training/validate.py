# SPDX-License-Identifier: Apache-2.0
"""Validation while training: the torch network behind the deployed pipeline, on held-out worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from instance_flow.pipeline import Pipeline
from instance_flow.structures import Image, ModelInfo, Prediction
from instance_flow_training.model import OUTPUT_STRIDE, InstanceFlowNet
from instance_flow_training.scoring import held_out_clips, score_tracks, track_clip
from instance_flow_training.synthetic import CLASS_NAMES, WorldConfig

if TYPE_CHECKING:
    from instance_flow_training.config import ValidationConfig


class TorchNetwork:
    """The torch network behind the runtime's ``Network`` protocol; the same maps as the exported file."""

    def __init__(self, network: InstanceFlowNet, info: ModelInfo):
        self.network, self.info = network, info
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def predict(self, image: Image, references: Sequence[tuple[Tensor, Tensor]]) -> Prediction:
        """See ``instance_flow.structures.Network``."""
        config = self.network.config
        channels = config.key_channels + config.value_channels
        stacked = []
        for level, stride in enumerate(self.network.feature_strides):
            empty = torch.empty((0, channels, image.shape[0] // stride, image.shape[1] // stride), device=self._device)
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
        feature_strides=network.feature_strides,
    )


def validate(network: InstanceFlowNet, config: ValidationConfig) -> dict[str, float]:
    """AP, AP50, HOTA, IDF1 and IDSW of a network that is being trained."""
    training = network.training
    network.eval()
    pipeline = Pipeline(TorchNetwork(network, model_info(network, config.size)))
    clips = held_out_clips(config.first_seed, config.clips, WorldConfig(size=config.size))
    result = score_tracks(clips, [track_clip(pipeline, clip) for clip in clips])
    network.train(training)
    return {name: float(result[name]) for name in ("AP", "AP50", "HOTA", "IDF1", "IDSW")}
