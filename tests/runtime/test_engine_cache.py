# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines on disk: which one fits, why one is built, and that no process ever sees half of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from instance_flow.network.gpu.engine_cache import (
    KEY,
    EngineFacts,
    cached,
    engines,
    fitting,
    of_another_machine,
    prune,
    why_built,
)

FACTS = EngineFacts(
    model="worlds",
    model_sha256="ab",
    weights_sha256="cd",
    precision="fp16",
    size=(384, 640),
    gpu="NVIDIA H100",
    capability="9.0",
    driver="580.65",
    tensorrt="10.3.0",
    onnxruntime="1.31.1",
)
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "GPU": (
        {"gpu": "Orin", "capability": "8.7"},
        "the GPU was Orin and is NVIDIA H100, its compute capability 8.7 -> 9.0",
    ),
    "driver": ({"driver": "570.1"}, "the driver 570.1 -> 580.65"),
    "TensorRT": ({"tensorrt": "10.1.0"}, "TensorRT 10.1.0 -> 10.3.0"),
    "ONNX Runtime": ({"onnxruntime": "1.26.0"}, "ONNX Runtime 1.26.0 -> 1.31.1"),
    "model file": ({"model_sha256": "ba"}, "the model file was written anew"),
    "weights": ({"weights_sha256": "dc", "model_sha256": "ba"}, "there is none yet for this model"),
    "precision": ({"precision": "fp32"}, "there is none yet for this model"),
    "size": ({"size": (224, 384)}, "there is none yet for this model"),
}


class Builder:
    """Stands for ONNX Runtime, which finds its engine in a folder or writes it there."""

    def __init__(self) -> None:
        self.built = 0
        self.said: list[str] = []

    def build(self, folder: Path) -> str:
        """Give what the engine holds."""
        engine = folder / "network.engine"
        if not engine.exists():
            self.built += 1
            engine.write_text(f"engine {self.built}")
        return engine.read_text()

    def open(self, root: Path, facts: EngineFacts = FACTS) -> Any:
        """As ``open_on_gpu`` does."""
        return cached(root, facts, self.build, self.said.append)


def test_engine_is_built_once(tmp_path: Path) -> None:
    builder = Builder()
    assert [builder.open(tmp_path) for _ in range(3)] == ["engine 1"] * 3
    assert builder.said == ["building a TensorRT engine, which takes minutes: there is none yet for this model"]
    assert [(engine.facts, engine.size) for engine in engines(tmp_path)] == [(FACTS, len("engine 1"))]


@pytest.mark.parametrize(("before", "reason"), CHANGES.values(), ids=CHANGES)
def test_whatever_an_engine_depends_on_gives_another_one_and_is_told(
    before: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    builder = Builder()
    builder.open(tmp_path, replace(FACTS, **before))
    assert builder.open(tmp_path) == "engine 2"
    assert builder.said[1].endswith(f": {reason}")
    assert len(engines(tmp_path)) == 2
    assert builder.open(tmp_path, replace(FACTS, **before)) == "engine 1"


def test_reason_is_told_by_the_engine_that_is_the_most_alike(tmp_path: Path) -> None:
    builder = Builder()
    for old in (replace(FACTS, gpu="Orin", tensorrt="10.1.0"), replace(FACTS, tensorrt="10.2.0")):
        builder.open(tmp_path, old)
    assert why_built(engines(tmp_path), FACTS) == "TensorRT 10.2.0 -> 10.3.0"


def test_two_processes_at_once_build_one_engine(tmp_path: Path) -> None:
    first, second, waiting, results = Builder(), Builder(), Event(), []

    def told(words: str) -> None:
        second.said.append(words)
        waiting.set()

    other = Thread(target=lambda: results.append(cached(tmp_path, FACTS, second.build, told)))

    def build(folder: Path) -> str:
        other.start()
        assert waiting.wait(60)
        assert fitting(tmp_path, FACTS) is None
        return first.build(folder)

    results.append(cached(tmp_path, FACTS, build, first.said.append))
    other.join()
    assert results == ["engine 1", "engine 1"]
    assert (first.built, second.built) == (1, 0)
    assert second.said == ["waiting for another process that builds a TensorRT engine"]


def test_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "network.engine").write_text("half")
        raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        cached(tmp_path, FACTS, build, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("name", ["network.engine", KEY])
def test_damaged_engine_is_built_again(name: str, tmp_path: Path) -> None:
    builder = Builder()
    builder.open(tmp_path)
    (tmp_path / FACTS.key / name).write_text("cut")
    builder.open(tmp_path)
    assert builder.built == 2
    assert fitting(tmp_path, FACTS) is not None


def test_engine_that_does_not_load_is_built_again(tmp_path: Path) -> None:
    builder = Builder()
    builder.open(tmp_path)

    def build(folder: Path) -> str:
        if (folder / "network.engine").exists():
            raise RuntimeError("could not deserialize")
        return builder.build(folder)

    assert cached(tmp_path, FACTS, build, builder.said.append) == "engine 2"
    assert "does not load (could not deserialize); it is built again" in builder.said[1]


def test_only_engines_of_another_machine_are_pruned(tmp_path: Path) -> None:
    builder = Builder()
    old, other_model = replace(FACTS, tensorrt="10.1.0"), replace(FACTS, weights_sha256="ef")
    for facts in (old, other_model, FACTS):
        builder.open(tmp_path, facts)
    assert [engine.facts for engine in of_another_machine(engines(tmp_path), FACTS)] == [old]
    assert [engine.facts for engine in prune(tmp_path, FACTS)] == [old]
    assert {engine.facts for engine in engines(tmp_path)} == {FACTS, other_model}
