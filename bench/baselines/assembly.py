# SPDX-License-Identifier: Apache-2.0
"""From maps to masks, boxes, classes and flow: ours, and the usual full-resolution pipeline in torch.

The usual one is written from the description of Panoptic-DeepLab (Cheng et al., 2020) and of what its public code does
after the network: all maps are brought to the size of the image, centers are found by max-pooling, a table of the
distances of all pixels to all centers tells which object a pixel belongs to, and the rest is done object by object.
Instance flow is the mean of offsets under each mask there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor
from torch.nn import functional as F

from baselines.scene import MOST_CENTERS, THRESHOLD, MapScene, make_scene
from baselines.timing import CPU, Row, measure, torch_threads
from instance_flow.assembly.grouping import class_means, find_centers, foreground_margin, group_pixels
from instance_flow.assembly.matching import flows_with_std
from instance_flow.assembly.preprocess import Fit, fit, restore_labels
from instance_flow.benchmark.scenes import STRIDE
from instance_flow.benchmark.suite import OBJECTS, size_name
from instance_flow.formats.rle import compress, label_run_lengths
from instance_flow.structures import FloatArray, IntArray, LabelMap

CASES = (*((objects, (384, 640)) for objects in OBJECTS), (64, (192, 320)), (64, (736, 1280)))
"""Objects and (height, width); time and memory of the usual pipeline grow with their product."""


@dataclass(frozen=True)
class Assembled:
    """M objects of an image (H, W), best center first.

    labels: (H, W) int32, 0 = background, m + 1 = object m.   classes: (M,) int64.   scores: (M,) float32 (Eq. 6).
    boxes: (M, 4) float32 x, y, width, height.   areas: (M,) int64 pixels.   flows: (R, M, 2) float32 (dy, dx) pixels.
    run_lengths: M texts in the COCO format.
    """

    labels: LabelMap
    classes: IntArray
    scores: FloatArray
    boxes: FloatArray
    areas: IntArray
    flows: FloatArray
    run_lengths: list[str]


def fitted_to(scene: MapScene) -> Fit:
    """An image of the scene's size as the network takes it."""
    return fit(np.zeros((*scene.size, 3), np.uint8), scene.size)


def assemble(scene: MapScene, fitted: Fit) -> Assembled:
    """What ``Pipeline.step`` does with the network's maps, without identities; and the run lengths of all masks."""
    maps = scene.prediction
    margin = foreground_margin(maps.semantic)
    foreground = margin > 0
    centers, heats = find_centers(maps.center, foreground, scene.cell_window, THRESHOLD, MOST_CENTERS)
    cells = group_pixels(maps.offset, foreground, centers)
    count = len(centers)
    means = class_means(maps.semantic, cells, count)
    flows, _ = flows_with_std(maps.offset, maps.reference_offset, cells, count)
    labels, areas, boxes = restore_labels(margin, cells, count, fitted, scene.stride)
    texts = [compress(runs) for runs in label_run_lengths(labels, np.arange(1, count + 1))]
    scores = means.max(1) * np.clip(heats, 0, 1)
    return Assembled(labels, means.argmax(1), scores, boxes, areas, flows * np.float32(scene.stride), texts)


@dataclass(frozen=True)
class TorchMaps:
    """The network's maps as torch gives them: semantic (1, C + 1, h, w) logits, center (1, 1, h, w), offset
    (1, 2, h, w) and reference_offset (R, 2, h, w) in cells."""

    semantic: Tensor
    center: Tensor
    offset: Tensor
    reference_offset: Tensor


