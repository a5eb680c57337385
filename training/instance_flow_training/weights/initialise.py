# SPDX-License-Identifier: Apache-2.0
"""The weights that a run begins with: a backbone's, an earlier run's, the intra decoder's for the inter decoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instance_flow.formats.foreign_text import shown
from instance_flow_training.config import ConfigError, InitConfig, TrainConfig
from instance_flow_training.network.backbone import load_backbone_weights
from instance_flow_training.network.dense_flow import DenseFlow
from instance_flow_training.network.model import OFFSET, InstanceFlowNet
from instance_flow_training.weights.checkpoint import load_checkpoint, read_tensors
from instance_flow_training.weights.deeplab import begin_with
from instance_flow_training.weights.yolox import take_yolox
from instance_flow_training.worlds.synthetic import CLASS_NAMES

log = logging.getLogger(__name__)

CLASS_LAYERS = ("semantic_head.coarse.", "semantic_head.finest.1.")
"""Their tensors have one row per class, background first."""
DETECTED_CLASSES = "detector.class_layers."
"""Theirs have one row per class, without background."""


def build_network(config: TrainConfig, num_classes: int = len(CLASS_NAMES)) -> InstanceFlowNet:
    """The network with its backbone's weights from ``model.backbone_weights`` (a .safetensors or .pth file), if given.

    Raises ModelError for a file that cannot be read, ConfigError for one that is missing or does not fit.
    """
    torch.manual_seed(config.seed)
    network = InstanceFlowNet(config.model, num_classes)
    if config.model.backbone_weights:
        path = Path(config.model.backbone_weights)
        if not path.is_file():
            raise ConfigError(
                f"model.backbone_weights: no file {path}; give a .safetensors or .pth file, or leave it empty"
            )
        try:
            load_backbone_weights(network.backbone, read_tensors(path, "model.backbone_weights")[0])
        except ValueError as error:
            raise ConfigError(f"model.backbone_weights: {path}: {error}") from error
    return network


def initialise(network: InstanceFlowNet, class_names: Sequence[str], config: InitConfig) -> None:
    """Do what ``config`` says, and log it. Raises ModelError for a bad file, ConfigError for one that does not fit."""
    if config.deeplab:
        try:
            begin_with(network, Path(config.deeplab), class_names)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        log.info(f"backbone, ASPP and classifier begin as those of {config.deeplab}")
    if config.yolox:
        if network.detector is None:
            raise ConfigError("init.yolox needs model.detector = yolox_nano")
        take_yolox(network.detector, Path(config.yolox), class_names)
        log.info(f"the detector's features begin as those of {config.yolox}")
    if config.checkpoint:
        take_checkpoint(network, class_names, Path(config.checkpoint))
    if config.inter_from_intra:
        copy_intra_to_inter(network)
        log.info("the inter-frame decoder begins as a copy of the intra-frame decoder")


def take_checkpoint(network: InstanceFlowNet, class_names: Sequence[str], path: Path) -> None:
    """Take every part of an earlier run's network that has the same shape here; the parts are the network's children.

    The class layers fit if only their number of classes differs: rows are matched by class name, others stay fresh.
    Raises ModelError for a bad file, ConfigError for one with another backbone.
    """
    state = load_checkpoint(path)
    theirs = _with_matched_classes(network, class_names, state)
    taken, fresh = [], []
    parts = [*network.named_children(), *((f"inter.{name}", part) for name, part in network.inter.named_children())]
    for part, module in parts:
        own = module.state_dict()
        if part == "inter":
            # Its parts come by themselves.
            own = {name: tensor for name, tensor in own.items() if "." not in name}
            if not own:
                continue
        wanted = {name: theirs.get(f"{part}.{name}") for name in own}
        if any(w is None or w.shape != own[name].shape for name, w in wanted.items()):
            fresh.append(part)
        else:
            module.load_state_dict(wanted, strict=part != "inter")
            taken.append(part)
    if "backbone" in fresh:
        model, ours_is = state["config"].get("model"), network.config
        described = model if isinstance(model, dict) else {}
        backbone, stride = (shown(described.get(name)) for name in ("backbone", "output_stride"))
        raise ConfigError(
            f"init.checkpoint: {path} does not fit: its backbone is {backbone} of output stride {stride}, here it is "
            f"{ours_is.backbone} of {ours_is.output_stride}; give a checkpoint of the same backbone"
        )
    theirs_by_name = {plain(name) for name in state["class_names"]}
    other = {row: plain(name) for row, name in enumerate(class_names) if plain(name) not in theirs_by_name}
    found = network.detector.find(other) if network.detector is not None and "detector" in taken else []
    log.info(
        f"{path} (step {state['step']}): took {', '.join(taken)}; {len(class_names) - len(other)} of "
        f"{len(class_names)} classes known by name{', the detector finds ' + ', '.join(found) if found else ''}; "
        f"fresh: {', '.join(fresh) or 'nothing'}"
    )


def _with_matched_classes(
    network: InstanceFlowNet, class_names: Sequence[str], state: dict[str, Any]
) -> dict[str, Tensor]:
    """The checkpoint's tensors, those of the class layers with this network's rows; row 0 is the background."""
    theirs, known = dict(state["network"]), [plain(name) for name in state["class_names"]]
    rows = [(row, known.index(plain(name)) + 1) for row, name in enumerate(class_names, 1) if plain(name) in known]
    here, there = map(list, zip((0, 0), *rows, strict=True))
    for name, fresh in network.state_dict().items():
        first = 1 if name.startswith(DETECTED_CLASSES) else 0
        fitting = (len(known) + 1 - first, *fresh.shape[1:])
        if name.startswith((*CLASS_LAYERS, DETECTED_CLASSES)) and name in theirs and theirs[name].shape == fitting:
            matched = fresh.clone()
            matched[[row - first for row in here[first:]]] = theirs[name][[row - first for row in there[first:]]]
            theirs[name] = matched
    return theirs


def plain(class_name: str) -> str:
    """Data sets write the same name as tennis racket, tennis_racket or Tennis_racket."""
    return class_name.casefold().replace("_", " ")


@torch.no_grad()
def copy_intra_to_inter(network: InstanceFlowNet) -> None:
    """Section IV-A: ASPP, skip projections, fusing layers and offset head of the inter-frame branch from the intra's.

    Where the fusion joins a skip connection, a further projection follows, which the intra-frame decoder has not: there
    the skip's own channels pass through, and the weights of what the fusion adds stay fresh.
    """
    branch = network.inter
    if not isinstance(branch, DenseFlow):
        raise ConfigError("init.inter_from_intra needs the dense inter-frame branch; set it to false")
    intra, inter = network.intra_decoder, branch.decoder
    inter.aspp.load_state_dict(intra.aspp.state_dict())
    inter.fuse.load_state_dict(intra.fuse.state_dict())
    for level, project in enumerate(intra.project):
        fused = level < len(branch.project)
        own = branch.project[level] if fused else inter.project[level]
        own.load_state_dict(project.state_dict())
        if fused:
            weight = inter.project[level].get_parameter("0.weight")
            channels = weight.shape[0]
            weight[:, :channels, 0, 0] = torch.eye(channels)
    if network.config.flow == OFFSET:
        branch.head.load_state_dict(network.offset_head.state_dict())
