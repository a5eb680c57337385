# SPDX-License-Identifier: Apache-2.0
"""Baselines: each does what ours does, or what its definition says, so that only their cost differs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from time import sleep
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from baselines.assembly import (
    Assembled,
    assemble,
    assemble_with_torch,
    assembly_rows,
    enlarge,
    fitted_to,
    torch_maps,
)
from baselines.association import (
    Moment,
    association_rows,
    by_flow,
    by_joint_histogram,
    by_masks,
    joint_ious,
    make_moment,
)
from baselines.grouping import group_in_blocks, group_naively, grouping_rows
from baselines.scene import MOST_CENTERS, THRESHOLD, make_layout, make_scene
from baselines.timing import CPU, WALL, Row, measure, torch_threads
from numpy.typing import NDArray
from performance import RATIOS
from performance_check import read_stored

from instance_flow import Pipeline
from instance_flow.assembly.grouping import find_centers, group_pixels
from instance_flow.benchmark.suite import OBJECTS, SIZES
from instance_flow.formats.rle import decode
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import FloatArray, Image, LabelMap, ModelInfo, Prediction
from instance_flow_training.comparing.iou_tracking import MaskIouTracker, overlap

SMALL = (96, 128)
Group = Callable[[FloatArray, NDArray[np.bool_], FloatArray], LabelMap]


def test_turns_alternate_and_the_ratio_is_theirs_over_ours() -> None:
    order: list[str] = []
    rows = measure(lambda: order.append("ours"), lambda: order.append("theirs"), 3)
    assert [name for name, _ in groupby(order)] == ["ours", "theirs"] * 4
    assert set(rows) == {WALL, CPU}
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"])


def test_times_are_medians_in_milliseconds() -> None:
    pauses = iter([0.01, 0.01, 0.01, 0.01, 0.5, 0.01, 0.01])  # one before all turns, one that tells how long a turn is
    row = measure(lambda: sleep(next(pauses)), lambda: sleep(0.02), 5)[WALL]
    assert 10 <= row["ours"] < 90, "the mean is above 100"
    assert row["theirs"] >= 20


def test_threads_of_torch_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with contextlib.suppress(KeyError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
    with torch_threads(0):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("objects", [min(OBJECTS), max(OBJECTS)])
def test_made_objects_are_as_many_as_asked_for_and_cover_a_third(objects: int, size: tuple[int, int]) -> None:
    scene = make_scene(objects, size)
    foreground = scene.layout.foreground
    centers, _ = find_centers(scene.prediction.center, foreground, scene.cell_window, THRESHOLD, MOST_CENTERS)
    assert len(centers) == objects
    assert 0.3 < foreground.mean() < 0.4
    assert np.array_equal(np.unique(scene.layout.labels), np.arange(objects + 1))


@pytest.mark.parametrize("group", [group_naively, group_in_blocks])
@pytest.mark.parametrize("objects", [0, 24, 25])  # none; the most that are gone through one by one; a table
def test_every_pixel_goes_to_a_center_that_none_is_nearer_than(group: Group, objects: int) -> None:
    rng = np.random.default_rng(objects)
    size = (50, 70)
    offset = rng.normal(0, 8, (2, *size)).astype(np.float32)
    foreground = rng.random(size) < 0.4
    centers = (rng.random((objects, 2)) * size).astype(np.float32)
    labels = group(offset, foreground, centers)
    assert labels.dtype == np.int32
    assert np.array_equal(labels > 0, foreground & (objects > 0))
    if objects:
        targets = (np.mgrid[: size[0], : size[1]] + offset)[:, foreground].T
        distances = np.linalg.norm(targets[:, None] - centers[None], axis=2)
        taken = distances[np.arange(len(targets)), labels[foreground] - 1]
        np.testing.assert_allclose(taken, distances.min(1), atol=1e-3)


def test_blocks_end_anywhere() -> None:
    layout = make_layout(30, (160, 200))
    found = group_in_blocks(layout.offset, layout.foreground, layout.centers)
    assert np.array_equal(found, group_pixels(layout.offset, layout.foreground, layout.centers))


def check_same_objects(ours: Assembled, theirs: Assembled) -> None:
    for name in ("labels", "classes", "boxes", "areas"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    np.testing.assert_allclose(ours.flows, theirs.flows, atol=1e-4)
    assert ours.run_lengths == theirs.run_lengths


@pytest.mark.parametrize("objects", [1, 12])
def test_without_enlarging_the_torch_pipeline_gives_what_ours_gives(objects: int) -> None:
    scene = make_scene(objects, (90, 120), stride=1, seed=objects)
    theirs = assemble_with_torch(torch_maps(scene), 1, scene.window)
    assert len(theirs.areas) >= 1
    check_same_objects(assemble(scene, fitted_to(scene)), theirs)


def test_enlarged_masks_of_the_torch_pipeline_lie_on_ours() -> None:
    scene = make_scene(6, (192, 320))
    ours, theirs = assemble(scene, fitted_to(scene)), assemble_with_torch(torch_maps(scene), scene.stride, scene.window)
    assert len(ours.areas) == len(theirs.areas) == 6
    ious = joint_ious(ours.labels, theirs.labels, 6, 6)
    assert ious.max(1).min() > 0.95
    partner = ious.argmax(1)
    assert np.array_equal(ours.classes, theirs.classes[partner])
    np.testing.assert_allclose(ours.boxes, theirs.boxes[partner], atol=3)
    # Enlarged offsets fade into the background's at the edges of an object, by a few per cent of the flow.
    np.testing.assert_allclose(ours.flows, theirs.flows[:, partner], atol=1.2)
    true = np.kron(scene.layout.labels, np.ones((scene.stride, scene.stride), np.int32))
    row = joint_ious(ours.labels, true, 6, 6).argmax(1)
    np.testing.assert_allclose(ours.flows, scene.flows[:, row] * scene.stride, atol=0.5)


def test_the_torch_pipeline_sees_nothing_where_there_is_nothing() -> None:
    scene = make_scene(2, SMALL)
    maps = torch_maps(scene)
    maps.semantic[:, 0] += 100
    theirs = assemble_with_torch(maps, scene.stride, scene.window)
    assert not theirs.labels.any()
    assert theirs.flows.shape == (4, 0, 2)
    assert theirs.boxes.shape == (0, 4)


def test_an_object_without_a_pixel_keeps_its_row() -> None:
    scene = make_scene(2, SMALL, 1)
    offset = np.zeros_like(scene.prediction.offset)
    offset[1] = 1000.0  # everything belongs to the center at the right
    nowhere = replace(scene, prediction=replace(scene.prediction, offset=offset))
    theirs = assemble_with_torch(torch_maps(nowhere), 1, nowhere.window)
    assert sorted(theirs.areas > 0) == [False, True]
    empty = int(theirs.areas.argmin())
    assert not decode({"size": list(SMALL), "counts": theirs.run_lengths[empty]}).any()
    assert theirs.run_lengths == assemble(nowhere, fitted_to(nowhere)).run_lengths


def test_ours_is_what_the_pipeline_does() -> None:
    scene = make_scene(6, (192, 320))

    class Fixed:
        info = ModelInfo("made", tuple(f"class_{k}" for k in range(40)), scene.size, center_threshold=THRESHOLD)

        def predict(self, image: Image, references: Sequence[Any]) -> Prediction:  # noqa: ARG002
            return replace(scene.prediction, reference_offset=scene.prediction.reference_offset[: len(references)])

    window = scene.cell_window * scene.stride / float(np.sqrt(scene.size[0] * scene.size[1]))
    tracks = Pipeline(Fixed(), AssemblyConfig(center_window=window)).step(fitted_to(scene).image)
    ours = assemble(scene, fitted_to(scene))
    assert np.array_equal(tracks.label_map, ours.labels)
    assert np.array_equal(tracks.class_ids, ours.classes)
    assert np.array_equal(tracks.boxes, ours.boxes)
    assert np.array_equal(tracks.areas, ours.areas)
    np.testing.assert_allclose(tracks.scores, ours.scores, atol=1e-6)


def test_enlarging_keeps_cells_centered_at_half_integers() -> None:
    small = np.random.default_rng(0).random((12, 20)).astype(np.float32)
    large = enlarge(torch.from_numpy(small)[None, None], 4)[0, 0].numpy()
    np.testing.assert_allclose(large, cv2.resize(small, (80, 48), interpolation=cv2.INTER_LINEAR), atol=1e-6)


@pytest.fixture(scope="module")
def moment() -> Moment:
    return make_moment(12, (192, 320))


@pytest.mark.parametrize("way", ["flow", "masks", "histogram"])
def test_each_way_of_association_finds_everyone_again(moment: Moment, way: str) -> None:
    tracker = MaskIouTracker()
    assert tracker.update(moment.before, moment.image).tolist() == moment.before.ids.tolist()
    ways = {"flow": by_flow, "masks": lambda m: by_masks(m, tracker), "histogram": by_joint_histogram}
    assert ways[way](moment).tolist() == moment.frame.ids.tolist()


def test_the_histogram_counts_what_the_pairs_count() -> None:
    rng = np.random.default_rng(0)
    labels, others = (rng.integers(0, count + 1, SMALL).astype(np.int32) for count in (5, 7))
    labels[labels == 4] = 0  # one without a pixel
    ids = np.arange(1, 6)
    pairs = overlap(labels, ids, [others == k for k in range(1, 8)])
    np.testing.assert_allclose(joint_ious(labels, others, 5, 7), pairs)


ROWS: dict[str, tuple[Callable[[], dict[str, Row]], int]] = {
    "assembly": (lambda: assembly_rows(1, [(64, (192, 320))]), 1),
    "grouping": (lambda: grouping_rows(1, (1,), ((192, 320),)), 4),
    "association": (lambda: association_rows(1, (1,)), 2),
}


@pytest.mark.parametrize(("rows", "count"), ROWS.values(), ids=ROWS)
def test_rows_have_the_names_that_are_stored(rows: Callable[[], dict[str, Row]], count: int) -> None:
    found = rows()
    assert len(found) == count
    assert set(found) <= set(read_stored(RATIOS))
    assert all(set(row) == {"ours", "theirs", "ratio"} and min(row.values()) > 0 for row in found.values())
