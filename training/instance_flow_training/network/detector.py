# SPDX-License-Identifier: Apache-2.0
"""A detector, YOLOX-Nano (Ge et al., 2021): its features beside those of the backbone, and what it finds.

It knows small objects, where one object ends and the next begins, and which way its middle lies. Batch norm is part of
the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instance_flow_training.network.maps import OUTPUT_STRIDE

STEM, WIDTHS = 16, (32, 64, 128, 256)
"""Channels of the stem at stride 2, and of the stages at strides 4, 8, 16 and 32."""
BLOCKS = (1, 3, 3)
NEVER = -10.0
"""Bias of what no file says: a class that the detector does not know."""
HIDDEN = 64
"""Channels of the heads, the same at every level."""


def conv(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolution and SiLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups), nn.SiLU(inplace=True)
    )


def depthwise(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """3x3 of each channel, then 1x1."""
    return nn.Sequential(conv(in_channels, in_channels, 3, stride, in_channels), conv(in_channels, out_channels))


class CrossStage(nn.Module):
    """Half of the channels pass through ``blocks`` bottlenecks, half do not (CSP)."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        half = out_channels // 2
        self.changed, self.kept = conv(in_channels, half), conv(in_channels, half)
        self.blocks = nn.ModuleList(nn.Sequential(conv(half, half), depthwise(half, half)) for _ in range(blocks))
        self.join, self.shortcut = conv(out_channels, out_channels), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y, kept = self.changed(x), self.kept(x)
        for block in self.blocks:
            y = block(y) + y if self.shortcut else block(y)
        return self.join(torch.cat([y, kept], 1))


