# SPDX-License-Identifier: Apache-2.0
"""What is installed here: versions, the bundled model, and which execution providers work."""

from __future__ import annotations

import platform
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import cv2

from instance_flow.network import PROVIDERS, OnnxNetwork
from instance_flow.structures import ModelError

BUNDLED_MODEL = "instance-flow-worlds.onnx"

_PACKAGES = ("instance-flow", "numpy", "numba", "onnxruntime", "onnxruntime-gpu", "rosbags")


def bundled_model_path() -> Path:
    """The model that comes along, in the checkout or beside the installed package; ModelError where there is none."""
    # pip puts data files where the scheme of the installation says, which for --user and on Debian is not sys.prefix.
    schemes = {
        sysconfig.get_path("data"),
        sysconfig.get_path("data", sysconfig.get_preferred_scheme("user")),
        sys.prefix,
    }
    installed = [Path(prefix) / "share" / "instance-flow" for prefix in sorted(schemes)]
    places = [Path(__file__).resolve().parents[2] / "models", *installed]
    for place in places:
        if (place / BUNDLED_MODEL).is_file():
            return place / BUNDLED_MODEL
    raise ModelError(
        f"no model is given, and {BUNDLED_MODEL} is not in {' or '.join(map(str, places))}; "
        "name a model file that instance-flow-export wrote"
    )


def versions() -> dict[str, str]:
    """Versions of what the runtime stands on."""
    packages = {package: _version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), "platform": platform.platform(), **packages, "opencv": cv2.__version__}


def providers(model: Path) -> dict[str, str]:
    """Start a model on each execution provider: "works", or the reason why it does not."""
    return {name: _try(model, name) for name in PROVIDERS}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _try(model: Path, provider: str) -> str:
    try:
        OnnxNetwork(model, provider)
    except ModelError as error:
        return str(error)
    return "works"
