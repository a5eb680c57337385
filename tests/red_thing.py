# SPDX-License-Identifier: Apache-2.0
"""An ONNX model that follows one red object, clips that show one, and what is read from a run's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.video_writer import VideoWriter
from instance_flow.network.onnx import reference_input, write_metadata
from instance_flow.structures import ModelInfo

HEIGHT, WIDTH = 96, 128
START, STEP = 1_700_000_000_123_456_789, 10**8
"""Stamp of the first frame of a bag, and nanoseconds between two; bags are received at 10^18 and so on."""
INFO = ModelInfo(name="red thing", class_names=("red",), input_size=(HEIGHT, WIDTH))


def red_network(info: ModelInfo = INFO) -> bytes:
    """An ONNX model that finds the red pixels, takes them for one object, and remembers its center as its features.

    The file beside this one is what ``build_graph`` gives, so that no test but one needs onnx.
    """
    graph = Path(__file__).with_name("red_thing.onnx").read_bytes()
    # Protocol Buffers that follow each other are one message: field 14 of a model, its properties, is added.
    return graph + b"".join(
        _field(14, _field(1, name.encode()) + _field(2, text.encode())) for name, text in write_metadata(info).items()
    )


def _field(number: int, value: bytes) -> bytes:
    length, rest = b"", len(value)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + value


def build_graph() -> Any:
    """Written to red_thing.onnx by ``SerializeToString``."""
    onnx = pytest.importorskip("onnx")
    make = onnx.helper.make_node
    references = [[reference_input(level, k) for k in range(INFO.max_references)] for level in (0, 1)]
    nodes = [
        make("Slice", ["image", "from", "to", "axes", "steps"], ["cells"]),
        make("Cast", ["cells"], ["colours"], to=onnx.TensorProto.FLOAT),
        make("Split", ["colours"], ["red", "green", "blue"], axis=3, num_outputs=3),
        make("Sub", ["red", "green"], ["redness"]),
        make("Greater", ["redness", "limit"], ["is_red"]),
        make("Cast", ["is_red"], ["foreground_4d"], to=onnx.TensorProto.FLOAT),
        make("Squeeze", ["foreground_4d", "axes_0_3"], ["foreground"]),
        make("Sub", ["one", "foreground"], ["background"]),
        make("Unsqueeze", ["background", "axis_0"], ["background_1"]),
        make("Unsqueeze", ["foreground", "axis_0"], ["foreground_1"]),
        make("Concat", ["background_1", "foreground_1"], ["semantic"], axis=0),
        make("Mul", ["foreground", "zero"], ["zeros"]),
        make("Add", ["zeros", "one"], ["ones"]),
        make("ReduceSum", ["foreground", "axes_0_1"], ["area"], keepdims=0),
        make("Max", ["area", "one"], ["at_least_one"]),
    ]
    for axis, name in enumerate("yx"):
        nodes += [
            make("CumSum", ["ones", f"index_{axis}"], [name], exclusive=1),
            make("Mul", [name, "foreground"], [f"{name}_inside"]),
            make("ReduceSum", [f"{name}_inside", "axes_0_1"], [f"{name}_sum"], keepdims=0),
            make("Div", [f"{name}_sum", "at_least_one"], [f"{name}_center"]),
            make("Sub", [f"{name}_center", name], [f"{name}_offset"]),
            make("Unsqueeze", [f"{name}_offset", "axis_0"], [f"{name}_offset_1"]),
            make("Mul", [f"{name}_offset", f"{name}_offset"], [f"{name}_square"]),
            make("Slice", ["red", "zero_2", "far_2", "axes_1_2", "steps_4"], [f"grid_{name}"]),
            make("Transpose", [f"grid_{name}"], [f"grid_{name}_t"], perm=[0, 3, 1, 2]),
            make("Mul", [f"grid_{name}_t", "zero"], [f"grid_{name}_zero"]),
            make("Add", [f"grid_{name}_zero", f"{name}_center"], [f"features_{axis}"]),
            make("Concat", references[axis], [f"joined_{axis}"], axis=0),
            make("ReduceMean", [f"joined_{axis}", "axes_1_2_3"], [f"{name}_before"]),
            make("Sub", [f"{name}_before", name], [f"{name}_reference"]),
        ]
    nodes += [
        make("Concat", ["y_offset_1", "x_offset_1"], ["offset"], axis=0),
        make("Concat", ["y_reference", "x_reference"], ["reference_offset"], axis=1),
        make("Add", ["y_square", "x_square"], ["distance"]),
        make("Div", ["distance", "minus_eight"], ["exponent"]),
        make("Exp", ["exponent"], ["center"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "from": np.array([2, 2]), "to": np.array([2**31, 2**31]), "axes": np.array([1, 2]), "steps": np.array([4, 4]),
        "zero_2": np.array([0, 0]), "far_2": np.array([2**31, 2**31]), "axes_1_2": np.array([1, 2]),
        "steps_4": np.array([4, 4]), "axes_0_3": np.array([0, 3]), "axis_0": np.array([0]),
        "axes_0_1": np.array([0, 1]), "axes_1_2_3": np.array([1, 2, 3]), "index_0": np.array(0), "index_1": np.array(1),
        "limit": np.array(60, np.float32), "zero": np.array(0, np.float32), "one": np.array(1, np.float32),
        "minus_eight": np.array(-8, np.float32),
    }  # fmt: skip
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    grid = ["h16", "w16"]
    inputs = [value("image", onnx.TensorProto.UINT8, [1, "H", "W", 3])]
    inputs += [value(name, kind, [f"has_{name}", 1, *grid]) for level in references for name in level]
    results = [value("semantic", kind, [2, "h", "w"]), value("center", kind, ["h", "w"])]
    results += [value("offset", kind, [2, "h", "w"]), value("reference_offset", kind, ["R", 2, "h", "w"])]
    results += [value(f"features_{level}", kind, [1, 1, *grid]) for level in (0, 1)]
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(nodes, "red", inputs, results, arrays)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def frames(count: int = 6) -> list[NDArray[np.uint8]]:
    """A red square of 24 pixels that moves 8 pixels to the right per frame, on gray."""
    images = []
    for number in range(count):
        image = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
        image[32:56, 16 + 8 * number : 40 + 8 * number] = (220, 30, 30)
        images.append(image)
    return images


def write_source(path: Path, images: list[NDArray[np.uint8]]) -> Path:
    if path.suffix == ".mp4":
        with VideoWriter(path, 10) as video:
            for image in images:
                video.write(image)
    elif path.suffix in (".mcap", ".db3"):
        with BagWriter(path) as bag:
            for number, image in enumerate(images):
                bag.write_image(
                    "/camera", image, START + number * STEP, frame_id="optical", received=10**18 + number * STEP
                )
    else:
        path.mkdir()
        for number, image in enumerate(images):
            cv2.imwrite(str(path / f"{number:05}.png"), image[..., ::-1])
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
