# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at what runs the network: the model, ONNX Runtime, its execution providers, NVIDIA's libraries.

As in doctor.machine: `inspect_...` collects facts, `judge_...` makes findings of them and touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding
from instance_flow.network.execution import PROVIDERS
from instance_flow.network.gpu.nvidia import Nvidia, missing_library
from instance_flow.network.installation import bundled_model_path, providers, versions
from instance_flow.network.onnx import OnnxNetwork
from instance_flow.structures import ModelError, ModelInfo

WORKS = "works"

_CPU_PACKAGE, _GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime. packages: versions of the distributions that are installed, by name.

    available: names of the providers that it was built with.   results: by our names of providers, WORKS or a reason.
    missing: the library that its CUDA provider does not find, "" for none.
    """

    packages: dict[str, str]
    available: tuple[str, ...]
    results: dict[str, str]
    missing: str


def inspect_model(path: Path | None) -> tuple[Path | None, ModelInfo | str]:
    """Load a model, the bundled one unless given: its file and what it says of itself, or why it does not load."""
    try:
        path = path or bundled_model_path()
        return path, OnnxNetwork(path, "cpu").info
    except ModelError as error:
        return path, str(error)


def judge_model(path: Path | None, info: ModelInfo | str) -> list[Finding]:
    """Nothing works without one."""
    if isinstance(info, str):
        advice = "Name a model with `instance-flow doctor MODEL`, or install instance-flow again for the bundled one."
        return [Finding(PROBLEM, "model", info, advice)]
    height, width = info.input_size
    return [Finding(OK, "model", f"{info.name}, {width} x {height} pixels, {len(info.class_names)} classes ({path})")]


def inspect_runtime(model: Path) -> Runtime:
    """Start a model on each provider."""
    import onnxruntime  # here, as the model that loaded proves that it is there

    installed = versions()
    packages = {name: installed[name] for name in (_CPU_PACKAGE, _GPU_PACKAGE) if installed[name] != "not installed"}
    results = providers(model)
    folder = Path(onnxruntime.__file__).parent / "capi"
    return Runtime(packages, tuple(onnxruntime.get_available_providers()), results, missing_library(folder))


def judge_runtime(runtime: Runtime, nvidia: Nvidia) -> list[Finding]:
    """The packages, and a finding for each provider."""
    findings = []
    if len(runtime.packages) > 1:
        found = " and ".join(f"{name} {version}" for name, version in runtime.packages.items())
        keep = _GPU_PACKAGE if nvidia.driver else _CPU_PACKAGE
        advice = f"Run `pip uninstall -y {' '.join(runtime.packages)}`, then `pip install {keep}`."
        findings.append(Finding(PROBLEM, "ONNX Runtime", f"{found} overwrite each other's files", advice))
    else:
        named = [f"{name} {version}" for name, version in runtime.packages.items()]
        findings.append(Finding(OK, "ONNX Runtime", " ".join(named) or "not from pip"))
    findings += [_judge_provider(name, runtime, nvidia) for name in PROVIDERS]
    return findings


def _judge_provider(name: str, runtime: Runtime, nvidia: Nvidia) -> Finding:
    check, result = f"provider {name}", runtime.results[name]
    if result == WORKS:
        return Finding(OK, check, WORKS)
    if name == "cpu":
        return Finding(PROBLEM, check, result, "Install onnxruntime again.")
    if name == "tensorrt":
        return Finding(OK, check, "not used: TensorRT is not installed, and not needed")
    if PROVIDERS[name] not in runtime.available:
        if not nvidia.usable:
            return Finding(OK, check, "not used: there is no NVIDIA GPU to use")
        found = "there is an NVIDIA GPU, but this ONNX Runtime was built without CUDA: the network runs on the CPU"
        advice = f"Run `pip uninstall -y {_CPU_PACKAGE}`, then `pip install {_GPU_PACKAGE}`; on a Jetson, JetPack's."
        return Finding(WARNING, check, found, advice)
    if not nvidia.usable:
        return Finding(OK, check, "not used: ONNX Runtime was built with CUDA, but there is no NVIDIA GPU to use")
    reason = f"{runtime.missing} is not found" if runtime.missing else result
    advice = f"Install what it asks for: `pip install '{_GPU_PACKAGE}[cuda,cudnn]'`, or CUDA and cuDNN on the system."
    return Finding(PROBLEM, check, f"does not start, the network runs on the CPU: {reason}", advice)


def judge_nvidia(nvidia: Nvidia) -> list[Finding]:
    """What there is of the GPU's software."""
    check = "NVIDIA"
    if not nvidia.driver and not nvidia.device:
        return [Finding(OK, check, "no GPU and no driver: the network runs on the CPU")]
    if not nvidia.usable:
        what = "libcuda.so.1 is not found" if nvidia.device else "no GPU can be seen in here"
        advice = "Start a container with --gpus all (NVIDIA Container Toolkit); else install the driver again."
        return [Finding(WARNING, check, f"driver {nvidia.driver or 'there'}, but {what}", advice)]
    driver = f"driver {nvidia.driver}" if nvidia.driver else "driver"
    libraries = f"CUDA runtime {nvidia.runtime or 'not found'}, cuDNN {nvidia.cudnn or 'not found'}"
    found = f"{driver} for CUDA up to {nvidia.cuda}; {libraries}"
    if nvidia.runtime and _as_numbers(nvidia.runtime)[0] > _as_numbers(nvidia.cuda)[0]:
        advice = "Install a newer driver, or the CUDA that the driver serves."
        return [Finding(PROBLEM, check, f"{found}: the runtime is too new for the driver", advice)]
    return [Finding(OK, check, found)]


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
