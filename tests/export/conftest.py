# SPDX-License-Identifier: Apache-2.0
"""The small network that is exported, halved and quantised; see tiny_network.py."""

from __future__ import annotations

import onnx
import pytest
from tiny_network import exported_graph, trained_network

from instance_flow_training.network.model import InstanceFlowNet


@pytest.fixture(scope="session")
def trained() -> InstanceFlowNet:
    return trained_network()


@pytest.fixture(scope="session")
def exported() -> onnx.ModelProto:
    return exported_graph()
