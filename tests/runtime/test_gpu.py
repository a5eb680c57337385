# SPDX-License-Identifier: Apache-2.0
"""The device path: features stay where the network wrote them, whatever runs it. The same on the CPU, CUDA, TensorRT.

What needs a GPU is marked so and skipped without one. ``INSTANCE_FLOW_HALF_MODEL`` names a static model in half
precision, which cannot be made here, to run all of it on as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow.network.execution import ExecutionConfig, import_onnxruntime, open_session
from instance_flow.network.gpu.engine_cache import engines
from instance_flow.network.gpu.provider_check import PROVIDERS, inspect_provider, why_unavailable
from instance_flow.network.onnx import OnnxNetwork, feature_names, reference_input
from instance_flow.structures import MAPS, Image, Prediction

FRAMES = 14
HALF = os.environ.get("INSTANCE_FLOW_HALF_MODEL", "")


@cache
def reason_against(provider: str) -> str:
    """Why a provider cannot run here; "" where it can."""
    return why_unavailable(provider, inspect_provider(import_onnxruntime(), provider)) if provider != "cpu" else ""


@dataclass(frozen=True)
class Way:
    """provider: of the network.   cuda_graph: as in ExecutionConfig.   model: static | dynamic | half."""

    provider: str
    cuda_graph: bool
    model: str


def way(provider: str, model: str, cuda_graph: bool = False) -> Any:
    """One row of WAYS, marked by what it needs."""
    marks = [] if provider == "cpu" else [pytest.mark.gpu]
    if reason := reason_against(provider):
        marks.append(pytest.mark.skip(reason=reason))
    if model == "half" and not HALF:
        marks.append(pytest.mark.skip(reason="INSTANCE_FLOW_HALF_MODEL is not set"))
    name = "-".join([provider, model, *["graph"] * cuda_graph])
    return pytest.param(Way(provider, cuda_graph, model), marks=marks, id=name)


WAYS = [
    way("cpu", "dynamic"),
    way("cpu", "static"),
    way("cpu", "half"),
    way("cuda", "dynamic"),
    way("cuda", "static"),
    way("cuda", "half"),
    way("cuda", "static", cuda_graph=True),
    way("cuda", "half", cuda_graph=True),
    way("tensorrt", "static"),
    way("tensorrt", "half"),
]


@pytest.fixture(scope="session")
def static_model(bundled_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model for one size and all references, as ``instance-flow-export --static`` makes it."""
    onnx = pytest.importorskip("onnx")
    network = OnnxNetwork(bundled_model, "cpu")
    image = np.zeros((*network.info.input_size, 3), np.uint8)
    features = network.predict(image, []).features
    prediction = network.predict(image, [features] * network.info.max_references)
    cached = [array.shape for array in features.to_arrays()]
    shapes = {"image": (1, *image.shape), **{name: getattr(prediction, name).shape for name in MAPS}}
    shapes |= dict(zip(feature_names(len(cached)), cached, strict=True))
    for level, shape in enumerate(cached):
        shapes |= {reference_input(level, k): shape for k in range(network.info.max_references)}
    model = onnx.load(bundled_model)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for dimension, extent in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dimension.dim_value = extent
    path = tmp_path_factory.mktemp("static") / "static.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests: an engine takes minutes."""
    return str(tmp_path_factory.mktemp("engines"))


@pytest.fixture
def network(request: pytest.FixtureRequest, bundled_model: Path, engine_cache: str) -> OnnxNetwork:
    """The network of a Way, which the test is parametrised with indirectly."""
    chosen: Way = request.param
    return OnnxNetwork(
        _path(chosen, request, bundled_model),
        chosen.provider,
        ExecutionConfig(cuda_graph=chosen.cuda_graph, engine_cache=engine_cache),
    )


def _path(chosen: Way, request: pytest.FixtureRequest, bundled_model: Path) -> Path:
    if chosen.model == "half":
        return Path(HALF)
    static: Path = request.getfixturevalue("static_model") if chosen.model == "static" else bundled_model
    return static


