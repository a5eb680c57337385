# SPDX-License-Identifier: Apache-2.0
"""Worlds of real cut-outs, on a data set of three drawn pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from instance_flow.formats.rle import encode
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth
from instance_flow.structures import SourceError
from instance_flow_training.datasets import DataConfig, open_training_data
from instance_flow_training.targets import IGNORE
from instance_flow_training.worlds.cutouts import CutoutLibrary, open_cutouts
from instance_flow_training.worlds.synthetic import REAL_SITUATIONS, World, WorldConfig, generate_clip

SIZE = (96, 128)
SMALL = WorldConfig(size=SIZE, frames=12, object_size=(0.2, 0.6))
RED, GREEN = (220, 30, 30), (20, 200, 40)
OBJECTS = {  # picture, class, box (top, left, bottom, right), crowd
    "whole": (0, 1, (20, 30, 100, 90), False),
    "at the border": (0, 1, (0, 100, 90, 159), False),
    "small": (0, 2, (100, 20, 110, 32), False),
    "beside a crowd": (2, 1, (20, 20, 100, 80), False),
    "crowd": (2, 1, (20, 100, 100, 150), True),
    "other": (3, 2, (30, 40, 90, 110), False),
}


def write_set(folder: Path, names: tuple[str, ...] = tuple(OBJECTS)) -> Path:
    """Pictures of 120 x 160 pixels, the second of them empty, with the objects of these names."""
    rng = np.random.default_rng(0)
    (folder / "JPEGImages").mkdir(parents=True)
    pictures = [rng.integers(90, 110, (120, 160, 3), np.uint8) for _ in range(4)]
    annotations: list[Annotation] = []
    for name in names:
        picture, category, (top, left, bottom, right), crowd = OBJECTS[name]
        mask = np.zeros((120, 160), bool)
        mask[top:bottom, left:right] = True
        pictures[picture][mask] = RED if category == 1 else GREEN
        annotations.append(Annotation(len(annotations) + 1, picture + 1, category, [encode(mask)], is_crowd=crowd))
    # An object of a class that is not trained keeps the empty picture in the set.
    annotations.append(Annotation(99, 2, 3, [encode(np.ones((120, 160), bool))]))
    for k, image in enumerate(pictures):
        cv2.imwrite(str(folder / f"JPEGImages/{k}.png"), image[..., ::-1])
    videos = tuple(Video(k + 1, 120, 160, 1, (f"{k}.png",)) for k in range(4))
    categories = tuple(Category(k + 1, name) for k, name in enumerate(("red", "green", "none")))
    write_ground_truth(folder / "instances.json", GroundTruth(videos, categories, tuple(annotations)))
    return folder / "instances.json"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> CutoutLibrary:
    return open_cutouts(write_set(tmp_path_factory.mktemp("cutouts")), None, "red, green")


def test_what_is_cut_out_and_what_is_a_ground(library: CutoutLibrary) -> None:
    """Whole and large objects, of pictures where all is labelled."""
    assert [[cutout.box for cutout in members] for members in library.cutouts] == [
        [(30, 20, 90, 100)],
        [(40, 30, 110, 90)],
    ]
    assert len(library.grounds) == 3
    assert len(library.empty_grounds) == 1


def test_pasted_objects_have_exact_labels(library: CutoutLibrary) -> None:
    """On a grey picture with one red object: reds and greens are new objects where labels say so; all else stays."""
    image = np.full((120, 160, 3), 100, np.uint8)
    labels = np.zeros((120, 160), np.uint8)
    labels[30:90, 60:100], labels[:, 150:] = 1, IGNORE
    image[labels == 1] = RED
    counts, behind = np.zeros(2, int), 0
    for seed in range(40):
        made, painted, classes = library.paste(np.random.default_rng(seed), image, labels, np.array([0]))
        assert 1 <= len(classes) <= 5
        assert (painted[painted != IGNORE] <= len(classes)).all()
        untouched = cv2.dilate((painted != labels).astype(np.uint8), np.ones((15, 15))) == 0
        # Of one that looks in from outside there may be no more than its soft edge.
        assert np.abs(made[untouched].astype(int) - image[untouched]).mean() < 0.1
        for row, class_id in enumerate(classes.tolist()[1:], 2):
            inside = cv2.erode((painted == row).astype(np.uint8), np.ones((5, 5))) > 0
            assert (made[inside].argmax(1) == class_id).all()
            counts[class_id] += inside.any()
        behind += len(classes) > 1 and bool((painted[labels == 1] == 1).all())
    assert counts[0] > 2 * counts[1] > 0, "mostly of the class that is there"
    assert 0 < behind < 40, "some stand behind it"
    assert (image[labels == 1] == RED).all(), "the picture is kept"


def test_stills_with_pasted_objects(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    kinds = [
        open_training_data(
            DataConfig(source="youtube_vis", annotations=str(path), classes="red, green", crop=(96, 128), paste=share),
            40,
            1,
        )
        for share in (0.0, 1.0)
    ]
    plain, pasted = (sum(len(data[i].targets[0].centers) for i in range(20)) for data in kinds)
    assert pasted > plain + 20
    np.testing.assert_array_equal(kinds[1][3].images, kinds[1][3].images)


@pytest.mark.parametrize("situation", REAL_SITUATIONS)
def test_masks_lie_on_the_objects(library: CutoutLibrary, situation: str) -> None:
    """Where a label says red the picture is red, and nowhere else; the ground is grey."""
    clip = generate_clip(5, situation, SMALL, library)
    seen = 0
    for image, labels in zip(clip.images.astype(int), clip.labels, strict=True):
        for row, class_id in enumerate(clip.class_ids):
            inside = cv2.erode((labels == row + 1).astype(np.uint8), np.ones((5, 5))) > 0
            colour = image[inside]
            seen += len(colour)
            strong, weak = (0, 1) if class_id == 0 else (1, 0)
            assert (colour[:, strong] > colour[:, weak] + 20).mean() > 0.9 if len(colour) > 20 else True
    assert seen > 500
    assert clip.class_names == ("red", "green")


def test_the_same_seed_gives_the_same_world(library: CutoutLibrary) -> None:
    for name in REAL_SITUATIONS[:2]:
        first, second = (World(3, name, SMALL, library).render(7) for _ in range(2))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


def test_twins_are_all_the_same(library: CutoutLibrary) -> None:
    for seed in range(6):
        assert len(set(World(seed, "twins", SMALL, library).class_ids.tolist())) == 1


def test_a_furnished_ground_brings_its_objects_along(library: CutoutLibrary) -> None:
    worlds = [World(seed, "mixed", SMALL, library, furnished=True) for seed in range(12)]
    bare = [World(seed, "mixed", SMALL, library) for seed in range(12)]
    assert sum(len(w.class_ids) for w in worlds) > sum(len(w.class_ids) for w in bare)
    labels = np.stack([world.render(t)[1] for world in worlds for t in (0, 11)])
    assert labels.max() in (IGNORE, *range(1, 20))
    assert not (np.stack([world.render(11)[1] for world in bare]) == IGNORE).any()


def test_samples_of_a_data_set_with_cutouts(library: CutoutLibrary) -> None:
    settings: dict[str, Any] = {"source": "youtube_vis", "annotations": str(library.clip_set.images.parent)}
    config = DataConfig(**settings, classes="red, green", crop=(96, 128), frames_per_clip=2, cutouts=1.0)
    data = open_training_data(config, 4, 2)
    for k in range(4):
        sample = data[k]
        assert sample.images.shape == (2, 96, 128, 3)
        assert any((frame.labels > 0).any() for frame in sample.targets)
        np.testing.assert_array_equal(sample.images, data[k].images)


def test_a_set_that_gives_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no object of at least 48 pixels"):
        open_cutouts(write_set(tmp_path, ("small", "crowd")), None, "red, green")
