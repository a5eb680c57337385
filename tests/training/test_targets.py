# SPDX-License-Identifier: Apache-2.0
"""Targets are the exact inverse of grouping and matching, and the batched losses agree with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instance_flow.assembly.grouping import find_centers, group_pixels
from instance_flow.assembly.matching import instance_flows, match_instances
from instance_flow_training.datasets import Sample, collate
from instance_flow_training.losses import (
    BatchTargets,
    LossConfig,
    dense_losses,
    intra_losses,
    offset_maps,
    semantic_loss,
    size_weights,
    trajectories,
    weighted,
)
from instance_flow_training.network.maps import Boxes, Claims, FlowMaps, IntraMaps
from instance_flow_training.network.model import AFFINITY, OFFSET
from instance_flow_training.targets import IGNORE, FrameTargets, frame_targets, snapped_center, target_offset_map
from instance_flow_training.worlds.synthetic import SITUATIONS, World, WorldConfig


def losses(
    semantic: torch.Tensor,
    center: torch.Tensor,
    offset: torch.Tensor,
    reference_offset: torch.Tensor,
    targets: BatchTargets,
    target: torch.Tensor,
    reference: torch.Tensor,
    config: LossConfig,
    flow: str = OFFSET,
) -> dict[str, torch.Tensor]:
    """All terms of the paper's network, as a training step has them."""
    terms = intra_losses(IntraMaps(semantic, center, offset), targets, config)
    flows = FlowMaps(reference_offset, [])
    return weighted(terms | dense_losses(offset, flows, targets, target, reference, config, flow), config)


def targets_of(situation: str, seed: int, frames: tuple[int, ...], stride: int = 4) -> list[FrameTargets]:
    world = World(seed, situation, WorldConfig(size=(192, 320)))
    return [frame_targets(world.render(t)[1], world.class_ids, stride) for t in frames]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("seed", range(8))
def test_targets_fed_back_give_the_same_instances_and_identities(situation: str, seed: int) -> None:
    here, before = targets_of(situation, seed, (6, 4))
    foreground = here.labels > 0
    centers, scores = find_centers(here.center, foreground, 1, 0.999, 50)
    present = np.flatnonzero(np.isfinite(here.centers[:, 0]))
    assert sorted(map(tuple, centers.tolist())) == sorted(map(tuple, here.centers[present].tolist()))
    assert (scores == 1).all()

    offset = target_offset_map(here.labels, here.centers)
    labels = group_pixels(offset, foreground, centers)
    row_of = {tuple(here.centers[row]): row for row in present}
    rows = np.array([row_of[tuple(center)] for center in centers], int)
    np.testing.assert_array_equal(np.where(labels > 0, rows[labels - 1] + 1, 0), here.labels)

    towards = np.nan_to_num(target_offset_map(here.labels, before.centers), nan=-1e4)
    flows = instance_flows(offset, towards[None], labels, len(centers))
    others = np.flatnonzero(np.isfinite(before.centers[:, 0]))
    ids, _, distances = match_instances(centers, flows, [before.centers[others]], [others + 1], 1.0)
    seen = np.isin(rows, others)
    np.testing.assert_array_equal(ids[seen], rows[seen] + 1)
    assert (ids[~seen] == 0).all()
    np.testing.assert_allclose(distances[seen], 0, atol=1e-3)


def test_the_center_of_a_ring_lies_on_the_ring() -> None:
    ys, xs = np.mgrid[:21, :21]
    radius = np.hypot(ys - 10, xs - 10)
    ring = (radius > 6) & (radius < 9)
    assert ring[snapped_center(ring)]


def test_small_objects_weigh_three_times() -> None:
    labels = np.zeros((640, 640), np.uint8)
    labels[:40, :40] = 1
    labels[100:110, 100:110] = 2
    weight = frame_targets(labels, np.array([0, 0])).weight
    assert weight.tolist() == [1.0, 3.0]


def test_pixels_of_small_objects_weigh_more_in_the_semantics_up_to_a_limit() -> None:
    labels = torch.zeros(1, 160, 160, dtype=torch.uint8)
    labels[0, :24, :24], labels[0, 40:52, 40:52], labels[0, 80:84, 80:84], labels[0, 100:150, 100:150] = 1, 2, 3, 4
    labels[0, 158:] = IGNORE
    weight = size_weights(labels, 4, 3.0)[0]
    assert weight[[0, 45, 81, 120, 159, 70], [0, 45, 81, 120, 0, 70]].tolist() == pytest.approx([1, 2, 3, 1, 1, 1])


