# SPDX-License-Identifier: Apache-2.0
"""Weights with folded batch norm: as a teacher, and as the beginning of the network; made up here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from instance_flow.structures import ModelError
from instance_flow_training.config import ConfigError, InitConfig, load_config
from instance_flow_training.network.backbone import build_backbone
from instance_flow_training.network.decoder import resize
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.weights.deeplab import CLASSES, Teacher, begin_with, upsample
from instance_flow_training.weights.initialise import initialise

TINY = load_config(Path(__file__).parents[1] / "tiny.toml", []).model
CONFIG = replace(
    TINY, output_stride=16, dilated_semantics=False, aspp_logits=True, semantic_aspp_channels=8, pixel_mean=(128.0,) * 3
)
CONFIG = replace(CONFIG, pixel_scale=(128.0,) * 3)
NAMES = ["cat", "truck", "unicorn", "person"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the right names, its head 8 channels wide."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for name, part in build_backbone("mobilenet_v2", 16).named_modules():
        if isinstance(part, nn.Conv2d):
            state |= {f"{name}.weight": part.weight.detach(), f"{name}.bias": 0.1 * torch.randn(part.out_channels)}
    shapes = {"aspp.image_pooling": (8, 320), "aspp.conv1x1": (8, 320), "aspp.project": (8, 16), "classifier": (21, 8)}
    for name, shape in shapes.items():
        state |= {f"{name}.weight": torch.randn(*shape, 1, 1) / 4, f"{name}.bias": torch.randn(shape[0])}
    path = tmp_path_factory.mktemp("deeplab") / "weights.safetensors"
    save_file({name: tensor.half() for name, tensor in state.items()}, path)
    return path


def images() -> torch.Tensor:
    return torch.randint(0, 255, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_network_begins_by_seeing_as_the_teacher_does(weights: Path) -> None:
    """At the teacher's stride. At 32 the same weights see cells between the teacher's."""
    network = InstanceFlowNet(replace(CONFIG, output_stride=16), len(NAMES)).eval()
    begin_with(network, weights, NAMES)
    with torch.no_grad():
        said = network.frames(images()).maps.semantic
        theirs = Teacher(weights, NAMES).logits(images().permute(0, 3, 1, 2).float() / 128 - 1)
    rows = {0: ["background"], 1: ["cat"], 2: ["car", "bus"], 4: ["person"]}  # a truck is a little of both
    for row, known in rows.items():
        wanted = theirs[:, [CLASSES.index(name) for name in known]].mean(1, keepdim=True)
        # As the levels of the decoder are summed, in two steps.
        wanted = resize(resize(wanted, said[..., ::2, ::2]), said)
        torch.testing.assert_close(said[:, [row]], wanted, atol=1e-4, rtol=1e-4)


def test_the_teacher_sees_the_same_places_at_every_scale(weights: Path) -> None:
    for scale in (1.0, 2.0):
        # Cells that say at which pixel of the enlarged picture they lie.
        ramp = torch.arange(0, round(128 * scale) + 1, 16.0).expand(1, 1, 3, -1)
        said = upsample(ramp, 4, 32, 4 * scale)[0, 0, 0] / scale
        torch.testing.assert_close(said, torch.arange(32) * 4 + 1.5, atol=0.5, rtol=0)
    picture, teacher = images(), Teacher(weights, NAMES)
    both = teacher(picture, 4, [1.0, 2.0])
    torch.testing.assert_close(both, (teacher(picture, 4, [1.0]) + teacher(picture, 4, [2.0])) / 2)


def test_the_teacher_says_nothing_of_classes_that_it_does_not_know(weights: Path) -> None:
    soft = Teacher(weights, NAMES).train()(images(), 4)
    assert soft.shape == (2, 5, 16, 24)
    assert not soft[:, 2:4].any()
    torch.testing.assert_close(soft.sum(1), torch.ones(2, 16, 24))


def test_files_and_networks_that_do_not_fit(weights: Path, tmp_path: Path) -> None:
    network = InstanceFlowNet(CONFIG, len(NAMES))
    with pytest.raises(ModelError, match="no such file"):
        begin_with(network, tmp_path / "none.safetensors", NAMES)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelError, match="not a readable"):
        begin_with(network, tmp_path / "text.safetensors", NAMES)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not DeepLab V3"):
        begin_with(network, tmp_path / "other.safetensors", NAMES)
    for change in ({"dilated_semantics": True}, {"semantic_aspp_channels": 16}):
        with pytest.raises(ConfigError, match=r"init\.deeplab needs"):
            initialise(InstanceFlowNet(replace(CONFIG, **change), 4), NAMES, InitConfig(deeplab=str(weights)))
