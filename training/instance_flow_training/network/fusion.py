# SPDX-License-Identifier: Apache-2.0
"""Fusion of a target frame with a reference frame: temporal context fusion (section III-B-2), and Table II's others.

What a frame must leave behind to serve as a reference is one compact tensor per fusion level, on a pooled grid. That
tensor is what the runtime caches; nothing else of the reference frame is needed again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instance_flow_training.network.decoder import ASPP, conv_bn_relu, resize

TCF, CONCAT_CONVS, CONCAT_ASPP = "tcf", "concat_convs", "concat_aspp"
FUSIONS = (TCF, CONCAT_CONVS, CONCAT_ASPP)
ATTENDED_OFFSET_SCALE = 32.0
"""Input pixels per unit of the attended offset that is handed to the inter-frame decoder."""


class Fused(NamedTuple):
    """What P pairs of a target and a reference frame have in common.

    features: (P, ``channels``, h, w), for the decoder.
    attended_offset: (P, 2, h, w) (dy, dx) in input pixels from a target pixel to where it was found, None where that
        is not known.
    attention: (P, h * w, tokens), rows sum to 1; None without attention.
    """

    features: Tensor
    attended_offset: Tensor | None
    attention: Tensor | None


def grid_positions(x: Tensor, stride: int) -> Tensor:
    """Centers of the cells of a map (..., h, w) in input pixels: (h * w, 2) float32 as (y, x)."""
    h, w = x.shape[-2:]
    y = (torch.arange(h, device=x.device, dtype=torch.float32) + 0.5) * stride
    xs = (torch.arange(w, device=x.device, dtype=torch.float32) + 0.5) * stride
    return torch.stack([y[:, None].expand(h, w), xs[None, :].expand(h, w)], -1).reshape(-1, 2)


class TemporalContextFusion(nn.Module):
    """Dot-product attention of every target pixel over the tokens of one reference frame: keys and values.

    Args:
        in_channels: of what it sees of a frame, in the middle of a skip connection.
        stride: of that skip connection.   pool: how much coarser keys and values are kept.
        unit_keys, attended_offset: as in ``model.ModelConfig``.
    """

    def __init__(
        self,
        in_channels: int,
        stride: int,
        pool: int,
        key_channels: int,
        value_channels: int,
        unit_keys: bool = True,
        attended_offset: bool = True,
    ):
        super().__init__()
        self.stride, self.pool, self.key_channels = stride, pool, key_channels
        self.unit_keys, self.attended_offset = unit_keys, attended_offset
        self.query = nn.Conv2d(in_channels, key_channels, 1)
        self.key = nn.Conv2d(in_channels, key_channels, 1)
        self.value = nn.Conv2d(in_channels, value_channels, 1)
        if unit_keys:
            self.log_temperature = nn.Parameter(torch.tensor(3.0))
        self.cached_channels = key_channels + value_channels
        self.channels = value_channels + 2 * attended_offset

    def features(self, x: Tensor) -> Tensor:
        """What to cache of a frame: (B, key + value channels, h / pool, w / pool)."""
        x = F.avg_pool2d(x, self.pool) if self.pool > 1 else x
        return torch.cat([self._normalised(self.key(x)), self.value(x)], 1)

    def forward(self, x: Tensor, reference: Tensor) -> Fused:
        """Args: x (1 or P, C, h, w) of the target; reference (P, cached channels, h', w') of P references."""
        query = self._normalised(self.query(x))
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return self._attend(query, reference)
        # In bfloat16 the attended position would be off by pixels.
        with torch.autocast(device, enabled=False):
            return self._attend(query.float(), reference.float())

    def _attend(self, query: Tensor, reference: Tensor) -> Fused:
        size, target_positions = query.shape[-2:], grid_positions(query, self.stride)
        scale = self.log_temperature.exp() if self.unit_keys else self.key_channels**-0.5
        query = query.flatten(2).transpose(1, 2) * scale
        # Not left to broadcasting: ONNX Runtime's fused product does not broadcast to zero references.
        query = query.expand(reference.shape[0], -1, -1)
        attention = torch.softmax(torch.matmul(query, reference[:, : self.key_channels].flatten(2)), dim=-1)
        values = reference[:, self.key_channels :].flatten(2).transpose(1, 2)
        if not self.attended_offset:
            return Fused(torch.matmul(attention, values).transpose(1, 2).unflatten(2, size), None, attention)
        positions = grid_positions(reference, self.stride * self.pool).to(values.dtype).expand(values.shape[0], -1, -1)
        # One product for both: two columns of positions beside the values cost a third of a product of their own.
        attended, found = torch.matmul(attention, torch.cat([values, positions], 2)).split([values.shape[2], 2], 2)
        attended = attended.transpose(1, 2).unflatten(2, size)
        attended_offset = (found - target_positions.to(found.dtype)).transpose(1, 2).unflatten(2, size)
        return Fused(torch.cat([attended, attended_offset / ATTENDED_OFFSET_SCALE], 1), attended_offset, attention)

    def _normalised(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) if self.unit_keys else x


class ConcatFusion(nn.Module):
    """Table II's baselines: the features of both frames joined, then two ASPPs in a row, or as many plain convolutions.

    Args: as for TemporalContextFusion, without keys.   rates: dilations of the ASPPs, none = plain convolutions.
    """

    def __init__(self, in_channels: int, pool: int, value_channels: int, rates: tuple[int, ...]):
        super().__init__()
        self.pool, self.cached_channels, self.channels = pool, value_channels, value_channels
        self.own = nn.Conv2d(in_channels, value_channels, 1)
        self.value = nn.Conv2d(in_channels, value_channels, 1)
        widths = (2 * value_channels, value_channels)
        if rates:
            layers: list[nn.Module] = [ASPP(width, value_channels, rates, dense=True) for width in widths]
        else:
            # An ASPP is two convolutions deep.
            layers = [conv_bn_relu(c, value_channels, 3) for width in widths for c in (width, value_channels)]
        self.layers = nn.Sequential(*layers)

    def features(self, x: Tensor) -> Tensor:
        """What to cache of a frame: (B, value channels, h / pool, w / pool)."""
        return self.value(F.avg_pool2d(x, self.pool) if self.pool > 1 else x)

    def forward(self, x: Tensor, reference: Tensor) -> Fused:
        """Args: as for TemporalContextFusion."""
        own = self.own(x).expand(reference.shape[0], -1, -1, -1)
        return Fused(self.layers(torch.cat([own, resize(reference, own)], 1)), None, None)


Fusion = TemporalContextFusion | ConcatFusion


def build_fusion(config: Any, in_channels: int, stride: int) -> Fusion:
    """The fusion of one level. config: ``model.ModelConfig``; the others as for TemporalContextFusion."""
    pool = max(1, config.token_stride // stride)
    if config.fusion == TCF:
        return TemporalContextFusion(
            in_channels,
            stride,
            pool,
            config.key_channels,
            config.value_channels,
            config.unit_keys,
            config.attended_offset,
        )
    return ConcatFusion(in_channels, pool, config.value_channels, (3, 6, 9) if config.fusion == CONCAT_ASPP else ())
