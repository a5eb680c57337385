# SPDX-License-Identifier: Apache-2.0
"""What a detector's boxes say of the maps: which cells belong together, and where their center is. Ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instance_flow_training.network.decoder import conv_bn_relu, head, of_parts
from instance_flow_training.network.maps import Boxes, Claims, IntraMaps, gather

BOXES = 64
"""Boxes of an image after non-maximum suppression."""
_OVERLAP = 0.6
"""Intersection over union above which the less sure of two boxes is taken for the same object."""
_WITHIN, _PART = 0.8, 0.7
"""A box of which this share lies within another one of its class, and whose score is below this share of that one's, is
taken for a part of its object: a carriage of the train."""
_SMALLEST = 0.5
"""Half a side of a box at least, in cells: distances are divided by it."""
_LEAST = 0.05
"""Score below which a box says nothing."""
_WINDOW = 15
"""Cells of the non-maximum suppression of centers that no box covers."""
_VOTE, _SURE, _ALIKE, _SMALLER = 0.25, 1.0, 1.0, 0.5
"""Weights of where a cell's offset points, of a box's score, of the cell's class logits and of how small a box is in
choosing the box of a cell, beside where it lies."""
_SMALL = 20.0
"""The reciprocal of a probability that is small."""
_FOREGROUND = 20.0
"""What the middle of a sure box takes from the background's logit."""
_MARGIN = 1.1
"""An object may reach over its box by this factor."""


def positions(x: Tensor) -> Tensor:
    """Row and column of each cell of a map: (1, 2, h, w)."""
    rows, columns = (torch.arange(n, dtype=torch.float32, device=x.device) for n in x.shape[-2:])
    return torch.stack([rows[:, None].expand(x.shape[-2:]), columns[None].expand(x.shape[-2:])])[None]


def surest(every: Tensor, count: int) -> Boxes:
    """The ``count`` boxes of highest score. every: (B, C + 4, N) class probabilities, center and half size of each."""
    every = F.pad(every, (0, count))
    score, index = torch.topk(every[:, :-4].amax(1), count)
    classes, center, half = gather(every, index).split([every.shape[1] - 4, 2, 2], 1)
    return Boxes(classes, center, half, score)


