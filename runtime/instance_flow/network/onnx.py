# SPDX-License-Identifier: Apache-2.0
"""The deployed network: a self-describing ONNX file on ONNX Runtime.

Features of reference frames stay where the network wrote them, on its device, for as long as they are referenced
(``buffers.Pool``); the graph concatenates those that it is given. Only the image is copied to the device, and only the
maps are copied back. Every provider works this way, the CPU's too.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import shown
from instance_flow.network.buffers import Lease, Pool
from instance_flow.network.description import LARGEST_SIDE, input_step, parse_description
from instance_flow.network.execution import ExecutionConfig, first_line, open_session
from instance_flow.network.gpu.session import unreadable
from instance_flow.network.protocol import Network
from instance_flow.network.stages import Stopwatch
from instance_flow.structures import MAPS, FloatArray, Image, InstanceFlowError, ModelError, ModelInfo, Prediction

FORMAT_VERSION = 3
OLDEST_VERSION = 2
METADATA_KEY = "instance_flow"
MOST_GRAPHS = 64
"""CUDA graphs of one session at most: each takes memory of the device. A steady stream needs four or five."""

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Arrays = tuple[NDArray[Any], ...]
"""Per level (1, channels, *size) with the sizes of ``ModelInfo.feature_sizes``."""


def reference_input(level: int, k: int) -> str:
    """Name of the graph's input for reference ``k`` at a fusion level."""
    return f"reference_features_{level}_{k}"


def feature_names(levels: int) -> tuple[str, ...]:
    """Names of the graph's outputs that are cached."""
    return tuple(f"features_{level}" for level in range(levels))


def write_metadata(info: ModelInfo) -> dict[str, str]:
    """The ONNX metadata entry that makes a file self-describing."""
    values = {f.name: getattr(info, f.name) for f in fields(info)}
    values["match_costs"] = asdict(info.match_costs)
    return {METADATA_KEY: json.dumps({"format_version": FORMAT_VERSION, **values})}


def read_metadata(path: str | Path, metadata: dict[str, str]) -> ModelInfo:
    """Raises ModelError for a foreign file, a newer format, and for a description that is damaged (``description``)."""
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path}: an ONNX model, but not one of instance-flow (its metadata has no {METADATA_KEY!r} entry); "
            "use a file written by instance-flow-export"
        )
    try:
        values = json.loads(metadata[METADATA_KEY])
        version = values.pop("format_version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: its description is damaged; export the model again") from error
    if type(version) is not int:
        found = shown(reprlib.repr(version))
        raise ModelError(f"{path}: its description is damaged (format_version {found}); export the model again")
    if version < OLDEST_VERSION:
        raise ModelError(
            f"{path}: model format {version} is older than what this program reads, format {OLDEST_VERSION}; export "
            "the model again from its checkpoint"
        )
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: model format {version} is newer than this program, which reads up to {FORMAT_VERSION}; "
            "upgrade instance-flow"
        )
    try:
        return parse_description(values)
    except ValueError as error:
        raise ModelError(f"{path}: its description makes no sense: {error}; export the model again") from error


class CachedFeatures:
    """One frame's features on the network's device; their buffers are reused once this is no longer referenced."""

    __slots__ = ("lease",)

    def __init__(self, lease: Lease[tuple[Any, ...]]) -> None:
        self.lease = lease

    def to_arrays(self) -> Arrays:
        """A copy on the host."""
        return tuple(np.array(value.numpy()) for value in self.lease.item)


@dataclass(frozen=True)
class _Workspace:
    """ONNX Runtime's values that a frame goes through; all on the device."""

    image: Any
    maps: dict[str, Any]


@dataclass(frozen=True)
class _OnDevice:
    """Keeps ``protocol.Launched``."""

    features: CachedFeatures
    references: int
    workspace: Lease[_Workspace]

    def download(self) -> Prediction:
        """The maps, in single precision."""
        maps = {name: _to_host(value) for name, value in self.workspace.item.maps.items()}
        maps["reference_offset"] = maps["reference_offset"][: self.references]
        return Prediction(**maps, features=self.features)


