# SPDX-License-Identifier: Apache-2.0
"""The network: one backbone, the intra-frame branch, and the inter-frame branch over cached reference features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from instance_flow_training.backbone import build_backbone
from instance_flow_training.decoder import Decoder, MultiLevelHead, conv_bn_relu, head, resize
from instance_flow_training.fusion import FUSIONS, TCF, Fusion, build_fusion

OUTPUT_STRIDE = 4
OFFSET_SCALE = 8.0
"""Cells per unit of an offset head's last layer: keeps its outputs near one."""
OFFSET, AFFINITY = "offset", "affinity"
FLOWS = (OFFSET, AFFINITY)


def check_size(name: str, size: Sequence[int]) -> None:
    """Raises ValueError where ``size`` is no (height, width) that the network takes."""
    if len(size) != 2 or any(n < 32 or n % 32 for n in size):
        raise ValueError(f"{name} is {list(size)}; it must be [height, width], multiples of 32")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network. The defaults are the paper's ResNet-50; training/configs/worlds.toml has the small one.

    fusion: tcf, or for comparison concat_convs or concat_aspp (Table II).
    flow: what the inter-frame branch says of a pixel: offset, the way to its object's center in the reference frame; or
        for comparison affinity, the direction of the object's trajectory between the frames (Table IV).
    pixel_mean, pixel_scale: RGB values 0 .. 255 become (value - mean) / scale, as the backbone's weights want it; the
        defaults are torchvision's.
    token_stride: least input pixels between two cached keys; finer follows smaller objects and costs more attention.
    fusion_context: let the fusion see the intra-frame decoder's features beside the skip connection. They know the
        whole object and the way to its center, which narrow early features of a small backbone do not.
    """

    backbone: str = "resnet50"
    output_stride: int = 16
    semantic_channels: int = 256
    instance_channels: int = 128
    skip_channels: int = 64
    head_channels: int = 32
    key_channels: int = 64
    value_channels: int = 64
    fusion: str = TCF
    flow: str = OFFSET
    token_stride: int = 16
    fusion_context: bool = False
    dense_aspp: bool = True
    backbone_weights: str = ""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_scale: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        for name, known in (("fusion", FUSIONS), ("flow", FLOWS)):
            if getattr(self, name) not in known:
                raise ValueError(f"model.{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")


class IntraMaps(NamedTuple):
    """semantic (B, C + 1, h, w) logits; center (B, h, w); offset (B, 2, h, w) in cells; all at stride 4."""

    semantic: Tensor
    center: Tensor
    offset: Tensor


class Pyramid(NamedTuple):
    """deepest: (B, C, H / s, W / s) with s the backbone's output stride; skips: deepest first, the last at stride 4."""

    deepest: Tensor
    skips: Sequence[Tensor]


