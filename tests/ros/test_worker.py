# SPDX-License-Identifier: Apache-2.0
"""The thread that works on the newest item of each source."""

from __future__ import annotations

from threading import Event

from instance_flow_ros.worker import NewestItemWorker


class Held:
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
        """Let the worker go on, and give what it worked on until nothing waited any more."""
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
    held = Held()
    assert [held.worker.put("first", item) for item in (2, 3, 4)] == [False, True, True]
    assert held.all_seen() == [("first", 0), ("first", 4)]


def test_no_source_starves_another() -> None:
    """A source that floods keeps its turn, but gets one only."""
    held = Held()
    puts = [("fast", 1), ("slow", 1), ("fast", 2), ("other", 1), ("fast", 3)]
    assert [held.worker.put(*put) for put in puts] == [False, False, True, False, True]
    assert held.all_seen() == [("first", 0), ("fast", 3), ("slow", 1), ("other", 1)]


def test_calls_come_between_two_items() -> None:
    held = Held()
    held.worker.put("first", 1)
    held.worker.call(lambda: held.seen.append(("call", len(held.seen))))
    assert held.all_seen() == [("first", 0), ("call", 1), ("first", 1)]


def test_stop_finishes_the_item_in_work_drops_the_waiting_one_and_makes_the_calls() -> None:
    held = Held()
    held.worker.put("first", 2)
    held.worker.call(lambda: held.seen.append(("call", 0)))
    stopper = Event()
    held.worker.call(stopper.set)
    # stop() waits for the thread, so the item in work has to be let go from another one.
    held.go_on.set()
    held.worker.stop()
    assert stopper.is_set()
    assert held.seen[0] == ("first", 0)
    assert ("call", 0) in held.seen
