# SPDX-License-Identifier: Apache-2.0
"""Model files and execution providers: what is wrong is said in one sentence, what is right runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_clips import SITUATIONS
from red_thing import INFO as RED
from red_thing import build_graph, red_network

from instance_flow import InstanceFlowError, Pipeline
from instance_flow.network.multiscale import MultiScaleNetwork
from instance_flow.network.onnx import METADATA_KEY, OnnxNetwork, read_metadata, write_metadata
from instance_flow.network.protocol import Network
from instance_flow.network.stages import Stopwatch
from instance_flow.structures import MAPS, Image, ModelError, ModelInfo, Prediction

onnx = pytest.importorskip("onnx")

INFO = ModelInfo(name="test", class_names=("a", "b"), input_size=(64, 96), feature_strides=(16, 8))


def foreign_model(metadata: dict[str, str] | None = None, shape: Sequence[int | str] = (1, 2)) -> bytes:
    """A sound ONNX file that has nothing to do with us."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(model, metadata or {})
    return bytes(model.SerializeToString())


def changed(**values: Any) -> dict[str, str]:
    """Our description with some entries changed, or left out where None."""
    entries = {**json.loads(write_metadata(INFO)[METADATA_KEY]), **values}
    return {METADATA_KEY: json.dumps({key: value for key, value in entries.items() if value is not None})}


BAD_FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such model file"),
    "empty": (b"", "not a readable ONNX model"),
    "text": (b"<html>Not found</html>", "not a readable ONNX model"),
    "cut short": (foreign_model()[:40], "not a readable ONNX model"),
    "foreign": (foreign_model(), "not one of instance-flow"),
    "older": (foreign_model(changed(format_version=1)), "older than what this program reads"),
    "newer": (foreign_model(changed(format_version=99)), "newer than this program"),
    "description damaged": (foreign_model({METADATA_KEY: "{"}), "description is damaged"),
    "description of a depth that Python does not read": (foreign_model({METADATA_KEY: "[" * 100_000}), "is damaged"),
    "description that is no text": (foreign_model({METADATA_KEY: "~~"}).replace(b"~~", b"\xff\xfe"), "not a readable"),
    "version of another type": (foreign_model(changed(format_version=[3])), r"is damaged \(format_version \[3\]\)"),
    "other inputs": (foreign_model(changed()), "its inputs are x; expected image"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_model_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InstanceFlowError, match=message) as caught:
        Pipeline.load(path, provider="cpu")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


