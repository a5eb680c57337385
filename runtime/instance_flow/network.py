# SPDX-License-Identifier: Apache-2.0
"""The deployed network: a self-describing ONNX file on ONNX Runtime."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import Image, ModelError, ModelInfo, Prediction

FORMAT_VERSION = 1
METADATA_KEY = "instance_flow"
REFERENCE_INPUTS = ("reference_features_0", "reference_features_1")
OUTPUTS = ("semantic", "center", "offset", "reference_offset", "features_0", "features_1")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

_log = logging.getLogger("instance_flow")

Features = tuple[NDArray[np.float32], ...]
"""Per fusion level (1, channels, H / s, W / s) with s of ``ModelInfo.feature_strides``."""


def _onnxruntime() -> Any:
    # Since 1.31 it keeps a count of what it runs, for its makers, unless told otherwise before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "ONNX Runtime is not installed; run `pip install onnxruntime`, or onnxruntime-gpu on a machine with CUDA"
        ) from error
    return onnxruntime


def write_metadata(info: ModelInfo) -> dict[str, str]:
    """The ONNX metadata entry that makes a file self-describing."""
    values = {f.name: getattr(info, f.name) for f in fields(info)}
    return {METADATA_KEY: json.dumps({"format_version": FORMAT_VERSION, **values})}


def read_metadata(path: str | Path, metadata: dict[str, str]) -> ModelInfo:
    """Raises ModelError for a foreign file, a newer format, or a description with missing or unknown parts."""
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path}: an ONNX model, but not one of instance-flow (its metadata has no {METADATA_KEY!r} entry); "
            "use a file written by instance-flow-export"
        )
    try:
        values = json.loads(metadata[METADATA_KEY])
        version = int(values.pop("format_version"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: its description is damaged; export the model again") from error
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: model format {version} is newer than this program, which reads up to {FORMAT_VERSION}; "
            "upgrade instance-flow"
        )
    try:
        fields_found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return ModelInfo(**fields_found)
    except TypeError as error:
        raise ModelError(f"{path}: its description is incomplete ({error}); export the model again") from error


class OnnxNetwork:
    """An ONNX model on one execution provider.

    Args:
        path: the model file.   provider: auto | cpu | cuda | tensorrt.
        threads: CPU threads of the network; 0 = one for each core.

    Attributes:
        fixed_size: (height, width) if the graph takes only that size, else None.

    Raises:
        ModelError: for a file that is missing, damaged or foreign, and for a provider that does not start here.
    """

    def __init__(self, path: str | Path, provider: str = "auto", threads: int = 0):
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"{path}: no such model file; give the .onnx file that instance-flow-export wrote")
        self.provider, self._session = _open_session(path, provider, threads)
        self.info = read_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        _check_description(path, self.info)
        shapes = {node.name: node.shape for node in self._session.get_inputs()}
        if set(shapes) != {"image", *REFERENCE_INPUTS}:
            raise ModelError(
                f"{path}: its inputs are {', '.join(shapes)}; expected image and {', '.join(REFERENCE_INPUTS)}"
            )
        names = [node.name for node in self._session.get_outputs()]
        if not set(OUTPUTS) <= set(names):
            raise ModelError(f"{path}: its outputs are {', '.join(names)}; expected {', '.join(OUTPUTS)}")
        classes = {node.name: node.shape for node in self._session.get_outputs()}["semantic"][0]
        if isinstance(classes, int) and classes != len(self.info.class_names) + 1:
            raise ModelError(
                f"{path}: it has {classes} classes with background, but describes {len(self.info.class_names)} and "
                "background; export the model again"
            )
        self._channels = [shapes[name][1] for name in REFERENCE_INPUTS]
        if not all(isinstance(channels, int) for channels in self._channels):
            raise ModelError(f"{path}: the channels of its reference features are not fixed; export the model again")
        references = shapes[REFERENCE_INPUTS[0]][0]
        self._fixed_references = references if isinstance(references, int) else None
        height, width = shapes["image"][1:3]
        self.fixed_size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def predict(self, image: Image, references: Sequence[Features]) -> Prediction:
        """See ``structures.Network``; references are ``Prediction.features`` of earlier frames of the same size.

        Raises:
            ModelError: when ONNX Runtime fails, for example when the device's memory is full.
        """
        feeds: dict[str, NDArray[Any]] = {"image": image[None]}
        for level, (name, stride) in enumerate(zip(REFERENCE_INPUTS, self.info.feature_strides, strict=True)):
            # A static graph always takes as many references as it was made for. The branches of the references do not
            # touch one another, so those that are filled with zeros change nothing and are cut off again.
            missing = max(0, (self._fixed_references or 0) - len(references))
            grid = image.shape[0] // stride, image.shape[1] // stride
            filler = np.zeros((missing, self._channels[level], *grid), np.float32)
            feeds[name] = np.concatenate([*(features[level] for features in references), filler])
        try:
            outputs = self._session.run(OUTPUTS, feeds)
        except Exception as error:
            raise ModelError(f"the network failed on {self.provider}: {_first_line(error)}") from error
        semantic, center, offset, reference_offset, *features = outputs
        return Prediction(semantic, center, offset, reference_offset[: len(references)], tuple(features))


def _check_description(path: Path, info: ModelInfo) -> None:
    size, strides = info.input_size, info.feature_strides
    sound = (
        len(info.class_names) > 0
        and len(size) == len(strides) == 2
        and all(isinstance(n, int) and n > 0 for n in (*size, *strides, info.output_stride, info.max_references))
        and all(n % max(32, *strides) == 0 for n in size)
    )
    if not sound:
        raise ModelError(
            f"{path}: its description makes no sense (classes {info.class_names}, input {size}, strides {strides}); "
            "export the model again"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _open_session(path: Path, provider: str, threads: int) -> tuple[str, Any]:
    if provider not in ("auto", *PROVIDERS):
        raise ModelError(f"unknown provider {provider!r}; choose auto, {', '.join(PROVIDERS)}")
    runtime = _onnxruntime()
    wanted = ["cuda", "cpu"] if provider == "auto" else [provider]
    available = runtime.get_available_providers()
    for name in wanted:
        if PROVIDERS[name] not in available:
            if provider == "auto":
                continue
            raise ModelError(_missing_provider(name, available, runtime))
        session = _create(runtime, path, name, threads)
        if session.get_providers()[0] == PROVIDERS[name]:
            return name, session
        message = (
            f"ONNX Runtime {runtime.__version__} has {PROVIDERS[name]} but could not start it; its log above names the "
            "library that is missing (driver, CUDA, cuDNN or TensorRT)"
        )
        if provider != "auto":
            raise ModelError(f"provider {name!r}: {message}")
        _log.warning("running on the CPU: %s", message)
    raise ModelError("this ONNX Runtime has no CPU provider; install onnxruntime or onnxruntime-gpu again")


def _missing_provider(name: str, available: list[str], runtime: Any) -> str:
    return (
        f"provider {name!r} was asked for, but the installed ONNX Runtime {runtime.__version__} has only "
        f"{', '.join(available)}; install onnxruntime-gpu in place of onnxruntime, or ask for provider cpu"
    )


def _create(runtime: Any, path: Path, name: str, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle ONNX Runtime threads that spin starve the camera, the middleware and the numba kernels beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    providers = [PROVIDERS[name]] if name == "cpu" else [PROVIDERS[name], PROVIDERS["cpu"]]
    if name != "cpu" and hasattr(runtime, "preload_dlls"):
        # CUDA and cuDNN that came along as wheels are found only so.
        runtime.preload_dlls()
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ModelError(
            f"{path}: not a readable ONNX model ({_first_line(error)}); download or export it again"
        ) from error
