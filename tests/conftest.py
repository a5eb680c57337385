# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))  # for what several folders of tests share
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="session")
def bundled_model() -> Path:
    """The model of synthetic worlds, whose truth tests know; it is not the default one."""
    return REPOSITORY / "models" / "instance-flow-worlds.onnx"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference cases and real video beside the checkout; skips where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared folder on this machine")
    return folder
