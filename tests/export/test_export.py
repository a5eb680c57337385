# SPDX-License-Identifier: Apache-2.0
"""Export: one file that says what torch says, or no file at all."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.declare import declared
from instance_flow.network.onnx import OnnxNetwork, write_metadata
from instance_flow.structures import MatchCosts, ModelInfo
from instance_flow_export.compact import rounded
from instance_flow_export.export import export, export_graph, main, make_parser, prove_and_write, weights_hash
from instance_flow_export.half import halve
from instance_flow_export.proof import TIES, ProofError, proof_images, prove, relative_error, token_error
from instance_flow_training.config import DataConfig, TrainConfig, load_config
from instance_flow_training.loop.training import train
from instance_flow_training.network.folding import fold_batch_norm
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.validate import ModelDefaults, TorchNetwork, ValidationConfig, model_info
from instance_flow_training.weights.checkpoint import load_network, save_checkpoint
from instance_flow_training.weights.initialise import build_network
from instance_flow_training.worlds.synthetic import CLASS_NAMES, WorldConfig, generate_clip

SIZE = (64, 96)
CONFIG = load_config(Path(__file__).parents[1] / "tiny.toml", []).model


@pytest.fixture(scope="module")
def network(trained: InstanceFlowNet) -> InstanceFlowNet:
    return trained


@pytest.fixture(scope="module")
def info(network: InstanceFlowNet) -> ModelInfo:
    return model_info(network, SIZE, name="test", weights_sha256=weights_hash(network))


@pytest.fixture(scope="module")
def graph(exported: onnx.ModelProto, info: ModelInfo) -> onnx.ModelProto:
    graph = copy.deepcopy(exported)
    onnx.helper.set_model_props(graph, write_metadata(info))
    return graph


@pytest.fixture(scope="module")
def model(
    graph: onnx.ModelProto, network: InstanceFlowNet, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    prove_and_write(graph, network, info, path, proof_images(info))
    return path


def test_the_file_describes_itself(model: Path, info: ModelInfo) -> None:
    assert OnnxNetwork(model, "cpu").info == info
    assert [p.name for p in model.parent.iterdir()] == [model.name]


def test_the_proof_measures_a_sequence(model: Path, network: InstanceFlowNet, info: ModelInfo) -> None:
    report = prove(network, info, model, proof_images(info, frames=8))
    assert report.frames == 8
    assert set(report.largest) == {"semantic", "center", "offset", "reference_offset", "features_0", "features_1"}
    assert 0 < max(report.largest.values()) < 1e-4


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (128, 224)], ids=str)
@pytest.mark.parametrize("references", [0, 1, 2, 4])
def test_any_size_and_any_number_of_references(
    model: Path, network: InstanceFlowNet, size: tuple[int, int], references: int
) -> None:
    deployed, ours = OnnxNetwork(model, "cpu"), TorchNetwork(network, model_info(network, size))
    rng = np.random.default_rng(references)
    images = rng.integers(0, 255, (references + 1, *size, 3), dtype=np.uint8)
    cached = [deployed.predict(image, []).features for image in images[1:]]
    tensors = [tuple(torch.from_numpy(f) for f in features.to_arrays()) for features in cached]
    found, expected = deployed.predict(images[0], cached), ours.predict(images[0], tensors)  # type: ignore[arg-type]
    for name in ("semantic", "center", "offset", "reference_offset"):
        assert getattr(found, name).shape == getattr(expected, name).shape
        assert relative_error(getattr(expected, name), getattr(found, name)) < 1e-4


def test_a_static_graph_takes_fewer_references_too(network: InstanceFlowNet, info: ModelInfo, tmp_path: Path) -> None:
    graph = export_graph(network, SIZE, dynamic=False)
    onnx.helper.set_model_props(graph, write_metadata(info))
    prove_and_write(graph, network, info, tmp_path / "static.onnx", proof_images(info))
    shapes = [[d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.graph.input]
    assert [shape[0] for shape in shapes] == [1] * 9
    assert all(value > 0 for shape in shapes for value in shape)


def test_a_network_for_the_ablations_can_be_exported(tmp_path: Path) -> None:
    """The paper's backbone, and all that no other export has: joined features through ASPPs, and an affinity field."""
    torch.manual_seed(0)
    paper = replace(CONFIG, backbone="resnet50", output_stride=16, token_stride=16, dense_aspp=True)
    network = InstanceFlowNet(replace(paper, fusion="concat_aspp", flow="affinity"), 3).eval()
    fold_batch_norm(network)  # traced in two thirds of the time
    info = model_info(network, SIZE, ("a", "b", "c"))
    graph = export_graph(network, SIZE, dynamic=True)
    onnx.helper.set_model_props(graph, write_metadata(info))
    onnx.save(graph, tmp_path / "model.onnx")
    deployed, ours = OnnxNetwork(tmp_path / "model.onnx", "cpu"), TorchNetwork(network, info)
    images = np.random.default_rng(0).integers(0, 255, (3, *SIZE, 3), dtype=np.uint8)
    cached: list[tuple[Any, Any]] = []
    for image in images:
        found = deployed.predict(image, [features for features, _ in cached])
        expected = ours.predict(image, [features for _, features in cached])
        for name in ("semantic", "center", "offset", "reference_offset"):
            assert relative_error(getattr(expected, name), getattr(found, name)) < 1e-4
        cached.append((found.features, expected.features))


