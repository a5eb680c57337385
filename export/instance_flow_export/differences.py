# SPDX-License-Identifier: Apache-2.0
"""How far two networks are apart over a sequence, for builds of lower precision: equal they cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from instance_flow.network.protocol import Network
from instance_flow.pipeline import Pipeline
from instance_flow.structures import MAPS, Image
from instance_flow_export.proof import FRAMES, PredictionRecorder, ProofError, output_arrays, same_identities


@dataclass(frozen=True)
class Differences:
    """Two networks over the same frames, each with its own features fed back.

    largest, mean: absolute differences per output, offsets in cells.   magnitude: largest value of the first network.
    frames: how many.   equal: those with the same ids and classes.   pixels: share of pixels with the same id.
    speed: the first one's time over the second one's, medians of frames with all references, both in turn.
    """

    largest: dict[str, float]
    mean: dict[str, float]
    magnitude: dict[str, float]
    frames: int
    equal: int
    pixels: float
    speed: float

    def __str__(self) -> str:
        rows = [
            f"  {name:18}{self.largest[name]:10.4f}{self.mean[name]:10.5f}{self.magnitude[name]:12.2f}"
            for name in self.largest
        ]
        return "\n".join(
            [
                f"difference from the float32 network over {self.frames} frames, each with its own features fed back:",
                f"  {'output':18}{'largest':>10}{'mean':>10}{'magnitude':>12}",
                *rows,
                f"  tracks: same ids and classes in {self.equal} of {self.frames} frames, same id on {self.pixels:.2%} "
                "of pixels",
            ]
        )

    def check(self, tolerance: float) -> None:
        """Raises ProofError where a map's mean difference is more than ``tolerance`` of max(1, its magnitude)."""
        for name in MAPS:
            error = self.mean.get(name, 0.0) / max(1.0, self.magnitude.get(name, 0.0))
            if not error <= tolerance:
                raise ProofError(
                    f"output {name!r} differs from the float32 network's by {error:.4f} of its magnitude at the mean, "
                    f"more than {tolerance}; no file written (frames without objects of the model prove little: give "
                    "a clip that shows some)"
                )


def differences(reference: Network, other: Network, images: Iterable[Image]) -> Differences:
    """Step both over the first FRAMES images, at least one.

    Raises:
        ModelError: when one fails, or its maps are not finite.
    """
    sides = [PredictionRecorder(network) for network in (reference, other)]
    pipelines = [Pipeline(side) for side in sides]
    outputs: dict[str, list[tuple[float, float, float]]] = {}
    seconds: list[list[float]] = []
    tracks: list[tuple[bool, float]] = []
    for image in islice(images, FRAMES):
        ours, theirs = (pipeline.step(image) for pipeline in pipelines)
        seconds.append([pipeline.network_seconds for pipeline in pipelines])
        tracks.append((same_identities(ours, theirs), float(np.mean(ours.label_map == theirs.label_map))))
        expected, found = (output_arrays(side.predictions.pop()) for side in sides)
        for name, value in expected.items():
            if value.size:
                error = np.abs(value - found[name])
                row = float(error.max()), float(error.mean()), float(np.abs(value).max())
                outputs.setdefault(name, []).append(row)
    columns = {name: list(zip(*rows, strict=True)) for name, rows in outputs.items()}
    first, second = np.median(seconds[reference.info.max_references :] or seconds, axis=0)
    return Differences(
        largest={name: max(column[0]) for name, column in columns.items()},
        mean={name: float(np.mean(column[1])) for name, column in columns.items()},
        magnitude={name: max(column[2]) for name, column in columns.items()},
        frames=len(tracks),
        equal=sum(same for same, _ in tracks),
        pixels=float(np.mean([share for _, share in tracks])),
        speed=float(first / second),
    )
