# SPDX-License-Identifier: Apache-2.0
"""Online video instance segmentation for robots by instance flow assembly."""

from instance_flow import kernel_cache

kernel_cache.prepare()  # before the first module with kernels is imported

from instance_flow.assembly_config import AssemblyConfig  # noqa: E402
from instance_flow.pipeline import Pipeline  # noqa: E402
from instance_flow.structures import InstanceFlowError, ModelInfo, Prediction, Tracks  # noqa: E402

__all__ = ["AssemblyConfig", "InstanceFlowError", "ModelInfo", "Pipeline", "Prediction", "Tracks"]
