# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at what runs the network: the model, ONNX Runtime, its execution providers, NVIDIA's libraries.

As in doctor.machine: `look_at_...` collects facts, `judge_...` makes findings of them and touches nothing.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding
from instance_flow.installation import bundled_model_path, providers, versions
from instance_flow.network import PROVIDERS, OnnxNetwork
from instance_flow.structures import ModelError, ModelInfo

WORKS = "works"

_CPU_PACKAGE, _GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"
_NOT_FOUND = re.compile(r"(lib\S+\.so\S*): cannot open shared object file")

# Sonames from the newest to the oldest that ONNX Runtime was ever built for.
_CUDA_RUNTIME = {13: "libcudart.so.13", 12: "libcudart.so.12", 11: "libcudart.so.11.0"}
_CUDNN = ("libcudnn.so.9", "libcudnn.so.8")


@dataclass(frozen=True)
class Nvidia:
    """driver: version of the kernel module, "" without one.   device: whether this process sees a GPU.

    cuda: newest CUDA that the driver can serve, "" where libcuda.so.1 is not found.
    runtime, cudnn: versions of the libraries that the loader finds, "" = none.
    """

    driver: str
    device: bool
    cuda: str
    runtime: str
    cudnn: str

    @property
    def usable(self) -> bool:
        """Whether a program could use a GPU."""
        return self.device and bool(self.cuda)


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


def look_at_model(path: Path | None) -> tuple[Path | None, ModelInfo | str]:
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


def look_at_runtime(model: Path) -> Runtime:
    """Start a model on each provider."""
    import onnxruntime  # here, as the model that loaded proves that it is there

    installed = versions()
    packages = {name: installed[name] for name in (_CPU_PACKAGE, _GPU_PACKAGE) if installed[name] != "not installed"}
    results = providers(model)
    folder = Path(onnxruntime.__file__).parent / "capi"
    return Runtime(packages, tuple(onnxruntime.get_available_providers()), results, missing_library(folder))


def missing_library(folder: Path) -> str:
    """The first library that the CUDA provider needs and the loader does not find; "" for none, or no such provider."""
    provider = folder / "libonnxruntime_providers_cuda.so"
    if not provider.is_file():
        return ""
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(provider))
    except OSError as error:
        found = _NOT_FOUND.match(str(error))
        return found.group(1) if found else ""
    return ""


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


def look_at_nvidia(proc: Path = Path("/proc/driver/nvidia/version"), dev: Path = Path("/dev")) -> Nvidia:
    """Read versions where that wakes no GPU: the libraries are loaded, and only asked for their numbers."""
    driver, device = _driver_version(proc), any(dev.glob("nvidia[0-9]*")) or (dev / "nvhost-ctrl-gpu").exists()
    if not driver and not device:
        return Nvidia("", False, "", "", "")
    cuda = _number(("libcuda.so.1",), "cuDriverGetVersion")
    # Several versions may lie side by side; one that the driver can serve says more than one that it cannot.
    served = [name for major, name in _CUDA_RUNTIME.items() if major <= cuda // 1000]
    runtime = _number((*served, *_CUDA_RUNTIME.values()), "cudaRuntimeGetVersion")
    return Nvidia(driver, device, _cuda_version(cuda), _cuda_version(runtime), _cudnn_version())


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


def _driver_version(proc: Path) -> str:
    try:
        text = proc.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found.group() if found else "of an unknown version"


def _number(names: Sequence[str], function: str) -> int:
    """Call the function that writes a version to an int*, of the first library that loads; 0 where none does."""
    library = _load(names)
    if library is None:
        return 0
    number = ctypes.c_int()
    failed = getattr(library, function)(ctypes.byref(number))
    return 0 if failed else number.value


def _load(names: Sequence[str]) -> Any:
    for name in names:
        with suppress(OSError):
            return ctypes.CDLL(name)
    return None


def _cuda_version(number: int) -> str:
    """12040 is 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


def _cudnn_version() -> str:
    """90100 is 9.1.0; up to version 8 it was 8904 for 8.9.4."""
    library = _load(_CUDNN)
    if library is None:
        return ""
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number = int(library.cudnnGetVersion())
    big = 10_000 if number >= 90_000 else 1000
    return f"{number // big}.{number % big // 100}.{number % 100}"


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
