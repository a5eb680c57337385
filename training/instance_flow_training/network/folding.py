# SPDX-License-Identifier: Apache-2.0
"""Batch norm made part of the convolutions before it, for networks that are not trained any more."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(module: nn.Module) -> None:
    """Fold every 2D batch norm of a module in evaluation mode, in place; ReLU6 works in place, too."""
    for part in [part for part in module.modules() if isinstance(part, nn.Sequential)]:
        for index in range(1, len(part)):
            conv, norm = part[index - 1], part[index]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[index - 1], part[index] = fuse_conv_bn_eval(conv, norm), nn.Identity()
            elif isinstance(norm, nn.ReLU6):
                norm.inplace = True
