# SPDX-License-Identifier: Apache-2.0
"""Samples of data sets: labels move exactly with pixels, clips are consistent, and what is unknown touches no loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from instance_flow.formats.rle import encode
from instance_flow.pipeline import Pipeline
from instance_flow.structures import SourceError
from instance_flow_training.comparing.scoring import score_videos
from instance_flow_training.config import load_config
from instance_flow_training.datasets import DataConfig, Sample, TrainingData, collate, open_training_data
from instance_flow_training.loop.step import forward_losses
from instance_flow_training.losses import BatchTargets, LossConfig, dense_losses, intra_losses, weighted
from instance_flow_training.network.maps import FlowMaps, IntraMaps
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.targets import IGNORE
from instance_flow_training.worlds.oracle import OracleNetwork
from instance_flow_training.worlds.synthetic import WorldConfig, generate_clip
from instance_flow_training.worlds.world_files import write_ytvis

COLOURS = np.array([[90, 90, 90], [250, 10, 10], [10, 250, 10], [10, 10, 250]], np.uint8)
"""Of the background and of three objects; 127, the grey of the padding, is none of them."""
CROWD = np.array([250, 250, 10], np.uint8)
SIZE = (120, 160)


def scene(shift: int = 0) -> NDArray[np.uint8]:
    """Labels of a box, a disc and a bar; ``shift`` moves the disc. The last object is hidden where it is 30."""
    labels = np.zeros(SIZE, np.uint8)
    labels[20:70, 15:50] = 1
    cv2.circle(labels, (100 + shift, 60), 24, (2,), -1)
    if shift != 30:
        labels[90:104, 30:140] = 3
    return labels


def write_scenes(root: Path, videos: Sequence[Sequence[NDArray[np.uint8]]], **more: Any) -> DataConfig:
    """Frames painted in the objects' colours, and their annotations; object 3 is a crowd where ``crowd`` is given."""
    crowd = more.pop("crowd", False)
    data: dict[str, Any] = {
        "videos": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(("box", "disc", "bar"), 1)],
    }
    colours = COLOURS.copy()
    if crowd:
        colours[3] = CROWD
    for v, frames in enumerate(videos, 1):
        names = [f"{v}/{t}.png" for t in range(len(frames))]
        (root / "JPEGImages" / str(v)).mkdir(parents=True)
        for name, labels in zip(names, frames, strict=True):
            cv2.imwrite(str(root / "JPEGImages" / name), colours[labels][..., ::-1])
        data["videos"].append(
            {"id": v, "height": SIZE[0], "width": SIZE[1], "length": len(frames), "file_names": names}
        )
        data["annotations"] += [
            {
                "id": 10 * v + k,
                "video_id": v,
                "category_id": k,
                "iscrowd": int(crowd and k == 3),
                "segmentations": [encode(labels == k) if (labels == k).any() else None for labels in frames],
            }
            for k in (1, 2, 3)
        ]
    (root / "instances.json").write_text(json.dumps(data))
    settings = {"crop": (96, 128), "colour": 0.0, "frames_per_clip": 3, "first_seed": 5, **more}
    return DataConfig(source="youtube_vis", annotations=str(root), **settings)


