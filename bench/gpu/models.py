# SPDX-License-Identifier: Apache-2.0
"""The models that the GPU figures are of: static, half precision, 640x384, weights at random.

    python bench/gpu/models.py OUT                    # all of them; needs the training environment, a minute each
    python bench/gpu/models.py OUT --models small

What a network costs does not depend on its weights, so none need be trained. Each is exported twice, in half and in
single precision, by ``instance-flow-export``, which proves it against torch.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from instance_flow_export.export import main as export
from instance_flow_training.config import TrainConfig, load_config
from instance_flow_training.network.model import InstanceFlowNet, ModelConfig
from instance_flow_training.weights.checkpoint import save_checkpoint

SIZE = "640x384"
CLASSES = 40
HALF = "--half"
"""The option of ``instance-flow-export`` for half precision."""

WORLDS = Path(__file__).parents[2] / "training" / "configs" / "worlds.toml"


def configs() -> dict[str, ModelConfig]:
    """By the names of ROOFLINE in speed.py."""
    return {
        "r50": ModelConfig(),
        "r50-s32": ModelConfig(output_stride=32, dense_aspp=False),
        "small": load_config(WORLDS, []).model,
    }


def main() -> int:
    """Write the models; the exit code is that of the first export that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", choices=list(configs()), default=list(configs()))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name in options.models:
        config = TrainConfig(model=configs()[name])
        network = InstanceFlowNet(config.model, CLASSES)
        names = [f"class {number}" for number in range(CLASSES)]
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "checkpoint.pt"
            state = {"step": 0, "network": network.state_dict(), "config": asdict(config), "class_names": names}
            save_checkpoint(checkpoint, state)
            for precision, extra in (("fp16", [HALF]), ("fp32", [])):
                out = options.out / f"{name}-{precision}.onnx"
                arguments = [str(checkpoint), str(out), "--static", "--size", SIZE, "--name", name, *extra]
                if code := export(arguments):
                    return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
