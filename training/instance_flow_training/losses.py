# SPDX-License-Identifier: Apache-2.0
"""The losses of Eq. 1 and 2, as pure functions of maps and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from instance_flow.declare import check, setting
from instance_flow_training.network.boxes import intersections
from instance_flow_training.network.maps import OUTPUT_STRIDE, Boxes, Claims, FlowMaps, IntraMaps
from instance_flow_training.network.model import AFFINITY, OFFSET
from instance_flow_training.targets import IGNORE

MEDIUM_AREA = (96 / 640) ** 2
"""COCO's upper end of medium objects, as a share of the paper's 640 x 640 crop."""
_WEIGHT = (0, 1_000_000)


@dataclass(frozen=True)
class LossConfig:
    """Weights of Eq. 1. Offsets are measured in input pixels, as in the paper."""

    semantic: float = setting(1.0, "weight of the class maps", *_WEIGHT)
    center: float = setting(100.0, "weight of the center heat", *_WEIGHT)
    intra: float = setting(0.01, "weight of the offsets within a frame", *_WEIGHT)
    inter: float = setting(0.01, "weight of the offsets between frames", *_WEIGHT)
    shape: float = setting(
        0.01,
        "weight of the shape consistency: the squared error of the difference between a pixel's two offsets (Eq. 2); "
        "none with object tokens",
        *_WEIGHT,
    )
    association: float = setting(
        0.0,
        "ours, not the paper's: weight of what makes a pixel's attention fall on its own object (association_loss)",
        *_WEIGHT,
    )
    distil: float = setting(
        0.0,
        "ours too: weight of the class maps of DeepLab V3 on MobileNetV2 where nothing is labelled or it agrees. A "
        "small set forgets what the weights knew of pictures that it does not show. It is asked of the first frame of "
        "each clip",
        *_WEIGHT,
    )
    teacher: str = setting("", "with distil: the .safetensors file of DeepLab's weights")
    teacher_scales: tuple[float, ...] = setting(
        (1.0,),
        "sizes of the picture that the teacher looks at, as shares of the clip's; the mean of what it says is learned. "
        "A larger picture shows it the small objects that it misses at the size of the clip",
        0.25,
        4,
        empty=False,
    )
    focal_center: bool = setting(
        False,
        "the focal loss in place of the mean square, for model.center_sigmoid: centers are so few that their mean "
        "square is small when all of them are missed",
    )
    hard_pixels: float = setting(
        1.0,
        "share of the known pixels, the hardest, that the semantics are learned from; those of small objects weigh "
        "more among them. 1 = all alike, as in the paper",
        high=1,
        above=0,
    )
    semantic_stride: int = setting(1, "every so many pixels is taken for the semantics", choices=(1, 2, 4))
    small_objects: float = setting(
        1.0,
        "largest weight of an object's pixels in the semantics; it grows with the inverse root of the object's area, "
        "from 1 at COCO's upper end of medium ones (96 x 96 of 640 x 640). 1 = all alike, as in the paper",
        1,
        1000,
    )
    owner: float = setting(
        0.0,
        "ours, with a detector: weight of which object's box a cell chooses, and of which cells of a box belong to its "
        "object",
        *_WEIGHT,
    )
    background: tuple[str, ...] = setting(
        (),
        "which of these are held at zero on background too, instead of left free (Table V)",
        choices=("center", "intra", "inter"),
    )

    def __post_init__(self) -> None:
        check(self, "loss.")
        if bool(self.distil) != bool(self.teacher):
            raise ValueError("loss.distil and loss.teacher belong together: a weight and the .safetensors file")


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


def offset_maps(labels: Tensor, centers: Tensor) -> Tensor:
    """``targets.target_offset_map`` of a batch, on its device: (B, 2, h, w) in cells, NaN without a center."""
    h, w = labels.shape[-2:]
    y = torch.arange(h, dtype=torch.float32, device=labels.device)[:, None].expand(h, w)
    x = torch.arange(w, dtype=torch.float32, device=labels.device)[None, :].expand(h, w)
    return object_values(labels, centers) - torch.stack([y, x])


def masked_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the pixels with weight, 0 where there are none."""
    return (value * weight).sum() / weight.sum().clamp(min=1.0)


