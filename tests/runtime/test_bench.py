# SPDX-License-Identifier: Apache-2.0
"""``instance-flow bench``: its scenes hold what they say, its tables hold every stage, and bad input is said."""

from __future__ import annotations

import json
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from red_thing import HEIGHT, WIDTH

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.benchmark.costs import PERIOD, ROWS
from instance_flow.benchmark.machine import machine, memory_mib
from instance_flow.benchmark.scenes import COVERED, POSES, STRIDE, ExactNetwork, Scene
from instance_flow.benchmark.suite import CACHED, EXACT, OBJECTS, RECOMPUTED, SIZES, RecomputedReferences
from instance_flow.commands.cli import main
from instance_flow.commands.values import image_size
from instance_flow.network.onnx import OnnxNetwork
from instance_flow.network.stages import STAGES

COSTS = {"median_ms", "p95_ms", "cpu_ms", "share"}
FEW = ["--sizes", "160x96", "--objects", "1", "3", "--frames", "2"]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("count", OBJECTS)
def test_a_scene_has_as_many_objects_as_it_says(size: tuple[int, int], count: int) -> None:
    scene = Scene(size, [count] * POSES)
    pipeline = Pipeline(ExactNetwork(scene))
    for t, image in enumerate((*scene.images, *scene.images[:2])):
        tracks = pipeline.step(image, t * PERIOD)
        assert tracks.ids.tolist() == list(range(1, count + 1))
        assert tracks.label_map.shape == image.shape[:2] == size
    assert np.mean(tracks.label_map > 0) == pytest.approx(COVERED, abs=0.02)
    assert np.nanmax(np.abs(tracks.velocities)) > 0.5


def test_a_scene_may_change_its_number_of_objects() -> None:
    counts = [5, 0, 12, 3]
    scene = Scene((96, 160), counts)
    pipeline = Pipeline(ExactNetwork(scene))
    assert [len(pipeline.step(image)) for image in scene.images] == counts


def test_exact_maps_say_where_objects_were() -> None:
    size = (96, 160)
    scene = Scene(size, [4, 4, 3])
    network = ExactNetwork(scene)
    features = [network.predict(image, []).features for image in scene.images]
    prediction = network.predict(scene.images[0], features)
    assert prediction.reference_offset.shape == (3, 2, size[0] // STRIDE, size[1] // STRIDE)
    np.testing.assert_array_equal(prediction.reference_offset[0], prediction.offset)
    labels = scene.poses[0].labels
    for k, center in enumerate(scene.poses[1].centers):
        for y, x in np.argwhere(labels == k + 1):
            np.testing.assert_allclose(prediction.reference_offset[1, :, y, x], center - (y, x), atol=1e-4)
    assert (prediction.reference_offset[2][:, labels == 4] < -1e3).all()  # no fourth object there


def test_recomputed_references_say_the_same_as_cached_ones(model: Path) -> None:
    network = OnnxNetwork(model, "cpu")
    pipelines = [Pipeline(one) for one in (network, RecomputedReferences(network))]
    for image in Scene((HEIGHT, WIDTH), [3] * POSES).images:
        cached, recomputed = (pipeline.step(image, 0) for pipeline in pipelines)
        np.testing.assert_array_equal(cached.label_map, recomputed.label_map)
        np.testing.assert_array_equal(cached.distances, recomputed.distances)


@pytest.fixture(scope="module")
def report(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "report.json"
    arguments = ["--provider", "cpu", "--threads", "1", "2", "--references", "1", "4", "--json", str(path)]
    assert main(["bench", str(model), *FEW, *arguments]) == 0
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_every_kind_is_measured(report: dict[str, Any]) -> None:
    found = {(m["what"], m["input"], m["picture"], m["threads"], m["references"]) for m in report["measurements"]}
    own, other = (f"{WIDTH}x{HEIGHT}", "640x480"), ("160x96", "160x96")
    assert found == {
        *((CACHED, *size, threads, count) for size in (own, other) for threads in (1, 2) for count in (1, 4)),
        *((RECOMPUTED, *size, threads, 4) for size in (own, other) for threads in (1, 2)),
        (EXACT, *other, 0, 4),
    }
    assert [m["objects"] for m in report["measurements"] if m["what"] == EXACT] == [1.0, 3.0]
    assert {m["frames"] for m in report["measurements"]} == {2}


def test_every_stage_has_its_costs_and_shares_add_up(report: dict[str, Any]) -> None:
    for m in report["measurements"]:
        assert list(m["stages"]) == list(ROWS)
        for cost in (*m["stages"].values(), m["step"], m["beyond_network"], m["whole_frame"]):
            assert set(cost) == COSTS
            assert all(value >= 0 for value in cost.values())
            assert cost["median_ms"] <= cost["p95_ms"]
        assert sum(cost["share"] for cost in m["stages"].values()) == pytest.approx(1.0)
        assert m["whole_frame"]["share"] == pytest.approx(1.0, abs=1e-3)
        assert m["stages"]["network"]["share"] > 0


def test_the_report_says_where_it_was_made(report: dict[str, Any]) -> None:
    assert report["provider"] == "cpu"
    assert report["model"]["name"] == "red thing"
    assert report["machine"]["processor"] == machine()["processor"] != ""
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["numpy"] == np.__version__
    for memory in report["memory"].values():
        assert 20 < memory["resident_mib"] <= memory["peak_mib"]


def test_memory_is_that_of_this_process() -> None:
    before = memory_mib()
    with mmap(-1, 2**26) as held:  # an array might lie where another one was before
        held.write(bytes(2**26))
        now = memory_mib()
    assert now["resident_mib"] - before["resident_mib"] > 32
    assert now["peak_mib"] >= now["resident_mib"]


def test_the_tables_name_what_was_measured(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(model), *FEW, "--provider", "cpu"]) == 0
    said = capsys.readouterr().out
    for words in (*STAGES, "message fill", "draw", "whole frame", "provider  cpu", "640x480", "160x96", "recomputed"):
        assert words in said, words


def test_it_says_what_it_is_at_where_there_is_no_terminal(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(model), *FEW, "--provider", "cpu"]) == 0
    kinds = [f"model at {WIDTH}x{HEIGHT}", "model at 160x96", "1 objects at 160x96", "3 objects at 160x96"]
    said = [f"instance-flow: measuring {kind}, {2 * k} of 8 frames done" for k, kind in enumerate(kinds)]
    assert capsys.readouterr().err.splitlines() == said


