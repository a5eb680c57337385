# SPDX-License-Identifier: Apache-2.0
"""Online video instance segmentation for robots by instance flow assembly."""

import os
from importlib import metadata

from instance_flow.kernels import cache
from instance_flow.structures import MAX_PIXELS, InstanceFlowError, ModelInfo, Prediction, Track, Tracks

# Read by OpenCV when it is loaded. Our own look at a header comes first; this holds where a decoder reads the header in
# another way.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
cache.prepare()  # before the first module with kernels is imported

from instance_flow.pipeline import Pipeline  # noqa: E402
from instance_flow.settings import AssemblyConfig  # noqa: E402

__all__ = [
    "AssemblyConfig",
    "InstanceFlowError",
    "ModelInfo",
    "Pipeline",
    "Prediction",
    "Track",
    "Tracks",
    "__version__",
]

try:
    __version__ = metadata.version("instance-flow")
except metadata.PackageNotFoundError:
    __version__ = "0+unknown"  # a checkout on PYTHONPATH that was never installed