def cross_entropy(logits: Tensor, semantic: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the known pixels of (B, C + 1, H, W) logits against (B, H, W) classes; 0 where no pixel is known."""
    loss = F.cross_entropy(logits, semantic.long(), ignore_index=IGNORE, reduction="none")
    known = (semantic != IGNORE).float()
    return masked_mean(loss, known if weight is None else known * weight)


def object_cells(labels: Tensor, count: int) -> Tensor:
    """Which cells of labels (B, h, w) are of which of ``count`` objects: (B, h, w, N), 0 or 1; unknown of none."""
    return F.one_hot(torch.where(labels == IGNORE, 0, labels).long(), count + 1)[..., 1:]


def size_weights(labels: Tensor, count: int, largest: float) -> Tensor:
    """Weights (B, h, w) of 1 .. ``largest`` for the cells of ``count`` objects, see ``LossConfig.small_objects``."""
    share = object_cells(labels, count).float().mean((1, 2)).clamp(min=1e-6)
    weight = (MEDIUM_AREA / share).sqrt().clamp(1.0, largest)
    return object_values(labels, weight[..., None])[:, 0].clamp(min=1.0)


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
    one_hot = object_cells(reference_labels, count).permute(0, 3, 1, 2).float()
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


def focal_loss(center: Tensor, heat: Tensor, weight: Tensor, count: Tensor) -> Tensor:
    """Penalty-reduced focal loss of a heat map (CornerNet, Law and Deng 2018), per object.

    Args:
        center: (B, h, w) probabilities.   heat: (B, h, w) targets, 1 at a center.
        weight: (B, h, w), 0 where nothing is known.   count: number of centers.
    """
    p = center.clamp(1e-4, 1 - 1e-4)
    is_center = (heat >= 1).float()
    there = is_center * (1 - p).square() * torch.log(p)
    elsewhere = (1 - is_center) * (1 - heat).pow(4) * p.square() * torch.log(1 - p)
    return -((there + elsewhere) * weight).sum() / count.clamp(min=1)


def objects_of(boxes: Boxes, labels: Tensor, count: int) -> Tensor:
    """Which of ``count`` objects of labels (B, h, w) each box is of: (B, K), n + 1 or 0 for none.

    A box is an object's where they share half of their union.
    """
    there = object_cells(labels, count) > 0
    low, high = [], []
    for lines in (there.any(2), there.any(1)):
        lines = lines.transpose(1, 2)
        low.append(lines.float().argmax(-1))
        high.append(lines.shape[-1] - lines.flip(-1).float().argmax(-1))
    # Cell n reaches from n - 1/2 to n + 1/2.
    own_low, own_high = (torch.stack(side, 1).float() - 0.5 for side in (low, high))
    shared = intersections(own_low, own_high, boxes.center - boxes.half, boxes.center + boxes.half)
    union = (own_high - own_low).prod(1)[..., None] + 4 * boxes.half.prod(1)[:, None] - shared
    overlap = shared / union * there.flatten(1, 2).any(1)[..., None]
    most, which = overlap.max(1)
    return torch.where(most > 0.5, which + 1, 0)


def mistaken_cells(claims: Claims, of_box: Tensor, labels: Tensor) -> Tensor:
    """Cells of objects in a box of another object, and cells of background in a box of no object: (B, h, w) bool.

    What a box of no object claims is what its object would have if there were one; whether there is, its score says.

    of_box: (B, K) as of ``objects_of``.   labels: (B, h, w).
    """
    chosen = of_box.gather(1, claims.chosen).view_as(labels)
    wrong = torch.where(labels == 0, chosen == 0, (chosen > 0) & (chosen != labels))
    return wrong & (claims.inside > 0.5)


def owner_loss(claims: Claims, of_box: Tensor, labels: Tensor, count: int) -> Tensor:
    """Cross entropy of the choice that the cells of objects make between the boxes, where one is theirs, and of which
    cells inside of the box of an object belong to it. The cells of a small object weigh more.

    of_box: (B, K) as of ``objects_of``.   labels: (B, h, w) of ``count`` objects.
    """
    known = labels != IGNORE
    label = torch.where(known, labels, 0).long().flatten(1)
    own = of_box[:, None] == label[..., None]
    there = own.any(-1) & (label > 0)
    sizes = object_cells(labels, count).sum((1, 2)).clamp(min=1).float()
    weight = object_values(labels, sizes.rsqrt()[..., None])[:, 0].flatten(1)
    chosen = claims.suits.masked_fill(~own, -torch.inf).logsumexp(-1) - claims.suits.logsumexp(-1)
    chosen = torch.where(there, chosen, 0)
    of_chosen = of_box.gather(1, claims.chosen).view_as(labels)
    inside = (claims.inside > 0.5) & (of_chosen > 0) & known
    wanted = (of_chosen == labels).float()
    belongs = F.binary_cross_entropy_with_logits(claims.belongs.float(), wanted, reduction="none")
    return masked_mean(-chosen, there.float() * weight) + masked_mean(belongs, inside.float())


def semantic_loss(
    logits: Tensor, targets: BatchTargets, weight: Tensor, config: LossConfig, mistaken: Tensor | None = None
) -> Tensor:
    """Cross entropy over the known pixels, or over the hardest of them (``LossConfig.hard_pixels``).

    mistaken: (B, h, w) as of ``mistaken_cells``; these do not count.
    """
    step = config.semantic_stride
    truth = targets.semantic[:, step // 2 :: step, step // 2 :: step]

    def of_pixels(cells: Tensor) -> Tensor:
        return F.interpolate(cells[:, None], truth.shape[-2:])[:, 0]

    if mistaken is not None:
        truth = torch.where(of_pixels(mistaken.float()) > 0, IGNORE, truth)
    logits = F.interpolate(logits, truth.shape[-2:], mode="bilinear", align_corners=False)
    if config.hard_pixels == 1:
        if config.small_objects == 1:
            return cross_entropy(logits, truth)
        sizes = size_weights(targets.labels, targets.weight.shape[1], config.small_objects)
        return cross_entropy(logits, truth, of_pixels(sizes))
    loss = F.cross_entropy(logits, truth.long(), ignore_index=IGNORE, reduction="none")
    loss = loss * of_pixels(weight).clamp(min=1.0)
    known = int((truth != IGNORE).sum())
    return loss.flatten().topk(max(1, round(config.hard_pixels * known))).values.mean()


def distillation(logits: Tensor, soft: Tensor, targets: BatchTargets) -> Tensor:
    """Cross entropy of (B, C + 1, h, w) logits against a teacher's probabilities (n, C + 1, h, w) of every (B / n)th
    frame, where nothing is labelled or the teacher agrees.

    Where it does not, the label is right: teachers miss small objects, and classes that they do not know.
    """
    every = len(logits) // len(soft)
    logits = logits[::every]
    semantic = targets.semantic[
        ::every, OUTPUT_STRIDE // 2 :: OUTPUT_STRIDE, OUTPUT_STRIDE // 2 :: OUTPUT_STRIDE
    ].long()
    counts = (semantic == IGNORE) | (semantic == soft.argmax(1))
    return masked_mean(-(soft * logits.log_softmax(1)).sum(1), counts.float())


def intra_losses(
    maps: IntraMaps,
    targets: BatchTargets,
    config: LossConfig,
    soft: Tensor | None = None,
    claims: Claims | None = None,
) -> dict[str, Tensor]:
    """Terms of one frame; background counts for the semantics alone unless ``config.background`` says otherwise.

    soft: what a teacher says of every so many of the frames, (n, C + 1, h, w) probabilities.
    claims: of a detector's boxes.
    """
    weight = object_values(targets.labels, targets.weight[..., None])[:, 0]
    background = (targets.labels == 0).float()

    def weights(name: str) -> Tensor:
        return weight + background if name in config.background else weight

    own = offset_maps(targets.labels, targets.centers) * (1 - background)[:, None]
    heat = targets.center * (1 - background)
    pixels = float(OUTPUT_STRIDE)
    if config.focal_center:
        center = focal_loss(maps.center, heat, weights("center"), (heat >= 1).sum())
    else:
        center = masked_mean((maps.center - heat) ** 2, weights("center"))
    mistaken, owner = None, {}
    if claims is not None:
        count = targets.weight.shape[1]
        of_box = objects_of(claims.boxes, targets.labels, count)
        mistaken = mistaken_cells(claims, of_box, targets.labels)
        if config.owner:
            owner["owner"] = owner_loss(claims, of_box, targets.labels, count)
    terms = {
        "semantic": semantic_loss(maps.semantic, targets, weight, config, mistaken),
        "center": center,
        "intra": masked_mean((maps.offset - torch.nan_to_num(own)).abs().sum(1) * pixels, weights("intra")),
        **owner,
    }
    if soft is not None:
        terms["distil"] = distillation(maps.semantic, soft, targets)
    return terms


def dense_losses(
    offset: Tensor,
    maps: FlowMaps,
    targets: BatchTargets,
    target: Tensor,
    reference: Tensor,
    config: LossConfig,
    flow: str = OFFSET,
) -> dict[str, Tensor]:
    """Terms of pairs of frames from the paper's dense inter-frame branch.

    Args:
        offset: (B, 2, h, w) cells.   maps: of P pairs; pair p leads from frame ``target[p]`` to frame ``reference[p]``.
        flow: what ``reference_offset`` is, as in ModelConfig.
    """
    weight = object_values(targets.labels, targets.weight[..., None])[:, 0]
    background = (targets.labels == 0).float()
    pixels, reference_offset = float(OUTPUT_STRIDE), maps.reference_offset
    terms = {}
    if flow == AFFINITY:
        field = trajectories(targets.centers[target], targets.centers[reference], targets.labels.shape[-2:])
        known = (targets.labels[target] != IGNORE).float()
        terms["inter"] = masked_mean((reference_offset - field).abs().sum(1) * pixels, known)
    else:
        own = offset_maps(targets.labels, targets.centers) * (1 - background)[:, None]
        other = offset_maps(targets.labels[target], targets.centers[reference]) * (1 - background[target])[:, None]
        known = weight[target] * torch.isfinite(other[:, 0])
        # NaN would reach the gradient even under a zero weight.
        own, other = torch.nan_to_num(own), torch.nan_to_num(other)
        residual_error = (other - own[target]) - (reference_offset - offset[target])
        error = (reference_offset - other).abs().sum(1)
        on_background = background[target] if "inter" in config.background else 0.0
        terms["inter"] = masked_mean(error * pixels, known + on_background)
        terms["shape"] = masked_mean((residual_error * pixels).square().sum(1), known)
    labels, reference_labels = targets.labels[target], targets.labels[reference]
    for attention in maps.attentions if config.association else ():
        stride = round((labels[0].numel() / attention.shape[1]) ** 0.5)
        term = association_loss(attention, labels, reference_labels, stride, targets.centers.shape[1])
        terms["association"] = terms.get("association", torch.zeros_like(term)) + term
    return terms


def token_losses(
    maps: FlowMaps, cells: Tensor, targets: BatchTargets, target: Tensor, reference: Tensor
) -> dict[str, Tensor]:
    """Terms of pairs of frames from object tokens: their flow against that of the object that each of them stands on,
    and the share of their attention that falls on the same object's tokens in the reference frame.

    Each object counts alike, however many tokens stand on it.

    Args: maps: of P pairs.   cells: (B, K) where the tokens stand; the others as for ``dense_losses``.
    """
    assert maps.token_flow is not None
    stands_on = targets.labels.flatten(1).gather(1, cells).long()
    stands_on = torch.where(stands_on == IGNORE, 0, stands_on)
    own, other = stands_on[target], stands_on[reference]
    true_flow = F.pad(targets.centers[reference] - targets.centers[target], (0, 0, 1, 0), value=float("nan"))
    wanted = true_flow.gather(1, own[..., None].expand(-1, -1, 2)).transpose(1, 2) * float(OUTPUT_STRIDE)
    known = ((own > 0) & torch.isfinite(wanted[:, 0])).float()
    count = torch.zeros_like(true_flow[..., 0]).scatter_add(1, own, known)
    share = known / count.gather(1, own).clamp(min=1)
    error = (maps.token_flow - torch.nan_to_num(wanted)).abs().sum(1)
    same = (own[:, :, None] == other[:, None, :]).float()
    found = (maps.attentions[0] * same).sum(2)
    there = share * (same.amax(2) > 0)
    return {
        "inter": masked_mean(error, share),
        "association": masked_mean(-torch.log(found.clamp(min=1e-4)), there),
    }


def weighted(terms: dict[str, Tensor], config: LossConfig) -> dict[str, Tensor]:
    """The terms and their weighted sum ``total`` (Eq. 1)."""
    total = torch.stack([getattr(config, name) * term for name, term in terms.items()]).sum()
    return {**terms, "total": total}