def intersections(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
    """Areas that N boxes share with each of K others, from their corners (B, 2, N) and (B, 2, K): (B, N, K)."""
    shared = torch.minimum(high[..., None], other_high[..., None, :])
    return (shared - torch.maximum(low[..., None], other_low[..., None, :])).clamp(min=0).prod(1)


def suppress(boxes: Boxes, count: int = BOXES) -> Boxes:
    """Leave out every box that a surer one overlaps (fast non-maximum suppression of YOLACT) or that is a part of it,
    and keep the surest."""
    low, high = boxes.center - boxes.half, boxes.center + boxes.half
    intersection = intersections(low, high, low, high)
    area = 4 * boxes.half.prod(1)
    union = area[..., None] + area[..., None, :] - intersection
    place = torch.arange(boxes.score.shape[1], device=boxes.score.device)
    surer = place[:, None] < place
    kind = boxes.classes.argmax(1)
    part = (intersection > _WITHIN * area[..., None, :]) & (kind[..., None] == kind[..., None, :])
    part &= boxes.score[..., None, :] < _PART * boxes.score[..., None]
    doubled = ((intersection > _OVERLAP * union) & surer | part).any(1)
    score, index = torch.topk(boxes.score * ~doubled, count)
    half = gather(boxes.half, index).clamp(min=_SMALLEST)
    return Boxes(gather(boxes.classes, index), gather(boxes.center, index), half, score)


class DetectionEvidence(nn.Module):
    """Joins boxes and maps. A cell chooses a box by its place, its offset and its class. The box raises its classes
    inside of it; a head that sees where in its box a cell lies, and where its offset points, says whether the cell
    belongs to the object. In the end a cell that lies in its box has the way to the box's middle as its offset, and the
    only center heat in a box is in its middle.

    Args: channels: of the features of stride 4.   hidden: of the head.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        # Of a class's probability, of what tells small ones apart, and of what speaks against all but the likeliest.
        self.class_gain = nn.Parameter(torch.tensor([1.7, 0.25, 0.8]))
        # What a box takes from the background's logit the less sure it is: it claims its object's whole mask, since
        # whether there is one its score says.
        self.claim = nn.Parameter(torch.tensor(2.0))
        self.join = conv_bn_relu(channels + 8, hidden)
        self.belongs = head(hidden, hidden, 1)
        nn.init.zeros_(self.belongs[1].weight)  # type: ignore[index, arg-type]
        nn.init.zeros_(self.belongs[1].bias)  # type: ignore[index, arg-type]

    def forward(
        self, boxes: Boxes, features: Tensor, maps: IntraMaps, unknown: Sequence[int] = ()
    ) -> tuple[IntraMaps, IntraMaps, Claims]:
        """Returns what is to be learned, from it the maps with the boxes' centers, and what the boxes claim.

        Args:
            features, maps: of stride 4.
            unknown: classes that no box tells of; their cells keep what the maps say: a tool in a person's hand.
        """
        cells = positions(features)
        aim = cells + maps.offset.float()
        suits = _suits(boxes, cells, aim, maps.semantic.detach().float())
        owners = suits.argmax(-1)
        classes, center, half, score = _at(self._raising(boxes, unknown), owners, features)
        place = (cells - center) / half
        present = score > _LEAST
        inside = torch.sigmoid(3 - 3 * place.abs().clamp(max=3).pow(3).sum(1, keepdim=True)) * present
        of_box = [place.clamp(-2, 2), half.log() / 3, ((aim.detach() - center) / half).clamp(-2, 2)]
        box = torch.cat([torch.cat(of_box, 1) * present, inside, score], 1)
        own = self.belongs(of_parts(self.join, features, box.to(features.dtype)))
        claimed = own + self.claim * (1 - score)
        raised = torch.cat([-claimed * inside, classes * inside], 1).to(features.dtype)
        learned = maps._replace(semantic=maps.semantic + raised)

        middles = _middles(boxes, cells).to(maps.center.dtype)
        told = _of_known_classes(learned.semantic, unknown)
        covered = (place.abs().amax(1) < _MARGIN) & present[:, 0] & told
        heat = torch.maximum(_peaks(maps.center).masked_fill(covered, 0), middles)
        # A center is looked for on the foreground; that of a ring may lie beside its object.
        background = learned.semantic[:, :1] - _FOREGROUND * middles[:, None]
        semantic = torch.cat([background.to(features.dtype), learned.semantic[:, 1:]], 1)
        offset = torch.where(covered[:, None], (center - cells).to(features.dtype), maps.offset)
        claims = Claims(boxes, suits, owners, inside[:, 0], own[:, 0])
        return learned, IntraMaps(semantic, heat, offset), claims

    def _raising(self, boxes: Boxes, unknown: Sequence[int]) -> Boxes:
        """With what each box adds to the logits of classes, in place of their probabilities. Against a class of which
        no box tells it says nothing."""
        gains, score = self.class_gain.float(), boxes.score[:, None]
        against = score * ((_SMALL * boxes.classes + 1) / (_SMALL * score + 1)).log()
        if unknown:
            told = torch.ones(boxes.classes.shape[1], device=score.device)
            told[list(unknown)] = 0
            against = against * told[:, None]
        raised = gains[0] * boxes.classes + gains[1] * (_SMALL * boxes.classes).log1p() + gains[2] * against
        return boxes._replace(classes=raised)


def _of_known_classes(semantic: Tensor, unknown: Sequence[int]) -> Tensor:
    """(B, h, w) whether the likeliest class of a cell, or background, is none of these."""
    if not unknown:
        return torch.ones_like(semantic[:, 0], dtype=torch.bool)
    others = [row for row in range(semantic.shape[1]) if row - 1 not in unknown]
    return semantic[:, others].amax(1) >= semantic[:, [row + 1 for row in unknown]].amax(1)


def _suits(boxes: Boxes, cells: Tensor, aim: Tensor, semantic: Tensor) -> Tensor:
    """How well each box suits a cell: that it lies in centrally, that its offset points to and that is of its class, as
    a rider's and not the horse's: (B, h * w, K) logits.

    The sum of squared distances in half sizes of the box and of the logarithm of its area, less that of its score and
    the class logits (B, C + 1, h, w) that the box expects, as one product of matrices: much as a mixture of Gaussians
    would have it.
    """
    height, width = cells.shape[-2:]
    middle = cells.new_tensor([(height - 1) / 2, (width - 1) / 2])[None, :, None]
    nearness = boxes.half.square().reciprocal()
    there = boxes.center - middle

    def quadratic(place: Tensor) -> Tensor:
        return torch.cat([place.square(), place], 1)

    of_box = torch.cat([nearness, -2 * nearness * there], 1)
    constant = (1 + _VOTE) * (nearness * there.square()).sum(1, keepdim=True)
    constant = constant - _SURE * boxes.score.clamp(min=1e-6).log()[:, None]
    constant = constant + _SMALLER * boxes.half.log().sum(1, keepdim=True)
    lies, aims = quadratic(cells.flatten(2) - middle), quadratic(aim.flatten(2) - middle)
    kinds = boxes.classes / boxes.classes.sum(1, keepdim=True).clamp(min=1e-6)
    asked = torch.cat([lies.expand(len(aims), -1, -1), aims, torch.ones_like(aims[:, :1]), semantic.flatten(2)], 1)
    offered = torch.cat([-of_box, -_VOTE * of_box, -constant, F.pad(_ALIKE * kinds, (0, 0, 1, 0))], 1)
    return torch.matmul(asked.transpose(1, 2), offered)


def _middles(boxes: Boxes, cells: Tensor) -> Tensor:
    """(B, h, w) the score of the box that has its middle in a cell, else 0."""
    height, width = cells.shape[-2:]
    row, column = (boxes.center + 0.5).floor().long().unbind(1)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    # The surest are written last; what is no box, beyond the map.
    index = torch.where(boxes.score > _LEAST, index, height * width).flip(1)
    empty = boxes.score.new_zeros(len(index), height * width + 1)
    return empty.scatter(1, index, boxes.score.flip(1))[:, :-1].unflatten(1, (height, width))


def _at(boxes: Boxes, index: Tensor, like: Tensor) -> Boxes:
    """Of every cell the box of its ``index`` (B, h * w), as maps (B, channels, h, w)."""
    table = torch.cat([*boxes[:3], boxes.score[:, None]], 1)
    parts = [boxes.classes.shape[1], 2, 2, 1]
    return Boxes(*gather(table, index).unflatten(2, like.shape[-2:]).split(parts, 1))


def _peaks(heat: Tensor) -> Tensor:
    """(B, h, w) heat where it is the highest of its window, else 0."""
    rows = F.max_pool2d(heat[:, None], (_WINDOW, 1), 1, (_WINDOW // 2, 0))
    highest = F.max_pool2d(rows, (1, _WINDOW), 1, (0, _WINDOW // 2))[:, 0]
    return torch.where(heat >= highest, heat, torch.zeros_like(heat))
