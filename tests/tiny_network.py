# SPDX-License-Identifier: Apache-2.0
"""The small network that is exported, halved, quantised and timed: trained and traced once for all tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx
import torch

from instance_flow_export.export import export_graph
from instance_flow_training.config import DataConfig, TrainConfig, load_config
from instance_flow_training.datasets import WorldClips, collate
from instance_flow_training.loop.step import forward_losses
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.weights.initialise import build_network

SIZE = (64, 96)


@cache
def trained_network() -> InstanceFlowNet:
    """Trained for a moment: a fresh network says hardly anything, and rounding alone would decide its tracks."""
    tiny = load_config(Path(__file__).parent / "tiny.toml", []).model
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


@cache
def exported_graph() -> onnx.ModelProto:
    """Its graph for any size, for every test to copy, as tracing takes half a minute however small a network is."""
    return export_graph(trained_network(), SIZE, dynamic=True)
