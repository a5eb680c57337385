# SPDX-License-Identifier: Apache-2.0
"""``instance-flow-train CONFIG``: train, log, checkpoint; started again, it goes on where it stopped."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from instance_flow.structures import InstanceFlowError
from instance_flow_training.backbone import load_backbone_weights
from instance_flow_training.checkpoint import load_checkpoint, save_checkpoint
from instance_flow_training.config import ConfigError, TrainConfig, load_config
from instance_flow_training.datasets import WorldClips, collate
from instance_flow_training.losses import BatchTargets, losses
from instance_flow_training.model import InstanceFlowNet
from instance_flow_training.synthetic import CLASS_NAMES
from instance_flow_training.validate import validate


class FromStep(Sampler[int]):
    """Sample numbers in order, starting at the batch where training stopped."""

    def __init__(self, first: int, total: int):
        self.first, self.total = first, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total - self.first


def build_network(config: TrainConfig) -> InstanceFlowNet:
    """The network with its backbone's weights from ``model.backbone_weights`` (a .safetensors file), if given."""
    torch.manual_seed(config.seed)
    network = InstanceFlowNet(config.model, len(CLASS_NAMES))
    if config.model.backbone_weights:
        path = Path(config.model.backbone_weights)
        if not path.is_file():
            raise ConfigError(f"model.backbone_weights: no file {path}; give a .safetensors file or leave it empty")
        try:
            load_backbone_weights(network.backbone, load_file(path))
        except ValueError as error:
            raise ConfigError(f"model.backbone_weights: {path}: {error}") from error
    return network


def frame_pairs(clips: int, frames: int) -> tuple[Tensor, Tensor]:
    """Every frame against every earlier one of its clip: (P,) targets and (P,) references into the B * K frames."""
    pairs = [
        (clip * frames + later, clip * frames + earlier)
        for clip in range(clips)
        for earlier, later in itertools.combinations(range(frames), 2)
    ]
    target, reference = torch.tensor(pairs, dtype=torch.long).T
    return target, reference


def forward_losses(
    network: InstanceFlowNet, images: Tensor, targets: BatchTargets, config: TrainConfig
) -> dict[str, Tensor]:
    """One pass over a batch: every frame's intra maps, every pair's inter maps, all the losses."""
    frames = config.data.frames_per_clip
    target, reference = (t.to(images.device) for t in frame_pairs(len(images) // frames, frames))
    pyramid = network.pyramid(images)
    maps, context = network.intra(pyramid)
    features = [f.index_select(0, reference) for f in network.features(context)]
    reference_offset, attentions = network.inter(pyramid, context, features, target)
    return losses(*maps, reference_offset, attentions, targets, target, reference, config.loss)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Poly decay (section IV-A) after a short linear warm-up."""
    return config.learning_rate * min(1.0, (step + 1) / config.warmup) * (1 - step / config.steps) ** config.poly_power


def to_device(targets: BatchTargets, device: torch.device) -> BatchTargets:
    """The same targets on another device."""
    return BatchTargets(**{f.name: getattr(targets, f.name).to(device) for f in dataclasses.fields(targets)})


def pick_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def train(config: TrainConfig, out: Path) -> Path:
    """Train to ``config.steps``; returns the checkpoint's path. A checkpoint in ``out`` is continued exactly."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    network = build_network(config).to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    checkpoint, first = out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]

    total = config.steps * config.batch
    data = WorldClips(config.data.first_seed, total, config.data.sizes, config.data.frames_per_clip, config.batch)
    loader = DataLoader(
        data,
        config.batch,
        sampler=FromStep(first * config.batch, (config.stop_at or config.steps) * config.batch),
        num_workers=config.data.workers,
        collate_fn=collate,
        worker_init_fn=lambda _: cv2.setNumThreads(1),
        prefetch_factor=4 if config.data.workers else None,
    )
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=first)
    progress = tqdm(loader, initial=first, total=config.steps, unit="step", dynamic_ncols=True)
    network.train()
    for step, (images, targets) in enumerate(progress, first):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        terms = forward_losses(network, images.to(device), to_device(targets, device), config)
        optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_gradient)
        optimizer.step()

        done = step + 1
        if done % config.log_every == 0:
            values = {name: term.item() for name, term in terms.items()}
            progress.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
            for name, value in values.items():
                writer.add_scalar(f"loss/{name}", value, done)
            writer.add_scalar("learning_rate", learning_rate(config, step), done)
        if done % config.save_every == 0 or done == first + len(loader):
            save_checkpoint(checkpoint, training_state(network, optimizer, config, done))
        if config.validation.every and (done % config.validation.every == 0 or done == first + len(loader)):
            for name, value in validate(network, config.validation).items():
                writer.add_scalar(f"validation/{name}", value, done)
    writer.close()
    return checkpoint


def training_state(
    network: InstanceFlowNet, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int
) -> dict[str, Any]:
    """What a checkpoint holds: enough to go on exactly, and to export."""
    return {
        "step": step,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "config": dataclasses.asdict(config),
        "class_names": list(CLASS_NAMES),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="instance-flow-train", description=__doc__)
    parser.add_argument("config", type=Path, help="TOML file of differences from the paper's settings")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for checkpoint and logs (default runs/NAME)")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config, options.overrides)
        out = options.out or Path("runs") / config.name
        checkpoint = train(config, out)
    except (ConfigError, InstanceFlowError) as error:
        print(f"instance-flow-train: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    print(f"trained {config.stop_at or config.steps} steps; export with: instance-flow-export {checkpoint} model.onnx")
    return 0


if __name__ == "__main__":
    sys.exit(main())
