# SPDX-License-Identifier: Apache-2.0
"""8 bits: what is quantised and what is not, what the file says of itself, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from instance_flow.formats.video_writer import VideoWriter
from instance_flow.network.onnx import OnnxNetwork, write_metadata
from instance_flow.pipeline import Pipeline
from instance_flow_export import quantise_samples
from instance_flow_export.quantise import main
from instance_flow_export.quantise_bias import correct_biases
from instance_flow_export.quantise_graph import FLOAT
from instance_flow_export.quantise_samples import streams_in, take_samples
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.validate import model_info
from instance_flow_training.worlds.synthetic import generate_clip

SIZE = (64, 96)
IMAGES = np.random.default_rng(0).integers(0, 255, (12, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def model(exported: onnx.ModelProto, trained: InstanceFlowNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = copy.deepcopy(exported)
    onnx.helper.set_model_props(graph, write_metadata(model_info(trained, SIZE, name="tiny", training="none")))
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    onnx.save(graph, path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def quantised(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    assert main([str(model), str(path), "--images", str(pictures)]) == 0
    return path


def write_pictures(folder: Path, count: int = 12) -> None:
    clip = generate_clip(3)
    for t in range(count):
        cv2.imwrite(str(folder / f"{t}.png"), clip.images[t][..., ::-1])


def weights_of_convolutions(path: Path) -> tuple[set[str], set[str]]:
    """Names of the weights of all convolutions: those in 8 bits, those in float."""
    graph = onnx.load(path).graph
    producers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    small = {producers[n.input[1]].input[0] for n in convolutions if n.input[1] in producers}
    return small, {n.input[1] for n in convolutions if n.input[1] not in producers}


def test_the_stem_the_last_layers_of_the_heads_and_the_keys_stay_in_float(quantised: Path) -> None:
    small, plain = weights_of_convolutions(quantised)
    for part in ("backbone.features.0.", "backbone.features.3.", "semantic_head.coarse.0", "semantic_head.finest.1"):
        assert any(part in name for name in plain), part
    for part in ("center_head.1", "offset_head.1", "inter.head.1", "inter.fusions.0.query", "inter.fusions.1.key"):
        assert any(part in name for name in plain), part
    assert all(FLOAT.search(name) for name in plain)
    assert any("backbone.features.17" in name for name in small)
    assert any("inter.decoder.fuse" in name for name in small)
    assert len(small) > 4 * len(plain)


def test_the_features_are_joined_in_float(quantised: Path) -> None:
    graph = onnx.load(quantised).graph
    producers = {name: node for node in graph.node for name in node.output}
    for name in ("features_0", "features_1"):
        join = producers[name]
        assert join.op_type == "Concat"
        assert all(producers[source].op_type != "DequantizeLinear" for source in join.input)


def test_the_description_is_kept_and_says_what_was_done(model: Path, quantised: Path) -> None:
    before, after = OnnxNetwork(model, "cpu").info, OnnxNetwork(quantised, "cpu").info
    assert after.training == "none; int8 from 12 frames of " + after.training.rsplit(" ", 1)[1]
    assert (before.precision, after.precision) == ("float32", "int8")
    same = {"training": "", "precision": ""}
    assert {**vars(after), **same} == {**vars(before), **same}


def test_it_runs_as_a_stream_from_the_first_frame_on(model: Path, quantised: Path) -> None:
    small, plain = Pipeline.load(quantised, "cpu"), Pipeline.load(model, "cpu")
    for image in IMAGES[:6]:
        assert small.step(image).label_map.shape == plain.step(image).label_map.shape == SIZE
    maps = [OnnxNetwork(path, "cpu").predict(IMAGES[0], []) for path in (quantised, model)]
    assert 0 < np.abs(maps[0].semantic - maps[1].semantic).mean() < 0.05


def test_it_is_smaller_and_says_how_far_it_is_from_the_float_model(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    assert main([str(model), str(out), "--images", str(pictures)]) == 0
    printed = capsys.readouterr().out
    for word in ("semantic", "center", "offset", "reference_offset", "features_1", "same ids", "times as fast"):
        assert word in printed
    assert out.stat().st_size < 0.6 * model.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_synthetic_clips_will_do(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise_samples, "SAMPLES", 4)
    out = tmp_path / "int8.onnx"
    assert main([str(model), str(out), "--worlds", "2"]) == 0
    assert OnnxNetwork(out, "cpu").info.training == "none; int8 from 4 frames of 2 synthetic clips"


def video_folder(folder: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(folder / name, 10.0) as video:
            for image in IMAGES[:6]:
                video.write(image)


STREAMS: dict[str, tuple[Callable[[Path], object], int]] = {
    "a folder of pictures": (write_pictures, 1),
    "one picture": (lambda folder: write_pictures(folder, 1), 1),
    "a folder of videos": (video_folder, 2),
}


@pytest.mark.parametrize(("write", "count"), STREAMS.values(), ids=STREAMS)
def test_samples_have_every_reference(model: Path, tmp_path: Path, write: Callable[[Path], object], count: int) -> None:
    write(tmp_path)
    streams = streams_in(tmp_path)
    assert len(streams) == count
    network = OnnxNetwork(model, "cpu")
    inputs = {node.name for node in onnx.load(model).graph.input}
    samples = list(take_samples(network, streams))
    assert samples
    for sample in samples:
        assert set(sample) == inputs
        assert all(len(value) == 1 and np.isfinite(value).all() for value in sample.values())


def test_a_picture_that_cannot_be_read_is_left_out(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path, 3)
    (tmp_path / "1.png").write_bytes(b"not a picture")
    assert len(list(take_samples(OnnxNetwork(model, "cpu"), streams_in(tmp_path)))) == 2
    assert "1.png" in caplog.text


def foreign(path: Path) -> None:
    value, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "foreign", [value], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def nothing(_path: Path) -> None:
    """Leaves it as it is."""


BAD_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (nothing, "no such model file"),
    "not ONNX": (lambda path: path.write_bytes(b"nothing"), "not a readable ONNX model"),
    "foreign": (foreign, "not one of instance-flow"),
}


@pytest.mark.parametrize(("write", "message"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_bad_models(
    pictures: Path,
    tmp_path: Path,
    write: Callable[[Path], object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad, out = tmp_path / "bad.onnx", tmp_path / "out" / "int8.onnx"
    write(bad)
    refused(bad, out, ["--images", str(pictures)], message, capsys)


def test_a_quantised_model_is_refused(
    quantised: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(quantised, tmp_path / "int8.onnx", ["--images", str(pictures)], "is quantised already", capsys)


def write_text(folder: Path) -> None:
    (folder / "notes.txt").write_text("no picture")


def write_broken(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"no picture")


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (nothing, "holds no pictures"),
    "something else": (write_text, "holds no pictures"),
    "broken pictures alone": (write_broken, "not one frame could be read"),
    "missing": (lambda folder: folder.rmdir(), "no such file or folder"),
}


@pytest.mark.parametrize(("write", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folders(
    model: Path, tmp_path: Path, write: Callable[[Path], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    write(folder)
    refused(model, tmp_path / "out" / "int8.onnx", ["--images", str(folder)], message, capsys)


def test_no_clips_are_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(model, tmp_path / "int8.onnx", ["--worlds", "0"], "must be at least 1", capsys)


def test_the_float_model_is_not_overwritten(model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = model.read_bytes()
    assert main([str(model), str(model), "--images", str(pictures)]) == 2
    assert "would be lost" in capsys.readouterr().err
    assert model.read_bytes() == before


def refused(model: Path, out: Path, source: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), str(out), *source]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("instance-flow-quantise: error:")]
    assert len(error) == 1
    assert message in error[0]
    assert not out.exists()


def test_a_shifted_mean_is_taken_back() -> None:
    """A 1x1 convolution whose rounded weight is too small by a known amount."""
    x = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    original, quantised = one_convolution(np.float32(0.5), None), one_convolution(np.float32(0.5), np.int8(48))
    correct_biases(quantised, original, [{"x": x}])
    bias = next(numpy_helper.to_array(t) for t in quantised.graph.initializer if t.name == "bias_32")
    # The weight is 48 / 100 for 0.5, so 0.02 times the mean of the rounded x is missing.
    assert bias * 0.0001 == pytest.approx([0.02 * x.mean()], abs=2e-3)


def one_convolution(weight: Any, rounded: Any) -> onnx.ModelProto:
    shape = [1, 1, 8, 8]
    value, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    tensors: dict[str, Any] = {"weight": np.full((1, 1, 1, 1), weight, np.float32), "bias": np.zeros(1, np.float32)}
    nodes = [helper.make_node("Conv", ["x", "weight", "bias"], ["y"], name="conv")]
    if rounded is not None:
        tensors = {"weight_8": np.full((1, 1, 1, 1), rounded, np.int8), "bias_32": np.zeros(1, np.int32)}
        tensors |= {"weight_scale": np.float32(0.01), "weight_zero": np.int8(0)}
        tensors |= {"bias_scale": np.float32(0.0001), "bias_zero": np.int32(0)}
        tensors |= {"x_scale": np.float32(0.01), "x_zero": np.uint8(0)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_quantised"]),
            helper.make_node("DequantizeLinear", ["x_quantised", "x_scale", "x_zero"], ["x_again"]),
            helper.make_node("DequantizeLinear", ["weight_8", "weight_scale", "weight_zero"], ["weight_again"]),
            helper.make_node("DequantizeLinear", ["bias_32", "bias_scale", "bias_zero"], ["bias_again"]),
            helper.make_node("Conv", ["x_again", "weight_again", "bias_again"], ["y"], name="conv"),
        ]
    initialisers = [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "one", [value], [result], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
