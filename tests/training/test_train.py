# SPDX-License-Identifier: Apache-2.0
"""The training command: learns, resumes exactly, and says what is wrong with a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from instance_flow_training.checkpoint import load_checkpoint
from instance_flow_training.config import ConfigError, TrainConfig, load_config
from instance_flow_training.train import learning_rate, main, train

TINY = (Path(__file__).parents[1] / "tiny.toml").read_text()


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


class Killed(BaseException):
    """Stands for a kill in the middle of a run."""


def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(config_file, [])
    whole = load_checkpoint(train(config, tmp_path / "whole"))
    steps = 0
    step = torch.optim.Adam.step

    def killed_in_the_fourth(*arguments: object, **options: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Killed
        return step(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", killed_in_the_fourth)
        with pytest.raises(Killed):
            train(config, tmp_path / "killed")
    assert load_checkpoint(tmp_path / "killed" / "checkpoint.pt")["step"] == 2
    resumed = load_checkpoint(train(config, tmp_path / "killed"))
    assert resumed["step"] == whole["step"] == 4
    for name, tensor in whole["network"].items():
        assert torch.equal(tensor, resumed["network"][name]), name


def test_loss_falls_on_one_repeated_batch(config_file: Path) -> None:
    from instance_flow_training.datasets import WorldClips, collate
    from instance_flow_training.train import build_network, forward_losses

    config = load_config(config_file, [])
    network = build_network(config)
    data = WorldClips(5, 2, ((64, 96),), frames=2, batch=2)
    images, targets = collate([data[0], data[1]])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        total = forward_losses(network, images, targets, config)["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.5 * totals[0]


def test_learning_rate_follows_the_paper() -> None:
    config = TrainConfig(steps=1000, warmup=10)
    assert learning_rate(config, 0) == pytest.approx(1e-4, rel=1e-3)
    assert learning_rate(config, 500) == pytest.approx(1e-3 * 0.5**0.9)
    assert learning_rate(config, 999) == pytest.approx(1e-3 * 0.001**0.9)


BAD_CONFIGS = {
    "unknown key": ("stepz = 3", [], "unknown key 'stepz'; valid keys here are name, seed, steps"),
    "unknown key in a table": (
        "[model]\nbackbon = 'x'",
        [],
        "unknown key 'model.backbon'; valid keys here",
    ),
    "wrong type": ("steps = 'many'", [], "steps is 'many'; it must be of type int"),
    "value for a table": ("model = 3", [], "must be a table"),
    "not TOML": ("steps = = 3", [], "not valid TOML"),
    "override without a value": ("", ["steps"], "not of the form section.key=value"),
    "override of an unknown key": ("", ["loss.centre=3"], "unknown key 'loss.centre'"),
}


@pytest.mark.parametrize(("text", "overrides", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configuration(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert message in str(caught.value)


def test_overrides_reach_nested_settings(config_file: Path) -> None:
    config = load_config(config_file, ["data.sizes=[[32,64]]", "learning_rate=1", "model.backbone=resnet50"])
    assert (config.data.sizes, config.learning_rate, config.model.backbone) == (((32, 64),), 1.0, "resnet50")


COMMAND_ERRORS = {
    "no such config": (["nowhere.toml"], "nowhere.toml"),
    "no such weights": (["{config}", "--set", "model.backbone_weights=none.safetensors"], "no file none.safetensors"),
}


@pytest.mark.parametrize(("arguments", "message"), COMMAND_ERRORS.values(), ids=COMMAND_ERRORS)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, config_file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [a.format(config=config_file) for a in arguments]
    assert main([*filled, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("instance-flow-train: error: ")
    assert message in error
    assert error.count("\n") == 1
