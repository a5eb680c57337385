# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself: a progress bar, TensorBoard, and a warning where data come too slowly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from instance_flow_training.loop.step_clock import Timing, advice, cores_per_process

log = logging.getLogger(__name__)

_STEPS_TO_JUDGE = 10
_WORDS = {
    "semantic": ("class maps", ""),
    "center": ("centers", ""),
    "intra": ("offsets", " px"),
    "inter": ("flow", " px"),
}
"""Terms of the loss in words."""


class TrainingLog:
    """Args: folder: for TensorBoard; None = say nothing, as all processes but the first do.
    first, total: steps done and to do.   batch: clips per step.   workers: of data, per process.
    """

    def __init__(self, folder: Path | None, first: int, total: int, batch: int, workers: int):
        self._writer = SummaryWriter(str(folder), purge_step=first) if folder else None
        self._progress = tqdm(initial=first, total=total, unit="step", dynamic_ncols=True, disable=folder is None)
        self._batch, self._workers = batch, workers
        self._whole = Timing()
        self._warned = folder is None
        self._shown: dict[str, str] = {}
        self._terms: Mapping[str, float] = {}

    def count_step(self, share: float) -> None:
        """One more step is done, and this share of the run, by steps or by the clock."""
        if self._progress.total:
            self._progress.total = max(self._progress.n + 1, round((self._progress.n + 1) / share))
        self._progress.update()

    def losses(self, terms: Mapping[str, float], learning_rate: float, step: int) -> None:
        """The loss terms of a step."""
        self._terms = terms
        self.scalars("loss", terms, step)
        self.scalars("", {"learning_rate": learning_rate}, step)
        self._shown |= {name: f"{value:.3g}" for name, value in terms.items()}
        self._progress.set_postfix(self._shown)

    def validation(self, scores: Mapping[str, float], metric: str, step: int, best: float = -1.0) -> None:
        """What a validation gave, as a line that stays; the metric by which the best checkpoint is kept stays in sight.

        best: that metric's best so far.
        """
        self.scalars("validation", scores, step)
        losses = ", ".join(
            f"{words} {self._terms[name]:.3g}{unit}" for name, (words, unit) in _WORDS.items() if name in self._terms
        )
        found = ", ".join(
            f"{name} {100 * scores[name]:.1f}" for name in dict.fromkeys((metric, "AP50", "IDF1")) if name in scores
        )
        news = "the best so far" if scores[metric] > best else f"no better than {100 * best:.1f}"
        self._progress.clear()
        log.info(f"step {step}: {found} ({metric} {news})" + (f"; losses: {losses}" if losses else ""))
        self._shown |= {f"validation {metric}": f"{scores[metric]:.3f}"}
        self._progress.set_postfix(self._shown)

    def speed(self, timing: Timing, step: int) -> None:
        """The time of the steps since the last call; a warning, once, where they are starved."""
        if timing.steps == 0:
            return
        self._whole += timing
        numbers = {
            "clips_per_second": self._batch / timing.per_step,
            "seconds_per_step": timing.per_step,
            "seconds_waiting_per_step": timing.waiting / timing.steps,
            "waiting_for_data": timing.share,
        }
        self.scalars("", numbers, step)
        self._shown |= {"step": f"{timing.per_step:.3g}s", "waiting": f"{timing.share:.0%}"}
        self._progress.set_postfix(self._shown)
        if not self._warned and self._whole.steps >= _STEPS_TO_JUDGE:
            self._warn()

    def _warn(self) -> None:
        hint = advice(self._whole, self._workers, cores_per_process())
        if hint:
            self._warned = True
            self._progress.clear()
            log.warning(hint)

    def summary(self) -> str:
        """The speed of all steps so far in a line."""
        whole = self._whole
        return (
            f"{whole.steps} steps at {whole.per_step:.3g} s, {whole.waiting / max(whole.steps, 1):.2g} s of it "
            f"({whole.share:.1%}) waiting for data; {self._batch / whole.per_step:.3g} clips/s"
        )

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Named numbers under a heading."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}" if group else name, value, step)

    def picture(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """image: (H, W, 3) uint8 RGB."""
        if self._writer:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left, and say how fast it was."""
        self._progress.close()
        if self._whole.steps:
            log.info(self.summary())
        if self._writer:
            self._writer.close()