class OnnxNetwork(Network):
    """An ONNX model on one execution provider. May be called from several threads; frames are computed one by one.

    Args:
        path: the model file.   provider: auto | cpu | cuda | tensorrt.
        size: (height, width) to run at in place of the model's own; ``info.input_size`` says it.

    Attributes:
        fixed_size: (height, width) if the graph takes only that size, else None.

    Raises:
        ModelError: for a file that is missing, damaged or foreign, for a provider that does not start here, and for a
            size that the model does not take.
    """

    def __init__(
        self,
        path: str | Path,
        provider: str = "auto",
        execution: ExecutionConfig | None = None,
        size: tuple[int, int] | None = None,
    ):
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"{path}: no such model file; give the .onnx file that instance-flow-export wrote")
        self._execution = execution or ExecutionConfig()
        self._provider, self._session = open_session(path, provider, self._execution)
        metadata, inputs, outputs = _inspect_session(path, self._session)
        self.info = read_metadata(path, metadata)
        _check_graph(path, self.info, inputs, outputs)
        self._levels = len(self.info.feature_sizes(0, 0))
        self._features = feature_names(self._levels)
        references = [inputs[reference_input(level, 0)] for level in range(self._levels)]
        self._channels = [node.shape[1] for node in references]
        self._all_references = isinstance(references[0].shape[0], int)
        self._dtypes = {name: _DTYPES[node.type] for name, node in outputs.items()}
        height, width = inputs["image"].shape[1:3]
        self.fixed_size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        if self.fixed_size not in (None, self.info.input_size):
            raise ModelError(
                f"{path}: it takes images of {self.fixed_size} (height, width), but describes {self.info.input_size}; "
                "export the model again"
            )
        if size is not None:
            self.info = replace(self.info, input_size=self._usable(size))
        self._device = "cpu" if self.provider == "cpu" else "cuda"
        self._lock = Lock()
        self._pools: dict[tuple[int, ...], Pool[Any]] = {}
        self._constants: dict[tuple[int, ...], tuple[Any, ...]] = {}
        self._graphs: dict[tuple[int, ...], int] = {}

    @property
    def provider(self) -> str:
        """Where it runs: cpu, cuda or tensorrt."""
        return self._provider

    @property
    def _records_graphs(self) -> bool:
        """Whether frames are started as CUDA graphs."""
        return self._execution.cuda_graph and self.provider != "cpu"

    def warmup_frames(self, references: int) -> int:
        """See ``Network``. A CUDA graph is recorded for each order that the buffers of the references come in."""
        return 4 * references if self._records_graphs else super().warmup_frames(references)

    def predict(self, image: Image, references: Sequence[CachedFeatures | Arrays], /) -> Prediction:
        """See ``Network``; references are ``Prediction.features`` of earlier frames of the same size.

        Raises:
            ModelError: for a size or a number of references that the model does not take, and when ONNX Runtime fails,
                for example when the device's memory is full.
        """
        return self.launch(image, references, Stopwatch()).download()

    def launch(self, image: Image, references: Sequence[CachedFeatures | Arrays], watch: Stopwatch) -> _OnDevice:
        """``predict`` without the download, which may run beside the next frame. Raises what ``predict`` does."""
        size = image.shape[0], image.shape[1]
        self._check(size, len(references))
        with self._lock:
            count = self.info.max_references if self._all_references else len(references)
            workspace = self._pool((*size, count), partial(self._make_workspace, size, count)).take()
            workspace.item.image.update_inplace(np.ascontiguousarray(image[None]))
            cached = [self._cache(features, size) for features in references]
            features = CachedFeatures(self._feature_pool(size).take())
            watch.lap("upload")
            binding = self._bind(workspace, cached, features, size)
            try:
                self._session.run_with_iobinding(binding, self._run_options(workspace, cached, features, size))
            except Exception as error:
                raise ModelError(f"the network failed on {self.provider}: {first_line(error)}") from error
            watch.lap("network")
        return _OnDevice(features, len(references), workspace)

    def _usable(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size as it is. Raises ModelError for one that the model does not take."""
        step = input_step(self.info)
        if self.fixed_size not in (None, size) or any(n % step or not step <= n <= LARGEST_SIDE for n in size):
            takes = f"multiples of {step} from {step} to {LARGEST_SIDE}"
            if self.fixed_size:
                takes = f"{self.fixed_size[1]} x {self.fixed_size[0]} only; export it without --static for other sizes"
            raise ModelError(f"an input of {size[1]} x {size[0]} pixels was given, but this model takes {takes}")
        return size

    def _check(self, size: tuple[int, int], references: int) -> None:
        self._usable(size)
        if references > self.info.max_references:
            raise ModelError(f"{references} references were given, but this model takes {self.info.max_references}")

    def _bind(
        self, workspace: Lease[_Workspace], cached: Sequence[CachedFeatures], own: CachedFeatures, size: tuple[int, int]
    ) -> Any:
        """Name the buffers that the graph reads and writes; no two of them overlap."""
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("image", workspace.item.image)
        missing = self._missing(size)
        for level in range(self._levels):
            for k in range(self.info.max_references):
                value = cached[k].lease.item[level] if k < len(cached) else missing[level]
                binding.bind_ortvalue_input(reference_input(level, k), value)
        for name, value in (*workspace.item.maps.items(), *zip(self._features, own.lease.item, strict=True)):
            binding.bind_ortvalue_output(name, value)
        return binding

    def _run_options(
        self, workspace: Lease[_Workspace], cached: Sequence[CachedFeatures], own: CachedFeatures, size: tuple[int, int]
    ) -> Any:
        """Which CUDA graph to start: one is recorded for each set of buffers, whose addresses it keeps."""
        if not self._records_graphs:
            return None
        import onnxruntime

        buffers = (*size, workspace.number, own.lease.number, *(features.lease.number for features in cached))
        number = self._graphs.get(buffers, len(self._graphs) + 1)
        if number <= MOST_GRAPHS:
            self._graphs[buffers] = number
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number if number <= MOST_GRAPHS else -1))
        return options

    def check_features(self, features: Any) -> None:
        """Raises InstanceFlowError where these, from a snapshot, are no features of a frame of ``info.input_size``."""
        wanted = [
            (1, channels, *shape)
            for channels, shape in zip(self._channels, self.info.feature_sizes(*self.info.input_size), strict=True)
        ]
        found = [getattr(array, "shape", None) for array in features] if isinstance(features, tuple) else None
        kinds = {getattr(array, "dtype", None) for array in features} if isinstance(features, tuple) else set()
        if found != wanted or not kinds <= {np.dtype(np.float32), np.dtype(np.float16)}:
            raise InstanceFlowError(
                f"the snapshot is damaged: features of a reference have shapes {found}, expected {wanted} of floating "
                "point numbers; start the stream anew"
            )

    def _cache(self, features: CachedFeatures | Arrays, size: tuple[int, int]) -> CachedFeatures:
        """Features on the device; those of a snapshot come from the host."""
        if isinstance(features, CachedFeatures):
            return features
        lease = self._feature_pool(size).take()
        for value, name, array in zip(lease.item, self._features, features, strict=True):
            value.update_inplace(np.ascontiguousarray(array, self._dtypes[name]))
        return CachedFeatures(lease)

    def _missing(self, size: tuple[int, int]) -> tuple[Any, ...]:
        """Inputs in place of a missing reference: none, or zeros where the graph always takes all references.

        The branches of the references are independent of one another, and the maps of zeros are cut off again.
        """
        if size not in self._constants:
            values = self._make_features(size, int(self._all_references))
            for value, name in zip(values, self._features, strict=True):
                value.update_inplace(np.zeros(value.shape(), self._dtypes[name]))
            self._constants[size] = values
        return self._constants[size]

    def _feature_pool(self, size: tuple[int, int]) -> Pool[tuple[Any, ...]]:
        return self._pool(size, partial(self._make_features, size, 1))

    def _pool(self, key: tuple[int, ...], make: Any) -> Pool[Any]:
        if key not in self._pools:
            self._pools[key] = Pool(make)
        return self._pools[key]

    def _make_features(self, size: tuple[int, int], batch: int) -> tuple[Any, ...]:
        return tuple(
            self._make((batch, channels, *shape), self._dtypes[name])
            for channels, shape, name in zip(
                self._channels, self.info.feature_sizes(*size), self._features, strict=True
            )
        )

    def _make_workspace(self, size: tuple[int, int], references: int) -> _Workspace:
        cells = size[0] // self.info.output_stride, size[1] // self.info.output_stride
        leading = ((len(self.info.class_names) + 1,), (), (2,), (references, 2))
        maps = {
            name: self._make((*dimensions, *cells), self._dtypes[name])
            for name, dimensions in zip(MAPS, leading, strict=True)
        }
        return _Workspace(self._make((1, *size, 3), np.uint8), maps)

    def _make(self, shape: tuple[int, ...], dtype: Any) -> Any:
        from onnxruntime import OrtValue

        try:
            return OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self._device, 0)
        except Exception as error:
            reason = first_line(error)
            raise ModelError(f"no memory on {self.provider} for an array of shape {shape}: {reason}") from error


def _to_host(value: Any) -> FloatArray:
    """A copy, whatever the device: the buffer is written again by a later frame."""
    return np.array(value.numpy(), np.float32)


def _inspect_session(path: Path, session: Any) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
    """Metadata, and inputs and outputs by name. Raises ModelError where one of their texts is damaged."""
    try:
        metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        inputs, outputs = (
            {node.name: node for node in nodes} for nodes in (session.get_inputs(), session.get_outputs())
        )
        # Texts are decoded where they are looked at: here, not later.
        _ = [(node.shape, node.type) for node in (*inputs.values(), *outputs.values())]
        return metadata, inputs, outputs
    except Exception as error:  # Bytes that are no UTF-8, most often.
        raise unreadable(path, error) from error


def _listed(names: Iterable[str]) -> str:
    return shown(", ".join(map(shown, names)), 500)


def _check_graph(path: Path, info: ModelInfo, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Raises ModelError where the graph is not what the description says."""
    levels = len(info.feature_sizes(0, 0))
    expected = [reference_input(level, k) for level in range(levels) for k in range(info.max_references)]
    if set(inputs) != {"image", *expected}:
        raise ModelError(
            f"{path}: its inputs are {_listed(inputs)}; expected image and {expected[0]} to {expected[-1]}"
        )
    wanted = (*MAPS, *feature_names(levels))
    if not set(wanted) <= set(outputs):
        raise ModelError(f"{path}: its outputs are {_listed(outputs)}; expected {', '.join(wanted)}")
    tokens = info.feature_tokens or None
    ranks = {"image": 4, **dict.fromkeys(expected, 3 if tokens else 4), **dict(zip(MAPS, (3, 2, 3, 4), strict=True))}
    for name, rank in ranks.items():
        shape = (inputs if name in inputs else outputs)[name].shape
        if len(shape) != rank:
            raise ModelError(f"{path}: {name} has {len(shape)} dimensions, expected {rank}; export the model again")
    classes = outputs["semantic"].shape[0]
    if isinstance(classes, int) and classes != len(info.class_names) + 1:
        raise ModelError(
            f"{path}: it has {classes} classes with background, but describes {len(info.class_names)} and "
            "background; export the model again"
        )
    if not all(isinstance(inputs[name].shape[1], int) for name in expected):
        raise ModelError(f"{path}: the channels of its reference features are not fixed; export the model again")
    found = {inputs[name].shape[2] for name in expected}
    if tokens and not all(n == tokens for n in found if isinstance(n, int)):
        raise ModelError(f"{path}: it has {found} object tokens, but describes {tokens}; export the model again")
    if inputs["image"].type != "tensor(uint8)":
        raise ModelError(f"{path}: its image is of type {inputs['image'].type}; expected tensor(uint8)")
    kinds = {node.type for name, node in (*inputs.items(), *outputs.items()) if name != "image"}
    if not kinds <= set(_DTYPES):
        raise ModelError(f"{path}: its maps are of types {', '.join(sorted(kinds))}; expected {', '.join(_DTYPES)}")
