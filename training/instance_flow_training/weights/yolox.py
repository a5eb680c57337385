# SPDX-License-Identifier: Apache-2.0
"""YOLOX-Nano's weights from its ONNX file with folded batch norm."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from instance_flow.structures import ModelError
from instance_flow_training.network.detector import YoloxNano

LAST_LAYERS = "_preds."
"""In the names of the heads' last linear layers, which we have no use for; other names are mere numbers."""


@torch.no_grad()
def take_yolox(detector: YoloxNano, path: Path) -> None:
    """Take the file's convolutions one after the other; the graph has them in the order in which they run.

    Raises ModelError for a file that is missing, cannot be read, or is no such network.
    """
    convolutions, theirs = _in_order(detector), _convolutions(path)
    ours = [tuple(c.weight.shape) for c in convolutions]
    # The stem's 3x3 over 12 channels is 6x6 over 3 here.
    found = [(w.shape[0], 3, 6, 6) if w.shape[1:] == (12, 3, 3) else tuple(w.shape) for w, _ in theirs]
    if found != ours:
        raise ModelError(
            f"{path}: its {len(found)} convolutions are not the {len(ours)} of YOLOX-Nano with folded batch norm; give "
            "yolox_nano.onnx as exported by YOLOX"
        )
    for conv, (weight, bias) in zip(convolutions, theirs, strict=True):
        conv.weight.copy_(_stem(weight) if conv.kernel_size == (6, 6) else weight)
        assert conv.bias is not None
        conv.bias.copy_(bias)


def _stem(weight: Tensor) -> Tensor:
    """(O, 12, 3, 3) over patches of 2x2 pixels, left column first, of BGR to (O, 3, 6, 6) over pixels of RGB."""
    patches = weight.unflatten(1, (2, 2, 3))  # dx, dy, channel
    return patches.flip(3).permute(0, 3, 4, 2, 5, 1).flatten(2, 3).flatten(3, 4)


def _in_order(detector: YoloxNano) -> list[nn.Conv2d]:
    """Its convolutions as they run."""
    order: list[nn.Conv2d] = []
    hooks = [
        part.register_forward_pre_hook(lambda part, _: order.append(part))
        for part in detector.modules()
        if isinstance(part, nn.Conv2d)
    ]
    detector(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return order


def _convolutions(path: Path) -> list[tuple[Tensor, Tensor]]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise ModelError("init.yolox reads an ONNX file: pip install instance-flow[export]") from None
    try:
        graph = onnx.load(str(path)).graph
        tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()).float() for t in graph.initializer}
        nodes = [n.input for n in graph.node if n.op_type == "Conv" and LAST_LAYERS not in n.input[1]]
        return [(tensors[weight], tensors[bias]) for _, weight, bias in nodes]
    except OSError as error:
        raise ModelError(f"init.yolox: {path}: cannot be read ({error.strerror})") from error
    except Exception as error:
        raise ModelError(f"init.yolox: {path}: is no ONNX file of YOLOX-Nano with folded batch norm") from error