NONE = object()
FOREIGN_NAME = "name\n\x1b[31m"
BAD_DESCRIPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no classes": ({"class_names": []}, r"class_names is \[\]; expected a list of 1 to"),
    "classes left out": ({"class_names": NONE}, "it has no class_names"),
    "class of another type": ({"class_names": ["a", 1]}, r"class_names is \['a', 1\]; expected a list"),
    "class that forges a log": ({"class_names": [FOREIGN_NAME]}, r"class_names is \['name\\n\\x1b"),
    "class of 3 MB": ({"class_names": ["x" * 3_000_000]}, "class_names is .*; expected a list"),
    "name that forges a log": ({"name": FOREIGN_NAME}, "name is .*; expected one line of 1 to 100 characters"),
    "unknown field": ({"colour": "red"}, "'colour' is no field of it"),
    "input of 65536 x 65536": ({"input_size": [65536, 65536]}, r"input_size is \[65536, 65536\]; expected"),
    "input of three sides": ({"input_size": [64, 96, 3]}, "input_size is"),
    "input of fractions": ({"input_size": [64.0, 96.0]}, "input_size is"),
    "input of true": ({"input_size": [True, 96]}, "input_size is"),
    "input that strides do not divide": ({"input_size": [100, 96]}, "expected multiples of 32"),
    "input below a stride": ({"input_size": [64, 96], "feature_strides": [128, 8]}, "expected multiples of 128"),
    "one stride": ({"feature_strides": [16]}, "expected two strides"),
    "strides beside tokens": ({"feature_tokens": 256}, "or none where it has tokens"),
    "stride that divides nothing": ({"feature_strides": [16, 3]}, "expected a list of powers of two"),
    "output stride 0": ({"output_stride": 0}, "output_stride is 0; expected a power of two up to 32"),
    "tokens for all memory": ({"feature_strides": [], "feature_tokens": 10**12}, "feature_tokens is"),
    "references for all memory": ({"max_references": 10**9}, "max_references is 1000000000; expected a whole number"),
    "unknown policy": (
        {"reference_policy": "all"},
        r"reference_policy is 'all'; expected one of first\+recent, recent",
    ),
    "policy of another type": ({"reference_policy": ["recent"]}, "reference_policy is"),
    "threshold NaN": ({"center_threshold": float("nan")}, "center_threshold is nan; expected a number from 0 to 1"),
    "threshold 1e308": ({"center_threshold": 1e308}, r"center_threshold is 1e\+308; expected"),
    "threshold of 400 digits": ({"center_threshold": 10**400}, "center_threshold is 10+"),
    "threshold as text": ({"center_threshold": "0.1"}, "center_threshold is '0.1'; expected a number"),
    "window without end": ({"center_window": float("inf")}, "center_window is inf; expected a number from 0 to 0.5"),
    "distance below 0": ({"max_distance": -0.1}, "max_distance is -0.1"),
    "score above 1": ({"min_score": 1.5}, "min_score is 1.5"),
    "never confirmed": ({"confirm_frames": 0}, "confirm_frames is 0; expected a whole number from 1 to 1000"),
    "costs of another type": ({"match_costs": [1]}, r"match_costs is \[1\]; expected an object"),
    "unknown cost": ({"match_costs": {"hue": 1}}, "match_costs is {'hue': 1}; expected an object"),
    "cost NaN": ({"match_costs": {"flow_error": float("nan")}}, "flow_error of match_costs is nan; expected a number"),
    "training of another type": ({"training": 5}, "training is 5; expected one line"),
    "unknown precision": ({"precision": "float8"}, "precision is 'float8'; expected one of float32"),
}


@pytest.mark.parametrize(("entries", "message"), BAD_DESCRIPTIONS.values(), ids=BAD_DESCRIPTIONS)
def test_a_description_that_makes_no_sense_is_refused_by_its_field(entries: dict[str, Any], message: str) -> None:
    described = {**json.loads(write_metadata(INFO)[METADATA_KEY]), **entries}
    text = json.dumps({name: value for name, value in described.items() if value is not NONE})
    with pytest.raises(ModelError, match=f"^model.onnx: its description makes no sense: .*{message}") as caught:
        read_metadata("model.onnx", {METADATA_KEY: text})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_the_recorded_model_of_the_tests_is_the_one_that_they_describe() -> None:
    model = onnx.load_from_string(red_network(RED))
    assert {entry.key: entry.value for entry in model.metadata_props} == write_metadata(RED)
    del model.metadata_props[:]
    assert model == build_graph()


def short_weights() -> bytes:
    """A model whose weights have fewer bytes than their shape says."""
    model = onnx.load_from_string(foreign_model())
    weights = onnx.TensorProto(name="w", dims=[1, 2], data_type=onnx.TensorProto.FLOAT, raw_data=bytes(3))
    model.graph.initializer.append(weights)
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Add", ["x", "w"], ["y"]))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        foreign_model()[:40],
        foreign_model().replace(b"\x01x", b"\x01\xff"),
        foreign_model(changed(), [1, "~"]).replace(b"~", b"\xe4"),
        short_weights(),
    ],
    ids=["cut short", "name of an input that is no text", "name of a size that is no text", "weights too short"],
)
def test_a_damaged_model_is_refused_once_and_nothing_is_printed(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime prints and tries again on its own, unless that is switched off."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        OnnxNetwork(tmp_path / "model.onnx", "cpu")
    assert capfd.readouterr() == ("", "")


def test_a_description_of_other_classes_is_refused(bundled_model: Path, tmp_path: Path) -> None:
    model = onnx.load(bundled_model)
    info = replace(OnnxNetwork(bundled_model, "cpu").info, class_names=("cat", "dog"))
    onnx.helper.set_model_props(model, write_metadata(info))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InstanceFlowError, match="it has 7 classes with background, but describes 2"):
        OnnxNetwork(tmp_path / "model.onnx", "cpu")