def spoiled(graph: onnx.ModelProto, part: str) -> onnx.ModelProto:
    """The graph with one weight of the named part a little larger."""
    other = copy.deepcopy(graph)
    tensor = next(t for t in other.graph.initializer if part in t.name and t.dims and len(t.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return other


@pytest.mark.parametrize(
    "part", ["semantic_head", "offset_head", "inter.head", "inter.fusions.0.key", "inter.fusions.1.value"]
)
def test_a_spoiled_graph_does_not_pass(
    graph: onnx.ModelProto, network: InstanceFlowNet, info: ModelInfo, tmp_path: Path, part: str
) -> None:
    out = tmp_path / "model.onnx"
    with pytest.raises(ProofError, match="differs by"):
        prove_and_write(spoiled(graph, part), network, info, out, proof_images(info))
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_keeps_the_older_file(
    graph: onnx.ModelProto, network: InstanceFlowNet, info: ModelInfo, tmp_path: Path
) -> None:
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the older one")
    with pytest.raises(ProofError):
        prove_and_write(spoiled(graph, "center_head"), network, info, out, proof_images(info))
    assert out.read_bytes() == b"the older one"


def test_a_network_that_the_runtime_would_misread_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(model=replace(CONFIG, flow="affinity"))
    about = {"step": 0, "config": asdict(config), "class_names": list(CLASS_NAMES)}
    state = {**about, "network": build_network(config).state_dict()}
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    assert main([str(tmp_path / "checkpoint.pt"), str(tmp_path / "model.onnx")]) == 2
    assert "model.flow is 'affinity', which the runtime would take for offsets" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()


def test_without_a_size_a_model_of_real_video_gets_the_one_that_it_was_validated_at() -> None:
    data = DataConfig(source="youtube_vis", annotations="a.json", frames_per_clip=2)
    config = TrainConfig(model=CONFIG, data=data, validation=ValidationConfig(size=(64, 128)))
    assert config.input_size == (64, 128)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[InstanceFlowNet, Path]:
    """Two steps of the recipe for YouTube-VIS, on worlds and with the small backbone: the network and a compact file.

    Its proof, against the rounded weights, is to the last digits.
    """
    folder = tmp_path_factory.mktemp("recipe")
    small = {
        **{"model.backbone": "mobilenet_v2", "model.dense_aspp": "false", "model.skip_channels": 8},
        **{"model.semantic_channels": 16, "model.instance_channels": 16, "model.head_channels": 8},
        **{"data.source": "worlds", "data.sizes": [list(SIZE)], "data.workers": 0, "init.checkpoint": '""'},
        **{"steps": 2, "batch": 2, "threads": 1, "validation.size": list(SIZE)},
        **{"defaults.match_costs.gap_weight": 0.25},
    }
    path = Path(__file__).parents[2] / "training" / "configs" / "youtube_vis_2019.toml"
    config = load_config(path, [f"{name}={value}" for name, value in small.items()])
    assert (config.model.unit_keys, config.model.attended_offset, config.model.fusion_context) == (False, False, False)
    checkpoint = train(config, folder / "run")
    # Of objects after two steps rounding alone would decide: the maps are proven. The paper's threshold is used below.
    blind = {"center_threshold": 1.0}
    info = export(checkpoint, folder / "model.onnx", None, False, blind, compact=True)
    assert info.input_size == SIZE
    return load_network(checkpoint)[0], folder / "model.onnx"


def test_the_papers_recipe_is_trained_exported_proven_and_run(recipe: tuple[InstanceFlowNet, Path]) -> None:
    pipeline = Pipeline.load(recipe[1], "cpu", AssemblyConfig.paper())
    seen: list[list[int]] = []
    pipeline.observer = lambda observed: seen.append([r.frame_index for r in observed.references])
    assert pipeline.info.match_costs == MatchCosts(gap_weight=0.25), "those of the training"
    clip = generate_clip(90_000, "mixed", WorldConfig(size=SIZE, frames=7))
    for image in clip.images:
        tracks = pipeline.step(image)
        assert tracks.label_map.shape == SIZE
    assert len(tracks)
    assert seen == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4], [0, 3, 4, 5]]


