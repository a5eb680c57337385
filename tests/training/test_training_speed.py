# SPDX-License-Identifier: Apache-2.0
"""Speed of training: what a step waits for, what is said of it, and that no setting changes what is learnt."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from instance_flow_training.config import load_config
from instance_flow_training.datasets import collate
from instance_flow_training.loop import step_clock
from instance_flow_training.loop.step import update
from instance_flow_training.loop.step_clock import StepClock, Timing, advice, expected
from instance_flow_training.loop.training_log import TrainingLog
from instance_flow_training.loop.training_run import TrainingRun, open_run
from instance_flow_training.losses import BatchTargets
from instance_flow_training.speed import keep_freed_memory
from instance_flow_training.weights.checkpoint import save_checkpoint

REPOSITORY = Path(__file__).parents[2]
TINY = REPOSITORY / "tests" / "tiny.toml"
CPU = torch.device("cpu")

ADVICE = {
    "data in time": (Timing(10, 10.0, 0.5), 1, 8, ""),
    "nothing timed": (Timing(), 1, 8, ""),
    "no workers": (Timing(10, 10.0, 2.0), 0, 8, "20% of its time; data.workers is 0, 1 would do: set data.workers=1"),
    "no workers, much data": (Timing(10, 10.0, 8.0), 0, 8, "data.workers is 0, 4 would do: set data.workers=4"),
    "one worker too few": (Timing(10, 10.0, 1.0), 1, 8, "10% of its time; data.workers is 1, 2 would do"),
    "half of them": (Timing(10, 10.0, 5.0), 3, 8, "50% of its time; data.workers is 3, 6 would do"),
    "more than cores": (Timing(10, 10.0, 5.0), 3, 4, "6 would do, but a process has 4 core(s) here: take more cores"),
    "waiting alone": (Timing(1, 1.0, 1.0), 0, 2, "100% of its time"),
}


@pytest.mark.parametrize(("timing", "workers", "cores", "said"), ADVICE.values(), ids=ADVICE)
def test_advice_where_the_step_waits(timing: Timing, workers: int, cores: int, said: str) -> None:
    sentence = advice(timing, workers, cores)
    assert said in sentence
    assert bool(said) == bool(sentence)


EXPECTED = {
    "no workers": (3.0, 1.0, 0, 0.25),
    "one that keeps up": (3.0, 3.0, 1, 0.0),
    "one of two": (2.0, 4.0, 1, 0.5),
    "two of two": (2.0, 4.0, 2, 0.0),
}


@pytest.mark.parametrize(("compute", "making", "workers", "share"), EXPECTED.values(), ids=EXPECTED)
def test_share_that_a_dry_run_expects(compute: float, making: float, workers: int, share: float) -> None:
    assert expected(compute, making, workers).share == share


class HandClock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    clock = HandClock()
    monkeypatch.setattr(step_clock, "time", clock)
    return clock


def test_waits_are_told_from_work_and_neither_start_nor_pauses_count(hand: HandClock) -> None:
    def batches() -> Any:
        for seconds in (100.0, 1.0, 2.0, 0.0, 0.5):
            hand.now += seconds
            yield seconds

    clock, taken = StepClock(CPU), []
    for step, _ in enumerate(clock.waiting(batches())):
        hand.now += 3.0
        clock.done()
        if step == 1:
            with clock.paused():
                hand.now += 1000.0
        if step in (0, 2):
            taken.append(clock.take())
    taken.append(clock.take())
    assert taken == [Timing(), Timing(2, 9.0, 3.0), Timing(2, 6.5, 0.5)]
    assert clock.take() == Timing()


def test_two_passes_of_a_step_are_one_step(hand: HandClock) -> None:
    def batches() -> Any:
        while True:
            hand.now += 1.0
            yield "pass"

    clock = StepClock(CPU)
    source = clock.waiting(batches())
    for _ in range(3):
        list(islice(source, 2))
        clock.done()
    assert clock.take() == Timing(2, 4.0, 4.0)


def test_a_starved_run_is_warned_of_once_and_sums_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = TrainingLog(tmp_path, 0, 100, 4, 0)
    with caplog.at_level(logging.INFO, "instance_flow_training"):
        log.speed(Timing(9, 9.0, 3.0), 10)
        assert caplog.messages == []
        log.speed(Timing(11, 11.0, 5.0), 21)
        log.speed(Timing(20, 20.0, 12.0), 41)
        log.close()
    warning, summary = caplog.messages
    assert warning.startswith("the step waits for data 40% of its time; data.workers is 0")
    assert summary == "40 steps at 1 s, 0.5 s of it (50.0%) waiting for data; 4 clips/s"


def first_update(settings: list[str]) -> tuple[TrainingRun, dict[str, float]]:
    config = load_config(TINY, settings)
    run = open_run(config, None)
    batch = collate([run.data[0], run.data[1]])
    terms = update(run.fabric, run.module, run.optimizer, [batch], config)
    return run, {name: term.item() for name, term in terms.items()}


SPEED_SETTINGS = {
    "channels first": "speed.channels_last=false",
    "memory given back": "speed.keep_memory=false",
    "fused Adam": "speed.fused_adam=true",
}


@pytest.mark.parametrize("setting", SPEED_SETTINGS.values(), ids=SPEED_SETTINGS)
def test_a_setting_of_speed_learns_the_same(setting: str) -> None:
    (plain, expected_terms), (changed, terms) = first_update([]), first_update([setting])
    assert terms == pytest.approx(expected_terms, rel=1e-4)
    for (name, ours), theirs in zip(changed.network.named_parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-2, atol=1e-3, msg=name)


def test_channels_lie_side_by_side_unless_told_otherwise() -> None:
    for settings, side_by_side in ([], True), (["speed.channels_last=false"], False):
        weight = open_run(load_config(TINY, settings), None).network.get_parameter("backbone.features.0.0.weight")
        assert weight.shape[1:] == (3, 3, 3)
        assert weight.is_contiguous(memory_format=torch.channels_last) == side_by_side


@pytest.mark.parametrize(("before", "after"), [("false", "true"), ("true", "false")])
def test_a_run_goes_on_with_its_own_kind_of_adam(tmp_path: Path, before: str, after: str) -> None:
    begun, _ = first_update([f"speed.fused_adam={before}"])
    begun.step = 1
    save_checkpoint(tmp_path / "checkpoint.pt", begun.state())
    config = load_config(TINY, [f"speed.fused_adam={after}"])
    run = open_run(config, tmp_path / "checkpoint.pt")
    assert {bool(group["fused"]) for group in run.optimizer.param_groups} == {after == "true"}
    batch = collate([run.data[2], run.data[3]])
    assert update(run.fabric, run.module, run.optimizer, [batch], config)["total"].isfinite()


LOADERS = {
    "one worker": ["data.workers=1"],
    "two workers, one pass ahead": ["data.workers=2", "data.prefetch=1"],
    "two workers, more ahead than there is": ["data.workers=2", "data.prefetch=9"],
}


@pytest.mark.parametrize("settings", LOADERS.values(), ids=LOADERS)
def test_workers_hand_over_the_same_passes_in_the_same_order(settings: list[str]) -> None:
    def passes(more: list[str]) -> list[tuple[torch.Tensor, BatchTargets]]:
        run = open_run(load_config(TINY, ["accumulate=2", *more]), None)
        run.step = 1
        return list(run.passes(4))

    plain, ahead = passes([]), passes(settings)
    assert len(plain) == len(ahead) == 6
    for (images, targets), (same_images, same_targets) in zip(plain, ahead, strict=True):
        assert torch.equal(images, same_images)
        for name, tensor in targets._asdict().items():
            torch.testing.assert_close(getattr(same_targets, name), tensor, rtol=0, atol=0, equal_nan=True, msg=name)


def test_all_of_a_pass_is_put_where_a_gpu_copies_from() -> None:
    """Without a GPU torch refuses to pin a tensor, which shows that it found one: what it does not know it hands on."""
    run = open_run(load_config(TINY, []), None)
    _, targets = collate([run.data[0]])
    if torch.cuda.is_available():
        assert all(tensor.is_pinned() for tensor in pin_memory(targets))
    else:
        with pytest.raises(RuntimeError):
            pin_memory(targets)


def test_kept_memory_is_not_faulted_in_again() -> None:
    if not keep_freed_memory():
        pytest.skip("only glibc keeps memory")
    program = """
