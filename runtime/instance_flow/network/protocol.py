# SPDX-License-Identifier: Apache-2.0
"""The interface of every network: ONNX file, torch network in training, oracle, several scales of another one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from instance_flow.network.stages import Stopwatch
from instance_flow.structures import Image, ModelInfo, Prediction


@runtime_checkable
class DeviceFeatures(Protocol):
    """Features of a frame that lie on the network's device. All others are arrays, numbers, or tuples of features."""

    def to_arrays(self) -> tuple[NDArray[Any], ...]:
        """A copy on the host, which the network takes as features, too."""


class Launched(Protocol):
    """A frame that was handed to the network; its maps may still be on the network's device."""

    @property
    def features(self) -> Any:
        """Passed to the network again when the frame is a reference; they depend on the frame's image alone."""

    def download(self) -> Prediction:
        """The maps, on the host."""


class Network(ABC):
    """Anything that turns an image and the features of reference frames into maps.

    Subclasses set ``info`` and define ``predict``; the rest is for those that run on a device or wrap another network.

    Attributes:
        info: what the model says of itself.
        fixed_size: (height, width) where it takes only that size, else None.
        scaled_sizes: (height, width) of all inputs that it makes of one image, where these are several.
    """

    info: ModelInfo
    fixed_size: tuple[int, int] | None = None
    scaled_sizes: Sequence[tuple[int, int]] = ()

    @abstractmethod
    def predict(self, image: Image, references: Sequence[Any], /) -> Prediction:
        """Run on an image (H, W, 3) uint8 RGB of the network's input size; references are earlier ``features``."""

    @property
    def provider(self) -> str:
        """Where it runs: cpu, cuda or tensorrt; the class of a network that is no ONNX file."""
        return type(self).__name__

    def launch(self, image: Image, references: Sequence[Any], watch: Stopwatch) -> Launched:
        """``predict``, with the download left to the caller where there is one; laps ``upload`` and ``network``."""
        prediction = self.predict(image, references)
        watch.lap("network")
        return _OnHost(prediction)

    def warmup_frames(self, references: int) -> int:
        """Frames, of 0 to ``references`` references, after which all later ones cost alike."""
        return references + 1

    def check_features(self, features: Any) -> None:  # noqa: B027 (most networks take what they once gave)
        """Raises InstanceFlowError where these, from a snapshot, are no features of a frame of ``info.input_size``."""


@dataclass(frozen=True)
class _OnHost:
    prediction: Prediction

    @property
    def features(self) -> Any:
        return self.prediction.features

    def download(self) -> Prediction:
        return self.prediction


class Predictor(Protocol):
    """The minimal interface of a user's own network."""

    info: ModelInfo

    def predict(self, image: Image, references: Sequence[Any], /) -> Prediction:
        """As of ``Network``."""


class _OwnNetwork(Network):
    def __init__(self, predictor: Predictor) -> None:
        self.info, self._predictor = predictor.info, predictor

    def predict(self, image: Image, references: Sequence[Any], /) -> Prediction:
        return self._predictor.predict(image, references)

    @property
    def provider(self) -> str:
        return type(self._predictor).__name__


def as_network(network: Network | Predictor) -> Network:
    """The network itself, or a ``Predictor`` wrapped as one, so that users need no base class."""
    return network if isinstance(network, Network) else _OwnNetwork(network)
