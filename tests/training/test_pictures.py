# SPDX-License-Identifier: Apache-2.0
"""Pictures of training: targets under predictions, on the same wheels; and panels of a synthetic world, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from instance_flow.commands.cli import main
from instance_flow.formats.video import open_source
from instance_flow.formats.video_writer import VideoWriter
from instance_flow.pictures.draw import class_colours
from instance_flow.pictures.flow_colours import NOTHING, flow_colours
from instance_flow.pictures.panels import nice
from instance_flow.pictures.tile_page import GAP, HEADING, TITLE
from instance_flow.pictures.tiles import heat_colours
from instance_flow_training.loop.pictures import training_panels
from instance_flow_training.losses import BatchTargets
from instance_flow_training.network.model import IntraMaps
from instance_flow_training.targets import IGNORE
from instance_flow_training.worlds.synthetic import WorldConfig, generate_clip

HEIGHT, WIDTH = 288, 480
"""Such that tiles are as large as the picture."""
SPOT, ASIDE, UNKNOWN = (140, 200), (20, 20), (140, 440)
"""Pixels on the object, on background, and where nothing is known."""


def floats(values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, IntraMaps, Tensor, BatchTargets, Tensor, Tensor]:
    """Two frames; an object of class 1 at the same place, its center 5 cells to the right in the second frame."""
    h, w = HEIGHT // 4, WIDTH // 4
    labels = torch.zeros((2, h, w), dtype=torch.uint8)
    labels[:, 20:50, 30:70] = 1
    labels[:, :, 100:] = IGNORE
    semantic = torch.where(labels == 1, 2, labels).repeat_interleave(4, 1).repeat_interleave(4, 2)
    centers = torch.tensor([[[35.0, 45.0]], [[35.0, 50.0]]])
    targets = BatchTargets(semantic, labels, torch.full((2, h, w), 0.75), centers, torch.ones((2, 1)))
    logits = torch.stack([torch.zeros((2, h, w)), torch.full((2, h, w), 4.0), torch.zeros((2, h, w))], 1)
    offset = torch.zeros((2, 2, h, w))
    offset[:, 1] = 2.0
    images = torch.full((2, HEIGHT, WIDTH, 3), 90, dtype=torch.uint8)
    images[0] = 60
    maps = IntraMaps(logits.to(dtype), torch.full((2, h, w), 0.25, dtype=dtype), offset.to(dtype))
    return images, maps, -offset[:1].to(dtype), targets, torch.tensor([1]), torch.tensor([0])


def tiles_of(page: NDArray[np.uint8]) -> list[list[NDArray[np.uint8]]]:
    tops = [HEADING + TITLE + row * (HEIGHT + TITLE + GAP) for row in range(2)]
    lefts = [GAP + column * (WIDTH + GAP) for column in range(5)]
    return [[page[top : top + HEIGHT, left : left + WIDTH] for left in lefts] for top in tops]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_prediction_over_target(dtype: torch.dtype) -> None:
    (frame, semantic, heat, offset, inter), (past, true_semantic, true_heat, true_offset, true_inter) = tiles_of(
        training_panels(*batch(dtype), class_names=("fish", "star"))
    )
    assert (frame[SPOT].tolist(), past[SPOT].tolist()) == ([90] * 3, [60] * 3)
    np.testing.assert_array_equal(semantic[ASIDE], class_colours([0])[0])
    np.testing.assert_array_equal(true_semantic[SPOT], class_colours([1])[0])
    assert true_semantic[ASIDE].tolist() == list(NOTHING)
    assert true_semantic[UNKNOWN].tolist() not in (list(NOTHING), class_colours([0])[0].tolist())
    np.testing.assert_array_equal(heat[SPOT], heat_colours(floats([[0.25]]))[0, 0])
    np.testing.assert_array_equal(true_heat[SPOT], heat_colours(floats([[0.75]]))[0, 0])
    for tile in (offset, inter, true_offset, true_inter):
        assert tile[ASIDE].tolist() == list(NOTHING), "offsets are shown on true objects"
        assert tile[UNKNOWN].tolist() == list(NOTHING)


def test_offsets_of_both_rows_are_on_one_wheel() -> None:
    """Of nine in ten of the object's pixels the center lies nearer than the rim, in image pixels."""
    said, true = tiles_of(training_panels(*batch(), class_names=("fish", "star")))
    ys, xs = np.mgrid[20:50, 30:70]
    for column, center, constant in ((3, 50, 2.0), (4, 45, -2.0)):
        rim = nice(float(np.percentile(np.hypot(35 - ys, center - xs), 90)) * 4)
        np.testing.assert_array_equal(said[column][SPOT], flow_colours(floats([[[0]], [[constant * 4]]]), rim)[0, 0])
        # The middle of the cell at row 35, column 60, between pixels: its four neighbours are alike.
        expected = flow_colours(floats([[[0]], [[(center - 60) * 4]]]), rim)[0, 0]
        np.testing.assert_allclose(true[column][142, 242].astype(int), expected, atol=6)


def test_an_object_that_the_reference_does_not_show_has_no_offset_there() -> None:
    images, maps, inter, targets, target, reference = batch()
    targets.centers[0] = torch.nan
    _, true = tiles_of(training_panels(images, maps, inter, targets, target, reference, ("fish", "star")))
    assert true[3][SPOT].tolist() != list(NOTHING)
    assert true[4][SPOT].tolist() == list(NOTHING)


def test_a_frame_without_a_reference_is_shown_alone() -> None:
    images, maps, inter, targets, target, reference = batch()
    page = training_panels(images, maps, inter[:0], targets, target[:0], reference[:0], ("fish", "star"))
    above, below = ([row[k] for k in range(4)] for row in tiles_of(page))
    assert (above[0][SPOT].tolist(), below[0][SPOT].tolist()) == ([90] * 3, [90] * 3)
    assert above[3][SPOT].tolist() != list(NOTHING)
    assert page.shape[1] < 5 * (WIDTH + GAP)


def test_a_batch_without_objects() -> None:
    images, maps, inter, targets, target, reference = batch()
    targets.labels.zero_()
    targets.semantic.zero_()
    said, _ = tiles_of(training_panels(images, maps, inter, targets, target, reference, ("fish", "star")))
    assert (said[3] == NOTHING).all()


def test_panels_of_a_made_world(tmp_path: Path, bundled_model: Path) -> None:
    clip = generate_clip(7, "crossing", WorldConfig(size=(192, 320), frames=4))
    with VideoWriter(tmp_path / "world.mp4", 10) as video:
        for image in clip.images:
            video.write(image)
    command = ["run", str(tmp_path / "world.mp4"), "--model", str(bundled_model), "--provider", "cpu", "--panels"]
    assert main([*command, "--out", str(tmp_path / "out"), "--no-video"]) == 0
    pages = [frame.image for frame in open_source(tmp_path / "out" / "panels.mp4")]
    assert len(pages) == 4
    for number, page in enumerate(pages):
        first, second = _references(page)[:2]
        assert (first, second) == (number > 0, number > 1), "newest references come first, none in the first frame"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def _references(page: NDArray[np.uint8]) -> list[bool]:
    """Which of the four tiles of the last row show colours."""
    top = HEADING + TITLE + 2 * (288 + TITLE + GAP)
    tiles = [page[top : top + 288, GAP + k * 492 : GAP + k * 492 + 480].astype(int) for k in range(4)]
    return [bool((tile.max(-1) - tile.min(-1) > 60).any()) for tile in tiles]
