# SPDX-License-Identifier: Apache-2.0
"""Training samples: a few frames of one clip with their targets, made fresh from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from instance_flow_training.losses import BatchTargets
from instance_flow_training.synthetic import SITUATIONS, World, WorldConfig
from instance_flow_training.targets import FrameTargets, frame_targets


@dataclass(frozen=True)
class Sample:
    """K frames of one clip, in time order: images (K, H, W, 3) uint8 and their targets."""

    images: NDArray[np.uint8]
    targets: list[FrameTargets]


def draw_frames(rng: np.random.Generator, length: int, count: int) -> list[int]:
    """``count`` distinct frames in time order: one gap of 1 to 3 frames as in a stream, the rest anywhere before.

    At inference the references are the previous three frames and the first; the paper draws from the whole video.
    """
    last = int(rng.integers(count, length))
    near = max(last - int(rng.integers(1, 4)), 1)
    rest = rng.choice(near, size=count - 2, replace=False)
    return sorted([*rest.tolist(), near, last])


class WorldClips(Dataset[Sample]):
    """Sample i is made from seed ``first_seed + i``: endless, never the same twice, and the same on every machine.

    Args:
        sizes: (height, width) of training images, in the order of training: the first share of ``total`` samples has
            the first size, and so on (small images first saves time).
        frames: images per sample.
    """

    def __init__(self, first_seed: int, total: int, sizes: Sequence[tuple[int, int]], frames: int, batch: int):
        self.first_seed, self.total, self.sizes, self.frames, self.batch = first_seed, total, sizes, frames, batch

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.first_seed, index])
        batch_start = index - index % self.batch
        size = self.sizes[min(batch_start * len(self.sizes) // self.total, len(self.sizes) - 1)]
        situation = SITUATIONS[int(rng.integers(len(SITUATIONS)))]
        config = replace(WorldConfig(), size=size)
        world = World(self.first_seed + index, situation, config)
        rendered = [world.render(t) for t in draw_frames(rng, config.frames, self.frames)]
        targets = [frame_targets(labels, world.class_ids) for _, labels in rendered]
        return Sample(np.stack([image for image, _ in rendered]), targets)


def collate(samples: Sequence[Sample]) -> tuple[Tensor, BatchTargets]:
    """Stack to images (B * K, H, W, 3) uint8 and targets of B * K frames, objects padded to the largest number."""
    frames = [t for sample in samples for t in sample.targets]
    most = max(1, *(len(t.centers) for t in frames))

    def padded(arrays: list[NDArray[np.float32]], fill: float) -> Tensor:
        out = np.full((len(arrays), most, *arrays[0].shape[1:]), fill, np.float32)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(out)

    targets = BatchTargets(
        semantic=torch.from_numpy(np.stack([t.semantic for t in frames])),
        labels=torch.from_numpy(np.stack([t.labels for t in frames])),
        center=torch.from_numpy(np.stack([t.center for t in frames])),
        centers=padded([t.centers for t in frames], np.nan),
        weight=padded([t.weight for t in frames], 1.0),
    )
    return torch.from_numpy(np.concatenate([s.images for s in samples])), targets
