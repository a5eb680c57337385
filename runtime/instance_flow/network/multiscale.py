# SPDX-License-Identifier: Apache-2.0
"""Multi-scale inference: one network at several sizes of the same frame, its maps averaged (section IV-A)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instance_flow.network.execution import ExecutionConfig
from instance_flow.network.onnx import OnnxNetwork
from instance_flow.network.protocol import Network, Predictor, as_network
from instance_flow.structures import FloatArray, Image, ModelError, Prediction

SIZE_STEP = 32
LARGEST_SCALE = 2.0
"""Scales are factors, not percentages: at four times the size the bundled model takes 14 GB of memory."""


class MultiScaleNetwork(Network):
    """A network seen at several scales.

    Every scale has its own reference features; classes, heat and offsets are averaged at the base size.

    Args:
        network: one that takes any size; its ``info.input_size`` is scale 1.
        scales: factors of the input size, such as (0.5, 0.75, 1.0); sizes are rounded to multiples of 32.

    Raises:
        ValueError: for no scales, or scales that are not above 0 and up to LARGEST_SCALE.
        ModelError: for a model of fixed size.
    """

    def __init__(self, network: Network | Predictor, scales: Sequence[float]):
        if not scales or not all(0 < scale <= LARGEST_SCALE for scale in scales):
            raise ValueError(
                f"scales are {list(scales)}; give at least one, each above 0 and up to {LARGEST_SCALE:g}, such as "
                "0.5 0.75 1.0"
            )
        self.network = as_network(network)
        self.info, fixed = self.network.info, self.network.fixed_size
        if fixed is not None and any(scale != 1 for scale in scales):
            raise ModelError(
                f"the model was exported for {fixed[1]} x {fixed[0]} alone; several scales need one exported without "
                "--static"
            )
        self.scaled_sizes = list(dict.fromkeys(scaled_size(self.info.input_size, scale) for scale in scales))

    @property
    def provider(self) -> str:
        """Where the network runs."""
        return self.network.provider

    def predict(self, image: Image, references: Sequence[Any], /) -> Prediction:
        """See ``Network``; features are one entry per size."""
        predictions = [
            self.network.predict(resized_image(image, size), [features[k] for features in references])
            for k, size in enumerate(self.scaled_sizes)
        ]
        cells = (image.shape[0] // self.info.output_stride, image.shape[1] // self.info.output_stride)
        maps = [resized_maps(prediction, cells) for prediction in predictions]
        semantic, center, offset, reference_offset = (np.mean(same, axis=0) for same in zip(*maps, strict=True))
        return Prediction(semantic, center, offset, reference_offset, tuple(p.features for p in predictions))


def open_network(
    model: str | Path,
    provider: str = "auto",
    execution: ExecutionConfig | None = None,
    size: tuple[int, int] | None = None,
    scales: Sequence[float] = (),
) -> Network:
    """A model file, at several scales where some are given. Errors as of ``OnnxNetwork`` and ``MultiScaleNetwork``."""
    network = OnnxNetwork(model, provider, execution, size)
    return MultiScaleNetwork(network, scales) if scales else network


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) at a scale, as the nearest multiples of 32 that are not 0."""
    height, width = (max(SIZE_STEP, round(n * scale / SIZE_STEP) * SIZE_STEP) for n in size)
    return height, width


def resized_image(image: Image, size: tuple[int, int]) -> Image:
    """The image (H, W, 3) at another (height, width)."""
    if image.shape[:2] == size:
        return image
    method = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def resized_maps(prediction: Prediction, cells: tuple[int, int]) -> tuple[FloatArray, ...]:
    """Semantic, center, offset and reference offset on a grid (h, w) of cells; offsets in cells of that grid."""
    semantic, center = _resized(prediction.semantic, cells), _resized(prediction.center[None], cells)[0]
    height, width = prediction.center.shape
    stretch = np.array([cells[0] / height, cells[1] / width], np.float32)[:, None, None]
    offset = _resized(prediction.offset, cells) * stretch
    count = len(prediction.reference_offset)
    flat = _resized(prediction.reference_offset.reshape(2 * count, height, width), cells)
    return semantic, center, offset, flat.reshape(count, 2, *cells) * stretch


def _resized(maps: FloatArray, cells: tuple[int, int]) -> FloatArray:
    """Bilinear, cell centers at half integers: (C, h, w) to (C, *cells)."""
    if maps.shape[1:] == cells:
        return maps
    out = np.empty((len(maps), *cells), np.float32)
    for source, target in zip(maps, out, strict=True):
        cv2.resize(source, cells[::-1], dst=target, interpolation=cv2.INTER_LINEAR)
    return out
