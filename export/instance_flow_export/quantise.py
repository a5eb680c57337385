# SPDX-License-Identifier: Apache-2.0
"""``instance-flow-quantise MODEL.onnx OUT.onnx``: the same model with its convolutions in 8 bits, for fast CPUs."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from tqdm import tqdm

from instance_flow.commands.values import described
from instance_flow.formats.atomic import replacing
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.network.onnx import OnnxNetwork, write_metadata
from instance_flow.structures import Image, InstanceFlowError, ModelError
from instance_flow_export.differences import Differences, differences
from instance_flow_export.quantise_graph import check_quantisable, quantise_graph
from instance_flow_export.quantise_samples import streams_in, streams_of_worlds, take_samples

WORLDS = 14
TOLERANCE = 0.05
"""Largest mean difference of a map that passes, as a share of max(1, its magnitude); usual are 0.0002 to 0.01."""


def quantise(model: Path, out: Path, streams: Sequence[Iterable[Image]], described: str) -> Differences:
    """Write ``out`` and say how far it is from ``model``; after an error the file is not left behind.

    Args:
        streams: pictures that look like what the robot will see, in the order in which they were taken.
        described: where they are from, for the model's description.

    Raises:
        ModelError: for a file that is not a float32 model of instance-flow.
        SourceError: when the streams have nothing to show.
        ProofError: when the result says something else than ``model``.
    """
    network = OnnxNetwork(model, "cpu")
    check_quantisable(model, onnx.load(model).graph)
    samples = list(tqdm(take_samples(network, streams), unit="frame", desc="looking at", dynamic_ncols=True))
    training = "; ".join(filter(None, [network.info.training, f"int8 from {len(samples)} frames of {described}"]))
    with replacing(out) as candidate, tempfile.TemporaryDirectory(prefix="instance-flow-quantise-") as folder:
        quantised = quantise_graph(model, samples, Path(folder))
        onnx.helper.set_model_props(
            quantised, write_metadata(replace(network.info, training=training, precision="int8"))
        )
        onnx.save(quantised, candidate)
        found = differences(network, OnnxNetwork(candidate, "cpu"), streams[0])
        found.check(TOLERANCE)
        return found


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    does = "write a model with its convolutions in 8 bits, for fast CPUs"
    examples = ("instance-flow-quantise model.onnx model-int8.onnx --images FOLDER",)
    parser = argparse.ArgumentParser(prog="instance-flow-quantise", **described(does, *examples))
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a float32 .onnx model that instance-flow-export wrote"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the .onnx file to write")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--images", type=Path, metavar="FOLDER", help="pictures, videos or bags of what the robot will see"
    )
    source.add_argument(
        "--worlds",
        type=int,
        nargs="?",
        const=WORLDS,
        metavar="N",
        help=f"N synthetic clips instead (default: {WORLDS})",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        difference = _run(options)
    except (InstanceFlowError, ValueError, OSError) as error:
        print(f"instance-flow-quantise: error: {shown(' '.join(str(error).split()), MESSAGE)}", file=sys.stderr)
        return 2
    print(difference)
    print(f"  {difference.speed:.2f} times as fast (the network alone, on all cores of this machine)")
    sizes = (path.stat().st_size / 1e6 for path in (options.model, options.out))
    print("wrote {}: {:.1f} MB became {:.1f} MB".format(options.out, *sizes))
    return 0


def _run(options: argparse.Namespace) -> Differences:
    if options.out.resolve() == options.model.resolve():
        raise ModelError(f"{options.out} is the float32 model itself, which would be lost; choose another name")
    info = OnnxNetwork(options.model, "cpu").info
    if options.images is None:
        return quantise(
            options.model, options.out, streams_of_worlds(options.worlds, info), f"{options.worlds} synthetic clips"
        )
    return quantise(options.model, options.out, streams_in(options.images), options.images.resolve().name)


if __name__ == "__main__":
    sys.exit(main())
