# SPDX-License-Identifier: Apache-2.0
"""The network: one backbone, the intra-frame branch, and the inter-frame branch over cached reference features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from instance_flow.declare import check, setting
from instance_flow_training.network.backbone import BACKBONES, OUTPUT_STRIDES, build_backbone
from instance_flow_training.network.decoder import Decoder, MultiLevelHead, head
from instance_flow_training.network.dense_flow import OFFSET_SCALE, DenseFlow
from instance_flow_training.network.detector import DetectionEvidence, YoloxNano
from instance_flow_training.network.fusion import FUSIONS, TCF
from instance_flow_training.network.maps import OUTPUT_STRIDE, FlowMaps, Frames, IntraMaps, Pyramid
from instance_flow_training.network.token_flow import TokenFlow

__all__ = ["OUTPUT_STRIDE", "FlowMaps", "Frames", "InstanceFlowNet", "IntraMaps", "ModelConfig", "Pyramid"]

OFFSET, AFFINITY = "offset", "affinity"
DETECTORS = ("", "yolox_nano")
FLOWS = (OFFSET, AFFINITY)


def check_size(name: str, size: Sequence[int]) -> None:
    """Raises ValueError where ``size`` is no (height, width) that the network takes."""
    if len(size) != 2 or any(n < 32 or n % 32 for n in size):
        raise ValueError(f"{name} is {list(size)}; it must be [height, width], multiples of 32")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network. The defaults are the paper's ResNet-50 with ``unit_keys`` and ``attended_offset`` of ours;
    training/configs/youtube_vis_2019.toml has neither, everyday.toml beside it is the small network.

    fusion: tcf, or for comparison concat_convs or concat_aspp (Table II).
    flow: what the inter-frame branch says of a pixel: offset, the way to its object's center in the reference frame; or
        for comparison affinity, the direction of the object's trajectory between the frames (Table IV).
    object_tokens: 0 = the dense fusion of the paper; else the number of object tokens that the inter-frame branch works
        on in its place (``token_flow``), for which ``fusion``, ``token_stride``, ``fusion_context``, ``unit_keys`` and
        ``attended_offset`` do not count.
    aspp_rates: dilations of the ASPPs' 3x3 convolutions, none = 6, 12, 18 at output stride 16 and half of it at 32.
    dilated_semantics: False = the semantic branch has the ASPP of DeepLab's own MobileNetV2, a 1x1 convolution and the
        global mean alone.
    semantic_aspp_channels: of the semantic branch's ASPP, 0 = ``semantic_channels``.
    aspp_logits: class logits from the semantic branch's ASPP too, as in DeepLab, beside those of the decoder's levels.
    detector: yolox_nano, or none. Its features join the backbone's at strides 4 and 8, and are all that both branches
        see at 16 below the backbone's deepest level; the instance branch begins at its stride 32. What it finds is
        added to the maps, each with a learned gain.
    center_sigmoid: the center heat is a probability, as the focal loss wants it, instead of a free number.
    pixel_mean, pixel_scale: RGB values 0 .. 255 become (value - mean) / scale, as the backbone's weights want it; the
        defaults are torchvision's.
    token_stride: least input pixels between two cached keys; finer follows smaller objects and costs more attention.
    fusion_context: let the fusion see the intra-frame decoder's features beside the skip connection. They know the
        whole object and the way to its center, which narrow early features of a small backbone do not.
    unit_keys: with tcf, queries and keys have unit length and a learned temperature; False = the paper's standard
        product, divided by the root of ``key_channels``.
    attended_offset: with tcf, how far away a pixel attends on the average joins what the decoder sees, and is added to
        the offset that it says; False = the decoder gets values alone, as in the paper.
    """

    backbone: str = setting("resnet50", choices=BACKBONES)
    output_stride: int = 16
    semantic_channels: int = 256
    instance_channels: int = 128
    skip_channels: int = 64
    head_channels: int = 32
    key_channels: int = 64
    value_channels: int = 64
    fusion: str = setting(TCF, choices=FUSIONS)
    flow: str = setting(OFFSET, choices=FLOWS)
    token_stride: int = 16
    fusion_context: bool = False
    unit_keys: bool = True
    attended_offset: bool = True
    object_tokens: int = 0
    dense_aspp: bool = True
    aspp_rates: tuple[int, ...] = ()
    dilated_semantics: bool = True
    semantic_aspp_channels: int = 0
    aspp_logits: bool = False
    detector: str = setting("", choices=DETECTORS)
    center_sigmoid: bool = False
    backbone_weights: str = ""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_scale: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        check(self, "model.")
        if self.output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"model.output_stride is {self.output_stride}; it must be 16 or 32")
        if self.object_tokens < 0 or (self.object_tokens and self.flow != OFFSET):
            raise ValueError(
                f"model.object_tokens is {self.object_tokens} with model.flow = {self.flow!r}; it must be 0 or more, "
                f"and object tokens carry {OFFSET}s alone"
            )
        if self.detector and not self.object_tokens:
            raise ValueError(
                f"model.detector is {self.detector!r} with model.object_tokens = 0; the dense fusion of the paper sees "
                "the backbone alone, so set object_tokens = 256 or detector = ''"
            )


