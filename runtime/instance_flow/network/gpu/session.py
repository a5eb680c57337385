# SPDX-License-Identifier: Apache-2.0
"""A session of ONNX Runtime on an NVIDIA GPU: CUDA, or TensorRT with its engines kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instance_flow.formats.foreign_text import shown
from instance_flow.network.gpu import engine_cache
from instance_flow.network.gpu.nvidia import driver_version, inspect_gpu, tensorrt_version
from instance_flow.network.gpu.provider_check import PROVIDERS, ProviderError, inspect_provider, why_unavailable
from instance_flow.structures import ModelError

_EXPORT = "export it with `instance-flow-export --static`"
_ON_CPU = "explicitly disabled"
"""In what ONNX Runtime says where it would run a part of the model on the CPU and may not."""

_SAID = 300
"""Characters of what ONNX Runtime says; it names parts of the model."""

Options = dict[str, str]


@dataclass(frozen=True)
class GraphFacts:
    """What a session is made for. size: input's (height, width), None = any, and any number of references.

    half: whether it computes in half precision.   name, weights_sha256: from its description, "" in a foreign file.
    """

    size: tuple[int, int] | None
    half: bool
    name: str
    weights_sha256: str


def open_on_gpu(
    runtime: Any,
    path: Path,
    name: str,
    options: Any,
    cuda_graph: bool,
    engine_root: Path,
    strict: bool,
    say: Callable[[str], None],
) -> Any:
    """Open a model.

    Args:
        runtime: the module onnxruntime.   name: cuda | tensorrt.   options: its SessionOptions.
        engine_root: folder of the TensorRT engines.   say: called with what takes minutes.
        strict: refuse a model of which a part would run on the CPU, where that can be asked for: a model of any size
            computes with shapes, which belong there.

    Raises:
        ProviderError: where the provider does not start on this machine.
        ModelError: for a file that is no ONNX model, and for a model or a setting that the provider cannot have.
    """
    if reason := why_unavailable(name, inspect_provider(runtime, name)):
        raise ProviderError(f"provider {name!r}: {reason}")
    graph = read_graph(runtime, path)
    check_graph(path, name, graph, cuda_graph)
    if strict and graph.size is not None:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    on_cuda = (PROVIDERS["cuda"], cuda_options(graph.half, cuda_graph))
    if name == "cuda":
        rest = [] if strict and graph.size is not None else [PROVIDERS["cpu"]]
        return _create(runtime, path, name, options, [on_cuda, *rest])
    facts = engine_facts(path, graph, runtime)
    timings = engine_root / engine_cache.TIMINGS / facts.machine_key

    def build(folder: Path) -> Any:
        timings.mkdir(parents=True, exist_ok=True)
        on_tensorrt = (PROVIDERS["tensorrt"], tensorrt_options(graph.half, folder, timings))
        # What TensorRT does not take, CUDA does.
        return _create(runtime, path, name, options, [on_tensorrt, on_cuda])

    try:
        return engine_cache.cached(engine_root, facts, build, say)
    except OSError as error:
        raise ModelError(
            f"{engine_root}: the TensorRT engine cannot be kept there ({error.strerror or error}); name another folder "
            "as engine_cache"
        ) from error


def read_graph(runtime: Any, path: Path) -> GraphFacts:
    """Look at a model without running it; ModelError for a file that is none."""
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # What is wrong is raised as well.
    try:
        session = runtime.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]], enable_fallback=0)
        inputs = {node.name: node for node in session.get_inputs()}
        fixed = all(isinstance(n, int) for node in inputs.values() for n in node.shape)
        half = any("float16" in node.type for node in (*inputs.values(), *session.get_outputs()))
    except Exception as error:
        raise unreadable(path, error) from error
    image: list[Any] = inputs["image"].shape if fixed and "image" in inputs else []
    size = (image[1], image[2]) if len(image) == 4 else None
    try:
        described = json.loads(session.get_modelmeta().custom_metadata_map.get("instance_flow", "{}"))
        name, weights = shown(described.get("name", "")), shown(described.get("weights_sha256", ""))
    except (ValueError, AttributeError, RecursionError):  # The next reader of the description reports it.
        name, weights = "", ""
    return GraphFacts(size, half, name, weights)


def check_graph(path: Path, name: str, graph: GraphFacts, cuda_graph: bool) -> None:
    """Raises ModelError for a model or a setting that the provider cannot have."""
    if name == "tensorrt" and cuda_graph:
        raise ModelError(
            "cuda_graph was asked for, but ONNX Runtime's TensorRT keeps one graph only, with the buffers of one "
            "frame; leave cuda_graph out, or ask for provider cuda"
        )
    if graph.size is None and (name == "tensorrt" or cuda_graph):
        who = "TensorRT" if name == "tensorrt" else "a CUDA graph"
        raise ModelError(
            f"{path}: this model takes images of any size and may have no references, but {who} needs one size and all "
            f"references; {_EXPORT}"
        )


def cuda_options(half: bool, cuda_graph: bool) -> Options:
    """Options of the CUDA provider; CUDA_VISIBLE_DEVICES says which GPU is device 0."""
    return {
        "device_id": "0",
        # Measures every algorithm when a convolution runs first, which warming up does, and keeps the fastest. The
        # other choices start sooner and are slower in every frame.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        # Memory grows by what is asked for and not to the next power of two, so it stays where warming up left it.
        "arena_extend_strategy": "kSameAsRequested",
        # Tensor cores take half precision in this layout; else cuDNN transposes before and after each convolution.
        "prefer_nhwc": str(int(half)),
        # A model in single precision is there to give the CPU's numbers. Who wants speed takes half precision.
        "use_tf32": "0",
        "enable_cuda_graph": str(int(cuda_graph)),
    }


def tensorrt_options(half: bool, folder: Path, timings: Path) -> Options:
    """Options of the TensorRT provider. folder: of the engine.   timings: of the kernels' timings, for the next build.

    Its CUDA graph stays off: it keeps a single one, with the addresses of one frame's buffers, and would read those
    whichever frames are references (ONNX Runtime 1.31 passes gpu_graph_id to the CUDA provider alone).
    """
    return {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(timings),
        "trt_fp16_enable": str(int(half)),
        # Sums of squares overflow half precision.
        "trt_layer_norm_fp32_fallback": str(int(half)),
        "trt_context_memory_sharing_enable": "1",
    }


def engine_facts(path: Path, graph: GraphFacts, runtime: Any) -> engine_cache.EngineFacts:
    """What the TensorRT engine of a model depends on here; ProviderError without a GPU."""
    gpu = inspect_gpu()
    if gpu is None:
        raise ProviderError("no GPU is found; a TensorRT engine is built on the GPU that runs it")
    return engine_cache.EngineFacts(
        model=graph.name,
        model_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        weights_sha256=graph.weights_sha256,
        precision="fp16" if graph.half else "fp32",
        size=graph.size or (0, 0),
        gpu=gpu.name,
        capability=gpu.capability,
        driver=driver_version(),
        tensorrt=tensorrt_version(),
        onnxruntime=runtime.__version__,
    )


def unreadable(path: Path, error: Exception) -> ModelError:
    """The error for a file that ONNX Runtime cannot load."""
    return ModelError(f"{path}: not a readable ONNX model ({first_line(error)}); download or export it again")


def first_line(error: Exception) -> str:
    """The first line of an error of ONNX Runtime."""
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0], _SAID)


def _create(runtime: Any, path: Path, name: str, options: Any, providers: list[Any]) -> Any:
    try:
        # Otherwise it makes another session without the provider, now and after a failure later on.
        session = runtime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:
        if _ON_CPU in str(error):
            raise ModelError(
                f"{path}: provider {name!r} would run a part of this model on the CPU; ask for provider auto to allow "
                "that"
            ) from error
        raise ModelError(f"{path}: provider {name!r} does not take this model ({first_line(error)})") from error
    if session.get_providers()[0] != PROVIDERS[name]:
        raise ProviderError(
            f"provider {name!r}: ONNX Runtime {runtime.__version__} has {PROVIDERS[name]} but could not start it; its "
            "log above says why"
        )
    return session
