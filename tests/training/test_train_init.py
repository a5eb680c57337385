# SPDX-License-Identifier: Apache-2.0
"""The weights that a run begins with: parts of an earlier checkpoint, class rows by name, the copied decoder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mutants
import pytest
import torch
from mutants import OK, REFUSED
from safetensors.torch import save_file
from torch import nn

from instance_flow.structures import ModelError
from instance_flow_training.config import ConfigError, TrainConfig, load_config
from instance_flow_training.loop.step import forward_maps
from instance_flow_training.network.dense_flow import DenseFlow
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.weights.checkpoint import FORMAT, load_network, save_checkpoint, save_weights
from instance_flow_training.weights.deeplab import load_folded
from instance_flow_training.weights.initialise import build_network, copy_intra_to_inter, take_checkpoint

TINY = Path(__file__).parents[1] / "tiny.toml"
COCO = ("person", "tennis_racket", "zebra")


def config_of(*overrides: str) -> TrainConfig:
    return load_config(TINY, list(overrides))


def save(path: Path, network: InstanceFlowNet, class_names: tuple[str, ...]) -> Path:
    model = {"backbone": network.config.backbone, "output_stride": network.config.output_stride}
    state = {"step": 7, "network": network.state_dict(), "config": {"model": model}, "class_names": list(class_names)}
    save_checkpoint(path, state)
    return path


def test_damaged_checkpoints_are_used_or_refused_in_a_sentence(tmp_path: Path) -> None:
    """The first of ``tests/mutants.py``."""
    outcome = mutants.run("checkpoints", tmp_path, 7, lambda number: number < 12)
    assert outcome.failures == []
    assert outcome.counts[OK] + outcome.counts[REFUSED] == 12
    assert min(outcome.counts[OK], outcome.counts[REFUSED]) > 0


@pytest.fixture
def pretrained(tmp_path: Path) -> tuple[InstanceFlowNet, Path]:
    network = build_network(config_of("seed=1"), len(COCO))
    return network, save(tmp_path / "coco.pt", network, COCO)


def test_class_rows_are_matched_by_name(pretrained: tuple[InstanceFlowNet, Path]) -> None:
    theirs, path = pretrained
    ours = build_network(config_of("seed=2"), 5)
    fresh = {name: tensor.clone() for name, tensor in ours.semantic_head.state_dict().items()}
    take_checkpoint(ours, ("giant_panda", "Zebra", "skateboard", "person", "tennis racket"), path)
    for name, tensor in ours.semantic_head.state_dict().items():
        source = theirs.semantic_head.state_dict()[name]
        if tensor.ndim and len(source) == len(COCO) + 1:
            expected = [source[0], fresh[name][1], source[3], fresh[name][3], source[1], source[2]]
            assert torch.equal(tensor, torch.stack(expected)), name
        else:
            assert torch.equal(tensor, source), name


def test_the_same_number_of_classes_in_another_order(pretrained: tuple[InstanceFlowNet, Path]) -> None:
    theirs, path = pretrained
    ours = build_network(config_of("seed=2"), len(COCO))
    take_checkpoint(ours, COCO[::-1], path)
    bias, source = (n.semantic_head.get_parameter("finest.1.bias") for n in (ours, theirs))
    assert torch.equal(bias, source[[0, 3, 2, 1]])


def test_what_fits_is_taken_and_the_rest_named(
    pretrained: tuple[InstanceFlowNet, Path], caplog: pytest.LogCaptureFixture
) -> None:
    theirs, path = pretrained
    ours = build_network(config_of("seed=2", "model.fusion=concat_convs"), len(COCO))
    with caplog.at_level(logging.INFO):
        take_checkpoint(ours, COCO, path)
    [line] = caplog.messages
    assert "took backbone, semantic_decoder, semantic_head, intra_decoder" in line
    assert "fresh: inter.fusions, inter.decoder" in line
    assert "3 of 3 classes known by name" in line
    for name, tensor in ours.backbone.state_dict().items():
        assert torch.equal(tensor, theirs.backbone.state_dict()[name]), name


def test_another_backbone_does_not_fit(pretrained: tuple[InstanceFlowNet, Path]) -> None:
    ours = build_network(config_of("model.output_stride=16", "model.backbone=resnet50"), len(COCO))
    with pytest.raises(ConfigError, match=r"coco\.pt does not fit: its backbone is mobilenet_v2 of output stride 32"):
        take_checkpoint(ours, COCO, pretrained[1])


def test_shipped_weights_are_trained_on_from(tmp_path: Path) -> None:
    """Half precision, with all that is needed to know what they are."""
    config = config_of("seed=1", "model.object_tokens=16")
    theirs, ours = build_network(config, len(COCO)), build_network(config_of("seed=2", "model.object_tokens=16"), 3)
    save_weights(tmp_path / "weights.safetensors", theirs, config, COCO, 70)
    take_checkpoint(ours, COCO, tmp_path / "weights.safetensors")
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-3, atol=1e-3, msg=name)
    network, found, class_names = load_network(tmp_path / "weights.safetensors")
    assert (found, tuple(class_names)) == (config, COCO)
    assert network.inter.tokens == 16


@pytest.mark.parametrize(
    ("name", "message"),
    [("text.safetensors", "not a readable"), ("backbone.safetensors", "belong in model.backbone_weights")],
)
def test_other_files_of_weights(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"x": torch.zeros(1)}, tmp_path / "backbone.safetensors")
    with pytest.raises(ModelError, match=message):
        take_checkpoint(build_network(config_of(), len(COCO)), COCO, tmp_path / name)


def state_of(network: InstanceFlowNet, config: TrainConfig) -> dict[str, Any]:
    about = {"step": 7, "config": asdict(config), "class_names": list(COCO)}
    return {"format": FORMAT, **about, "network": network.state_dict()}


def without(*path: str) -> Callable[[dict[str, Any]], object]:
    def change(state: dict[str, Any]) -> None:
        for name in path[:-1]:
            state = state[name]
        del state[path[-1]]

    return change


NAME = "semantic_head.finest.1.weight"
DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no format": (without("format"), "not a checkpoint of instance-flow"),
    "format of another type": (lambda s: s.update(format=torch.zeros(9)), "a checkpoint of format tensor"),
    "no configuration": (without("config"), "damaged: its config is missing, or is not"),
    "configuration is a list": (lambda s: s.update(config=[1]), "damaged: its config is"),
    "unknown setting": (lambda s: s["config"].update(colour=1), "unknown key 'colour'"),
    "setting of another type": (lambda s: s["config"]["model"].update(skip_channels="many"), "model.skip_channels is"),
    "table that is a number": (lambda s: s["config"].update(model=3), "model is 3; it must be a table"),
    "unknown backbone": (lambda s: s["config"]["model"].update(backbone="resnet-1"), "resnet-1"),
    "no channels": (lambda s: s["config"]["model"].update(skip_channels=0), "damaged"),
    "channels below 0": (lambda s: s["config"]["model"].update(instance_channels=-8), "damaged"),
    "channels for all memory": (lambda s: s["config"]["model"].update(instance_channels=2**40), "damaged"),
    "other channels": (lambda s: s["config"]["model"].update(head_channels=2**13), "but its configuration needs"),
    "no classes": (without("class_names"), "its class_names is missing"),
    "classes are numbers": (lambda s: s.update(class_names=[1, 2]), "its class_names is missing, or is not"),
    "another number of classes": (lambda s: s["class_names"].append("more"), "but its configuration needs"),
    "no network": (without("network"), "its network is missing"),
    "network is a tensor": (lambda s: s.update(network=torch.zeros(3)), "its network is missing, or is not"),
    "a tensor is missing": (without("network", NAME), f"differ in 1 tensors, such as '{NAME}'"),
    "a tensor too many": (lambda s: s["network"].update(more=torch.zeros(1)), "differ in 1 tensors, such as 'more'"),
    "a tensor is a number": (lambda s: s["network"].update({NAME: 3}), "its network is missing, or is not"),
    "a tensor of another shape": (lambda s: s["network"].update({NAME: torch.zeros(2)}), f"'{NAME}' is .*needs"),
    "a tensor of another type": (
        lambda s: s["network"].update({NAME: s["network"][NAME].to(torch.int8)}),
        f"'{NAME}' is .*int8.*float32",
    ),
    "no step": (without("step"), "its step is missing"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    config = config_of()
    state = state_of(InstanceFlowNet(config.model, len(COCO)), config)
    change(state)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises((ModelError, ConfigError), match=message) as caught:
        load_network(tmp_path / "checkpoint.pt")
    assert (str(tmp_path) in str(caught.value), str(caught.value).isprintable()) == (True, True)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "not a checkpoint of instance-flow"),
        ('{"format": 2}', "its step is missing"),
    ],
    ids=["half", "without end", "list", "nothing else"],
)
def test_weights_that_say_nonsense_of_themselves(tmp_path: Path, about: str, message: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors", {"instance_flow": about})
    with pytest.raises(ModelError, match=message):
        load_network(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64])
def test_one_wording_for_a_file_of_weights_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    for read in (load_network, load_folded, read_backbone):
        with pytest.raises(ModelError, match=r"damaged.safetensors: not a readable file of weights"):
            read(path)


def read_backbone(path: Path) -> object:
    return build_network(config_of(f"model.backbone_weights={path}"))


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        take_checkpoint(build_network(config_of(), len(COCO)), COCO, tmp_path / "none.pt")


def test_copied_inter_decoder_begins_as_the_intra_decoder() -> None:
    """Without what the fusion adds, it says of a pixel in any reference what the intra-frame decoder says of it."""
    network = build_network(config_of("model.fusion=concat_convs")).eval()
    images = torch.randint(0, 255, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = forward_maps(network, images, 2)
        assert isinstance(network.inter, DenseFlow)
        assert not torch.allclose(before.reference_offset, before.intra.offset[1:], atol=0.1)
        copy_intra_to_inter(network)
        for project in network.inter.decoder.project[:2]:
            weight = project.get_parameter("0.weight")
            weight[:, weight.shape[0] :] = 0
        after = forward_maps(network, images, 2)
    assert torch.equal(after.intra.offset, before.intra.offset)
    torch.testing.assert_close(after.reference_offset, after.intra.offset[1:], rtol=1e-3, atol=1e-3)


WEIGHTS: dict[str, tuple[Callable[[Path, nn.Module], object], str]] = {
    "safetensors": (lambda path, net: save_file(net.state_dict(), path), ""),
    "a state dict": (lambda path, net: torch.save(net.state_dict(), path), ""),
    "a state dict of torch before 1.6": (
        lambda path, net: torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False),
        "",
    ),
    "a state dict within more": (
        lambda path, net: torch.save({"state_dict": net.state_dict()}, path),
        "holds more than tensors by name; save the network's state_dict() alone",
    ),
    "a whole network": (lambda path, net: torch.save(net, path), "not a readable file of weights"),
    "no weights": (lambda path, _: path.write_text("see the web page"), "not a readable file of weights"),
    "an empty file": (lambda path, _: path.write_bytes(b""), "not a readable file of weights"),
    "another network": (
        lambda path, _: torch.save(nn.Linear(2, 2).state_dict(), path),
        "backbone tensors are not in the weights file",
    ),
}


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize(("write", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_of_a_backbone(
    tmp_path: Path, write: Callable[[Path, nn.Module], object], message: str, ending: str
) -> None:
    """Whatever the file's ending says."""
    path, theirs = tmp_path / f"weights{ending}", build_network(config_of("seed=3")).backbone
    write(path, theirs)
    config = config_of(f"model.backbone_weights={path}")
    if not message:
        ours = build_network(config).backbone.state_dict()
        assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.items())
        return
    with pytest.raises((ConfigError, ModelError)) as caught:
        build_network(config)
    assert str(caught.value).startswith(f"model.backbone_weights: {path}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "a.pth")
    network = build_network(config_of())
    with pytest.raises(ModelError, match=r"a\.pth: not a checkpoint .* belong in model\.backbone_weights"):
        take_checkpoint(network, COCO, tmp_path / "a.pth")
