# SPDX-License-Identifier: Apache-2.0
"""The settings of the assembly: how objects are found and followed in what the network says."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from instance_flow.declare import OWN, check, chosen, of_model, setting
from instance_flow.formats.foreign_text import shown
from instance_flow.structures import MatchCosts, ModelInfo

EVIDENCE = "evidence"
NEAREST, MEAN = POLICIES = ("nearest", "mean")
"""How the distances to an identity's appearances become one: the paper's smallest, or their mean."""
_EVIDENCE = f"matching = {EVIDENCE}: "
LETTERBOX, STRETCH = FITS = ("letterbox", "stretch")
"""How a picture is brought to the network's input size."""


@dataclass(frozen=True)
class AssemblyConfig:
    """Settings of the assembly and of the tracking. Defaults of 0 or -1 take the model file's own value, with which the
    model was validated, where the setting's description says so."""

    center_threshold: float = setting(
        0.0, "Least heat of an object's center. Lower finds more objects and more ghosts", 0.0, 1.0, own=True
    )
    center_window: float = setting(
        0.0,
        "Window in which only the hottest center counts, as a fraction of sqrt(height * width) of the network's input. "
        "Larger merges close objects, smaller splits large ones",
        0.0,
        0.5,
        own=True,
    )
    max_stray: float = setting(
        OWN,
        "Farthest that a pixel's offset may lead past its object's center, in units of the root of the object's area; "
        "pixels beyond are background. Smaller cuts more stray pixels off, and more of long objects. 0 = none, as in "
        "the paper",
        OWN,
        100.0,
        own=True,
    )
    max_distance: float = setting(
        0.0,
        "matching = nearest or mean: farthest that a center carried by instance flow may lie from a reference's center "
        "and still be the same object, as a fraction of sqrt(height * width) of the network's input",
        0.0,
        1.0,
        own=True,
    )
    matching: str = setting(
        EVIDENCE,
        "What an object's identity is judged by: evidence = flow in units of its uncertainty over all references, "
        "colours, last motion, and ids lost a while ago; nearest = the smallest distance over the references, as in "
        "the paper; mean = the mean of these distances",
        choices=(EVIDENCE, *POLICIES),
    )
    max_cost: float = of_model(MatchCosts, "max_cost", _EVIDENCE)
    flow_error: float = of_model(MatchCosts, "flow_error", _EVIDENCE)
    look_weight: float = of_model(MatchCosts, "look_weight", _EVIDENCE)
    look_gain: float = of_model(MatchCosts, "look_gain", _EVIDENCE)
    motion_weight: float = of_model(MatchCosts, "motion_weight", _EVIDENCE)
    motion_error: float = of_model(MatchCosts, "motion_error", _EVIDENCE)
    class_weight: float = of_model(MatchCosts, "class_weight", _EVIDENCE)
    gap_weight: float = of_model(MatchCosts, "gap_weight", _EVIDENCE)
    lost_cost: float = of_model(MatchCosts, "lost_cost", _EVIDENCE)
    lost_frames: int = setting(
        30, "matching = evidence: number of frames for which an object that no reference shows is remembered", 0, 10_000
    )
    references: int = setting(
        0,
        "Number of reference frames, the first and the latest ones, at most as many as the model takes",
        0,
        16,
        own=True,
    )
    reference_policy: str = setting(
        "first+recent",
        "Which frames are references: the first one that shows anything and the latest ones, or the latest ones alone",
        choices=("first+recent", "recent"),
    )
    anchor_frames: int = setting(
        20,
        "reference_policy = first+recent: an object that was out of sight for more frames than this is removed from "
        "the first reference, and once it has lost more than half of its objects, all references are the latest "
        "frames. 0 = never, as in the paper",
        0,
        10_000,
    )
    resize: str = setting(
        FITS[0],
        "How an image of another shape becomes the network's input: letterbox = as a whole, with grey borders; stretch "
        "= each side by itself, which uses all of the input but bends the shapes that the network has learned",
        choices=FITS,
    )
    score: str = setting(
        "product",
        "What an object's score is: the probability of its class, the heat of its center, or their product (Eq. 6)",
        choices=("product", "semantic", "center"),
    )
    min_score: float = setting(
        OWN,
        "Least score of an object that is published; one that was published in the frame before may fall to half of "
        "it. Ids do not depend on it",
        OWN,
        1.0,
        own=True,
    )
    classes: str = setting(
        "", "Names of the classes that are published, with commas between; empty = all. Ids do not depend on it"
    )
    confirm_frames: int = setting(
        0,
        "An object is published once it was seen in so many frames in a row, at once in the first frame of a stream, "
        "and from then on whenever it is seen. Its id does not depend on it",
        0,
        1000,
        own=True,
    )
    max_instances: int = setting(100, "Most objects in one frame; the best centers are kept", 1, 1000)

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def paper(cls) -> AssemblyConfig:
        """The paper's inference (section IV-A and III-C): what no model decides, and none of what we added.

        Centers above 0.15 in a window of 41 of 640 pixels (the best of Table VII); identities by Eq. 5 alone; the first
        frame and the three before this one as references (the best of Table III), the first one for good; every object
        is published, with the score of Eq. 6. The paper gives no number for epsilon: ``max_distance`` is the model's
        own. It runs at several scales: ``Pipeline.load(..., scales=(0.5, 0.75, 1.0))``.
        """
        return cls(
            center_threshold=0.15,
            center_window=41 / 640,
            max_stray=0.0,
            matching=NEAREST,
            lost_frames=0,
            references=4,
            reference_policy="first+recent",
            anchor_frames=0,
            score="product",
            min_score=0.0,
            confirm_frames=1,
        )

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
        own = info.match_costs
        return replace(own, **{f.name: chosen(self, f.name, getattr(own, f.name)) for f in fields(MatchCosts)})
