# SPDX-License-Identifier: Apache-2.0
"""Half precision: float16 from the image's pixels to the maps, float32 for everybody behind them."""

from __future__ import annotations

import copy
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from instance_flow.network.onnx import OnnxNetwork
from instance_flow.pipeline import Pipeline
from instance_flow.structures import ModelInfo
from instance_flow_export.export import main
from instance_flow_export.half import halve, prove_half
from instance_flow_export.proof import ProofError, proof_images
from instance_flow_export.quantise import main as quantise_main
from instance_flow_training.config import TrainConfig
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.validate import model_info
from instance_flow_training.weights.checkpoint import save_checkpoint
from instance_flow_training.worlds.synthetic import CLASS_NAMES, WorldConfig, generate_clip

SIZE = (64, 96)
CLIP = generate_clip(1, config=WorldConfig(size=SIZE, frames=16)).images


@pytest.fixture(scope="module")
def info(trained: InstanceFlowNet) -> ModelInfo:
    return model_info(trained, SIZE, name="half")


@pytest.fixture(scope="module")
def model(trained: InstanceFlowNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by the command."""
    folder = tmp_path_factory.mktemp("half")
    state = {
        "network": trained.state_dict(),
        "config": asdict(TrainConfig(model=trained.config)),
        "step": 0,
        "class_names": list(CLASS_NAMES),
    }
    save_checkpoint(folder / "checkpoint.pt", state)
    path, printed = folder / "out" / "half.onnx", StringIO()
    with redirect_stdout(printed):
        assert main([str(folder / "checkpoint.pt"), str(path), "--half", "--size", "96x64"]) == 0
    assert "difference from the float32 network" in printed.getvalue()
    return path


@pytest.fixture(scope="module")
def graph(model: Path) -> onnx.ModelProto:
    return onnx.load(model)


def test_the_command_writes_one_file(model: Path) -> None:
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_features_maps_and_weights_are_float16(graph: onnx.ModelProto) -> None:
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.graph.input, *graph.graph.output)}
    assert kinds.pop("image") == TensorProto.UINT8
    assert set(kinds.values()) == {TensorProto.FLOAT16}
    assert {t.data_type for t in graph.graph.initializer if len(t.dims) == 4} == {TensorProto.FLOAT16}


def test_the_network_that_is_halved_stays_as_it_is(trained: InstanceFlowNet) -> None:
    assert next(halve(trained).parameters()).dtype == torch.float16
    assert next(trained.parameters()).dtype == torch.float32


def test_predictions_are_float32_and_cached_features_float16(model: Path) -> None:
    network = OnnxNetwork(model, "cpu")
    first = network.predict(CLIP[0], [])
    second = network.predict(CLIP[1], [first.features])
    for maps in (first, second):
        for name in ("semantic", "center", "offset", "reference_offset"):
            assert getattr(maps, name).dtype == np.float32
        assert {array.dtype for array in maps.features.to_arrays()} == {np.dtype(np.float16)}
    assert second.reference_offset.shape == (1, 2, 16, 24)


def test_it_runs_as_a_stream(model: Path) -> None:
    pipeline = Pipeline.load(model, "cpu")
    assert all(pipeline.step(image).label_map.shape == SIZE for image in CLIP[:6])


def test_the_proof_measures_every_output(model: Path, trained: InstanceFlowNet, info: ModelInfo) -> None:
    report = prove_half(trained, info, model, proof_images(info, frames=8))
    assert report.frames == 8
    assert set(report.mean) == {"semantic", "center", "offset", "reference_offset", "features_0", "features_1"}
    assert 1e-6 < max(report.mean.values()) < 0.05
    assert "tracks: same ids and classes in" in str(report)


@pytest.mark.parametrize("part", ["semantic_head", "offset_head", "inter.head", "inter.fusions.1.value"])
def test_a_spoiled_graph_does_not_pass(
    graph: onnx.ModelProto, trained: InstanceFlowNet, info: ModelInfo, tmp_path: Path, part: str
) -> None:
    other = copy.deepcopy(graph)
    tensor = next(t for t in other.graph.initializer if part in t.name and len(t.dims) == 4)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(-values, tensor.name))
    onnx.save(other, tmp_path / "model.onnx")
    with pytest.raises(ProofError, match="differs from the float32 network's"):
        prove_half(trained, info, tmp_path / "model.onnx", proof_images(info, frames=4))


def test_it_is_not_quantised(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantise_main([str(model), str(tmp_path / "int8.onnx"), "--worlds", "1"]) == 2
    assert "not in float32; export it again without --half" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
