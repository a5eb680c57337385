# SPDX-License-Identifier: Apache-2.0
"""What a journal keeps, what it does with damage, and the bytes of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow import Pipeline
from instance_flow.formats.video import Frame, Refuse, SourceCamera
from instance_flow.replay.frame_results import FrameResult, pack, unpack
from instance_flow.replay.journal import Journal
from instance_flow.replay.numbers import RunNumbers
from instance_flow.replay.run import Lane, run
from instance_flow.report.run_statistics import Statistics
from instance_flow.stream import Stream
from instance_flow.structures import LAST_ID, Image, InstanceFlowError, ModelInfo, Prediction, Tracks

FACTS = {"source": "clip", "max_gap": 2.0}


class Squares:
    """Sees red squares where they are, each with its center where green stands, and no motion at all."""

    info = ModelInfo(name="squares", class_names=("square",), input_size=(96, 128))

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        cells = image[2::4, 2::4].astype(np.float32) / np.float32(255)
        semantic = np.stack([1 - cells[:, :, 0], cells[:, :, 0]]).astype(np.float32)
        zeros = np.zeros((2, *cells.shape[:2]), np.float32)
        flow = np.zeros((len(references), *zeros.shape), np.float32)
        return Prediction(semantic, cells[:, :, 1], zeros, flow, np.zeros(3, np.float32))


def picture(number: int, height: int = 96) -> Image:
    """As many squares as the number says, up to three."""
    image = np.zeros((height, 128, 3), np.uint8)
    for x in range(8, 8 + 36 * (number % 4), 36):
        image[20:40, x : x + 20, 0] = 255
        image[28:32, x + 8 : x + 12, 1] = 255
    return image


def same(a: Tracks, b: Tracks) -> bool:
    return all(
        np.array_equal(value, vars(b)[name], equal_nan=True)
        and np.asarray(value).dtype == np.asarray(vars(b)[name]).dtype
        for name, value in vars(a).items()
        if name != "names"  # the model's, which no journal repeats
    )


def stream() -> Stream:
    return Stream(Pipeline(Squares()))


@pytest.mark.parametrize("number", range(4), ids="{} squares".format)
def test_an_answer_comes_back_exactly(number: int) -> None:
    own = stream()
    own.step(picture(1), 10**9)
    result = FrameResult(own.step(picture(number), 2 * 10**9), 0.0123456789, breaks="the size changed")
    again = unpack(pack(result))
    assert result.tracks is not None
    assert again.tracks is not None
    assert same(again.tracks, result.tracks)
    assert (again.seconds, again.refusal, again.breaks) == (0.0123456789, "", "the size changed")


def test_a_refusal_comes_back() -> None:
    result = FrameResult(None, refusal="frame 3: grün \udcff?")
    assert unpack(pack(result)) == result


def write(
    folder: Path, count: int, facts: dict[str, Any] = FACTS, interval: int = 4, seconds: float = 0.0
) -> list[FrameResult]:
    """A run that dies, without a word, after so many frames."""
    results, own = [], stream()
    journal = Journal(folder, facts, interval)
    journal.__enter__()
    for number in range(count):
        results.append(FrameResult(own.step(picture(number), number * 10**8), seconds))
        journal.add(results[-1])
        journal.end_frame([own])
    journal._stack.close()
    return results


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8), (13, 12)], ids=str)
def test_what_led_to_the_last_snapshot_is_taken_over(tmp_path: Path, count: int, kept: int) -> None:
    results = write(tmp_path / "journal", count)
    own, whole = stream(), stream()
    for number in range(kept):
        whole.step(picture(number), number * 10**8)
    with Journal(tmp_path / "journal", FACTS, 4) as journal:
        journal.restore([own])
        past = list(journal.past())
        assert (journal.length, len(past)) == (kept, kept)
        for found, result in zip(past, results, strict=False):
            assert found.tracks is not None
            assert result.tracks is not None
            assert same(found.tracks, result.tracks)
        for number in range(kept, kept + 6):
            stamp = number * 10**8
            assert same(own.step(picture(number), stamp), whole.step(picture(number), stamp))
        journal.complete()
    assert not (tmp_path / "journal").exists()


class Pictures:
    """A source of so many frames."""

    name, rate = "pictures", 10.0

    def __init__(self, length: int) -> None:
        self.length: int | None = length
        self.cameras: Sequence[SourceCamera] = (SourceCamera("", "", length, self.rate),)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames(lambda *_: None)

    def frames(self, refuse: Refuse) -> Iterator[Frame]:  # noqa: ARG002 - all of them can be used
        for number in range(self.length or 0):
            yield Frame(picture(number), number * 10**8, "", "", number=number)


def test_time_that_went_before_counts(tmp_path: Path) -> None:
    """A resumed run is no faster than one that was never stopped."""
    write(tmp_path / "journal", 4, seconds=1000.0)
    lane = Lane(Pipeline(Squares()), [], Statistics())
    with Journal(tmp_path / "journal", FACTS) as journal:
        run(Pictures(6), [lane], journal=journal)
    assert (lane.taken_over, lane.statistics.frames) == (4, 6)
    assert 4000 <= lane.statistics.elapsed < 4500


def change_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "snapshot.npz").unlink(),
        lambda folder: (folder / "snapshot.npz").write_bytes(b"text"),
        lambda folder: (folder / "answers").unlink(),
        lambda folder: (folder / "answers").write_bytes(b""),
        lambda folder: (folder / "answers").write_bytes((folder / "answers").read_bytes()[:500]),
        lambda folder: change_byte(folder / "answers", 300),
        lambda folder: change_byte(folder / "answers", 3),
    ],
    ids=["no snapshot", "snapshot of text", "no results", "empty", "cut off", "a bit", "a bit of the heading"],
)
def test_a_damaged_journal_is_begun_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    write(tmp_path / "journal", 8)
    damage(tmp_path / "journal")
    with Journal(tmp_path / "journal", FACTS) as journal:
        assert journal.length == 0
        assert list(journal.past()) == []
    assert not (tmp_path / "journal").exists(), "of a run that came to nothing, nothing is left"


def test_a_journal_of_another_run_is_begun_anew_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even its snapshot is left, which would fit results of the same length."""
    write(tmp_path / "journal", 8)
    write(tmp_path / "journal", 3, {**FACTS, "max_gap": 1.0})
    assert "another source, model or settings" in caplog.text
    assert not (tmp_path / "journal" / "snapshot.npz").exists()
    with Journal(tmp_path / "journal", {**FACTS, "max_gap": 1.0}) as journal:
        assert journal.length == 0


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "out" / "journal", FACTS), pytest.raises(InstanceFlowError, match="out: another run"):
        Journal(tmp_path / "out" / "journal", FACTS).__enter__()


def test_ids_and_frames_go_on_through_resets() -> None:
    own, numbers = stream(), RunNumbers()
    seen = []
    for number, height in ((2, 96), (3, 96), (1, 64), (1, 64), (0, 96), (2, 96)):
        tracks = own.step(picture(number, height), None)
        numbered = numbers(tracks)
        assert (numbered.label_map > 0).sum() == (tracks.label_map > 0).sum()
        assert set(np.unique(numbered.label_map)) == {0, *numbered.ids.tolist()}
        seen.append((numbered.frame_index, numbered.ids.tolist(), numbered.reference_frames.tolist()))
    assert seen == [
        (0, [1, 2], [-1, -1]),
        (1, [1, 2, 3], [0, 0, -1]),
        (2, [4], [-1]),
        (3, [4], [2]),
        (4, [], []),
        (5, [5, 6], [-1, -1]),
    ]


def test_a_run_that_has_given_all_ids_says_so() -> None:
    own, numbers = stream(), RunNumbers()
    numbers(own.step(picture(2, 96), None))
    numbers._last_id = LAST_ID
    own.reset()
    with pytest.raises(InstanceFlowError, match=f"the run has given all ids up to {LAST_ID}"):
        numbers(own.step(picture(2, 96), None))
