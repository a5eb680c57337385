# SPDX-License-Identifier: Apache-2.0
"""Table IV's other ways to keep identities: each is right on perfect maps, and wrong where the paper says it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from instance_flow.assembly.matching import instance_flows, match_instances
from instance_flow.pipeline import Matcher, MatchInput, Pipeline
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import Instances, Prediction
from instance_flow.tracking.memory import Reference
from instance_flow_training.ablating.alternatives import (
    match_by_affinity,
    match_by_average,
    match_by_iou,
    trajectory_affinity,
)
from instance_flow_training.comparing.scoring import score_tracks, track_clip
from instance_flow_training.losses import trajectories
from instance_flow_training.worlds.oracle import OracleNetwork
from instance_flow_training.worlds.synthetic import WorldConfig, generate_clip

SIZE = (24, 40)


def squares(now: list[tuple[int, int]], before: list[tuple[int, int]]) -> MatchInput:
    """Squares of 7 cells around centers now, perfect maps towards their centers before; object k has id k + 1."""
    labels = np.zeros(SIZE, np.int32)
    offset, reference_offset = np.zeros((2, *SIZE), np.float32), np.zeros((1, 2, *SIZE), np.float32)
    cells = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij")).astype(np.float32)
    for k, (y, x) in enumerate(now):
        square = (..., slice(y - 3, y + 4), slice(x - 3, x + 4))
        labels[square] = k + 1
        offset[square] = np.array([y, x])[:, None, None] - cells[square]
        reference_offset[0][square] = np.array(before[k])[:, None, None] - cells[square]
    centers = np.array(now, np.float32)
    instances = Instances(
        labels,
        centers,
        np.ones(len(now), np.float32),
        np.ones((len(now), 1), np.float32),
        np.zeros((1, len(now), 2), np.float32),
        np.zeros((1, len(now)), np.float32),
        np.zeros((len(now), 512), np.float32),
    )
    reference = Reference(0, None, None, np.array(before, np.float32), np.arange(1, len(now) + 1))
    semantic = np.stack([labels == 0, labels > 0]).astype(np.float32)
    prediction = Prediction(semantic, np.zeros(SIZE, np.float32), offset, reference_offset, None)
    return MatchInput(prediction, instances, [reference], 3.0)


def with_field(scene: MatchInput, now: list[tuple[int, int]], before: list[tuple[int, int]]) -> MatchInput:
    """The same frame as a network with ``flow = affinity`` sees it."""
    here, there = (torch.tensor(points, dtype=torch.float32)[None] for points in (now, before))
    field = trajectories(here, there, SIZE).numpy()
    return replace(scene, prediction=replace(scene.prediction, reference_offset=field))


MOTIONS = {
    "standing": ([(5, 8), (15, 25)], [(5, 8), (15, 25)]),
    "one moves, one stands": ([(5, 20), (15, 25)], [(5, 8), (15, 25)]),
    "two abreast": ([(5, 30), (15, 30)], [(5, 10), (15, 10)]),
}
MATCHERS: dict[str, Matcher] = {"average": match_by_average, "iou": match_by_iou, "affinity": match_by_affinity}


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize(("now", "before"), MOTIONS.values(), ids=MOTIONS)
def test_perfect_maps_keep_the_ids(matcher: str, now: list[tuple[int, int]], before: list[tuple[int, int]]) -> None:
    scene = squares(now, before)
    if matcher == "affinity":
        scene = with_field(scene, now, before)
    ids, given_by, _ = MATCHERS[matcher](scene)
    assert ids.tolist() == [1, 2]
    assert given_by.tolist() == [0, 0]


def test_half_a_mask_pulls_the_average_off_but_not_the_residual() -> None:
    scene = squares([(10, 20)], [(10, 8)])
    half = np.where(np.arange(SIZE[1]) < 20, scene.instances.labels, 0).astype(np.int32)
    scene = replace(scene, instances=replace(scene.instances, labels=half), max_distance=1.5)
    (reference,) = scene.references
    assert match_by_average(scene).ids.tolist() == [0]
    flows = instance_flows(scene.prediction.offset, scene.prediction.reference_offset, half, 1)
    residual = match_instances(scene.instances.centers, flows, [reference.centers], [reference.ids], 1.5)
    assert residual.ids.tolist() == [1]
    # The whole mask, by contrast, has its barycenter at the center.
    whole = replace(scene, instances=replace(scene.instances, labels=squares([(10, 20)], [(10, 8)]).instances.labels))
    assert match_by_average(whole).ids.tolist() == [1]


def test_crossing_ways_confuse_the_affinity_field() -> None:
    now, before = [(5, 30), (15, 30)], [(15, 10), (5, 10)]
    scene = squares(now, before)
    field = with_field(scene, now, before).prediction.reference_offset[0]
    own = trajectory_affinity(field, np.array([5.0, 30.0]), np.array([15.0, 10.0]))
    alone = with_field(scene, now[:1], before[:1]).prediction.reference_offset[0]
    assert own < trajectory_affinity(alone, np.array([5.0, 30.0]), np.array([15.0, 10.0])) - 0.02


@pytest.mark.parametrize("matcher", MATCHERS)
def test_nothing_to_match(matcher: str) -> None:
    scene = squares([(10, 20)], [(10, 8)])
    empty = Reference(0, None, None, np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    assert MATCHERS[matcher](replace(scene, references=[empty])).ids.tolist() == [0]
    nothing = replace(scene.prediction, reference_offset=scene.prediction.reference_offset[:0])
    assert MATCHERS[matcher](replace(scene, prediction=nothing, references=[])).ids.tolist() == [0]


def test_the_field_is_one_along_its_own_way_and_zero_aside() -> None:
    field = trajectories(torch.tensor([[[12.0, 5.0]]]), torch.tensor([[[12.0, 35.0]]]), SIZE)[0].numpy()
    assert field[:, 12, 20].tolist() == [0.0, 1.0]
    assert field[:, 14, 20].tolist() == [0.0, 1.0]
    assert not field[:, 15, 20].any()
    assert not field[:, 12, 2].any()
    assert trajectory_affinity(field, np.array([12.0, 5.0]), np.array([12.0, 35.0])) == pytest.approx(1.0)
    assert trajectory_affinity(field, np.array([12.0, 35.0]), np.array([12.0, 5.0])) == pytest.approx(-1.0)
    absent = trajectories(torch.tensor([[[12.0, 5.0]]]), torch.full((1, 1, 2), torch.nan), SIZE)
    assert not absent.any()
    # Beside one that moves, objects that are padded, hidden or still change nothing.
    here = torch.tensor([[[12.0, 5.0], [torch.nan, torch.nan], [12.0, 20.0], [3.0, 3.0]]])
    there = torch.tensor([[[12.0, 35.0], [torch.nan, torch.nan], [torch.nan, torch.nan], [3.0, 3.0]]])
    np.testing.assert_array_equal(trajectories(here, there, SIZE)[0].numpy(), field)


@pytest.mark.parametrize("matcher", [match_by_average, match_by_iou], ids=["average", "iou"])
def test_slow_objects_are_tracked_through_the_whole_pipeline(matcher: Matcher) -> None:
    clip = generate_clip(90_000, "mixed", WorldConfig(size=(96, 160), frames=12))
    result = score_tracks(
        [clip], [track_clip(Pipeline(OracleNetwork(clip), AssemblyConfig(max_distance=0.05), matcher), clip)]
    )
    assert result["tracking"]["class_agnostic"]["IDF1"] > 0.8
