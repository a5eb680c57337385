# SPDX-License-Identifier: Apache-2.0
"""`instance-flow warmup`: does ahead what the first start would do, and says what that was."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instance_flow.commands.warmup import Steps, add_warmup
from instance_flow.structures import InstanceFlowError


def run(*arguments: str) -> int:
    """The command as ``instance-flow`` calls it."""
    parser = argparse.ArgumentParser()
    add_warmup(parser.add_subparsers())
    options = parser.parse_args(["warmup", *arguments])
    code: int = options.command(options)
    return code


def test_says_what_was_done_and_where_it_is(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(model), "--provider", "cpu", "--size", "160x120", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["provider"]) == (str(model), "cpu")
    assert list(report["seconds"]) == [
        "loading the model",
        "running the network",
        "compiling the kernels",
        "compiling the kernels for depth",
        "compiling what messages need",
    ]
    count, folder = report["kernels"].split(" in ")
    assert len(list(Path(folder).glob("*.nbi"))) == int(count)


@pytest.mark.parametrize("size", ["0x480", "640x0", "99999x99999"])
def test_size_that_no_camera_has_is_refused(size: str, model: Path) -> None:
    with pytest.raises(ValueError, match=f"--size {size} is no camera's"):
        run(str(model), "--size", size)


def test_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InstanceFlowError, match="no such model file"):
        run(str(tmp_path / "none.onnx"))


def test_steps_add_up_and_errors_arrive() -> None:
    def work(progress: Callable[[str], None]) -> str:
        for step in ("one", "two", "one"):
            progress(step)
        return "done"

    def fail(progress: Callable[[str], None]) -> None:
        progress("one")
        raise ValueError("no memory")

    steps = Steps(work)
    assert steps.wait() == "done"
    assert list(steps.seconds) == ["one", "two"]
    with pytest.raises(ValueError, match="no memory"):
        Steps(fail).wait()
