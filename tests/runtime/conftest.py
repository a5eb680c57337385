# SPDX-License-Identifier: Apache-2.0
"""A model that the runtime's tests run as users do."""

from __future__ import annotations

from pathlib import Path

import pytest
from red_thing import red_network


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of ``red_thing``."""
    path = tmp_path_factory.mktemp("model") / "red.onnx"
    path.write_bytes(red_network())
    return path
