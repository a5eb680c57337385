# SPDX-License-Identifier: Apache-2.0
"""The losses of Eq. 1 and 2, as pure functions of maps and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from instance_flow_training.model import AFFINITY, OFFSET, OUTPUT_STRIDE
from instance_flow_training.targets import IGNORE


@dataclass(frozen=True)
class LossConfig:
    """Weights of Eq. 1. Offsets are measured in input pixels, as in the paper.

    association: ours, not the paper's: makes a pixel's attention fall on its own object (see ``association_loss``).
    background: which of center, intra and inter are held at zero on background too, instead of left free (Table V).
    """

    semantic: float = 1.0
    center: float = 100.0
    intra: float = 0.01
    inter: float = 0.01
    shape: float = 0.01
    association: float = 0.0
    background: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.background) - {"center", "intra", "inter"}
        if unknown:
            raise ValueError(f"loss.background has {', '.join(sorted(unknown))}; it takes center, intra and inter")


class BatchTargets(NamedTuple):
    """B frames with up to N objects each; fields as in ``targets.FrameTargets``, padded with absent objects.

    A tuple, as a data loader puts nothing else into the pinned memory that a GPU can copy from while it works.
    """

    semantic: Tensor
    labels: Tensor
    center: Tensor
    centers: Tensor
    weight: Tensor


def object_values(labels: Tensor, values: Tensor) -> Tensor:
    """Spread a value per object over its pixels: labels (B, h, w), values (B, N, D) -> (B, D, h, w); background 0."""
    table = F.pad(values, (0, 0, 1, 0))
    index = torch.where(labels == IGNORE, 0, labels).long().flatten(1)
    spread = torch.gather(table, 1, index[..., None].expand(-1, -1, values.shape[-1]))
    return spread.transpose(1, 2).unflatten(2, labels.shape[1:])


def offsets_to(labels: Tensor, centers: Tensor) -> Tensor:
    """Target offsets (B, 2, h, w) in cells, NaN where the object has no center; the batched ``targets.offset_map``."""
    h, w = labels.shape[-2:]
    y = torch.arange(h, dtype=torch.float32, device=labels.device)[:, None].expand(h, w)
    x = torch.arange(w, dtype=torch.float32, device=labels.device)[None, :].expand(h, w)
    return object_values(labels, centers) - torch.stack([y, x])


def masked_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the pixels with weight, 0 where there are none."""
    return (value * weight).sum() / weight.sum().clamp(min=1.0)


def cross_entropy(logits: Tensor, semantic: Tensor) -> Tensor:
    """Mean over the known pixels of (B, C + 1, H, W) logits against (B, H, W) classes; 0 where no pixel is known."""
    total = F.cross_entropy(logits, semantic.long(), ignore_index=IGNORE, reduction="sum")
    return total / (semantic != IGNORE).sum().clamp(min=1)


def association_loss(
    attention: Tensor, labels: Tensor, reference_labels: Tensor, pixel_stride: int, count: int
) -> Tensor:
    """-log of the share of a pixel's attention that falls on its own object in the reference frame, averaged.

    The offsets alone teach the keys whom to look for only through the position found, a weak signal among look-alikes.

    Args:
        attention: (P, pixels, tokens), rows sum to 1; both on grids that divide the label maps evenly.
        labels, reference_labels: (P, h, w) cells of the target and of the reference frame.
        pixel_stride: cells between two pixels of the attention's target side.   count: N, number of objects.
    """
    one_hot = F.one_hot(torch.where(reference_labels == IGNORE, 0, reference_labels).long(), count + 1)
    one_hot = one_hot[..., 1:].permute(0, 3, 1, 2).float()
    step = round((one_hot[0, 0].numel() / attention.shape[-1]) ** 0.5)
    members = (F.avg_pool2d(one_hot, step) > 0).float().flatten(2)
    own = labels[:, pixel_stride // 2 :: pixel_stride, pixel_stride // 2 :: pixel_stride].flatten(1)
    own = torch.where(own == IGNORE, 0, own).long()
    index = (own - 1).clamp(min=0)
    share = torch.matmul(attention, members.transpose(1, 2)).gather(2, index[..., None])[..., 0]
    present = members.amax(-1).gather(1, index) * (own > 0)
    return masked_mean(-torch.log(share.clamp(min=1e-4)), present)


def trajectories(centers: Tensor, other: Tensor, size: Sequence[int], width: float = 2.0) -> Tensor:
    """The affinity field of Table IV: unit vectors on the cells within ``width`` of an object's way, else 0.

    Where ways cross, the mean of their directions, as part affinity fields do.

    Args:
        centers, other: (P, N, 2) cells where the objects are in the target and in the reference frame, NaN = absent.

    Returns:
        (P, 2, h, w) float32.
    """
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32, device=centers.device) for n in size), indexing="ij")
    cells = torch.stack([y, x], -1)
    way = other - centers
    length = way.norm(dim=-1)
    unit = torch.nan_to_num(way / length[..., None].clamp(min=1e-6))
    start = cells - torch.nan_to_num(centers, nan=-1e4)[:, :, None, None]
    along = (start * unit[:, :, None, None]).sum(-1)
    across = (start[..., 0] * unit[:, :, None, None, 1] - start[..., 1] * unit[:, :, None, None, 0]).abs()
    # Those that are absent or stand still have no way; without the first condition they would be on everywhere.
    reach = torch.nan_to_num(length)[..., None, None]
    on = ((reach > 0) & (along >= 0) & (along <= reach) & (across <= width)).float()
    field = torch.einsum("pnhw,pnd->pdhw", on, unit)
    return field / on.sum(1).clamp(min=1.0)[:, None]


