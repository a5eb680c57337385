# SPDX-License-Identifier: Apache-2.0
"""What the paper's Tables II to VII compare: which networks are trained, how each row assembles, what the paper got."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

OURS: dict[str, Any] = {"references": 4, "matching": "nearest", "center_threshold": 0.15, "center_window": 0.14}
"""The settings that a row changes. The window is the bundled model's; the paper's 41 pixels of 640 are less than a
heat's peak on images this small."""

PRETRAINING = ("warmup=200", "loss.inter=0.0", "loss.shape=0.0", "loss.association=0.0")

VARIANTS: dict[str, tuple[str, ...]] = {
    "ours": (),
    # The first frame serves as a reference all along, so the network should have learnt far references.
    "far_references": ("data.reference_frames=anywhere",),
    "concat_convs": ("model.fusion=concat_convs",),
    "concat_aspp": ("model.fusion=concat_aspp",),
    "no_shape": ("loss.shape=0.0",),
    # A unit vector is small beside an offset in pixels, so its loss weighs more.
    "affinity": ("model.flow=affinity", "loss.inter=1.0"),
    "background_center": ('loss.background=["center"]',),
    "background_offsets": ('loss.background=["intra", "inter"]',),
    "background_all": ('loss.background=["center", "intra", "inter"]',),
    "no_association": ("loss.association=0.0",),
    "no_context": ("model.fusion_context=false",),
    "object_tokens": (
        *("model.object_tokens=64", "init.inter_from_intra=false"),
        "data.reference_frames=anywhere",
    ),
    "half_the_keys": ("model.token_stride=16", "data.reference_frames=anywhere"),
}
"""Settings of each network that is trained."""


@dataclass(frozen=True)
class Row:
    """label: as in the paper.   paper: its mAP and AP75, None where it has no such row.   variant: of VARIANTS.

    assembly: settings of AssemblyConfig.   matcher: flow, average, iou or affinity.
    measures_flow: whether the flow's error on true masks belongs to it; then to all rows of its table.
    """

    label: str
    paper: tuple[float, float] | None = None
    variant: str = "ours"
    assembly: dict[str, Any] = field(default_factory=dict)
    matcher: str = "flow"
    measures_flow: bool = False

    @property
    def key(self) -> str:
        """Names what is scored, whatever the table."""
        flow = ["flow"] if self.measures_flow else []
        text = json.dumps([OURS | self.assembly, self.matcher, *flow], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Table:
    """A table of the paper, or one of ours in its manner."""

    title: str
    rows: tuple[Row, ...]


def _references(paper: tuple[float, float], label: str, **assembly: Any) -> tuple[Row, ...]:
    evidence = Row(f"{label}, by evidence (ours)", None, "far_references", {**assembly, "matching": "evidence"})
    return Row(label, paper, "far_references", assembly), evidence


TABLES = {
    "II": Table(
        "Table II: fusion of the frames",
        (
            Row("Concat + convs", (30.5, 32.0), "concat_convs"),
            Row("Concat + cascade ASPP", (31.0, 32.6), "concat_aspp"),
            Row("TCF", (34.1, 37.6)),
        ),
    ),
    "III": Table(
        "Table III: reference frames",
        (
            *_references((26.2, 25.4), "1 adjacent", references=1, reference_policy="recent"),
            *_references((28.0, 28.9), "First + 1", references=2),
            *_references((33.4, 37.4), "First + 2", references=3),
            *_references((34.1, 37.6), "First + 3", references=4),
            *_references((32.2, 36.1), "First + 4", references=5),
        ),
    ),
    "IV": Table(
        "Table IV: estimation of the flow",
        (
            Row("Affinity field", (23.3, 24.1), "affinity", matcher="affinity"),
            Row("Inter-frame offset, IoU", (26.0, 27.0), "no_shape", matcher="iou"),
            Row("Inter-frame offset, average", (30.4, 31.4), "no_shape", matcher="average"),
            Row("Offset residual", (32.6, 36.0), "no_shape"),
            Row("Offset residual + shape loss", (34.1, 37.6)),
        ),
    ),
    "V": Table(
        "Table V: supervision of the background",
        (
            Row("Center", (32.2, 34.3), "background_center"),
            Row("Both offsets", (29.2, 30.6), "background_offsets"),
            Row("Center and both offsets", (28.1, 28.1), "background_all"),
            Row("None", (34.1, 37.6)),
        ),
    ),
    "VI": Table(
        "Table VI: score",
        (
            Row("Semantic", (33.8, 37.5), assembly={"score": "semantic"}),
            Row("Center", (33.5, 37.3), assembly={"score": "center"}),
            Row("Product", (34.1, 37.6)),
        ),
    ),
    "VII": Table(
        "Table VII: window and threshold of the centers",
        tuple(
            Row(f"{name}, threshold {threshold}", paper, assembly={"center_window": w, "center_threshold": threshold})
            for name, w, threshold, paper in (
                ("Half window", 0.07, 0.05, (32.0, 36.1)),
                ("Half window", 0.07, 0.15, (33.9, 37.4)),
                ("Half window", 0.07, 0.25, (33.6, 36.7)),
                ("Whole window", 0.14, 0.05, (32.1, 36.1)),
                ("Whole window", 0.14, 0.15, (34.1, 37.6)),
                ("Whole window", 0.14, 0.25, (33.9, 37.1)),
            )
        ),
    ),
    "ours": Table(
        "What we added to the paper's network",
        (
            Row("Without association loss", variant="no_association"),
            Row("Without the intra decoder's features in the fusion", variant="no_context"),
            Row("With both"),
            Row("With both, mean of the distances", assembly={"matching": "mean"}),
            Row("With both, by evidence", assembly={"matching": "evidence"}),
            Row("With both, by evidence, trained on far references", None, "far_references", {"matching": "evidence"}),
        ),
    ),
    "tokens": Table(
        "The inter-frame branch: dense, and over object tokens",
        tuple(
            Row(label, None, variant, {"matching": "evidence"}, measures_flow=True)
            for label, variant in (
                ("TCF, keys at stride 8", "far_references"),
                ("TCF, keys at stride 16", "half_the_keys"),
                ("64 object tokens", "object_tokens"),
            )
        ),
    ),
}
