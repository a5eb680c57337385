# SPDX-License-Identifier: Apache-2.0
"""Instance flow and matching against brute-force formulas, and named situations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from instance_flow.matching import MEAN, NEAREST, POLICIES, instance_flows, match_instances

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
