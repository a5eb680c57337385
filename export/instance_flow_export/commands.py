# SPDX-License-Identifier: Apache-2.0
"""As ``instance_flow_training.commands``, for the commands of this package."""

from __future__ import annotations

from instance_flow_training.commands import run_command


def export() -> int:
    """``instance-flow-export``."""
    return run_command("instance_flow_export.export", "export")


def quantise() -> int:
    """``instance-flow-quantise``."""
    return run_command("instance_flow_export.quantise", "export")
