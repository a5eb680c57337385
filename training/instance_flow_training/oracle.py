# SPDX-License-Identifier: Apache-2.0
"""A network that knows the truth: the maps of a perfect prediction, for proving everything after the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instance_flow.structures import FloatArray, Image, ModelInfo, Prediction
from instance_flow_training.synthetic import CLASS_NAMES, Clip
from instance_flow_training.targets import frame_targets, offset_map

NOWHERE = -1e4
"""Where the oracle's reference offset leads for an object that the reference frame does not show: out of any reach."""


class OracleNetwork:
    """Implements ``instance_flow.structures.Network`` for one clip; full resolution, so that masks come out exact.

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
            offset_map(truth.labels, truth.centers),
            np.stack(towards) if towards else np.empty((0, 2, *truth.labels.shape), np.float32),
            self._next - 1,
        )

    @staticmethod
    def _towards(labels: Image, centers: FloatArray) -> FloatArray:
        return np.nan_to_num(offset_map(labels, centers), nan=NOWHERE)
