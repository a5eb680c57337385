# SPDX-License-Identifier: Apache-2.0
"""A detector, YOLOX-Nano (Ge et al., 2021): its features beside those of the backbone, and what it finds.

It knows small objects, where one object ends and the next begins, and which way its middle lies. Batch norm is part of
the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instance_flow_training.network.boxes import positions, surest
from instance_flow_training.network.maps import OUTPUT_STRIDE, Boxes

STEM, WIDTHS = 16, (32, 64, 128, 256)
"""Channels of the stem at stride 2, and of the stages at strides 4, 8, 16 and 32."""
BLOCKS = (1, 3, 3)
NEVER = -10.0
"""Bias of what no file says: a class that the detector does not know."""
CANDIDATES = 256
"""Boxes that non-maximum suppression looks at; an object has about ten."""
_LARGEST = 8.0
"""Of the logarithm of a box's size in cells: beyond any picture."""
HIDDEN = 64
"""Channels of the heads, the same at every level."""
CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant"),
    *("bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard"),
    *("sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli"),
    *("carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    *("tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""Of COCO, in the order of YOLOX: what its weights tell apart."""


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


class YoloxNano(nn.Module):
    """YOLOX-Nano, its classes being those of the network.

    ``channels``: from the stride of a level to its channels.   Args: classes: C.

    Attributes:
        known: (3, len(CLASSES), HIDDEN + 1) the class layers' rows of all ``CLASSES``, weights and bias: weights of
            some classes are then a start for others, too; all zero without weights.
        unknown: classes that it never finds, since no weights say what they look like; set by ``train`` and ``eval``.
    """

    known: Tensor
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
        self.box_layers = nn.ModuleList(nn.Conv2d(HIDDEN, 4, 1) for _ in self.heads)
        self.object_layers = nn.ModuleList(nn.Conv2d(HIDDEN, 1, 1) for _ in self.heads)
        for layer in (*self.class_layers, *self.object_layers):
            nn.init.constant_(layer.bias, NEVER)  # type: ignore[arg-type]
        self.register_buffer("known", torch.zeros(len(self.heads), len(CLASSES), HIDDEN + 1))
        self.unknown: tuple[int, ...] = tuple(range(classes))

    @torch.no_grad()
    def find(self, class_names: Mapping[int, str]) -> list[str]:
        """Take the rows of these classes from ``known``, and return the names of those that are there; any other one
        is never found."""
        if not self.known.any():
            return []
        there = {row: CLASSES.index(name) for row, name in class_names.items() if name in CLASSES}
        for layer, rows in zip(self.class_layers, self.known, strict=True):
            for row, of_all in there.items():
                layer.get_parameter("weight")[row, :, 0, 0] = rows[of_all, :-1]
                layer.get_parameter("bias")[row] = rows[of_all, -1]
        return [class_names[row] for row in there]

    def train(self, mode: bool = True) -> YoloxNano:
        """As of any module."""
        super().train(mode)
        surest = torch.stack([layer.get_parameter("bias").detach() for layer in self.class_layers]).amax(0)
        self.unknown = tuple(row for row, bias in enumerate(surest.tolist()) if bias <= NEVER)
        return self

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

    def boxes(self, features: Mapping[int, Tensor]) -> Boxes:
        """What the features of strides 8, 16 and 32 say: the surest boxes before non-maximum suppression."""
        every = []
        rows = zip((8, 16, 32), self.class_layers, self.box_layers, self.object_layers, strict=True)
        for stride, class_layer, box_layer, object_layer in rows:
            of_classes, of_boxes = features[stride].split(HIDDEN, 1)
            classes = class_layer(of_classes).sigmoid() * object_layer(of_boxes).sigmoid()
            # In half precision places would be off by pixels.
            middle, size = box_layer(of_boxes).float().split(2, 1)
            cells = stride / OUTPUT_STRIDE
            center = (middle + positions(of_boxes)) * cells - 0.5
            half = size.clamp(max=_LARGEST).exp() * (cells / 2)
            every.append(torch.cat([classes.float(), center, half], 1).flatten(2))
        return surest(torch.cat(every, 2), CANDIDATES)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
