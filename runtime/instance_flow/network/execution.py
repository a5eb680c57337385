# SPDX-License-Identifier: Apache-2.0
"""Where and how ONNX Runtime runs a model: execution providers, threads, CUDA graphs, TensorRT engines."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instance_flow.declare import check, setting
from instance_flow.network.gpu import engine_cache
from instance_flow.network.gpu.provider_check import PROVIDERS, ProviderError
from instance_flow.network.gpu.session import first_line, open_on_gpu, unreadable
from instance_flow.structures import ModelError

MOST_THREADS = 1024
PROVIDER_NAMES = ("auto", *PROVIDERS)
"""What may be asked for; only auto falls back to the CPU."""
_SILENT = 4
"""Of ONNX Runtime's log: what it reports as an error is raised as well."""

__all__ = ["MOST_THREADS", "PROVIDERS", "PROVIDER_NAMES", "ExecutionConfig", "first_line", "open_session"]

_log = logging.getLogger("instance_flow")

_CORES = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class ExecutionConfig:
    """How the network uses the machine; no setting changes what is tracked.

    Raises:
        ValueError: for a setting that no machine can have, and for cores that this process may not use.
    """

    threads: int = setting(
        0,
        "CPU threads of the network. Fewer leave cores to other processes, but the network takes longer. 0 = one for "
        "each core",
        0,
        MOST_THREADS,
    )
    spinning: bool = setting(
        False,
        "Whether the network's threads keep their cores busy while they wait for work. That saves the network a "
        "little time and takes it from the camera, the middleware and everything else on the machine",
    )
    affinity: str = setting(
        "",
        "Cores of the network's own threads, such as 2,3 or 2-5. The thread that calls the network works as well, and "
        "goes where the process may go. Empty = any core",
    )
    cuda_graph: bool = setting(
        False,
        "provider = cuda: start the whole network as one CUDA graph in place of kernel by kernel. Needs a "
        "model that was exported with --static",
    )
    engine_cache: str = setting(
        "",
        "provider = tensorrt: folder of the engines that are built. Empty = instance-flow/engines in the user's cache",
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.cores:
            return
        if not hasattr(os, "sched_getaffinity"):  # macOS
            raise ValueError(f"affinity is {self.affinity!r}, but this system does not bind threads to cores")
        usable = os.sched_getaffinity(0)
        if missing := [core for core in self.cores if core not in usable]:
            raise ValueError(
                f"affinity is {self.affinity!r}, but this process may not use core {_ranges(missing)}; "
                f"it has {_ranges(sorted(usable))}"
            )

    @property
    def cores(self) -> tuple[int, ...]:
        """What ``affinity`` names, ascending and each once; () = any."""
        chosen: set[int] = set()
        for part in self.affinity.split(",") if self.affinity.strip() else ():
            found = _CORES.fullmatch(part.strip())
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
            if not first <= last < MOST_THREADS:
                raise ValueError(
                    f"affinity is {self.affinity!r}; it must be cores such as 2,3 or 2-5, from 0 to {MOST_THREADS - 1}"
                )
            chosen.update(range(first, last + 1))
        return tuple(sorted(chosen))

    @property
    def engine_root(self) -> Path:
        """Folder of the TensorRT engines."""
        return Path(self.engine_cache).expanduser() if self.engine_cache else engine_cache.default_root()


def open_session(path: Path, provider: str, config: ExecutionConfig) -> tuple[str, Any]:
    """Open a model on an execution provider; steps that take minutes are logged.

    Args:
        provider: auto | cpu | cuda | tensorrt; ``auto`` is cuda where it starts, else cpu, with a warning where cuda is
            there but does not start.

    Returns:
        The name of the provider that runs, never "auto", and the ``onnxruntime.InferenceSession``.

    Raises:
        ModelError: for a file that is no ONNX model, for a provider that does not start here, and for a model or a
            setting that it cannot have.
    """
    if provider not in PROVIDER_NAMES:
        raise ModelError(f"unknown provider {provider!r}; choose {', '.join(PROVIDER_NAMES)}")
    runtime = import_onnxruntime()
    if provider == "cpu" and config.cuda_graph:
        raise ModelError("cuda_graph was asked for, but provider cpu has no CUDA graphs; ask for provider cuda")
    has_cuda = PROVIDERS["cuda"] in runtime.get_available_providers()
    if provider == "cpu" or (provider == "auto" and not has_cuda):
        return "cpu", _open_on_cpu(runtime, path, config)
    name = "cuda" if provider == "auto" else provider
    strict = provider != "auto"
    try:
        options = _session_options(runtime, config)
        return name, open_on_gpu(
            runtime, path, name, options, config.cuda_graph, config.engine_root, strict, _log.warning
        )
    except ProviderError as error:
        if strict:
            raise
        _log.warning("running on the CPU: %s", error)
        return "cpu", _open_on_cpu(runtime, path, config)


def session_entries(config: ExecutionConfig) -> dict[str, str]:
    """ONNX Runtime's session entries for a configuration; the number of threads is ``thread_count``."""
    entries = {"session.intra_op.allow_spinning": str(int(config.spinning))}
    threads = thread_count(config)
    if config.cores and threads > 1:
        # It counts cores from 1, and names them for every thread but the one that calls it. Each may use all of them:
        # the scheduler balances better than a thread that waits for one core.
        cores = ",".join(str(core + 1) for core in config.cores)
        entries["session.intra_op_thread_affinities"] = ";".join([cores] * (threads - 1))
    return entries


def thread_count(config: ExecutionConfig) -> int:
    """Threads to ask ONNX Runtime for; 0 = as many as it finds cores. With an affinity it wants the very number."""
    return config.threads or len(config.cores)


def import_onnxruntime() -> Any:
    """The module, imported with its telemetry off. Raises ModelError where it is not installed."""
    # Since 1.31 it collects usage data for its makers unless this is set before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "ONNX Runtime is not installed; run `pip install onnxruntime`, or onnxruntime-gpu on a machine with CUDA"
        ) from error
    return onnxruntime


def _open_on_cpu(runtime: Any, path: Path, config: ExecutionConfig) -> Any:
    options = _session_options(runtime, config)
    options.log_severity_level = _SILENT
    try:
        # Otherwise it prints what is wrong with a damaged model, and tries once more.
        return runtime.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]], enable_fallback=0)
    except Exception as error:
        raise unreadable(path, error) from error


def _session_options(runtime: Any, config: ExecutionConfig) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = thread_count(config)
    for key, value in session_entries(config).items():
        options.add_session_config_entry(key, value)
    options.log_severity_level = 3
    return options


def _ranges(cores: list[int]) -> str:
    """[0, 1, 2, 5] is 0-2,5."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
