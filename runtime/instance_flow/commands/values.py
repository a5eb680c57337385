# SPDX-License-Identifier: Apache-2.0
"""What the commands have in common: options about the model and its settings, checks of what was typed, and reports."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Any

from instance_flow.declare import declared, from_text, setting, typed
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.video import opencv_path
from instance_flow.network.execution import PROVIDER_NAMES, ExecutionConfig
from instance_flow.network.installation import bundled_model_path
from instance_flow.replay.saves import SAVES
from instance_flow.replay.settings import DepthSettings, Settings
from instance_flow.settings import AssemblyConfig
from instance_flow.spatial.measure import SpatialConfig
from instance_flow.stream import StreamSettings
from instance_flow.structures import SourceError

_DEPTH_KEYS = [spec.name for kind in (DepthSettings, SpatialConfig) for spec in declared(kind)]
"""Of --set, in use with --depth alone."""

MOST = 10**12
"""Bound of numbers that nobody reaches, but a mistyped one does."""
SIGNALLED = 128
"""A process that a signal ended has this and the signal's number as its exit code."""


def described(does: str, *examples: str) -> dict[str, Any]:
    """What every command's parser has: what it does, one line from a verb in small letters, and examples."""
    lines = ["examples:" if len(examples) > 1 else "example:", *(f"  {example}" for example in examples)]
    return {
        "description": does,
        "epilog": "\n".join(lines),
        # The other formatters would make one paragraph of the examples.
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def add_command(commands: Any, name: str, does: str, *examples: str) -> argparse.ArgumentParser:
    """Add a command to those of a parser; the list of commands says what it does as its own help does."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=does, **described(does, *examples))
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options that decide about the tracks."""
    parser.add_argument("--model", type=Path, metavar="FILE", help="ONNX model; the bundled one unless given")
    add_execution(parser)
    parser.add_argument(
        "--size",
        "--imgsz",
        type=image_size,
        metavar="WIDTHxHEIGHT",
        help="of the network's input, multiples of 32, such as 640x384, or one number for a square; the model's own "
        "unless given. Larger finds smaller objects and takes longer",
    )
    parser.add_argument(
        "--classes",
        default="",
        metavar="A,B",
        help="names of the classes to show; all unless given (--set classes=A,B)",
    )
    parser.add_argument(
        "--conf",
        type=fraction,
        metavar="SCORE",
        help="least score of an object to show; the model's own unless given (--set min_score=SCORE)",
    )
    add_scales(parser, "SOURCE")
    (max_gap,) = declared(StreamSettings)
    parser.add_argument(
        "--max-gap",
        type=option(max_gap),
        default=max_gap.default,
        metavar="SECONDS",
        help=max_gap.metadata["description"] + " (default: %(default)s), as the node's parameter",
    )
    add_set(parser, "; with --depth also " + ", ".join(_DEPTH_KEYS))
    _add_depth(parser)


def add_scales(parser: argparse.ArgumentParser, before: str) -> None:
    """``--scales``.   before: the argument that it would swallow if it came first."""
    parser.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=(),
        metavar="S",
        help="run the network at several factors of its input size, such as 0.5 0.75 1.0, and average what it says; "
        f"put {before} before --scales",
    )


