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
from instance_flow_training.network.detector import NEVER, DetectionEvidence, Detections, YoloxNano
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.weights.initialise import initialise
from instance_flow_training.weights.yolox import take_yolox

TINY = load_config(Path(__file__).parents[1] / "tiny.toml", []).model
CONFIG = replace(TINY, detector="yolox_nano", object_tokens=16)


CLASS_NAMES = ["cat", "unicorn", "person"]
LAST = {"cls": 80, "reg": 4, "obj": 1}


def convolutions(network: YoloxNano) -> list[nn.Conv2d]:
    """Those of its features, in the order in which they run."""
    order: list[nn.Conv2d] = []
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(lambda part, _: order.append(part))
    network(torch.zeros(1, 3, 64, 64))
    return order


def last_layers(without: str = "") -> dict[str, Tensor]:
    """Of every level: row r of classes says r + level / 10, the middle of a box (1, 2), an object 5."""
    tensors = {}
    for kind, rows in LAST.items():
        for level in range(3):
            name = f"head.{kind}_preds.{level}"
            tensors[f"{name}.weight"] = torch.zeros(rows, 64, 1, 1)
            bias = {"cls": torch.arange(80) + level / 10, "reg": torch.arange(1.0, 5.0), "obj": torch.tensor([5.0])}
            tensors[f"{name}.bias"] = bias[kind].float()
    return {name: tensor for name, tensor in tensors.items() if not without or without not in name}


def write(path: Path, tensors: list[tuple[Tensor, Tensor]], last: dict[str, Tensor] | None = None) -> Path:
    """A file of convolutions as YOLOX exports them: numbers for names, and last layers in between."""
    rows = [({f"{2 * k}": weight, f"{2 * k + 1}": bias}) for k, (weight, bias) in enumerate(tensors)]
    last = last_layers() if last is None else last
    names = [name.removesuffix(".weight") for name in last if name.endswith(".weight")]
    rows[3:3] = [{f"{name}.{part}": last[f"{name}.{part}"] for part in ("weight", "bias")} for name in names]
    nodes = [helper.make_node("Conv", ["x", *row], [f"y{k}"]) for k, row in enumerate(rows)]
    initialisers = [numpy_helper.from_array(t.detach().numpy(), n) for row in rows for n, t in row.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12, 8, 8])
    onnx.save(helper.make_model(helper.make_graph(nodes, "yolox", [value], [], initialisers)), str(path))
    return path


def stem_of_patches() -> Tensor:
    return torch.randn(16, 12, 3, 3, generator=torch.Generator().manual_seed(1))


def file_tensors() -> list[tuple[Tensor, Tensor]]:
    own = convolutions(YoloxNano(3))
    tensors = [(conv.weight, torch.randn(conv.out_channels)) for conv in own]
    return [(stem_of_patches(), tensors[0][1]), *tensors[1:]]


def test_the_file_s_convolutions_are_taken_in_their_order(tmp_path: Path) -> None:
    tensors, network = file_tensors(), YoloxNano(3)
    take_yolox(network, write(tmp_path / "nano.onnx", tensors), CLASS_NAMES)
    for conv, (weight, bias) in list(zip(convolutions(network), tensors, strict=True))[1:]:
        torch.testing.assert_close(conv.weight, weight)
        torch.testing.assert_close(conv.bias, bias)


def test_the_stem_says_what_patches_of_bgr_pixels_do(tmp_path: Path) -> None:
    network = YoloxNano(3)
    tensors = file_tensors()
    take_yolox(network, write(tmp_path / "nano.onnx", tensors), CLASS_NAMES)
    image = torch.randn(1, 3, 32, 64)
    bgr = image.flip(1)
    patches = torch.cat([bgr[..., y::2, x::2] for x in (0, 1) for y in (0, 1)], 1)
    torch.testing.assert_close(network.stem(image), F.silu(F.conv2d(patches, *tensors[0], padding=1)))


def test_last_layers_are_matched_by_class_name(tmp_path: Path) -> None:
    network = YoloxNano(3)
    take_yolox(network, write(tmp_path / "nano.onnx", file_tensors()), CLASS_NAMES)
    for level in range(3):
        layers = network.class_layers[level], network.object_layers[level]
        biases = [layer.get_parameter("bias").tolist() for layer in layers]
        assert biases == [pytest.approx([15 + level / 10, NEVER, level / 10]), [5.0]]
        assert network.center_layers[level].get_parameter("bias").tolist() == [1.0, 2.0]


def test_detections_add_what_they_say_where_they_say_it() -> None:
    found = Detections(torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 4, 6), torch.zeros(1, 1, 4, 6))
    # One cell of stride 8 is sure of class 1 and of a middle at pixel (20, 30).
    found.classes[0, 1, 2, 3] = 1.0
    found.weight[0, 0, 2, 3] = 1.0
    found.center[0, :, 2, 3] = torch.tensor([20.0, 30.0])
    evidence = DetectionEvidence()
    evidence.gains.data = torch.tensor([1.0, 1.0, 1.0])
    semantic, center, offset = evidence(found)
    assert (semantic.shape, center.shape, offset.shape) == ((1, 3, 8, 12), (1, 8, 12), (1, 2, 8, 12))
    assert semantic[0, :2].abs().max() == 0
    torch.testing.assert_close(semantic[0, 2], center[0])
    assert set(map(tuple, (center[0] == center.max()).nonzero().tolist())) == {(4, 6), (4, 7), (5, 6), (5, 7)}
    assert center[0, 0].abs().max() == offset[0, :, 0].abs().max() == 0
    # From cell (5, 7), whose middle is pixel (21.5, 29.5), to (20, 30); a little less, since it is not quite sure.
    weight = float(center[0, 5, 7].detach())
    torch.testing.assert_close(offset[0, :, 5, 7], torch.tensor([-1.5, 0.5]) / 4 * weight / (weight + 0.05))


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
    "other network": ([(torch.zeros(4, 3, 3, 3), torch.zeros(4))] * 4, "its 4 convolutions are not the"),
    "without its last layers": ("reg_preds.1", "its layer head.reg_preds.1 is missing"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_files_that_are_no_such_network(
    content: bytes | str | list[tuple[Tensor, Tensor]] | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "nano.onnx"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        write(path, file_tensors(), last_layers(content))
    elif content is not None:
        write(path, content)
    with pytest.raises(ModelError, match=words):
        take_yolox(YoloxNano(3), path, CLASS_NAMES)


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="the dense fusion of the paper sees the backbone alone"):
        replace(TINY, detector="yolox_nano", object_tokens=0)
    with pytest.raises(ConfigError, match=r"init\.yolox needs model\.detector"):
        initialise(InstanceFlowNet(TINY, 2), ["a", "b"], InitConfig(yolox="nano.onnx"))
