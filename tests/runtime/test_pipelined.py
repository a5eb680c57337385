# SPDX-License-Identifier: Apache-2.0
"""Frames that overlap give the tracks of frames that do not, whatever the stream does in between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from red_thing import HEIGHT, WIDTH, frames, red_network

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.overlap import Overlap, pipelined
from instance_flow.stream import Stream
from instance_flow.structures import ModelError, Tracks

Frames = list[tuple[NDArray[np.uint8], int | None, str]]
EMPTY = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    (tmp_path / "red.onnx").write_bytes(red_network())
    return Pipeline.load(tmp_path / "red.onnx", "cpu", AssemblyConfig(anchor_frames=2))


def stamped(images: Sequence[NDArray[np.uint8]]) -> Frames:
    return [(image, 10**9 + k * 10**8, "rgb8") for k, image in enumerate(images)]


def film() -> Frames:
    return stamped(frames(10))


def gap() -> Frames:
    return [(image, stamp and stamp + (10**10 if k > 4 else 0), "rgb8") for k, (image, stamp, _) in enumerate(film())]


STREAMS: dict[str, Frames] = {
    "a film": film(),
    "nothing at first": stamped([EMPTY] * 4 + frames(6)),
    "the anchor is released": stamped([*frames(3), *[EMPTY] * 6, *frames(5)]),
    "a recording that begins again": [*film()[:5], *film()],
    "a gap": gap(),
    "another encoding": [(image, stamp, "rgb8" if k < 5 else "bgr8") for k, (image, stamp, _) in enumerate(film())],
    "another size": [*film()[:5], *((image[:64], stamp, name) for image, stamp, name in film()[5:])],
    "no stamps": [(image, None, "rgb8") for image, _, _ in film()],
    "one frame": film()[:1],
    "no frame": [],
}


def assert_same(ours: Sequence[Tracks], theirs: Sequence[Tracks]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name in Tracks.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_the_tracks_are_those_of_one_frame_after_the_other(pipeline: Pipeline, stream: Frames) -> None:
    one_by_one = Stream(pipeline)
    expected = [one_by_one.step(*frame) for frame in stream]
    pipeline.reset()
    assert_same(list(pipelined(Stream(pipeline), stream)), expected)
    assert sum(len(tracks) for tracks in expected) > 0 or not stream


def test_references_that_were_predicted_wrongly_are_put_right(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anchor is released by a frame that is not finished when the next one begins."""
    stream = STREAMS["the anchor is released"]
    seen: list[int] = []
    pipeline.observer = lambda observation: seen.append(len(observation.references))
    plain = Stream(pipeline)
    for frame in stream:
        plain.step(*frame)
    expected, launches = list(seen), []
    pipeline.reset()
    seen.clear()
    launch = pipeline.network.launch

    def count(*arguments: Any) -> Any:
        launches.append(arguments)
        return launch(*arguments)

    monkeypatch.setattr(pipeline.network, "launch", count)
    # Not by ``pipelined``: on a busy machine its frames may happen not to overlap.
    overlap, pending = Overlap(Stream(pipeline)), []
    for frame in stream:
        pending.append(overlap.begin(*frame))
        if len(pending) > 1:
            overlap.finish(pending.pop(0))
    overlap.finish(pending.pop())
    assert seen == expected
    assert len(launches) == len(stream) + 1


def test_a_frame_that_fails_leaves_the_stream_as_it_was(pipeline: Pipeline) -> None:
    stream = Stream(pipeline)
    images = film()
    expected = [stream.step(*frame) for frame in images]
    pipeline.reset()
    stream = Stream(pipeline)
    found = [stream.step(*frame) for frame in images[:4]]
    overlap, before = Overlap(stream), pipeline.snapshot()
    pending = overlap.begin(*images[4])
    pipeline.observer = fail
    with pytest.raises(ModelError, match="spoiled"):
        overlap.finish(pending)
    pipeline.observer = None
    overlap.wait_until_finished()
    for name in ("pipeline.frame_index", "memory.is_anchor", "memory.is_recent"):
        np.testing.assert_array_equal(pipeline.snapshot()[name], before[name], name)
    assert [tracks.ids.tolist() for tracks in found] == [tracks.ids.tolist() for tracks in expected[:4]]


def fail(_: Any) -> None:
    raise ModelError("spoiled")


@pytest.mark.parametrize("cancelled", [False, True], ids=["finished", "cancelled"])
def test_a_break_waits_for_the_frame_before_it(pipeline: Pipeline, cancelled: bool) -> None:
    overlap, images = Overlap(Stream(pipeline)), film()
    pending = overlap.begin(*images[5])
    begun = Event()

    def begin_again() -> None:
        second = overlap.begin(*images[0])
        begun.set()
        assert overlap.finish(second).frame_index == 0

    thread = Thread(target=begin_again)
    thread.start()
    try:
        assert not begun.wait(0.1)
    finally:
        if cancelled:
            overlap.cancel(pending)
        else:
            assert overlap.finish(pending).frame_index == 0
        thread.join()
    assert begun.is_set()


def test_an_error_of_the_source_ends_the_stream_with_it(pipeline: Pipeline) -> None:
    def broken() -> Any:
        yield from film()[:3]
        raise OSError("the camera is gone")

    found: list[Tracks] = []
    with pytest.raises(OSError, match="the camera is gone"):
        found.extend(pipelined(Stream(pipeline), broken()))
    assert [tracks.frame_index for tracks in found] == [0, 1]


def test_a_reader_may_stop(pipeline: Pipeline) -> None:
    tracks = pipelined(Stream(pipeline), film())
    assert next(tracks).frame_index == 0
    tracks.close()  # type: ignore[attr-defined]
    assert pipeline.step(film()[0][0]).frame_index == 1


def test_a_wrong_image_is_refused_as_by_step(pipeline: Pipeline) -> None:
    spoiled: Frames = [*film()[:2], (np.zeros((4, 4), np.uint8), None, "mono8")]
    with pytest.raises(ValueError, match="expected"):
        list(pipelined(Stream(pipeline), spoiled))
