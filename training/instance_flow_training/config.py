# SPDX-License-Identifier: Apache-2.0
"""Training configuration: frozen dataclasses with the paper's defaults; a TOML file holds only differences."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tomllib

from instance_flow_training.losses import LossConfig
from instance_flow_training.model import ModelConfig

Config = TypeVar("Config")


class ConfigError(Exception):
    """A configuration file or ``--set`` that does not fit; the message is meant for the user."""


@dataclass(frozen=True)
class DataConfig:
    """Made worlds. sizes: training image sizes in the order of training, each for an equal share of the steps."""

    first_seed: int = 1_000_000
    sizes: tuple[tuple[int, int], ...] = ((192, 320),)
    frames_per_clip: int = 3
    workers: int = 1


@dataclass(frozen=True)
class ValidationConfig:
    """Held-out worlds; their seeds lie far below every training seed."""

    every: int = 0
    clips: int = 8
    first_seed: int = 500
    size: tuple[int, int] = (192, 320)


@dataclass(frozen=True)
class TrainConfig:
    """Section IV-A: Adam 1e-3, poly 0.9, no weight decay. ``batch`` counts clips.

    stop_at: end this run after so many steps of ``steps``, 0 = go to the end; the next run goes on, with other settings
        if they have changed.
    """

    name: str = "worlds"
    seed: int = 0
    steps: int = 90_000
    stop_at: int = 0
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    poly_power: float = 0.9
    clip_gradient: float = 10.0
    threads: int = 0
    device: str = "auto"
    save_every: int = 200
    log_every: int = 20
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)


def _convert(value: Any, default: Any, key: str) -> Any:
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(_convert(v, default[0], key) if isinstance(v, list) else v for v in value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{key} is {value!r}; it must be of type {type(default).__name__}, like {default!r}")
    return value


def apply(config: Config, changes: dict[str, Any], prefix: str = "") -> Config:
    """Replace fields by name, nested tables included. Raises ConfigError for an unknown key or a wrong type."""
    valid = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in valid:
            raise ConfigError(f"unknown key {prefix + key!r}; valid keys here are {', '.join(valid)}")
        default = valid[key]
        if dataclasses.is_dataclass(default):
            if not isinstance(value, dict):
                raise ConfigError(f"{prefix + key} is {value!r}; it must be a table of settings")
            new[key] = apply(default, value, f"{prefix}{key}.")
        else:
            new[key] = _convert(value, default, prefix + key)
    return dataclasses.replace(config, **new)  # type: ignore[type-var]


def parse_override(text: str) -> dict[str, Any]:
    """``a.b=c`` to ``{"a": {"b": c}}``; c is read as JSON where it is JSON, else as text."""
    key, separator, raw = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {text!r} is not of the form section.key=value")
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        value = raw
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def load_config(path: Path, overrides: list[str]) -> TrainConfig:
    """Read a TOML file of differences, then ``--set`` overrides. Raises ConfigError."""
    try:
        changes = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give a file such as training/configs/worlds.toml"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    config = apply(TrainConfig(), changes)
    for text in overrides:
        config = apply(config, parse_override(text))
    return config
