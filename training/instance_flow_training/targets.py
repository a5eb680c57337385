# SPDX-License-Identifier: Apache-2.0
"""What the network should say, made from a label map: the exact inverse of grouping and matching.

Fed back through ``instance_flow``'s grouping and matching, these maps give the same instances and identities
(tests/training/test_targets.py). Sizes are relative to the frame, as the runtime's window and distances are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly import grouping

SMALL_AREA = (32 / 640) ** 2
"""COCO's small object, 32 x 32 pixels, as a share of the paper's 640 x 640 crop."""
CENTER_SIGMA = 8 / 640
"""Standard deviation of a center's Gaussian as a fraction of sqrt(height * width); 8 pixels at the paper's size."""
IGNORE = 255
"""Label of pixels that no loss may touch: crowds and unlabelled regions."""


@dataclass(frozen=True)
class FrameTargets:
    """Targets of one frame; h = H / stride, w = W / stride; N rows of the clip's objects, present or not.

    semantic: (H, W) uint8, 0 = background, class_id + 1, or IGNORE.
    labels: (h, w) uint8, 0 = background, k + 1 = row k, or IGNORE.
    center: (h, w) float32 heat.   centers: (N, 2) float32 cells, NaN where absent.
    weight: (N,) float32, 3 for small objects (section IV-A), else 1.
    """

    semantic: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    center: NDArray[np.float32]
    centers: NDArray[np.float32]
    weight: NDArray[np.float32]


def snapped_center(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The cell of the mask that is nearest to the mask's centroid, so that a center always lies on its own object."""
    ys, xs = np.nonzero(mask)
    nearest = int(np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2))
    return int(ys[nearest]), int(xs[nearest])


def frame_targets(
    labels: NDArray[np.integer], class_ids: NDArray[np.int64], stride: int = 4, spread: float = 0.0
) -> FrameTargets:
    """The training targets of one frame.

    Args:
        labels: (H, W), 0 = background, k + 1 = row k of class_ids (N,), IGNORE = unknown.
        spread: least standard deviation of a center's Gaussian as a share of the root of its object's area: the
            center of a large object is not known to the pixel.
    """
    height, width = labels.shape
    lookup = np.zeros(256, np.uint8)
    lookup[1 : len(class_ids) + 1] = class_ids + 1
    lookup[IGNORE] = IGNORE
    cells = np.ascontiguousarray(labels[stride // 2 :: stride, stride // 2 :: stride]).astype(np.uint8)
    h, w = cells.shape
    sigma = max(CENTER_SIGMA * np.sqrt(height * width) / stride, 0.7)
    heat = np.zeros((h, w), np.float32)
    centers = np.full((len(class_ids), 2), np.nan, np.float32)
    rows, columns = np.arange(h, dtype=np.float32), np.arange(w, dtype=np.float32)
    areas = np.bincount(labels.ravel(), minlength=len(class_ids) + 1)[1 : len(class_ids) + 1]
    for row in np.unique(cells):
        if row in (0, IGNORE):
            continue
        y, x = centers[row - 1] = snapped_center(cells == row)
        wide = 2 * max(sigma, spread * np.sqrt(areas[row - 1]) / stride) ** 2
        bump = np.exp(-((rows - y) ** 2) / wide)[:, None] * np.exp(-((columns - x) ** 2) / wide)
        np.maximum(heat, bump, out=heat)
    weight = np.where(areas < SMALL_AREA * height * width, 3.0, 1.0).astype(np.float32)
    return FrameTargets(lookup[labels.astype(np.uint8)], cells, heat, centers, weight)


def target_offset_map(labels: NDArray[np.integer], centers: NDArray[np.float32]) -> NDArray[np.float32]:
    """``grouping.offset_map`` of a label map with pixels to ignore, whose offset is 0, as that of background."""
    return grouping.offset_map(np.where(labels == IGNORE, 0, labels), centers)
