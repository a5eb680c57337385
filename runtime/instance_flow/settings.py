# SPDX-License-Identifier: Apache-2.0
"""The settings of the assembly: how objects are found and followed in what the network says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from instance_flow.formats.foreign_text import shown
from instance_flow.structures import MatchCosts, ModelInfo

EVIDENCE = "evidence"
NEAREST, MEAN = POLICIES = ("nearest", "mean")
"""How the distances to an identity's appearances become one: the paper's smallest, or their mean."""
LETTERBOX, STRETCH = FITS = ("letterbox", "stretch")
"""How a picture is brought to the network's input size."""
OWN = -1.0
"""Value of a setting, for which 0 means something, that is left to the model."""


def _setting(default: Any, low: float, high: float, description: str) -> Any:
    return field(default=default, metadata={"description": description, "range": (low, high)})


def _choice(choices: Sequence[str], default: str, description: str) -> Any:
    return field(default=default, metadata={"description": description, "choices": tuple(choices)})


@dataclass(frozen=True)
class AssemblyConfig:
    """What an engineer may turn. 0 leaves a setting to the model file, which knows what it was validated with."""

    center_threshold: float = _setting(
        0.0, 0.0, 1.0, "Least heat of an object's center. Lower finds more objects and more ghosts. 0 = the model's own"
    )
    center_window: float = _setting(
        0.0,
        0.0,
        0.5,
        "Window in which only the hottest center counts, as a fraction of sqrt(height * width) of the network's input. "
        "Larger merges close objects, smaller splits large ones. 0 = the model's own",
    )
    max_distance: float = _setting(
        0.0,
        0.0,
        1.0,
        "matching = nearest or mean: farthest that a center carried by instance flow may lie from a reference's center "
        "and still be the same object, as a fraction of sqrt(height * width) of the network's input. 0 = the model's "
        "own",
    )
    matching: str = _choice(
        (EVIDENCE, *POLICIES),
        EVIDENCE,
        "What an object's identity is judged by: evidence = flow in units of its uncertainty over all references, "
        "colours, last motion, and ids lost a while ago; nearest = the smallest distance over the references, as in "
        "the paper; mean = the mean of these distances",
    )
    max_cost: float = _setting(
        OWN,
        OWN,
        50.0,
        "matching = evidence: bound of the cost; lower gives more new ids, higher more wrong ones. Far and alike may "
        "cost as little as near and unlike: no distance alone rules a match out. -1 = the model's own",
    )
    flow_error: float = _setting(
        OWN,
        OWN,
        1.0,
        "matching = evidence: what flow misses by even where the pixels of an object agree on it, as a fraction of "
        "sqrt(height * width) of the network's input. -1 = the model's own",
    )
    look_weight: float = _setting(
        OWN, OWN, 50.0, "matching = evidence: weight of unlike colours; 0 = colours do not count. -1 = the model's own"
    )
    look_gain: float = _setting(
        OWN, OWN, 1000.0, "matching = evidence: how soon colours count as unlike. -1 = the model's own"
    )
    motion_weight: float = _setting(
        OWN,
        OWN,
        50.0,
        "matching = evidence: weight of the distance from where the last motion leads; 0 = it does not count. -1 = the "
        "model's own",
    )
    motion_error: float = _setting(
        OWN,
        OWN,
        1000.0,
        "matching = evidence: how far an object strays from its last motion in one frame, in units of flow_error. -1 = "
        "the model's own",
    )
    lost_cost: float = _setting(
        OWN,
        OWN,
        50.0,
        "matching = evidence: cost of an id that no reference shows, in place of the flow's. -1 = the model's own",
    )
    lost_frames: int = _setting(
        30, 0, 10_000, "matching = evidence: for so many frames an object that no reference shows is still remembered"
    )
    references: int = _setting(
        0, 0, 16, "Number of reference frames: the first and the latest ones. 0 = the model's own, which is the most"
    )
    reference_policy: str = _choice(
        ("first+recent", "recent"),
        "first+recent",
        "Which frames are references: the first one that shows anything and the latest ones, or the latest ones alone",
    )
    anchor_frames: int = _setting(
        20,
        0,
        10_000,
        "reference_policy = first+recent: an object that was out of sight for more frames than this is removed from "
        "the first reference, and once it has lost more than half of its objects, all references are the latest "
        "frames. 0 = never, as in the paper",
    )
    resize: str = _choice(
        FITS,
        FITS[0],
        "How an image of another shape becomes the network's input: letterbox = as a whole, with grey borders; stretch "
        "= each side by itself, which uses all of the input but bends the shapes that the network has learned",
    )
    score: str = _choice(
        ("product", "semantic", "center"),
        "product",
        "What an object's score is: the probability of its class, the heat of its center, or their product (Eq. 6)",
    )
    min_score: float = _setting(
        OWN,
        OWN,
        1.0,
        "Least score of an object that is published; one that was published in the frame before may fall to half of "
        "it. Ids do not depend on it. -1 = the model's own",
    )
    classes: str = field(
        default="",
        metadata={
            "description": "Names of the classes that are published, with commas between; empty = all. Ids do not "
            "depend on it"
        },
    )
    confirm_frames: int = _setting(
        0,
        0,
        1000,
        "An object is published once it was seen in so many frames in a row, at once in the first frame of a stream, "
        "and from then on whenever it is seen. Its id does not depend on it. 0 = the model's own",
    )
    max_instances: int = _setting(100, 1, 1000, "Most objects in one frame; the best centers are kept")

    def __post_init__(self) -> None:
        for name, spec in self.__dataclass_fields__.items():
            value, choices = getattr(self, name), spec.metadata.get("choices")
            if "range" in spec.metadata:
                _check_number(name, value, *spec.metadata["range"], whole=isinstance(spec.default, int))
            elif choices is None and not isinstance(value, str):
                raise ValueError(f"{name} is {value!r}; it must be a text")
            elif choices is not None and value not in choices:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")

    def check(self, info: ModelInfo) -> None:
        """Raises ValueError where a model cannot have these settings."""
        if self.references > info.max_references:
            raise ValueError(f"references is {self.references}, but this model takes at most {info.max_references}")
        self.class_ids(info)

    def class_ids(self, info: ModelInfo) -> list[int]:
        """The classes that are published. Raises ValueError for a name that the model does not know."""
        names = [name.strip() for name in self.classes.split(",") if name.strip()]
        unknown = [name for name in names if name not in info.class_names]
        if unknown:
            known = shown(", ".join(info.class_names), 1000)
            raise ValueError(f"classes names '{shown(unknown[0])}'; this model knows {known}")
        return [k for k, name in enumerate(info.class_names) if not names or name in names]

    def match_costs(self, info: ModelInfo) -> MatchCosts:
        """The model's, but for those that are set here."""
        own = {f.name: getattr(self, f.name) for f in fields(MatchCosts)}
        return replace(info.match_costs, **{name: value for name, value in own.items() if value >= 0})


def _check_number(name: str, value: Any, low: float, high: float, *, whole: bool) -> None:
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise ValueError(f"{name} is {value!r}; it must be a {kind} from {low} to {high}")
