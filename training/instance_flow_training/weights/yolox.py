# SPDX-License-Identifier: Apache-2.0
"""YOLOX-Nano's weights from its ONNX file with folded batch norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from instance_flow.structures import ModelError
from instance_flow_training.network.detector import CLASSES, HIDDEN, YoloxNano

LAST_LAYERS = "_preds."
"""In the names of the heads' last linear layers; other names are mere numbers."""


@torch.no_grad()
def take_yolox(detector: YoloxNano, path: Path, class_names: Sequence[str]) -> None:
    """Take the file's convolutions one after the other; the graph has them in the order in which they run. The last
    layers' rows are matched by class name; a class that the file does not know is never found.

    Raises ModelError for a file that is missing, cannot be read, or is no such network.
    """
    theirs, last = _convolutions(path)
    convolutions = _in_order(detector)
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
    for level in range(len(detector.heads)):
        _take_last(detector, level, last, path)
    detector.find(dict(enumerate(class_names)))


def _take_last(detector: YoloxNano, level: int, last: Mapping[str, Tensor], path: Path) -> None:
    """The last layers of one level, all classes."""

    def theirs(kind: str, rows: int) -> tuple[Tensor, Tensor]:
        weight, bias = (last.get(f"head.{kind}_preds.{level}.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None or weight.shape != (rows, HIDDEN, 1, 1) or bias.shape != (rows,):
            raise ModelError(
                f"{path}: its layer head.{kind}_preds.{level} is missing or has another shape than that of YOLOX-Nano "
                "for COCO; give yolox_nano.onnx as exported by YOLOX"
            )
        return weight, bias

    def take(layer: nn.Module, values: tuple[Tensor, Tensor], rows: Sequence[int]) -> None:
        layer.get_parameter("weight").copy_(values[0][rows])
        layer.get_parameter("bias").copy_(values[1][rows])

    weight, bias = theirs("cls", len(CLASSES))
    detector.known[level] = torch.cat([weight[:, :, 0, 0], bias[:, None]], 1)
    take(detector.object_layers[level], theirs("obj", 1), [0])
    # x before y there, y before x here.
    take(detector.box_layers[level], theirs("reg", 4), [1, 0, 3, 2])


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


def _convolutions(path: Path) -> tuple[list[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Weights and biases in the order of the graph, and the tensors of the last layers by name."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise ModelError(
            "init.yolox needs the Python package onnx, which is not installed; run `pip install onnx`"
        ) from None
    try:
        graph = onnx.load(str(path)).graph
        tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()).float() for t in graph.initializer}
        nodes = [n.input for n in graph.node if n.op_type == "Conv" and LAST_LAYERS not in n.input[1]]
        last = {name: tensor for name, tensor in tensors.items() if LAST_LAYERS in name}
        return [(tensors[weight], tensors[bias]) for _, weight, bias in nodes], last
    except OSError as error:
        raise ModelError(f"init.yolox: {path}: cannot be read ({error.strerror})") from error
    except Exception as error:
        raise ModelError(f"init.yolox: {path}: is no ONNX file of YOLOX-Nano with folded batch norm") from error
