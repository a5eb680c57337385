# SPDX-License-Identifier: Apache-2.0
"""Baselines of the network: torch and ONNX Runtime are timed with the same weights, and say the same."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from baselines.networks import (
    SameWeights,
    check_equal,
    compiled_network,
    engine_rows,
    features_of,
    frames,
    random_network,
    reference_rows,
    small_network,
    with_references,
    write_both,
)
from performance import RATIOS
from performance_check import baseline_ratios, read_stored
from tiny_network import SIZE, exported_graph, trained_network

from instance_flow.network.onnx import OnnxNetwork
from instance_flow_training.config import TrainConfig, load_config
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.validate import TorchNetwork
from instance_flow_training.weights.checkpoint import save_checkpoint

TINY = load_config(Path(__file__).parents[1] / "tiny.toml", []).model


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> SameWeights:
    graph = copy.deepcopy(exported_graph())
    return write_both("tiny", trained_network(), graph, SIZE, tmp_path_factory.mktemp("export"))


def test_both_say_the_same_of_a_frame_and_its_references(same: SameWeights) -> None:
    images = frames(SIZE)
    onnx = with_references(OnnxNetwork(same.path, "cpu"), images)()
    check_equal(onnx, with_references(TorchNetwork(same.network, same.info), images)())
    assert onnx.reference_offset.shape == (4, 2, 16, 24)


def test_other_weights_are_found_out(same: SameWeights) -> None:
    other = copy.deepcopy(same.network)
    with torch.no_grad():
        for weights in other.parameters():
            weights.mul_(1.5)
    images = frames(SIZE)
    onnx = with_references(OnnxNetwork(same.path, "cpu"), images)
    with pytest.raises(RuntimeError, match="semantic differs"):
        engine_rows(replace(same, network=other), 1, compiled=False)
    check_equal(onnx(), onnx())


def test_the_part_that_is_recomputed_makes_the_features_of_the_whole(same: SameWeights) -> None:
    image = frames(SIZE)[1]
    whole = OnnxNetwork(same.path, "cpu").predict(image, []).features.to_arrays()
    for ours, theirs in zip(whole, features_of(same)(image), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert same.features_path.stat().st_size < same.path.stat().st_size


def test_rows_have_the_names_that_are_stored(same: SameWeights) -> None:
    rows = {**engine_rows(same, 1, compiled=False), **reference_rows(same, 1)}
    assert len(rows) == 12
    assert {name.replace("tiny 96x64", "small 640x384") for name in baseline_ratios(rows)} <= set(read_stored(RATIOS))
    assert all(set(row) == {"ours", "theirs", "ratio"} and min(row.values()) > 0 for row in rows.values())


def test_compiling_takes_the_weights_and_the_threads_of_now() -> None:
    from torch._inductor import config

    before = config.freezing
    with compiled_network(random_network(TINY, 3)) as network:
        assert config.freezing
        assert config.cpp.threads == torch.get_num_threads()
        assert network.inter.cached_channels == TINY.key_channels + TINY.value_channels
    assert config.freezing == before


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (random_network(TINY, 3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_checkpoint_gives_its_own_weights(tmp_path: Path) -> None:
    network = InstanceFlowNet(TINY, 2)
    path = tmp_path / "checkpoint.pt"
    config = asdict(TrainConfig(model=TINY))
    save_checkpoint(path, {"step": 0, "network": network.state_dict(), "config": config, "class_names": ["cat", "dog"]})
    loaded = small_network(path)
    assert loaded.num_classes == 2
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())
