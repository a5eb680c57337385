# SPDX-License-Identifier: Apache-2.0
"""A setting, declared once: type, range, words and choices, of which its check, parameter and option are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, field, fields
from typing import Any

OWN = -1.0
"""Value of a setting, for which 0 means something, that is left to the model."""
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a list of texts"}


def setting(
    default: Any,
    description: str = "",
    low: float | None = None,
    high: float | None = None,
    *,
    choices: Iterable[str] = (),
    own: bool = False,
) -> Any:
    """A field of a frozen dataclass; the default's type is the setting's: bool, int, float, str or tuple[str, ...].

    Args:
        low, high: bounds of a number, both within; None = none.   choices: all texts that it may be; () = any.
        own: the default, and any value below 0, leaves the setting to the model (``chosen``); the description says so.
    """
    if own:
        description += f". {default:g} = the model's own"
    metadata: dict[str, Any] = {"description": description, "own": own}
    if low is not None or high is not None:
        metadata["range"] = (low, high)
    if choices:
        metadata["choices"] = tuple(choices)
    return field(default=default, metadata=metadata)


def declared(config: Any) -> list[Field[Any]]:
    """The fields of a dataclass, or of its type, that ``setting`` made."""
    return [spec for spec in fields(config) if "description" in spec.metadata]


def check(config: Any, prefix: str = "") -> None:
    """Raises ValueError for the first setting that is of another type, out of its range, or none of its choices.

    prefix: put before the setting's name, such as ``"model."``.
    """
    for spec in declared(config):
        if not _fits(spec, value := getattr(config, spec.name)):
            raise ValueError(f"{prefix}{spec.name} is {value!r}; it must be {_requirement(spec)}")


def chosen(config: Any, name: str, own: Any) -> Any:
    """The value of a setting, or ``own``, the model's, where it is left to the model."""
    (spec,) = (spec for spec in declared(config) if spec.name == name and spec.metadata["own"])
    value = getattr(config, name)
    return own if value < 0 or value == spec.default else value


def from_text(spec: Field[Any], text: str) -> Any:
    """The value of a setting from what was typed; its range is left to ``check``. Raises ValueError."""
    kind: Any = type(spec.default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return tuple(text.split(",")) if kind is tuple else kind(text)
    except (KeyError, ValueError) as error:
        raise ValueError(f"setting {spec.name} needs {_KINDS[kind]}, not {text!r}") from error


def _fits(spec: Field[Any], value: Any) -> bool:
    kind = type(spec.default)
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    # A bool is an int to Python, and a whole number may stand for any number.
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, int | float if kind is float else kind):
        return False
    low, high = spec.metadata.get("range", (None, None))
    if (low is not None and not value >= low) or (high is not None and not value <= high):  # Nor NaN.
        return False
    return value in spec.metadata.get("choices", (value,))


def _requirement(spec: Field[Any]) -> str:
    if choices := spec.metadata.get("choices"):
        return f"one of {', '.join(choices)}"
    kind = _KINDS[type(spec.default)]
    low, high = spec.metadata.get("range", (None, None))
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    return kind if low is None and high is None else f"at least {low}" if high is None else f"at most {high}"
