# SPDX-License-Identifier: Apache-2.0
"""Batch norm made part of the convolutions before it, for networks that are not trained any more."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(module: nn.Module) -> None:
    """Fold every 2D batch norm of a module in evaluation mode, in place; ReLU6 works in place, too.

    A batch norm belongs to the convolution that its module names before it, as all of ours do.
    """
    for part in list(module.modules()):
        for (before, conv), (name, norm) in pairwise(list(part.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, before, fuse_conv_bn_eval(conv, norm))
                setattr(part, name, nn.Identity())
            elif isinstance(norm, nn.ReLU6):
                norm.inplace = True
