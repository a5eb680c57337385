# SPDX-License-Identifier: Apache-2.0
"""One training step: a batch through the network to its losses, and the optimizer's step from several such passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from instance_flow_training.config import TrainConfig
from instance_flow_training.losses import BatchTargets, losses
from instance_flow_training.model import InstanceFlowNet, IntraMaps

INTER_BRANCH = ("fusions", "inter_project", "inter_decoder", "reference_offset_head")


class BatchMaps(NamedTuple):
    """The network's maps for the B frames of a batch and its P pairs; fields as for ``losses.losses``."""

    intra: IntraMaps
    reference_offset: Tensor
    attentions: list[Tensor]
    target: Tensor
    reference: Tensor


@cache
def frame_pairs(clips: int, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Every frame against every earlier one of its clip: (P,) targets and (P,) references into the B * K frames.

    Kept, as copying them anew would have a GPU's host wait in every step. Do not change them.
    """
    pairs = [
        (clip * frames + later, clip * frames + earlier)
        for clip in range(clips)
        for earlier, later in itertools.combinations(range(frames), 2)
    ]
    target, reference = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2).T
    return target, reference


def forward_maps(network: InstanceFlowNet, images: Tensor, frames: int) -> BatchMaps:
    """Every frame's intra maps and every pair's inter maps; clips of one frame leave the inter-frame branch out.

    Args:
        images: (clips * frames, H, W, 3) uint8, the frames of a clip in time order.
    """
    target, reference = frame_pairs(len(images) // frames, frames, images.device)
    pyramid = network.pyramid(images)
    maps, context = network.intra(pyramid)
    if frames == 1:
        return BatchMaps(maps, maps.offset[:0], [], target, reference)
    features = [f.index_select(0, reference) for f in network.features(context)]
    return BatchMaps(maps, *network.inter(pyramid, context, features, target), target, reference)


def forward_losses(
    network: InstanceFlowNet, images: Tensor, targets: BatchTargets, config: TrainConfig
) -> dict[str, Tensor]:
    """One pass over a batch: all the losses. They are float32 whatever the network runs in."""
    maps = forward_maps(network, images, config.data.frames_per_clip)
    with torch.autocast(images.device.type, enabled=False):
        semantic, center, offset = (m.float() for m in maps.intra)
        reference_offset = maps.reference_offset.float()
        attentions = [a.float() for a in maps.attentions] if config.loss.association else []
        return losses(
            *(semantic, center, offset, reference_offset, attentions),
            *(targets, maps.target, maps.reference, config.loss, config.model.flow),
        )


class TrainingStep(nn.Module):
    """``forward_losses`` as a module: averaging gradients over processes hooks into a module's forward."""

    def __init__(self, network: InstanceFlowNet, config: TrainConfig):
        super().__init__()
        self.network, self.config = network, config
        if config.data.frames_per_clip == 1:
            for name in INTER_BRANCH:
                network.get_submodule(name).requires_grad_(False)
        self.train()

    def forward(self, images: Tensor, targets: BatchTargets) -> dict[str, Tensor]:
        return forward_losses(self.network, images, targets, self.config)

    def train(self, mode: bool = True) -> TrainingStep:
        """Frozen batch norm stays as in evaluation."""
        super().train(mode)
        if self.config.freeze_batch_norm:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def to_device(targets: BatchTargets, device: torch.device) -> BatchTargets:
    """The same targets on another device."""
    return _each(targets, lambda tensor: tensor.to(device, non_blocking=True))


def first_clip(images: Tensor, targets: BatchTargets, frames: int, device: torch.device) -> tuple[Tensor, BatchTargets]:
    """Only the first clip of a batch, on a device."""
    return images[:frames].to(device), to_device(_each(targets, lambda tensor: tensor[:frames]), device)


def _each(targets: BatchTargets, change: Callable[[Tensor], Tensor]) -> BatchTargets:
    return BatchTargets(*map(change, targets))


def update(
    fabric: Fabric,
    module: Any,
    optimizer: torch.optim.Optimizer,
    passes: Iterable[tuple[Tensor, BatchTargets]],
    config: TrainConfig,
) -> dict[str, Tensor]:
    """One step of the optimizer from ``config.accumulate`` passes; returns the mean of this process's loss terms.

    A term is a mean over the pixels of one pass. What is minimised is the mean over passes and processes of these
    means: equal to that of the whole batch at once where every pass has as many object pixels, close to it elsewhere.
    Batch norm sees one pass, or with ``sync_batch_norm`` one pass of all processes.

    Args: module: a TrainingStep as Fabric wraps it.
    """
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for number, (images, targets) in enumerate(passes, 1):
        with fabric.no_backward_sync(module, enabled=number < config.accumulate):
            terms = module(images.to(fabric.device, non_blocking=True), to_device(targets, fabric.device))
            fabric.backward(terms["total"] / config.accumulate)
        for name, term in terms.items():
            sums[name] = sums.get(name, torch.zeros_like(term)) + term.detach() / config.accumulate
    fabric.clip_gradients(module, optimizer, max_norm=config.clip_gradient, error_if_nonfinite=False)
    optimizer.step()
    return sums
