# SPDX-License-Identifier: Apache-2.0
"""One thread that works on the newest item only, so that a slow network never falls behind its camera."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestItemWorker(Generic[Item]):
    """Call ``work`` with items that are put, in a thread of its own.

    One item may wait; a newer one takes its place. ``work`` must not raise.
    """

    def __init__(self, work: Callable[[Item], None], name: str) -> None:
        self._work = work
        self._waiting: list[Item] = []
        self._stopping = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name=name)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Hand over an item; tells whether an older one was dropped for it."""
        with self._changed:
            dropped = bool(self._waiting)
            self._waiting = [item]
            self._changed.notify()
        return dropped

    def stop(self) -> None:
        """Let the item in work come to its end, drop the waiting one, and join the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                item = self._waiting.pop()
            self._work(item)
