# SPDX-License-Identifier: Apache-2.0
"""A network that knows the truth: the maps of a perfect prediction, for proving everything after the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from instance_flow.network.protocol import Network
from instance_flow.structures import FloatArray, Image, ModelInfo, Prediction
from instance_flow_training.targets import IGNORE, frame_targets, target_offset_map
from instance_flow_training.worlds.synthetic import CLASS_NAMES, Clip

NOWHERE = -1e4
"""Where the oracle's reference offset leads for an object that the reference frame does not show: out of any reach."""


class OracleNetwork(Network):
    """The perfect network for one clip; full resolution, so that masks come out exact.

    Frames must be given in order; a call without references starts the clip again.
    """

    def __init__(self, clip: Clip):
        height, width = clip.labels.shape[1:]
        self.info = ModelInfo(
            name="oracle",
            class_names=CLASS_NAMES,
            input_size=(height, width),
            output_stride=1,
            center_threshold=0.999,
            center_window=0.0,
            max_distance=1 / 640,
        )
        self._targets = [frame_targets(labels, clip.class_ids, stride=1) for labels in clip.labels]
        self._next = 0

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:  # noqa: ARG002
        """Maps of the next frame; features are its index."""
        if not references:
            self._next = 0
        truth = self._targets[self._next]
        semantic = np.full((len(CLASS_NAMES) + 1, *truth.labels.shape), 1e-3, np.float32)
        np.put_along_axis(semantic, truth.semantic[None].astype(np.int64), 1.0 - 1e-3 * len(CLASS_NAMES), axis=0)
        towards = [self._towards(truth.labels, self._targets[r].centers) for r in references]
        self._next += 1
        return Prediction(
            semantic,
            truth.center,
            target_offset_map(truth.labels, truth.centers),
            np.stack(towards) if towards else np.empty((0, 2, *truth.labels.shape), np.float32),
            self._next - 1,
        )

    @staticmethod
    def _towards(labels: Image, centers: FloatArray) -> FloatArray:
        return np.nan_to_num(target_offset_map(labels, centers), nan=NOWHERE)


class TrueMasksNetwork(Network):
    """For one clip: the truth's objects, but the model's instance flow.

    What is lost with it is lost by the flow and the matching, and not by the masks. The clip must have the size of the
    model's input. Frames must be given in order; a call without references starts the clip again.
    """

    def __init__(self, network: Network, clip: Clip):
        if clip.labels.shape[1:] != tuple(network.info.input_size):
            raise ValueError(
                f"the clip's size is {clip.labels.shape[1:]}; to take its masks it must be that of the model's input, "
                f"{network.info.input_size}"
            )
        # Every true center counts, however near to another one.
        self.info = replace(network.info, center_threshold=0.999, center_window=0.0)
        self._network, self._clip = network, clip
        self._next = 0

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        """Maps of the next frame; features are the model's."""
        if not references:
            self._next = 0
        model = self._network.predict(image, references)
        # What nobody labelled is no object here.
        labels = np.where(self._clip.labels[self._next] == IGNORE, 0, self._clip.labels[self._next])
        truth = frame_targets(labels, self._clip.class_ids, self.info.output_stride)
        self._next += 1
        classes = np.concatenate([[0], self._clip.class_ids + 1])[truth.labels]
        semantic = np.zeros_like(model.semantic)
        np.put_along_axis(semantic, classes[None].astype(np.int64), 1.0, axis=0)
        offset = target_offset_map(truth.labels, truth.centers)
        residual = model.reference_offset - model.offset
        return Prediction(semantic, truth.center, offset, offset + residual, model.features)