def test_a_compact_file_has_half_the_bytes(recipe: tuple[InstanceFlowNet, Path]) -> None:
    network, path = recipe
    kinds = [tensor.data_type for tensor in onnx.load(path).graph.initializer]
    assert kinds.count(onnx.TensorProto.FLOAT16) > 20
    assert path.stat().st_size < 0.6 * sum(4 * weights.numel() for weights in network.parameters())


def test_rounded_weights_say_nearly_the_same(network: InstanceFlowNet, info: ModelInfo) -> None:
    image = proof_images(info, frames=1)[0]
    compact, exact = (TorchNetwork(n, info).predict(image, []) for n in (rounded(network), network))
    for name in ("semantic", "center", "offset"):
        assert relative_error(getattr(exact, name), getattr(compact, name)) < 0.01, name


BAD_CHECKPOINTS = {
    "missing": (None, "no such checkpoint"),
    "damaged": (b"PK\x03\x04 cut short", "not a readable checkpoint"),
}


@pytest.mark.parametrize(("content", "message"), BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = tmp_path / "checkpoint.pt", tmp_path / "model.onnx"
    if content is not None:
        checkpoint.write_bytes(content)
    assert main([str(checkpoint), str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("name", [spec.name for spec in declared(ModelDefaults)])
def test_every_default_of_the_model_is_an_option_with_its_range(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    option, arguments = f"--{name.replace('_', '-')}", ["checkpoint.pt", "model.onnx"]
    assert getattr(make_parser().parse_args([*arguments, option, "1"]), name) == 1
    with pytest.raises(SystemExit):
        main([*arguments, option, "-1"])
    assert f"argument {option}: '-1' is not a" in capsys.readouterr().err


TOKENS = replace(
    CONFIG,
    object_tokens=128,  # more than the cells of SIZE: of random heat, the last ones would be chance
    center_sigmoid=True,
    output_stride=16,
    aspp_rates=(2, 4),
    dilated_semantics=False,
    semantic_aspp_channels=16,
    aspp_logits=True,
)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_object_tokens_are_exported_proven_and_run_at_any_size(tmp_path: Path, half: bool) -> None:
    torch.manual_seed(0)
    network = InstanceFlowNet(TOKENS, len(CLASS_NAMES)).eval()
    fold_batch_norm(network)
    network.center_head[1].bias.data.zero_()  # type: ignore[index, union-attr, operator]
    info = model_info(network, SIZE, name="tokens", center_threshold=1.0, precision="float16" if half else "float32")
    graph = export_graph(halve(network) if half else network, SIZE, dynamic=True)
    onnx.helper.set_model_props(graph, write_metadata(info))
    prove_and_write(graph, network, info, tmp_path / "model.onnx", proof_images(info))
    deployed = OnnxNetwork(tmp_path / "model.onnx", "cpu")
    assert (deployed.info.feature_tokens, deployed.info.feature_strides) == (128, ())
    for height, width in (SIZE, (32, 32), (128, 96)):
        image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        cached = [deployed.predict(image, []).features]
        for count in range(1, 5):
            prediction = deployed.predict(image, cached)
            assert prediction.reference_offset.shape == (count, 2, height // 4, width // 4)
            cached.append(prediction.features)
        assert [array.shape for array in cached[0].to_arrays()] == [(1, network.inter.cached_channels, 128)]


@pytest.mark.parametrize(("others", "ties", "error"), [(0, 0.0, 0.0), (1, 0.0, 0.5), (49, TIES, 0.0), (51, TIES, 0.5)])
def test_only_so_many_ties_are_left_out(others: int, ties: float, error: float) -> None:
    ours = np.full((2, 50, 100), 2.0)
    theirs = ours.copy()
    theirs[0, 0, :others] = 3.0
    assert relative_error(ours, theirs, ties) == error


def tokens() -> np.ndarray:
    """Of 100 tokens: two values, center, log objectness; the last ten hardly are any."""
    made = np.random.default_rng(0).normal(size=(1, 5, 100))
    made[0, 4] = np.where(np.arange(100) < 90, -1.0, -6.0)
    return made


SHIFTED, ONE_LOST, MANY_LOST, OFF = (tokens() for _ in range(4))
SHIFTED[0] = np.roll(SHIFTED[0], 1, axis=1)
ONE_LOST[0, :, 7] = (9, 9, 9, 9, -60)
MANY_LOST[0, :, 7:12] = 9
OFF[0, 0, 30:40] += 0.5
COMPARED = {
    "equal": (tokens(), 0),
    "shifted": (SHIFTED, 0),
    "one lost": (ONE_LOST, 0),
    "off": (OFF, 1),
    "lost": (MANY_LOST, 1),
}


@pytest.mark.parametrize(("theirs", "wrong"), COMPARED.values(), ids=COMPARED)
def test_tokens_are_compared_wherever_they_stand(theirs: np.ndarray, wrong: int) -> None:
    assert (token_error(tokens(), theirs) > 0.01) == wrong