def test_a_missed_small_object_costs_more_with_small_objects() -> None:
    _, targets = batch()
    smallest = int(torch.bincount(targets.labels[targets.labels != IGNORE].flatten().long())[1:].argmin()) + 1
    semantic = perfect_outputs(targets, torch.tensor([2]), torch.tensor([0]))[0] / 10
    missed = torch.nn.functional.interpolate((targets.labels == smallest)[:, None].float(), semantic.shape[-2:]) > 0
    semantic = torch.where(missed, semantic.roll(1, 1), semantic)
    weight = torch.zeros_like(targets.center)
    alike, weighed = (semantic_loss(semantic, targets, weight, LossConfig(small_objects=n)) for n in (1.0, 4.0))
    assert weighed > 1.1 * alike > 0


def test_background_in_a_box_of_no_object_costs_nothing() -> None:
    _, targets = batch()
    semantic = perfect_outputs(targets, torch.tensor([2]), torch.tensor([0]))[0]
    size = targets.labels.shape[-2:]
    here = (targets.labels == 0) & (torch.arange(size[1]) < size[1] // 2)
    seen = torch.nn.functional.interpolate(here[:, None].float(), semantic.shape[-2:]) > 0
    seen &= targets.semantic[:, None] == 0
    ghost = torch.where(seen, semantic.roll(1, 1), semantic)
    half = torch.tensor([[[size[0] / 2], [size[1] / 4]]]).expand(len(here), -1, -1)
    box = Boxes(torch.ones(len(here), 1, 1), half - 0.5, half, torch.full((len(here), 1), 0.1))
    nothing, alone = torch.zeros_like(targets.center), torch.zeros_like(targets.labels.flatten(1), dtype=torch.long)
    claims = Claims(box, nothing.flatten(1)[..., None], alone, here.float(), nothing)
    maps = IntraMaps(ghost, nothing, torch.zeros_like(targets.center)[:, None].expand(-1, 2, -1, -1))
    plain, claimed = (intra_losses(maps, targets, LossConfig(), None, of)["semantic"] for of in (None, claims))
    assert plain > 1
    assert claimed == pytest.approx(0, abs=1e-4)


def batch() -> tuple[list[FrameTargets], BatchTargets]:
    frames = targets_of("crossing", 2, (2, 5, 9))
    _, targets = collate([Sample(np.zeros((3, 192, 320, 3), np.uint8), frames)])
    return frames, targets


def perfect_outputs(
    targets: BatchTargets, target: torch.Tensor, reference: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    semantic = torch.nn.functional.one_hot(targets.semantic.long(), 7).permute(0, 3, 1, 2).float() * 50
    own = torch.nan_to_num(offset_maps(targets.labels, targets.centers))
    other = torch.nan_to_num(offset_maps(targets.labels[target], targets.centers[reference]))
    return semantic, targets.center.clone(), own, other


def test_a_perfect_prediction_costs_nothing() -> None:
    _, targets = batch()
    target, reference = torch.tensor([2, 2]), torch.tensor([0, 1])
    terms = losses(*perfect_outputs(targets, target, reference), targets, target, reference, LossConfig())
    assert {name: round(float(value), 6) for name, value in terms.items()} == dict.fromkeys(terms, 0.0)


def test_batched_offsets_equal_the_plain_formula() -> None:
    frames, targets = batch()
    batched = offset_maps(targets.labels, targets.centers).numpy()
    for row, frame in enumerate(frames):
        plain = target_offset_map(frame.labels, frame.centers)
        known = frame.labels > 0
        np.testing.assert_allclose(batched[row][:, known], plain[:, known])


MASKED = {
    "background offset": lambda out, t: out[2].__setitem__(
        (slice(None), slice(None)), out[2] + 9.0 * (t.labels == 0)[:, None]
    ),
    "background heat": lambda out, t: out[1].add_(9.0 * (t.labels == 0)),
}


@pytest.mark.parametrize("spoil", MASKED.values(), ids=MASKED)
def test_background_does_not_count(spoil) -> None:  # type: ignore[no-untyped-def]
    _, targets = batch()
    target, reference = torch.tensor([2]), torch.tensor([0])
    outputs = perfect_outputs(targets, target, reference)
    spoil(outputs, targets)
    terms = losses(*outputs, targets, target, reference, LossConfig())
    assert float(terms["center"] + terms["intra"] + terms["inter"] + terms["shape"]) == pytest.approx(0, abs=1e-5)


def test_unknown_pixels_touch_no_loss() -> None:
    _, targets = batch()
    target, reference = torch.tensor([2]), torch.tensor([0])
    outputs = perfect_outputs(targets, target, reference)
    targets.semantic[:, :96], targets.labels[:, :24] = IGNORE, IGNORE
    outputs[0][:, :, :96], outputs[1][:, :24], outputs[2][:, :, :24] = -3.0, 7.0, 7.0
    terms = losses(*outputs, targets, target, reference, LossConfig())
    assert float(terms["total"]) == pytest.approx(0, abs=1e-5)


def test_a_batch_of_unknown_pixels_costs_nothing() -> None:
    _, targets = batch()
    target, reference = torch.tensor([2]), torch.tensor([0])
    semantic, center, own, other = perfect_outputs(targets, target, reference)
    targets.semantic[:], targets.labels[:] = IGNORE, IGNORE
    terms = losses(semantic + 5, center + 5, own + 5, other + 5, targets, target, reference, LossConfig())
    assert {name: float(value) for name, value in terms.items()} == dict.fromkeys(terms, 0.0)


def test_the_weights_of_equation_one() -> None:
    _, targets = batch()
    target, reference = torch.tensor([2]), torch.tensor([1])
    semantic, center, own, other = perfect_outputs(targets, target, reference)
    terms = losses(semantic, center + 0.1, own + 1.0, other - 0.5, targets, target, reference, LossConfig())
    assert float(terms["center"]) == pytest.approx(0.01, rel=1e-4)
    assert float(terms["intra"]) == pytest.approx(8.0, rel=1e-4)  # 2 components of 1 cell, 4 pixels each
    assert float(terms["inter"]) == pytest.approx(4.0, rel=1e-4)
    assert float(terms["shape"]) == pytest.approx(72.0, rel=1e-4)  # (1.5 cells * 4 pixels)^2, twice
    expected = terms["semantic"] + 100 * terms["center"] + 0.01 * (terms["intra"] + terms["inter"] + terms["shape"])
    assert float(terms["total"]) == pytest.approx(float(expected), rel=1e-6)


BACKGROUND = {
    "center": (("center",), {"center"}),
    "both offsets": (("intra", "inter"), {"intra", "inter"}),
    "all": (("center", "intra", "inter"), {"center", "intra", "inter"}),
}


@pytest.mark.parametrize(("names", "felt"), BACKGROUND.values(), ids=BACKGROUND)
def test_background_counts_where_it_is_asked_for(names: tuple[str, ...], felt: set[str]) -> None:
    _, targets = batch()
    target, reference = torch.tensor([2]), torch.tensor([0])
    semantic, center, own, other = perfect_outputs(targets, target, reference)
    on_objects = (targets.labels > 0).float()
    center = center * on_objects
    own, other = own * on_objects[:, None], other * on_objects[target][:, None]
    config = LossConfig(background=names)
    silent = losses(semantic, center, own, other, targets, target, reference, config)
    assert float(silent["total"]) == pytest.approx(0, abs=1e-5)
    wrong = 3.0 * (1 - on_objects)
    center, own, other = center + wrong, own + wrong[:, None], other + wrong[target][:, None]
    terms = losses(semantic, center, own, other, targets, target, reference, config)
    assert {name for name in ("center", "intra", "inter") if float(terms[name]) > 0.1} == felt
    assert float(terms["shape"]) == pytest.approx(0, abs=1e-5)


def test_an_unknown_background_is_refused() -> None:
    with pytest.raises(ValueError, match="out of center, intra, inter"):
        LossConfig(background=("semantic",))


def test_the_affinity_field_is_learnt_everywhere() -> None:
    _, targets = batch()
    target, reference = torch.tensor([2]), torch.tensor([0])
    semantic, center, own, _ = perfect_outputs(targets, target, reference)
    field = trajectories(targets.centers[target], targets.centers[reference], targets.labels.shape[-2:])
    assert field.abs().sum() > 0
    terms = losses(semantic, center, own, field, targets, target, reference, LossConfig(), AFFINITY)
    assert "shape" not in terms
    assert float(terms["total"]) == pytest.approx(0, abs=1e-5)
    terms = losses(semantic, center, own, field + 0.25, targets, target, reference, LossConfig(), AFFINITY)
    assert float(terms["inter"]) == pytest.approx(2 * 0.25 * 4, rel=1e-4)  # 2 components, 4 pixels a cell
