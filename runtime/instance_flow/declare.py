# SPDX-License-Identifier: Apache-2.0
"""A setting, declared once: type, range, words and choices, of which its check, parameter and option are made."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import Field, field, fields
from typing import Any

OWN = -1.0
"""Value of a setting, for which 0 means something, that is left to the model."""
SIZE = ("height", "width")
"""``parts`` of a size in pixels."""
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts"}


def setting(
    default: Any,
    description: str = "",
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    step: int | None = None,
    choices: Iterable[Any] = (),
    of: type | None = None,
    parts: Iterable[str] = (),
    empty: bool = True,
    several: bool = False,
    advice: str = "",
    own: bool = False,
) -> Any:
    """A field of a frozen dataclass; the default's type is the setting's: bool, int, float, str, tuple or dict.

    What is said of a value holds for every entry of a tuple or dict. A number is finite, whatever its bounds.

    Args:
        low, high: bounds of a number, both within; None = none.   above: bound of a number that is not within.
        step: a whole number is a multiple of it; needs low and high.   choices: all values that it may have; () = any.
        of: type of the entries of a tuple or dict; that of the default's entries, and str without any.
        parts: names of the entries of a tuple of fixed length, such as SIZE. Where the default is () or holds tuples,
            the setting is a tuple of such tuples.   empty: a tuple may be ().
        several: of a text: a tuple of one or more texts will do.   advice: what to do, for who set something else.
        own: the default, and any value below 0, leaves the setting to the model (``chosen``); the description says so.
    """
    if own:
        description += f". {default:g} = the model's own"
    parts, entry = tuple(parts), default
    while isinstance(entry, tuple | dict) and entry:
        entry = next(iter(entry.values() if isinstance(entry, dict) else entry))
    metadata: dict[str, Any] = {
        "description": description,
        "own": own,
        "kind": type(default),
        "of": of or (str if isinstance(entry, tuple | dict) else type(entry)),
        "depth": isinstance(default, tuple) + bool(parts and (not default or isinstance(default[0], tuple))),
        "above": above,
        "step": step,
        "parts": parts,
        "empty": empty and not several,
        "several": several,
        "advice": advice,
    }
    if low is not None or high is not None:
        metadata["range"] = (low, high)
    if choices:
        metadata["choices"] = tuple(choices)
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def of_model(owner: type, name: str, before: str = "") -> Any:
    """A setting that, unless it is set, is that of the same name of ``owner``, which the model gives.

    before: put before its description.
    """
    metadata = owner.__dataclass_fields__[name].metadata  # type: ignore[attr-defined]
    return setting(OWN, before + metadata["description"], OWN, metadata["range"][1], own=True)


def declared(config: Any) -> list[Field[Any]]:
    """The fields of a dataclass, or of its type, that ``setting`` made."""
    return [spec for spec in fields(config) if "description" in spec.metadata]


def check(config: Any, prefix: str = "") -> None:
    """Raises ValueError for the first setting that is of another type, out of its range, or none of its choices.

    prefix: put before the setting's name, such as ``"model."``.
    """
    for spec in declared(config):
        name, value, advice = prefix + spec.name, getattr(config, spec.name), spec.metadata["advice"]
        if spec.metadata["kind"] is dict and not isinstance(value, dict):
            raise ValueError(f"{name} is {_as_list(value)!r}; it must be a table of {_SEVERAL[spec.metadata['of']]}")
        entries = {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
        for name, entry in entries.items():
            if not _fits(spec, entry):
                wanted = requirement(spec, entry) + (advice and f"; {advice}")
                raise ValueError(f"{name} is {_as_list(entry)!r}; it must be {wanted}")


def chosen(config: Any, name: str, own: Any) -> Any:
    """The value of a setting, or ``own``, the model's, where it is left to the model."""
    (spec,) = (spec for spec in declared(config) if spec.name == name and spec.metadata["own"])
    value = getattr(config, name)
    return own if value < 0 or value == spec.default else value


