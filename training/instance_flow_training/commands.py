# SPDX-License-Identifier: Apache-2.0
"""The commands' entries: where a package is missing they say how to install it. They import nothing before."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

# From the checkout: the distributions are on no index yet.
TRAINING = "pip install . ./training"
EXPORT = f"{TRAINING} ./export"


def train(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-train``."""
    return run_command("instance_flow_training.train", TRAINING, arguments)


def data(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-data``."""
    return run_command("instance_flow_training.data.cli", TRAINING, arguments)


def world(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-world``."""
    return run_command("instance_flow_training.worlds.cli", TRAINING, arguments)


def validate(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-validate``."""
    return run_command("instance_flow_training.comparing.cli", TRAINING, arguments)


def val(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow val``."""
    return run_command("instance_flow_training.comparing.val", TRAINING, arguments)


def ablate(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-ablate``."""
    return run_command("instance_flow_training.ablating.ablations", TRAINING, arguments)


def run_command(module: str, install: str, arguments: Sequence[str] | None) -> int:
    """Run a module's ``main``; gives its exit code, or 2 where a package that ``install`` brings is missing."""
    try:
        code: int = importlib.import_module(module).main(arguments)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("instance_flow"):
            raise
        print(
            f"{Path(sys.argv[0]).name}: error: needs the Python package {error.name.partition('.')[0]}, which is not "
            f"installed; run `{install}` in instance-flow's checkout",
            file=sys.stderr,
        )
        return 2
    return code
