# SPDX-License-Identifier: Apache-2.0
"""What there is of a GPU's software: NVIDIA's libraries are asked, here those that stand for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_libraries import build_driver, build_library, run_python

from instance_flow.network.gpu.nvidia import Gpu, Nvidia, inspect_nvidia, missing_library, tensorrt_needed

NONE = Nvidia("", False, "", "", "")


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19", "535.129.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54  Release Build", "550.54"),
    ],
    ids=["closed", "open"],
)
def test_driver_in_a_container_without_the_device(line: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(line)
    nvidia = inspect_nvidia(tmp_path / "version", tmp_path)
    assert (nvidia.driver, nvidia.usable) == (version, False)
    assert inspect_nvidia(tmp_path / "none", tmp_path) == NONE


def test_versions_of_libraries_are_asked_of_those_that_the_loader_finds(tmp_path: Path) -> None:
    build_library(tmp_path / "libcuda.so.1", "int cuDriverGetVersion(int *v) { *v = 12040; return 0; }")
    build_library(tmp_path / "libcudart.so.12", "int cudaRuntimeGetVersion(int *v) { *v = 12020; return 0; }")
    build_library(tmp_path / "libcudnn.so.9", "unsigned long cudnnGetVersion() { return 90501; }")
    (tmp_path / "nvidia0").touch()
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19")
    code = (
        "from pathlib import Path; from instance_flow.network.gpu.nvidia import inspect_nvidia; "
        f"print(inspect_nvidia(Path({str(tmp_path / 'version')!r}), Path({str(tmp_path)!r})))"
    )
    assert run_python(code, tmp_path).stdout.strip() == repr(Nvidia("535.129.03", True, "12.4", "12.2", "9.5.1"))


@pytest.mark.parametrize(("number", "version"), [(101303, "10.13.3"), (8601, "8.6.1")], ids=["10", "8"])
def test_version_of_tensorrt(number: int, version: str, tmp_path: Path) -> None:
    build_library(tmp_path / "libnvinfer.so.10", f"int getInferLibVersion() {{ return {number}; }}")
    code = "from instance_flow.network.gpu.nvidia import tensorrt_version; print(tensorrt_version())"
    assert run_python(code, tmp_path).stdout.strip() == version


@pytest.mark.parametrize(("gpus", "found"), [(1, Gpu("Orin", "8.7")), (0, None)], ids=["GPU", "none"])
def test_driver_is_asked_for_the_gpu(gpus: int, found: Gpu | None, tmp_path: Path) -> None:
    build_driver(tmp_path, 12040, gpus)
    code = "from instance_flow.network.gpu.nvidia import driver_cuda, inspect_gpu; print(driver_cuda(), inspect_gpu())"
    assert run_python(code, tmp_path).stdout.strip() == f"12.4 {found}"


def test_library_that_a_provider_misses_is_named(tmp_path: Path) -> None:
    assert missing_library(tmp_path) == ""
    build_library(tmp_path / "libonnxruntime_providers_shared.so")
    build_library(tmp_path / "libneeded.so.9", "int needed() { return 0; }")
    needs = ["-Wl,--no-as-needed", str(tmp_path / "libneeded.so.9")]
    build_library(tmp_path / "libonnxruntime_providers_cuda.so", "", *needs)
    (tmp_path / "libneeded.so.9").unlink()
    assert missing_library(tmp_path) == "libneeded.so.9"
    assert missing_library(tmp_path, "tensorrt") == ""


@pytest.mark.parametrize(("there", "missing"), [(True, ""), (False, "libcudnn.so.9")], ids=["there", "missing"])
def test_cudnn_is_missed_though_the_provider_is_not_linked_with_it(there: bool, missing: str, tmp_path: Path) -> None:
    build_library(tmp_path / "libonnxruntime_providers_shared.so")
    build_library(tmp_path / "libonnxruntime_providers_cuda.so")
    code = f"from pathlib import Path; from instance_flow.network.gpu import nvidia; folder = Path({str(tmp_path)!r}); "
    if there:
        build_library(tmp_path / "libcudnn.so.9")
    output = run_python(code + "print(nvidia.missing_library(folder))", tmp_path)
    assert output.stdout.strip() == missing, output.stderr


def test_tensorrt_that_a_build_needs_is_read_from_its_library(tmp_path: Path) -> None:
    assert tensorrt_needed(tmp_path) == 0
    (tmp_path / "libonnxruntime_providers_tensorrt.so").write_bytes(b"\0libcudart.so.13\0libnvinfer.so.10\0")
    assert tensorrt_needed(tmp_path) == 10
