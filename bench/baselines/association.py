# SPDX-License-Identifier: Apache-2.0
"""Which object is which: by instance flow, or by how much masks overlap those of earlier frames.

Flow needs the branch of the network that says it (``networks``, "four references over none"); here it is the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from baselines.assembly import fitted_to
from baselines.scene import make_scene
from baselines.timing import CPU, Row, measure
from instance_flow.assembly.appearance import appearance_vectors
from instance_flow.assembly.grouping import foreground_margin
from instance_flow.assembly.matching import KnownIdentities, cheapest_pairs, flows_with_std, match_by_evidence
from instance_flow.assembly.preprocess import restore_labels
from instance_flow.benchmark.scenes import STRIDE
from instance_flow.benchmark.suite import OBJECTS, size_name
from instance_flow.structures import FloatArray, Image, IntArray, LabelMap, MatchCosts, Prediction, Tracks
from instance_flow_training.comparing.iou_tracking import MINIMUM_IOU, MaskIouTracker

_SIZE = (384, 640)


@dataclass(frozen=True)
class Moment:
    """M grouped objects of a frame, and what is known of the frames before.

    image: (H, W, 3).   maps: of stride 4.   cells: (h, w) labels of cells.   centers: (M, 2) cells.
    reference_centers, reference_ids: of each reference.   known: the M identities.
    frame: the objects in the image's pixels, their ids 1 .. M.   before: the same objects in the frame before.
    """

    image: Image
    maps: Prediction
    cells: LabelMap
    centers: FloatArray
    reference_centers: list[FloatArray]
    reference_ids: list[IntArray]
    known: KnownIdentities
    frame: Tracks
    before: Tracks


def make_moment(objects: int, size: tuple[int, int]) -> Moment:
    """M objects that were elsewhere in each of four references, all of which show them all."""
    scene = make_scene(objects, size)
    layout, maps = scene.layout, scene.prediction
    image = np.random.default_rng(2).integers(0, 255, (*size, 3), dtype=np.uint8)
    ids = np.arange(1, objects + 1)
    labels, _, _ = restore_labels(foreground_margin(maps.semantic), layout.labels, objects, fitted_to(scene), STRIDE)
    known = KnownIdentities(
        ids, appearance_vectors(image, layout.labels, objects, STRIDE), layout.centers, np.ones(objects, np.int64)
    )
    return Moment(
        image,
        maps,
        layout.labels,
        layout.centers,
        list(layout.centers + scene.flows),
        [ids] * len(scene.flows),
        known,
        _tracks(labels, ids),
        _tracks(np.roll(labels, (-2, 3), (0, 1)), ids),
    )


def by_flow(moment: Moment) -> IntArray:
    """Ids (M,) as ``Pipeline.step`` finds them: flow of all references (Eq. 3), colours, and the cheapest pairs."""
    count = len(moment.centers)
    maps = moment.maps
    flows, flow_std = flows_with_std(maps.offset, maps.reference_offset, moment.cells, count)
    appearance = appearance_vectors(moment.image, moment.cells, count, STRIDE)
    unit = MatchCosts().flow_error * float(np.sqrt(moment.cells.size))
    references = moment.reference_centers, moment.reference_ids
    return match_by_evidence(moment.centers, flows, flow_std, appearance, *references, moment.known, unit).ids


def by_masks(moment: Moment, tracker: MaskIouTracker) -> IntArray:
    """Ids (M,) by the IoU of all pairs of masks of this frame and of those remembered, one pair after the other."""
    return tracker.update(moment.frame, moment.image)


def by_joint_histogram(moment: Moment) -> IntArray:
    """Ids (M,) by IoU with the frame before alone, whose masks do not overlap: one pass counts for all pairs."""
    ious = joint_ious(moment.frame.label_map, moment.before.label_map, len(moment.frame), len(moment.before))
    ids = np.zeros(len(moment.frame), np.int64)
    for row, column in cheapest_pairs(-ious, -MINIMUM_IOU, moment.before.ids):
        ids[row] = moment.before.ids[column]
    return ids


def joint_ious(labels: LabelMap, others: LabelMap, count: int, other_count: int) -> NDArray[np.float64]:
    """IoU (count, other_count) of the objects of two label maps (H, W), each with labels from 1 up to its count."""
    pairs = labels.reshape(-1) * np.int32(other_count + 1) + others.reshape(-1)
    common = np.bincount(pairs, minlength=(count + 1) * (other_count + 1)).reshape(count + 1, other_count + 1)
    union = common.sum(1)[1:, None] + common.sum(0)[None, 1:] - common[1:, 1:]
    return np.asarray(common[1:, 1:] / np.maximum(union, 1))


def association_rows(
    repetitions: int, counts: Sequence[int] = OBJECTS, size: tuple[int, int] = _SIZE
) -> dict[str, Row]:
    """Time both ways of mask IoU against flow, CPU time on one thread.

    counts: numbers of objects.   size: (height, width) of the image.
    """
    rows = {}
    for objects in counts:
        moment = make_moment(objects, size)
        tracker = MaskIouTracker()
        by_masks(moment, tracker)
        name = f"association {objects} objects {size_name(size)}"
        ours = partial(by_flow, moment)
        rows[f"{name}: mask IoU of all pairs"] = measure(ours, partial(by_masks, moment, tracker), repetitions)[CPU]
        theirs = partial(by_joint_histogram, moment)
        rows[f"{name}: mask IoU by one histogram"] = measure(ours, theirs, repetitions)[CPU]
    return rows


def _tracks(label_map: LabelMap, ids: IntArray) -> Tracks:
    """Tracks of which only ``label_map`` and ``ids`` say anything."""
    nothing, points = np.zeros(len(ids), np.float32), np.zeros((len(ids), 2), np.float32)
    whole = np.zeros(len(ids), np.int64)
    return Tracks(
        frame_index=0,
        label_map=label_map,
        ids=ids,
        class_ids=whole,
        scores=nothing,
        semantic_scores=nothing,
        center_scores=nothing,
        centers=points,
        boxes=np.zeros((len(ids), 4), np.float32),
        areas=whole,
        velocities=points,
        states=whole,
        ages=whole,
        age_seconds=nothing.astype(np.float64),
        reference_frames=whole,
        distances=nothing,
    )