def images(network: OnnxNetwork) -> list[Image]:
    """Pictures that differ, of the network's size."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*network.info.input_size, 3), dtype=np.uint8) for _ in range(FRAMES)]


def chosen_references(held: Sequence[Any], most: int) -> list[Any]:
    """The first and the latest, as ``ReferenceMemory`` chooses them."""
    return list(held) if len(held) <= most else [held[0], *held[len(held) - most + 1 :]]


def play(network: OnnxNetwork, as_arrays: bool) -> list[Prediction]:
    """A stream with references; features are handed back as they are, or as copies that went over the host."""
    predictions: list[Prediction] = []
    held: list[Any] = []
    for image in images(network):
        predictions.append(network.predict(image, chosen_references(held, network.info.max_references)))
        features = predictions[-1].features
        held.append(features.to_arrays() if as_arrays else features)
        held = chosen_references(held, network.info.max_references)
    return predictions


def largest_difference(ours: Prediction, theirs: Prediction) -> float:
    """Over all maps, in parts of the largest value of each."""
    return max(
        float(np.abs(getattr(ours, name) - getattr(theirs, name)).max(initial=0))
        / max(float(np.abs(getattr(theirs, name)).max(initial=0)), 1e-6)
        for name in MAPS
    )


@pytest.mark.parametrize("network", WAYS, indirect=True)
def test_references_are_what_they_were_when_they_were_computed(network: OnnxNetwork) -> None:
    held: list[tuple[Any, list[np.ndarray]]] = []
    for image in images(network):
        features = network.predict(image, [reference for reference, _ in held]).features
        held.append((features, list(features.to_arrays())))
        held = chosen_references(held, network.info.max_references)
        for reference, copies in held:
            assert all(np.array_equal(a, b) for a, b in zip(reference.to_arrays(), copies, strict=True))


@pytest.mark.parametrize("network", WAYS, indirect=True)
def test_ring_gives_what_copies_over_the_host_give(network: OnnxNetwork) -> None:
    """With CUDA graphs, too: each is bound to the buffers of its references, and none reads those of another."""
    for ours, theirs in zip(play(network, as_arrays=False), play(network, as_arrays=True), strict=True):
        assert ours.reference_offset.shape == theirs.reference_offset.shape
        assert all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in MAPS)


@pytest.mark.parametrize("network", WAYS, indirect=True)
def test_references_decide(network: OnnxNetwork) -> None:
    """A ring that always read the same buffers would pass all else."""
    first, second, third = images(network)[:3]
    a, b = (network.predict(image, []).features for image in (first, second))
    with_a, with_b = (network.predict(third, [features]).reference_offset for features in (a, b))
    assert not np.array_equal(with_a, with_b)
    both = network.predict(third, [b, a]).reference_offset
    assert np.allclose(both[0], with_b[0], atol=1e-2)
    assert np.allclose(both[1], with_a[0], atol=1e-2)


@pytest.mark.parametrize("network", WAYS, indirect=True)
def test_provider_gives_what_the_cpu_gives(network: OnnxNetwork, bundled_model: Path) -> None:
    half = np.float16 in (array.dtype for array in network.predict(images(network)[0], []).features.to_arrays())
    reference = OnnxNetwork(HALF if half else bundled_model, "cpu")
    for ours, theirs in zip(play(network, as_arrays=False), play(reference, as_arrays=False), strict=True):
        assert largest_difference(ours, theirs) < (5e-2 if half else 2e-3)


@pytest.mark.parametrize("network", WAYS, indirect=True)
def test_features_stay_on_the_device(network: OnnxNetwork) -> None:
    values = network.predict(images(network)[0], []).features.lease.item
    assert {value.device_name() for value in values} == {"cpu" if network.provider == "cpu" else "cuda"}


@pytest.mark.parametrize("chosen", [row for row in WAYS if row.values[0].provider == "tensorrt"])
def test_engine_is_built_once(
    chosen: Way,
    request: pytest.FixtureRequest,
    bundled_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = _path(chosen, request, bundled_model)
    with caplog.at_level(logging.WARNING, "instance_flow"):
        for _ in range(2):
            OnnxNetwork(path, "tensorrt", ExecutionConfig(engine_cache=str(tmp_path)))
    assert sum("building a TensorRT engine" in line for line in caplog.messages) == 1
    assert [engine.size > 0 for engine in engines(tmp_path)] == [True]


@pytest.mark.parametrize("chosen", [row for row in WAYS if row.values[0].provider == "cuda"])
def test_options_arrive(chosen: Way, request: pytest.FixtureRequest, bundled_model: Path) -> None:
    path = _path(chosen, request, bundled_model)
    name, session = open_session(path, "cuda", ExecutionConfig(cuda_graph=chosen.cuda_graph))
    found = session.get_provider_options()[PROVIDERS[name]]
    assert {key: found[key] for key in ("enable_cuda_graph", "prefer_nhwc", "use_tf32")} == {
        "enable_cuda_graph": str(int(chosen.cuda_graph)),
        "prefer_nhwc": str(int(chosen.model == "half")),
        "use_tf32": "0",
    }
