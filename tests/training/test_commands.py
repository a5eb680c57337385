# SPDX-License-Identifier: Apache-2.0
"""The commands: each is there, and where a package is missing it says how to install it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
TRAINING, EXPORT = (
    tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"] for name in ("training", "export")
)
SCRIPTS = {**TRAINING["scripts"], **EXPORT["scripts"]}


def test_every_command_is_there() -> None:
    for entry in SCRIPTS.values():
        module, _, name = entry.partition(":")
        assert callable(getattr(import_module(module), name))


def run_without(entry: str, argument: str, *packages: str) -> subprocess.CompletedProcess[str]:
    module, _, name = entry.partition(":")
    blocked = "".join(f"sys.modules[{package!r}] = None; " for package in packages)
    program = (
        f"import sys; sys.argv = ['a/command', {argument!r}]; {blocked}from {module} import {name}; sys.exit({name}())"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


MISSING = {
    "instance-flow-train": ("torch", ". ./training"),
    "instance-flow-ablate": ("torch", ". ./training"),
    "instance-flow-export": ("onnx", ". ./training ./export"),
    "instance-flow-quantise": ("onnx", ". ./training ./export"),
}


@pytest.mark.parametrize(("command", "missing"), MISSING.items(), ids=MISSING)
def test_without_its_packages_a_command_says_which(command: str, missing: tuple[str, str]) -> None:
    packages = "torch", "onnx", "onnxscript", "tensorboard", "safetensors"
    # Its --help needs none of them.
    argument = "a.toml" if command == "instance-flow-train" else "--help"
    result = run_without(SCRIPTS[command], argument, *packages)
    package, folders = missing
    assert result.stderr.startswith(f"command: error: needs the Python package {package}, which is not installed")
    assert f"; run `pip install {folders}` in instance-flow's checkout" in result.stderr
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", ["instance-flow-world", "instance-flow-validate"])
def test_what_needs_no_torch_runs_without(command: str) -> None:
    """Worlds and validation are for a robot's install, too."""
    result = run_without(SCRIPTS[command], "--help", "torch", "onnx", "PIL", "safetensors")
    assert (result.returncode, result.stderr) == (0, "")


def test_what_the_configuration_needs_comes_along() -> None:
    """Exporting reads a checkpoint's configuration; before 3.11 Python has no TOML of its own."""
    assert any(name.startswith("tomli>=") for name in TRAINING["dependencies"])
    assert any(name.startswith("instance-flow-training==") for name in EXPORT["dependencies"])
