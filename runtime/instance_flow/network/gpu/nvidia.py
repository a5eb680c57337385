# SPDX-License-Identifier: Apache-2.0
"""Facts about an NVIDIA GPU and its software, read from the libraries themselves, without any Python package."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Sonames from the newest to the oldest that ONNX Runtime was ever built for.
_CUDA_RUNTIME = {13: "libcudart.so.13", 12: "libcudart.so.12", 11: "libcudart.so.11.0"}
_CUDNN = ("libcudnn.so.9", "libcudnn.so.8")
_TENSORRT = ("libnvinfer.so.10", "libnvinfer.so.8")

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NOT_FOUND = re.compile(r"(lib\S+\.so\S*): cannot open shared object file")


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
class Gpu:
    """The first GPU that this process may use. name: as NVIDIA calls it.   capability: such as 8.7."""

    name: str
    capability: str


def inspect_nvidia(proc: Path = Path("/proc/driver/nvidia/version"), dev: Path = Path("/dev")) -> Nvidia:
    """Read versions where that wakes no GPU: the libraries are loaded, and only asked for their numbers."""
    driver, device = driver_version(proc), any(dev.glob("nvidia[0-9]*")) or (dev / "nvhost-ctrl-gpu").exists()
    if not driver and not device:
        return Nvidia("", False, "", "", "")
    cuda = _number(("libcuda.so.1",), "cuDriverGetVersion")
    # Several versions may lie side by side; one that the driver can serve says more than one that it cannot.
    served = [name for major, name in _CUDA_RUNTIME.items() if major <= cuda // 1000]
    runtime = _number((*served, *_CUDA_RUNTIME.values()), "cudaRuntimeGetVersion")
    return Nvidia(driver, device, _cuda_version(cuda), _cuda_version(runtime), _cudnn_version())


def driver_version(proc: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Version of the kernel module; "" without one, or where it does not say it there."""
    try:
        text = proc.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found.group() if found else "of an unknown version"


def driver_cuda() -> str:
    """Newest CUDA that the driver can serve; "" where libcuda.so.1 is not found."""
    return _cuda_version(_number(("libcuda.so.1",), "cuDriverGetVersion"))


def inspect_gpu() -> Gpu | None:
    """Ask the driver for the GPU that ONNX Runtime will run on; None without one."""
    driver = _load(("libcuda.so.1",))
    device = ctypes.c_int()
    if driver is None or driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name = ctypes.create_string_buffer(256)
    if driver.cuDeviceGetName(name, len(name), device):
        return None
    numbers = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        number = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(str(number.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(numbers))


def tensorrt_version() -> str:
    """101303 is 10.13.3; up to version 8 it was 8601 for 8.6.1. "" where TensorRT is not found."""
    library = _load(_TENSORRT)
    return _digits(int(library.getInferLibVersion()), 10_000) if library is not None else ""


def tensorrt_needed(folder: Path) -> int:
    """Major version of TensorRT that ONNX Runtime, with its libraries in ``folder``, is linked with; 0 without one."""
    library = folder / "libonnxruntime_providers_tensorrt.so"
    found = re.search(rb"libnvinfer\.so\.(\d+)", library.read_bytes()) if library.is_file() else None
    return int(found[1]) if found else 0


def preload_tensorrt() -> None:
    """Load TensorRT where it came along as a wheel: the loader knows nothing of the folder that pip puts it into."""
    package = find_spec("tensorrt_libs")
    for folder in package.submodule_search_locations or () if package else ():
        # The parser stands on the first of them.
        for name in ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"):
            with suppress(OSError):
                ctypes.CDLL(str(Path(folder) / name), ctypes.RTLD_GLOBAL)


def missing_library(folder: Path, provider: str = "cuda") -> str:
    """The first library that a provider of ONNX Runtime needs and the loader does not find.

    Args:
        folder: where ONNX Runtime has its libraries.   provider: cuda | tensorrt.

    Returns:
        "" for none, and where there is no such provider.
    """
    library = folder / f"libonnxruntime_providers_{provider}.so"
    if not library.is_file():
        return ""
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        found = _NOT_FOUND.match(str(error))
        return found.group(1) if found else ""
    # Since 1.31 it is no longer linked, but looked for when the first convolution runs.
    return "" if _load(_CUDNN) is not None else _CUDNN[0]


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
    return _digits(int(library.cudnnGetVersion()), 90_000)


def _digits(number: int, new_style: int) -> str:
    """A version of three parts; NVIDIA's numbers from ``new_style`` on have two digits more for the first of them."""
    big = 10_000 if number >= new_style else 1000
    return f"{number // big}.{number % big // 100}.{number % 100}"
