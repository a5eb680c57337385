# SPDX-License-Identifier: Apache-2.0
"""One training step: a batch through the network to its losses, and the optimizer's step from several such passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from instance_flow_training.config import TrainConfig
from instance_flow_training.losses import BatchTargets, dense_losses, intra_losses, token_losses, weighted
from instance_flow_training.network.maps import OUTPUT_STRIDE, Claims, FlowMaps, IntraMaps
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.network.token_flow import TokenFlow
from instance_flow_training.weights.deeplab import Teacher


class BatchMaps(NamedTuple):
    """The network's maps for the B frames of a batch and its P pairs; fields as for ``losses.losses``.

    flow: None for clips of one frame.   token_cells: (B, K) cells of the object tokens, None for the dense branch.
    """

    intra: IntraMaps
    flow: FlowMaps | None
    token_cells: Tensor | None
    target: Tensor
    reference: Tensor
    claims: Claims | None

    @property
    def reference_offset(self) -> Tensor:
        """(P, 2, h, w), of no pair for clips of one frame."""
        return self.intra.offset[:0] if self.flow is None else self.flow.reference_offset


@cache
def frame_pairs(clips: int, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Every frame against every one before it in its clip: (P,) targets and (P,) references into the B * K frames.

    Kept, as copying them anew would have a GPU's host wait in every step. Do not change them.
    """
    pairs = [
        (clip * frames + later, clip * frames + earlier)
        for clip in range(clips)
        for earlier, later in itertools.combinations(range(frames), 2)
    ]
    target, reference = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2).T
    return target, reference


def forward_maps(
    network: InstanceFlowNet, images: Tensor, frames_per_clip: int, heat: Tensor | None = None
) -> BatchMaps:
    """Every frame's intra maps and every pair's inter maps; clips of one frame leave the inter-frame branch out.

    Args:
        images: (clips * frames_per_clip, H, W, 3) uint8, the frames of a clip as ``datasets.draw_frames`` orders them.
        heat: (B, h, w) true heat of the centers, by which object tokens are chosen beside the network's own.
    """
    target, reference = frame_pairs(len(images) // frames_per_clip, frames_per_clip, images.device)
    frames = network.frames(images)
    flow = token_cells = None
    if frames_per_clip > 1 and isinstance(network.inter, TokenFlow):
        tokens = network.inter.choose(frames, torch.zeros_like(frames.foreground) if heat is None else heat)
        (features,) = network.inter.features(frames, tokens)
        flow = network.inter(frames, [features.index_select(0, reference)], target, tokens)
        token_cells = tokens.cell
    elif frames_per_clip > 1:
        cached = [f.index_select(0, reference) for f in network.inter.features(frames)]
        flow = network.inter(frames, cached, target)
    return BatchMaps(frames.learned, flow, token_cells, target, reference, frames.claims)


def forward_losses(
    network: InstanceFlowNet, images: Tensor, targets: BatchTargets, config: TrainConfig, teacher: Teacher | None = None
) -> dict[str, Tensor]:
    """One pass over a batch: all the losses. They are float32 whatever the network runs in."""
    maps = forward_maps(
        network, images, config.data.frames_per_clip, torch.where(targets.center > 0.3, targets.center, 0)
    )
    first = images[:: config.data.frames_per_clip]
    soft = None if teacher is None else teacher(first, OUTPUT_STRIDE, config.loss.teacher_scales)
    with torch.autocast(images.device.type, enabled=False):
        terms = intra_losses(IntraMaps(*(m.float() for m in maps.intra)), targets, config.loss, soft, maps.claims)
        if maps.flow is not None and maps.token_cells is not None:
            terms |= token_losses(maps.flow, maps.token_cells, targets, maps.target, maps.reference)
        elif maps.flow is not None:
            flow = FlowMaps(maps.flow.reference_offset.float(), [a.float() for a in maps.flow.attentions])
            pairs = maps.target, maps.reference
            terms |= dense_losses(maps.intra.offset.float(), flow, targets, *pairs, config.loss, config.model.flow)
        return weighted(terms, config.loss)


class TrainingStep(nn.Module):
    """``forward_losses`` as a module: averaging gradients over processes hooks into a module's forward."""

    def __init__(self, network: InstanceFlowNet, config: TrainConfig, class_names: Sequence[str] = ()):
        super().__init__()
        self.network, self.config = network, config
        if config.data.frames_per_clip == 1:
            network.inter.requires_grad_(False)
        for name in config.frozen:
            network.get_submodule(name).requires_grad_(False)
        self.teacher = Teacher(Path(config.loss.teacher), class_names) if config.loss.distil else None
        self.train()

    def forward(self, images: Tensor, targets: BatchTargets) -> dict[str, Tensor]:
        return forward_losses(self.network, images, targets, self.config, self.teacher)

    def train(self, mode: bool = True) -> TrainingStep:
        """Frozen batch norm stays as in evaluation."""
        super().train(mode)
        parts = [""] if self.config.freeze_batch_norm else [*self.config.frozen_norms, *self.config.frozen]
        for part in map(self.network.get_submodule, parts):
            for module in part.modules():
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