def write_stills(root: Path, count: int, **more: Any) -> DataConfig:
    """The same scenes as COCO has them: one picture each, with polygons for the box and run lengths for the others."""
    images, annotations = [], []
    (root / "val").mkdir()
    for i in range(count):
        labels = scene(2 * i)
        cv2.imwrite(str(root / f"val/{i}.png"), COLOURS[labels][..., ::-1])
        images.append({"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]})
        box: list[Any] = [[15, 20, 50, 20, 50, 70, 15, 70]]
        masks = [box, encode(labels == 2), encode(labels == 3)]
        annotations += [
            {"id": 3 * i + k, "image_id": i, "category_id": k + 1, "iscrowd": 0, "segmentation": segmentation}
            for k, segmentation in enumerate(masks)
        ]
    categories = [{"id": i, "name": name} for i, name in enumerate(("box", "disc", "bar"), 1)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "instances_val.json").write_text(text)
    settings = {"crop": (96, 128), "colour": 0.0, "frames_per_clip": 3, "first_seed": 5, **more}
    return DataConfig(source="coco", annotations=str(root / "instances_val.json"), **settings)


def write_moving(root: Path, **more: Any) -> DataConfig:
    return write_scenes(root, [[scene(shift) for shift in range(start, start + 16, 2)] for start in (0, 16)], **more)


def full_labels(sample: Sample) -> list[NDArray[np.uint8]]:
    """Label maps (H, W); here class k is object k + 1, so that the semantics at full size say who is who."""
    return [target.semantic for target in sample.targets]


def interior(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the pixels at the edge, which are a mixture of colours, and those at the picture's side."""
    return cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=(0,)) > 0


SETS: dict[str, Callable[..., DataConfig]] = {
    "video": write_moving,
    "stills": lambda root, **more: write_stills(root, 3, **more),
    "video of one frame": lambda root, **more: write_scenes(root, [[scene()]], **more),
}
VIEWS: dict[str, dict[str, Any]] = {
    "the paper's scales": {},
    "larger": {"scales": (1.5, 2.0)},
    "padded on all sides": {"crop": (224, 256)},
    "never mirrored": {"flip": False, "scales": (1.0,)},
}


@pytest.mark.parametrize("write", SETS.values(), ids=SETS)
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_labels_move_exactly_with_pixels(
    tmp_path: Path, write: Callable[..., DataConfig], view: dict[str, Any]
) -> None:
    data = open_training_data(write(tmp_path, **view), 12, 4)
    seen = set()
    for i in range(12):
        sample = data[i]
        assert sample.images.shape == (3, *data.config.crop, 3)  # type: ignore[attr-defined]
        for image, labels in zip(sample.images, full_labels(sample), strict=True):
            for label, colour in enumerate(COLOURS):
                named, painted = labels == label, (image == colour).all(-1)
                assert painted[interior(named)].all()
                assert named[interior(painted)].all()
                seen |= {label} if named.any() else set()
            padding = (image == 127).all(-1)
            assert (labels[interior(padding)] == IGNORE).all()
    assert seen == {0, 1, 2, 3}


def test_a_clip_that_stands_still_gives_equal_frames(tmp_path: Path) -> None:
    data = open_training_data(write_scenes(tmp_path, [[scene()] * 6], colour=0.5), 8, 4)
    for i in range(8):
        sample = data[i]
        for image, target in zip(sample.images, sample.targets, strict=True):
            np.testing.assert_array_equal(image, sample.images[0])
            np.testing.assert_array_equal(target.labels, sample.targets[0].labels)
    assert not np.array_equal(data[0].images, data[1].images)


def test_stills_move(tmp_path: Path) -> None:
    data = open_training_data(write_stills(tmp_path, 2, crop=(192, 224), scales=(1.0,)), 20, 4)
    moves = [np.diff([target.centers for target in data[i].targets], axis=0) for i in range(20)]
    lengths = np.linalg.norm(moves, axis=-1)
    assert np.nanmedian(lengths) > 0.5
    assert np.nanmax(lengths) < 0.5 * SIZE[1] / 4  # cells: no move is a jump
    # All objects follow one camera: they move alike, but not by the same vector.
    assert np.nanmedian(np.nanmax(np.ptp(moves, axis=2), axis=-1)) < np.nanmax(lengths)


def same(a: Sample, b: Sample) -> bool:
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [(a.images, b.images)]
    for x, y in zip(a.targets, b.targets, strict=True):
        pairs += [(x.semantic, y.semantic), (x.labels, y.labels), (x.centers, y.centers), (x.weight, y.weight)]
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs)


@pytest.mark.parametrize("write", SETS.values(), ids=SETS)
def test_samples_depend_on_seed_and_number_alone(tmp_path: Path, write: Callable[..., DataConfig]) -> None:
    config = write(tmp_path, colour=0.3)
    forward, backward = open_training_data(config, 6, 2), open_training_data(config, 600, 3)
    later = {i: backward[i] for i in reversed(range(6))}
    assert all(same(forward[i], later[i]) for i in range(6))
    assert not same(forward[0], open_training_data(replace(config, first_seed=6), 6, 2)[0])
    loader = torch.utils.data.DataLoader(forward, 2, num_workers=1, collate_fn=collate)
    for k, (images, _) in enumerate(loader):
        np.testing.assert_array_equal(images[:3], forward[2 * k].images)


def test_each_pass_takes_every_clip_once(tmp_path: Path) -> None:
    config = write_scenes(tmp_path, [[np.where(scene() > 0, k, 0).astype(np.uint8)] * 3 for k in (1, 2, 3)])
    data = open_training_data(replace(config, scales=(0.5,)), 60, 2)
    shown = np.array([np.unique(data[i].targets[0].semantic)[1] for i in range(60)]).reshape(20, 3)
    assert (np.sort(shown, 1) == [1, 2, 3]).all()
    assert len(np.unique(shown, axis=0)) > 3


def test_a_video_shorter_than_a_clip_repeats_frames(tmp_path: Path) -> None:
    config = write_scenes(tmp_path, [[scene(0), scene(16)]], scales=(0.5,), flip=False)
    sample = open_training_data(replace(config, frames_per_clip=4), 1, 1)[0]
    equal = [np.array_equal(a, b) for a, b in zip(sample.images, sample.images[1:], strict=False)]
    assert sorted(equal) == [False, True, True]


def gradients(data: TrainingData) -> tuple[BatchTargets, list[NDArray[np.float32]]]:
    """Targets of a sample, and how much each cell counts for the losses of random maps, (B, h, w) each."""
    images, targets = collate([data[0]])
    frames, (h, w) = len(images), targets.labels.shape[1:]
    target, reference = torch.tensor([1, 2, 2]), torch.tensor([0, 0, 1])
    generator = torch.Generator().manual_seed(0)
    shapes = ((frames, len(data.class_names) + 1, h, w), (frames, h, w), (frames, 2, h, w), (3, 2, h, w))
    maps = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    semantic, center, offset, towards = maps
    terms = intra_losses(IntraMaps(semantic, center, offset), targets, LossConfig())
    terms |= dense_losses(offset, FlowMaps(towards, []), targets, target, reference, LossConfig())
    weighted(terms, LossConfig())["total"].backward()
    touched = []
    for one in maps:
        assert one.grad is not None
        touched.append((one.grad.abs() if one.ndim == 3 else one.grad.abs().sum(1)).numpy())
    return targets, touched


def far_from_known(semantic: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Cells whose class says nothing of any pixel with a known one: logits are spread over 6 pixels around a cell."""
    unknown = [(frame == IGNORE).astype(np.uint8) for frame in semantic]
    return np.stack([cv2.erode(frame, np.ones((17, 17), np.uint8))[2::4, 2::4] > 0 for frame in unknown])


MASKED: dict[str, Callable[[Path], DataConfig]] = {
    "crowd": lambda root: write_moving(root, crowd=True, scales=(0.5,)),
    "unlabelled": lambda root: write_moving(root, ignore_unlabelled=True),
    "padding": lambda root: write_moving(root, crop=(192, 192), scales=(0.5,)),
}


@pytest.mark.parametrize("write", MASKED.values(), ids=MASKED)
def test_what_is_unknown_touches_no_loss(tmp_path: Path, write: Callable[[Path], DataConfig]) -> None:
    targets, (semantic, center, offset, towards) = gradients(open_training_data(write(tmp_path), 1, 1))
    labels, far = targets.labels.numpy(), far_from_known(targets.semantic.numpy())
    unknown = labels == IGNORE
    assert far.any()
    assert (semantic[far] == 0).all()
    for touched, of_cells in ((center, unknown), (offset, unknown), (towards, unknown[[1, 2, 2]])):
        assert (touched[of_cells] == 0).all()
    known = (labels > 0) & ~unknown
    assert known.any()
    for touched in (semantic, center, offset):
        assert (touched[known] > 0).all()


def test_a_set_of_partial_labels_shows_objects(tmp_path: Path) -> None:
    """A view of nothing but unknown pixels has no loss at all, so another one is drawn."""
    small = np.zeros(SIZE, np.uint8)
    small[5:9, 5:9] = 1
    config = write_scenes(tmp_path, [[small] * 3], ignore_unlabelled=True, crop=(64, 64), scales=(1.0,))
    data = open_training_data(config, 30, 2)
    shown = [(data[i].targets[0].semantic == 1).any() for i in range(30)]
    assert all(shown)


def test_score_of_a_perfect_tracker_on_videos_from_disk(tmp_path: Path) -> None:
    clip = generate_clip(3, "crossing", WorldConfig(size=(64, 96), frames=8))
    other = generate_clip(4, "crossing", WorldConfig(size=(64, 96), frames=8))
    write_ytvis([clip, clip, other], tmp_path)
    pipeline = Pipeline(OracleNetwork(clip))
    twice = score_videos(pipeline, tmp_path / "instances.json", tmp_path / "JPEGImages", limit=2)
    tracking = twice["tracking"]["class_agnostic"]
    assert (twice["AP"], tracking["HOTA"], tracking["IDSW"]) == (1.0, pytest.approx(1.0), 0)
    assert score_videos(pipeline, tmp_path)["AP"] < 0.9


def test_score_needs_a_common_class(tmp_path: Path) -> None:
    config = write_moving(tmp_path)
    clip = generate_clip(3, "mixed", WorldConfig(size=(64, 96), frames=2))
    with pytest.raises(SourceError, match="the model knows none of its categories: they are box, disc, bar"):
        score_videos(Pipeline(OracleNetwork(clip)), Path(str(config.annotations)))


@pytest.mark.parametrize("name", ["videos", "images"])
def test_one_training_step_on_real_pixels(shared: Path, name: str) -> None:
    settings = load_config(Path(__file__).parents[1] / "tiny.toml", [])
    data_config = DataConfig(
        source="youtube_vis", annotations=str(shared / "real" / name), crop=(128, 128), frames_per_clip=2
    )
    config = replace(settings, data=data_config)
    data = open_training_data(data_config, 4, 2)
    network = InstanceFlowNet(config.model, len(data.class_names))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    images, targets = collate([data[0], data[1]])
    total = forward_losses(network, images, targets, config)["total"]
    total.backward()
    optimizer.step()
    assert np.isfinite(total.item())
    assert all(torch.isfinite(p).all() for p in network.parameters())
