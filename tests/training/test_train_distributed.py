# SPDX-License-Identifier: Apache-2.0
"""Several processes, several passes, mixed precision: the same steps from the same samples."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from instance_flow_training.config import ConfigError, TrainConfig, load_config
from instance_flow_training.data.video_sets import read_video_set
from instance_flow_training.datasets import collate
from instance_flow_training.loop.distributed import SharesOfBatches, pick_device
from instance_flow_training.loop.step import forward_losses, update
from instance_flow_training.loop.training import train
from instance_flow_training.loop.training_run import open_run
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.weights.checkpoint import load_checkpoint, save_checkpoint, save_weights
from instance_flow_training.weights.initialise import build_network
from instance_flow_training.worlds.synthetic import CLASS_NAMES, WorldConfig, generate_clip
from instance_flow_training.worlds.world_files import write_ytvis

TINY = Path(__file__).parents[1] / "tiny.toml"

UNCLIPPED = "clip_gradient=1e9"
"""Clipping would hide a factor in the gradients."""

SPLITS = {
    "one process": (1, 1),
    "accumulating": (1, 4),
    "four processes": (4, 1),
    "both": (2, 2),
}


@pytest.mark.parametrize(("world_size", "accumulate"), SPLITS.values(), ids=SPLITS)
def test_processes_together_see_each_steps_samples_once(world_size: int, accumulate: int) -> None:
    steps = range(3, 5)
    shares = [list(SharesOfBatches(steps, 8, accumulate, rank, world_size)) for rank in range(world_size)]
    assert {len(s) for s in shares} == {2 * accumulate}
    for n, step in enumerate(steps):
        passes = [shares[rank][n * accumulate + part] for part in range(accumulate) for rank in range(world_size)]
        assert [sample for share in passes for sample in share] == list(range(step * 8, (step + 1) * 8))


def test_batch_that_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match=r"batch is 8, which 3 process\(es\) times accumulate = 2 .* multiple of 6"):
        SharesOfBatches(range(1), 8, 2, 0, 3)


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:99"])
def test_device_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{name}'"):
        pick_device(name)


def torchrun(*arguments: str, program: Sequence[str] = ("-m", "instance_flow_training.train", str(TINY))) -> None:
    """The training command as two processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, *program, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_stopped_and_gone_on_equal_one(tmp_path: Path) -> None:
    """Bit for bit: two samples on two processes, with a stop in between, and on one in two passes."""
    overrides = ["freeze_batch_norm=true", UNCLIPPED]
    settings = [part for text in overrides for part in ("--set", text)]
    torchrun(*settings, "--out", str(tmp_path / "two"), "--set", "stop_at=2")
    assert load_checkpoint(tmp_path / "two" / "checkpoint.pt")["step"] == 2
    torchrun(*settings, "--out", str(tmp_path / "two"))
    two = load_checkpoint(tmp_path / "two" / "checkpoint.pt")

    one = load_checkpoint(train(load_config(TINY, [*overrides, "accumulate=2"]), tmp_path / "one"))
    assert one["step"] == two["step"] == 4
    fresh = build_network(load_config(TINY, [])).state_dict()
    for name, tensor in one["network"].items():
        assert torch.equal(tensor, two["network"][name]), name
        if name.endswith("running_mean"):
            assert torch.equal(tensor, fresh[name]), f"{name} should be frozen"
    assert not torch.equal(one["network"]["backbone.features.0.0.weight"], fresh["backbone.features.0.0.weight"])


COUNTING = """
import os, sys
from pathlib import Path
sys.modules["instance_flow_export.export"] = None
from instance_flow_training import own_labels
from instance_flow_training.train import main
out, opened = Path(sys.argv[0]).parent, own_labels.open_parts
def counted(*arguments):
    (out / f"read-by-{os.environ['RANK']}").touch()
    return opened(*arguments)
own_labels.open_parts = counted
sys.exit(main(sys.argv[1:]))
"""
"""The command, which leaves a file for each process that reads labels; without the export, which takes long."""


def test_labels_are_prepared_by_one_of_two_processes(tmp_path: Path) -> None:
    """Both train on what it has written, also where that takes the place of an earlier run."""
    (tmp_path / "program.py").write_text(COUNTING)
    world = WorldConfig(size=(64, 96), frames=3)
    for name, count in (("labels", 3), ("more", 2)):
        write_ytvis([generate_clip(seed + 10 * count, "mixed", world) for seed in range(count)], tmp_path / name)
    config = load_config(TINY, ["model.center_sigmoid=true", "loss.focal_center=true"])
    save_weights(tmp_path / "w.safetensors", build_network(config, len(CLASS_NAMES)), config, CLASS_NAMES, 3)
    given = ["--from", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "run"), "--size", "96x64"]
    small = [word for text in ("data.workers=0", "data.cutouts=0", "stop_at=1") for word in ("--set", text)]
    for sources in (["labels"], ["labels", "more"]):
        data = ["--data", *(str(tmp_path / name) for name in sources)]
        torchrun(*data, *given, *small, program=[str(tmp_path / "program.py")])
    assert sorted(path.name for path in tmp_path.glob("read-by-*")) == ["read-by-0"]
    assert load_checkpoint(tmp_path / "run/checkpoint.pt")["step"] == 1
    earlier = tmp_path / "run/before-1"
    videos = [
        [len(read_video_set(run / "labels" / part).truth.videos) for part in ("train", "val")]
        for run in (earlier, tmp_path / "run")
    ]
    assert videos == [[2, 1], [4, 1]]
    assert not (tmp_path / "run/before-2").exists()


def plain_network(config: TrainConfig) -> InstanceFlowNet:
    """As the run has it, so that rounding is the same."""
    network = build_network(config).train()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def test_two_passes_are_the_mean_of_two_gradients() -> None:
    """Against a loop in plain torch; batch norm takes each pass for itself, so one pass of both would differ."""
    config = load_config(TINY, ["accumulate=2", UNCLIPPED])
    run = open_run(config, None)
    samples = [collate([run.data[i]]) for i in range(2)]
    terms = update(run.fabric, run.module, run.optimizer, samples, config)

    plain = plain_network(config)
    totals = [forward_losses(plain, images, targets, config)["total"] for images, targets in samples]
    torch.stack(totals).mean().backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), config.clip_gradient)
    assert terms["total"].item() == pytest.approx(sum(t.item() for t in totals) / 2)
    for (name, ours), theirs in zip(run.network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_mixed_precision_rounds_the_network_and_nothing_else() -> None:
    """Heat and coordinates of the targets reach the losses as they are, and the losses are float32."""
    config = load_config(TINY, ["precision=bf16-mixed"])
    run = open_run(config, None)
    batch = collate([run.data[0], run.data[1]])
    images, targets = batch
    plain = plain_network(config)
    with torch.no_grad():
        exact = forward_losses(plain, images, targets, config)
        with torch.autocast("cpu", torch.bfloat16):
            expected = forward_losses(plain, images, targets, config)
    terms = update(run.fabric, run.module, run.optimizer, [batch], config)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert {name: term.item() for name, term in terms.items()} == {n: t.item() for n, t in expected.items()}
    assert terms["total"].item() != exact["total"].item()
    assert {p.dtype for p in run.network.parameters()} == {torch.float32}


def test_loss_scale_survives(tmp_path: Path) -> None:
    config = load_config(TINY, ["precision=16-mixed"])
    state = open_run(config, None).state()
    state["precision"]["scale"] = 128.0
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    assert open_run(config, tmp_path / "checkpoint.pt").precision.state_dict()["scale"] == 128.0
