# SPDX-License-Identifier: Apache-2.0
"""A network without weights, for tests: it reads the truth from the colours of the picture.

Red or blue = a pixel of an object of that class, green on top = the object's center. All offsets are 0, so that a pixel
belongs to the nearest center, and an object is found again where it was in the reference frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper

from instance_flow.network.onnx import reference_input, write_metadata
from instance_flow.structures import Image, ModelInfo

SIZE = (96, 128)
RED, BLUE = 0, 1
INFO = ModelInfo(name="blobs", class_names=("red", "blue"), input_size=SIZE)


def draw(discs: Sequence[tuple[int, int, int]], size: tuple[int, int] = SIZE) -> Image:
    """Picture of discs, each (x, y, class), of radius 12."""
    image = np.zeros((*size, 3), np.uint8)
    for x, y, kind in discs:
        cv2.circle(image, (x, y), 12, (0, 0, 255) if kind == BLUE else (255, 0, 0), -1)
        image[y - 4 : y + 4, x - 4 : x + 4, 1] = 255
    return image


def write_model(path: Path, describe: bool = True, work: int = 0, blind: bool = False) -> None:
    """Write the model.

    describe: without its description it is an ONNX file like any other.
    blind: it never finds anything.
    work: number of large matrix products on the way, which change nothing but take some 50 ms each on two cores.
    """
    names = [reference_input(level, k) for level in (0, 1) for k in range(INFO.max_references)]
    inputs: dict[str, list[int | str]] = {name: [f"has_{name}", 3, "H16", "W16"] for name in names}
    outputs: dict[str, list[int | str]] = {
        "semantic": [3, "H4", "W4"],
        "center": ["H4", "W4"],
        "offset": [2, "H4", "W4"],
        "reference_offset": ["R", 2, "H4", "W4"],
        "features_0": [1, 3, "H16", "W16"],
        "features_1": [1, 3, "H16", "W16"],
    }
    graph = helper.make_graph(
        [*_see(blind), *_toil(work)],
        "blobs",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3]),
            *(helper.make_tensor_value_info(name, _FLOATS, shape) for name, shape in inputs.items()),
        ],
        [helper.make_tensor_value_info(name, _FLOATS, shape) for name, shape in outputs.items()],
        [
            helper.make_tensor("first", TensorProto.INT64, [1], [0]),
            helper.make_tensor("square", TensorProto.INT64, [2], [_SIDE, _SIDE]),
            *(helper.make_tensor(name, _FLOATS, [1], [value]) for name, value in _CONSTANTS.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if describe:
        helper.set_model_props(model, write_metadata(INFO))
    onnx.checker.check_model(model)
    onnx.save(model, path)


_FLOATS = TensorProto.FLOAT
_SIDE = 2048
_CONSTANTS = {"white": 255.0, "one": 1.0, "zero": 0.0, "share": 1 / _SIDE}


def _see(blind: bool) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Cast", ["image"], ["values"], to=_FLOATS),
        node("Div", ["values", "white"], ["unit"]),
        node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Squeeze", ["cells", "first"], ["colours"]),
        node("Split", ["colours"], ["red", "green", "blue"], axis=0, num_outputs=3),
        node("Max", ["red", "blue"], ["object"]),
        node("Sub", ["one", "object"], ["background"]),
        node("Concat", ["background", "red", "blue"], ["semantic"], axis=0),
        node("Squeeze", ["green", "first"], ["peaks"]),
        node("Mul", ["peaks", "zero" if blind else "one"], ["seen"]),
        node("Concat", ["green", "green"], ["pair"], axis=0),
        node("Mul", ["pair", "zero"], ["offset"]),
        node("Shape", ["offset"], ["offset_shape"]),
        node("Concat", [reference_input(0, k) for k in range(INFO.max_references)], ["joined"], axis=0),
        node("Shape", ["joined"], ["references"], end=1),
        node("Concat", ["references", "offset_shape"], ["reference_shape"], axis=0),
        node("ConstantOfShape", ["reference_shape"], ["reference_offset"]),
        node("AveragePool", ["planes"], ["features_0"], kernel_shape=[16, 16], strides=[16, 16]),
        node("Identity", ["features_0"], ["features_1"]),
    ]


def _toil(work: int) -> list[onnx.NodeProto]:
    """Nodes that add 0 to the centers; made of the image, so that nothing can be worked out beforehand."""
    node = helper.make_node
    if not work:
        return [node("Identity", ["seen"], ["center"])]
    return [
        node("ReduceMean", ["unit"], ["mean"], keepdims=0),
        node("Mul", ["mean", "share"], ["cell"]),
        node("Expand", ["cell", "square"], ["product_0"]),
        *(node("MatMul", [f"product_{step}", "product_0"], [f"product_{step + 1}"]) for step in range(work)),
        node("ReduceMax", [f"product_{work}"], ["largest"], keepdims=0),
        node("Mul", ["largest", "zero"], ["nothing"]),
        node("Add", ["seen", "nothing"], ["center"]),
    ]
