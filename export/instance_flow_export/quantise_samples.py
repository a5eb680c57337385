# SPDX-License-Identifier: Apache-2.0
"""What a network is quantised on: frames of streams, each with features that the network itself cached before."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.bags import is_bag
from instance_flow.formats.video import PICTURES, Source, open_source
from instance_flow.network.onnx import OnnxNetwork, reference_input
from instance_flow.network.protocol import Network
from instance_flow.pipeline import Pipeline
from instance_flow.structures import Image, ModelInfo, Prediction, SourceError
from instance_flow_training.worlds.synthetic import SITUATIONS, World, WorldConfig

SAMPLES = 64
"""Frames that are looked at, in all."""
SPACING = 5
"""Frames of a stream from one that is looked at to the next: neighbours say the same."""
VIDEOS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".mcap", ".db3"})
FIRST_SEED = 2_000_000
"""First seed of the synthetic worlds: none is used in training or validation."""

Sample = dict[str, NDArray[Any]]
"""The graph's inputs for one frame, by name, no reference missing."""

_log = logging.getLogger("instance_flow")


def streams_of_worlds(count: int, info: ModelInfo) -> list[Iterable[Image]]:
    """Synthetic clips of all situations in turn, at the network's input size. Raises ValueError for none."""
    if count < 1:
        raise ValueError(f"--worlds is {count}; it must be at least 1")
    config = WorldConfig(size=info.input_size)
    worlds = [World(FIRST_SEED + k, SITUATIONS[k % len(SITUATIONS)], config) for k in range(count)]
    return [_Rendered(world) for world in worlds]


def streams_in(path: Path) -> list[Iterable[Image]]:
    """The streams at a path: a folder of pictures (one stream), a folder of videos and bags, or a single one of these.

    Raises SourceError where there is nothing that can be read.
    """
    if path.is_dir() and not is_bag(path):
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        videos = [file for file in files if file.suffix.lower() in VIDEOS]
        if not videos and not any(file.suffix.lower() in PICTURES for file in files):
            raise SourceError(
                f"{path}: this folder holds no pictures ({', '.join(sorted(PICTURES))}) and no videos "
                f"({', '.join(sorted(VIDEOS))}); put in what the robot will see, {SAMPLES} frames or more"
            )
        if videos:
            return [_Opened(open_source(file)) for file in videos]
    return [_Opened(open_source(path))]


def take_samples(network: OnnxNetwork, streams: Sequence[Iterable[Image]]) -> Iterator[Sample]:
    """Run the streams through the deployed pipeline and give every so-manieth frame with its references' features.

    A frame that has fewer references than the graph takes gets those that it has again, and the first of a stream its
    own features: the range of values of a reference that is missing would be that of nothing.

    Raises SourceError where the streams have not one frame.
    """
    recorder = _SampleRecorder(network)
    share = -(-SAMPLES // len(streams))
    found = False
    for stream in streams:
        pipeline = Pipeline(recorder)
        spacing = max(1, min(SPACING, (getattr(stream, "length", None) or SPACING * share) // share))
        for index, image in enumerate(islice(stream, share * spacing)):
            recorder.enabled = index % spacing == spacing - 1
            pipeline.step(image)
            if recorder.enabled:
                found = True
                yield recorder.sample
    if not found:
        raise SourceError("not one frame could be read, so there is nothing to quantise on")


class _SampleRecorder(Network):
    """A network that keeps what its graph was fed with, where ``enabled``."""

    def __init__(self, network: OnnxNetwork) -> None:
        self.network, self.info = network, network.info
        self.enabled = False
        self.sample: Sample = {}

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        prediction = self.network.predict(image, references)
        if self.enabled:
            given = islice(cycle(references or [prediction.features]), self.info.max_references)
            self.sample = {"image": image[None].copy()}
            for k, features in enumerate(given):
                arrays = features.to_arrays()
                self.sample |= {reference_input(level, k): array for level, array in enumerate(arrays)}
        return prediction


class _Rendered:
    """The frames of a synthetic world, rendered when they are asked for."""

    def __init__(self, world: World) -> None:
        self.length = world.config.frames
        self._world = world

    def __iter__(self) -> Iterator[Image]:
        return (np.asarray(self._world.render(t)[0], np.uint8) for t in range(self.length))


class _Opened:
    """The pictures of a source; those that cannot be read are left out, and named."""

    def __init__(self, source: Source) -> None:
        self.length = source.length
        self._source = source

    def __iter__(self) -> Iterator[Image]:
        return (frame.image for frame in self._source.frames(lambda _camera, _number, why: _log.warning("%s", why)))
