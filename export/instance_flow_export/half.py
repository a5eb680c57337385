# SPDX-License-Identifier: Apache-2.0
"""The network in half precision (float16), for GPUs, and the proof of such a file.

All of it is in float16: weights, maps, cached features. That nothing has to stay in float32 was measured: see
docs/quantisation.md.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from instance_flow.network.onnx import OnnxNetwork
from instance_flow.structures import Image, ModelInfo
from instance_flow_export.differences import Differences, differences
from instance_flow_training.network.model import InstanceFlowNet
from instance_flow_training.validate import TorchNetwork

TOLERANCE = 0.01
"""Largest mean difference of a map that passes, as a share of max(1, its magnitude). Most of it is background, where
the nearest of two far object tokens is chosen by the last digit."""


def halve(network: InstanceFlowNet) -> InstanceFlowNet:
    """A copy in float16, ready for export; pixels are turned to float16 before they are normalised.

    They are whole numbers up to 255 there, and so exact.
    """
    return copy.deepcopy(network).half().eval()


def prove_half(network: InstanceFlowNet, info: ModelInfo, path: Path, images: Sequence[Image]) -> Differences:
    """Step the float32 network in torch and the float16 file in ONNX Runtime over these images.

    Args:
        network: in float32.   path: what was exported from ``halve(network)``.

    Raises:
        ProofError: when a map is off by more than TOLERANCE at the mean.
        ModelError: when the file does not run, or its maps are not finite.
    """
    found = differences(TorchNetwork(network, info), OnnxNetwork(path, "cpu"), images)
    found.check(TOLERANCE)
    return found