BAD = {
    "a size that is no multiple of 32": (["--sizes", "330x192"], "330x192 does not work: both sides must be multiples"),
    "no size": (["--sizes", "0x0"], "0x0 does not work"),
    "no frames": (["--frames", "0"], "frames is 0; it must be a whole number from 1"),
    "a negative number of frames": (["--frames", "-3"], "frames is -3; it must be a whole number from 1"),
    "no objects": (["--objects", "0"], "objects is [0]; it must be a list of whole numbers from 1"),
    "more objects than there is room for": (["--objects", "5000"], "5000 objects do not fit into 320x192"),
    "no references": (["--references", "0"], "references is [0]; it must be a list of whole numbers from 1"),
    "more references than the model takes": (["--references", "1", "9"], "this model takes at most 4"),
    "an unknown provider": (["--provider", "tpu"], "provider is 'tpu'; it must be one of auto, cpu"),
    "a provider that is not here": (["--provider", "tensorrt"], "tensorrt"),
    "a negative number of threads": (["--threads", "-1"], "threads is [-1]; it must be a list of whole"),
    "a folder for the figures": (["--json", "."], "is a folder"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line(
    model: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(model), *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_one_number_is_a_square() -> None:
    """As ultralytics has --imgsz 640."""
    assert image_size("640") == (640, 640)
    assert image_size("640x384") == (384, 640)


@pytest.mark.parametrize("text", ["big", "640x", "x384", "640x384x3", "-640x384", "6.4x3"])
def test_a_size_is_width_by_height(model: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", str(model), f"--sizes={text}"])
    assert stopped.value.code == 2
    assert "not WIDTHxHEIGHT" in capsys.readouterr().err


def test_a_missing_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(tmp_path / "none.onnx")]) == 2
    assert "no such model file" in capsys.readouterr().err


@pytest.fixture
def static_model(model: Path, tmp_path: Path) -> Path:
    """The same model for one size alone."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(model)
    (image,) = (node for node in graph.graph.input if node.name == "image")
    for dimension, length in zip(image.type.tensor_type.shape.dim[1:3], (HEIGHT, WIDTH), strict=True):
        dimension.dim_value = length
    onnx.save(graph, tmp_path / "static.onnx")
    return tmp_path / "static.onnx"


def test_a_static_model_is_measured_at_its_own_size_alone(static_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert main(["bench", str(static_model), "--objects", "1", "--frames", "1", "--json", str(path)]) == 0
    measured = json.loads(path.read_text())["measurements"]
    assert {m["input"] for m in measured if m["what"] != EXACT} == {f"{WIDTH}x{HEIGHT}"}
    assert len({m["input"] for m in measured if m["what"] == EXACT}) == len(SIZES)


def test_a_static_model_takes_no_other_size(static_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(static_model), "--sizes", "320x192"]) == 2
    assert f"exported for {WIDTH}x{HEIGHT} alone" in capsys.readouterr().err


def test_more_objects_than_the_assembly_usually_keeps() -> None:
    scene = Scene((384, 640), [150])
    pipeline = Pipeline(ExactNetwork(scene), AssemblyConfig(max_instances=150))
    assert len(pipeline.step(scene.images[0])) == 150
