# SPDX-License-Identifier: Apache-2.0
"""From a float32 graph to one whose convolutions are in 8 bits, described by Quantize and Dequantize nodes (QDQ).

Weights are signed, with a scale for each output channel; activations unsigned, with a scale for each tensor. What is
worth its time in 8 bits, and what costs accuracy, was measured: see docs/quantisation.md.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from instance_flow.structures import ModelError
from instance_flow_export.quantise_bias import correct_biases
from instance_flow_export.quantise_samples import Sample

OPERATIONS = ["Conv", "Relu", "Clip", "Concat"]
PERCENTILE = 99.99
"""Share of an activation's values that its range holds; the few beyond are cut off, which makes the rest finer."""
VALUES = 4096
"""Of each activation and sample, that its range is found on."""
FLOAT = re.compile(
    r"backbone\.(conv1|features\.[0-3])\."  # the stem, down to stride 4: it made most of all errors, for little time
    # They say the numbers.
    r"|semantic_head\.(coarse|finest\.1)\b|((center|offset)_head|inter\.head)\.1\."
    # Its boxes say where objects lie; an error of a cell moves the offset of every cell of an object.
    r"|detector\.|evidence\."
    # What attention compares, and what is cached.
    r"|fusions\.\d+\.(query|key|value)\.|inter\.(look|embed|value|query|compare)\b"
)
"""Weights of the convolutions that stay in float32, by their names in torch."""


def check_quantisable(path: Path, graph: onnx.GraphProto) -> None:
    """Raises ModelError for a graph that is quantised already, or not in float32."""
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise ModelError(f"{path}: this model is quantised already; give the float32 model that it was made from")
    kinds = {value.type.tensor_type.elem_type for value in graph.output}
    if kinds != {onnx.TensorProto.FLOAT}:
        raise ModelError(f"{path}: this model is not in float32; export it again without --half, then quantise that")


def quantise_graph(path: Path, samples: Sequence[Sample], folder: Path) -> onnx.ModelProto:
    """The quantised model, metadata included.

    Args:
        samples: what the ranges of the activations are found on.   folder: for files in between.
    """
    # Not at the top: the runtime decides what ONNX Runtime may do before it is first imported.
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.shape_inference import quant_pre_process

    fused = folder / "fused.onnx"
    quant_pre_process(path, fused, skip_symbolic_shape=True)
    original = onnx.load(fused)
    nodes = nodes_in_8_bits(original.graph)
    quantiser = QDQQuantizer(
        onnx.load(fused),
        per_channel=True,
        # In 7 bits: where a CPU has no VNNI, the sum of two products of 8 bits is cut off at 16.
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=_ranges(original, nodes, samples),
        nodes_to_quantize=nodes,
        nodes_to_exclude=[],
        op_types_to_quantize=OPERATIONS,
        extra_options={},
    )
    quantiser.quantize_model()
    quantised: onnx.ModelProto = quantiser.model.model
    correct_biases(quantised, original, samples)
    return quantised


def nodes_in_8_bits(graph: onnx.GraphProto) -> list[str]:
    """Names of the convolutions but for those of FLOAT, and of what can be joined to them.

    Those are the ReLUs behind them, and the joins of maps before them. All other joins stay as they are, above all
    that of keys and values: one scale for both would leave the keys a few steps.
    """
    convolutions = {node.name for node in graph.node if node.op_type == "Conv" and not FLOAT.search(node.input[1])}
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def chosen(node: onnx.NodeProto) -> bool:
        if node.op_type in ("Relu", "Clip"):
            return node.input[0] in producers and producers[node.input[0]].name in convolutions
        if node.op_type == "Concat":
            readers = consumers.get(node.output[0], [])
            return bool(readers) and all(reader.name in convolutions for reader in readers)
        return node.name in convolutions

    return [node.name for node in graph.node if chosen(node)]


def _ranges(original: onnx.ModelProto, nodes: Sequence[str], samples: Sequence[Sample]) -> Any:
    """What holds PERCENTILE of the values of each tensor that goes into these nodes or comes out of them.

    On values spread over each tensor, VALUES of a sample, beside its extremes: whole activations do not fit in memory.
    """
    import onnxruntime
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import TensorsData

    constants = {tensor.name for tensor in original.graph.initializer}
    chosen = [node for node in original.graph.node if node.name in set(nodes)]
    names = sorted({name for node in chosen for name in (*node.input, *node.output)} - constants - {""})
    probe = copy.deepcopy(original)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    kept: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for sample in samples:
        for name, value in zip(names, session.run(None, sample), strict=True):
            # An odd step, so as not to see the same columns of every row.
            step = max(1, value.size // VALUES) | 1
            kept[name].append(np.concatenate([value.ravel()[::step], [value.min(), value.max()]]))
    shares = (100 - PERCENTILE, PERCENTILE)
    ranges = {name: np.percentile(np.concatenate(values), shares).astype(np.float32) for name, values in kept.items()}
    return TensorsData(CalibrationMethod.MinMax, {name: (low, high) for name, (low, high) in ranges.items()})
