# SPDX-License-Identifier: Apache-2.0
"""Random views of clips, the same for all frames of a clip; labels move exactly with pixels.

A view is a 3 x 3 matrix that takes (x, y, 1) in pixels of the frame to pixels of the crop; a colour is a 3 x 4 matrix
that takes (R, G, B, 1) to new (R, G, B). kornia does all this too, in 125 ms of a CPU for what takes 8 ms here.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.preprocess import PADDING
from instance_flow.structures import Image
from instance_flow_training.targets import IGNORE
from instance_flow_training.worlds.camera import swing

Matrix = NDArray[np.float64]

STILL_FRAMES = 30
"""Length of the clip that a still is moved through."""
_SHIFT, _ZOOM, _TURN, _TILT = 0.3, 0.3, 0.2, 0.08
"""Greatest swings of a still: in half image sizes, log factor, radians, and change of scale over half the image."""

_HUES: Matrix = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""RGB to YIQ: luma, and a plane in which the hue is an angle and the saturation a radius."""


def draw_view(
    rng: np.random.Generator,
    size: Sequence[int],
    crop: Sequence[int],
    scales: Sequence[float],
    flip: bool,
    show: Sequence[float] | None = None,
) -> Matrix:
    """Scale, crop and flip (section IV-A) of frames of ``size`` (height, width).

    The crop lies anywhere in the scaled frame, or the whole frame anywhere in the crop where it is smaller.

    show: a point (y, x) of the frame that is to lie in the crop.
    """
    scale = scales[int(rng.integers(len(scales)))]
    room = scale * np.array(size) - crop
    first, last = np.minimum(room, 0), np.maximum(room, 0)
    if show is not None:
        point = scale * np.array(show)
        first, last = np.clip([first, last], np.ceil(point) - crop + 1, np.floor(point))
    top, left = np.round(rng.uniform(first, last))
    # The corner of the corner pixel is fixed under scaling, not its center.
    half = 0.5 * scale - 0.5
    view = np.array([[scale, 0, half - left], [0, scale, half - top], [0, 0, 1]])
    if flip and rng.random() < 0.5:
        view = np.array([[-1.0, 0, crop[1] - 1], [0, 1, 0], [0, 0, 1]]) @ view
    return view


def draw_colour(rng: np.random.Generator, strength: float) -> Matrix:
    """Brightness, contrast and saturation by factors up to 1 +- strength, hue by up to strength quarter turns."""
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    angle = strength * rng.uniform(-1, 1) * np.pi / 2
    cosine, sine = saturation * np.cos(angle), saturation * np.sin(angle)
    turned = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    linear = contrast * brightness * np.linalg.inv(_HUES) @ turned @ _HUES
    return np.concatenate([linear, np.full((3, 1), 128 * (1 - contrast))], 1)


def draw_motion(rng: np.random.Generator, size: tuple[int, int]) -> Matrix:
    """(STILL_FRAMES, 3, 3): a smooth random way of a camera over a still of ``size`` (height, width)."""
    time = np.arange(STILL_FRAMES, dtype=np.float64)
    greatest = np.array([_SHIFT, _SHIFT, _ZOOM, _TURN, _TILT, _TILT]) * rng.random(6)
    x, y, zoom, turn, tilt_x, tilt_y = (swing(rng, time, amplitude) for amplitude in greatest)
    cosine, sine = np.exp(zoom) * np.cos(turn), np.exp(zoom) * np.sin(turn)
    path = np.stack([cosine, -sine, x, sine, cosine, y, tilt_x, tilt_y, np.ones_like(time)], 1).reshape(-1, 3, 3)
    half, middle = max(size) / 2, ((size[1] - 1) / 2, (size[0] - 1) / 2)
    to_middle = np.array([[1 / half, 0, -middle[0] / half], [0, 1 / half, -middle[1] / half], [0, 0, 1]])
    return np.asarray(np.linalg.inv(to_middle) @ path @ to_middle)


def change_colour(image: Image, colour: Matrix) -> Image:
    """The image (H, W, 3) uint8 in other colours."""
    return np.asarray(cv2.transform(image, colour), np.uint8)


def warp_image(image: Image, view: Matrix, crop: tuple[int, int]) -> Image:
    """The view (crop height, crop width, 3) uint8 of an image; the runtime's grey where it shows nothing of it."""
    warped = cv2.warpPerspective(image, view, crop[::-1], flags=cv2.INTER_LINEAR, borderValue=(PADDING,) * 3)
    return np.asarray(warped, np.uint8)


def warp_labels(labels: NDArray[np.uint8], view: Matrix, crop: tuple[int, int]) -> NDArray[np.uint8]:
    """The same view of a label map, by the nearest pixel; IGNORE outside."""
    warped = cv2.warpPerspective(labels, view, crop[::-1], flags=cv2.INTER_NEAREST, borderValue=(IGNORE,))
    return np.asarray(warped, np.uint8)
