# SPDX-License-Identifier: Apache-2.0
"""DeepLab V3 on MobileNetV2 with folded batch norm: where the network's weights begin, and a teacher of class maps.

The file holds torchvision's names for the backbone's convolutions, each with a bias in place of its batch norm, and
``aspp.image_pooling``, ``aspp.conv1x1``, ``aspp.project`` and ``classifier`` (21 classes of Pascal VOC). Pixels are
wanted as value / 128 - 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instance_flow.structures import ModelError
from instance_flow_training.network.backbone import MobileNetV2
from instance_flow_training.network.folding import fold_batch_norm
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.weights.checkpoint import read_tensors

CLASSES = (
    *("background", "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv"),
)
"""Of Pascal VOC in the file's order, under COCO's names."""
STRIDE = 16
_ALIKE = {"truck": ("car", "bus")}
"""Classes that the file lacks, and those that it takes them for."""


def load_folded(path: Path) -> dict[str, Tensor]:
    """The file's tensors in float32. Raises ModelError for a file that is missing, or is no such network."""
    state = {name: tensor.float() for name, tensor in read_tensors(path, "init.deeplab")[0].items()}
    layers = ("aspp.image_pooling", "aspp.conv1x1", "aspp.project", "classifier", "features.0.0")
    missing = [name for layer in layers for name in (f"{layer}.weight", f"{layer}.bias") if name not in state]
    if missing:
        raise ModelError(f"{path}: holds no {missing[0]!r}, so it is not DeepLab V3 with folded batch norm")
    rows = {layer: (state[f"{layer}.weight"].shape, state[f"{layer}.bias"].shape) for layer in layers}
    odd = [layer for layer, (weight, bias) in rows.items() if len(weight) != 4 or bias != weight[:1]]
    if rows["classifier"][1] != (len(CLASSES),):
        odd.append("classifier")
    if odd:
        shapes = " and ".join(str(tuple(shape)) for shape in rows[odd[0]])
        raise ModelError(f"{path}: {odd[0]!r} has shapes {shapes}, so it is not DeepLab V3 with folded batch norm")
    return state


@torch.no_grad()
def begin_with(network: InstanceFlowNet, path: Path, class_names: Sequence[str]) -> None:
    """Give the network the backbone, and the semantic branch the ASPP and the classifier: it begins by seeing as the
    file's network does. Decoder levels above the ASPP begin by adding nothing to its logits.

    Raises ModelError for a bad file, ValueError for a network of another shape.
    """
    config = network.config
    if config.backbone != "mobilenet_v2" or config.dilated_semantics or not config.aspp_logits:
        raise ValueError(
            "init.deeplab needs model.backbone = mobilenet_v2, dilated_semantics = false and aspp_logits = true"
        )
    state = load_folded(path)
    take_backbone(cast(MobileNetV2, network.backbone), state)
    aspp, head = network.semantic_decoder.aspp, network.semantic_head
    own, project = cast(nn.Sequential, aspp.branches[0]), cast(nn.Sequential, aspp.project)
    channels = cast(nn.Conv2d, own[0]).out_channels
    if channels != len(state["aspp.conv1x1.bias"]):
        raise ValueError(f"init.deeplab needs model.semantic_aspp_channels = {len(state['aspp.conv1x1.bias'])}")
    _take(
        cast(nn.Conv2d, own[0]), cast(nn.BatchNorm2d, own[1]), state["aspp.conv1x1.weight"], state["aspp.conv1x1.bias"]
    )
    aspp.pool.weight.copy_(state["aspp.image_pooling.weight"])
    cast(Tensor, aspp.pool.bias).copy_(state["aspp.image_pooling.bias"])
    # The file joins the global mean before the 1x1 convolution, our ASPP after it.
    joined = torch.cat(state["aspp.project.weight"].split(channels, 1)[::-1], 1)
    _take(cast(nn.Conv2d, project[0]), cast(nn.BatchNorm2d, project[1]), joined, state["aspp.project.bias"])
    deepest = cast(nn.Conv2d, head.coarse[0])
    for row, name in enumerate(("background", *class_names)):
        alike = [CLASSES.index(known) for known in _ALIKE.get(name, (name,)) if known in CLASSES]
        if alike:
            deepest.weight[row] = state["classifier.weight"][alike].mean(0)
            cast(Tensor, deepest.bias)[row] = state["classifier.bias"][alike].mean()
    for layer in (*head.coarse[1:], head.finest[1]):  # type: ignore[index]
        nn.init.zeros_(cast(Tensor, layer.weight))
        nn.init.zeros_(cast(Tensor, layer.bias))


