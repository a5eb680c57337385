# SPDX-License-Identifier: Apache-2.0
"""What passes between the parts of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

OUTPUT_STRIDE = 4


class Pyramid(NamedTuple):
    """deepest: (B, C, H / s, W / s) with s the backbone's output stride; skips: deepest first, the last at stride 4.

    instance_deepest: what the instance branch has in place of ``deepest``; the same without a detector.
    detected: the detector's features by stride; empty without one.
    """

    deepest: Tensor
    skips: Sequence[Tensor]
    instance_deepest: Tensor
    detected: Mapping[int, Tensor]


class IntraMaps(NamedTuple):
    """semantic (B, C + 1, h, w) logits; center (B, h, w); offset (B, 2, h, w) in cells; all at stride 4."""

    semantic: Tensor
    center: Tensor
    offset: Tensor


def class_probabilities(logits: Tensor) -> Tensor:
    """Soft maximum over the classes, (B, C + 1, h, w). ONNX Runtime's own takes three times as long on a CPU where the
    classes are not the last axis."""
    raised = (logits - logits.amax(1, keepdim=True)).exp()
    return raised / raised.sum(1, keepdim=True)


class Boxes(NamedTuple):
    """K boxes of each of B images, surest first; places (y, x) and half sizes (height, width) in cells of stride 4.

    classes: (B, C, K) probabilities.   center, half: (B, 2, K).   score: (B, K), 0 for no box.
    """

    classes: Tensor
    center: Tensor
    half: Tensor
    score: Tensor


class Claims(NamedTuple):
    """Which cells are whose.

    suits: (B, h * w, K) logits of a cell's choice between the ``boxes``.   chosen: (B, h * w) which of them it chose.
    inside: (B, h, w) how far inside of that one it lies, 0 .. 1.
    belongs: (B, h, w) logits of its belonging to the object of that one.
    """

    boxes: Boxes
    suits: Tensor
    chosen: Tensor
    inside: Tensor
    belongs: Tensor


class Frames(NamedTuple):
    """What the inter-frame branch sees of B frames.

    stages: of the instance decoder, (B, C, h, w) each: its ASPP's output, then after each skip connection.
    maps: as deployed.   learned: what the losses see, the same without a detector.
    foreground: (B, h, w) probability that a cell is not background.
    claims: of the detector's boxes, None without a detector.
    """

    pyramid: Pyramid
    stages: Sequence[Tensor]
    maps: IntraMaps
    learned: IntraMaps
    foreground: Tensor
    claims: Claims | None = None


class FlowMaps(NamedTuple):
    """What the inter-frame branch says of P pairs of a target and a reference frame.

    reference_offset: (P, 2, h, w) in cells of stride 4 (a direction with ``flow = affinity``).
    attentions: per fusion level (P, pixels, tokens), rows sum to 1; none for a fusion without attention.
    token_flow: (P, 2, K) input pixels, the flow of each object token; None for the dense branch.
    """

    reference_offset: Tensor
    attentions: Sequence[Tensor]
    token_flow: Tensor | None = None


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Cells ``index`` (B, K) of maps (B, C, h, w), or of a table (B, C, N): (B, C, K)."""
    return x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1))
