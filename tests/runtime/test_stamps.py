# SPDX-License-Identifier: Apache-2.0
"""Stamps as a header can hold them, good and bad."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from instance_flow.formats.stamps import stamp_problem, to_nanoseconds


@pytest.mark.parametrize(
    ("sec", "nanosec", "expected"),
    [
        (0, 1, 1),
        (12, 34, 12_000_000_034),
        (2**31 - 1, 999_999_999, 2_147_483_647_999_999_999),
    ],
    ids=["first nanosecond", "usual", "last of int32"],
)
def test_good_stamp(sec: int, nanosec: int, expected: int) -> None:
    stamp = SimpleNamespace(sec=sec, nanosec=nanosec)
    assert (to_nanoseconds(stamp), stamp_problem(stamp)) == (expected, "")


@pytest.mark.parametrize(
    ("sec", "nanosec", "words"),
    [
        (0, 0, "never set"),
        (-1, 0, "before 1970 (-1 s)"),
        (-1, 999_999_999, "before 1970 (-1 s)"),
        (-(2**31), 0, "before 1970"),
        (5, 10**9, "has 1000000000 nanoseconds"),
        (0, 2**32 - 1, "has 4294967295 nanoseconds"),
    ],
    ids=["never set", "negative", "just below 0", "first of int32", "a full second", "last of uint32"],
)
def test_bad_stamp(sec: int, nanosec: int, words: str) -> None:
    stamp = SimpleNamespace(sec=sec, nanosec=nanosec)
    assert to_nanoseconds(stamp) is None
    assert words in stamp_problem(stamp)
