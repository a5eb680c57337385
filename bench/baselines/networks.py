# SPDX-License-Identifier: Apache-2.0
"""What the network costs: ONNX Runtime against torch with the same weights, and what references cost.

A model file holds no torch weights, so unless a checkpoint is given these are networks of the same shape as the
published ones with random weights, which take as long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.utils import Extractor

from baselines.scene import REFERENCES
from baselines.timing import Row, measure, torch_threads
from instance_flow.benchmark.scenes import CLASSES
from instance_flow.benchmark.suite import size_name
from instance_flow.network.execution import ExecutionConfig, open_session
from instance_flow.network.onnx import OnnxNetwork, feature_names, reference_input, write_metadata
from instance_flow.network.protocol import Network
from instance_flow.structures import MAPS, Image, ModelInfo, Prediction
from instance_flow_export.export import export_graph
from instance_flow_export.proof import TOLERANCE, relative_error
from instance_flow_training.config import load_config
from instance_flow_training.network.model import InstanceFlowNet, ModelConfig
from instance_flow_training.validate import TorchNetwork, model_info
from instance_flow_training.weights.checkpoint import load_network
from instance_flow_training.worlds.synthetic import CLASS_NAMES

SIZE = (384, 640)
THREADS = {"one thread": 1, "all threads": 0}

_SMALL = Path(__file__).parents[2] / "training" / "configs" / "worlds.toml"


@dataclass(frozen=True)
class SameWeights:
    """One network twice. path: the exported model.   features_path: only what makes ``features`` of an image."""

    name: str
    network: InstanceFlowNet
    info: ModelInfo
    path: Path
    features_path: Path


def small_network(checkpoint: Path | None = None) -> InstanceFlowNet:
    """The bundled model's shape with random weights, or the network of a checkpoint."""
    if checkpoint is not None:
        return load_network(checkpoint)[0]
    return random_network(load_config(_SMALL, []).model, len(CLASS_NAMES))


def random_network(config: ModelConfig, classes: int = CLASSES) -> InstanceFlowNet:
    """A network in evaluation mode with the same random weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InstanceFlowNet(config, classes).eval()


def export_both(name: str, network: InstanceFlowNet, size: tuple[int, int], folder: Path) -> SameWeights:
    """Export the network, and the part of it that a reference needs, into ``folder``.

    size: (height, width) of the input, multiples of 32.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    return write_both(name, network, export_graph(network, size, dynamic=True), size, folder)


def write_both(
    name: str, network: InstanceFlowNet, graph: onnx.ModelProto, size: tuple[int, int], folder: Path
) -> SameWeights:
    """Write an exported network, see ``export_both``, with its description, and the part that a reference needs."""
    info = model_info(network, size, [f"class_{k}" for k in range(network.num_classes)], name=name)
    onnx.helper.set_model_props(graph, write_metadata(info))
    whole, part = folder / f"{name}.onnx", folder / f"{name}_features.onnx"
    onnx.save(graph, whole)
    # Sizes in the graph are taken from the references' features, so these stay inputs.
    inputs = [node.name for node in graph.graph.input]
    onnx.save(Extractor(graph).extract_model(inputs, list(feature_names(len(info.feature_sizes(*size))))), part)
    return SameWeights(name, network, info, whole, part)


def frames(size: tuple[int, int]) -> list[Image]:
    """A frame and its references, (height, width, 3) each."""
    return list(np.random.default_rng(0).integers(0, 255, (1 + REFERENCES, *size, 3), dtype=np.uint8))


def with_references(network: Network, images: list[Image], count: int = REFERENCES) -> Callable[[], Prediction]:
    """Give what predicts the first image against ``count`` of the others, whose features are made now."""
    features = [network.predict(image, []).features for image in images[1 : 1 + count]]
    return partial(network.predict, images[0], features)


