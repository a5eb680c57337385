# SPDX-License-Identifier: Apache-2.0
"""The detector's features: as its authors' graph makes them, and as both branches see them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from instance_flow.structures import ModelError
from instance_flow_training.config import ConfigError, InitConfig, load_config
from instance_flow_training.losses import mistaken_cells, objects_of, owner_loss
from instance_flow_training.network.boxes import DetectionEvidence, suppress
from instance_flow_training.network.detector import CLASSES, HIDDEN, NEVER, YoloxNano
from instance_flow_training.network.maps import Boxes, Claims, IntraMaps
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.targets import IGNORE
from instance_flow_training.weights.initialise import initialise
from instance_flow_training.weights.yolox import take_yolox

TINY = load_config(Path(__file__).parents[1] / "tiny.toml", []).model
CONFIG = replace(TINY, detector="yolox_nano", object_tokens=16)


CLASS_NAMES = ["cat", "unicorn", "person"]
LAST = {"cls": 80, "reg": 4, "obj": 1}


def convolutions(network: YoloxNano) -> list[nn.Conv2d]:
    """Those of its features, in the order in which they run."""
    order: list[nn.Conv2d] = []
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(lambda part, _: order.append(part))
    network(torch.zeros(1, 3, 64, 64))
    return order


def last_layers(without: str = "") -> dict[str, Tensor]:
    """Of every level: row r of classes says r + level / 10, a box (1, 2, 3, 4), an object 5."""
    tensors = {}
    for kind, rows in LAST.items():
        for level in range(3):
            name = f"head.{kind}_preds.{level}"
            tensors[f"{name}.weight"] = torch.zeros(rows, 64, 1, 1)
            bias = {"cls": torch.arange(80) + level / 10, "reg": torch.arange(1.0, 5.0), "obj": torch.tensor([5.0])}
            tensors[f"{name}.bias"] = bias[kind].float()
    return {name: tensor for name, tensor in tensors.items() if not without or without not in name}


def write(path: Path, tensors: list[tuple[Tensor, Tensor]], last: dict[str, Tensor] | None = None) -> Path:
    """A file of convolutions as YOLOX exports them: numbers for names, and last layers in between."""
    rows = [({f"{2 * k}": weight, f"{2 * k + 1}": bias}) for k, (weight, bias) in enumerate(tensors)]
    last = last_layers() if last is None else last
    names = [name.removesuffix(".weight") for name in last if name.endswith(".weight")]
    rows[3:3] = [{f"{name}.{part}": last[f"{name}.{part}"] for part in ("weight", "bias")} for name in names]
    nodes = [helper.make_node("Conv", ["x", *row], [f"y{k}"]) for k, row in enumerate(rows)]
    initialisers = [numpy_helper.from_array(t.detach().numpy(), n) for row in rows for n, t in row.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12, 8, 8])
    onnx.save(helper.make_model(helper.make_graph(nodes, "yolox", [value], [], initialisers)), str(path))
    return path


def stem_of_patches() -> Tensor:
    return torch.randn(16, 12, 3, 3, generator=torch.Generator().manual_seed(1))


def file_tensors() -> list[tuple[Tensor, Tensor]]:
    own = convolutions(YoloxNano(3))
    tensors = [(conv.weight, torch.randn(conv.out_channels)) for conv in own]
    return [(stem_of_patches(), tensors[0][1]), *tensors[1:]]


def test_the_file_s_convolutions_are_taken_in_their_order(tmp_path: Path) -> None:
    tensors, network = file_tensors(), YoloxNano(3)
    take_yolox(network, write(tmp_path / "nano.onnx", tensors), CLASS_NAMES)
    for conv, (weight, bias) in list(zip(convolutions(network), tensors, strict=True))[1:]:
        torch.testing.assert_close(conv.weight, weight)
        torch.testing.assert_close(conv.bias, bias)


def test_the_stem_says_what_patches_of_bgr_pixels_do(tmp_path: Path) -> None:
    network = YoloxNano(3)
    tensors = file_tensors()
    take_yolox(network, write(tmp_path / "nano.onnx", tensors), CLASS_NAMES)
    image = torch.randn(1, 3, 32, 64)
    bgr = image.flip(1)
    patches = torch.cat([bgr[..., y::2, x::2] for x in (0, 1) for y in (0, 1)], 1)
    torch.testing.assert_close(network.stem(image), F.silu(F.conv2d(patches, *tensors[0], padding=1)))


def test_last_layers_are_matched_by_class_name(tmp_path: Path) -> None:
    network = YoloxNano(3)
    take_yolox(network, write(tmp_path / "nano.onnx", file_tensors()), CLASS_NAMES)
    for level in range(3):
        layers = network.class_layers[level], network.object_layers[level]
        biases = [layer.get_parameter("bias").tolist() for layer in layers]
        assert biases == [pytest.approx([15 + level / 10, NEVER, level / 10]), [5.0]]
        assert network.box_layers[level].get_parameter("bias").tolist() == [2.0, 1.0, 4.0, 3.0]
    assert network.find({0: "tie", 2: "unicorn"}) == ["tie"]
    assert network.class_layers[1].get_parameter("bias").tolist() == pytest.approx(
        [CLASSES.index("tie") + 0.1, NEVER, 0.1]
    )


def boxes(*rows: tuple[float, float, float, float, float], classes: int = 2) -> Boxes:
    """Rows of (center y, x, half height, half width, score) in cells, all of the last class."""
    y, x, half_height, half_width, score = torch.tensor(rows).T[:, None]
    known = torch.zeros(1, classes, len(rows))
    known[:, -1] = score
    return Boxes(known, torch.stack([y, x], 1), torch.stack([half_height, half_width], 1), score)


def test_a_box_is_where_its_cell_says() -> None:
    """YOLOX: the middle in cells of the level from the cell's corner, the logarithm of the size in cells."""
    detector = YoloxNano(3)
    features = {s: torch.zeros(1, 2 * HIDDEN, 64 // s, 96 // s) for s in (8, 16, 32)}
    features[16][0, 0, 2, 3] = 1.0
    with torch.no_grad():
        for layer in (*detector.class_layers, *detector.box_layers, *detector.object_layers):
            layer.get_parameter("weight").zero_()
        for layer in detector.object_layers:
            layer.get_parameter("bias").fill_(20.0)
        detector.class_layers[1].get_parameter("weight")[1, 0] = 30.0
        for layer in detector.box_layers:
            layer.get_parameter("bias").copy_(torch.tensor([0.5, 0.25, math.log(2), math.log(3)]))
    found = detector.boxes(features)
    assert found.classes.shape == (1, 3, 256)
    assert found.score[0, 0] > 0.99 > 0.01 > found.score[0, 1]
    # Row 2.5 and column 3.25 of stride 16 are at pixels 40 and 52; the middle of cell i of stride 4 is at 4i + 2.
    assert found.center[0, :, 0].tolist() == pytest.approx([40 / 4 - 0.5, 52 / 4 - 0.5])
    assert found.half[0, :, 0].tolist() == pytest.approx([2 * 16 / 4 / 2, 3 * 16 / 4 / 2])
    assert found.classes[0, :, 0].tolist() == pytest.approx([0, 1, 0], abs=1e-3)


SUPPRESSED = {
    "the same object twice": ([(10, 10, 5, 5, 0.9), (10, 11, 5, 5, 0.5)], [0.9]),
    "side by side": ([(10, 10, 5, 5, 0.9), (10, 18, 5, 5, 0.5)], [0.9, 0.5]),
    "a small one in a large one": ([(10, 10, 9, 9, 0.5), (10, 10, 4, 4, 0.9)], [0.9, 0.5]),
    "a small one that is nearly as sure": ([(10, 10, 9, 9, 0.9), (10, 10, 4, 4, 0.7)], [0.9, 0.7]),
    "a part": ([(10, 10, 9, 9, 0.9), (10, 10, 4, 4, 0.5)], [0.9]),
    "half of a part outside": ([(10, 10, 9, 9, 0.9), (10, 19, 4, 4, 0.5)], [0.9, 0.5]),
    "none": ([(10, 10, 5, 5, 0.0)], []),
}


@pytest.mark.parametrize(("rows", "expected"), SUPPRESSED.values(), ids=SUPPRESSED)
def test_an_object_keeps_one_box(rows: list[tuple[float, ...]], expected: list[float]) -> None:
    score = torch.tensor([row[-1] for row in rows])
    _, order = score.sort(descending=True)
    found = suppress(boxes(*[rows[i] for i in order]), len(rows))
    assert found.score[found.score > 0].tolist() == pytest.approx(expected)


def test_what_lies_in_an_object_of_another_class_is_no_part_of_it() -> None:
    """A driver in the car."""
    car, driver = boxes((10, 10, 9, 9, 0.9)), boxes((10, 10, 4, 4, 0.3))
    driver = driver._replace(classes=driver.classes.flip(1))
    both = Boxes(*(torch.cat(parts, -1) for parts in zip(car, driver, strict=True)))
    assert suppress(both, 2).score[0].tolist() == pytest.approx([0.9, 0.3])


def joined(
    found: Boxes,
    offset: tuple[float, float] = (0.0, 0.0),
    heat: Tensor | None = None,
    semantic: Tensor | None = None,
    unknown: tuple[int, ...] = (),
) -> IntraMaps:
    """The maps of 20 x 30 cells after boxes have joined in; the head is as it begins and adds nothing."""
    semantic = torch.zeros(1, 3, 20, 30) if semantic is None else semantic
    way = torch.tensor(offset).reshape(1, 2, 1, 1).expand(1, 2, 20, 30)
    maps = IntraMaps(semantic, torch.zeros(1, 20, 30) if heat is None else heat, way)
    evidence = DetectionEvidence(4, 4).eval()
    with torch.no_grad():
        learned, made, _ = evidence(found, torch.zeros(1, 4, 20, 30), maps, unknown)
    assert torch.equal(learned.center, maps.center), "losses see the center's head"
    assert torch.equal(learned.offset, maps.offset), "losses see the offset's head"
    return made


def led_to(maps: IntraMaps, y: int, x: int) -> list[float]:
    return (maps.offset[0, :, y, x] + torch.tensor([y, x])).tolist()


def test_cells_of_a_box_are_led_to_its_middle_and_are_of_its_class() -> None:
    maps = joined(boxes((10.2, 8.4, 6, 4, 0.8)), offset=(1.0, 2.0))
    assert led_to(maps, 12, 10) == pytest.approx([10.2, 8.4])
    assert led_to(maps, 2, 25) == pytest.approx([3, 27]), "outside, the offset stays"
    assert maps.center.nonzero().tolist() == [[0, 10, 8]]
    assert maps.center[0, 10, 8] == pytest.approx(0.8)
    assert maps.semantic[0, 2, 10, 8] > 1.5
    assert maps.semantic[0, :, 2, 25].abs().max() < 0.01
    assert maps.semantic[0, 1].max() == 0, "of no other class"
    assert maps.semantic[0, 1, 10, 8] < -1, "which the box speaks against"
    assert joined(boxes((10.2, 8.4, 6, 4, 0.8)), unknown=(0,)).semantic[0, 1].abs().max() == 0, "if it can tell"
    assert -1 < maps.semantic[0, 0, 12, 10] < 0, "a sure box hardly claims a mask: the maps know"
    assert maps.semantic[0, 0, 10, 8] < -10, "its middle is taken for foreground"
    assert maps.semantic[0, 0, 2, 25].abs() < 0.01


def test_a_hardly_sure_box_claims_a_mask_and_hardly_a_class() -> None:
    """Its score, and not a part of a mask, says that it may be no object."""
    weak, sure = (joined(boxes((10, 8, 6, 4, score))) for score in (0.06, 0.9))
    assert weak.semantic[0, 0, 12, 10] < -1.5 < sure.semantic[0, 0, 12, 10]
    assert weak.semantic[0, 2, 12, 10] < 0.5 < 1.5 < sure.semantic[0, 2, 12, 10]
    assert weak.center[0, 10, 8] == pytest.approx(0.06)
    assert joined(boxes((10, 8, 6, 4, 0.04))).semantic.abs().max() == 0, "what is hardly a box says nothing"


OF_AN_OBJECT = {
    "its own box": ((6, 6, 2, 3), 1),
    "a little off": ((6.5, 7, 2, 3), 1),
    "half of it": ((6, 4, 2, 1), 0),
    "around it": ((7, 8, 5, 6), 0),
    "elsewhere": ((14, 20, 2, 3), 0),
    "the other one's": ((14, 7, 1, 2), 2),
}


def two_objects() -> Tensor:
    """The first one fills the rows 4 to 8 and the columns 3 to 9, the second one the rows 13 to 15 and the columns 5 to
    9; a third one of the batch is not in the image."""
    labels = torch.zeros(1, 20, 30, dtype=torch.uint8)
    labels[0, 4:9, 3:10], labels[0, 13:16, 5:10] = 1, 2
    return labels


@pytest.mark.parametrize(("box", "which"), OF_AN_OBJECT.values(), ids=OF_AN_OBJECT)
def test_whose_box_it_is(box: tuple[float, float, float, float], which: int) -> None:
    labels, inside = two_objects(), torch.rand(1, 20, 30)
    found = boxes((*box, 0.5))
    of_box = objects_of(found, labels, 3)
    assert of_box.tolist() == [[which]]
    nothing = torch.zeros(1, 20, 30)
    claims = Claims(found, torch.zeros(1, 600, 1), torch.zeros(1, 600, dtype=torch.long), inside, nothing)
    wrong = labels == 0 if not which else (labels > 0) & (labels != which)
    assert torch.equal(mistaken_cells(claims, of_box, labels), wrong & (inside > 0.5))


def test_cells_learn_to_choose_their_object_s_box_and_to_belong_to_it() -> None:
    """The two boxes of the two objects and one of none; what is unknown and background has no say in the choice."""
    labels = two_objects()
    found = boxes((6, 6, 2.5, 3.5, 0.9), (14, 7, 1.5, 2.5, 0.8), (3, 25, 2, 2, 0.5))
    of_box = objects_of(found, labels, 3)
    right = torch.zeros(1, 600, 3)
    right[0, torch.arange(600), (labels.flatten().long() - 1) % 3] = 9.0
    own = (labels > 0).float() * 18 - 9
    chosen = right.argmax(-1)

    def loss(suits: Tensor = right, belongs: Tensor = own, seen: Tensor = labels) -> float:
        return owner_loss(Claims(found, suits, chosen, torch.ones(1, 20, 30), belongs), of_box, seen, 3).item()

    assert loss() == pytest.approx(0, abs=1e-3)
    assert loss(suits=right.roll(1, -1)) == pytest.approx(9, abs=0.1)
    assert loss(belongs=-own) == pytest.approx(9, abs=0.1)
    background = torch.where((labels == 0).flatten(1)[..., None], right.roll(1, -1), right)
    assert loss(suits=background) == pytest.approx(0, abs=1e-3)
    unknown = torch.where(labels == 2, IGNORE, labels)
    wrong = torch.where((labels == 2).flatten(1)[..., None], right.roll(1, -1), right)
    assert loss(suits=wrong, belongs=torch.where(labels == 2, -own, own), seen=unknown) == pytest.approx(0, abs=1e-3)


def test_offsets_learn_from_the_choice() -> None:
    """A cell between two boxes is pulled towards its own one."""
    found = boxes((10, 8, 6, 6, 0.8), (10, 16, 6, 6, 0.8))
    offset = torch.zeros(1, 2, 20, 30, requires_grad=True)
    maps = IntraMaps(torch.zeros(1, 3, 20, 30), torch.zeros(1, 20, 30), offset)
    _, _, claims = DetectionEvidence(4, 4).eval()(found, torch.zeros(1, 4, 20, 30), maps)
    labels = torch.zeros(1, 20, 30, dtype=torch.uint8)
    labels[0, 10, 12] = 2
    owner_loss(claims, torch.tensor([[1, 2]]), labels, 2).backward()
    assert offset.grad is not None
    assert offset.grad[0, 1, 10, 12] < 0, "less loss the farther to the right it points"
    assert offset.grad.count_nonzero() == 1


def test_a_box_in_front_of_another_s_middle_does_not_take_its_center() -> None:
    """A rider's box over the middle of the horse."""
    maps = joined(boxes((8, 10, 6, 3, 0.9), (11, 10, 7, 9, 0.5)))
    assert maps.center[0].nonzero().tolist() == [[8, 10], [11, 10]]
    assert maps.center[0, [8, 11], [10, 10]].tolist() == pytest.approx([0.9, 0.5])
    assert led_to(maps, 15, 3) == pytest.approx([11, 10])


def test_where_boxes_overlap_a_cell_goes_where_its_offset_points() -> None:
    pair = boxes((10, 8, 6, 6, 0.8), (10, 16, 6, 6, 0.8))
    for offset, middle in {(0.0, -5.0): 8, (0.0, 5.0): 16}.items():
        assert led_to(joined(pair, offset), 10, 12) == pytest.approx([10, middle])
    # The surer one where the offset says nothing.
    sure = boxes((10, 8, 6, 6, 0.9), (10, 16, 6, 6, 0.2))
    assert led_to(joined(sure), 10, 12) == pytest.approx([10, 8])


def test_in_a_box_within_a_box_a_cell_goes_to_the_smaller_one() -> None:
    pair = boxes((10, 12, 8, 10, 0.8), (11, 13, 4, 3, 0.6))
    for cell, middle in {(11, 14): (11, 13), (15, 19): (10, 12)}.items():
        assert led_to(joined(pair), *cell) == pytest.approx(list(middle))


def test_where_boxes_overlap_a_cell_goes_to_the_box_of_its_class() -> None:
    """A rider's legs before the horse."""
    horse, rider = boxes((11, 12, 8, 10, 0.8)), boxes((9, 12, 8, 6, 0.7))
    rider = rider._replace(classes=rider.classes.flip(1))
    both = Boxes(*(torch.cat(parts, -1) for parts in zip(horse, rider, strict=True)))
    semantic = torch.zeros(1, 3, 20, 30)
    semantic[0, 1, :, 10:12], semantic[0, 2, :, 13:15] = 5.0, 5.0
    maps = joined(both, semantic=semantic)
    assert led_to(maps, 12, 10) == pytest.approx([9, 12])
    assert led_to(maps, 12, 14) == pytest.approx([11, 12])


def test_a_class_that_the_detector_does_not_know_is_found_in_a_box_of_another() -> None:
    """A tool in a person's hand."""
    person, heat, semantic = boxes((10, 12, 9, 9, 0.9)), torch.zeros(1, 20, 30), torch.zeros(1, 3, 20, 30)
    heat[0, 8, 18], semantic[0, 1, 6:11, 16:21] = 0.7, 9.0
    maps = joined(person, (0.5, 0.5), heat, semantic, unknown=(0,))
    assert maps.center[0].nonzero().tolist() == [[8, 18], [10, 12]]
    assert led_to(maps, 7, 17) == pytest.approx([7.5, 17.5])
    assert led_to(maps, 14, 17) == pytest.approx([10, 12])
    # Where the detector knows both, its boxes alone say where centers are.
    assert joined(person, (0.5, 0.5), heat, semantic).center[0].nonzero().tolist() == [[10, 12]]


def test_classes_that_no_file_says_are_known_to_be_unknown(tmp_path: Path) -> None:
    network = YoloxNano(3)
    assert network.unknown == (0, 1, 2)
    take_yolox(network, write(tmp_path / "nano.onnx", file_tensors()), CLASS_NAMES)
    assert network.eval().unknown == (1,), "unicorn"


def test_what_no_box_covers_keeps_its_own_peaks() -> None:
    heat = torch.zeros(1, 20, 30)
    heat[0, 10, 9], heat[0, 4, 24], heat[0, 4, 25] = 0.9, 0.6, 0.5
    maps = joined(boxes((10, 8, 6, 4, 0.3)), heat=heat)
    assert maps.center[0].nonzero().tolist() == [[4, 24], [10, 8]]
    assert maps.center[0, [4, 10], [24, 8]].tolist() == pytest.approx([0.6, 0.3])
    weak = joined(boxes((10, 8, 6, 4, 0.01)), heat=heat)
    assert weak.center[0, 10, 9] == pytest.approx(0.9), "a box that is hardly one says nothing"


def test_both_branches_see_the_detector() -> None:
    network = InstanceFlowNet(CONFIG, 3).eval()
    picture = torch.randint(0, 255, (1, 64, 96, 3), dtype=torch.uint8)
    seen = network.pyramid(picture)
    assert network.detector is not None
    first_head = network.detector.heads[0].get_submodule("stem")
    levels = network.detector(picture.permute(0, 3, 1, 2).float())
    assert {s: tuple(x.shape[1:]) for s, x in levels.items()} == {
        s: (c, 64 // s, 96 // s) for s, c in network.detector.channels.items()
    }
    torch.testing.assert_close(seen.instance_deepest, levels[32])
    for skip, stride in zip(seen.skips, (16, 8, 4), strict=True):
        torch.testing.assert_close(skip[:, -levels[stride].shape[1] :], levels[stride])
    maps = network.frames(picture).learned
    for output in (maps.semantic, maps.center, maps.offset):
        network.zero_grad()
        output.square().sum().backward(retain_graph=True)
        assert all(p.grad is not None and p.grad.any() for p in first_head.parameters())


BAD = {
    "missing": (None, "cannot be read"),
    "text": (b"hello", "no ONNX file of YOLOX-Nano"),
    "other network": ([(torch.zeros(4, 3, 3, 3), torch.zeros(4))] * 4, "its 4 convolutions are not the"),
    "without its last layers": ("reg_preds.1", "its layer head.reg_preds.1 is missing"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_files_that_are_no_such_network(
    content: bytes | str | list[tuple[Tensor, Tensor]] | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "nano.onnx"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        write(path, file_tensors(), last_layers(content))
    elif content is not None:
        write(path, content)
    with pytest.raises(ModelError, match=words):
        take_yolox(YoloxNano(3), path, CLASS_NAMES)


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="the dense fusion of the paper sees the backbone alone"):
        replace(TINY, detector="yolox_nano", object_tokens=0)
    with pytest.raises(ConfigError, match=r"init\.yolox needs model\.detector"):
        initialise(InstanceFlowNet(TINY, 2), ["a", "b"], InitConfig(yolox="nano.onnx"))
