# SPDX-License-Identifier: Apache-2.0
"""The inter-frame branch over object tokens; ours, in place of the paper's dense fusion.

Instance flow is only ever averaged over the pixels of an object (Eq. 3), and all of them say the same: where its center
was. So attention is asked of, and looks at, only the K cells of a frame that look most like centers of objects. What is
cached of a frame is K tokens, and neither cost nor cache grows with the image. A token brings its object's center along
(its own offset, to the fraction of a pixel), so whichever token of the right object is found, the center is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instance_flow_training.network.maps import OUTPUT_STRIDE, FlowMaps, Frames, gather

TOKEN_STRIDE = 8
_FLOW_SCALE = 16.0
"""Input pixels per unit of what is predicted on top of the attended center."""
_LEAST = 0.02
"""Heat below which a cell is no token: which of thousands of background cells came last among K would be chance, and
another chance in every runtime."""
_HARDLY = 1e-3
"""Objectness of a token whose heat is hardly enough."""
_MISSING = -60.0
"""Log objectness of a token that is none."""
_PENALTY = 16.0
"""Squared pixels by which a token is farther from a cell for each unit of log objectness that it lacks."""


class Tokens(NamedTuple):
    """K object tokens of each of B frames.

    cell: (B, K) int64, index of the token's best cell of stride 4; None where nobody asked for it.
    hidden: (B, D, K), what the token looks like.   center: (B, 2, K) its object's center, see ``TokenFlow``.
    objectness: (B, 1, K) log of how much it looks like a center.   owner: (B, h * w) the token that speaks for a cell.
    """

    cell: Tensor | None
    hidden: Tensor
    center: Tensor
    objectness: Tensor
    owner: Tensor


class TokenFlow(nn.Module):
    """Attention between object tokens. Centers are (y, x) from the image's middle, in units of sqrt(height * width).

    What is cached of a frame is (embedding, value, center, log objectness) of each token. The attention of two tokens
    grows with the likeness of their embeddings, the objectness of the one looked at, and with little distance between
    their centers; how much each of these counts is learned.

    Args:
        tokens: K.   in_channels: of the instance decoder's stages (all alike), and of the skips at strides 8 and 4.
    """

    feature_strides: tuple[int, ...] = ()

    def __init__(
        self, tokens: int, stage_channels: int, skips: tuple[int, int], key_channels: int, value_channels: int
    ) -> None:
        super().__init__()
        self.tokens, self.key_channels, self.value_channels = tokens, key_channels, value_channels
        hidden = 128
        self.look = nn.Sequential(
            nn.Conv1d(2 * stage_channels + sum(skips), hidden, 1, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 1),
            nn.ReLU(),
        )
        self.embed = nn.Conv1d(hidden, key_channels, 1)
        self.value = nn.Conv1d(hidden, value_channels, 1)
        self.query = nn.Conv1d(hidden, 64, 1)
        self.compare = nn.Sequential(nn.Conv1d(64 + value_channels + 4, 64, 1), nn.ReLU(), nn.Conv1d(64, 2, 1))
        nn.init.zeros_(self.compare[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.compare[2].bias)  # type: ignore[arg-type]
        self.log_temperature = nn.Parameter(torch.tensor(2.5))
        self.log_nearness = nn.Parameter(torch.tensor(2.0))
        self.log_objectness = nn.Parameter(torch.tensor(0.0))
        self.cached_channels = key_channels + value_channels + 3

    def features(self, frames: Frames, tokens: Tokens | None = None) -> tuple[Tensor]:
        """What to cache of each frame: (B, ``cached_channels``, K)."""
        own = tokens or self.choose(frames)
        embedding = F.normalize(self.embed(own.hidden), dim=1)
        kind = embedding.dtype
        return (torch.cat([embedding, self.value(own.hidden), own.center.to(kind), own.objectness.to(kind)], 1),)

    def choose(self, frames: Frames, hint: Tensor | None = None) -> Tokens:
        """The K cells of stride 8 that look most like centers, peaks before all others.

        hint: for training, (B, h, w) heat of cells that are to be chosen first, as the network does not know them yet;
            zeros will do. With it ``Tokens.cell`` is known.
        """
        maps = frames.maps
        heat = (maps.center.detach().float().clamp(0, 1) * frames.foreground.detach().float())[:, None]
        if hint is not None:
            heat = heat + hint[:, None]
        heat8 = F.max_pool2d(heat, 2)
        rows, columns = heat8.shape[-2:]
        peaks = (heat8 >= F.max_pool2d(heat8, 5, 1, 2)) & (heat8 >= _LEAST)
        rank = (heat8 + peaks.float()).flatten(1)
        best_rank, index = torch.topk(F.pad(rank, (0, self.tokens), value=-1.0), self.tokens, dim=1)
        # In the order of the image, and not of values that differ in their last digit.
        index = torch.sort(torch.where(best_rank >= _LEAST, index, rows * columns), dim=1).values
        present = (index < rows * columns)[:, None]
        index = index.clamp(max=rows * columns - 1)
        # Little where the heat is hardly enough: whether it just is differs by runtime.
        objectness = (gather(heat8, index) - _LEAST).clamp(_HARDLY, 1.0).log()
        objectness = torch.where(present, objectness, torch.full_like(objectness, _MISSING))
        center_map = self._centers(maps.offset.detach().float())
        weight = heat + 1e-3
        center = gather(F.avg_pool2d(center_map * weight, 2) / F.avg_pool2d(weight, 2), index) * present
        best = None if hint is None else F.max_pool2d(heat, 2, return_indices=True)[1]
        return Tokens(
            None if best is None else gather(best, index)[:, 0],
            self.look(self._seen(frames, index, columns)) * present,
            center,
            objectness,
            self._owners(center_map, center, objectness, (rows, columns)),
        )

    def forward(
        self, frames: Frames, references: Sequence[Tensor], target: Tensor | None = None, tokens: Tokens | None = None
    ) -> FlowMaps:
        """Offsets to the centers in the reference frames: to the own center, and on along its token's flow.

        Args:
            frames: B target frames.   references: one tensor (P, channels, K) of cached features.
            target: (P,) which of the B frames each reference belongs to; None = all to the only one (B = 1).
            tokens: of the target frames, if they are known.
        """
        own = tokens or self.choose(frames)
        flow, attention = self._flow(own, references[0], target)
        height, width = frames.maps.offset.shape[-2:]
        scale = _length(height, width)
        pairs = references[0].shape[0]
        owner, offset = own.owner, frames.maps.offset
        owner = owner.expand(pairs, -1) if target is None else owner.index_select(0, target)
        offset = offset if target is None else offset.index_select(0, target)
        moved = flow.gather(2, owner[:, None].expand(-1, 2, -1)).unflatten(2, (height, width))
        reference_offset = offset + (moved * (scale / OUTPUT_STRIDE)).to(offset.dtype)
        return FlowMaps(reference_offset, [attention], flow * scale)

    def _flow(self, own: Tokens, reference: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """Flow (P, 2, K) of the target's tokens, and their attention (P, K, K) over those of the reference."""
        pairs = reference.shape[0]

        def per_pair(x: Tensor) -> Tensor:
            return x.expand(pairs, -1, -1) if target is None else x.index_select(0, target)

        embedding = per_pair(F.normalize(self.embed(own.hidden), dim=1).float())
        center, query = per_pair(own.center), per_pair(self.query(own.hidden))
        # In half precision positions would be off by pixels.
        with torch.autocast(reference.device.type, enabled=False):
            key, value, there, objectness = reference.float().split([self.key_channels, self.value_channels, 2, 1], 1)
            near = self.log_nearness.float().exp()
            bias = self.log_objectness.float().exp() * objectness - near * there.square().sum(1, keepdim=True)
            asked = torch.cat(
                [embedding * self.log_temperature.float().exp(), 2 * near * center, torch.ones_like(center[:, :1])], 1
            )
            offered = torch.cat([key, there, bias], 1)
            attention = torch.softmax(torch.matmul(asked.transpose(1, 2), offered), dim=-1)
            squared = there.square().sum(1, keepdim=True)
            found = torch.matmul(attention, torch.cat([value, there, squared], 1).transpose(1, 2)).transpose(1, 2)
            value, there, squared = found.split([self.value_channels, 2, 1], 1)
            spread = (squared - there.square().sum(1, keepdim=True)).clamp(min=1e-8).sqrt()
            flow = there - center
            seen = torch.cat([query.float(), value, 8 * flow, 8 * spread, attention.amax(-1)[:, None]], 1)
            step = self.compare[2](torch.relu(self.compare[0](seen.to(query.dtype)))).float()
        return flow + step * self._unit, attention

    _unit = _FLOW_SCALE / 512

    def _seen(self, frames: Frames, index: Tensor, columns: int) -> Tensor:
        """What the network knows of each token's cell: (B, channels, K), from strides 16, 8 and 4."""
        deep, middle = frames.stages[-3], frames.stages[-2]
        skips = frames.pyramid.skips
        row = index // columns
        column = index - row * columns
        half = row // 2 * (columns // 2) + column // 2
        corner = 4 * row * columns + 2 * column
        # The mean of the four cells of stride 4, without pooling all of them.
        corners = [gather(skips[-1], corner + step) for step in (0, 1, 2 * columns, 2 * columns + 1)]
        finest = (corners[0] + corners[1] + corners[2] + corners[3]) / 4
        return torch.cat([gather(deep, half), gather(middle, index), gather(skips[-2], index), finest], 1)

    def _centers(self, offset: Tensor) -> Tensor:
        """Where each cell's object has its center: (B, 2, h, w), as the class says."""
        height, width = offset.shape[-2:]
        y = torch.arange(height, dtype=torch.float32, device=offset.device) - (height - 1) / 2
        x = torch.arange(width, dtype=torch.float32, device=offset.device) - (width - 1) / 2
        cells = torch.stack([y[:, None].expand(height, width), x[None, :].expand(height, width)])
        return (offset + cells) * (OUTPUT_STRIDE / _length(height, width))

    def _owners(self, center_map: Tensor, center: Tensor, objectness: Tensor, size: tuple[int, int]) -> Tensor:
        """For every cell of stride 4 the token whose center lies nearest to its own: (B, h * w).

        Two steps, as this is the only part that grows with the image: the nearest token of each place of stride 8, and
        for each cell the place that its center falls on.
        """
        height, width = center_map.shape[-2:]
        scale = _length(height, width)
        rows, columns = size
        places = self._centers(torch.zeros_like(center_map[:1]))
        places = F.avg_pool2d(places, 2).flatten(2)
        worth = objectness * (_PENALTY / scale**2) - center.square().sum(1, keepdim=True)
        asked = torch.cat([2 * places, torch.ones_like(places[:, :1])], 1)
        nearest = torch.matmul(asked.transpose(1, 2), torch.cat([center, worth], 1)).argmax(-1)
        in_cells = center_map.flatten(2) * (scale / TOKEN_STRIDE)
        y = (in_cells[:, 0] + rows / 2).floor().clamp(0, rows - 1).long()
        x = (in_cells[:, 1] + columns / 2).floor().clamp(0, columns - 1).long()
        return nearest.gather(1, y * columns + x)


def _length(height: int, width: int) -> float:
    """sqrt(height * width) of the image, from the size of its maps."""
    return OUTPUT_STRIDE * (height * width) ** 0.5