def from_text(spec: Field[Any], text: str) -> Any:
    """The value of a setting from what was typed; its range is left to ``check``. Raises ValueError."""
    kind, of = spec.metadata["kind"], spec.metadata["of"]
    try:
        return tuple(_parsed(of, part) for part in text.split(",")) if kind is tuple else _parsed(of, text)
    except (KeyError, ValueError) as error:
        what = f"a list of {_SEVERAL[of]}" if kind is tuple else _KINDS[kind]
        raise ValueError(f"setting {spec.name} needs {what}, not {text!r}") from error


def typed(spec: Field[Any], text: str) -> Any:
    """The value of a setting from what was typed, within its range; its ValueError does not name the setting."""
    try:
        value = from_text(spec, text)
    except ValueError:
        value = None  # Fits nothing.
    if value is None or not _fits(spec, value):
        advice = spec.metadata["advice"] and f"; {spec.metadata['advice']}"
        raise ValueError(f"{text!r} is not {requirement(spec)}{advice}")
    return value


def requirement(spec: Field[Any], value: Any = None) -> str:
    """What a setting must be, such as "a number from 0 to 1".   value: what was found in its place."""
    rules = spec.metadata
    depth, parts, of = rules["depth"], rules["parts"], rules["of"]
    low, high = rules.get("range", (None, None))
    above, step, choices = rules["above"], rules["step"], rules.get("choices")
    nouns = _SEVERAL if depth else _KINDS
    if choices:
        names = ", ".join(str(choice) or "''" for choice in choices)
        each = f"{_SEVERAL[of]} out of {names}" if depth else f"one of {names}"
    elif step is not None:
        each = f"{'multiples' if depth else 'a multiple'} of {step} from {low} to {high}"
    elif above is not None:
        each = f"{nouns[of]} above {above}" + ("" if high is None else f" and at most {high}")
    elif low is not None and high is not None:
        each = f"{nouns[of]} from {low} to {high}"
    elif low is None and high is None:
        each = nouns[of]
    else:
        bound = f"at least {low}" if high is None else f"at most {high}"
        each = f"{nouns[of]} of {bound}" if depth else bound
    if high is None and not _finite(value):
        each = f"finite, and {each}"
    if not depth:
        return f"{each}, or a list of one or more {_SEVERAL[of]}" if rules["several"] else each
    inner = f"[{', '.join(parts)}], {each}" if parts else each
    if depth == 1 and parts:
        return inner
    return f"a list of {inner}" if rules["empty"] else f"a list of one or more {inner}"


def _fits(spec: Field[Any], value: Any, depth: int | None = None) -> bool:
    rules = spec.metadata
    if depth is None:
        if isinstance(value, tuple) and not value and not rules["empty"]:
            return False
        depth = rules["depth"] or int(rules["several"] and isinstance(value, tuple))
    if depth:
        if not isinstance(value, tuple) or (depth == 1 and rules["parts"] and len(value) != len(rules["parts"])):
            return False
        return all(_fits(spec, entry, depth - 1) for entry in value)
    # A bool is an int to Python, and a whole number may stand for any number.
    kind = rules["of"]
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, int | float if kind is float else kind):
        return False
    low, high = rules.get("range", (None, None))
    above, step = rules["above"], rules["step"]
    if kind is float and not _finite(value):
        return False
    if (low is not None and value < low) or (high is not None and value > high):
        return False
    if (above is not None and value <= above) or (step is not None and value % step):
        return False
    return value in rules.get("choices", (value,))


def _finite(value: Any) -> bool:
    """False for NaN, infinity, and a whole number that is too large for a float."""
    return not isinstance(value, int | float) or abs(value) <= sys.float_info.max


def _parsed(kind: Any, text: str) -> Any:
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    if kind is not str and "_" in text:  # Python takes 1_0 for ten.
        raise ValueError(text)
    return kind(text)


def _as_list(value: Any) -> Any:
    """Tuples as the lists that they are in files and on command lines."""
    return [_as_list(entry) for entry in value] if isinstance(value, tuple) else value