class InstanceFlowNet(nn.Module):
    """See ``forward`` for the deployed graph; training calls ``frames`` and ``inter``."""

    pixel_mean: Tensor
    pixel_scale: Tensor

    def __init__(self, config: ModelConfig, num_classes: int):
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.backbone = build_backbone(config.backbone, config.output_stride)
        self.detector = YoloxNano(num_classes) if config.detector else None
        self.evidence = DetectionEvidence() if config.detector else None
        channels, detected = self.backbone.channels, self.detector.channels if self.detector else {}
        deepest = max(channels)
        below = {s: (channels[s] if s < deepest else 0) + detected.get(s, 0) for s in (16, 8, 4)}
        skips = [n for n in below.values() if n]
        rates = config.aspp_rates or ((6, 12, 18) if config.output_stride == 16 else (3, 6, 9))
        common: dict[str, Any] = {"rates": rates, "dense": config.dense_aspp}
        plain = [config.skip_channels] * len(skips)

        self.semantic_decoder = Decoder(
            channels[deepest],
            skips=skips,
            skip_channels=plain,
            channels=config.semantic_channels,
            aspp_channels=config.semantic_aspp_channels,
            **common | ({} if config.dilated_semantics else {"rates": ()}),
        )
        levels = [config.semantic_channels] * len(skips)
        if config.aspp_logits:
            levels = [config.semantic_aspp_channels or config.semantic_channels, *levels]
        self.semantic_head = MultiLevelHead(levels, config.semantic_channels, num_classes + 1)
        self.intra_decoder = Decoder(
            detected.get(32, channels[deepest]),
            skips=skips,
            skip_channels=plain,
            channels=config.instance_channels,
            **common,
        )
        self.center_head = head(config.instance_channels, config.head_channels, 1)
        self.offset_head = head(config.instance_channels, config.head_channels, 2)
        if config.center_sigmoid:
            # Nearly no cell is a center: without this all of them would have to be pushed down first.
            nn.init.constant_(self.center_head[1].bias, -4.0)  # type: ignore[index]
        self.inter: DenseFlow | TokenFlow
        if config.object_tokens:
            self.inter = TokenFlow(
                config.object_tokens,
                config.instance_channels,
                (below[8], below[4]),
                config.key_channels,
                config.value_channels,
            )
        else:
            self.inter = DenseFlow(config, channels, {"in_channels": channels[deepest], **common})
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).reshape(1, 3, 1, 1))
        self.register_buffer("pixel_scale", torch.tensor(config.pixel_scale).reshape(1, 3, 1, 1))

    def frames(self, image: Tensor) -> Frames:
        """The intra-frame branch (section III-B-1).

        image: (B, H, W, 3) uint8 RGB, H and W multiples of 32.
        """
        pyramid = self.pyramid(image)
        semantic_stages = self.semantic_decoder.stages(pyramid.deepest, pyramid.skips)
        semantic = self.semantic_head(semantic_stages if self.config.aspp_logits else semantic_stages[1:])
        stages = self.intra_decoder.stages(pyramid.instance_deepest, pyramid.skips)
        center = self.center_head(stages[-1]).squeeze(1)
        offset = self.offset_head(stages[-1]) * OFFSET_SCALE
        if self.detector is not None and self.evidence is not None:
            added = self.evidence(self.detector.detections(pyramid.detected))
            semantic, center, offset = (a + b for a, b in zip((semantic, center, offset), added, strict=True))
        maps = IntraMaps(semantic, center.sigmoid() if self.config.center_sigmoid else center, offset)
        return Frames(pyramid, stages, maps, 1 - semantic.softmax(1)[:, 0])

    def pyramid(self, image: Tensor) -> Pyramid:
        """What the backbone sees; image as for ``frames``."""
        values = image.permute(0, 3, 1, 2).to(self.pixel_mean.dtype)
        levels = self.backbone((values - self.pixel_mean) / self.pixel_scale)
        deepest = levels.pop(max(levels))
        detected = self.detector(values) if self.detector else {}
        skips = [[of[s] for of in (levels, detected) if s in of] for s in (16, 8, 4)]
        return Pyramid(
            deepest,
            [torch.cat(level, 1) if len(level) > 1 else level[0] for level in skips if level],
            detected.get(32, deepest),
            detected,
        )

    def forward(self, image: Tensor, *reference_features: Tensor) -> tuple[Tensor, ...]:
        """The deployed graph: one frame against R cached references, R may be 0.

        Args:
            image: (1, H, W, 3) uint8 RGB, H and W multiples of 32.
            reference_features: per fusion level (R, channels, H / s, W / s) with s of ``inter.feature_strides``, or one
                tensor (R, channels, K) of object tokens: earlier features stacked.

        Returns:
            semantic (C + 1, h, w) probabilities, center (h, w), offset (2, h, w), reference_offset (R, 2, h, w), and
            this frame's features, one tensor for each of ``reference_features``; h, w at stride 4, offsets in cells of
            stride 4.
        """
        frames = self.frames(image)
        if isinstance(self.inter, TokenFlow):
            tokens = self.inter.choose(frames)
            reference_offset = self.inter(frames, reference_features, tokens=tokens).reference_offset
            features: tuple[Tensor, ...] = self.inter.features(frames, tokens)
        else:
            reference_offset = self.inter(frames, reference_features).reference_offset
            features = self.inter.features(frames)
        maps = frames.maps
        return (maps.semantic.softmax(1)[0], maps.center[0], maps.offset[0], reference_offset, *features)