class InstanceFlowNet(nn.Module):
    """See ``forward`` for the deployed graph; training calls ``pyramid``, ``features``, ``intra`` and ``inter``."""

    pixel_mean: Tensor
    pixel_scale: Tensor

    def __init__(self, config: ModelConfig, num_classes: int):
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.backbone = build_backbone(config.backbone, config.output_stride)
        channels = self.backbone.channels
        strides = sorted(channels, reverse=True)
        skips = [channels[s] for s in strides[1:]]
        rates = (6, 12, 18) if config.output_stride == 16 else (3, 6, 9)
        common: dict[str, Any] = {"in_channels": channels[strides[0]], "rates": rates, "dense": config.dense_aspp}
        plain = [config.skip_channels] * len(skips)

        self.semantic_decoder = Decoder(skips=skips, skip_channels=plain, channels=config.semantic_channels, **common)
        self.semantic_head = MultiLevelHead(
            config.semantic_channels, len(skips), config.semantic_channels, num_classes + 1
        )
        self.intra_decoder = Decoder(skips=skips, skip_channels=plain, channels=config.instance_channels, **common)
        self.center_head = head(config.instance_channels, config.head_channels, 1)
        self.offset_head = head(config.instance_channels, config.head_channels, 2)

        context = config.instance_channels if config.fusion_context else 0
        fusions = [
            build_fusion(
                config.fusion,
                channels[s] + context,
                s,
                max(1, config.token_stride // s),
                config.key_channels,
                config.value_channels,
            )
            for s in strides[1:3]
        ]
        self.fusions = nn.ModuleList(fusions)
        self.cached_channels = fusions[0].cached_channels
        self.feature_strides = (max(strides[1], config.token_stride), max(strides[2], config.token_stride))
        self.inter_project = nn.ModuleList(conv_bn_relu(c, config.skip_channels) for c in skips[:2])
        fused = [config.skip_channels + fusion.channels for fusion in fusions]
        self.inter_decoder = Decoder(
            skips=[*fused, *skips[2:]], skip_channels=plain, channels=config.instance_channels, **common
        )
        self.reference_offset_head = head(config.instance_channels, config.head_channels, 2)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).reshape(1, 3, 1, 1))
        self.register_buffer("pixel_scale", torch.tensor(config.pixel_scale).reshape(1, 3, 1, 1))

    def pyramid(self, image: Tensor) -> Pyramid:
        """image: (B, H, W, 3) uint8 RGB, H and W multiples of 32."""
        x = (image.permute(0, 3, 1, 2).to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_scale
        levels = self.backbone(x)
        strides = sorted(levels, reverse=True)
        return Pyramid(levels[strides[0]], [levels[s] for s in strides[1:]])

    def intra(self, pyramid: Pyramid) -> tuple[IntraMaps, list[Tensor]]:
        """Section III-B-1; also what the fusion sees of these frames, one tensor (B, C, h, w) per fusion level."""
        semantic = self.semantic_head(self.semantic_decoder.stages(pyramid.deepest, pyramid.skips))
        stages = self.intra_decoder.stages(pyramid.deepest, pyramid.skips)
        maps = IntraMaps(semantic, self.center_head(stages[-1]).squeeze(1), self.offset_head(stages[-1]) * OFFSET_SCALE)
        context = list(pyramid.skips[:2])
        if self.config.fusion_context:
            context = [torch.cat(pair, 1) for pair in zip(context, stages, strict=False)]
        return maps, context

    def features(self, context: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What to cache of each frame: (B, key + value channels, h, w) per fusion level, at ``feature_strides``."""
        return self._fusion(0).features(context[0]), self._fusion(1).features(context[1])

    def _fusion(self, level: int) -> Fusion:
        return cast(Fusion, self.fusions[level])

    def inter(
        self,
        pyramid: Pyramid,
        context: Sequence[Tensor],
        references: Sequence[Tensor],
        target: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Offsets to the centers in the reference frames (section III-B-2).

        The finest attention already says where a pixel's object was found; the decoder's head predicts what is missing
        from there to the object's center. Without that start the head must learn to copy coordinates through its
        convolutions, which takes it longer than everything else.

        Args:
            pyramid, context: of B target frames.
            references: per fusion level (P, channels, h, w) cached features.
            target: (P,) which of the B frames each reference belongs to; None = all to the only one (B = 1).

        Returns:
            (P, 2, H / 4, W / 4) in cells of stride 4 (a direction with ``flow = affinity``), and per level
            the attention (P, pixels, tokens), if the fusion has one.
        """
        decoder = self.inter_decoder
        pairs = references[0].shape[0]

        def per_pair(x: Tensor) -> Tensor:
            return x.expand(pairs, -1, -1, -1) if target is None else x.index_select(0, target)

        x, way, attentions = per_pair(decoder.aspp(pyramid.deepest)), None, []
        for level, (project, fuse, skip) in enumerate(zip(decoder.project, decoder.fuse, pyramid.skips, strict=True)):
            if level < len(self.fusions):
                queries = context[level] if target is None else per_pair(context[level])
                fused = self._fusion(level)(queries, references[level])
                joined = project(torch.cat([per_pair(self.inter_project[level](skip)), fused.features], 1))
                way = fused.way
                attentions += [] if fused.attention is None else [fused.attention]
            else:
                joined = per_pair(project(skip))
            x = fuse(torch.cat([resize(x, joined), joined], 1))
        out = self.reference_offset_head(x)
        if self.config.flow == AFFINITY:
            return out, attentions
        out = out * OFFSET_SCALE
        return (out if way is None else out + resize(way, x) / OUTPUT_STRIDE), attentions

    def forward(
        self, image: Tensor, reference_features_0: Tensor, reference_features_1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The deployed graph: one frame against R cached references, R may be 0.

        Args:
            image: (1, H, W, 3) uint8 RGB, H and W multiples of 32.
            reference_features_0, reference_features_1: (R, channels, H / s, W / s) with s of ``feature_strides``,
                earlier ``features_0`` and ``features_1`` stacked.

        Returns:
            semantic (C + 1, h, w) probabilities, center (h, w), offset (2, h, w), reference_offset (R, 2, h, w),
            features_0, features_1 (1, channels, H / s, W / s); h, w at stride 4, offsets in cells of stride 4.
        """
        pyramid = self.pyramid(image)
        maps, context = self.intra(pyramid)
        reference_offset, _ = self.inter(pyramid, context, (reference_features_0, reference_features_1))
        features_0, features_1 = self.features(context)
        return (
            maps.semantic.softmax(1)[0],
            maps.center[0],
            maps.offset[0],
            reference_offset,
            features_0,
            features_1,
        )
