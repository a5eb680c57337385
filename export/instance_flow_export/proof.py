# SPDX-License-Identifier: Apache-2.0
"""The proof that ends every export: torch and ONNX Runtime step over one sequence and must say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.video import open_source
from instance_flow.network.onnx import OnnxNetwork
from instance_flow.network.protocol import DeviceFeatures, Network
from instance_flow.pipeline import Pipeline
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import MAPS, Image, InstanceFlowError, ModelInfo, Prediction, Tracks
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.validate import TorchNetwork
from instance_flow_training.worlds.synthetic import WorldConfig, generate_clip

TOLERANCE = 1e-4
FRAMES = 20
SURE = -5.0
"""Log objectness above which a token is one in every runtime."""
LOST_TOKENS = 0.02
"""Share of the sure ones that may be a token on one side only: the last of more than there is room for."""
TIES = 5e-3
"""Share of cells that count for nothing in the reference offsets of object tokens, and in all maps of a network with a
detector: where two tokens or two boxes are equally near, the last digit decides which of them speaks for a cell."""


class ProofError(InstanceFlowError):
    """The exported graph does not say what the torch network says."""


@dataclass(frozen=True)
class ProofReport:
    """largest: per output, the largest error relative to max(1, largest magnitude); agree: frames with equal tracks."""

    largest: dict[str, float]
    frames: int
    objects: int

    def __str__(self) -> str:
        errors = ", ".join(f"{name} {value:.1e}" for name, value in self.largest.items())
        return (
            f"proof: torch and ONNX Runtime agree over {self.frames} frames with features fed back; largest errors: "
            f"{errors}; {self._tracks}"
        )

    @property
    def _tracks(self) -> str:
        if self.objects:
            return f"tracks equal ({self.objects} objects)"
        return "no object was seen, so nothing is proved of tracks: give a --proof that shows some"


class PredictionRecorder(Network):
    """A network that keeps what it predicted, so that two of them can be compared."""

    def __init__(self, network: Network):
        self.network, self.info = network, network.info
        self.predictions: list[Prediction] = []

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        self.predictions.append(self.network.predict(image, references))
        return self.predictions[-1]


def relative_error(ours: Any, theirs: Any, ties: float = 0.0) -> float:
    """Largest absolute difference over max(1, largest magnitude); infinite for other shapes or non-finite values.

    ties: the largest of so many, as a share of the values, are left out.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape or not np.isfinite(b).all():
        return float("inf")
    if not a.size:
        return 0.0
    return _largest(np.abs(a - b).ravel(), ties) / max(1.0, float(np.abs(a).max()))


def token_error(ours: Any, theirs: Any) -> float:
    """The same of cached object tokens, (1, C, K), whose last rows are center and log objectness.

    Which of the weakest cells is a token, and so in which place all that follow stand, is decided by the last digit.
    Every token that is sure is compared with the one at its center; ``LOST_TOKENS`` of them may have none.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape or not np.isfinite(b).all():
        return float("inf")
    sides = [side[0][:, side[0][-1] > SURE] for side in (a, b)]
    largest, errors = max([1.0, *(float(np.abs(side).max(initial=0.0)) for side in sides)]), []
    for one, candidates in ((sides[0], b[0]), (sides[1], a[0])):
        if not one.shape[1]:
            continue
        far = np.abs(one[-3:, :, None] - candidates[-3:, None, :]).sum(0)
        errors.append(_largest(np.abs(one - candidates[:, far.argmin(1)]).max(0), LOST_TOKENS) / largest)
    return max(errors, default=0.0)


def _largest(differences: NDArray[np.float64], left_out: float) -> float:
    """Of one or more, without the largest of so many as a share of them."""
    place = differences.size - 1 - int(left_out * differences.size)
    return float(np.partition(differences, place)[place])


def same_identities(ours: Tracks, theirs: Tracks) -> bool:
    """Equal ids and classes."""
    return np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.class_ids, theirs.class_ids)


def same_tracks(ours: Tracks, theirs: Tracks) -> bool:
    """Equal ids, classes and reasons, and masks that differ in no more than one pixel in a thousand."""
    equal = same_identities(ours, theirs) and np.array_equal(ours.reference_frames, theirs.reference_frames)
    return equal and float(np.mean(ours.label_map != theirs.label_map)) <= 1e-3


def proof_images(info: ModelInfo, source: Path | None = None, frames: int = FRAMES) -> list[Image]:
    """The sequence of a proof: the first frames of a video, folder or bag, or a synthetic world.

    Raises SourceError for a source that cannot be read.
    """
    if source is None:
        return list(generate_clip(7, "crossing", WorldConfig(size=info.input_size, frames=frames)).images)
    return [frame.image for frame in islice(open_source(source), frames)]


def prove(network: InstanceFlowNet, info: ModelInfo, path: Path, images: Sequence[Image]) -> ProofReport:
    """Step both over these images, each feeding its own features back, maps and tracks compared frame by frame.

    Raises:
        ProofError: naming the first output and frame that differ by more than TOLERANCE, or the first unequal tracks.
    """
    torch_side = PredictionRecorder(TorchNetwork(network, info))
    onnx_side = PredictionRecorder(OnnxNetwork(path, "cpu"))
    everything = AssemblyConfig(min_score=0.0, confirm_frames=1)
    ours, theirs = Pipeline(torch_side, everything), Pipeline(onnx_side, everything)
    largest: dict[str, float] = {}
    objects = 0
    for t, image in enumerate(images):
        expected, found = ours.step(image), theirs.step(image)
        for name, error in _errors(network, torch_side.predictions.pop(), onnx_side.predictions.pop()).items():
            if not error <= TOLERANCE:
                raise ProofError(
                    f"frame {t}: output {name!r} differs by {error:.2e}, more than {TOLERANCE:.0e}; no file written"
                )
            largest[name] = max(largest.get(name, 0.0), error)
        if not same_tracks(expected, found):
            raise ProofError(f"frame {t}: the maps agree but the tracks differ; no file written")
        objects += len(found)
    return ProofReport(largest, len(images), objects)


def _errors(network: InstanceFlowNet, ours: Prediction, theirs: Prediction) -> dict[str, float]:
    expected, found = output_arrays(ours), output_arrays(theirs)
    tokens = network.config.object_tokens > 0
    tied = MAPS if network.config.detector else ("reference_offset",) if tokens else ()
    return {
        name: token_error(value, found[name])
        if tokens and name not in MAPS
        else relative_error(value, found[name], TIES if name in tied else 0.0)
        for name, value in expected.items()
    }


def output_arrays(prediction: Prediction) -> dict[str, NDArray[np.float32]]:
    """All outputs by name, in float32; features of ONNX Runtime's network or of torch's."""
    features = prediction.features
    on_device = isinstance(features, DeviceFeatures)
    levels = features.to_arrays() if on_device else [value.cpu().numpy() for value in features]
    arrays = {name: getattr(prediction, name) for name in MAPS}
    return arrays | {f"features_{level}": np.asarray(value, np.float32) for level, value in enumerate(levels)}
