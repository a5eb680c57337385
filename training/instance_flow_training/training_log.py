# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself: a progress bar, and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

T = TypeVar("T")


class TrainingLog:
    """Args: folder: for TensorBoard; None = say nothing, as all processes but the first do.
    first, total: steps done and to do.   batch: clips per step.
    """

    def __init__(self, folder: Path | None, first: int, total: int, batch: int):
        self._writer = SummaryWriter(str(folder), purge_step=first) if folder else None
        self._progress = tqdm(initial=first, total=total, unit="step", dynamic_ncols=True, disable=folder is None)
        self._batch = batch
        self._restart()

    def _restart(self) -> None:
        self._since, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, and how long the loop waited for them is noted."""
        source = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(source, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def count_step(self) -> None:
        """One more step is done."""
        self._steps += 1
        self._progress.update()

    def losses(self, terms: Mapping[str, float], learning_rate: float, step: int) -> None:
        """The loss terms of a step, with the speed and the share of time spent waiting for data since the last call."""
        elapsed = time.perf_counter() - self._since
        speed = {"clips_per_second": self._steps * self._batch / elapsed, "waiting_for_data": self._waited / elapsed}
        self.scalars("loss", terms, step)
        self.scalars("", {"learning_rate": learning_rate, **speed}, step)
        shown = {name: f"{value:.3g}" for name, value in terms.items()}
        self._progress.set_postfix({**shown, "waiting": f"{speed['waiting_for_data']:.0%}"})
        self._restart()

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Named numbers under a heading."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}" if group else name, value, step)

    def picture(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """image: (H, W, 3) uint8 RGB."""
        if self._writer:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def pause(self) -> None:
        """What took place since the last step, such as a validation, is no part of the speed."""
        self._restart()

    def close(self) -> None:
        """Write what is left."""
        self._progress.close()
        if self._writer:
            self._writer.close()
