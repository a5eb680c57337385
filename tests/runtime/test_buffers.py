# SPDX-License-Identifier: Apache-2.0
"""Buffers are reused when they are no longer held, never before, and there are no more than were ever held at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

from instance_flow.network.buffers import Lease, Pool


def numbered() -> Pool[int]:
    numbers = count()
    return Pool(lambda: next(numbers))


def test_a_held_buffer_is_not_given_again() -> None:
    pool = numbered()
    held = [pool.take() for _ in range(3)]
    assert [h.item for h in held] == [h.number for h in held] == [0, 1, 2]
    assert len(pool) == 3


def test_the_free_buffer_of_the_lowest_number_is_taken_again() -> None:
    pool = numbered()
    held = [pool.take() for _ in range(4)]
    del held[1:3]
    assert [pool.take().number, pool.take().number] == [1, 1]  # the first of the two was not kept
    assert len(pool) == 4


def test_a_stream_with_an_anchor_comes_round_to_the_same_buffers() -> None:
    """What a CUDA graph needs: few orders of buffers, again and again."""
    pool = numbered()
    references: list[Lease[int]] = []
    orders = []
    for _ in range(40):
        own = pool.take()
        orders.append((*(r.number for r in references), own.number))
        references = [*references[:1], *references[1:][-2:], own] if references else [own]
    assert len(pool) == 5
    assert len(set(orders[4:])) == 4


def test_threads_never_share_a_buffer() -> None:
    pool = numbered()

    def hold_some(_: int) -> bool:
        held = [pool.take() for _ in range(5)]
        marks = [h.item for h in held]
        return len(set(marks)) == 5 and marks == [h.item for h in held]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(hold_some, range(200)))
    assert len(pool) <= 40
