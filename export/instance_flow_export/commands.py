# SPDX-License-Identifier: Apache-2.0
"""As ``instance_flow_training.commands``, for the commands of this package."""

from __future__ import annotations

from collections.abc import Sequence

from instance_flow_training.commands import EXPORT, run_command


def export(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-export``."""
    return run_command("instance_flow_export.export", EXPORT, arguments)


def quantise(arguments: Sequence[str] | None = None) -> int:
    """``instance-flow-quantise``."""
    return run_command("instance_flow_export.quantise", EXPORT, arguments)
