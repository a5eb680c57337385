# SPDX-License-Identifier: Apache-2.0
"""Instance flow and matching against brute-force formulas, and named situations."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from instance_flow.assembly.appearance import APPEARANCE_SIZE, appearance_vectors, blend, similarity
from instance_flow.assembly.assignment import cheapest_pairs
from instance_flow.assembly.matching import (
    KnownIdentities,
    flows_with_std,
    instance_flows,
    match_by_evidence,
    match_instances,
)
from instance_flow.settings import MEAN, NEAREST, POLICIES
from instance_flow.structures import FloatArray, MatchCosts

RANDOM_INPUTS = 1000


def test_flows_equal_the_mean_residual_on_random_input() -> None:
    rng = np.random.default_rng(0)
    for _ in range(RANDOM_INPUTS):
        h, w = rng.integers(1, 16, 2)
        references, count = int(rng.integers(0, 5)), int(rng.integers(0, 6))
        offset = rng.normal(0, 9, (2, h, w)).astype(np.float32)
        reference_offset = rng.normal(0, 9, (references, 2, h, w)).astype(np.float32)
        labels = rng.integers(0, count + 1, (h, w)).astype(np.int32)
        flows = instance_flows(offset, reference_offset, labels, count)
        assert flows.shape == (references, count, 2)
        for r, m in itertools.product(range(references), range(count)):
            pixels = labels == m + 1
            residual = reference_offset[r][:, pixels].astype(np.float64) - offset[:, pixels]
            expected = residual.mean(1) if pixels.any() else np.zeros(2)
            np.testing.assert_allclose(flows[r, m], expected, atol=1e-4)


def brute_force_match(distances: dict[tuple[int, int], float], limit: float) -> dict[int, int]:
    """Nearest pair of (object, identity) first, each used once, until nothing is within reach."""
    matched: dict[int, int] = {}
    pairs = sorted(distances.items(), key=lambda item: item[1])
    for (m, identity), distance in pairs:
        if distance <= limit and m not in matched and identity not in matched.values():
            matched[m] = identity
    return matched


@pytest.mark.parametrize("policy", POLICIES)
def test_matching_equals_brute_force_on_random_input(policy: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(RANDOM_INPUTS):
        count, references = int(rng.integers(0, 7)), int(rng.integers(0, 5))
        centers = (rng.random((count, 2)) * 30).astype(np.float32)
        flows = rng.normal(0, 4, (references, count, 2)).astype(np.float32)
        ids = [rng.permutation(np.arange(1, 9))[: rng.integers(0, 7)] for _ in range(references)]
        others = [(rng.random((len(i), 2)) * 30).astype(np.float32) for i in ids]
        limit = float(rng.uniform(1, 20))
        all_distances: dict[tuple[int, int], list[float]] = {}
        for r, m in itertools.product(range(references), range(count)):
            for identity, other in zip(ids[r].tolist(), others[r], strict=True):
                d = float(np.hypot(*(centers[m] + flows[r, m] - other)))
                all_distances.setdefault((m, identity), []).append(d)
        reduce = min if policy == NEAREST else np.mean
        distances = {pair: float(reduce(found)) for pair, found in all_distances.items()}
        found, reference, distance = match_instances(centers, flows, others, ids, limit, policy)
        expected = brute_force_match(distances, limit)
        assert {m: int(i) for m, i in enumerate(found) if i} == expected
        for m, identity in expected.items():
            assert distance[m] == pytest.approx(min(all_distances[m, identity]), abs=1e-4)
            assert identity in ids[reference[m]]
        new = found == 0
        assert (reference[new] == -1).all()
        assert np.isnan(distance[new]).all()


def sorted_pairs(cost: np.ndarray, limit: float, identities: np.ndarray, rank: np.ndarray) -> list[tuple[int, int]]:
    """All pairs in the order of cost, row, rank and column; each is taken if its row and its identity are free."""
    order = sorted(
        (cost[m, k], m, rank[m, k] if k < rank.shape[1] else -1, k)
        for m, k in zip(*np.nonzero(cost <= limit), strict=True)
    )
    pairs: dict[int, int] = {}
    for _, m, _, k in order:
        if m not in pairs and identities[k] not in {identities[other] for other in pairs.values()}:
            pairs[int(m)] = int(k)
    return list(pairs.items())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [3, 10_000], ids=["many equal costs", "hardly any"])
def test_cheapest_pairs_equal_sorting_them_all(levels: int, dtype: type) -> None:
    rng = np.random.default_rng(2)
    for _ in range(RANDOM_INPUTS // 4):
        rows, columns = rng.integers(0, 12, 2)
        cost: np.ndarray = (rng.integers(0, levels, (rows, columns)) / levels).astype(dtype)
        rank = rng.integers(-1, 3, (rows, rng.integers(0, columns + 1)))
        identities = rng.integers(0, max(columns, 1), columns)
        for limit in (0.0, 1 / 3, 0.7, 2.0):
            found = cheapest_pairs(cost, limit, identities, rank)
            assert found == sorted_pairs(cost, limit, identities, rank)


def test_pairs_that_are_no_numbers_or_infinite_are_left_out() -> None:
    cost = np.array([[np.nan, np.inf], [np.nan, 1.0]])
    assert cheapest_pairs(cost, np.inf, np.array([1, 2])) == [(1, 1)]


def points(*values: tuple[float, float]) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 2)


SITUATIONS = {
    # centers, flows per reference, reference centers, reference ids, expected ids
    "still": (points((5, 5)), [points((0, 0))], [points((5, 6))], [[3]], [3]),
    "moved, flow leads back": (points((5, 25)), [points((0, -20))], [points((5, 5))], [[3]], [3]),
    "crossed look-alikes": (
        points((5, 5), (5, 9)),
        [points((0, 4), (0, -4))],
        [points((5, 5), (5, 9))],
        [[1, 2]],
        [2, 1],
    ),
    "too far is new": (points((5, 5)), [points((0, 0))], [points((5, 12))], [[3]], [0]),
    "exactly at the limit": (points((5, 5)), [points((0, 0))], [points((5, 9))], [[3]], [3]),
    "two want one, the other is new": (
        points((5, 5), (5, 6)),
        [points((0, 0), (0, 0))],
        [points((5, 5))],
        [[3]],
        [3, 0],
    ),
    "two want one, the other takes its next best": (
        points((5, 5), (5, 6)),
        [points((0, 0), (0, 0))],
        [points((5, 5), (5, 9))],
        [[3, 4]],
        [3, 4],
    ),
    "hidden in the last frame, seen in an older one": (
        points((5, 5)),
        [points((0, 0)), points((0, 1))],
        [points(), points((5, 6))],
        [[], [8]],
        [8],
    ),
    "no references": (points((5, 5)), [], [], [], [0]),
    "nothing here": (points(), [points()], [points((5, 5))], [[3]], []),
}


@pytest.mark.parametrize(("centers", "flows", "others", "ids", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_situation(centers, flows, others, ids, expected) -> None:  # type: ignore[no-untyped-def]
    stacked = np.stack(flows) if flows else np.empty((0, len(centers), 2), np.float32)
    found, _, _ = match_instances(centers, stacked, others, [np.array(i, np.int64) for i in ids], 4.0)
    assert found.tolist() == expected


def test_unequal_numbers_of_references_are_refused() -> None:
    with pytest.raises(ValueError, match="one of each per reference"):
        match_instances(points((1, 1)), np.zeros((2, 1, 2), np.float32), [points()], [np.array([], np.int64)], 1.0)


def test_the_mean_outvotes_one_reference_that_hits_a_look_alike() -> None:
    here, ids = points((5, 5)), [np.array([1, 2])] * 3
    before = [points((5, 5), (5, 20))] * 3
    flows = np.array([[[0, 2]], [[0, 2]], [[0, 15]]], np.float32)  # the third leads straight to the other object
    assert match_instances(here, flows, before, ids, 12.0, NEAREST)[0].tolist() == [2]
    assert match_instances(here, flows, before, ids, 12.0, MEAN)[0].tolist() == [1]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="one of nearest, mean"):
        match_instances(points((1, 1)), np.zeros((0, 1, 2), np.float32), [], [], 1.0, "best")


def appearance_of(*colours: int) -> FloatArray:
    """A unit vector with equal shares of some colours."""
    vector = np.zeros(APPEARANCE_SIZE, np.float32)
    vector[list(colours)] = 1 / np.sqrt(len(colours))
    return vector


RED, BLUE, MIXED = appearance_of(1), appearance_of(2), appearance_of(1, 2)


def evidence(
    before: list[dict[int, tuple[float, float]]],
    known: dict[int, FloatArray] | None = None,
    now: tuple[tuple[float, float], ...] = ((5, 5),),
    looks: FloatArray = RED,
    flows: list[list[tuple[float, float]]] | None = None,
    flow_std: list[list[float]] | None = None,
    max_cost: float = 8.0,
    expected: dict[int, tuple[float, float]] | None = None,
    gaps: dict[int, int] | None = None,
    class_scores: list[tuple[float, ...]] | None = None,
    votes: dict[int, tuple[float, ...]] | None = None,
    class_weight: float = 0.0,
    gap_weight: float = 0.0,
    backwards: bool = False,
) -> list[int]:
    """Ids by evidence; flows are 0 unless given, the unit is one cell.

    before: where each reference shows which identities.   known: how identities look; all of the references are red
    unless given.   now, looks: where the objects are, and how all of them look.   backwards: known in the other order.
    """
    shape = (len(before), len(now))
    if known is None:
        known = {identity: RED for places in before for identity in places}
    if backwards:
        known = dict(reversed(known.items()))
    return match_by_evidence(
        points(*now),
        np.array(flows, np.float32) if flows else np.zeros((*shape, 2), np.float32),
        np.array(flow_std, np.float32) if flow_std else np.zeros(shape, np.float32),
        np.tile(looks, (len(now), 1)),
        [points(*places.values()) for places in before],
        [np.array(list(places), np.int64) for places in before],
        KnownIdentities(
            np.array(list(known), np.int64),
            np.array(list(known.values())).reshape(len(known), APPEARANCE_SIZE),
            points(*[(expected or {}).get(k, (5, 5)) for k in known]),
            np.array([(gaps or {}).get(k, 1) for k in known], np.int64),
            np.array([(votes or {}).get(k, (0, 0)) for k in known], np.float64),
        ),
        1.0,
        replace(MatchCosts(), max_cost=max_cost, class_weight=class_weight, gap_weight=gap_weight),
        np.array(class_scores, np.float32) if class_scores else None,
    ).ids.tolist()


CLASS: dict[str, Any] = {"class_scores": [(0.1, 0.8)], "class_weight": 3.0}
OTHER_CLASS: dict[str, Any] = {"before": [{1: (5, 6)}], "class_scores": [(0, 1)], "votes": {1: (9, 0)}}
EQUALS: dict[str, Any] = {"before": [{1: (5, 4), 2: (5, 6)}]}
EVIDENCE: dict[str, tuple[dict[str, Any], list[int]]] = {
    "class decides between equals": ({**EQUALS, **CLASS, "votes": {1: (9, 1), 2: (0, 1)}}, [2]),
    "nothing is known yet": ({"before": [], **CLASS}, [0]),
    "another class does not take over": ({**OTHER_CLASS, "class_weight": 9.0}, [0]),
    "classes count by their weight alone": (OTHER_CLASS, [1]),
    "flow decides between equals": ({"before": [{1: (5, 9), 2: (5, 6)}]}, [2]),
    "colours decide at equal distance": ({**EQUALS, "known": {1: RED, 2: BLUE}, "looks": BLUE}, [2]),
    "colours outweigh a few cells": (
        {"before": [{1: (5, 5), 2: (5, 8)}], "known": {1: RED, 2: BLUE}, "looks": BLUE},
        [2],
    ),
    "neither near nor alike is new": ({"before": [{1: (5, 30)}], "looks": BLUE}, [0]),
    "far but alike": ({"before": [{1: (5, 30)}]}, [1]),
    "each identity once": ({"before": [{1: (5, 6)}], "now": ((5, 5), (5, 6))}, [0, 1]),
    "one wrong flow is outvoted": (
        {"before": [{1: (5, 5), 2: (5, 25)}] * 3, "flows": [[(0, 20)], [(0, 0)], [(0, 0)]]},
        [1],
    ),
    "an uncertain flow has little say": (
        {"before": [{1: (5, 5), 2: (5, 8)}], "known": {1: BLUE, 2: MIXED}, "looks": MIXED, "flow_std": [[9.0]]},
        [2],
    ),
    "lost and alike comes back": ({"before": [{}], "known": {7: RED}}, [7]),
    "lost but unlike stays lost": ({"before": [{}], "known": {7: BLUE}}, [0]),
    "shown goes before lost": ({"before": [{3: (5, 6)}], "known": {7: RED, 3: RED}}, [3]),
    "motion decides between equals": ({**EQUALS, "expected": {1: (5, 30)}}, [2]),
    "who was away for longer may have strayed farther": (
        {**EQUALS, "expected": {1: (5, 25), 2: (5, 30)}, "gaps": {2: 16}},
        [2],
    ),
    "away four times as long, twice as far": ({**EQUALS, "expected": {1: (5, 25), 2: (5, 50)}, "gaps": {2: 4}}, [1]),
    "of two ids that it had, the one that it had last": ({**EQUALS, "gaps": {1: 2}, "gap_weight": 0.5}, [2]),
    "how long it was away is not counted": ({**EQUALS, "gaps": {1: 2}}, [1]),
    "a better flow outweighs a gap": ({"before": [{1: (5, 5), 2: (5, 8)}], "gaps": {1: 3}, "gap_weight": 0.5}, [1]),
    "the cheapest pair leaves too little for the others": (
        {"before": [{1: (5, 12.2), 2: (5, 16)}], "now": ((5, 10), (5, 14))},
        [1, 2],
    ),
    "a sure match is not given up for two mediocre ones": (
        {"before": [{1: (5, 5), 2: (5, 5.9)}], "now": ((5, 5), (5, 4.1))},
        [1, 2],
    ),
    "flow goes before motion": ({"before": [{1: (5, 5), 2: (5, 10)}], "expected": {1: (5, 30)}}, [1]),
    "no reference, nothing known": ({"before": []}, [0]),
    "nothing here": ({"before": [{3: (5, 6)}], "now": ()}, []),
    "the bound is kept": ({"before": [{3: (5, 7)}], "max_cost": 1.6}, [0]),
    "at the bound": ({"before": [{3: (5, 7)}], "max_cost": 1.61}, [3]),
}


@pytest.mark.parametrize(("case", "expected"), EVIDENCE.values(), ids=EVIDENCE)
def test_evidence(case: dict[str, Any], expected: list[int]) -> None:
    assert evidence(**case) == expected
    assert evidence(**case, backwards=True) == expected, "references show identities in any order"


def test_evidence_says_which_reference_and_how_near() -> None:
    matches = match_by_evidence(
        points((5, 5), (20, 20)),
        np.zeros((3, 2, 2), np.float32),
        np.zeros((3, 2), np.float32),
        np.stack([RED, BLUE]),
        [points((5, 8)), points((5, 6)), points((5, 4))],
        [np.array([1])] * 3,
        KnownIdentities(np.array([1, 2]), np.stack([RED, BLUE]), points((5, 5), (20, 20)), np.ones(2, np.int64)),
        1.0,
        MatchCosts(max_cost=8.0),
    )
    assert matches.ids.tolist() == [1, 2]
    assert matches.reference.tolist() == [1, -1], "of equally near ones the earlier"
    np.testing.assert_array_equal(matches.distance, [1.0, np.nan])


def test_spread_is_the_deviation_of_the_residual() -> None:
    rng = np.random.default_rng(3)
    offset = rng.normal(size=(2, 9, 12)).astype(np.float32)
    reference_offset = rng.normal(size=(3, 2, 9, 12)).astype(np.float32) * 4
    labels = rng.integers(0, 4, (9, 12)).astype(np.int32)
    flows, flow_std = flows_with_std(offset, reference_offset, labels, 4)
    for m in range(3):
        residual = (reference_offset - offset)[:, :, labels == m + 1]
        np.testing.assert_allclose(flows[:, m], residual.mean(2), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(flow_std[:, m], np.sqrt(residual.var(2).sum(1)), rtol=1e-4)
    assert not flow_std[:, 3].any(), "an object without pixels"


@pytest.mark.parametrize(("count", "others"), [(0, 3), (1, 0), (9, 20), (17, 5)])
def test_similarity_is_the_product_of_vectors(count: int, others: int) -> None:
    rng = np.random.default_rng(4)
    here, there = (rng.random((n, APPEARANCE_SIZE)).astype(np.float32) ** 4 for n in (count, others))
    here, there = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (here, there))
    np.testing.assert_allclose(similarity(here, there), here @ there.T, atol=1e-6)
    assert similarity(2 * here, here).max(initial=0) <= 1


def test_appearance_is_the_colours_under_the_mask() -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, 8:16] = (255, 0, 0)
    image[:, 16:] = (0, 0, 255)
    labels = np.zeros((4, 6), np.int32)
    labels[1:3, 2:4], labels[:, 4:] = 1, 2
    labels[0, 0] = 3
    found = appearance_vectors(image, labels, 4, 4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 1, 0], rtol=1e-6)
    assert [int(np.argmax(row)) for row in found[:3]] == [7 * 64, 7, 0]
    labels[1:3, 4] = 1
    mixed = appearance_vectors(image, labels, 1, 4)[0]
    rows = np.zeros((8, 4, 3), np.uint8)
    rows[4:] = 255
    np.testing.assert_allclose(appearance_vectors(rows, np.array([[1], [2]], np.int32), 2, 4)[:, [0, -1]], np.eye(2))
    assert mixed @ found[0] == pytest.approx(np.sqrt(8 / 12), rel=1e-5)
    np.testing.assert_allclose(blend(found[0], found[1], 0.5) @ found[1], np.sqrt(0.5), rtol=1e-5)
