# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: everything needed to go on exactly where training stopped, and to export."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from instance_flow.structures import ModelError
from instance_flow_training.config import TrainConfig, apply
from instance_flow_training.model import InstanceFlowNet

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: a kill while saving leaves the previous checkpoint in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    torch.save({"format": FORMAT, **state}, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Raises ModelError for a file that is missing, damaged, or not one of ours."""
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; give the checkpoint.pt that instance-flow-train wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path}: not a readable checkpoint ({type(error).__name__}); was it cut short?") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ModelError(f"{path}: not a checkpoint of this program (expected format {FORMAT})")
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
