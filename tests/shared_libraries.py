# SPDX-License-Identifier: Apache-2.0
"""Shared libraries made for a test: they stand for NVIDIA's where there are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def build_library(path: Path, source: str = "", *options: str) -> None:
    """Compile a shared library of C functions."""
    path.with_suffix(".cpp").write_text(f'extern "C" {{ {source} }}')
    files = [str(path.with_suffix(".cpp")), "-o", str(path)]
    subprocess.run(["c++", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", *files, *options], check=True)


def build_driver(folder: Path, cuda: int, gpus: int = 1) -> None:
    """A libcuda.so.1 of a driver that serves ``cuda``, such as 12040, with an Orin."""
    build_library(
        folder / "libcuda.so.1",
        f"""
        int cuDriverGetVersion(int *v) {{ *v = {cuda}; return 0; }}
        int cuInit(unsigned) {{ return {0 if gpus else 100}; }}
        int cuDeviceGet(int *device, int number) {{ *device = 7; return number; }}
        int cuDeviceGetName(char *name, int length, int device) {{
            const char *text = "Orin"; for (int i = 0; i < 5; i++) name[i] = text[i]; return device - 7;
        }}
        int cuDeviceGetAttribute(int *value, int attribute, int) {{ *value = attribute == 75 ? 8 : 7; return 0; }}
        """,
    )


def run_python(code: str, libraries: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose loader looks into a folder first."""
    path = os.pathsep.join(filter(None, [str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]))
    environment = {**os.environ, "LD_LIBRARY_PATH": path}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
