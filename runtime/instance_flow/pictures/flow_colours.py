# SPDX-License-Identifier: Apache-2.0
"""Colours for vectors: the wheel of the Middlebury flow benchmark, where hue is direction and saturation is length.

Baker, Scharstein, Lewis, Roth, Black, Szeliski: A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import FloatArray, Image

NOTHING = (24, 24, 27)
"""What a picture shows where there is no vector to show: nearly black, and unlike every colour of the wheel."""

_STEPS = np.cumsum([0, 15, 6, 4, 11, 13, 6])
"""Where the pure colours stand on the wheel: the eye tells more steps from red to yellow than from green to cyan."""
_PURE = np.array(
    [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float32
)  # red, yellow, green, cyan, blue, magenta, and red again
_BEYOND = 0.75
"""Share of the colour's brightness for vectors that are longer than the wheel's radius."""


def flow_colours(vectors: FloatArray, longest: float, mask: NDArray[np.bool_] | None = None) -> Image:
    """Colour every vector: (h, w, 3) uint8 RGB.

    Right is red, down yellow, left cyan to blue, up violet. White is length 0, full colour is ``longest``, and longer
    vectors are darker.

    Args:
        vectors: (2, h, w) float32 (dy, dx), in the unit of ``longest`` > 0; those that are not finite get ``NOTHING``.
        mask: (h, w) bool, where to show anything; the rest gets ``NOTHING``. None = everywhere.
    """
    if not longest > 0:
        raise ValueError(f"the longest vector of the wheel is {longest}; it must be above 0")
    shown = np.asarray(np.isfinite(vectors).all(axis=0))
    if mask is not None:
        shown &= mask
    dy, dx = np.where(shown, vectors, 0.0)
    length = np.hypot(dy, dx) / longest
    position = np.arctan2(dy, dx) / (2 * np.pi) % 1.0 * _STEPS[-1]
    hue = np.stack([np.interp(position, _STEPS, _PURE[:, channel]) for channel in range(3)], -1)
    paled = 1.0 - np.minimum(length, 1.0)[..., None] * (1.0 - hue)
    colour = np.where(length[..., None] <= 1.0, paled, _BEYOND * hue)
    return np.where(shown[..., None], np.rint(colour * 255), NOTHING).astype(np.uint8)


def wheel(diameter: int) -> Image:
    """The wheel itself as a legend, (diameter, diameter, 3) uint8 RGB: a vector from the middle to a pixel has the
    pixel's colour, and one to the rim is the longest."""
    across = (np.arange(diameter, dtype=np.float32) - (diameter - 1) / 2) / (diameter / 2)
    vectors = np.stack(np.meshgrid(across, across, indexing="ij"))
    return flow_colours(vectors, 1.0, np.hypot(*vectors) <= 1.0)
