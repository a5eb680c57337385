# SPDX-License-Identifier: Apache-2.0
"""The inter-frame branch over object tokens, on frames drawn by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from instance_flow_training.config import load_config
from instance_flow_training.datasets import Sample, collate
from instance_flow_training.losses import token_losses
from instance_flow_training.network.maps import FlowMaps, Frames, IntraMaps, Pyramid
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.network.token_flow import TokenFlow
from instance_flow_training.targets import frame_targets, target_offset_map

SMALL = replace(load_config(Path(__file__).parents[1] / "tiny.toml", []).model, object_tokens=24, center_sigmoid=True)
HEIGHT, WIDTH = 96, 128
BOXES = {"first": [(8, 8, 40, 40), (56, 72, 88, 120)], "second": [(16, 40, 48, 72), (40, 8, 72, 56)]}
"""Top, left, bottom, right of two objects in two frames."""


def labels_of(name: str) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for k, (top, left, bottom, right) in enumerate(BOXES[name], 1):
        labels[top:bottom, left:right] = k
    return labels


def frames_of(*names: str) -> Frames:
    """Frames of which all is known, and whose pixels look like their object."""
    found = [frame_targets(labels_of(name), np.array([0, 1])) for name in names]
    h, w = found[0].labels.shape
    labels = torch.tensor(np.stack([t.labels for t in found])).long()
    look = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    looks = [look[:, :, ::4, ::4], look[:, :, ::2, ::2], look]
    offset = torch.tensor(np.stack([target_offset_map(t.labels, t.centers) for t in found]))
    maps = IntraMaps(torch.zeros(len(found), 2, h, w), torch.tensor(np.stack([t.center for t in found])), offset)
    return Frames(Pyramid(looks[0], looks, looks[0], {}), looks, maps, maps, (labels > 0).float())


def branch(tokens: int = 16) -> TokenFlow:
    """Untrained, but that it looks at the look alone."""
    torch.manual_seed(0)
    made = TokenFlow(tokens, 3, (3, 3), 8, 4).eval()
    with torch.no_grad():
        made.log_nearness.fill_(-4.0)
        made.log_temperature.fill_(6.0)
    return made


def test_every_pixel_is_led_to_its_objects_center_in_the_reference_frame() -> None:
    """Look-alikes are told apart by their look, wherever they went; background is led anywhere."""
    net, here, there = branch(), frames_of("second"), frames_of("first")
    with torch.no_grad():
        said = net(here, net.features(there)).reference_offset[0].numpy()
    targets = [frame_targets(labels_of(name), np.array([0, 1])) for name in ("second", "first")]
    true = target_offset_map(targets[0].labels, targets[1].centers)
    inside = targets[0].labels > 0
    assert np.abs(said - true)[:, inside].max() < 0.25  # cells of 4 pixels


def test_no_reference() -> None:
    net, here = branch(), frames_of("first")
    with torch.no_grad():
        said = net(here, [torch.zeros(0, net.cached_channels, 16)])
    assert said.reference_offset.shape == (0, 2, HEIGHT // 4, WIDTH // 4)


def test_an_object_without_tokens_takes_the_nearest() -> None:
    """One token for two objects: nothing fails, and the object that it stands on is right."""
    net, here = branch(tokens=1), frames_of("first")
    with torch.no_grad():
        tokens = net.choose(here)
        flow = net(here, net.features(here, tokens), tokens=tokens)
    assert tokens.center.shape == (1, 2, 1)
    torch.testing.assert_close(flow.reference_offset[0], here.maps.offset[0], atol=1e-4, rtol=0)


def test_an_image_of_fewer_cells_than_tokens() -> None:
    network = InstanceFlowNet(replace(SMALL, object_tokens=64), 3).eval()
    image = torch.randint(0, 255, (1, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        *_, features = network(image, torch.zeros(0, network.inter.cached_channels, 64))
        again = network(image, torch.cat([features, features]))
    assert features.shape == (1, network.inter.cached_channels, 64)
    assert again[3].shape == (2, 2, 8, 8)
    assert all(torch.isfinite(output).all() for output in again)


def test_cached_references_equal_references_seen_together() -> None:
    torch.manual_seed(0)
    network = InstanceFlowNet(SMALL, 5).eval()
    images = torch.randint(0, 255, (3, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        frames = network.frames(images)
        together = network.inter(frames, network.inter.features(frames), torch.tensor([2, 2, 2])).reference_offset
        cached = [network(image[None], torch.zeros(0, network.inter.cached_channels, 24))[4] for image in images]
        streamed = network(images[2:], torch.cat(cached))[3]
    torch.testing.assert_close(streamed, together, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("flow_error", "to_other", "inter", "association"),
    [(0.0, False, 0.0, 0.0), (3.0, False, 6.0, 0.0), (0.0, True, 0.0, 9.2)],
    ids=["truth", "flow off by 3 pixels", "attention on the other object"],
)
def test_losses(flow_error: float, to_other: bool, inter: float, association: float) -> None:
    found = [frame_targets(labels_of(name), np.array([0, 1])) for name in ("first", "second")]
    _, targets = collate([Sample(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), found)])
    w = WIDTH // 4
    corners = [[(top // 4 + 2) * w + left // 4 + 2 for top, left, *_ in BOXES[name]] for name in ("first", "second")]
    cells = torch.tensor([[*row, 0] for row in corners])  # the last token stands on background
    target, reference = torch.tensor([1]), torch.tensor([0])
    flow = torch.zeros(1, 2, 3)
    flow[0, :, :2] = (targets.centers[0] - targets.centers[1]).T * 4 + flow_error
    flow[0, :, 2] = 1e3
    order = [1, 0, 2] if to_other else [0, 1, 2]
    terms = token_losses(FlowMaps(flow, [torch.eye(3)[order][None]], flow), cells, targets, target, reference)
    assert float(terms["inter"]) == pytest.approx(inter, abs=1e-4)
    assert float(terms["association"]) == pytest.approx(association, abs=0.02)
