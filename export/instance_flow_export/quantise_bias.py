# SPDX-License-Identifier: Apache-2.0
"""Bias correction: rounding shifts the mean of what a convolution gives, and its bias can take that back for nothing.

After Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction" (ICCV 2019), with means of real activations in place of assumed ones.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from instance_flow_export.quantise_samples import Sample

_AXES = "bias_correction_axes"


def correct_biases(quantised: onnx.ModelProto, original: onnx.ModelProto, samples: Sequence[Sample]) -> None:
    """Add to every 8-bit convolution's bias the mean error that its own rounding makes, per channel, in place.

    Each is measured on the float network's inputs to that convolution, so that one correction does not hang on another.
    Every second sample will do: means need fewer than ranges.
    """
    producers = {name: node for node in quantised.graph.node for name in node.output}
    values = {tensor.name: tensor for tensor in quantised.graph.initializer}
    convolutions = [node for node in quantised.graph.node if _in_8_bits(node, producers)]
    shifts = _mean_errors(_probe(original, convolutions, producers, values), samples[::2])
    for node, shift in zip(convolutions, shifts, strict=True):
        stored, scale = producers[node.input[2]].input[:2]
        steps = np.round(shift / numpy_helper.to_array(values[scale])).astype(np.int64)
        bias = np.clip(numpy_helper.to_array(values[stored]) + steps, -(2**31), 2**31 - 1).astype(np.int32)
        values[stored].CopyFrom(numpy_helper.from_array(bias, stored))


def _in_8_bits(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> bool:
    sources = [producers.get(name) for name in node.input]
    return node.op_type == "Conv" and len(sources) == 3 and all(s and s.op_type == "DequantizeLinear" for s in sources)


def _probe(
    original: onnx.ModelProto,
    convolutions: Sequence[onnx.NodeProto],
    producers: dict[str, onnx.NodeProto],
    values: dict[str, onnx.TensorProto],
) -> onnx.ModelProto:
    """The float graph with a rounded twin beside each convolution; its outputs are their mean differences."""
    probe = copy.deepcopy(original)
    graph = probe.graph
    twins = {node.name: node for node in graph.node}
    del graph.output[:]
    needed: set[str] = set()
    for node in convolutions:
        plain, name = twins[node.name], f"bias_correction_{node.name}"
        activation, weight = producers[node.input[0]], producers[node.input[1]]
        needed |= {*activation.input[1:], *weight.input}
        parameters = activation.input[1:]
        rounded_weight, twin = copy.deepcopy(weight), copy.deepcopy(plain)
        rounded_weight.name, rounded_weight.output[0] = f"{name}_weight", f"{name}_weight"
        twin.name, twin.output[0] = name, name
        twin.input[0], twin.input[1] = f"{name}_input", f"{name}_weight"
        graph.node.extend(
            [
                helper.make_node("QuantizeLinear", [plain.input[0], *parameters], [f"{name}_quantised"]),
                helper.make_node("DequantizeLinear", [f"{name}_quantised", *parameters], [f"{name}_input"]),
                rounded_weight,
                twin,
                helper.make_node("Sub", [plain.output[0], name], [f"{name}_error"]),
                helper.make_node("ReduceMean", [f"{name}_error", _AXES], [f"{name}_mean"], keepdims=0),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(f"{name}_mean", onnx.TensorProto.FLOAT, None))
    graph.initializer.extend(values[name] for name in sorted(needed))
    graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3], np.int64), _AXES))
    return probe


def _mean_errors(probe: onnx.ModelProto, samples: Sequence[Sample]) -> list[NDArray[np.float64]]:
    """Per output of the probe, its mean over the samples."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Fused, the rounded twins would be other operations.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [session.run(None, sample) for sample in samples]
    return [np.mean(np.stack(values).astype(np.float64), 0) for values in zip(*outputs, strict=True)]
