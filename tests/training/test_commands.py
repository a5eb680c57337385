# SPDX-License-Identifier: Apache-2.0
"""The commands: each is there, and where a package is missing it says how to install it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from instance_flow.structures import MatchCosts, ModelError
from instance_flow_training.comparing.calibration import write_costs
from instance_flow_training.network.detector import YoloxNano
from instance_flow_training.own_labels import finish
from instance_flow_training.weights.yolox import take_yolox

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


NEEDS_ONNX = {
    "calibrating": partial(write_costs, Path("model.onnx"), Path("out.onnx"), MatchCosts()),
    "init.yolox": lambda: take_yolox(YoloxNano(1), Path("yolox.onnx"), ["person"]),
}


@pytest.mark.parametrize("call", NEEDS_ONNX.values(), ids=NEEDS_ONNX)
def test_where_onnx_is_missing_its_package_is_named(call: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ModelError, match="needs the Python package onnx, which is not installed; run `pip install onnx`"
    ):
        call()


def test_a_training_without_the_export_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "instance_flow_export.export", None)
    text = finish(tmp_path, (256, 448))
    assert "run `pip install . ./training ./export` in instance-flow's checkout" in text
    assert text.endswith(f"then `instance-flow-export {tmp_path}`")
