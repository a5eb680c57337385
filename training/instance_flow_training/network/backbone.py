# SPDX-License-Identifier: Apache-2.0
"""Backbones that return a feature pyramid. Parameter names equal torchvision's, so that weights from a file load.

Each backbone has ``channels``: a dict from the stride of a pyramid level to its channels, and ``forward`` returns a
dict from the same strides to features. With ``output_stride=16`` the last stage is dilated instead of strided, and the
pyramid ends at stride 16 (DeepLab V3+).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; the stride sits in the 3x3 as in torchvision (ResNet v1.5)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet50(nn.Module):
    """ResNet-50 without its classifier."""

    def __init__(self, output_stride: int = 16):
        super().__init__()
        last_stride, last_dilation = (1, 2) if output_stride == 16 else (2, 1)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = self._stage(64, 64, 3, 1, 1)
        self.layer2 = self._stage(256, 128, 4, 2, 1)
        self.layer3 = self._stage(512, 256, 6, 2, 1)
        self.layer4 = self._stage(1024, 512, 3, last_stride, last_dilation)
        self.channels = {4: 256, 8: 512, 16: 1024, 32: 2048} if output_stride == 32 else {4: 256, 8: 512, 16: 2048}

    @staticmethod
    def _stage(in_channels: int, width: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
        # The first block keeps the dilation of the stage before: then a dilated stage says, at every other position,
        # exactly what the strided one would, and weights trained either way fit.
        first = Bottleneck(in_channels, width, stride)
        rest = [Bottleneck(width * Bottleneck.expansion, width, 1, dilation) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        c4 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        c8 = self.layer2(c4)
        c16 = self.layer3(c8)
        deepest = self.layer4(c16)
        return {4: c4, 8: c8, 16: c16, 32: deepest} if 32 in self.channels else {4: c4, 8: c8, 16: deepest}


class LateConv2d(nn.Conv2d):
    """A strided 3x3 convolution that pads behind its input instead of around it.

    Its cell j lies at 2j + 1 of its input, where one that pads around lies at 2j. As the last strided one, it lets the
    deepest cells lie at s * j + s / 2 of the image, s being the output stride: in the middle of what they stand for.
    Weights of a network that pads around fit, since everything after it sees the same grid, moved.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _conv_bn_relu6(
    in_channels: int, out_channels: int, kernel: int, stride: int, groups: int, dilation: int = 1, late: bool = False
) -> nn.Module:
    padding = (kernel - 1) // 2 * dilation
    kind = LateConv2d if late else nn.Conv2d
    conv = kind(in_channels, out_channels, kernel, stride, padding, dilation=dilation, groups=groups, bias=False)
    # Not in place: its gradient needs its input, so torch would copy that first.
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project; with a shortcut where the shapes allow it."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expansion: int, dilation: int = 1, late: bool = False
    ):
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv_bn_relu6(in_channels, hidden, 1, 1, 1)]
        layers += [
            _conv_bn_relu6(hidden, hidden, 3, stride, hidden, dilation, late),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 up to its last bottleneck; the 1280-channel layer and the classifier are left out."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    """expansion, channels, blocks, stride of each stage."""

    def __init__(self, output_stride: int = 32):
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, 32, 3, 2, 1)]
        channels, stride_so_far, dilation = 32, 2, 1
        self.taps: dict[int, int] = {}
        self.channels: dict[int, int] = {}
        for expansion, out_channels, blocks, stage_stride in self.STAGES:
            for block in range(blocks):
                stride = stage_stride if block == 0 else 1
                dilated = stride == 2 and stride_so_far == output_stride
                if dilated:
                    stride = 1
                if stride == 2:
                    stride_so_far *= 2
                late = stride == 2 and stride_so_far == output_stride
                layers.append(InvertedResidual(channels, out_channels, stride, expansion, dilation, late))
                # As in ResNet50, from the next block on.
                dilation = 2 if dilated else dilation
                channels = out_channels
                self.taps[stride_so_far] = len(layers) - 1
                self.channels[stride_so_far] = channels
        self.features = nn.ModuleList(layers)
        del self.taps[2], self.channels[2]

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        by_layer = {layer: stride for stride, layer in self.taps.items()}
        pyramid = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in by_layer:
                pyramid[by_layer[index]] = x
        return pyramid


BACKBONES: dict[str, Callable[[int], ResNet50 | MobileNetV2]] = {"resnet50": ResNet50, "mobilenet_v2": MobileNetV2}
OUTPUT_STRIDES = (16, 32)


def build_backbone(name: str, output_stride: int) -> ResNet50 | MobileNetV2:
    """Raises ValueError for an unknown name or an output stride other than 16 or 32."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride is {output_stride}; it must be 16 or 32")
    return BACKBONES[name](output_stride)


def load_backbone_weights(backbone: nn.Module, state: dict[str, Tensor]) -> None:
    """Load torchvision-named weights; classifier and last layers that this backbone lacks are ignored.

    Raises ValueError when a tensor of this backbone is missing from ``state`` or has another shape.
    """
    own = backbone.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(name for name in own if name not in state and name not in optional)
    if missing:
        raise ValueError(f"{len(missing)} backbone tensors are not in the weights file, first {missing[0]!r}")
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise ValueError(f"{name!r} has shape {tuple(state[name].shape)}, the network needs {tuple(own[name].shape)}")
    backbone.load_state_dict({k: state[k].to(own[k].dtype) if k in state else own[k] for k in own})
