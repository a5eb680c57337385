# SPDX-License-Identifier: Apache-2.0
"""Training configuration: a TOML file holds only differences from these dataclasses, mostly the paper's values."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from instance_flow.declare import check, declared, requirement, setting
from instance_flow.formats.foreign_text import shown
from instance_flow.network.execution import MOST_THREADS
from instance_flow_training.datasets import DataConfig
from instance_flow_training.losses import LossConfig
from instance_flow_training.network.model import ModelConfig
from instance_flow_training.speed import SpeedConfig
from instance_flow_training.validate import MOST_MINUTES, MOST_STEPS, ModelDefaults, ValidationConfig

Config = TypeVar("Config")


class ConfigError(Exception):
    """A configuration file or ``--set`` that does not fit; the message is meant for the user."""


PRECISIONS = ("32", "bf16-mixed", "16-mixed")
MOST_CLIPS = 10**6


@dataclass(frozen=True)
class InitConfig:
    """Where the weights come from when a run begins; a resumed run takes those of its own checkpoint."""

    checkpoint: str = setting(
        "",
        "a checkpoint of ours, empty = none. Every part of the network that fits takes its weights; the rows of the "
        "class layers are matched by class name",
    )
    deeplab: str = setting(
        "",
        "a .safetensors file of DeepLab V3 on MobileNetV2, empty = none: backbone, ASPP and classifier begin as its "
        "own",
    )
    yolox: str = setting(
        "",
        "the ONNX file of YOLOX-Nano as its authors export it, empty = none: the features of model.detector begin as "
        "its own",
    )
    inter_from_intra: bool = setting(
        False, "the inter-frame decoder begins as a copy of the intra-frame decoder (section IV-A)"
    )

    def __post_init__(self) -> None:
        check(self, "init.")


@dataclass(frozen=True)
class TrainConfig:
    """Section IV-A: Adam 1e-3 with betas .9 and .999, no weight decay, poly 0.9, batches of 32 clips."""

    name: str = setting("worlds", "name of the run: its folder is runs/NAME unless --out says otherwise")
    seed: int = setting(0, "seed of the weights that begin at random", 0, 2**32 - 1)
    steps: int = setting(90_000, "steps of the optimizer in all", 1, MOST_STEPS)
    stop_at: int = setting(
        0,
        "end this run after so many of the steps, 0 = run to the end; the next run resumes, with other settings if "
        "they have changed",
        0,
        MOST_STEPS,
    )
    minutes: float = setting(
        0.0,
        "end after so much time, restarts included, if steps are not done before (0 = whenever they are done); the "
        "learning rate falls with whichever of the two is nearer its end",
        0,
        MOST_MINUTES,
    )
    batch: int = setting(
        32,
        "clips per step over all processes together; each process takes batch / (processes * accumulate) at a time",
        1,
        MOST_CLIPS,
    )
    accumulate: int = setting(
        1,
        "passes whose gradients are averaged for one step, so that one GPU follows the recipe of eight",
        1,
        MOST_CLIPS,
    )
    learning_rate: float = setting(1e-3, "learning rate of Adam after the warm-up", high=10, above=0)
    warmup: int = setting(200, "steps over which the learning rate rises", 1, MOST_STEPS)
    poly_power: float = setting(
        0.9, "the learning rate falls with this power of the share that is left; 0 = not at all", 0, 100
    )
    clip_gradient: float = setting(
        10.0, "largest norm of the gradient, which is scaled down to it", high=10**9, above=0
    )
    precision: str = setting(
        "32", "of the network's computations; parameters and losses are float32 in all of them", choices=PRECISIONS
    )
    sync_batch_norm: bool = setting(True, "batch statistics over all GPUs (there is no such thing on CPUs)")
    freeze_batch_norm: bool = setting(
        False, "keep the statistics that the weights came with, for passes of very few clips"
    )
    frozen_norms: tuple[str, ...] = setting(
        (), 'parts of the network whose batch norm alone keeps its statistics, such as "backbone"'
    )
    frozen: tuple[str, ...] = setting((), 'parts that are not trained at all, such as "backbone.features.0"')
    rates: dict[str, float] = setting(
        {},
        'learning rates of parts of the network as shares of learning_rate, such as {"backbone": 0.1}; the longest '
        "name that fits a weight counts. Weights with folded batch norm (init.deeplab) want 0.02 or less: Adam steps "
        "as far in their small ones as in their large ones",
        high=100,
        above=0,
        of=float,
        advice="or name it in frozen",
    )
    threads: int = setting(0, "threads of torch on the CPU, 0 = torch's choice", 0, MOST_THREADS)
    device: str = setting(
        "auto", "auto, cpu, cuda or cuda:N; under torchrun every process takes the GPU of its local rank"
    )
    save_every: int = setting(
        200, "steps between two checkpoints; one is saved on SIGINT and SIGTERM, too", 1, MOST_STEPS
    )
    save_minutes: float = setting(
        10.0, "a single process saves after so much time as well, 0 = by steps alone", 0, MOST_MINUTES
    )
    log_every: int = setting(20, "steps between two rows of the log", 1, MOST_STEPS)
    pictures_every: int = setting(0, "steps between two pictures of the maps in TensorBoard, 0 = none", 0, MOST_STEPS)
    init: InitConfig = field(default_factory=InitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    defaults: ModelDefaults = field(default_factory=ModelDefaults)

    def __post_init__(self) -> None:
        check(self)
        if self.stop_at > self.steps:
            raise ValueError(f"stop_at is {self.stop_at}; it must be 0 (go to the end) or at most steps = {self.steps}")
        if self.speed.fused_adam and self.precision == "16-mixed":
            raise ValueError(
                "speed.fused_adam is true, but with precision = '16-mixed' the gradients must be clipped before Adam "
                "takes them; set precision = 'bf16-mixed' or speed.fused_adam = false"
            )

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
        # A whole number may be too large for a float; its range is checked later.
        return float(value) if abs(value) <= sys.float_info.max else value
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
    several = {spec.name for spec in declared(config) if spec.metadata["several"]}
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


def describe_settings(config: Any = None, prefix: str = "") -> str:
    """Every setting by its key: default, what it may be, and what it does, as their declarations say."""
    config, lines = TrainConfig() if config is None else config, []
    for spec in dataclasses.fields(config):
        value, key = getattr(config, spec.name), prefix + spec.name
        if dataclasses.is_dataclass(value):
            lines.append(describe_settings(value, f"{key}."))
        else:
            words = textwrap.fill(
                spec.metadata["description"],
                110,
                initial_indent="    ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
            table = "a table; each is " if isinstance(value, dict) else ""
            lines.append(f"{key} = {json.dumps(value)}    {table}{requirement(spec)}\n{words}")
    return "\n".join(lines)


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
    apply(TrainConfig(), changes)  # an error of the file is reported even where --set would hide it
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