def add_set(parser: argparse.ArgumentParser, more: str = "") -> None:
    """``--set``, for ``parse_settings``.   more: what its help says of further keys."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the assembly, named as the node's parameter; may be given again; keys: "
        + ", ".join(spec.name for spec in declared(AssemblyConfig))
        + more,
    )


def _add_depth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--depth",
        nargs="?",
        const="",
        metavar="TOPIC",
        help="place the tracks in metres by the depth images of a bag, on this topic or, without TOPIC, on the one "
        "that belongs to the images by its name; put SOURCE before --depth",
    )
    parser.add_argument(
        "--camera-info",
        metavar="TOPIC",
        help="with --depth: topic of the calibration of the images; camera_info beside them unless given",
    )
    parser.add_argument(
        "--depth-unregistered",
        action="store_true",
        help="with --depth: depth is of a camera of its own, and is registered to the images by camera_info beside the "
        "depth and the bag's transforms",
    )
    parser.add_argument(
        "--target-frame",
        metavar="FRAME",
        help="with --depth: frame of all that is in metres, such as odom, by the bag's transforms; the images' own "
        "unless given",
    )


def add_execution(parser: argparse.ArgumentParser) -> None:
    """Options that say where and how the network runs, one for each field of ``ExecutionConfig``."""
    parser.add_argument("--provider", default="auto", choices=PROVIDER_NAMES, help="where the network runs")
    for spec in declared(ExecutionConfig):
        kind: dict[str, Any] = {"type": option(spec), "metavar": spec.name.upper()}
        if isinstance(spec.default, bool):
            kind = {"action": "store_true"}
        # argparse would take a % sign for a place to fill in.
        words = spec.metadata["description"].replace("%", "%%")
        parser.add_argument(f"--{spec.name.replace('_', '-')}", default=spec.default, help=words, **kind)


def read_execution(options: argparse.Namespace) -> ExecutionConfig:
    """What ``add_execution`` asked for; ValueError where no machine, or not this one, can have it."""
    return ExecutionConfig(**{spec.name: getattr(options, spec.name) for spec in declared(ExecutionConfig)})


def read_settings(options: argparse.Namespace) -> Settings:
    """What ``add_settings`` asked for; ValueError and ModelError where that is not possible."""
    model = options.model or bundled_model_path()
    pairs = [f"classes={options.classes}"] if options.classes else []
    pairs += [] if options.conf is None else [f"min_score={options.conf}"]
    in_space = [pair for pair in options.set if pair.partition("=")[0] in _DEPTH_KEYS]
    config = parse_settings([*(pair for pair in options.set if pair not in in_space), *pairs])
    scales, execution, depth = tuple(options.scales), read_execution(options), _read_depth(options, in_space)
    return Settings(model, options.provider, config, scales, options.max_gap, execution, options.size, depth)


def _read_depth(options: argparse.Namespace, pairs: Sequence[str]) -> DepthSettings | None:
    if options.depth is None:
        given = {
            "--camera-info": options.camera_info,
            "--depth-unregistered": options.depth_unregistered,
            "--target-frame": options.target_frame,
            **{f"--set {pair}": True for pair in pairs},
        }
        for name, value in given.items():
            if value:
                raise ValueError(f"{name} is about tracks in metres, so it needs --depth beside it")
        return None
    texts = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    own, spatial = (
        {spec.name: from_text(spec, texts[spec.name]) for spec in declared(kind) if spec.name in texts}
        for kind in (DepthSettings, SpatialConfig)
    )
    return DepthSettings(
        options.depth,
        options.camera_info or "",
        not options.depth_unregistered,
        (options.target_frame or "").lstrip("/"),
        **own,
        spatial=SpatialConfig(**spatial),
    )


def parse_settings(pairs: Sequence[str]) -> AssemblyConfig:
    """Settings from ``key=value`` texts; ValueError for an unknown key and for a value that is not a fitting number."""
    known = {spec.name: spec for spec in declared(AssemblyConfig)}
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in known:
            raise ValueError(f"setting {pair!r} is not key=value with a key out of {', '.join(known)}")
        settings[key] = from_text(known[key], value)
    return AssemblyConfig(**settings)


def output_folder(folder: Path) -> Path:
    """The folder as it is; SourceError where a file is in its way, or its name is not UTF-8."""
    opencv_path(folder)
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise SourceError(f"{place} is a file, but --out needs a folder for several files; name another one")
            break
    return folder


def image_size(text: str) -> tuple[int, int]:
    """(height, width) of WIDTHxHEIGHT, as cameras have it, or of one number for a square; for argparse."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, for example 640x384")
    return int(found[2] or found[1]), int(found[1])


def option(spec: Field[Any]) -> Callable[[str], Any]:
    """For argparse: what was typed as the value of a setting, within its range."""

    def read(text: str) -> Any:
        try:
            return typed(spec, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def number(kind: type[int | float], **bounds: Any) -> Callable[[str], Any]:
    """For argparse: a number of an option that no configuration has; bounds as those of ``setting``."""
    return option(setting(kind(), **bounds))


positive = number(int, low=1, high=MOST)
whole = number(int, low=0, high=MOST)
fraction = number(float, low=0, high=1)
above_zero = number(float, high=MOST, above=0)
not_negative = number(float, low=0, high=MOST)


def save_formats(text: str) -> list[str]:
    """Names out of ``SAVES`` with commas between, for argparse."""
    forms = [form.strip() for form in text.split(",")]
    unknown = [form for form in forms if form not in SAVES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SAVES)}")
    return forms


def format_report(report: Mapping[str, Any], as_json: bool) -> str:
    """Names and values as JSON, or laid out for people."""
    if as_json:
        return json.dumps(report, indent=2)
    rows = list(_rows(report))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def _rows(report: Mapping[str, Any], indent: str = "") -> list[tuple[str, str]]:
    """Names and values as a table shows them, a nested report under its own name."""
    rows: list[tuple[str, str]] = []
    for key, value in report.items():
        name = indent + shown(key.replace("_", " "))
        if isinstance(value, Mapping):
            rows += [(name, ""), *_rows(value, indent + "  ")]
        elif isinstance(value, list | tuple):
            rows.append((name, shown(", ".join(map(str, value)), MESSAGE)))
        else:
            rows.append((name, shown(value, MESSAGE)))
    return rows


def add_overrides(parser: argparse.ArgumentParser, does: str) -> None:
    """``--set`` of the commands that train, as ``overrides``."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help=f"{does}; may be given again",
    )


def add_rename(parser: argparse._ActionsContainer) -> None:
    """``--rename OLD=NEW``, several times; gives a list of pairs."""
    parser.add_argument(
        "--rename",
        type=_renamed,
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="another name for a class; may be given several times",
    )


def _renamed(text: str) -> tuple[str, str]:
    old, separator, new = text.partition("=")
    if not (separator and old.strip() and new.strip()):
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is not of the form OLD=NEW")
    return old.strip(), new.strip()
