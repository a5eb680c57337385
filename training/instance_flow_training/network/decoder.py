# SPDX-License-Identifier: Apache-2.0
"""Atrous spatial pyramid pooling, the decoder with skip connections, and the heads (DeepLab V3+, Panoptic-DeepLab)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> nn.Module:
    """Convolution of stride 1 that keeps the size, batch norm, ReLU."""
    padding = (kernel - 1) // 2 * dilation
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def separable(in_channels: int, out_channels: int, kernel: int = 5, dilation: int = 1) -> nn.Module:
    """Depthwise then pointwise convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        conv_bn_relu(in_channels, in_channels, kernel, dilation, groups=in_channels),
        conv_bn_relu(in_channels, out_channels),
    )


def of_parts(layers: nn.Module, *parts: Tensor) -> Tensor:
    """``layers`` of ``torch.cat(parts, 1)`` without putting the parts side by side; the first layer is a 1x1
    convolution. A part may have a single cell that stands for all, as the mean does: it is multiplied once."""
    conv, *rest = cast(nn.Sequential, layers)
    first = cast(nn.Conv2d, conv)
    weights = first.weight.split([x.shape[1] for x in parts], 1)
    y = F.conv2d(parts[0], weights[0], first.bias)
    for x, weight in zip(parts[1:], weights[1:], strict=True):
        y = y + F.conv2d(x, weight)
    for layer in rest:
        y = layer(y)
    return y


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, pixel centers at half integers, to the height and width of ``like``."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """A 1x1 convolution, a dilated 3x3 one per rate and the global mean, side by side; projected to ``channels``.

    Without rates it is the ASPP of DeepLab's own MobileNetV2.
    """

    def __init__(self, in_channels: int, channels: int, rates: Sequence[int], dense: bool):
        super().__init__()
        dilated = conv_bn_relu if dense else separable
        self.branches = nn.ModuleList(
            [conv_bn_relu(in_channels, channels), *(dilated(in_channels, channels, 3, rate) for rate in rates)]
        )
        self.pool = nn.Conv2d(in_channels, channels, 1)
        self.project = conv_bn_relu(channels * (len(rates) + 2), channels)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.relu(self.pool(x.mean(dim=(2, 3), keepdim=True)))
        branches = [branch(x) for branch in self.branches]
        if len(branches) > 1:
            return self.project(torch.cat([*branches, mean.expand(-1, -1, *x.shape[-2:])], 1))
        # Beside a single branch, projecting the mean once saves half of the projection.
        return of_parts(self.project, branches[0], mean)


class Decoder(nn.Module):
    """From the ASPP's output down the skip connections to stride 4.

    Args:
        in_channels: of the deepest pyramid level.
        skips: channels of the skip connections, deepest first (strides 16, 8, 4 or 8, 4).
        skip_channels: what each skip is projected to before it is joined.
        channels: of the decoder.   aspp_channels: of its ASPP where they differ, else 0.
    """

    def __init__(
        self,
        in_channels: int,
        skips: Sequence[int],
        skip_channels: Sequence[int],
        channels: int,
        rates: Sequence[int],
        dense: bool,
        aspp_channels: int = 0,
    ):
        super().__init__()
        self.aspp = ASPP(in_channels, aspp_channels or channels, rates, dense)
        self.reduce = conv_bn_relu(aspp_channels, channels) if aspp_channels else nn.Identity()
        self.project = nn.ModuleList(conv_bn_relu(a, b) for a, b in zip(skips, skip_channels, strict=True))
        self.fuse = nn.ModuleList(separable(channels + b, channels) for b in skip_channels)

    def stages(self, deepest: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        """Features (B, channels, h, w) of the ASPP and after each skip, deepest first; the last is at stride 4."""
        x = self.aspp(deepest)
        features = [x]
        x = self.reduce(x)
        for project, fuse, skip in zip(self.project, self.fuse, skips, strict=True):
            x = fuse(torch.cat([resize(x, skip), project(skip)], 1))
            features.append(x)
        return features


def head(in_channels: int, hidden: int, out_channels: int) -> nn.Module:
    """Separable 5x5 convolution and a linear 1x1."""
    return nn.Sequential(separable(in_channels, hidden), nn.Conv2d(hidden, out_channels, 1))


class MultiLevelHead(nn.Module):
    """Class logits from several decoder levels, summed on the way to the finest: objects of all sizes (section III-B-1,
    like FPN).

    Args: in_channels: of each level, deepest first, two or more.
    """

    def __init__(self, in_channels: Sequence[int], hidden: int, classes: int):
        super().__init__()
        self.coarse = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in in_channels[:-1])
        self.finest = head(in_channels[-1], hidden, classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        first, *later = self.coarse
        logits = first(features[0])
        for layer, feature in zip(later, features[1:-1], strict=True):
            logits = resize(logits, feature) + layer(feature)
        return self.finest(features[-1]) + resize(logits, features[-1])
