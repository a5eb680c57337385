# SPDX-License-Identifier: Apache-2.0
"""The network: shapes, weights from files, and the two ways through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from instance_flow_training.config import load_config
from instance_flow_training.losses import association_loss
from instance_flow_training.network.backbone import build_backbone, load_backbone_weights
from instance_flow_training.network.decoder import resize
from instance_flow_training.network.dense_flow import DenseFlow
from instance_flow_training.network.folding import fold_batch_norm
from instance_flow_training.network.fusion import FUSIONS, TemporalContextFusion
from instance_flow_training.network.model import InstanceFlowNet, ModelConfig

SMALL = load_config(Path(__file__).parents[1] / "tiny.toml", []).model
PAPER = {"unit_keys": False, "attended_offset": False, "fusion_context": False}
NETWORKS = {
    "mobilenet_v2, stride 32": (SMALL, (16, 8)),
    "mobilenet_v2, stride 16": (ModelConfig(**{**vars(SMALL), "output_stride": 16}), (8, 8)),
    "resnet50, stride 16": (ModelConfig(), (16, 16)),
    "resnet50, stride 32, separable": (ModelConfig(output_stride=32, dense_aspp=False), (16, 16)),
    "joined, convolutions": (ModelConfig(**{**vars(SMALL), "fusion": "concat_convs"}), (16, 8)),
    "joined, ASPPs": (ModelConfig(**{**vars(SMALL), "fusion": "concat_aspp"}), (16, 8)),
    "affinity": (ModelConfig(**{**vars(SMALL), "flow": "affinity"}), (16, 8)),
    "as in the paper": (ModelConfig(**{**vars(SMALL), **PAPER}), (16, 8)),
}


@pytest.mark.parametrize(("config", "strides"), NETWORKS.values(), ids=NETWORKS)
def test_shapes_of_the_deployed_graph(config: ModelConfig, strides: tuple[int, int]) -> None:
    network = InstanceFlowNet(config, 5).eval()
    assert network.inter.feature_strides == strides
    channels = config.value_channels + (config.key_channels if config.fusion == "tcf" else 0)
    assert network.inter.cached_channels == channels
    for references in (0, 1, 3):
        cached = [torch.zeros(references, channels, 64 // s, 96 // s) for s in strides]
        with torch.no_grad():
            outputs = network(torch.zeros(1, 64, 96, 3, dtype=torch.uint8), *cached)
        features = [(1, channels, 64 // s, 96 // s) for s in strides]
        expected = [(6, 16, 24), (16, 24), (2, 16, 24), (references, 2, 16, 24), *features]
        assert [tuple(output.shape) for output in outputs] == expected


BRANCHES: dict[str, dict[str, Any]] = {**{name: {"fusion": name} for name in FUSIONS}, "tcf, as in the paper": PAPER}


@pytest.mark.parametrize("changes", BRANCHES.values(), ids=BRANCHES)
def test_cached_references_equal_references_seen_together(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = InstanceFlowNet(ModelConfig(**{**vars(SMALL), **changes}), 5).eval()
    images = torch.randint(0, 255, (3, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        frames = network.frames(images)
        together, attentions, _ = network.inter(frames, network.inter.features(frames), torch.tensor([2, 2, 2]))
        cached = [network.inter.features(network.frames(image[None])) for image in images]
        streamed = network(images[2:], *(torch.cat([c[level] for c in cached]) for level in range(2)))
    torch.testing.assert_close(streamed[3], together, rtol=1e-4, atol=1e-4)
    assert len(attentions) == (2 if network.config.fusion == "tcf" else 0)
    for attention in attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:2]))


@pytest.mark.parametrize("unit_keys", [True, False])
def test_keys_are_of_unit_length_or_as_in_a_standard_product(unit_keys: bool) -> None:
    torch.manual_seed(0)
    fusion = TemporalContextFusion(6, stride=8, pool=2, key_channels=4, value_channels=3, unit_keys=unit_keys)
    target, other = 5 * torch.randn(1, 6, 4, 6), 5 * torch.randn(2, 6, 4, 6)
    cached = fusion.features(other)
    attention = fusion(target, cached).attention
    query, key = fusion.query(target)[0].flatten(1).T, fusion.key(F.avg_pool2d(other, 2)).flatten(2)
    if unit_keys:
        query, key = F.normalize(query, dim=1) * torch.e**3, F.normalize(key, dim=1)
    else:
        query = query / 2  # the root of 4 channels
        assert "log_temperature" not in fusion.state_dict()
    torch.testing.assert_close(attention, torch.softmax(query @ key, -1))


@pytest.mark.parametrize("attended", [True, False])
def test_attended_offset_is_all_that_is_said_before_the_head_learns(attended: bool) -> None:
    torch.manual_seed(0)
    network = InstanceFlowNet(ModelConfig(**{**vars(SMALL), "attended_offset": attended}), 5).eval()
    branch = network.inter
    assert isinstance(branch, DenseFlow)
    for parameter in branch.head[-1].parameters():  # type: ignore[index]
        parameter.data.zero_()
    with torch.no_grad():
        frames = network.frames(torch.randint(0, 255, (1, 64, 96, 3), dtype=torch.uint8))
        cached = branch.features(frames)
        said = branch(frames, cached).reference_offset
        fused = branch.fusions[1](branch._contexts(frames)[1], cached[1])
    assert fused.features.shape[1] == SMALL.value_channels + 2 * attended
    if attended:
        assert said.abs().max() > 1  # attention is spread over the picture, so its mean is far from most pixels
        torch.testing.assert_close(said, resize(fused.attended_offset, said) / 4)
    else:
        assert fused.attended_offset is None
        assert not said.any()


TORCHVISION_NAMES = {
    "resnet50": ("layer1.0.downsample.0.weight", "layer4.2.bn3.running_var", 318),
    "mobilenet_v2": ("features.0.0.weight", "features.17.conv.3.running_var", 306),
}


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_backbones_have_torchvisions_names(name: str) -> None:
    first, second, count = TORCHVISION_NAMES[name]
    state = build_backbone(name, 32).state_dict()
    assert first in state
    assert second in state
    assert len(state) == count


def test_weights_load_and_a_wrong_file_is_refused() -> None:
    source, target = build_backbone("mobilenet_v2", 32), build_backbone("mobilenet_v2", 16)
    state = source.state_dict() | {"classifier.1.weight": torch.zeros(1)}
    load_backbone_weights(target, state)
    torch.testing.assert_close(target.state_dict()["features.3.conv.0.0.weight"], state["features.3.conv.0.0.weight"])
    with pytest.raises(ValueError, match="not in the weights file"):
        load_backbone_weights(target, {})
    state["features.0.0.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="has shape"):
        load_backbone_weights(target, state)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_batch_norm_is_folded_everywhere(name: str) -> None:
    """Outside of sequences, too: what is left of it would keep a compact file from being half as large."""
    torch.manual_seed(0)
    backbone, x = build_backbone(name, 32).eval(), torch.randn(1, 3, 32, 64)
    for part in backbone.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.get_buffer("running_mean"), std=0.1)
            nn.init.uniform_(part.get_buffer("running_var"), 0.5, 2.0)
    with torch.no_grad():
        before = backbone(x)
        fold_batch_norm(backbone)
        after = backbone(x)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in backbone.modules())
    for stride, level in before.items():
        torch.testing.assert_close(after[stride], level, rtol=1e-3, atol=1e-4)


def test_bad_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'vgg'"):
        build_backbone("vgg", 32)
    with pytest.raises(ValueError, match="must be 16 or 32"):
        build_backbone("resnet50", 8)
    with pytest.raises(ValueError, match="fusion is 'sum'; it must be one of tcf"):
        ModelConfig(fusion="sum")
    with pytest.raises(ValueError, match="flow is 'optical'; it must be one of offset, affinity"):
        ModelConfig(flow="optical")


def test_association_rewards_attention_on_the_own_object() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[0, :2, :2], labels[0, 2:, 2:] = 1, 2
    reference = labels.flip(2)  # object 1 now top right, object 2 bottom left
    own = torch.zeros(1, 16, 16)
    for y in range(4):
        for x in range(4):
            own[0, y * 4 + x, y * 4 + (3 - x)] = 1
    other = own.roll(8, dims=2)
    assert float(association_loss(own, labels, reference, 1, 2)) == pytest.approx(0, abs=1e-6)
    assert float(association_loss(other, labels, reference, 1, 2)) > 5
    gone = torch.zeros_like(reference)
    assert float(association_loss(other, labels, gone, 1, 2)) == 0
