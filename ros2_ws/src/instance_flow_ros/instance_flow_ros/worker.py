# SPDX-License-Identifier: Apache-2.0
"""Work on the newest item of each source only, in a thread or two: a slow network never falls behind its cameras."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition, Thread
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class NewestItemWorker(Generic[Key, Item]):
    """Call ``work`` with a source and its item, in a thread of its own.

    One item of each source may wait; a newer one takes its place and its turn. Sources are served in the order in which
    they began to wait, so that none of them can starve another. ``work`` and ``finish`` must not raise.

    Args:
        name: of the threads.
        finish: second step of the work, if any, in a second thread: it takes the result of ``work``, unless that is
            None, while ``work`` begins with the next item. ``work`` is never more than one item ahead of it.
    """

    def __init__(
        self, work: Callable[[Key, Item], Any], name: str, finish: Callable[[Key, Any], None] | None = None
    ) -> None:
        self._work, self._finish = work, finish
        self._second = ThreadPoolExecutor(1, f"{name}_finish")
        self._finishing: Future[None] | None = None
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
        """Let what is in work come to its end, drop what waits, make the calls that wait, and join the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        self._second.shutdown()

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
                begun = self._work(source, item)
                if self._finish is not None and begun is not None:
                    self._submit_second(source, begun)
            elif self._stopping:
                return

    def _submit_second(self, source: Key, begun: Any) -> None:
        if self._finishing is not None:
            self._finishing.result()
        self._finishing = self._second.submit(self._finish, source, begun)  # type: ignore[arg-type]