OLD = {"format_version": 2, "match_costs": None, "min_score": None, "confirm_frames": None, "feature_tokens": None}


def test_the_format_before_is_read_with_the_constants_of_then() -> None:
    assert read_metadata("old.onnx", changed(**OLD)) == INFO


def test_a_model_runs_at_the_size_that_is_asked_for(bundled_model: Path) -> None:
    """Windows and distances are fractions of the input, so the same picture gives objects of the same sizes."""
    image = SITUATIONS["look-alikes crossing"].images[0]
    small, large = (Pipeline.load(bundled_model, "cpu", size=size) for size in (None, (288, 480)))
    assert large.info.input_size == (288, 480)
    assert small.info.input_size == (224, 384)
    found = [pipeline.step(image) for pipeline in (small, large)]
    assert len(found[0]) > 0
    shared = (found[0].label_map > 0) & (found[1].label_map > 0)
    assert shared.sum() > 0.7 * (found[0].label_map > 0).sum()


@pytest.mark.parametrize("size", [(100, 96), (0, 96), (64, 8192), (31, 32)])
def test_a_size_that_the_model_cannot_have(bundled_model: Path, size: tuple[int, int]) -> None:
    with pytest.raises(
        ModelError, match=f"an input of {size[1]} x {size[0]} pixels was given, but this model takes mul"
    ):
        Pipeline.load(bundled_model, "cpu", size=size)


def test_a_description_survives_writing_and_reading() -> None:
    assert read_metadata("model.onnx", write_metadata(INFO)) == INFO


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "tpu"])
def test_what_is_asked_for_runs_or_is_refused(tmp_path: Path, provider: str) -> None:
    import onnxruntime

    names = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
    if names.get(provider) in onnxruntime.get_available_providers():
        pytest.skip(f"this machine has {provider}")
    path = tmp_path / "model.onnx"
    path.write_bytes(foreign_model(changed()))
    with pytest.raises(InstanceFlowError, match=provider):
        OnnxNetwork(path, provider)


def test_bundled_model_steps_from_no_reference_to_all(bundled_model: Path) -> None:
    pipeline = Pipeline.load(bundled_model, provider="cpu")
    height, width = pipeline.info.input_size
    rng = np.random.default_rng(0)
    for _ in range(pipeline.info.max_references + 2):
        tracks = pipeline.step(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
    assert pipeline.provider == "cpu"
    assert tracks.frame_index == pipeline.info.max_references + 1
    assert tracks.label_map.shape == (height, width)


@pytest.mark.parametrize("size", [(100, 384), (224, 32 * 7 + 1)], ids=str)
def test_a_size_that_no_model_takes_is_refused(bundled_model: Path, size: tuple[int, int]) -> None:
    network = OnnxNetwork(bundled_model, "cpu")
    with pytest.raises(InstanceFlowError, match=rf"{size[1]} x {size[0]} pixels was given.*multiples of 32"):
        network.predict(np.zeros((*size, 3), np.uint8), [])


def test_too_many_references_are_refused(bundled_model: Path) -> None:
    network = OnnxNetwork(bundled_model, "cpu")
    image = np.zeros((64, 96, 3), np.uint8)
    features = network.predict(image, []).features
    with pytest.raises(InstanceFlowError, match="5 references were given, but this model takes 4"):
        network.predict(image, [features] * 5)


def test_features_stay_where_they_are_and_come_back_bit_by_bit(bundled_model: Path) -> None:
    """Handed in as they are or from a snapshot: the same maps; and no later frame writes over what is held."""
    network = OnnxNetwork(bundled_model, "cpu")
    images = np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3), dtype=np.uint8)
    held = [network.predict(image, []).features for image in images[:4]]
    before = [features.to_arrays() for features in held]
    expected = network.predict(images[4], before)
    for image in images[5:]:
        network.predict(image, held)
    found = network.predict(images[4], held)
    for name in MAPS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for features, arrays in zip(held, before, strict=True):
        for now, then in zip(features.to_arrays(), arrays, strict=True):
            np.testing.assert_array_equal(now, then)