class PoolPyramid(nn.Module):
    """The deepest features beside their maxima over 5, 9 and 13 cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.join = conv(channels, channels // 2), conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return self.join(torch.cat([x, *(F.max_pool2d(x, n, 1, n // 2) for n in (5, 9, 13))], 1))


class Head(nn.Module):
    """What one level says of classes and of boxes, before the last linear layers: 2 * HIDDEN channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = conv(in_channels, HIDDEN)
        self.classes = nn.Sequential(depthwise(HIDDEN, HIDDEN), depthwise(HIDDEN, HIDDEN))
        self.boxes = nn.Sequential(depthwise(HIDDEN, HIDDEN), depthwise(HIDDEN, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat([self.classes(x), self.boxes(x)], 1)


class Detections(NamedTuple):
    """What the detector says of every cell of stride 8, the surest of its levels counting.

    classes: (B, C, h, w) probability that an object of the class is centered about there.
    center: (B, 2, h, w) where the object's box has its middle, (y, x) in input pixels, times ``weight`` (B, 1, h, w).
    """

    classes: Tensor
    center: Tensor
    weight: Tensor


class YoloxNano(nn.Module):
    """YOLOX-Nano, its classes being those of the network; the sizes of its boxes are left out.

    ``channels``: from the stride of a level to its channels.   Args: classes: C.
    """

    channels: ClassVar = {4: WIDTHS[0], 8: 2 * HIDDEN, 16: 2 * HIDDEN, 32: 2 * HIDDEN}

    def __init__(self, classes: int) -> None:
        super().__init__()
        w8, w16, w32 = WIDTHS[1:]
        # YOLOX takes 2x2 pixels for 12 channels and convolves 3x3 of those: the same as 6x6 pixels in steps of 2.
        self.stem = nn.Sequential(nn.Conv2d(3, STEM, 6, 2, 2), nn.SiLU(inplace=True))
        before = (STEM, *WIDTHS[:-2])
        self.stages = nn.ModuleList(
            nn.Sequential(depthwise(a, b, 2), CrossStage(b, b, n, shortcut=True))
            for a, b, n in zip(before, WIDTHS, BLOCKS, strict=False)
        )
        self.deepest = nn.Sequential(depthwise(w16, w32, 2), PoolPyramid(w32), CrossStage(w32, w32))
        self.lateral16, self.down16 = conv(w32, w16), CrossStage(2 * w16, w16)
        self.lateral8, self.down8 = conv(w16, w8), CrossStage(2 * w8, w8)
        self.up16, self.out16 = depthwise(w8, w8, 2), CrossStage(2 * w8, w16)
        self.up32, self.out32 = depthwise(w16, w16, 2), CrossStage(2 * w16, w32)
        self.heads = nn.ModuleList(Head(width) for width in (w8, w16, w32))
        self.class_layers = nn.ModuleList(nn.Conv2d(HIDDEN, classes, 1) for _ in self.heads)
        self.center_layers = nn.ModuleList(nn.Conv2d(HIDDEN, 2, 1) for _ in self.heads)
        self.object_layers = nn.ModuleList(nn.Conv2d(HIDDEN, 1, 1) for _ in self.heads)
        for layer in (*self.class_layers, *self.object_layers):
            nn.init.constant_(layer.bias, NEVER)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """image: (B, 3, H, W) RGB, values 0 .. 255. Returns features by stride."""
        c4 = self.stages[0](self.stem(image))
        c8 = self.stages[1](c4)
        c16 = self.stages[2](c8)
        top = self.lateral16(self.deepest(c16))
        middle = self.lateral8(self.down16(torch.cat([_twice(top), c16], 1)))
        out8 = self.down8(torch.cat([_twice(middle), c8], 1))
        out16 = self.out16(torch.cat([self.up16(out8), middle], 1))
        out32 = self.out32(torch.cat([self.up32(out16), top], 1))
        levels = {8: out8, 16: out16, 32: out32}
        return {4: c4, **{s: head(x) for head, (s, x) in zip(self.heads, levels.items(), strict=True)}}

    def detections(self, features: Mapping[int, Tensor]) -> Detections:
        """What the features of strides 8, 16 and 32 say."""
        found: Detections | None = None
        rows = list(zip((8, 16, 32), self.class_layers, self.center_layers, self.object_layers, strict=True))
        for stride, class_layer, center_layer, object_layer in reversed(rows):
            of_classes, of_boxes = features[stride].split(HIDDEN, 1)
            classes = class_layer(of_classes).sigmoid() * object_layer(of_boxes).sigmoid()
            weight = classes.amax(1, keepdim=True)
            center = (center_layer(of_boxes).flip(1) + _corners(of_boxes)) * stride * weight
            if found is not None:
                up = [_twice(x, "bilinear") for x in found]
                classes, center, weight = torch.maximum(classes, up[0]), center + up[1], weight + up[2]
            found = Detections(classes, center, weight)
        assert found is not None
        return found


class DetectionEvidence(nn.Module):
    """What detections add to the maps: to class logits and the center's logit by their probability, to offsets the way
    to the middle of the box. Each has a learned gain; where nothing is found, nothing is added."""

    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.tensor([3.0, 5.0, 0.5]))

    def forward(self, found: Detections) -> tuple[Tensor, Tensor, Tensor]:
        """Of stride 4: semantic (B, C + 1, h, w), center (B, h, w), offset (B, 2, h, w) in cells."""
        classes, center, weight = (_twice(x, "bilinear") for x in found)
        # Cell i of stride 4 lies at pixel 4i + 1.5.
        cells = _corners(center) + 1.5 / OUTPUT_STRIDE
        offset = (center / OUTPUT_STRIDE - cells * weight) / (weight + 0.05)
        semantic = torch.cat([torch.zeros_like(weight), classes], 1)
        return self.gains[0] * semantic, self.gains[1] * classes.amax(1), self.gains[2] * offset


def _corners(x: Tensor) -> Tensor:
    """Row and column of each cell: (1, 2, h, w)."""
    rows, columns = (torch.arange(n, dtype=x.dtype, device=x.device) for n in x.shape[-2:])
    return torch.stack([rows[:, None].expand(x.shape[-2:]), columns[None].expand(x.shape[-2:])])[None]


def _twice(x: Tensor, mode: str = "nearest") -> Tensor:
    return F.interpolate(x, scale_factor=2, mode=mode, align_corners=None if mode == "nearest" else False)