def torch_maps(scene: MapScene) -> TorchMaps:
    """The same maps; the logarithm of a probability is a logit."""
    maps = scene.prediction
    arrays = np.log(maps.semantic)[None], maps.center[None, None], maps.offset[None], maps.reference_offset
    return TorchMaps(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


@torch.no_grad()
def assemble_with_torch(maps: TorchMaps, stride: int, window: int) -> Assembled:
    """The usual pipeline, all of it at full resolution.

    window: of the centers, in pixels of the image.
    """
    semantic, center, offset, reference_offset = (
        enlarge(m, stride) for m in (maps.semantic, maps.center, maps.offset, maps.reference_offset)
    )
    probabilities = semantic[0].softmax(0)
    classes = probabilities.argmax(0)
    foreground = classes > 0
    points, heats = peaks(center[0, 0], foreground, window)
    labels = nearest(offset[0] * stride, points) * foreground
    residual = (reference_offset - offset) * stride
    objects = [_object(labels == m + 1, probabilities, classes, residual) for m in range(len(points))]
    return _gather(labels, heats, objects, len(reference_offset))


def enlarge(maps: Tensor, stride: int) -> Tensor:
    """(N, C, h, w) to (N, C, h * stride, w * stride), bilinear, cells centered at half integers."""
    return maps if stride == 1 else F.interpolate(maps, scale_factor=stride, mode="bilinear", align_corners=False)


def peaks(heat: Tensor, foreground: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Pixels (K, 2) that are the hottest of their window, hottest first, and their heat (K,)."""
    heat = torch.where(foreground, heat, torch.zeros(()))
    pooled = F.max_pool2d(heat[None, None], window, stride=1, padding=window // 2)[0, 0]
    kept = torch.where((heat == pooled) & (heat > THRESHOLD), heat, torch.zeros(()))
    values, places = kept.reshape(-1).topk(min(MOST_CENTERS, kept.numel()))
    places = places[values > 0]
    return torch.stack([places // heat.shape[1], places % heat.shape[1]], 1), values[values > 0]


def nearest(offset: Tensor, points: Tensor) -> Tensor:
    """(H, W) number of the point (K, 2) that each pixel's offset (2, H, W) leads nearest to, from 1 on."""
    height, width = offset.shape[1:]
    if not len(points):
        return torch.zeros((height, width), dtype=torch.int64)
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    targets = (grid + offset).reshape(2, -1).T
    distances = torch.norm(points[:, None] - targets[None], dim=-1)
    return distances.argmin(0).reshape(height, width) + 1


def _object(mask: Tensor, probabilities: Tensor, classes: Tensor, residual: Tensor) -> dict[str, Any]:
    """One object under its mask (H, W)."""
    area = int(mask.sum())
    run_lengths = coco.encode(np.asfortranarray(mask.numpy(), np.uint8))["counts"].decode()
    if not area:
        flow = torch.zeros(residual.shape[:2])
        return {"class": 0, "score": 0.0, "box": (0, 0, 0, 0), "area": 0, "flow": flow, "text": run_lengths}
    label = int(classes[mask].bincount().argmax())
    rows, columns = mask.nonzero(as_tuple=True)
    top, left = int(rows.min()), int(columns.min())
    return {
        "class": label - 1,
        "score": float(probabilities[label][mask].mean()),
        "box": (left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1),
        "area": area,
        "flow": residual[:, :, mask].mean(-1),
        "text": run_lengths,
    }


def _gather(labels: Tensor, heats: Tensor, objects: Sequence[dict[str, Any]], references: int) -> Assembled:
    flows = np.zeros((references, len(objects), 2), np.float32)
    for m, found in enumerate(objects):
        flows[:, m] = found["flow"].numpy()
    return Assembled(
        labels=labels.numpy().astype(np.int32),
        classes=np.array([found["class"] for found in objects], np.int64),
        scores=np.array([found["score"] for found in objects], np.float32) * heats.clamp(0, 1).numpy(),
        boxes=np.array([found["box"] for found in objects], np.float32).reshape(-1, 4),
        areas=np.array([found["area"] for found in objects], np.int64),
        flows=flows,
        run_lengths=[found["text"] for found in objects],
    )


def assembly_rows(repetitions: int, cases: Sequence[tuple[int, tuple[int, int]]] = CASES) -> dict[str, Row]:
    """Time the usual pipeline against ours, CPU time, one thread both, from the same maps of stride 4."""
    rows = {}
    with torch_threads(1):
        for objects, size in cases:
            scene = make_scene(objects, size)
            ours = partial(assemble, scene, fitted_to(scene))
            theirs = partial(assemble_with_torch, torch_maps(scene), STRIDE, scene.window)
            name = f"assembly {objects} objects {size_name(size)}: torch pipeline"
            rows[name] = measure(ours, theirs, repetitions)[CPU]
    return rows
