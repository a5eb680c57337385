# SPDX-License-Identifier: Apache-2.0
"""The detector's features: as its authors' graph makes them, and as both branches see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from instance_flow.structures import ModelError
from instance_flow_training.config import ConfigError, InitConfig, load_config
from instance_flow_training.network.detector import YoloxNano
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.weights.initialise import initialise
from instance_flow_training.weights.yolox import take_yolox

TINY = load_config(Path(__file__).parents[1] / "tiny.toml", []).model
CONFIG = replace(TINY, detector="yolox_nano", object_tokens=16)


def convolutions() -> list[nn.Conv2d]:
    """Those of a fresh network, in the order in which they run."""
    order: list[nn.Conv2d] = []
    network = YoloxNano()
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(lambda part, _: order.append(part))
    network(torch.zeros(1, 3, 64, 64))
    return order


def write(path: Path, tensors: list[tuple[Tensor, Tensor]]) -> Path:
    """A file of convolutions as YOLOX exports them: numbers for names, and last layers in between."""
    nodes, initialisers = [], []
    for index, (weight, bias) in enumerate([*tensors, (torch.zeros(80, 64, 1, 1), torch.zeros(80))]):
        last = index == len(tensors)
        names = ["head.cls_preds.0.weight", "head.cls_preds.0.bias"] if last else [f"{2 * index}", f"{2 * index + 1}"]
        nodes.append(helper.make_node("Conv", ["x", *names], [f"y{index}"]))
        initialisers += [
            numpy_helper.from_array(t.detach().numpy(), n) for n, t in zip(names, (weight, bias), strict=True)
        ]
    nodes.insert(3, nodes.pop())
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12, 8, 8])
    onnx.save(helper.make_model(helper.make_graph(nodes, "yolox", [value], [], initialisers)), str(path))
    return path


def stem_of_patches() -> Tensor:
    return torch.randn(16, 12, 3, 3, generator=torch.Generator().manual_seed(1))


def file_tensors() -> list[tuple[Tensor, Tensor]]:
    own = convolutions()
    tensors = [(conv.weight, torch.randn(conv.out_channels)) for conv in own]
    return [(stem_of_patches(), tensors[0][1]), *tensors[1:]]


def test_the_file_s_convolutions_are_taken_in_their_order(tmp_path: Path) -> None:
    tensors, network = file_tensors(), YoloxNano()
    take_yolox(network, write(tmp_path / "nano.onnx", tensors))
    order: list[nn.Conv2d] = []
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(lambda part, _: order.append(part))
    network(torch.zeros(1, 3, 64, 64))
    for conv, (weight, bias) in list(zip(order, tensors, strict=True))[1:]:
        torch.testing.assert_close(conv.weight, weight)
        torch.testing.assert_close(conv.bias, bias)


def test_the_stem_says_what_patches_of_bgr_pixels_do(tmp_path: Path) -> None:
    network = YoloxNano()
    tensors = file_tensors()
    take_yolox(network, write(tmp_path / "nano.onnx", tensors))
    image = torch.randn(1, 3, 32, 64)
    bgr = image.flip(1)
    patches = torch.cat([bgr[..., y::2, x::2] for x in (0, 1) for y in (0, 1)], 1)
    torch.testing.assert_close(network.stem(image), F.silu(F.conv2d(patches, *tensors[0], padding=1)))


def test_both_branches_see_the_detector() -> None:
    network = InstanceFlowNet(CONFIG, 3).eval()
    picture = torch.randint(0, 255, (1, 64, 96, 3), dtype=torch.uint8)
    seen = network.pyramid(picture)
    assert network.detector is not None
    first_head = network.detector.heads[0].get_submodule("stem")
    levels = network.detector(picture.permute(0, 3, 1, 2).float())
    assert {s: tuple(x.shape[1:]) for s, x in levels.items()} == {
        s: (c, 64 // s, 96 // s) for s, c in network.detector.channels.items()
    }
    torch.testing.assert_close(seen.instance_deepest, levels[32])
    for skip, stride in zip(seen.skips, (16, 8, 4), strict=True):
        torch.testing.assert_close(skip[:, -levels[stride].shape[1] :], levels[stride])
    maps = network.frames(picture).maps
    for output in (maps.semantic, maps.center, maps.offset):
        network.zero_grad()
        output.square().sum().backward(retain_graph=True)
        assert all(p.grad is not None and p.grad.any() for p in first_head.parameters())


BAD = {
    "missing": (None, "cannot be read"),
    "text": (b"hello", "no ONNX file of YOLOX-Nano"),
    "other network": ([(torch.zeros(4, 3, 3, 3), torch.zeros(4))], "its 1 convolutions are not the"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_files_that_are_no_such_network(
    content: bytes | list[tuple[Tensor, Tensor]] | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "nano.onnx"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write(path, content)
    with pytest.raises(ModelError, match=words):
        take_yolox(YoloxNano(), path)


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="the dense fusion of the paper sees the backbone alone"):
        replace(TINY, detector="yolox_nano", object_tokens=0)
    with pytest.raises(ConfigError, match=r"init\.yolox needs model\.detector"):
        initialise(InstanceFlowNet(TINY, 2), ["a", "b"], InitConfig(yolox="nano.onnx"))
