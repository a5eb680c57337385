# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines on disk: a folder for each combination of everything that an engine depends on.

An engine serves the very GPU and the very versions that it was built with, and building one takes minutes. So each lies
in a folder of its own, named by a hash of ``EngineFacts``, which lie beside it as key.json. One that fits is used; else
one is built beside the others, and the differences are logged. A folder appears when its engine is complete; the
process that builds holds a lock, so a second process waits for the first one's engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from instance_flow.formats.atomic import remove_leftovers, replacing

KEY, LOCK, TIMINGS = "key.json", "lock", "timings"

# Words for what a person may have changed; the other facts are of the model.
_MACHINE = {
    "gpu": "the GPU",
    "capability": "its compute capability",
    "driver": "the driver",
    "tensorrt": "TensorRT",
    "onnxruntime": "ONNX Runtime",
}


@dataclass(frozen=True)
class EngineFacts:
    """What an engine depends on.

    model: name in the model's description.   model_sha256: of the file.   weights_sha256: of the weights.
    precision: fp16 | fp32.   size: input's (height, width).   gpu, capability, driver, tensorrt, onnxruntime: as
    NVIDIA and ONNX Runtime say them.
    """

    model: str
    model_sha256: str
    weights_sha256: str
    precision: str
    size: tuple[int, int]
    gpu: str
    capability: str
    driver: str
    tensorrt: str
    onnxruntime: str

    @property
    def key(self) -> str:
        """Name of the folder; differs as soon as one of the facts does."""
        return _hash(asdict(self))

    @property
    def machine_key(self) -> str:
        """The same for what has nothing to do with the model: timings of kernels are shared by all models."""
        return _hash({name: getattr(self, name) for name in _MACHINE})


@dataclass(frozen=True)
class Engine:
    """One folder of the cache. size: bytes."""

    folder: Path
    facts: EngineFacts
    size: int


def default_root() -> Path:
    """Default folder of the engines."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "instance-flow" / "engines"


def engines(root: Path) -> list[Engine]:
    """All that are whole, by the names of their folders. What cannot be read is no engine, and is built again."""
    return [engine for path in sorted(root.glob(f"*/{KEY}")) if (engine := _read(path)) is not None]


def fitting(root: Path, facts: EngineFacts) -> Engine | None:
    """The engine for exactly these facts, if its files are as they were when it was built."""
    engine = _read(root / facts.key / KEY)
    return engine if engine is not None and engine.facts == facts else None


def of_another_machine(found: Sequence[Engine], facts: EngineFacts) -> list[Engine]:
    """Those that were built for another GPU or other versions, of whatever model: of no use here."""
    return [engine for engine in found if engine.facts.machine_key != facts.machine_key]


def prune(root: Path, facts: EngineFacts) -> list[Engine]:
    """Remove the engines of another machine; gives those that are gone. Raises OSError where they cannot be removed."""
    with _locked(root, lambda: None):
        old = of_another_machine(engines(root), facts)
        for engine in old:
            shutil.rmtree(engine.folder)
    return old


def why_built(found: Sequence[Engine], facts: EngineFacts) -> str:
    """Why none of the engines serves, for people: what differs from the one that is the most alike.

    Returns:
        Such as "the GPU was Orin and is H100, TensorRT 10.1.0 -> 10.3.0", or "there is none yet for this model".
    """
    same_model = [
        engine.facts
        for engine in found
        if (engine.facts.weights_sha256, engine.facts.precision, engine.facts.size)
        == (facts.weights_sha256, facts.precision, facts.size)
    ]
    if not same_model:
        return "there is none yet for this model"
    nearest = min(same_model, key=lambda old: len(_changes(old, facts)))
    return ", ".join(_changes(nearest, facts)) or "the one that is there is damaged"


def cached(root: Path, facts: EngineFacts, build: Callable[[Path], Any], say: Callable[[str], None]) -> Any:
    """Use the engine that fits, or build it.

    Args:
        root: folder of the cache; made where it is missing.
        build: opens a session with a folder for its engines; it is called once, or a second time where the first engine
            does not load.
        say: called with what is about to happen, when it takes long.

    Returns:
        What ``build`` gives.

    Raises:
        OSError: where the cache cannot be written.   What ``build`` raises for a new engine.
    """
    if fitting(root, facts) is not None:
        try:
            return build(root / facts.key)
        except Exception as error:
            say(f"the TensorRT engine in {root / facts.key} does not load ({error}); it is built again")
            shutil.rmtree(root / facts.key)
    with _locked(root, lambda: say("waiting for another process that builds a TensorRT engine")):
        if fitting(root, facts) is not None:
            return build(root / facts.key)
        say(f"building a TensorRT engine, which takes minutes: {why_built(engines(root), facts)}")
        folder = root / facts.key
        remove_leftovers(folder)
        with replacing(folder) as unfinished:
            unfinished.mkdir()
            session = build(unfinished)
            _write_key(unfinished, facts)
        return session


def _changes(old: EngineFacts, new: EngineFacts) -> list[str]:
    changes = []
    for name, words in _MACHINE.items():
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            changes.append(f"{words} was {was} and is {now}" if name == "gpu" else f"{words} {was} -> {now}")
    return changes + ["the model file was written anew"] * (old.model_sha256 != new.model_sha256)


def _write_key(folder: Path, facts: EngineFacts) -> None:
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    text = json.dumps({"facts": asdict(facts), "files": files}, indent=2)
    (folder / KEY).write_text(text, encoding="utf-8")


def _read(path: Path) -> Engine | None:
    """None where key.json is missing or damaged, or a file is not as long as it was."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values = {field.name: content["facts"][field.name] for field in fields(EngineFacts)}
        sizes = {name: (path.parent / name).stat().st_size for name in content["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if sizes != content["files"]:
        return None
    return Engine(path.parent, EngineFacts(**{**values, "size": tuple(values["size"])}), sum(sizes.values()))


@contextmanager
def _locked(root: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the cache alone; one lock for all engines, since a build that shares the GPU measures wrong times."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hash(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
