# SPDX-License-Identifier: Apache-2.0
"""What is installed here: versions, the bundled model, and which execution providers work."""

from __future__ import annotations

import platform
from importlib import metadata, resources
from pathlib import Path

import cv2

from instance_flow.formats.messages import PACKAGE
from instance_flow.network.execution import PROVIDERS, import_onnxruntime
from instance_flow.network.gpu.provider_check import inspect_provider, why_unavailable
from instance_flow.network.onnx import OnnxNetwork
from instance_flow.structures import ModelError, SourceError

BUNDLED_MODEL = "instance-flow-everyday.onnx"

_PACKAGES = ("instance-flow", "numpy", "numba", "onnxruntime", "onnxruntime-gpu", "rosbags")


def bundled_model_path() -> Path:
    """The model that comes along, in the installed package or the checkout; ModelError where there is none."""
    places = _places("models", "models")
    for place in places:
        if (place / BUNDLED_MODEL).is_file():
            return place / BUNDLED_MODEL
    raise ModelError(
        f"no model is given, and {BUNDLED_MODEL} is not in {' or '.join(map(str, places))}; "
        "name a model file that instance-flow-export wrote"
    )


def message_definitions() -> dict[str, str]:
    """Texts of the .msg files of instance_flow_msgs, by full type name; SourceError where they are not installed."""
    places = _places("msg", "ros2_ws/src/instance_flow_msgs/msg")
    for place in places:
        if files := sorted(place.glob("*.msg")):
            return {f"{PACKAGE}/msg/{file.stem}": file.read_text(encoding="utf-8") for file in files}
    raise SourceError(
        f"the message definitions are not in {' or '.join(map(str, places))}; install instance-flow again"
    )


def versions() -> dict[str, str]:
    """Versions of the runtime and of the packages that it depends on."""
    packages = {package: _version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), "platform": platform.platform(), **packages, "opencv": cv2.__version__}


def providers(model: Path) -> dict[str, str]:
    """Start a model on each execution provider: "works", or the reason why it does not."""
    return {name: _try(model, name) for name in PROVIDERS}


def _places(name: str, folder: str) -> tuple[Path, Path]:
    """Where a folder of resources may be: in the installed package, or in the checkout, which has it elsewhere.

    pyproject.toml installs ``folder`` as ``instance_flow/name``; an editable install has the checkout only.
    """
    return Path(str(resources.files("instance_flow"))) / name, Path(__file__).resolve().parents[3] / folder


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _try(model: Path, provider: str) -> str:
    try:
        if provider == "tensorrt":
            # To start it is to build an engine, which takes minutes.
            runtime = import_onnxruntime()
            return why_unavailable(provider, inspect_provider(runtime, provider)) or "works"
        OnnxNetwork(model, provider)
    except ModelError as error:
        return str(error)
    return "works"
