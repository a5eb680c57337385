# SPDX-License-Identifier: Apache-2.0
"""The thread that works on the newest item of each source."""

from __future__ import annotations

from threading import Event

from instance_flow_ros.worker import NewestItemWorker


class BlockedWorker:
    """A worker whose first item is in work until ``go_on`` is set; ``seen`` lists what was worked on."""

    def __init__(self) -> None:
        self._begun, self.go_on = Event(), Event()
        self.seen: list[tuple[str, int]] = []
        self.worker = NewestItemWorker(self._work, "test")
        assert not self.worker.put("first", 0)
        assert self._begun.wait(10)

    def _work(self, source: str, item: int) -> None:
        self._begun.set()
        assert self.go_on.wait(10)
        self.seen.append((source, item))

    def all_seen(self) -> list[tuple[str, int]]:
        """Let the worker continue, and give what it worked on until nothing waited any more."""
        done = Event()
        self.go_on.set()
        while True:
            done.clear()
            before = len(self.seen)
            self.worker.call(done.set)
            assert done.wait(10)
            if len(self.seen) == before:
                break
        self.worker.stop()
        return self.seen


def test_newest_waiting_item_wins() -> None:
    blocked = BlockedWorker()
    assert [blocked.worker.put("first", item) for item in (2, 3, 4)] == [False, True, True]
    assert blocked.all_seen() == [("first", 0), ("first", 4)]


def test_no_source_starves_another() -> None:
    """A source that floods keeps its turn, but gets one only."""
    blocked = BlockedWorker()
    puts = [("fast", 1), ("slow", 1), ("fast", 2), ("other", 1), ("fast", 3)]
    assert [blocked.worker.put(*put) for put in puts] == [False, False, True, False, True]
    assert blocked.all_seen() == [("first", 0), ("fast", 3), ("slow", 1), ("other", 1)]


def test_calls_come_between_two_items() -> None:
    blocked = BlockedWorker()
    blocked.worker.put("first", 1)
    blocked.worker.call(lambda: blocked.seen.append(("call", len(blocked.seen))))
    assert blocked.all_seen() == [("first", 0), ("call", 1), ("first", 1)]


def test_stop_finishes_the_item_in_work_drops_the_waiting_one_and_makes_the_calls() -> None:
    blocked = BlockedWorker()
    blocked.worker.put("first", 2)
    blocked.worker.call(lambda: blocked.seen.append(("call", 0)))
    stopper = Event()
    blocked.worker.call(stopper.set)
    # stop() waits for the thread, so the item in work has to be released from another one.
    blocked.go_on.set()
    blocked.worker.stop()
    assert stopper.is_set()
    assert blocked.seen[0] == ("first", 0)
    assert ("call", 0) in blocked.seen


def test_second_step_of_an_item_runs_beside_the_first_one_of_the_next() -> None:
    """Each of the two waits for the other; one after the other they would wait in vain."""
    begun_2, finishing_1 = Event(), Event()
    log: list[str] = []

    def begin(_: str, item: int) -> int | None:
        if item == 2:
            assert finishing_1.wait(10)
            begun_2.set()
        return None if item == 3 else item

    def finish(source: str, item: int) -> None:
        if item == 1:
            finishing_1.set()
            assert begun_2.wait(10)
        log.append(f"{source} {item}")

    worker = NewestItemWorker(begin, "test", finish)
    for source, item in (("a", 1), ("b", 2), ("c", 3), ("d", 4)):
        worker.put(source, item)
    assert begun_2.wait(10)
    worker.stop()
    assert log[:2] == ["a 1", "b 2"]
    assert "c 3" not in log


def test_never_more_than_one_item_ahead_of_the_second_step() -> None:
    go_on = Event()
    ahead: list[int] = []
    begun, finished = [0], [0]

    def begin(_: int, item: int) -> int:
        begun[0] += 1
        ahead.append(begun[0] - finished[0])
        if begun[0] == 2:
            go_on.set()
        return item

    def finish(_: int, __: int) -> None:
        assert go_on.wait(10)
        finished[0] += 1

    worker = NewestItemWorker(begin, "test", finish)
    for source in range(8):
        worker.put(source, source)
    emptied = Event()
    while begun[0] < 8:
        worker.call(emptied.set)
        assert emptied.wait(10)
    worker.stop()
    assert (finished[0], max(ahead)) == (8, 2)
