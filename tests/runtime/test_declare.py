# SPDX-License-Identifier: Apache-2.0
"""A setting is declared once: what it may be, what is said of a wrong value, and what the model decides."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import pytest

from instance_flow import AssemblyConfig
from instance_flow.declare import OWN, SIZE, check, chosen, declared, from_text, setting, typed


@dataclass(frozen=True)
class Example:
    """A setting of every kind."""

    share: float = setting(0.5, "a share", 0.0, 1.0)
    count: int = setting(3, "a count", 1)
    most: int = setting(3, "a bound", high=9)
    loud: bool = setting(False, "a switch")
    name: str = setting("", "a name")
    colour: str = setting("red", "a colour", choices=("red", "blue"))
    names: tuple[str, ...] = setting((), "names")
    weight: float = setting(OWN, "a weight", OWN, 9.0, own=True)
    window: float = setting(0.0, "a window", 0.0, 1.0, own=True)
    rate: float = setting(1.0, "a rate", high=10, above=0)
    length: float = setting(1.0, "a length", 0)
    stride: int = setting(16, "a stride", choices=(16, 32))
    factors: tuple[float, ...] = setting((1.0,), "factors", 0.25, 4, empty=False)
    counts: tuple[int, ...] = setting((), "counts", 1, of=int)
    parts: tuple[str, ...] = setting((), "parts", choices=("center", "intra"))
    size: tuple[int, int] = setting((32, 64), "a size", 32, 96, step=32, parts=SIZE)
    sizes: tuple[tuple[int, int], ...] = setting(((32, 64),), "sizes", 16, 96, parts=SIZE, empty=False)
    pairs: tuple[tuple[int, int], ...] = setting((), "sizes or none", of=int, parts=SIZE)
    files: str | tuple[str, ...] = setting("", "files", several=True)
    rates: dict[str, float] = setting({}, "rates", high=10, above=0, of=float, advice="or freeze it")
    port: int = setting(0, "a port", 0, 9, advice="put it last")
    plain: object = None

    def __post_init__(self) -> None:
        check(self, "example.")


GOOD: dict[str, dict[str, Any]] = {
    "bounds are within": {"share": 1.0, "count": 1, "most": 9},
    "a whole number for a number": {"share": 1},
    "no bound on that side": {"count": 10**9, "most": -(10**9)},
    "texts": {"name": "a", "names": ("a", "b")},
    "just above": {"rate": 1e-9},
    "a number out of choices": {"stride": 32},
    "lists": {"factors": (0.25, 4), "counts": (1, 2), "parts": ("intra",)},
    "sizes": {"size": (64, 32), "sizes": ((16, 96), (17, 20)), "pairs": ((1, 2),)},
    "no entry": {"counts": (), "parts": (), "pairs": ()},
    "a text or several": {"files": ("a", "b")},
    "a table": {"rates": {"a": 0.1, "b": 10}},
    "a field of another kind": {"plain": 7},
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "above": ({"share": 1.5}, "example.share is 1.5; it must be a number from 0.0 to 1.0"),
    "not a number": ({"share": float("nan")}, "example.share is nan; it must be a number from 0.0 to 1.0"),
    "true for a number": ({"share": True}, "example.share is True; it must be a number from 0.0 to 1.0"),
    "below the only bound": ({"count": 0}, "example.count is 0; it must be at least 1"),
    "above the only bound": ({"most": 10}, "example.most is 10; it must be at most 9"),
    "half a count": ({"count": 1.5}, "example.count is 1.5; it must be at least 1"),
    "a number for a switch": ({"loud": 1}, "example.loud is 1; it must be true or false"),
    "a number for a text": ({"name": 1}, "example.name is 1; it must be a text"),
    "no choice": ({"colour": "green"}, "example.colour is 'green'; it must be one of red, blue"),
    "a number for a choice": ({"colour": 1}, "example.colour is 1; it must be one of red, blue"),
    "at the bound that is not within": (
        {"rate": 0},
        "example.rate is 0; it must be a number above 0 and at most 10",
    ),
    "infinite": ({"length": float("inf")}, "example.length is inf; it must be finite, and at least 0"),
    "no choice of numbers": ({"stride": 8}, "example.stride is 8; it must be one of 16, 32"),
    "half of a choice": ({"stride": 16.0}, "example.stride is 16.0; it must be one of 16, 32"),
    "no factor": ({"factors": ()}, "example.factors is []; it must be a list of one or more numbers from 0.25 to 4"),
    "one of the factors": (
        {"factors": (1.0, 5.0)},
        "example.factors is [1.0, 5.0]; it must be a list of one or more numbers from 0.25 to 4",
    ),
    "a number for a list": ({"counts": 1}, "example.counts is 1; it must be a list of whole numbers of at least 1"),
    "texts for counts": (
        {"counts": ("a",)},
        "example.counts is ['a']; it must be a list of whole numbers of at least 1",
    ),
    "no choice in a list": (
        {"parts": ("x",)},
        "example.parts is ['x']; it must be a list of texts out of center, intra",
    ),
    "no multiple": (
        {"size": (64, 40)},
        "example.size is [64, 40]; it must be [height, width], multiples of 32 from 32 to 96",
    ),
    "below the first multiple": (
        {"size": (0, 64)},
        "example.size is [0, 64]; it must be [height, width], multiples of 32 from 32 to 96",
    ),
    "half a size": ({"size": (64,)}, "example.size is [64]; it must be [height, width], multiples of 32 from 32 to 96"),
    "a size for sizes": (
        {"sizes": (32, 64)},
        "example.sizes is [32, 64]; it must be a list of one or more [height, width], whole numbers from 16 to 96",
    ),
    "one of the sizes": (
        {"sizes": ((32, 64), (32, 97))},
        "example.sizes is [[32, 64], [32, 97]]; it must be a list of one or more [height, width], whole numbers from "
        "16 to 96",
    ),
    "a text out of several": (
        {"files": ("a", 1)},
        "example.files is ['a', 1]; it must be a text, or a list of one or more texts",
    ),
    "no text at all": ({"files": ()}, "example.files is []; it must be a text, or a list of one or more texts"),
    "an entry of a table": (
        {"rates": {"a": 1, "b": 0}},
        "example.rates.b is 0; it must be a number above 0 and at most 10; or freeze it",
    ),
    "a number for a table": ({"rates": 1.0}, "example.rates is 1.0; it must be a table of numbers"),
    "too large for a number": ({"length": 10**400}, f"example.length is {10**400}; it must be finite, and at least 0"),
    "a text for texts": ({"names": "ab"}, "example.names is 'ab'; it must be a list of texts"),
    "numbers for texts": ({"names": (1,)}, "example.names is [1]; it must be a list of texts"),
}


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
def test_value_that_is_taken(values: dict[str, Any]) -> None:
    assert {name: getattr(Example(**values), name) for name in values} == values


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_value_that_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="it must be") as caught:
        Example(**values)
    assert str(caught.value) == message


def test_a_table_is_not_shared() -> None:
    one, other = Example(), Example()
    one.rates["a"] = 1.0
    assert asdict(other)["rates"] == {}


CHOSEN = {
    "left to the model": ({}, 7.0, 7.0),
    "anything below 0": ({"weight": -0.5}, 7.0, 7.0),
    "0 means something": ({"weight": 0.0}, 0.0, 7.0),
    "both given": ({"weight": 2.0, "window": 0.3}, 2.0, 0.3),
}


@pytest.mark.parametrize(("values", "weight", "window"), CHOSEN.values(), ids=CHOSEN)
def test_what_the_model_decides(values: dict[str, Any], weight: float, window: float) -> None:
    config = Example(**values)
    assert (chosen(config, "weight", 7.0), chosen(config, "window", 7.0)) == (weight, window)


TYPED = {
    "number": ("share", "0.25", 0.25),
    "whole number": ("count", "4", 4),
    "switch": ("loud", "false", False),
    "switch in capitals": ("loud", "True", True),
    "text": ("name", "4", "4"),
    "texts": ("names", "a,b", ("a", "b")),
    "numbers": ("factors", "0.5,1", (0.5, 1.0)),
}
MISTYPED = {
    "number": ("share", "half", "setting share needs a number, not 'half'"),
    "whole number": ("count", "4.5", "setting count needs a whole number, not '4.5'"),
    "switch": ("loud", "yes", "setting loud needs true or false, not 'yes'"),
    "numbers": ("counts", "1,a", "setting counts needs a list of whole numbers, not '1,a'"),
}


@pytest.mark.parametrize(("name", "text", "value"), TYPED.values(), ids=TYPED)
def test_what_is_typed(name: str, text: str, value: object) -> None:
    (spec,) = (spec for spec in declared(Example) if spec.name == name)
    assert from_text(spec, text) == value


@pytest.mark.parametrize(("name", "text", "message"), MISTYPED.values(), ids=MISTYPED)
def test_what_is_mistyped(name: str, text: str, message: str) -> None:
    (spec,) = (spec for spec in declared(Example) if spec.name == name)
    with pytest.raises(ValueError, match="needs") as caught:
        from_text(spec, text)
    assert str(caught.value) == message


OPTIONS = {
    "out of its range": ("share", "2", "'2' is not a number from 0.0 to 1.0"),
    "not a number": ("share", "nan", "'nan' is not a number from 0.0 to 1.0"),
    "no number": ("share", "half", "'half' is not a number from 0.0 to 1.0"),
    "ten, as Python writes it": ("most", "1_0", "'1_0' is not at most 9"),
    "5,000 digits": ("most", "9" * 5000, f"'{'9' * 5000}' is not at most 9"),
    "no choice": ("colour", "green", "'green' is not one of red, blue"),
    "no multiple": ("size", "32,40", "'32,40' is not [height, width], multiples of 32 from 32 to 96"),
    "with advice": ("port", "-1", "'-1' is not a whole number from 0 to 9; put it last"),
}


@pytest.mark.parametrize(("name", "text", "message"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_is_refused(name: str, text: str, message: str) -> None:
    (spec,) = (spec for spec in declared(Example) if spec.name == name)
    with pytest.raises(ValueError, match="is not") as caught:
        typed(spec, text)
    assert str(caught.value) == message


def test_an_option_that_is_taken() -> None:
    values = {spec.name: typed(spec, text) for spec in declared(Example) for text in [TAKEN.get(spec.name)] if text}
    assert values == {"share": 1.0, "loud": True, "size": (64, 32), "port": 9}


TAKEN = {"share": "1", "loud": "true", "size": "64,32", "port": "9"}


def test_the_words_say_what_leaves_a_setting_to_the_model() -> None:
    own = {spec.name: spec for spec in declared(AssemblyConfig) if spec.metadata["own"]}
    assert {name for name, spec in own.items() if spec.metadata["description"].endswith(". 0 = the model's own")} == {
        *("center_threshold", "center_window", "max_distance", "references", "confirm_frames")
    }
    assert {name for name, spec in own.items() if spec.metadata["description"].endswith(". -1 = the model's own")} == {
        *(
            "max_cost",
            "flow_error",
            "look_weight",
            "look_gain",
            "motion_weight",
            "motion_error",
            "class_weight",
            "gap_weight",
            "lost_cost",
        ),
        *("max_stray", "min_score"),
    }
    assert len(declared(AssemblyConfig)) == len(fields(AssemblyConfig))
