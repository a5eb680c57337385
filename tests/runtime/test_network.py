# SPDX-License-Identifier: Apache-2.0
"""Model files and execution providers: what is wrong is said in one sentence, what is right runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from instance_flow import InstanceFlowError, Pipeline
from instance_flow.network import METADATA_KEY, OnnxNetwork, read_metadata, write_metadata
from instance_flow.structures import ModelInfo

INFO = ModelInfo(name="test", class_names=("a", "b"), input_size=(64, 96), feature_strides=(16, 8))


def foreign_model(metadata: dict[str, str] | None = None) -> bytes:
    """A sound ONNX file that has nothing to do with us."""
    shape = [1, 2]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(model, metadata or {})
    return model.SerializeToString()


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
    "newer": (foreign_model(changed(format_version=99)), "newer than this program"),
    "description damaged": (foreign_model({METADATA_KEY: "{"}), "description is damaged"),
    "description incomplete": (foreign_model(changed(class_names=None)), "description is incomplete"),
    "description with unknown entries": (foreign_model(changed(colour="red")), "description is incomplete"),
    "no classes": (foreign_model(changed(class_names=[])), "makes no sense"),
    "input of a size that strides do not divide": (foreign_model(changed(input_size=[100, 96])), "makes no sense"),
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


def test_a_description_of_other_classes_is_refused(bundled_model: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundled_model)
    info = replace(OnnxNetwork(bundled_model, "cpu").info, class_names=("cat", "dog"))
    onnx.helper.set_model_props(model, write_metadata(info))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InstanceFlowError, match="it has 7 classes with background, but describes 2"):
        OnnxNetwork(tmp_path / "model.onnx", "cpu")


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
