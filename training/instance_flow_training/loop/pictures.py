# SPDX-License-Identifier: Apache-2.0
"""Pictures of a network that is being trained: its maps over what they should be, for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instance_flow.pictures.draw import class_colours
from instance_flow.pictures.flow_colours import NOTHING
from instance_flow.pictures.panels import nice, tile_size
from instance_flow.pictures.tile_page import Tile, tile_page
from instance_flow.pictures.tiles import Size, heat_tile, offset_tile, semantic_tile
from instance_flow_training.losses import BatchTargets, offset_maps
from instance_flow_training.network.model import OUTPUT_STRIDE, IntraMaps
from instance_flow_training.targets import IGNORE

_UNKNOWN = (96, 96, 100)
"""Where no loss looks."""


@torch.no_grad()
def training_panels(
    images: Tensor,
    maps: IntraMaps,
    reference_offset: Tensor,
    targets: BatchTargets,
    target: Tensor,
    reference: Tensor,
    class_names: Sequence[str],
    pair: int = -1,
) -> NDArray[np.uint8]:
    """One frame of a batch against one reference: (H', W', 3) uint8 RGB, the network's maps over the targets.

    Both rows have the same wheels, and show offsets on the true objects' pixels.

    Args:
        images: (B, H, W, 3) uint8 RGB.   maps: of the B frames.   reference_offset: (P, 2, h, w) cells.
        target, reference: (P,) the frames of each pair, as ``step.frame_pairs`` gives them.
        pair: which of the P pairs is shown; where there is none, the last frame alone.
    """
    frames = [int(target[pair]), int(reference[pair])] if len(target) else [len(images) - 1]
    here = frames[0]
    size = tile_size(*images.shape[1:3])
    labels = targets.labels[[here]]
    objects = _array(labels[0])
    inside = (objects > 0) & (objects != IGNORE)
    mask = cv2.resize(inside.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    true = [_array(offset_maps(labels, targets.centers[[frame]])[0]) * OUTPUT_STRIDE for frame in frames]
    predicted = [_array(offset) * OUTPUT_STRIDE for offset in (maps.offset[here], *reference_offset[pair:][:1])]
    rims = [_rim(offset[:, inside]) for offset in true]
    classes = _array(targets.semantic[here]).astype(np.int64)
    shown = [class_names[k - 1] for k in np.unique(classes) if k not in (0, IGNORE)]
    semantic = _array(maps.semantic[here].float().softmax(0))
    heats, nowhere = (maps.center[here], targets.center[here]), np.empty((0, 2), np.float32)
    pictures = [
        [_picture(images[frame], size) for frame in (here, frames[-1])],
        [semantic_tile(semantic, size), _true_classes(classes, size)],
        [heat_tile(_array(heat), size, nowhere) for heat in heats],
        *([offset_tile(vectors[k], rims[k], size, mask) for vectors in (predicted, true)] for k in range(len(frames))),
    ]
    titles = [
        ("Frame", "", "Reference" if len(frames) > 1 else "Frame", ""),
        ("Semantic", "", "Semantic, true", ", ".join(shown)),
        ("Center heat", "", "Center heat, true", ""),
        ("Offset", f"rim = {rims[0]:g} px", "Offset, true", ""),
        *(("Reference offset", f"rim = {rim:g} px", "Reference offset, true", "") for rim in rims[1:]),
    ]
    above = [Tile(title[0], title[1], row[0]) for title, row in zip(titles, pictures, strict=True)]
    below = [Tile(title[2], title[3], row[1]) for title, row in zip(titles, pictures, strict=True)]
    return tile_page([above, below], ("Predicted, and below it the truth", ""))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


def _picture(image: Tensor, size: Size) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image.cpu().numpy(), size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _rim(vectors: NDArray[np.float32]) -> float:
    """The length of full colour: nine of ten of the vectors (2, n) are shorter."""
    lengths = np.hypot(*vectors)
    lengths = lengths[np.isfinite(lengths)]
    return nice(float(np.percentile(lengths, 90))) if lengths.size else 1.0


def _true_classes(classes: NDArray[np.int64], size: Size) -> NDArray[np.uint8]:
    """Classes (H, W), 0 = background, class_id + 1, or IGNORE."""
    table = np.concatenate([np.array([NOTHING], np.uint8), class_colours(np.arange(255))])
    table[IGNORE] = _UNKNOWN
    return np.asarray(cv2.resize(table[classes], size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