def engine_rows(same: SameWeights, repetitions: int, compiled: bool) -> dict[str, Row]:
    """Time torch eager and, if ``compiled``, torch.compile against ONNX Runtime, with four references.

    Raises:
        RuntimeError: where they do not say the same.
    """
    images = frames(same.info.input_size)
    rows: dict[str, Row] = {}
    for label, threads in THREADS.items():
        ours = with_references(OnnxNetwork(same.path, "cpu", ExecutionConfig(threads=threads)), images)
        with torch_threads(threads):
            rows |= _against(same, "torch eager", label, ours, same.network, images, repetitions)
            if compiled:
                with compiled_network(same.network) as network:
                    rows |= _against(same, "torch.compile", label, ours, network, images, repetitions)
    return rows


@contextmanager
def compiled_network(network: InstanceFlowNet) -> Iterator[InstanceFlowNet]:
    """The network behind torch.compile with its weights frozen, for as many threads as torch has now."""
    from torch._inductor import config

    # The number of threads stands in the code that inductor writes, so it must not take that of another number.
    with config.patch({"freezing": True, "cpp.threads": torch.get_num_threads()}):
        torch._dynamo.reset()
        yield torch.compile(network, dynamic=False)  # type: ignore[misc]
    torch._dynamo.reset()


def reference_rows(same: SameWeights, repetitions: int) -> dict[str, Row]:
    """Time what caching saves, and what references cost, all in ONNX Runtime on all threads.

    In "references recomputed" theirs runs the network on the four frames as well before it does what ours does, as one
    must who keeps nothing; in "features alone recomputed" only the part of it that makes their features, the least that
    recomputing can cost. In "four references over one" and "over none" ours has one or no reference, theirs four.
    """
    images = frames(same.info.input_size)
    network = OnnxNetwork(same.path, "cpu")
    four, one, none = (with_references(network, images, count) for count in (REFERENCES, 1, 0))

    def again(recompute: Callable[[Image], object]) -> Prediction:
        for image in images[1:]:
            recompute(image)
        return four()

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "references recomputed": (four, partial(again, lambda image: network.predict(image, []))),
        "features alone recomputed": (four, partial(again, features_of(same))),
        "four references over one": (one, four),
        "four references over none": (none, four),
    }
    rows = {}
    for what, (ours, theirs) in pairs.items():
        for clock, found in measure(ours, theirs, repetitions).items():
            rows[f"{_title(same)}, {clock}: {what}"] = found
    return rows


def features_of(same: SameWeights) -> Callable[[Image], Sequence[NDArray[np.float32]]]:
    """Give what makes the cached features of an image (H, W, 3), without the rest of the network."""
    _, session = open_session(same.features_path, "cpu", ExecutionConfig())
    height, width = same.info.input_size
    missing: dict[str, NDArray[Any]] = {
        reference_input(level, k): np.zeros((0, same.network.inter.cached_channels, *shape), np.float32)
        for level, shape in enumerate(same.info.feature_sizes(height, width))
        for k in range(REFERENCES)
    }
    names = feature_names(len(same.info.feature_sizes(height, width)))
    return lambda image: session.run(names, {"image": image[None], **missing})


def check_equal(ours: Prediction, theirs: Prediction) -> None:
    """Raises RuntimeError where two predictions differ by more than rounding does."""
    for name in MAPS:
        error = relative_error(getattr(ours, name), getattr(theirs, name))
        if not error <= 10 * TOLERANCE:
            raise RuntimeError(f"{name} differs by {error:.1e}: the two networks are not the same")


def _against(
    same: SameWeights,
    kind: str,
    threads: str,
    ours: Callable[[], Prediction],
    network: InstanceFlowNet,
    images: list[Image],
    repetitions: int,
) -> dict[str, Row]:
    theirs = with_references(TorchNetwork(network, same.info), images)
    check_equal(ours(), theirs())
    both = measure(ours, theirs, repetitions)
    return {f"{_title(same)}, {threads}, {clock}: {kind}": found for clock, found in both.items()}


def _title(same: SameWeights) -> str:
    return f"{same.name} {size_name(same.info.input_size)}"
