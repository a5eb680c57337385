# SPDX-License-Identifier: Apache-2.0
"""What a model says of itself, checked: type, range and agreement of every field, before anything is made of it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from instance_flow.formats.foreign_text import NAME, shown
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import MatchCosts, ModelInfo

LARGEST_SIDE = 4096
"""Largest side of an input, in pixels. A larger one is most likely a typing error, and would use up the memory."""
SMALLEST_STEP = 32
"""Input sizes are multiples of it, and of every stride."""

_MOST_CLASSES, _MOST_TOKENS, _LARGEST_STRIDE, _LONGEST_TEXT = 10_000, 2**14, 256, 10_000
_MOST_REFERENCES = AssemblyConfig.__dataclass_fields__["references"].metadata["range"][1]
_PRECISIONS = ("float32", "float16", "int8")

Check = Callable[[Any], bool]


def parse_description(values: Mapping[str, Any]) -> ModelInfo:
    """The description that the JSON of a model file holds. Raises ValueError, which names the field, where one is
    missing, unknown, of another type, out of its range, or does not fit the others."""
    known = {field.name: field for field in fields(ModelInfo)}
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            raise ValueError(f"it has no {name}")
    for name in values:
        if name not in known:
            raise ValueError(f"'{shown(name)}' is no field of it; known are {', '.join(known)}")
    found = {name: _parse(name, value) for name, value in values.items()}
    info = ModelInfo(**found)
    step = input_step(info)
    if len(info.feature_strides) != (0 if info.feature_tokens else 2):
        raise ValueError(
            f"feature_strides is {list(info.feature_strides)} with feature_tokens {info.feature_tokens}; expected two "
            "strides, or none where it has tokens"
        )
    if any(n % step for n in info.input_size):
        raise ValueError(f"input_size is {list(info.input_size)}; expected multiples of {step}")
    return info


def input_step(info: ModelInfo) -> int:
    """What both sides of an input must be multiples of, in pixels."""
    return max((SMALLEST_STEP, *info.feature_strides))


def _parse(name: str, value: Any) -> Any:
    if name == "match_costs":
        return _parse_costs(value)
    check, expected = _FIELDS[name]
    if not check(value):
        raise ValueError(f"{name} is {shown(reprlib.repr(value))}; expected {expected}")
    if name in _NUMBERS:
        return float(value)  # Kernels would be compiled once more for a whole number.
    return tuple(value) if isinstance(value, list) else value


def _parse_costs(value: Any) -> MatchCosts:
    known = [field.name for field in fields(MatchCosts)]
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        raise ValueError(
            f"match_costs is {shown(reprlib.repr(value))}; expected an object with some of {', '.join(known)}"
        )
    for name, cost in value.items():
        check, expected = _number(0.0, _highest(name))
        if not check(cost):
            raise ValueError(f"{name} of match_costs is {shown(reprlib.repr(cost))}; expected {expected}")
    return MatchCosts(**{name: float(cost) for name, cost in value.items()})


def _highest(setting: str) -> float:
    """The most that a setting of the assembly may be, whose default the model gives."""
    return float(AssemblyConfig.__dataclass_fields__[setting].metadata["range"][1])


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most and value.isprintable()


def _is_stride(value: Any) -> bool:
    return _is_whole(value, 1, _LARGEST_STRIDE) and value & (value - 1) == 0


def _whole(low: int, high: int) -> tuple[Check, str]:
    return lambda value: _is_whole(value, low, high), f"a whole number from {low} to {high}"


def _number(low: float, high: float) -> tuple[Check, str]:
    def check(value: Any) -> bool:
        # NaN is in no range, and a whole number of 400 digits above each.
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return check, f"a number from {low:g} to {high:g}"


def _text(most: int, least: int = 0) -> tuple[Check, str]:
    return lambda value: _is_text(value, most) and len(value) >= least, f"one line of {least} to {most} characters"


def _choice(*choices: str) -> tuple[Check, str]:
    return lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"


_NUMBERS = ("center_threshold", "center_window", "max_stray", "max_distance", "min_score")
_FIELDS: dict[str, tuple[Check, str]] = {
    "name": _text(NAME, 1),
    "class_names": (
        lambda value: (
            isinstance(value, list)
            and 1 <= len(value) <= _MOST_CLASSES
            and all(_is_text(name, NAME) and name for name in value)
        ),
        f"a list of 1 to {_MOST_CLASSES} names, each one line of 1 to {NAME} characters",
    ),
    "input_size": (
        lambda value: isinstance(value, list) and len(value) == 2 and all(_is_whole(n, 1, LARGEST_SIDE) for n in value),
        f"[height, width] in whole pixels up to {LARGEST_SIDE}",
    ),
    "output_stride": (
        lambda value: _is_stride(value) and value <= SMALLEST_STEP,
        f"a power of two up to {SMALLEST_STEP}",
    ),
    "feature_strides": (
        lambda value: isinstance(value, list) and all(_is_stride(n) for n in value),
        f"a list of powers of two up to {_LARGEST_STRIDE}",
    ),
    "feature_tokens": _whole(0, _MOST_TOKENS),
    "max_references": _whole(1, _MOST_REFERENCES),
    "reference_policy": _choice(*AssemblyConfig.__dataclass_fields__["reference_policy"].metadata["choices"]),
    **{name: _number(0.0, _highest(name)) for name in _NUMBERS},
    "confirm_frames": _whole(1, int(_highest("confirm_frames"))),
    "training": _text(_LONGEST_TEXT),
    "licence": _text(_LONGEST_TEXT),
    "weights_sha256": _text(NAME),
    "precision": _choice(*_PRECISIONS),
}