class Teacher(nn.Module):
    """The whole network, frozen: soft class maps of any image, in the classes of a training set.

    Classes that only the teacher has are background.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        super().__init__()
        state = load_folded(path)
        self._rows = [CLASSES.index(name) if name in CLASSES else 0 for name in class_names]
        self.backbone = MobileNetV2(STRIDE)
        take_backbone(self.backbone, state)
        fold_batch_norm(self.backbone.eval())
        self.head = nn.ParameterDict({name.replace(".", "_"): t for name, t in state.items() if "features" not in name})
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002
        """Always in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor, stride: int, scales: Sequence[float] = (1.0,)) -> Tensor:
        """image: (B, H, W, 3) uint8 RGB, seen at each of the scales; their mean is taken. Returns probabilities
        (B, C + 1, H / stride, W / stride), 0 of classes that the teacher does not know."""
        height, width = image.shape[1] // stride, image.shape[2] // stride
        pixels = image.permute(0, 3, 1, 2).float() / 128 - 1
        seen = []
        for scale in scales:
            at_scale = pixels if scale == 1 else F.interpolate(pixels, scale_factor=scale, mode="bilinear")
            seen.append(upsample(self.logits(at_scale), height, width, stride * scale).softmax(1))
        theirs = torch.stack(seen).mean(0)
        nothing = torch.zeros_like(theirs[:, 0])
        known = [theirs[:, row] if row else nothing for row in self._rows]
        background = 1 - torch.stack([nothing, *known]).sum(0)
        return torch.stack([background, *known], 1)

    def logits(self, pixels: Tensor) -> Tensor:
        """Of the teacher's own classes: (B, 21, H / 16, W / 16); cell j lies at pixel 16j.

        pixels: (B, 3, H, W) RGB, value / 128 - 1.
        """
        deepest = self.backbone(pixels)[STRIDE]

        def layer(name: str, x: Tensor) -> Tensor:
            return F.conv2d(x, self.head[f"{name}_weight"], self.head[f"{name}_bias"])

        mean = F.relu(layer("aspp_image_pooling", deepest.mean((2, 3), keepdim=True)))
        own = F.relu(layer("aspp_conv1x1", deepest))
        x = F.relu(layer("aspp_project", torch.cat([mean.expand_as(own), own], 1)))
        return layer("classifier", x)


def upsample(logits: Tensor, height: int, width: int, stride: float) -> Tensor:
    """The teacher's logits, whose cell j lies at pixel 16j, on cells of ``stride``: (B, C, height, width)."""
    rows, columns = (
        (2 * (torch.arange(n, device=logits.device) + 0.5) * stride - 1) / STRIDE / (cells - 1) - 1
        for n, cells in ((height, logits.shape[2]), (width, logits.shape[3]))
    )
    grid = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1)
    grid = grid.expand(len(logits), -1, -1, -1)
    return F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=True)


def take_backbone(backbone: MobileNetV2, state: dict[str, Tensor]) -> None:
    """Weights and biases as they are: batch norm only adds. Raises ModelError where a tensor does not fit."""
    for conv_name, conv, norm in _norms(backbone):
        weight, bias = state.get(f"{conv_name}.weight"), state.get(f"{conv_name}.bias")
        if weight is None or bias is None or weight.shape != conv.weight.shape:
            raise ModelError(f"the DeepLab file has no fitting {conv_name}.weight and .bias")
        _take(conv, norm, weight, bias)


def _take(conv: nn.Conv2d, norm: nn.BatchNorm2d, weight: Tensor, bias: Tensor) -> None:
    conv.weight.data.copy_(weight)
    norm.bias.data.copy_(bias)
    norm.weight.data.fill_(1.0)
    norm.running_mean.zero_()  # type: ignore[union-attr]
    norm.running_var.fill_(1.0 - norm.eps)  # type: ignore[union-attr]


def _norms(module: nn.Module, prefix: str = "") -> Iterable[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """Every convolution with the batch norm that follows it, by the convolution's name."""
    last: tuple[str, nn.Conv2d] | None = None
    for name, part in module.named_modules(prefix=prefix):
        if isinstance(part, nn.Conv2d):
            last = name, part
        elif isinstance(part, nn.BatchNorm2d) and last is not None:
            yield *last, part
            last = None
