# SPDX-License-Identifier: Apache-2.0
"""The robot's install stays small: the runtime imports with torch, rclpy, rosbags and onnx out of reach."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
for name in ("torch", "rclpy", "onnx", "rosbags", "pycocotools", "instance_flow_training"):
    sys.modules[name] = None
import instance_flow
modules = [module.name for module in pkgutil.walk_packages(instance_flow.__path__, "instance_flow.")]
for module in modules:
    importlib.import_module(module)
print("imported", len(modules))
"""


def test_runtime_imports_without_torch_and_ros() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[1]) >= 90
