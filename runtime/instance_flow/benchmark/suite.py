# SPDX-License-Identifier: Apache-2.0
"""All that ``instance-flow bench`` measures: a model as a robot runs it, and the assembly by number of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from instance_flow.benchmark.costs import BEYOND, ROWS, STEP, WHOLE, Run, StageCost, time_in_turns
from instance_flow.benchmark.machine import machine, memory_mib
from instance_flow.benchmark.scenes import POSES, ExactNetwork, Scene, check_room
from instance_flow.declare import SIZE, check, setting
from instance_flow.network.execution import MOST_THREADS, PROVIDER_NAMES, ExecutionConfig
from instance_flow.network.installation import versions
from instance_flow.network.onnx import OnnxNetwork
from instance_flow.network.protocol import Network
from instance_flow.pipeline import Pipeline
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import Image, ModelError, ModelInfo, Prediction

CACHED, RECOMPUTED, EXACT = "model", "model, references recomputed", "exact maps"
"""What ran: the model as a robot runs it; the same with the features of all references computed again in every frame;
no network, but the maps that a perfect one would give."""

SIZES = ((192, 320), (384, 640), (736, 1280))
OBJECTS = (1, 8, 32, 64)
CAMERA = (480, 640)
"""(height, width) of the pictures for the model at its own input size; at other sizes pictures have that size."""
SHOWN = 8
"""Objects in the pictures for a model."""

_SIDE = 32

Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class BenchSettings:
    """What to measure.

    Raises:
        ValueError: for settings that cannot be measured.
    """

    model: Path
    provider: str = setting("auto", "what the model runs on", choices=PROVIDER_NAMES)
    threads: tuple[int, ...] = setting(
        (0,), "CPU threads of the network, each measured; 0 = one for each core", 0, MOST_THREADS
    )
    sizes: tuple[Size, ...] = setting(
        (), "of pictures and input; none = those of SIZES, where the model takes any size", of=int, parts=SIZE
    )
    objects: tuple[int, ...] = setting(OBJECTS, "in a picture", 1, 65_535)
    references: tuple[int, ...] = setting(
        (), "numbers of them; none = one and as many as the model takes", 1, 16, of=int
    )
    frames: int = setting(30, "that are timed, of each kind", 1, 10**9)

    def __post_init__(self) -> None:
        check(self)
        for height, width in self.sizes:  # As it is typed: the other way round.
            if min(height, width) < _SIDE or height % _SIDE or width % _SIDE:
                raise ValueError(f"size {width}x{height} does not work: both sides must be multiples of {_SIDE}")
        for size in self.sizes or SIZES:
            for count in self.objects:
                check_room(size, count)


@dataclass(frozen=True)
class Measurement:
    """One kind of frames and what they cost.

    what: CACHED, RECOMPUTED or EXACT.   input, picture: width x height of the network's input and of the pictures.
    threads: of the network, 0 = one for each core.   objects: tracks in a frame, on average.
    stages: by ROWS, whose shares add up to 1.   step: ``Pipeline.step``.   beyond_network: as
        ``costs.BEYOND``.   whole_frame: with message and drawing.
    """

    what: str
    input: str
    picture: str
    threads: int
    references: int
    objects: float
    frames: int
    stages: dict[str, StageCost]
    step: StageCost
    beyond_network: StageCost
    whole_frame: StageCost


class RecomputedReferences(Network):
    """A network that remembers its references as pictures and computes their features again for every frame."""

    def __init__(self, network: Network):
        self.info = network.info
        self._network = network

    def predict(self, image: Image, references: Sequence[Image]) -> Prediction:
        """See ``Network``; features are the picture itself."""
        features = [self._network.predict(reference, []).features for reference in references]
        return replace(self._network.predict(image, features), features=image)


def run_bench(settings: BenchSettings, progress: Callable[[str, int, int], object] = lambda *_: None) -> dict[str, Any]:
    """Measure everything; gives what the JSON file holds (docs/performance.md).

    progress: called before each kind of measurement, whose first frame may take long, and after every turn: what is
        being measured, how many turns are done, and how many there are in all.

    Raises:
        ModelError, ValueError: before anything is timed, for a model, provider, size or number of references that do
            not go together.
    """
    network = _open(settings, settings.threads[0])
    provider, info = network.provider, network.info
    sizes, counts = _sizes(settings, network), _reference_counts(settings, info)
    exact = [(size, count) for size in settings.sizes or SIZES for count in settings.objects]
    turns = settings.frames * (len(settings.threads) * (1 + len(sizes)) + len(exact))
    finished = 0

    def report_progress(what: str, more: int = 1) -> None:
        nonlocal finished
        finished += more
        progress(what, finished, turns)

    memory = {"before": memory_mib()}
    measurements: list[Measurement] = []
    for threads, size in product(settings.threads, (None, *sizes)):
        done = partial(report_progress, f"model at {size_name(size or info.input_size)}")
        done(0)
        measurements += _model(_open(settings, threads, size), threads, counts, size, settings.frames, done)
        memory.setdefault("model at its own size", memory_mib())
    for size, count in exact:
        done = partial(report_progress, f"{count} objects at {size_name(size)}")
        done(0)
        measurements.append(_exact(size, count, settings.frames, done))
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "model": {"file": settings.model.name, **asdict(info)},
        "provider": provider,
        "memory": {**memory, "everything": memory_mib()},
        "measurements": [asdict(measurement) for measurement in measurements],
    }


def size_name(size: Size) -> str:
    """640x384 for (384, 640)."""
    return f"{size[1]}x{size[0]}"


def _open(settings: BenchSettings, threads: int, size: Size | None = None) -> OnnxNetwork:
    """The model, as one made for another input size if one is given."""
    network = OnnxNetwork(settings.model, settings.provider, ExecutionConfig(threads=threads))
    if size is not None:
        network.info = replace(network.info, input_size=size)
    return network


def _sizes(settings: BenchSettings, network: OnnxNetwork) -> tuple[Size, ...]:
    """Input sizes beside the model's own."""
    if network.fixed_size is None:
        return settings.sizes or SIZES
    for size in settings.sizes:
        if size != network.fixed_size:
            raise ModelError(
                f"{settings.model}: the model was exported for {size_name(network.fixed_size)} alone, so it cannot be "
                f"measured at {size_name(size)}; leave that size out, or export the model without --static"
            )
    return ()


