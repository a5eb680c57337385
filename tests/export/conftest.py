# SPDX-License-Identifier: Apache-2.0
"""The small network that is exported, halved and quantised."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from instance_flow_export.export import export_graph
from instance_flow_training.config import DataConfig, TrainConfig, load_config
from instance_flow_training.datasets import WorldClips, collate
from instance_flow_training.loop.step import forward_losses
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.weights.initialise import build_network

SIZE = (64, 96)


@pytest.fixture(scope="session")
def trained() -> InstanceFlowNet:
    """Trained for a moment: a fresh network says hardly anything, and rounding alone would decide its tracks."""
    tiny = load_config(Path(__file__).parents[1] / "tiny.toml", []).model
    config = TrainConfig(model=tiny, data=DataConfig(sizes=(SIZE,), frames_per_clip=2))
    network = build_network(config)
    data = WorldClips(5, 2, (SIZE,), frames=2, batch=2)
    images, targets = collate([data[0], data[1]])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        forward_losses(network, images, targets, config)["total"].backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="session")
def exported(trained: InstanceFlowNet) -> onnx.ModelProto:
    """For every test to copy, as tracing takes half a minute however small a network is."""
    return export_graph(trained, SIZE, dynamic=True)
