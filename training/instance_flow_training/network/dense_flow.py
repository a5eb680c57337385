# SPDX-License-Identifier: Apache-2.0
"""The inter-frame branch of the paper (section III-B-2): every pixel attends to every token of a reference frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from instance_flow_training.network.decoder import Decoder, conv_bn_relu, head, resize
from instance_flow_training.network.fusion import Fusion, build_fusion
from instance_flow_training.network.maps import OUTPUT_STRIDE, FlowMaps, Frames

OFFSET_SCALE = 8.0
"""Cells per unit of an offset head's last layer: keeps its outputs near one."""


class DenseFlow(nn.Module):
    """Fusions in the middle of the two deepest skip connections of a decoder of its own.

    Args:
        config: ``model.ModelConfig``.   channels: of the pyramid's levels by stride, the deepest the largest.
        common: what all decoders of the network are built with.
    """

    def __init__(self, config: Any, channels: dict[int, int], common: dict[str, Any]) -> None:
        super().__init__()
        self.is_offset = config.flow == "offset"
        self.context = config.fusion_context
        strides = sorted(channels, reverse=True)
        skips = [channels[s] for s in strides[1:]]
        context = config.instance_channels if config.fusion_context else 0
        self.fusions = nn.ModuleList(build_fusion(config, channels[s] + context, s) for s in strides[1:3])
        self.cached_channels = self._fusion(0).cached_channels
        self.feature_strides = (max(strides[1], config.token_stride), max(strides[2], config.token_stride))
        self.tokens = 0
        self.project = nn.ModuleList(conv_bn_relu(c, config.skip_channels) for c in skips[:2])
        fused = [config.skip_channels + self._fusion(level).channels for level in range(2)]
        self.decoder = Decoder(
            skips=[*fused, *skips[2:]],
            skip_channels=[config.skip_channels] * len(skips),
            channels=config.instance_channels,
            **common,
        )
        self.head = head(config.instance_channels, config.head_channels, 2)

    def features(self, frames: Frames) -> tuple[Tensor, ...]:
        """What to cache of each frame: (B, key + value channels, h, w) per fusion level, at ``feature_strides``."""
        return tuple(self._fusion(level).features(x) for level, x in enumerate(self._contexts(frames)))

    def forward(self, frames: Frames, references: Sequence[Tensor], target: Tensor | None = None) -> FlowMaps:
        """Offsets to the centers in the reference frames.

        With ``attended_offset`` the finest attention already says where a pixel's object was found; the decoder's head
        predicts what is missing from there to the object's center. Without that start the head must learn to copy
        coordinates through its convolutions, which takes it longer than everything else.

        Args:
            frames: B target frames.   references: per fusion level (P, channels, h, w) cached features.
            target: (P,) which of the B frames each reference belongs to; None = all to the only one (B = 1).
        """
        pairs = references[0].shape[0]

        def per_pair(x: Tensor) -> Tensor:
            return x.expand(pairs, -1, -1, -1) if target is None else x.index_select(0, target)

        contexts, skips = self._contexts(frames), frames.pyramid.skips
        x, attended_offset, attentions = per_pair(self.decoder.aspp(frames.pyramid.deepest)), None, []
        for level, (project, fuse, skip) in enumerate(zip(self.decoder.project, self.decoder.fuse, skips, strict=True)):
            if level < len(self.fusions):
                queries = contexts[level] if target is None else per_pair(contexts[level])
                fused = self._fusion(level)(queries, references[level])
                joined = project(torch.cat([per_pair(self.project[level](skip)), fused.features], 1))
                attended_offset = fused.attended_offset
                attentions += [] if fused.attention is None else [fused.attention]
            else:
                joined = per_pair(project(skip))
            x = fuse(torch.cat([resize(x, joined), joined], 1))
        out = self.head(x)
        if self.is_offset:
            out = out * OFFSET_SCALE
            out = out if attended_offset is None else out + resize(attended_offset, x) / OUTPUT_STRIDE
        return FlowMaps(out, attentions)

    def _contexts(self, frames: Frames) -> list[Tensor]:
        contexts = list(frames.pyramid.skips[:2])
        if self.context:
            contexts = [torch.cat(pair, 1) for pair in zip(contexts, frames.stages[1:], strict=False)]
        return contexts

    def _fusion(self, level: int) -> Fusion:
        return cast(Fusion, self.fusions[level])