import resource
import numpy as np
from instance_flow_training.speed import keep_freed_memory
def faults():
    np.ones(1 << 24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults())
keep_freed_memory()
print(faults())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < 100
    assert given_back > 10 * kept


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script bench/training_speed.py as a module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "bench"))
    return importlib.import_module("training_speed")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bench_changes_settings_that_there_are(bench: Any, device: str) -> None:
    for case in bench.CASES[device]:
        for changes in (*bench.VARIANTS[device].values(), *bench.LOOPS[device].values()):
            load_config(bench.CONFIGS / case.config, [*case.settings, *changes])


BENCH_COLUMNS = {
    "step": {"s/step", "CPU s/step", "clips/s", "GiB"},
    "loop": {"s/step", "waiting", "clips/s"},
    "data": {"clips/s per worker", "workers for 100 clips/s"},
}


@pytest.mark.parametrize("what", BENCH_COLUMNS)
def test_bench_measures_a_tiny_network(bench: Any, what: str) -> None:
    assert set(bench.measured(what, TINY, ["device=cpu"], 1)) == BENCH_COLUMNS[what]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_step_on_cuda_never_makes_the_host_wait(precision: str) -> None:
    config = load_config(TINY, ["device=cuda", f"precision={precision}"])
    run = open_run(config, None)
    batch = pin_memory(collate([run.data[0], run.data[1]]))
    update(run.fabric, run.module, run.optimizer, [batch], config)
    torch.cuda.set_sync_debug_mode("error")
    try:
        update(run.fabric, run.module, run.optimizer, [batch], config)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_waiting_is_the_devices() -> None:
    """A wait of the host that falls into the device's work is none; one after it is."""
    device = torch.device("cuda")
    matrix = torch.rand(4096, 4096, device=device)

    def batches(until_idle: bool) -> Any:
        while True:
            if until_idle:
                torch.cuda.synchronize(device)
                sum(k * k for k in range(1_000_000))
            yield "pass"

    shares = []
    for until_idle in (False, True):
        clock = StepClock(device)
        for _ in islice(clock.waiting(batches(until_idle)), 4):
            for _ in range(50):
                matrix = torch.nn.functional.normalize(matrix @ matrix)
            clock.done()
        shares.append(clock.take().share)
    assert shares[0] < shares[1]
