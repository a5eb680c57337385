# SPDX-License-Identifier: Apache-2.0
"""The network: one backbone, the intra-frame branch, and the inter-frame branch over cached reference features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from instance_flow.declare import SIZE, check, setting
from instance_flow_training.network.backbone import BACKBONES, OUTPUT_STRIDES, build_backbone
from instance_flow_training.network.boxes import DetectionEvidence, suppress
from instance_flow_training.network.decoder import Decoder, MultiLevelHead, head
from instance_flow_training.network.dense_flow import OFFSET_SCALE, DenseFlow
from instance_flow_training.network.detector import YoloxNano
from instance_flow_training.network.fusion import FUSIONS, TCF
from instance_flow_training.network.maps import (
    OUTPUT_STRIDE,
    Boxes,
    FlowMaps,
    Frames,
    IntraMaps,
    Pyramid,
    class_probabilities,
)
from instance_flow_training.network.token_flow import TokenFlow

__all__ = ["OUTPUT_STRIDE", "FlowMaps", "Frames", "InstanceFlowNet", "IntraMaps", "ModelConfig", "Pyramid"]

OFFSET, AFFINITY = "offset", "affinity"
DETECTORS = ("", "yolox_nano")
FLOWS = (OFFSET, AFFINITY)


INPUT_SIZE: dict[str, Any] = {"low": 32, "high": 16_384, "step": 32, "parts": SIZE}
"""What a ``setting`` is that holds a (height, width) that the network takes."""
_CHANNELS = (1, 65_536)
_RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network. The defaults are the paper's ResNet-50 with ``unit_keys`` and ``attended_offset`` of ours;
    training/configs/youtube_vis_2019.toml has neither, everyday.toml beside it is the small network.
    """

    backbone: str = setting("resnet50", "the network whose features all branches start from", choices=BACKBONES)
    output_stride: int = setting(
        16, "input pixels between two cells of the backbone's deepest level", choices=OUTPUT_STRIDES
    )
    semantic_channels: int = setting(256, "channels of the semantic branch's decoder", *_CHANNELS)
    instance_channels: int = setting(128, "channels of the intra-frame and the inter-frame decoder", *_CHANNELS)
    skip_channels: int = setting(64, "channels that each skip connection is projected to", *_CHANNELS)
    head_channels: int = setting(32, "hidden channels of the heads", *_CHANNELS)
    key_channels: int = setting(64, "channels of queries and keys", *_CHANNELS)
    value_channels: int = setting(64, "channels of values", *_CHANNELS)
    fusion: str = setting(
        TCF, "how the target frame meets a reference; all but tcf are for comparison (Table II)", choices=FUSIONS
    )
    flow: str = setting(
        OFFSET,
        "what the inter-frame branch says of a pixel: offset, the way to its object's center in the reference frame; "
        "or for comparison affinity, the direction of the object's trajectory between the frames (Table IV)",
        choices=FLOWS,
    )
    token_stride: int = setting(
        16,
        "least input pixels between two cached keys; finer follows smaller objects and costs more attention",
        choices=(1, 2, 4, 8, 16, 32),
    )
    fusion_context: bool = setting(
        False,
        "let the fusion see the intra-frame decoder's features beside the skip connection. They know the whole object "
        "and the way to its center, which narrow early features of a small backbone do not",
    )
    unit_keys: bool = setting(
        True,
        "with tcf, queries and keys have unit length and a learned temperature; false = the paper's standard product, "
        "divided by the root of key_channels",
    )
    attended_offset: bool = setting(
        True,
        "with tcf, how far away a pixel attends on the average joins what the decoder sees, and is added to the offset "
        "that it says; false = the decoder gets values alone, as in the paper",
    )
    object_tokens: int = setting(
        0,
        "number of object tokens that the inter-frame branch works on in place of the dense fusion of the paper, 0 = "
        "that one. With tokens fusion, token_stride, fusion_context, unit_keys and attended_offset do not count",
        0,
        65_536,
    )
    dense_aspp: bool = setting(True, "dense convolutions in the ASPPs; false = separable ones, smaller and faster")
    aspp_rates: tuple[int, ...] = setting(
        (),
        "dilations of the ASPPs' 3x3 convolutions, none = 6, 12, 18 at output stride 16 and half of it at 32",
        1,
        1024,
        of=int,
    )
    dilated_semantics: bool = setting(
        True,
        "false = the semantic branch has the ASPP of DeepLab's own MobileNetV2, a 1x1 convolution and the global mean "
        "alone",
    )
    semantic_aspp_channels: int = setting(0, "channels of the semantic branch's ASPP, 0 = semantic_channels", 0, 65_536)
    aspp_logits: bool = setting(
        False, "class logits from the semantic branch's ASPP too, as in DeepLab, beside those of the decoder's levels"
    )
    detector: str = setting(
        "",
        "yolox_nano, or none. Its features join the backbone's at strides 4 and 8, and are all that both branches see "
        "at 16 below the backbone's deepest level; the instance branch begins at its stride 32. Its boxes "
        "say which cells belong together and where their center is (network/boxes.py)",
        choices=DETECTORS,
    )
    center_sigmoid: bool = setting(
        False, "the center heat is a probability, as the focal loss wants it, instead of a free number"
    )
    backbone_weights: str = setting(
        "", "ImageNet weights of the backbone with torchvision's names, a .safetensors or .pth file; empty = none"
    )
    pixel_mean: tuple[float, float, float] = setting(
        (123.675, 116.28, 103.53),
        "RGB values 0 .. 255 become (value - pixel_mean) / pixel_scale, as the backbone's weights want it; the "
        "defaults are torchvision's",
        0,
        255,
        parts=_RGB,
    )
    pixel_scale: tuple[float, float, float] = setting(
        (58.395, 57.12, 57.375), "see pixel_mean", high=1000, above=0, parts=_RGB
    )

    def __post_init__(self) -> None:
        check(self, "model.")
        if self.object_tokens and self.flow != OFFSET:
            raise ValueError(
                f"model.object_tokens is {self.object_tokens} with model.flow = {self.flow!r}; object tokens carry "
                f"{OFFSET}s alone, so set model.object_tokens = 0 or model.flow = {OFFSET!r}"
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
        self.evidence = DetectionEvidence(config.instance_channels, config.head_channels) if config.detector else None
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
        maps = learned = IntraMaps(semantic, center.sigmoid() if self.config.center_sigmoid else center, offset)
        claims = None
        if self.detector is not None and self.evidence is not None:
            boxes = suppress(self.detector.boxes(pyramid.detected))
            boxes = Boxes(*(x.detach() for x in boxes))
            learned, maps, claims = self.evidence(boxes, stages[-1], maps, self.detector.unknown)
        return Frames(pyramid, stages, maps, learned, 1 - class_probabilities(maps.semantic)[:, 0], claims)

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
        return (class_probabilities(maps.semantic)[0], maps.center[0], maps.offset[0], reference_offset, *features)
