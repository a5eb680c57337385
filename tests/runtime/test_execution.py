# SPDX-License-Identifier: Apache-2.0
"""How the network uses the machine: settings are checked, and reach ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from instance_flow.network.execution import MOST_THREADS, ExecutionConfig, open_session, session_entries, thread_count
from instance_flow.network.gpu.session import GraphFacts, check_graph, cuda_options, read_graph, tensorrt_options
from instance_flow.structures import InstanceFlowError

CORES = sorted(os.sched_getaffinity(0))
FIRST, BEYOND = CORES[0], CORES[-1] + 1

BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "threads below 0": ({"threads": -1}, "threads is -1; it must be a whole number from 0"),
    "too many threads": ({"threads": MOST_THREADS + 1}, f"from 0 to {MOST_THREADS}"),
    "threads of another type": ({"threads": 2.0}, "threads is 2.0; it must be a whole number"),
    "spinning of another type": ({"spinning": 1}, "spinning is 1; it must be true or false"),
    "affinity of another type": ({"affinity": 2}, "affinity is 2; it must be a text"),
    "no cores": ({"affinity": "big"}, "affinity is 'big'; it must be cores such as 2,3 or 2-5"),
    "cores backwards": ({"affinity": "3-1"}, "it must be cores such as"),
    "cores of nothing": ({"affinity": "0,,1"}, "it must be cores such as"),
    "core that no machine has": ({"affinity": "99999999999"}, "it must be cores such as"),
    "core that is not there": ({"affinity": str(BEYOND)}, f"may not use core {BEYOND}; it has"),
}


@pytest.mark.parametrize(("settings", "words"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_setting_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExecutionConfig(**settings)


def test_every_setting_says_what_it_does() -> None:
    for name, field in ExecutionConfig.__dataclass_fields__.items():
        assert field.metadata["description"], name


def test_cores_are_named_in_onnxruntimes_way() -> None:
    config = ExecutionConfig(threads=3, affinity=f"{FIRST}")
    assert session_entries(config)["session.intra_op_thread_affinities"] == f"{FIRST + 1};{FIRST + 1}"
    assert thread_count(ExecutionConfig(affinity=f" {FIRST} , {FIRST}-{FIRST}")) == 1
    assert session_entries(ExecutionConfig(affinity=f"{FIRST}")) == {"session.intra_op.allow_spinning": "0"}
    assert session_entries(ExecutionConfig(spinning=True)) == {"session.intra_op.allow_spinning": "1"}


def test_threads_of_the_network_stay_on_their_cores(model: Path) -> None:
    def threads() -> set[str]:
        return set(os.listdir("/proc/self/task"))

    before = threads()
    session = open_session(model, "cpu", ExecutionConfig(threads=3, affinity=str(FIRST)))
    deadline = monotonic() + 20.0
    # Each thread goes to its core by itself, a moment after it has begun.
    while (found := [os.sched_getaffinity(int(thread)) for thread in threads() - before]) != [{FIRST}, {FIRST}]:
        assert monotonic() < deadline, found
    del session


def test_cuda_graph_on_the_cpu_is_refused(model: Path) -> None:
    with pytest.raises(InstanceFlowError, match="provider cpu has no CUDA graphs"):
        open_session(model, "cpu", ExecutionConfig(cuda_graph=True))


STATIC, DYNAMIC = GraphFacts((64, 96), True, "", ""), GraphFacts(None, True, "", "")
GRAPHS: dict[str, tuple[str, GraphFacts, bool, str]] = {
    "CUDA graph of any size": ("cuda", DYNAMIC, True, "a CUDA graph needs one size .*instance-flow-export --static"),
    "TensorRT of any size": ("tensorrt", DYNAMIC, False, "TensorRT needs one size .*instance-flow-export --static"),
    "TensorRT and CUDA graph": ("tensorrt", STATIC, True, "keeps one graph only"),
}


@pytest.mark.parametrize(("name", "graph", "cuda_graph", "words"), GRAPHS.values(), ids=GRAPHS)
def test_model_that_a_provider_cannot_have_is_refused(
    name: str, graph: GraphFacts, cuda_graph: bool, words: str
) -> None:
    with pytest.raises(InstanceFlowError, match=words):
        check_graph(Path("model.onnx"), name, graph, cuda_graph)


@pytest.mark.parametrize(("name", "cuda_graph"), [("cuda", True), ("cuda", False), ("tensorrt", False)])
def test_model_of_one_size_is_taken(name: str, cuda_graph: bool) -> None:
    check_graph(Path("model.onnx"), name, STATIC, cuda_graph)


def test_graph_is_read_from_the_file(model: Path) -> None:
    import onnxruntime

    graph = read_graph(onnxruntime, model)
    assert (graph.half, graph.name) == (False, "red thing")


@pytest.mark.parametrize(("half", "flag"), [(True, "1"), (False, "0")], ids=["half", "single"])
def test_half_precision_reaches_the_providers(half: bool, flag: str, tmp_path: Path) -> None:
    assert cuda_options(half, cuda_graph=False)["prefer_nhwc"] == flag
    assert tensorrt_options(half, tmp_path, tmp_path)["trt_fp16_enable"] == flag


def test_cuda_graph_reaches_cuda_alone(tmp_path: Path) -> None:
    assert cuda_options(True, cuda_graph=True)["enable_cuda_graph"] == "1"
    assert "trt_cuda_graph_enable" not in tensorrt_options(True, tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_options_are_known_to_onnxruntime(name: str, tmp_path: Path) -> None:
    import onnxruntime

    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    if not library.is_file():
        pytest.skip("onnxruntime-gpu is not installed")
    options = cuda_options(True, True) if name == "cuda" else tensorrt_options(True, tmp_path, tmp_path)
    content = library.read_bytes()
    assert [option for option in options if option != "device_id" and option.encode() not in content] == []
