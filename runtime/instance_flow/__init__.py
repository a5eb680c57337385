# SPDX-License-Identifier: Apache-2.0
"""Online video instance segmentation for robots by instance flow assembly."""

from instance_flow.pipeline import AssemblyConfig, Pipeline
from instance_flow.structures import InstanceFlowError, ModelInfo, Prediction, Tracks

__all__ = ["AssemblyConfig", "InstanceFlowError", "ModelInfo", "Pipeline", "Prediction", "Tracks"]
