# SPDX-License-Identifier: Apache-2.0
"""The wheel against the benchmark's description of it: 55 colours, from red through yellow round to red."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.pictures.flow_colours import NOTHING, flow_colours, wheel


def described_wheel() -> NDArray[np.float64]:
    """Colours (55, 3), 0..1: in each part one channel rises or falls evenly from a pure colour to the next."""
    parts = [(15, 1, 1), (6, 0, -1), (4, 2, 1), (11, 1, -1), (13, 0, 1), (6, 2, -1)]
    colour, rows = np.array([1.0, 0.0, 0.0]), []
    for steps, channel, sign in parts:
        for _ in range(steps):
            rows.append(colour.copy())
            colour[channel] += sign / steps
    return np.array(rows)


def one(dy: float, dx: float, longest: float = 1.0) -> list[int]:
    return flow_colours(np.array([[[dy]], [[dx]]], np.float32), longest)[0, 0].tolist()


def test_directions() -> None:
    angles = np.arange(55) * 2 * np.pi / 55
    vectors = np.stack([np.sin(angles), np.cos(angles)])[:, None].astype(np.float32) * 6
    np.testing.assert_allclose(flow_colours(vectors, 6.0001)[0], described_wheel() * 255, atol=1)


@pytest.mark.parametrize(
    ("vector", "colour"),
    [
        ((0, 0), (255, 255, 255)),
        ((0, 4), (255, 0, 0)),
        ((0, 2), (255, 128, 128)),
        ((0, 1), (255, 191, 191)),
        ((0, 4.1), (191, 0, 0)),
        ((0, 400), (191, 0, 0)),
        ((np.nan, 0), NOTHING),
        ((0, np.inf), NOTHING),
    ],
    ids=["none", "longest", "half", "a quarter", "a little longer", "far longer", "unknown", "infinite"],
)
def test_lengths(vector: tuple[float, float], colour: tuple[int, int, int]) -> None:
    assert one(*vector, longest=4.0) == list(colour)


def test_the_mask_decides_what_is_shown() -> None:
    mask = np.array([[True, False]])
    drawn = flow_colours(np.ones((2, 1, 2), np.float32), 2.0, mask)
    assert drawn[0, 1].tolist() == list(NOTHING)
    assert drawn[0, 0].tolist() == one(1, 1, 2.0)


@pytest.mark.parametrize("longest", [0.0, -1.0, float("nan")])
def test_a_wheel_without_a_radius_is_refused(longest: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        flow_colours(np.zeros((2, 1, 1), np.float32), longest)


def test_the_legend_is_coloured_like_the_vectors_from_its_middle() -> None:
    legend = wheel(101)
    assert legend[50, 50].tolist() == [255, 255, 255]
    assert legend[0, 0].tolist() == list(NOTHING)
    for dy, dx in ((0, 40), (-30, 10), (25, -25), (-8, 0)):
        assert legend[50 + dy, 50 + dx].tolist() == one(dy, dx, 50.5)
