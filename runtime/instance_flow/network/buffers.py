# SPDX-License-Identifier: Apache-2.0
"""Buffers of the network's device that are used again and again: no frame allocates what an earlier one has freed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar
from weakref import ref

Item = TypeVar("Item")


class Lease(Generic[Item]):
    """A buffer that is in use for as long as this object is referenced.

    number: which one of its pool, from 0.
    """

    __slots__ = ("__weakref__", "item", "number")

    def __init__(self, item: Item, number: int) -> None:
        self.item, self.number = item, number


class Pool(Generic[Item]):
    """Hands out buffers; makes as many as are held at once, and no more. Safe from several threads.

    The free one of the lowest number is taken: a stream that always holds as many comes round to the same order of
    buffers, as a CUDA graph, which is bound to their addresses, wants it.
    """

    def __init__(self, make: Callable[[], Item]) -> None:
        self._make = make
        self._items: list[Item] = []
        self._holders: list[ref[Lease[Item]] | None] = []
        self._lock = Lock()

    def __len__(self) -> int:
        """How many buffers there are, held or free."""
        return len(self._items)

    def take(self) -> Lease[Item]:
        """A free buffer, a new one where all are in use."""
        with self._lock:
            number = next((k for k, holder in enumerate(self._holders) if not holder or not holder()), len(self))
            if number == len(self):
                self._items.append(self._make())
                self._holders.append(None)
            lease = Lease(self._items[number], number)
            self._holders[number] = ref(lease)
            return lease
