# SPDX-License-Identifier: Apache-2.0
"""A stream's state as plain numpy arrays: what ``Pipeline.snapshot`` gives, and the file that holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.atomic import replacing
from instance_flow.formats.foreign_text import shown
from instance_flow.network.protocol import DeviceFeatures
from instance_flow.structures import InstanceFlowError

Snapshot = dict[str, NDArray[Any]]
"""Arrays by name, "<part>.<what>"; none of them holds objects, so ``np.savez`` writes them without pickle."""

FORMAT = 3
LAST_FRAME = 2**53
"""Numbers up to it are exact in any arithmetic, and no stream reaches it."""
NO_STAMP = int(np.iinfo(np.int64).min)


def take(snapshot: Mapping[str, NDArray[Any]], name: str, kind: Any, *shape: int | None) -> NDArray[Any]:
    """An array of a snapshot, its kind (np.integer, np.floating, np.bool_, np.str_) and shape (None = any length)
    checked. Raises InstanceFlowError where it is missing or of another kind or shape."""
    if name not in snapshot:
        raise InstanceFlowError(f"the snapshot is incomplete: it has no {name!r}; start the stream anew")
    array = snapshot[name]
    fits = isinstance(array, np.ndarray) and len(array.shape) == len(shape)
    if not fits or not all(b in (None, a) for a, b in zip(array.shape, shape, strict=True)):
        wanted = tuple("any" if n is None else n for n in shape)
        raise InstanceFlowError(
            f"the snapshot is damaged: {name!r} has shape {getattr(array, 'shape', None)}, expected {wanted}; start "
            "the stream anew"
        )
    if not np.issubdtype(array.dtype, kind):
        raise InstanceFlowError(
            f"the snapshot is damaged: {name!r} is of type {array.dtype}, expected {kind.__name__.strip('_')}; start "
            "the stream anew"
        )
    return array


def take_counts(snapshot: Mapping[str, NDArray[Any]], name: str, *shape: int | None) -> NDArray[Any]:
    """``take`` of numbers of frames, or of how often something was seen, from 0 to ``LAST_FRAME``."""
    array = take(snapshot, name, np.integer, *shape)
    if array.size and not 0 <= array.min() <= array.max() <= LAST_FRAME:
        raise InstanceFlowError(
            f"the snapshot is damaged: {name!r} holds a number from {array.min()} to {array.max()}, expected 0 to "
            f"{LAST_FRAME}; start the stream anew"
        )
    return array


def pack_stamp(stamp: int | None) -> int:
    """Nanoseconds, NO_STAMP for None."""
    return NO_STAMP if stamp is None else stamp


def unpack_stamp(value: Any) -> int | None:
    """The inverse of ``pack_stamp``; raises InstanceFlowError for a number that is no stamp."""
    if int(value) >= 2**63:
        raise InstanceFlowError(f"the snapshot is damaged: it holds the stamp {value}; start the stream anew")
    return None if int(value) == NO_STAMP else int(value)


def pack_features(name: str, features: Any) -> Snapshot:
    """A network's features: an array or a number under ``name``, the parts of a tuple under name.0, name.1 and so on.

    ``DeviceFeatures`` are copied to the host. Raises InstanceFlowError for features of any other type.
    """
    if isinstance(features, DeviceFeatures):
        features = features.to_arrays()
    if isinstance(features, tuple):
        parts = [pack_features(f"{name}.{k}", part) for k, part in enumerate(features)]
        return {key: array for part in parts for key, array in part.items()}
    array = np.array(features)
    if array.dtype == object:
        raise InstanceFlowError(
            f"this network's features are of type {type(features).__name__}; a snapshot holds only arrays, numbers and "
            "tuples of them"
        )
    return {name: array}


def unpack_features(name: str, snapshot: Mapping[str, NDArray[Any]]) -> Any:
    """The inverse of ``pack_features``; a number becomes an array without axes. Raises InstanceFlowError without it."""
    if name in snapshot:
        return snapshot[name]
    parts: list[Any] = []
    while any(key == f"{name}.{len(parts)}" or key.startswith(f"{name}.{len(parts)}.") for key in snapshot):
        parts.append(unpack_features(f"{name}.{len(parts)}", snapshot))
    if not parts:
        raise InstanceFlowError(f"the snapshot is incomplete: it has no {name!r}; start the stream anew")
    return tuple(parts)


def pack_origin(origin: Mapping[str, Any]) -> Snapshot:
    """What the snapshot belongs to: any values that JSON can say."""
    return {"origin.format": np.array(FORMAT), "origin.values": np.array(json.dumps(dict(origin)))}


def check_origin(snapshot: Mapping[str, NDArray[Any]], origin: Mapping[str, Any]) -> None:
    """Raises InstanceFlowError for what is no snapshot, is of a newer format, or belongs to something else."""
    if "origin.format" not in snapshot or "origin.values" not in snapshot:
        raise InstanceFlowError("this is no snapshot of a stream: it does not say what made it")
    found_format = int(take(snapshot, "origin.format", np.integer))
    if found_format != FORMAT:
        raise InstanceFlowError(
            f"the snapshot has format {found_format}, this program reads format {FORMAT}; start the stream anew"
        )
    expected = json.loads(json.dumps(dict(origin)))
    try:
        found = json.loads(str(take(snapshot, "origin.values", np.str_)))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InstanceFlowError("the snapshot is damaged: what it says of its origin is no JSON; start the stream anew")
    other = [name for name in expected if found.get(name) != expected[name]]
    if other:
        name = other[0]
        theirs, ours = (shown(repr(values.get(name))) for values in (found, expected))
        raise InstanceFlowError(
            f"the snapshot is of another pipeline: its {name} is {theirs}, here it is {ours}; "
            "use the model and the settings that made it, or start the stream anew"
        )


def write_snapshot(path: str | Path, snapshot: Snapshot) -> None:
    """Write an .npz file; it appears whole or not at all."""
    with replacing(Path(path)) as whole, whole.open("wb") as file:
        np.savez(file, **snapshot)  # type: ignore[arg-type]


def read_snapshot(path: str | Path) -> Snapshot:
    """Read what ``write_snapshot`` wrote. Raises InstanceFlowError for a file that is missing, damaged or foreign."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InstanceFlowError(f"{path}: there is no such snapshot; check the path") from None
    except Exception as error:  # Damaged bytes break a parser in any way there is.
        raise InstanceFlowError(
            f"{path}: not a readable snapshot ({shown(error, 200)}); start the stream anew"
        ) from error