def _reference_counts(settings: BenchSettings, info: ModelInfo) -> list[int]:
    counts = settings.references or (1, info.max_references)
    for count in counts:
        AssemblyConfig(references=count).check(info)
    return sorted(set(counts))


def _model(
    network: Network, threads: int, counts: Sequence[int], size: Size | None, frames: int, done: Callable[[], object]
) -> Iterator[Measurement]:
    """The model with each number of references, and with as many as possible recomputed, all in turns."""
    images = Scene(size or CAMERA, [SHOWN] * POSES).images
    kinds: list[tuple[str, int, Network]] = [(CACHED, count, network) for count in counts]
    kinds.append((RECOMPUTED, counts[-1], RecomputedReferences(network)))
    runs = [Run(Pipeline(one, AssemblyConfig(references=count)), images) for _, count, one in kinds]
    time_in_turns(runs, frames, done)
    for (what, count, _), run in zip(kinds, runs, strict=True):
        yield _measurement(run, what, threads, count)


def _exact(size: Size, count: int, frames: int, done: Callable[[], object]) -> Measurement:
    scene = Scene(size, [count] * POSES)
    run = Run(Pipeline(ExactNetwork(scene), AssemblyConfig(max_instances=max(100, count))), scene.images)
    time_in_turns([run], frames, done)
    return _measurement(run, EXACT, 0, run.pipeline.info.max_references)


def _measurement(run: Run, what: str, threads: int, references: int) -> Measurement:
    rows = run.costs.summary()
    return Measurement(
        what=what,
        input=size_name(run.pipeline.info.input_size),
        picture=size_name(run.images[0].shape[:2]),
        threads=threads,
        references=references,
        objects=fmean(run.objects),
        frames=len(run.objects),
        stages={name: rows[name] for name in ROWS},
        step=rows[STEP],
        beyond_network=rows[BEYOND],
        whole_frame=rows[WHOLE],
    )
