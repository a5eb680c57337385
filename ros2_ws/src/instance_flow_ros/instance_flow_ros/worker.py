# SPDX-License-Identifier: Apache-2.0
"""One thread that works on the newest item of each source only: a slow network never falls behind its cameras."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Condition, Thread
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class NewestItemWorker(Generic[Key, Item]):
    """Call ``work`` with a source and its item, in a thread of its own.

    One item of each source may wait; a newer one takes its place and its turn. Sources are served in the order in which
    they began to wait, so that none of them can starve another. ``work`` must not raise.
    """

    def __init__(self, work: Callable[[Key, Item], None], name: str) -> None:
        self._work = work
        self._waiting: dict[Key, Item] = {}
        self._calls: list[Callable[[], None]] = []
        self._stopping = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name=name)
        self._thread.start()

    def put(self, source: Key, item: Item) -> bool:
        """Hand over an item; tells whether an older one was dropped for it."""
        with self._changed:
            dropped = source in self._waiting
            self._waiting[source] = item
            self._changed.notify()
        return dropped

    def call(self, function: Callable[[], None]) -> None:
        """Have a function called in the thread, before the next item. It must not raise."""
        with self._changed:
            self._calls.append(function)
            self._changed.notify()

    def stop(self) -> None:
        """Let the item in work come to its end, drop those that wait, make the calls that do, and join the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._calls or self._stopping)
                calls, self._calls = self._calls, []
                item = None
                if self._waiting and not self._stopping:
                    source = next(iter(self._waiting))
                    item = self._waiting.pop(source)
            for function in calls:
                function()
            if item is not None:
                self._work(source, item)
            elif self._stopping:
                return
