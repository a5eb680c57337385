# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: all that is needed to resume training exactly, and to export; and files of weights alone, to ship."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from instance_flow.formats.atomic import replacing
from instance_flow.formats.foreign_text import shown
from instance_flow.structures import ModelError
from instance_flow_training.config import ConfigError, TrainConfig, apply
from instance_flow_training.network.model import InstanceFlowNet

FORMAT = 2
"""2: the inter-frame branch is one part of the network."""
WEIGHTS = ".safetensors"
_ABOUT = "instance_flow"


CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
"""In a run's folder: the last one, and the one that validated best."""


def best_of_run(folder: Path) -> Path:
    """The checkpoint of a run that validated best, or else the last one."""
    best = folder / BEST
    return best if best.is_file() else folder / CHECKPOINT


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


def read_tensors(path: Path, setting: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata, of a .safetensors file, or of a state dict that torch.save wrote (.pth),
    whatever its ending.

    setting: what the file was given for; an error begins with it.
    Raises ModelError where it is missing, damaged, or neither.
    """
    named = f"{setting}: {path}" if setting else str(path)
    if not path.is_file():
        raise ModelError(f"{named}: no such file; give a .safetensors file")
    state: Any = None
    metadata: dict[str, str] = {}
    try:
        with path.open("rb") as opened:
            is_safetensors = opened.read(9)[8:] == b"{"  # after the length of its header
            opened.seek(0)
            # Of the open file: given its path, torch goes by the ending.
            if not is_safetensors:
                state = torch.load(opened, map_location="cpu", weights_only=True)
        if is_safetensors:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # Damaged bytes break a parser in any way there is.
        raise ModelError(
            f"{named}: not a readable file of weights ({type(error).__name__}); it must be a whole .safetensors file "
            "or a state_dict() that torch.save wrote"
        ) from error
    if not _is_named(state, Tensor):
        raise ModelError(f"{named} holds more than tensors by name; save the network's state_dict() alone")
    return state, metadata


def _load_weights(path: Path) -> Any:
    tensors, metadata = read_tensors(path)
    if _ABOUT not in metadata:
        raise ModelError(
            f"{path}: a .safetensors file, but not of weights of instance-flow (it says nothing of {_ABOUT!r}); "
            "weights of a backbone belong in model.backbone_weights, those of DeepLab in init.deeplab"
        )
    try:
        about = json.loads(metadata[_ABOUT])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: damaged: what it says of itself is no JSON; get the file again") from error
    network = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    return {**about, "network": network} if isinstance(about, dict) else about


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, or a file of weights, which has no optimizer. Its ``step`` is a whole number, its ``config`` and
    ``network`` are dicts by name, the network's of tensors, its ``class_names`` a list of texts.

    Raises ModelError for a file that is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; give the checkpoint.pt that instance-flow-train wrote")
    if path.suffix == WEIGHTS:
        state = _load_weights(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ModelError(
                f"{path}: not a readable checkpoint ({type(error).__name__}); give the checkpoint.pt that "
                "instance-flow-train wrote, whole"
            ) from error
    if not isinstance(state, dict) or "format" not in state:
        raise ModelError(
            f"{path}: not a checkpoint of instance-flow; give the checkpoint.pt that it wrote (weights of a backbone "
            "belong in model.backbone_weights, those of DeepLab in init.deeplab)"
        )
    if type(state["format"]) is not int or state["format"] != FORMAT:
        raise ModelError(
            f"{path}: a checkpoint of format {shown(state['format'])}, but this version reads format {FORMAT}; train "
            "anew, or use the version that wrote it"
        )
    wrong = [name for name, fits in _PARTS.items() if not fits(state.get(name))]
    if wrong:
        raise ModelError(f"{path}: damaged: its {wrong[0]} is missing, or is not what it should be; get the file again")
    return state


def _is_named(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())


_PARTS: dict[str, Callable[[Any], bool]] = {
    "step": lambda value: type(value) is int and value >= 0,
    "config": lambda value: _is_named(value, object),
    "class_names": lambda value: isinstance(value, list) and bool(value) and all(isinstance(n, str) for n in value),
    "network": lambda value: _is_named(value, Tensor),
}
"""What a checkpoint holds beside its format, and whether it can be that."""


def load_network(path: Path) -> tuple[InstanceFlowNet, TrainConfig, list[str]]:
    """The trained network in evaluation mode, its configuration and class names. Raises ModelError or ConfigError."""
    state = load_checkpoint(path)
    names = state["class_names"]
    try:
        config = apply(TrainConfig(), _plain(state["config"]))
        with torch.device("meta"):  # Whatever its configuration says, no memory is taken before the weights fit.
            wanted = InstanceFlowNet(config.model, len(names)).state_dict()
        _check_tensors(state["network"], wanted)
        network = InstanceFlowNet(config.model, len(names))
        network.load_state_dict(state["network"])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:  # A damaged configuration can break the building of a network in any way there is.
        raise ModelError(f"{path}: damaged: {shown(error, 200)}; get the file again") from error
    return network.eval(), config, names


def _check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError where these are not the tensors of a network."""
    if odd := [*wanted.keys() - found.keys(), *found.keys() - wanted.keys()]:
        raise ValueError(f"its network and its configuration differ in {len(odd)} tensors, such as '{shown(min(odd))}'")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape or found[name].is_floating_point() != tensor.is_floating_point():
            there, here = ((tuple(t.shape), t.dtype) for t in (found[name], tensor))
            raise ValueError(f"'{name}' is {there}, but its configuration needs {here}")


def _plain(value: Any) -> Any:
    """Tuples as lists, as a TOML file would give them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
