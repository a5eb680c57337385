# SPDX-License-Identifier: Apache-2.0
"""The first mutants of every kind of input; ``python tests/mutants.py`` makes as many as its time allows."""

from __future__ import annotations

from pathlib import Path

import mutants
import pytest
from mutants import KINDS, OK, REFUSED, Kind

from instance_flow.structures import InstanceFlowError

pytest.importorskip("rosbags")

COUNTS = {"models": 40, "snapshots": 80}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "checkpoints"])  # those: tests/training
def test_damaged_input_is_used_or_refused_in_a_sentence(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    count = COUNTS.get(kind, 120)
    outcome = mutants.run(kind, tmp_path, 7, lambda number: number < count)
    capfd.readouterr()  # what libraries say of damaged files
    assert outcome.failures == []
    assert outcome.counts[OK] + outcome.counts[REFUSED] == count
    assert min(outcome.counts[OK], outcome.counts[REFUSED]) > 0


def refuse(_: Path, words: str) -> None:
    raise InstanceFlowError(words)


FAILURES = {
    "traceback": lambda _folder, _mutant: [][0],
    "message of two lines": lambda folder, _: refuse(folder, "one\ntwo"),
    "message without words": lambda folder, _: refuse(folder, ""),
    "endless message": lambda folder, _: refuse(folder, "x" * 10_000),
}


@pytest.mark.parametrize("use", FAILURES.values(), ids=FAILURES)
def test_anything_else_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: object) -> None:
    monkeypatch.setitem(KINDS, "odd", Kind(lambda _: [1], lambda _, sound: sound, use))  # type: ignore[arg-type]
    outcome = mutants.run("odd", tmp_path, 0, lambda number: number < 3)
    assert [number for number, _ in outcome.failures] == [0, 1, 2]
    assert not outcome.counts[OK] + outcome.counts[REFUSED]


def test_a_seed_gives_the_same_mutants_again(tmp_path: Path) -> None:
    def of(seed: int) -> list[object]:
        seen: list[object] = []
        mutants.run("evaluation", tmp_path, seed, lambda number: number < 9, lambda _, mutant: seen.append(mutant))
        return seen

    assert of(3) == of(3) != of(4)
