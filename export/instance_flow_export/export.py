# SPDX-License-Identifier: Apache-2.0
"""``instance-flow-export CHECKPOINT OUT.onnx``: one self-describing file, written only if proven equal to torch."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from instance_flow.commands.values import described, image_size, option
from instance_flow.declare import declared
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.network.onnx import feature_names, reference_input, write_metadata
from instance_flow.structures import MAPS, Image, InstanceFlowError, ModelInfo
from instance_flow_export.compact import rounded, store_half
from instance_flow_export.half import halve, prove_half
from instance_flow_export.proof import ProofError, proof_images, prove
from instance_flow_training.comparing.val import MODEL
from instance_flow_training.config import ConfigError
from instance_flow_training.network.model import OFFSET, InstanceFlowNet
from instance_flow_training.validate import ModelDefaults, model_info
from instance_flow_training.weights.checkpoint import WEIGHTS, best_of_run, load_checkpoint, load_network, save_weights

OPSET = 20
REFERENCES = 4


def weights_hash(network: torch.nn.Module) -> str:
    """SHA-256 over all parameters and buffers, names included, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def export_graph(network: InstanceFlowNet, size: tuple[int, int], dynamic: bool) -> onnx.ModelProto:
    """The ONNX graph of ``InstanceFlowNet.forward``, with an input for every reference (``split_references``).

    Args:
        size: (height, width), multiples of 32.
        dynamic: any size, and each of the REFERENCES may be missing; else ``size`` and all of them, for TensorRT and
            CUDA graphs.
    """
    height, width = size
    channels = network.inter.cached_channels
    # Two references and a batch of one: the exporter would take an example dimension of 1 for a constant.
    count = 2 if dynamic else REFERENCES
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    # A halved network takes its features in half precision.
    kind = network.pixel_mean.dtype
    sizes = model_info(network, size, ()).feature_sizes(height, width)
    features = [torch.zeros(count, channels, *shape, dtype=kind) for shape in sizes]
    stacked = [f"stacked_reference_features_{level}" for level in range(len(features))]
    dims: dict[str, Any] | None = None
    if dynamic:
        grid_height, grid_width = (torch.export.Dim(name, min=2, max=256) for name in ("grid_height", "grid_width"))
        references = torch.export.Dim("references", min=0, max=64)
        strides = network.inter.feature_strides
        grids = [{2: 32 // stride * grid_height, 3: 32 // stride * grid_width} for stride in strides]
        dims = {
            "image": {1: 32 * grid_height, 2: 32 * grid_width},
            "reference_features": tuple({0: references, **grid} for grid in (grids or [{}])),
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (image, *features),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image", *stacked],
            output_names=[*MAPS, *feature_names(len(features))],
            dynamic_shapes=dims,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    graph = program.model_proto
    for level, name in enumerate(stacked):
        split_references(graph, name, [reference_input(level, k) for k in range(REFERENCES)], dynamic)
    return graph


def split_references(model: onnx.ModelProto, stacked: str, names: Sequence[str], dynamic: bool) -> None:
    """Put inputs ``names`` of one reference each in the place of the input ``stacked``, in place.

    The graph joins them. So every frame's features stay in the buffer that the network wrote them to, on its device,
    for as long as the frame is a reference: nothing is moved when the references change. dynamic: a batch of 0 stands
    for a reference that is missing.
    """
    graph = model.graph
    position = next(i for i, node in enumerate(graph.input) if node.name == stacked)
    shape = graph.input[position].type.tensor_type.shape.dim
    sizes = [dim.dim_param or dim.dim_value for dim in shape[1:]]
    kind = graph.input[position].type.tensor_type.elem_type
    inputs = list(graph.input)
    inputs[position : position + 1] = [
        # A name for each, as some of them may be there and some not.
        onnx.helper.make_tensor_value_info(name, kind, [f"has_{name}" if dynamic else 1, *sizes])
        for name in names
    ]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.node.insert(0, onnx.helper.make_node("Concat", list(names), [stacked], name=f"join_{stacked}", axis=0))


def export(
    checkpoint: Path,
    out: Path,
    size: tuple[int, int] | None,
    static: bool,
    changes: dict[str, Any],
    half: bool = False,
    proof: Path | None = None,
    compact: bool = False,
) -> ModelInfo:
    """Write ``out`` and prove it; on any difference the file is not left behind.

    Args:
        size: input size of the model; None takes ``TrainConfig.input_size``.
        changes: fields of ModelInfo to set.   half: float16 in place of float32, for GPUs.
        proof: what is proved on, see ``proof_images``.   compact: half the size on disk (``compact``).

    Raises:
        ConfigError: for a size, or a kind of network, that the runtime does not take.
        ProofError: when torch and ONNX Runtime do not say the same over a sequence.
    """
    network, config, class_names = load_network(checkpoint)
    if config.model.flow != OFFSET:
        raise ConfigError(
            f"{checkpoint}: model.flow is {config.model.flow!r}, which the runtime would take for offsets; it serves "
            f"instance-flow-ablate alone. Train with model.flow = {OFFSET!r}"
        )
    size = size or config.input_size
    if size[0] % 32 or size[1] % 32:
        raise ConfigError(f"the input size {size} must be multiples of 32")
    steps = load_checkpoint(checkpoint).get("step", config.steps)
    training = f"{config.name}: {steps} steps of {config.batch} clips, seed {config.seed}"
    precision = "float16" if half else "float32"
    origin = {"name": config.name, "training": training, "weights_sha256": weights_hash(network)}
    fields = {**origin, "precision": precision, **config.defaults.fields(), **changes}
    info = model_info(network, size, class_names, **fields)
    if compact:
        network = rounded(network)
    graph = export_graph(halve(network) if half else network, info.input_size, dynamic=not static)
    if compact:
        store_half(graph)
    onnx.helper.set_model_props(graph, write_metadata(info))
    onnx.checker.check_model(graph, full_check=True)
    return prove_and_write(graph, network, info, out, proof_images(info, proof))


def prove_and_write(
    graph: onnx.ModelProto, network: InstanceFlowNet, info: ModelInfo, out: Path, images: Sequence[Image]
) -> ModelInfo:
    """Prove the graph on a sequence beside its destination, then move it there: a file that is there has passed.

    network: in float32, whatever the precision of the graph.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        candidate = Path(folder) / out.name
        onnx.save(graph, candidate)
        report = (prove_half if info.precision == "float16" else prove)(network, info, candidate, images)
        candidate.replace(out)
    print(report)
    return info


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    does = "write a checkpoint as one self-describing model file, proven equal to torch"
    examples = "instance-flow-export runs/mine", "instance-flow-export checkpoint.pt model.onnx --size 640x384"
    parser = argparse.ArgumentParser(prog="instance-flow-export", **described(does, *examples))
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="a checkpoint, or the folder of a training run: its best one",
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="the .onnx file to write (of a folder: model.onnx in it)"
    )
    parser.add_argument(
        "--size",
        type=image_size,
        metavar="WIDTHxHEIGHT",
        help="default input size, multiples of 32, such as 640x384 (default: that of the training's validation)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="also write the weights in half precision, to train on from (init.checkpoint takes the .safetensors file)",
    )
    parser.add_argument("--static", action="store_true", help="one size and 4 references, for TensorRT and CUDA graphs")
    parser.add_argument(
        "--proof",
        type=Path,
        metavar="SOURCE",
        help="video, folder or bag that shows objects of the model, to prove the file on (default: a synthetic world)",
    )
    parser.add_argument("--half", action="store_true", help="float16 in place of float32, for GPUs")
    parser.add_argument(
        "--compact", action="store_true", help="weights stored in half precision, computed in float32: half the file"
    )
    parser.add_argument("--name", help="name of the model in its description")
    for spec in declared(ModelDefaults):
        parser.add_argument(
            f"--{spec.name.replace('_', '-')}",
            type=option(spec),
            metavar="N",
            help=f"{spec.metadata['description']} (default: that of the training, defaults.{spec.name})",
        )
    parser.add_argument("--licence", help="licence of the weights; that of the training data may restrict it")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = make_parser().parse_args(arguments)
    fields = ("name", *(spec.name for spec in declared(ModelDefaults)), "licence")
    changes = {name: getattr(options, name) for name in fields if getattr(options, name) is not None}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        if options.weights and options.weights.suffix != WEIGHTS:
            raise ConfigError(f"--weights {options.weights}: give a name that ends in {WEIGHTS}")
        if options.half and options.compact:
            raise ConfigError("--half and --compact: a float16 model is stored in half precision anyway; leave one out")
        kinds = options.static, changes, options.half, options.proof, options.compact
        if options.out is None and not options.checkpoint.is_dir():
            raise ConfigError(f"name the file to write: instance-flow-export {options.checkpoint} model.onnx")
        out = options.out or options.checkpoint / MODEL
        checkpoint = best_of_run(options.checkpoint) if options.checkpoint.is_dir() else options.checkpoint
        info = export(checkpoint, out, options.size, *kinds)
        if options.weights:
            network, config, class_names = load_network(checkpoint)
            save_weights(options.weights, network, config, class_names, load_checkpoint(checkpoint)["step"])
    except (ConfigError, InstanceFlowError, ProofError) as error:
        print(f"instance-flow-export: error: {shown(error, MESSAGE)}", file=sys.stderr)
        return 2
    print(f"wrote {out}: {info.name}, {len(info.class_names)} classes, input {info.input_size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
