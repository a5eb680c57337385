# SPDX-License-Identifier: Apache-2.0
"""The commands' entries: without the packages of an extra they say which to install. They import nothing before."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path


def train(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-train``."""
    return run_command("instance_flow_training.train", "train", arguments)


def data(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-data``."""
    return run_command("instance_flow_training.data.cli", "train", arguments)


def world(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-world``."""
    return run_command("instance_flow_training.worlds.cli", "train", arguments)


def validate(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-validate``."""
    return run_command("instance_flow_training.comparing.cli", "train", arguments)


def val(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow val``."""
    return run_command("instance_flow_training.comparing.val", "train", arguments)


def ablate(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-ablate``."""
    return run_command("instance_flow_training.ablating.ablations", "train", arguments)


def run_command(module: str, extra: str, arguments: Sequence[str] | None) -> int:
    """Run a module's ``main``; gives its exit code, or 2 where a package that ``extra`` brings is missing."""
    try:
        code: int = importlib.import_module(module).main(arguments)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("instance_flow"):
            raise
        print(
            f"{Path(sys.argv[0]).name}: error: needs the Python package {error.name.partition('.')[0]}, which is not "
            f"installed; get it by pip install '.[{extra}]' in instance-flow's folder",
            file=sys.stderr,
        )
        return 2
    return code