def test_maps_do_not_share_memory(bundled_model: Path) -> None:
    network = OnnxNetwork(bundled_model, "cpu")
    images = np.random.default_rng(1).integers(0, 255, (2, 64, 96, 3), dtype=np.uint8)
    first = network.predict(images[0], [])
    kept = first.center.copy()
    network.predict(images[1], [])
    np.testing.assert_array_equal(first.center, kept)


def test_two_threads_get_the_maps_of_one(bundled_model: Path) -> None:
    network = OnnxNetwork(bundled_model, "cpu")
    images = np.random.default_rng(2).integers(0, 255, (8, 64, 96, 3), dtype=np.uint8)
    expected = [network.predict(image, []).center for image in images]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda image: network.predict(image, []).center, images))
    np.testing.assert_array_equal(found, expected)


class Plain:
    """One object that never moves, by the two names alone that any network has; features count the calls."""

    info = ModelInfo(name="plain", class_names=("thing",), input_size=(32, 64), center_window=0.0)
    calls = 0

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:
        cells = image.shape[0] // 4, image.shape[1] // 4
        self.calls += 1
        center = np.zeros(cells, np.float32)
        center[4, 8] = 1
        still = np.zeros((2, *cells), np.float32)
        towards = np.zeros((len(references), *still.shape), np.float32)
        return Prediction(np.stack([1 - center, center]), center, still, towards, self.calls)


class OnDevice(Plain, Network):
    """One whose maps have to be fetched, and which checks the features of a snapshot."""

    fixed_size = (32, 64)

    def __init__(self) -> None:
        self.downloads: list[int] = []

    def launch(self, image: Image, references: Sequence[int], watch: Stopwatch) -> OnDevice.Frame:
        watch.lap("upload")
        return OnDevice.Frame(self, self.predict(image, references))

    def warmup_frames(self, references: int) -> int:
        return 3 * references

    def check_features(self, features: Any) -> None:
        if features > self.calls:
            raise InstanceFlowError(f"no frame {features}")

    class Frame:
        def __init__(self, network: OnDevice, prediction: Prediction) -> None:
            self.features, self._network, self._prediction = prediction.features, network, prediction

        def download(self) -> Prediction:
            self._network.downloads.append(self.features)
            return self._prediction


PICTURE = np.zeros((32, 64, 3), np.uint8)


@pytest.mark.parametrize("network", [Plain, OnDevice])
@pytest.mark.parametrize("scales", [(), (1.0,)], ids=["alone", "in scales"])
def test_a_network_of_ones_own_is_one_as_any_other(network: type[Plain], scales: tuple[float, ...]) -> None:
    own = network()
    pipeline = Pipeline(MultiScaleNetwork(own, scales) if scales else own)
    tracks = [pipeline.step(PICTURE, t) for t in (0, 10**9)]
    assert [t.ids.tolist() for t in tracks] == [[1], [1]]
    assert own.calls == 2
    assert (pipeline.provider, pipeline.info) == (network.__name__, network.info)


def test_what_a_network_says_of_itself_is_asked_of_it() -> None:
    """Its maps are fetched once a frame, its own number of frames warms it up, and it judges features of a snapshot."""
    own = OnDevice()
    pipeline = Pipeline(own)
    pipeline.warmup((32, 64))
    assert own.calls == 3 * pipeline.info.max_references + 1, "and one step"
    before = own.calls
    for t in range(3):
        pipeline.step(PICTURE, t)
    assert own.downloads[-3:] == [before + 1, before + 2, before + 3]
    assert "upload" in pipeline.seconds
    with pytest.raises(InstanceFlowError, match=r"no frame \d+"):
        Pipeline(OnDevice()).restore(pipeline.snapshot())
    with pytest.raises(ModelError, match="64 x 32 alone"):
        MultiScaleNetwork(own, [2.0])
