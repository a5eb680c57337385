# SPDX-License-Identifier: Apache-2.0
"""Multi-scale inference, on a network whose maps are known at every size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow.network.multiscale import MultiScaleNetwork, scaled_size
from instance_flow.network.onnx import OnnxNetwork
from instance_flow.network.protocol import Network
from instance_flow.pipeline import Pipeline
from instance_flow.structures import Image, ModelError, ModelInfo, Prediction

SIZE = (128, 192)


class Disc(Network):
    """One disc of a third of the height in the middle, which came from a sixth of the width to the left."""

    def __init__(self) -> None:
        self.info = ModelInfo(name="disc", class_names=("disc",), input_size=SIZE, center_window=0.1)
        self.sizes: list[tuple[int, int]] = []

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        h, w = image.shape[0] // 4, image.shape[1] // 4
        self.sizes.append(image.shape[:2])
        assert all(features == (h, w) for features in references), "features of another size came back"
        y, x = np.meshgrid(np.arange(h, dtype=np.float32), np.arange(w, dtype=np.float32), indexing="ij")
        dy, dx = (h - 1) / 2 - y, (w - 1) / 2 - x
        inside = (dy**2 + dx**2 < (h / 3) ** 2).astype(np.float32)
        offset = np.stack([dy, dx])
        back = np.stack([dy, dx - w / 6])
        return Prediction(
            np.stack([1 - inside, inside]),
            np.exp(-(dy**2 + dx**2) / (2 * (h / 16) ** 2)),
            offset,
            np.repeat(back[None], len(references), 0),
            (h, w),
        )


SCALES = {
    "the paper's": ((0.5, 0.75, 1.0), [(64, 96), (96, 128), (128, 192)]),
    "the input size alone": ((1.0,), [(128, 192)]),
    "larger": ((2.0,), [(256, 384)]),
    "equal after rounding": ((1.0, 1.01), [(128, 192)]),
    "very small": ((0.01,), [(32, 32)]),
}


@pytest.mark.parametrize(("scales", "sizes"), SCALES.values(), ids=SCALES)
def test_every_scale_is_seen_with_its_own_references(scales: tuple[float, ...], sizes: list[tuple[int, int]]) -> None:
    disc = Disc()
    network = MultiScaleNetwork(disc, scales)
    features = network.predict(np.zeros((*SIZE, 3), np.uint8), []).features
    network.predict(np.zeros((*SIZE, 3), np.uint8), [features] * 3)
    assert disc.sizes == sizes * 2


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5, 2.0])
def test_maps_of_another_size_say_the_same(scale: float) -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    plain = Disc().predict(image, [])
    network = MultiScaleNetwork(Disc(), [scale])
    features = network.predict(image, []).features
    maps = network.predict(image, [features])
    inside = (..., slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(maps.offset[inside], plain.offset[inside], atol=1e-3)
    flow = maps.reference_offset[0] - maps.offset
    np.testing.assert_allclose(flow[0], 0, atol=1e-3)
    np.testing.assert_allclose(flow[1], -SIZE[1] / 4 / 6, rtol=1e-3)
    disagreement = (maps.semantic.argmax(0) != plain.semantic.argmax(0)).mean()
    assert disagreement < 0.04
    assert np.unravel_index(maps.center.argmax(), maps.center.shape)[0] in (15, 16)


def test_a_pipeline_tracks_at_several_scales() -> None:
    pipeline = Pipeline(MultiScaleNetwork(Disc(), (0.5, 0.75, 1.0)))
    image = np.zeros((*SIZE, 3), np.uint8)
    first, second = pipeline.step(image), pipeline.step(image)
    assert len(first) == len(second) == 1
    one_scale = Pipeline(Disc()).step(image)
    np.testing.assert_allclose(first.centers, one_scale.centers, atol=4)


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0, 1.0), (float("nan"),), (50.0, 75.0, 100.0)], ids=str)
def test_impossible_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="each above 0"):
        MultiScaleNetwork(Disc(), scales)


def test_a_model_of_fixed_size_is_refused() -> None:
    fixed = Disc()
    fixed.fixed_size = SIZE
    MultiScaleNetwork(fixed, [1.0])
    with pytest.raises(ModelError, match="192 x 128 alone"):
        MultiScaleNetwork(fixed, [0.5, 1.0])


def test_sizes_are_multiples_of_32() -> None:
    assert scaled_size((192, 320), 0.75) == (128, 256)


def test_the_bundled_model_at_scale_one_is_the_model_itself(bundled_model: Path) -> None:
    network = OnnxNetwork(bundled_model, "cpu")
    image = np.random.default_rng(0).integers(0, 255, (*network.info.input_size, 3), np.uint8)
    alone, multi = network.predict(image, []), MultiScaleNetwork(network, [1.0]).predict(image, [])
    np.testing.assert_array_equal(multi.semantic, alone.semantic)
    tracks = Pipeline.load(bundled_model, "cpu", scales=(0.5, 1.0)).step(image)
    assert tracks.label_map.shape == network.info.input_size
