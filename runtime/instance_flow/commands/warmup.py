# SPDX-License-Identifier: Apache-2.0
"""The command ``instance-flow warmup``: does ahead what the first start would do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Any

from tqdm import tqdm

from instance_flow.commands.values import add_command, add_execution, format_report, image_size, read_execution
from instance_flow.doctor.machine import inspect_kernels
from instance_flow.formats import messages
from instance_flow.network.execution import ExecutionConfig, import_onnxruntime
from instance_flow.network.gpu import engine_cache
from instance_flow.network.gpu.session import engine_facts, read_graph
from instance_flow.network.installation import bundled_model_path
from instance_flow.pipeline import Pipeline

LARGEST = 16_384

_MEGABYTE = 1e6


def add_warmup(commands: Any) -> None:
    """Add ``warmup`` to the commands."""
    parser = add_command(
        commands,
        "warmup",
        "compile kernels and build the TensorRT engine ahead of the first start",
        "instance-flow warmup model.onnx --size 1280x720",
    )
    parser.set_defaults(command=warmup_command)
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="ONNX model; the bundled one unless given")
    add_execution(parser)
    parser.add_argument(
        "--size", type=image_size, metavar="WxH", help="size of the camera's images (default: the network's input)"
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove the TensorRT engines that were built for another GPU or version"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def warmup_command(options: argparse.Namespace) -> int:
    """Warm up, saying what is done and how long it takes, and where it was put."""
    if options.size is not None and not all(1 <= side <= LARGEST for side in options.size):
        raise ValueError(
            f"--size {options.size[1]}x{options.size[0]} is no camera's; each side is 1 to {LARGEST} pixels"
        )
    model = options.model or bundled_model_path()
    execution = read_execution(options)
    steps = Steps(lambda progress: _warm_up(model, options.provider, execution, options.size, progress))
    provider: str = steps.wait()
    report: dict[str, Any] = {"model": str(model), "provider": provider, "seconds": steps.seconds}
    kernels = inspect_kernels()
    report["kernels"] = f"{kernels.compiled} in {kernels.folder}"
    if provider == "tensorrt":
        report |= _engines(model, execution, options.prune)
    if provider == "cuda":
        report["not kept"] = "cuDNN's choice of algorithms: every process makes it while it warms up"
    print(format_report(report, options.json))
    return 0


class Steps:
    """Runs work in a thread of its own and shows on stderr, every second, what it is at.

    Args:
        work: called with a function to tell each step to, when it begins; its result is that of ``wait``.

    Attributes:
        seconds: how long each step took, in the order of the steps; steps of one name are added up.
    """

    def __init__(self, work: Callable[[Callable[[str], None]], Any]) -> None:
        self.seconds: dict[str, float] = {}
        self._doing, self._since = "", perf_counter()
        self._result: Any = None
        self._error: BaseException | None = None
        # What is interrupted by Ctrl-C ends with the process; nothing half done is left under its name.
        self._thread = Thread(target=self._run, args=(work,), name="instance_flow_warmup", daemon=True)

    def wait(self) -> Any:
        """What the work gives; raises what it raises."""
        with tqdm(bar_format="{desc}: {elapsed}", disable=None, leave=False) as bar:
            self._thread.start()
            while self._thread.is_alive():
                self._thread.join(1.0)
                bar.set_description_str(self._doing)
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self, work: Callable[[Callable[[str], None]], Any]) -> None:
        try:
            self._result = work(self._begin)
            self._begin("")
        except BaseException as error:  # It is raised again where the result is waited for.
            self._error = error

    def _begin(self, doing: str) -> None:
        now = perf_counter()
        if self._doing:
            self.seconds[self._doing] = round(self.seconds.get(self._doing, 0.0) + now - self._since, 2)
        self._doing, self._since = doing, now


def _warm_up(
    model: Path,
    provider: str,
    execution: ExecutionConfig,
    size: tuple[int, int] | None,
    progress: Callable[[str], None],
) -> str:
    progress("loading the model and its TensorRT engine" if provider == "tensorrt" else "loading the model")
    pipeline = Pipeline.load(model, provider, execution=execution)
    # The numbers within a step, as "1 of 4 references", would only make many rows of one.
    pipeline.warmup(size or pipeline.info.input_size, lambda doing: progress(doing.split(",")[0]), depth=True)
    progress("compiling what messages need")
    messages.warmup()
    return pipeline.provider


def _engines(model: Path, execution: ExecutionConfig, prune: bool) -> dict[str, Any]:
    """Where the engine is, and what lies beside it for another GPU or other versions."""
    runtime, root = import_onnxruntime(), execution.engine_root
    facts = engine_facts(model, read_graph(runtime, model), runtime)
    rows: dict[str, Any] = {"engine": _row(engine) if (engine := engine_cache.fitting(root, facts)) else "not kept"}
    if prune:
        return rows | {"engines removed": [_row(old) for old in engine_cache.prune(root, facts)] or "none"}
    if old := engine_cache.of_another_machine(engine_cache.engines(root), facts):
        rows["engines of another machine"] = [_row(engine) for engine in old]
        rows["to remove them"] = "instance-flow warmup --prune"
    return rows


def _row(engine: engine_cache.Engine) -> str:
    facts = engine.facts
    return (
        f"{engine.folder} ({engine.size / _MEGABYTE:.0f} MB, {facts.model}, {facts.precision}, {facts.gpu}, "
        f"TensorRT {facts.tensorrt})"
    )
