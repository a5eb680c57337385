# SPDX-License-Identifier: Apache-2.0
"""Files of half the size: weights are stored in half precision, and everything is computed in float32 as before."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from instance_flow_training.network.folding import fold_batch_norm
from instance_flow_training.network.model import InstanceFlowNet

_LEAST = 256
"""Values of a weight for which a node to turn them back is worth it."""


@torch.no_grad()
def rounded(network: InstanceFlowNet) -> InstanceFlowNet:
    """A copy whose batch norm is folded and whose weights are numbers of half precision, in float32."""
    made = copy.deepcopy(network).eval()
    fold_batch_norm(made)
    for tensor in (*made.parameters(), *made.buffers()):
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
    return made


def store_half(model: onnx.ModelProto) -> None:
    """Store every weight that half precision holds exactly in half precision, in place; runtimes turn it back."""
    graph, casts = model.graph, []
    for position, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < _LEAST or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        graph.initializer[position].CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_float", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
