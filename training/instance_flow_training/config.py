# SPDX-License-Identifier: Apache-2.0
"""Training configuration: a TOML file holds only differences from these dataclasses, mostly the paper's values."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from instance_flow.declare import check, setting
from instance_flow.formats.foreign_text import shown
from instance_flow_training.datasets import DataConfig
from instance_flow_training.losses import LossConfig
from instance_flow_training.network.model import ModelConfig
from instance_flow_training.speed import SpeedConfig
from instance_flow_training.validate import ModelDefaults, ValidationConfig

Config = TypeVar("Config")


class ConfigError(Exception):
    """A configuration file or ``--set`` that does not fit; the message is meant for the user."""


PRECISIONS = ("32", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class InitConfig:
    """Where the weights come from when a run begins; a run that goes on takes those of its own checkpoint.

    checkpoint: a checkpoint of ours, "" = none. Every part of the network that fits takes its weights; the rows of the
        class layers are matched by class name.
    deeplab: a .safetensors file of DeepLab V3 on MobileNetV2, "" = none: backbone, ASPP and classifier begin as its own
        (``deeplab.begin_with``).
    yolox: the ONNX file of YOLOX-Nano as its authors export it, "" = none: the features of ``model.detector`` begin as
        its own.
    inter_from_intra: the inter-frame decoder begins as a copy of the intra-frame decoder (section IV-A).
    """

    checkpoint: str = ""
    deeplab: str = ""
    yolox: str = ""
    inter_from_intra: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """Section IV-A: Adam 1e-3 with betas .9 and .999, no weight decay, poly 0.9, batches of 32 clips.

    stop_at: end this run after so many steps of ``steps``, 0 = go to the end; the next run goes on, with other settings
        if they have changed.
    batch: clips per step over all processes together; each process takes batch / (processes * accumulate) at a time.
    accumulate: passes whose gradients are averaged for one step, so that one GPU follows the recipe of eight.
    precision: 32, bf16-mixed or 16-mixed; parameters and losses are float32 in all of them.
    sync_batch_norm: batch statistics over all GPUs (there is no such thing on CPUs).
    freeze_batch_norm: keep the statistics that the weights came with, for passes of very few clips.
    frozen_norms: parts of the network whose batch norm alone keeps its statistics, such as "backbone".
    frozen: parts that are not trained at all, such as "backbone.features.0".
    rates: learning rates of parts of the network as shares of ``learning_rate``, such as {"backbone": 0.1}; the longest
        name that fits a weight counts. Weights with folded batch norm (``init.deeplab``) want 0.02 or less: Adam steps
        as far in their small ones as in their large ones.
    device: auto, cpu, cuda or cuda:N; under torchrun every process takes the GPU of its local rank.
    minutes: end after so much time, restarts included, if ``steps`` are not done before (0 = whenever they are done);
        the learning rate falls with whichever of the two is nearer its end.
    save_every, save_minutes: a checkpoint is saved after so many steps, and, by a single process, after so many minutes
        (0 = by steps alone), and on SIGINT and SIGTERM.
    pictures_every: steps between two pictures of the maps in TensorBoard, 0 = none.
    """

    name: str = "worlds"
    seed: int = 0
    steps: int = setting(90_000, low=1)
    stop_at: int = 0
    minutes: float = setting(0.0, low=0)
    batch: int = setting(32, low=1)
    accumulate: int = setting(1, low=1)
    learning_rate: float = 1e-3
    warmup: int = setting(200, low=1)
    poly_power: float = 0.9
    clip_gradient: float = 10.0
    precision: str = setting("32", choices=PRECISIONS)
    sync_batch_norm: bool = True
    freeze_batch_norm: bool = False
    frozen_norms: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    rates: dict[str, float] = field(default_factory=dict)
    threads: int = 0
    device: str = "auto"
    save_every: int = setting(200, low=1)
    save_minutes: float = 10.0
    log_every: int = setting(20, low=1)
    pictures_every: int = 0
    init: InitConfig = field(default_factory=InitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    defaults: ModelDefaults = field(default_factory=ModelDefaults)

    def __post_init__(self) -> None:
        check(self)
        if not 0 <= self.stop_at <= self.steps:
            raise ValueError(f"stop_at is {self.stop_at}; it must be 0 (go to the end) or at most steps = {self.steps}")
        if self.speed.fused_adam and self.precision == "16-mixed":
            raise ValueError(
                "speed.fused_adam is true, but with precision = '16-mixed' the gradients must be clipped before Adam "
                "takes them; set precision = 'bf16-mixed' or speed.fused_adam = false"
            )
        for name, rate in self.rates.items():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 100:
                raise ValueError(f"rates.{name} is {rate!r}; it must be a number above 0 to 100, or name it in frozen")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) that the trained network is for: the last worlds', or what real videos are validated at."""
        return self.data.sizes[-1] if self.data.source == "worlds" else self.validation.size


def _convert(value: Any, default: Any, key: str, several: bool = False) -> Any:
    """several: a list of texts does where a text stands."""
    if several and isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(_convert(v, default[0], key) if default else v for v in value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, str) and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if type(value) is not type(default):
        kind = {"tuple": "list"}.get(type(default).__name__, type(default).__name__)
        raise ConfigError(
            f"{key} is {shown(reprlib.repr(value))}; it must be of type {kind}, like {json.dumps(default)}"
        )
    return value


def apply(config: Config, changes: dict[str, Any], prefix: str = "") -> Config:
    """Replace fields by name, nested tables included. Raises ConfigError for an unknown key or a wrong value."""
    valid = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    several = {f.name for f in dataclasses.fields(config) if "str | tuple" in str(f.type)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in valid:
            raise ConfigError(f"unknown key '{shown(prefix + str(key))}'; valid keys here are {', '.join(valid)}")
        default = valid[key]
        if dataclasses.is_dataclass(default):
            if not isinstance(value, dict):
                raise ConfigError(f"{prefix + key} is {shown(reprlib.repr(value))}; it must be a table of settings")
            new[key] = apply(default, value, f"{prefix}{key}.")
        else:
            new[key] = _convert(value, "" if key in several else default, prefix + key, key in several)
    try:
        return dataclasses.replace(config, **new)  # type: ignore[type-var]
    except ValueError as error:
        raise ConfigError(shown(error, 500)) from error


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
        changes = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give a file such as training/configs/worlds.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # Of TOML, or of Python's own limits for numbers and depth.
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: not valid TOML: {reason}") from error
    apply(TrainConfig(), changes)  # what is wrong with the file is told even where --set would hide it
    # All at once: settings that belong together can be changed by no order of single ones.
    for text in overrides:
        changes = merged(changes, parse_override(text))
    return apply(TrainConfig(), changes)


def merged(changes: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The first tables with the second ones' values in place of theirs."""
    both = {
        key: merged(changes[key], value)
        for key, value in more.items()
        if isinstance(value, dict) and isinstance(changes.get(key), dict)
    }
    return {**changes, **more, **both}
