# SPDX-License-Identifier: Apache-2.0
"""Why an execution provider cannot start here, in one sentence.

ONNX Runtime itself only writes it to its own log, and continues without the provider.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instance_flow.network.gpu.nvidia import (
    Gpu,
    driver_cuda,
    driver_version,
    inspect_gpu,
    missing_library,
    preload_tensorrt,
    tensorrt_needed,
)
from instance_flow.structures import ModelError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
LAST_FOR_CUDA_12 = "1.26.0"
_DRIVERS = {12: "525", 13: "580"}
_CUDNN = 9


class ProviderError(ModelError):
    """A provider that does not start on this machine, whatever the model."""


@dataclass(frozen=True)
class Facts:
    """What decides whether a provider can start.

    version: of ONNX Runtime.   available: names of the providers that it was built with, in its own words.
    cuda: version that it was built for, "" if unknown.   tensorrt: major version that it was built for, 0 if unknown.
    driver: version of NVIDIA's driver, "" if unknown.   serves: newest CUDA of that driver, "" without one.
    gpu: the GPU, None without one.   missing: a library that is not found, "" for none.
    """

    version: str
    available: tuple[str, ...]
    cuda: str = ""
    tensorrt: int = 0
    driver: str = ""
    serves: str = ""
    gpu: Gpu | None = None
    missing: str = ""


def inspect_provider(runtime: Any, name: str) -> Facts:
    """Collect the facts; libraries that came along as wheels are loaded, since they are found only so.

    Args:
        runtime: the module onnxruntime.   name: cuda | tensorrt.
    """
    available = tuple(runtime.get_available_providers())
    folder = Path(runtime.__file__).parent / "capi"
    if hasattr(runtime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # It prints what it misses; `why_unavailable` says it better.
            runtime.preload_dlls()
    if name == "tensorrt":
        preload_tensorrt()
    return Facts(
        version=runtime.__version__,
        available=available,
        cuda=getattr(runtime, "cuda_version", None) or "",
        tensorrt=tensorrt_needed(folder),
        driver=driver_version(),
        serves=driver_cuda(),
        gpu=inspect_gpu(),
        missing=missing_library(folder) or (missing_library(folder, name) if name == "tensorrt" else ""),
    )


def why_unavailable(name: str, facts: Facts) -> str:
    """Why cuda or tensorrt cannot start, and what to do; "" where no reason is known."""
    runtime, needed = f"ONNX Runtime {facts.version}", int(facts.cuda.split(".")[0] or 0)
    if PROVIDERS[name] not in facts.available:
        kind = "is a build without TensorRT" if PROVIDERS["cuda"] in facts.available else "is the build for CPUs"
        advice = f"put onnxruntime-gpu in its place (deploy/provider.sh VENV {name}), or ask for provider cpu"
        return f"the installed {runtime} {kind}; {advice}"
    if not facts.serves:
        return (
            "libcuda.so.1, which comes with NVIDIA's driver, is not found; install the driver, or start the container "
            "with --gpus all"
        )
    if int(facts.serves.split(".")[0]) < needed:
        older = f"use onnxruntime-gpu {LAST_FOR_CUDA_12} (deploy/provider.sh VENV cuda12) or " if needed == 13 else ""
        newer = f"driver {_DRIVERS[needed]} or newer" if needed in _DRIVERS else "a newer driver"
        driver = f"driver {facts.driver}" if facts.driver else "the driver"
        return f"{driver} serves CUDA up to {facts.serves}, but {runtime} needs CUDA {needed}: {older}{newer}"
    if facts.gpu is None:
        return "NVIDIA's driver is there, but sees no GPU; mind CUDA_VISIBLE_DEVICES, and --gpus all for a container"
    if facts.missing:
        needs = [f"CUDA {needed}"] * bool(needed) + [f"cuDNN {_CUDNN}"]
        needs += [f"TensorRT {facts.tensorrt}"] * (name == "tensorrt" and bool(facts.tensorrt))
        advice = f"install them as wheels (deploy/provider.sh VENV {name}) or on the system"
        return f"{facts.missing} is not found ({runtime} needs {', '.join(needs)}); {advice}"
    return ""
