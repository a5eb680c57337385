# SPDX-License-Identifier: Apache-2.0
"""Temporal context fusion: dot-product attention from the target frame to a reference frame (section III-B-2).

What a frame must leave behind to serve as a reference is one compact tensor per fusion level: unit-length keys, and
values, on a pooled grid. That tensor is what the runtime caches; nothing else of the reference frame is needed again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def grid_positions(x: Tensor, stride: int) -> Tensor:
    """Centers of the cells of a map (..., h, w) in input pixels: (h * w, 2) as (y, x)."""
    h, w = x.shape[-2:]
    y = (torch.arange(h, device=x.device, dtype=x.dtype) + 0.5) * stride
    xs = (torch.arange(w, device=x.device, dtype=x.dtype) + 0.5) * stride
    return torch.stack([y[:, None].expand(h, w), xs[None, :].expand(h, w)], -1).reshape(-1, 2)


class TemporalContextFusion(nn.Module):
    """Attention of every target pixel over the tokens of one reference frame.

    Args:
        in_channels: of what it sees of a frame, in the middle of a skip connection.
        stride: of that skip connection.   pool: how much coarser keys and values are kept.
    """

    def __init__(self, in_channels: int, stride: int, pool: int, key_channels: int, value_channels: int):
        super().__init__()
        self.stride, self.pool, self.key_channels = stride, pool, key_channels
        self.query = nn.Conv2d(in_channels, key_channels, 1)
        self.key = nn.Conv2d(in_channels, key_channels, 1)
        self.value = nn.Conv2d(in_channels, value_channels, 1)
        self.log_temperature = nn.Parameter(torch.tensor(3.0))
        self.cached_channels = key_channels + value_channels

    def features(self, x: Tensor) -> Tensor:
        """What to cache of a frame: (B, key + value channels, h / pool, w / pool)."""
        x = F.avg_pool2d(x, self.pool) if self.pool > 1 else x
        return torch.cat([F.normalize(self.key(x), dim=1), self.value(x)], 1)

    def attention(self, x: Tensor, reference: Tensor) -> Tensor:
        """Args: x (1 or P, C, h, w) of the target; reference (P, cached channels, h', w') of P references.

        Returns (P, h * w, h' * w'): for every target pixel, how much it looks at each token; rows sum to 1.
        """
        query = F.normalize(self.query(x), dim=1).flatten(2).transpose(1, 2) * self.log_temperature.exp()
        # Not left to broadcasting: ONNX Runtime's fused product does not broadcast to zero references.
        query = query.expand(reference.shape[0], -1, -1)
        return torch.softmax(torch.matmul(query, reference[:, : self.key_channels].flatten(2)), dim=-1)

    def forward(self, x: Tensor, reference: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """What every target pixel attends to; arguments as for, and from, ``attention``.

        Returns:
            (P, value channels, h, w), the attended values, and (P, 2, h, w), the way (dy, dx) from the pixel to where
            they were found, in input pixels.
        """
        h, w = x.shape[-2:]
        values = reference[:, self.key_channels :].flatten(2).transpose(1, 2)
        attended = torch.matmul(attention, values)
        way = torch.matmul(attention, grid_positions(reference, self.stride * self.pool)) - grid_positions(
            x, self.stride
        )
        attended, way = (t.transpose(1, 2).unflatten(2, (h, w)) for t in (attended, way))
        return attended, way