def losses(
    semantic: Tensor,
    center: Tensor,
    offset: Tensor,
    reference_offset: Tensor,
    attentions: Sequence[Tensor],
    targets: BatchTargets,
    target: Tensor,
    reference: Tensor,
    config: LossConfig,
    flow: str = OFFSET,
) -> dict[str, Tensor]:
    """Named terms and ``total`` (Eq. 1); background counts for the semantics alone (section IV-C, Table V).

    Args:
        semantic: (B, C + 1, h, w) logits.   center: (B, h, w).   offset: (B, 2, h, w) cells.
        reference_offset: (P, 2, h, w) cells; pair p leads from frame ``target[p]`` to frame ``reference[p]``.
        attentions: (P, pixels, tokens) per fusion level; may be none.
        flow: what ``reference_offset`` is, as in ModelConfig.
    """
    logits = F.interpolate(semantic, targets.semantic.shape[-2:], mode="bilinear", align_corners=False)
    weight = object_values(targets.labels, targets.weight[..., None])[:, 0]
    background = (targets.labels == 0).float()

    def weights(name: str, on_objects: Tensor, on_background: Tensor) -> Tensor:
        return on_objects + on_background if name in config.background else on_objects

    own = offsets_to(targets.labels, targets.centers) * (1 - background)[:, None]
    heat = targets.center * (1 - background)
    pixels = float(OUTPUT_STRIDE)
    terms = {
        "semantic": cross_entropy(logits, targets.semantic),
        "center": masked_mean((center - heat) ** 2, weights("center", weight, background)),
        "intra": masked_mean(
            (offset - torch.nan_to_num(own)).abs().sum(1) * pixels, weights("intra", weight, background)
        ),
    }
    if flow == AFFINITY:
        field = trajectories(targets.centers[target], targets.centers[reference], targets.labels.shape[-2:])
        known = (targets.labels[target] != IGNORE).float()
        terms["inter"] = masked_mean((reference_offset - field).abs().sum(1) * pixels, known)
    else:
        other = offsets_to(targets.labels[target], targets.centers[reference]) * (1 - background[target])[:, None]
        known = weight[target] * torch.isfinite(other[:, 0])
        # NaN would reach the gradient even under a zero weight.
        own, other = torch.nan_to_num(own), torch.nan_to_num(other)
        residual_error = (other - own[target]) - (reference_offset - offset[target])
        error = (reference_offset - other).abs().sum(1)
        terms["inter"] = masked_mean(error * pixels, weights("inter", known, background[target]))
        terms["shape"] = masked_mean((residual_error * pixels).square().sum(1), known)
    labels, reference_labels = targets.labels[target], targets.labels[reference]
    for attention in attentions if config.association else ():
        stride = round((labels[0].numel() / attention.shape[1]) ** 0.5)
        term = association_loss(attention, labels, reference_labels, stride, targets.centers.shape[1])
        terms["association"] = terms.get("association", torch.zeros_like(term)) + term
    total = torch.stack([getattr(config, name) * term for name, term in terms.items()]).sum()
    return {**terms, "total": total}
