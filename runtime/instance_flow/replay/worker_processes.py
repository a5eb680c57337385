# SPDX-License-Identifier: Apache-2.0
"""Executors for jobs that run a network: processes of this machine, or an engine that spreads them over machines."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from threading import Thread

import cv2

from instance_flow.structures import InstanceFlowError

_log = logging.getLogger("instance_flow")


def threads_for(jobs: int) -> int:
    """CPU threads for each of so many processes."""
    return max(1, (os.cpu_count() or 1) // jobs)


@contextmanager
def local_processes(jobs: int) -> Iterator[Executor]:
    """So many processes; they are started anew, since a fork would copy threads' locks in whatever state they are."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(threads_for(jobs),)) as executor:
        yield executor


@contextmanager
def dask_cluster(address: str) -> Iterator[Executor]:
    """The workers of a dask scheduler, such as ``tcp://host:8786``; they must see the same files under the same names.

    The bags wait for a worker where there is none yet. Raises InstanceFlowError where dask.distributed is not
    installed, or the scheduler does not answer within dask's own limit (distributed.comm.timeouts.connect, 30 s).
    """
    try:
        from distributed import Client
    except ImportError:
        raise InstanceFlowError(
            "--scheduler needs dask.distributed, here and on the machines of the cluster; install it with: "
            "pip install 'instance-flow[cluster]'"
        ) from None
    # The outcomes report a scheduler that ended in one sentence, in place of dask's tracebacks. Setting levels does
    # not help: dask gives its loggers levels of their own.
    logging.getLogger("distributed").addHandler(logging.NullHandler())
    logging.getLogger("distributed").propagate = False
    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise InstanceFlowError(f"{address}: no dask scheduler answers there: {reason}") from None
    with client:
        if not client.nthreads():
            _log.warning("%s has no worker yet, and the bags wait for one: dask worker %s", address, address)
        yield client.get_executor()


def _begin(threads: int) -> None:
    """Set up a process: it has its share of the cores, leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(threads)
    logging.getLogger("instance_flow").setLevel(logging.ERROR)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
