# SPDX-License-Identifier: Apache-2.0
"""The thread that works on the newest item, and the stream that it steps."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
from blobs import RED, draw

from instance_flow import AssemblyConfig, Pipeline
from instance_flow_ros.stream import Stream
from instance_flow_ros.worker import NewestItemWorker


def test_newest_waiting_item_wins() -> None:
    begun, go_on, done, seen = Event(), Event(), Event(), []

    def work(item: int) -> None:
        begun.set()
        assert go_on.wait(10)
        seen.append(item)
        if item == 4:
            done.set()

    worker = NewestItemWorker(work, "test")
    assert not worker.put(1)
    assert begun.wait(10)
    assert [worker.put(item) for item in (2, 3, 4)] == [False, True, True]
    go_on.set()
    assert done.wait(10)
    worker.stop()
    assert seen == [1, 4]


def test_stop_finishes_the_item_in_work_and_drops_the_waiting_one() -> None:
    begun, go_on, seen = Event(), Event(), []

    def work(item: int) -> None:
        begun.set()
        assert go_on.wait(10)
        seen.append(item)

    worker = NewestItemWorker(work, "test")
    worker.put(1)
    assert begun.wait(10)
    worker.put(2)
    go_on.set()
    worker.stop()
    assert seen in ([1], [1, 2])  # The second may have begun in between; none is cut off.


@pytest.mark.parametrize(
    ("frames", "expected", "reasons"),
    [
        pytest.param([(96, 1), (96, 2), (96, 3)], [0, 1, 2], 0, id="steady"),
        pytest.param([(96, 5), (96, 5)], [0, 1], 0, id="same_stamp_twice"),
        pytest.param([(96, 5), (96, 4), (96, 5)], [0, 0, 1], 1, id="stamp_runs_back"),
        pytest.param([(96, 5), (96, None), (96, 6)], [0, 1, 2], 0, id="one_stamp_is_missing"),
        pytest.param([(96, None), (96, None)], [0, 1], 0, id="no_stamps"),
        pytest.param([(96, 5), (96, None), (96, 1), (96, 2)], [0, 1, 0, 1], 1, id="runs_back_behind_a_missing_stamp"),
        pytest.param([(96, 1), (64, 2), (64, 3), (96, 4)], [0, 0, 1, 0], 2, id="size_changes_there_and_back"),
        pytest.param([(96, 2), (64, 1)], [0, 0], 1, id="size_and_stamp"),
    ],
)
def test_stream_begins_anew_where_it_must(
    blobs_model: Path, frames: list[tuple[int, int | None]], expected: list[int], reasons: int
) -> None:
    told: list[str] = []
    stream = Stream(Pipeline.load(blobs_model, "cpu"), told.append)
    found = [stream.step(draw([(30, 40, RED)], (height, 128)), stamp).frame_index for height, stamp in frames]
    assert (found, len(told)) == (expected, reasons)


def test_stream_goes_on_with_another_pipeline(blobs_model: Path) -> None:
    pipeline = Pipeline.load(blobs_model, "cpu")
    stream, image = Stream(pipeline, lambda _: None), draw([(30, 40, RED), (90, 40, RED)])
    assert [len(stream.step(image, stamp)) for stamp in (1, 2)] == [2, 2]
    stream.begin_anew(Pipeline(pipeline.network, AssemblyConfig(max_instances=1)))
    tracks = stream.step(image, 3)
    assert (tracks.frame_index, len(tracks)) == (0, 1)
