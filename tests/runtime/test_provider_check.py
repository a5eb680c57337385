# SPDX-License-Identifier: Apache-2.0
"""A provider that cannot start says in one sentence what is missing, what was found and what is expected."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from shared_libraries import build_driver, run_python

from instance_flow.network.gpu.nvidia import Gpu
from instance_flow.network.gpu.provider_check import PROVIDERS, Facts, why_unavailable

FOR_CPU = Facts("1.31.1", (PROVIDERS["cpu"],))
SOUND = Facts("1.31.1", tuple(PROVIDERS.values()), "13.0", 10, "580.65", "13.0", Gpu("NVIDIA H100", "9.0"))

REASONS: dict[str, tuple[str, Facts, str]] = {
    "nothing": ("cuda", SOUND, "^$"),
    "nothing, TensorRT": ("tensorrt", SOUND, "^$"),
    "build for CPUs": ("cuda", FOR_CPU, "1.31.1 is the build for CPUs; put onnxruntime-gpu in its place"),
    "build without TensorRT": (
        "tensorrt",
        replace(SOUND, available=(PROVIDERS["cuda"], PROVIDERS["cpu"])),
        "is a build without TensorRT",
    ),
    "no driver": ("cuda", replace(SOUND, serves="", gpu=None), "^libcuda.so.1, .* is not found; .*--gpus all$"),
    "driver too old for CUDA 13": (
        "cuda",
        replace(SOUND, driver="550.54", serves="12.4"),
        r"^driver 550.54 serves CUDA up to 12.4, but ONNX Runtime 1.31.1 needs CUDA 13: use onnxruntime-gpu 1.26.0 "
        r"\(.*cuda12\) or driver 580 or newer$",
    ),
    "driver too old for CUDA 12": (
        "cuda",
        replace(SOUND, version="1.26.0", cuda="12.8", driver="", serves="11.4"),
        "^the driver serves CUDA up to 11.4, but ONNX Runtime 1.26.0 needs CUDA 12: driver 525 or newer$",
    ),
    "no GPU": ("cuda", replace(SOUND, gpu=None), "sees no GPU; mind CUDA_VISIBLE_DEVICES"),
    "library missing": (
        "cuda",
        replace(SOUND, missing="libcudnn.so.9"),
        r"^libcudnn.so.9 is not found \(ONNX Runtime 1.31.1 needs CUDA 13, cuDNN 9\); .*provider.sh VENV cuda\)",
    ),
    "TensorRT missing": (
        "tensorrt",
        replace(SOUND, missing="libnvinfer.so.10"),
        r"^libnvinfer.so.10 is not found \(ONNX Runtime 1.31.1 needs CUDA 13, cuDNN 9, TensorRT 10\); .* tensorrt\)",
    ),
    "CUDA of the build unknown": ("cuda", replace(SOUND, cuda="", serves="12.2"), "^$"),
}


@pytest.mark.parametrize(("name", "facts", "words"), REASONS.values(), ids=REASONS)
def test_reason(name: str, facts: Facts, words: str) -> None:
    reason = why_unavailable(name, facts)
    assert re.search(words, reason), reason
    assert "\n" not in reason


GPU_BUILD = PROVIDERS["cuda"] in onnxruntime.get_available_providers()
DRIVERS: dict[str, tuple[int, int, str]] = {
    "too old": (12040, 1, "serves CUDA up to 12.4, but ONNX Runtime"),
    "without a GPU": (99000, 0, "sees no GPU"),
    "without CUDA": (99000, 1, r"is not found \(ONNX Runtime"),
}


@pytest.mark.skipif(not GPU_BUILD, reason="onnxruntime-gpu is not installed")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.parametrize(("cuda", "gpus", "words"), DRIVERS.values(), ids=DRIVERS)
def test_command_says_it_in_one_line(
    provider: str, cuda: int, gpus: int, words: str, tmp_path: Path, bundled_model: Path
) -> None:
    build_driver(tmp_path, cuda, gpus)
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((96, 128, 3), np.uint8))
    arguments = ["run", str(picture), "--provider", provider, "--model", str(bundled_model)]
    output = run_python(f"from instance_flow.commands.cli import main; raise SystemExit(main({arguments!r}))", tmp_path)
    assert output.returncode == 2
    assert output.stderr.count("\n") == 1
    assert re.search(words, output.stderr), output.stderr
