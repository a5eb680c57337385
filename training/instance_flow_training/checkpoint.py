# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: all that is needed to resume training exactly, and to export; and files of weights alone, to ship."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from instance_flow.atomic import replacing
from instance_flow.structures import ModelError
from instance_flow_training.config import TrainConfig, apply
from instance_flow_training.model import InstanceFlowNet

FORMAT = 2
"""2: the inter-frame branch is one part of the network."""
WEIGHTS = ".safetensors"
_ABOUT = "instance_flow"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: a kill while saving leaves the previous checkpoint in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    torch.save({"format": FORMAT, **state}, temporary)
    os.replace(temporary, path)


def save_weights(
    path: Path, network: InstanceFlowNet, config: TrainConfig, class_names: Sequence[str], step: int
) -> None:
    """Write the network alone, in half precision, with its configuration and class names: a .safetensors file that
    ``load_checkpoint`` reads."""
    about = {
        "format": FORMAT,
        "step": step,
        "config": dataclasses.asdict(config),
        "class_names": list(class_names),
    }
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    with replacing(path) as whole:
        save_file(tensors, whole, {_ABOUT: json.dumps(about)})
        whole.chmod(0o644)  # It was made for its owner alone.


def _load_weights(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            about = (file.metadata() or {}).get(_ABOUT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable .safetensors file ({error}); was it cut short?") from error
    if about is None:
        raise ModelError(
            f"{path}: a .safetensors file, but not of weights of instance-flow (it says nothing of {_ABOUT!r}); "
            "weights of a backbone belong in model.backbone_weights, those of DeepLab in init.deeplab"
        )
    network = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    return {**json.loads(about), "network": network}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, or a file of weights, which has no optimizer. Raises ModelError for a file that is missing,
    damaged, or not one of ours."""
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; give the checkpoint.pt that instance-flow-train wrote")
    if path.suffix == WEIGHTS:
        return _load_weights(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path}: not a readable checkpoint ({type(error).__name__}); was it cut short?") from error
    if not isinstance(state, dict) or "format" not in state:
        raise ModelError(f"{path}: not a checkpoint of instance-flow; give the checkpoint.pt that it wrote")
    if state["format"] != FORMAT:
        raise ModelError(
            f"{path}: a checkpoint of format {state['format']}, but this version reads format {FORMAT}; train anew, or "
            "use the version that wrote it"
        )
    return state


def load_network(path: Path) -> tuple[InstanceFlowNet, TrainConfig, list[str]]:
    """The trained network in evaluation mode, its configuration and class names. Raises ModelError or ConfigError."""
    state = load_checkpoint(path)
    config = apply(TrainConfig(), _plain(state["config"]))
    network = InstanceFlowNet(config.model, len(state["class_names"]))
    network.load_state_dict(state["network"])
    return network.eval(), config, state["class_names"]


def _plain(value: Any) -> Any:
    """Tuples as lists, as a TOML file would give them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
