# SPDX-License-Identifier: Apache-2.0
"""Damaged input of every kind that is read: each is used, or refused in one sentence; anything else is a failure.

python tests/mutants.py --seconds 300 --seed 1              all kinds; --help lists the options

A test runs the first few of each kind. A seed gives the same mutants again. Inputs that fail are kept.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import multiprocessing
import os
import resource
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from red_thing import INFO, frames, red_network, write_source

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.evaluation.evaluate import evaluate
from instance_flow.formats.bags import BagImages
from instance_flow.formats.foreign_text import MESSAGE
from instance_flow.formats.image_encodings import ENCODINGS, decode_compressed, decode_raw
from instance_flow.formats.rle import encode
from instance_flow.network.onnx import METADATA_KEY, OnnxNetwork, write_metadata
from instance_flow.stream import Stream
from instance_flow.structures import InstanceFlowError
from instance_flow.tracking.snapshot import read_snapshot

Random = np.random.Generator
OK, REFUSED = "ok", "refused"
SLOW, LARGE = 5.0, 1000.0
"""Seconds and megabytes that no input of this size may take; only the command looks at them."""

EXTREMES: tuple[Any, ...] = (
    *(None, True, False, "", "0", "\n\x1b[31m", "x" * 10_000, [], {}, [[]], [None], {"a": 1}),
    *(-1, 0, 1, 2, 255, 2**16, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, -(2**63), -(2**64)),
    *(0.5, -0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
)
FORMATS = ("", "jpeg", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png compressed ", "16UC1; compressedDepth", "h264")


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    sound: makes sound inputs, once.   mutate: gives a damaged copy of one.   use: reads it, as the product does.
    refusals: what it may raise.
    """

    sound: Callable[[Path], Sequence[Any]]
    mutate: Callable[[Random, Any], Any]
    use: Callable[[Path, Any], object]
    refusals: tuple[type[Exception], ...] = (InstanceFlowError,)


@dataclass
class Outcome:
    """What came of some mutants. failures: number, what was raised, and where."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0


def one_of(rng: Random, choices: Sequence[Any]) -> Any:
    """One of the choices, which numpy would turn into others."""
    return choices[int(rng.integers(len(choices)))]


def damaged(rng: Random, file: bytes) -> bytes:
    """The file with some bytes changed, cut out or put in, more often near its header; now and then as it is."""
    data = bytearray(file)
    for _ in range(int(rng.integers(0, 4))):
        place = int(len(data) * rng.random() ** 3)
        end = place + int(rng.integers(0, 4)) if rng.random() < 0.9 else len(data)
        data[place:end] = rng.bytes(int(rng.integers(0, 4)))
    return bytes(data)


def changed(rng: Random, value: Any) -> Any:
    """A copy of nested dicts and lists with one to three values replaced, removed, doubled or exchanged."""
    root = [copy.deepcopy(value)]
    for _ in range(int(rng.integers(0, 4))):
        places = list(_places(root))
        holder, key = one_of(rng, places)
        what = rng.random()
        if what < 0.6:
            holder[key] = copy.deepcopy(one_of(rng, EXTREMES))
        elif what < 0.75 and holder is not root:
            del holder[key]
        elif what < 0.9 and isinstance(holder[key], list):
            holder[key] = holder[key] * int(rng.integers(2, 50))
        else:
            other, place = one_of(rng, places)
            holder[key] = copy.deepcopy(other[place])
    return root[0]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys)[:200]:
        yield value, key
        yield from _places(value[key])


# Pictures and raw images: the bytes of one message.


def sound_pictures(_: Path) -> list[bytes]:
    rng = np.random.default_rng(1)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (24, 36, 3), dtype=np.uint8), (5, 5), 0)
    endings = (".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm", ".gif")
    files = [cv2.imencode(ending, picture)[1].tobytes() for ending in endings]
    progressive = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))[1].tobytes()
    last = progressive.rindex(b"\xff\xda")
    return [*files, progressive, progressive[:-2] + progressive[last:-2] * 200 + b"\xff\xd9", picture.tobytes()]


def use_picture(_: Path, data: bytes) -> None:
    format = FORMATS[len(data) % len(FORMATS)]
    image = decode_compressed(data, format)
    assert image.dtype == np.uint8
    assert image.ndim == 3


def mutate_raw(rng: Random, message: list[Any]) -> list[Any]:
    message = list(message)
    for place in range(1, len(message)):
        if rng.random() < 0.2:
            extremes = [e for e in EXTREMES if type(e) is type(message[place])]
            message[place] = one_of(rng, extremes)
    message[0] = message[0][: int(rng.integers(len(message[0])))] if rng.random() < 0.2 else message[0]
    return message


def sound_raw(_: Path) -> list[list[Any]]:
    return [[bytes(40_000), 8, 12, 12 * 8, encoding, False] for encoding in ENCODINGS]


# Models: one that follows a red thing, with a damaged description, or damaged itself.


def sound_models(_: Path) -> list[dict[str, Any]]:
    return [json.loads(write_metadata(INFO)[METADATA_KEY])]


def mutate_model(rng: Random, description: dict[str, Any]) -> bytes:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(red_network())
    if rng.random() < 0.7:
        text = json.dumps(changed(rng, description))
        text = damaged(rng, text.encode()).decode("latin-1") if rng.random() < 0.1 else text
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        return bytes(model.SerializeToString())
    return damaged(rng, model.SerializeToString())


def use_model(folder: Path, model: bytes) -> None:
    path = folder / "model.onnx"
    path.write_bytes(model)
    network = OnnxNetwork(path, "cpu")
    if max(network.info.input_size) <= 512:  # What a frame of a larger one takes is as large as it says.
        stream = Stream(Pipeline(network))
        for stamp, image in enumerate(frames(3)):
            stream.step(image, stamp)


# Bags: a file, or a folder with its metadata.yaml.


def sound_bags(folder: Path) -> list[dict[str, bytes]]:
    bags = []
    for name in ("bag.mcap", "bag.db3"):
        path = write_source(folder / name, [image[:16, :24] for image in frames(3)])
        bags.append({name: path.read_bytes()})
        path.unlink()
    return bags


def mutate_bag(rng: Random, files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: damaged(rng, data) for name, data in files.items()}


def use_bag(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        (name,) = files
        reasons: list[str] = []
        for _ in BagImages(folder / name).images(lambda _topic, _number, why: reasons.append(why)):
            pass
        for reason in reasons:
            check_sentence(reason)
    finally:
        for path in folder.glob("bag.*"):
            path.unlink()


# Files of the evaluation.


def sound_evaluation(_: Path) -> list[list[Any]]:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 5:14] = 1
    size = [20, 30]
    polygon = [[3.0, 3.0, 12.5, 3.0, 12.5, 9.0, 3.0, 9.0], [1, 1, 2, 9, 9, 2]]
    counts = {"size": size, "counts": [64, 8, 528]}
    truth = {
        "videos": [{"id": 1, "height": 20, "width": 30, "length": 3, "file_names": ["a/0.jpg", "a/1.jpg", "a/2.jpg"]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                **{"id": k, "video_id": 1, "category_id": k, "iscrowd": 0, "areas": [45, None, 60]},
                "segmentations": [encode(mask), None, polygon],
            }
            for k in (1, 2)
        ],
    }
    results = [
        {"video_id": 1, "category_id": k, "score": 0.5, "segmentations": [encode(mask), counts, None]} for k in (1, 2)
    ]
    return [[truth, results]]


def mutate_evaluation(rng: Random, files: list[Any]) -> list[bytes]:
    pair = [changed(rng, content) if rng.random() < 0.6 else content for content in files]
    texts = [json.dumps(content).encode() for content in pair]
    return [damaged(rng, text) if rng.random() < 0.1 else text for text in texts]


def use_evaluation(folder: Path, files: list[bytes]) -> None:
    paths = folder / "truth.json", folder / "results.json"
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    json.dumps(evaluate(*paths))


# Checkpoints and files of weights. torch comes with the training alone.


def sound_checkpoints(folder: Path) -> list[tuple[str, Any]]:
    import torch

    from instance_flow_training.config import load_config
    from instance_flow_training.network.model import InstanceFlowNet
    from instance_flow_training.weights.checkpoint import FORMAT, save_weights

    config = load_config(Path(__file__).with_name("tiny.toml"), [])
    network, names = InstanceFlowNet(config.model, 2), ["cat", "dog"]
    about = {"format": FORMAT, "step": 4, "config": asdict(config), "class_names": names}
    save_weights(folder / "sound.safetensors", network, config, names, 4)
    whole = io.BytesIO()
    torch.save({**about, "network": network.state_dict()}, whole)
    weights = (folder / "sound.safetensors").read_bytes()
    return [("state", {**about, "network": network.state_dict()}), (".pt", whole.getvalue()), (".safetensors", weights)]


def mutate_checkpoint(rng: Random, checkpoint: tuple[str, Any]) -> tuple[str, bytes]:
    import torch

    kind, content = checkpoint
    if kind != "state":
        return kind, damaged(rng, content)
    about = changed(rng, {name: value for name, value in content.items() if name != "network"})
    network = dict(content["network"])
    if rng.random() < 0.4:
        name = one_of(rng, sorted(network))
        found = network.pop(name)
        odd = [None, found[None], found.to(torch.int8), found.to(torch.complex64), found.to_sparse(), EXTREMES[-1]]
        network[name] = one_of(rng, odd)
    if isinstance(about, dict) and rng.random() < 0.95:
        about["network"] = network
    file = io.BytesIO()
    torch.save(about, file)
    return ".pt", file.getvalue()


def use_checkpoint(folder: Path, checkpoint: tuple[str, bytes]) -> None:
    from instance_flow_training.config import ConfigError
    from instance_flow_training.weights.checkpoint import load_network

    path = folder / f"checkpoint{checkpoint[0]}"
    path.write_bytes(checkpoint[1])
    try:
        load_network(path)
    except ConfigError as error:
        raise InstanceFlowError(str(error)) from error


# Snapshots of a stream.


def sound_snapshots(folder: Path) -> list[dict[str, NDArray[Any]]]:
    path = folder / "red.onnx"
    path.write_bytes(red_network())
    stream = red_stream(path)
    snapshots = []
    for number, image in enumerate(frames(6)):
        stream.step(image, number * 10**8, "rgb8")
        snapshots.append(stream.snapshot())
    return [snapshots[0], snapshots[-1]]


def red_stream(path: Path) -> Stream:
    return Stream(Pipeline(OnnxNetwork(path, "cpu"), AssemblyConfig(confirm_frames=1)))


def mutate_snapshot(rng: Random, snapshot: dict[str, NDArray[Any]]) -> bytes:
    arrays = dict(snapshot)
    for _ in range(int(rng.integers(0, 3))):
        name = one_of(rng, sorted(arrays))
        arrays[name] = np.asarray(_odd_array(rng, arrays[name]))
    if rng.random() < 0.2:
        arrays.pop(one_of(rng, sorted(arrays)))
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return damaged(rng, file.getvalue()) if rng.random() < 0.2 else file.getvalue()


def _odd_array(rng: Random, array: NDArray[Any]) -> Any:
    numbers = [e for e in EXTREMES if (isinstance(e, int | float) and -(2**63) <= e < 2**63) or e != e]
    with np.errstate(all="ignore"):
        whole = [n for n in numbers if isinstance(n, int)]
        of_kind = whole if array.dtype.kind in "iu" else numbers
        odd = array.copy()
        if array.dtype.kind in "iuf" and array.size:
            odd.reshape(-1)[int(rng.integers(array.size))] = one_of(rng, of_kind)
        kinds = [array[None], array.astype(str), array[:0] if array.ndim else array, np.array("x" * 9), np.zeros(3)]
        return odd if rng.random() < 0.6 else one_of(rng, kinds)


def use_snapshot(folder: Path, data: bytes) -> None:
    (folder / "state.npz").write_bytes(data)
    stream = red_stream(folder / "red.onnx")
    stream.restore(read_snapshot(folder / "state.npz"))
    for number, image in enumerate(frames(3)):
        stream.step(image, (6 + number) * 10**8, "rgb8")
    stream.snapshot()


KINDS = {
    "pictures": Kind(sound_pictures, damaged, use_picture, (ValueError,)),
    "raw images": Kind(sound_raw, mutate_raw, lambda _, message: decode_raw(*message), (ValueError,)),
    "models": Kind(sound_models, mutate_model, use_model),
    "bags": Kind(sound_bags, mutate_bag, use_bag),
    "evaluation": Kind(sound_evaluation, mutate_evaluation, use_evaluation),
    "checkpoints": Kind(sound_checkpoints, mutate_checkpoint, use_checkpoint),
    "snapshots": Kind(sound_snapshots, mutate_snapshot, use_snapshot),
}


def check_sentence(text: str) -> None:
    """Raises AssertionError where a message is not one printable line of a length that can be read."""
    assert text, "a message without words"
    assert text.isprintable(), f"a message with control characters: {text[:200]!r}"
    assert len(text) <= MESSAGE, f"a message of {len(text)} characters: {text[:100]}"


def run(
    name: str, folder: Path, seed: int, go_on: Callable[[int], bool], keep: Callable[[int, Any], object] | None = None
) -> Outcome:
    """Use mutants of a kind, number by number, while ``go_on(number)``. keep: called with each before it is used."""
    kind, outcome = KINDS[name], Outcome()
    sound = kind.sound(folder)
    number = 0
    while go_on(number):
        rng = np.random.default_rng((seed, number))
        mutant = kind.mutate(rng, one_of(rng, sound))
        if keep is not None:
            keep(number, mutant)
        before, start = _peak(), monotonic()
        outcome.counts[_use(kind, folder, mutant, number, outcome)] += 1
        outcome.seconds = max(outcome.seconds, monotonic() - start)
        outcome.megabytes = max(outcome.megabytes, _peak() - before)
        number += 1
    return outcome


def _use(kind: Kind, folder: Path, mutant: Any, number: int, outcome: Outcome) -> str:
    try:
        try:
            kind.use(folder, mutant)
        except kind.refusals as refusal:
            check_sentence(str(refusal))
            return REFUSED
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {str(error)[:200]!r} at {Path(where.filename).name}:{where.lineno}"
        outcome.failures.append((number, words))
        return words
    return OK


def _peak() -> float:
    """Most memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


# The command: each kind in a process of its own, so that a crash is one more outcome.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all kinds and print a table; 1 where an input failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all unless given")
    parser.add_argument("--seconds", type=float, default=300.0, help="for all kinds together (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("out/mutants"), help="folder of inputs that fail")
    options = parser.parse_args(arguments)
    kinds = options.kinds or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    print(f"{'':<12}{'inputs':>8}{'ok':>8}{'refused':>8}{'failed':>8}{'slowest':>9}{'memory':>9}")
    failed = 0
    for name in kinds:
        outcome = _in_a_process(name, options.seconds / len(kinds), options.seed, options.keep / name)
        total, ok, refused = (outcome.counts.total(), outcome.counts[OK], outcome.counts[REFUSED])
        failed += total - ok - refused
        columns = f"{total:8}{ok:8}{refused:8}{total - ok - refused:8}"
        print(f"{name:<12}{columns}{outcome.seconds:7.2f} s{outcome.megabytes:6.0f} MB", flush=True)
        for number, words in outcome.failures[:10]:
            print(f"    {number}: {words}")
    return 1 if failed else 0


def _in_a_process(name: str, seconds: float, seed: int, keep: Path) -> Outcome:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(there, name, seconds, seed, keep))
    process.start()
    there.close()
    try:
        outcome: Outcome = here.recv()
    except EOFError:
        process.join()
        words = f"ended with exit code {process.exitcode}; the input is in {keep}"
        outcome = Outcome(Counter({words: 1}), [(-1, words)])
    process.join()
    return outcome


def _child(pipe: Any, name: str, seconds: float, seed: int, keep: Path) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    last = keep / "last"
    with _silence():
        end = monotonic() + seconds
        folder = keep / "work"
        folder.mkdir(exist_ok=True)
        outcome = run(name, folder, seed, lambda _: monotonic() < end, lambda _, mutant: last.write_text(repr(mutant)))
    for number, _ in outcome.failures[:20]:
        rng = np.random.default_rng((seed, number))
        mutant = KINDS[name].mutate(rng, one_of(rng, KINDS[name].sound(folder)))
        (keep / f"{number}").write_text(repr(mutant))
    if outcome.seconds > SLOW or outcome.megabytes > LARGE:
        outcome.counts["too much"] += 1
        outcome.failures.append((-1, f"one took {outcome.seconds:.1f} s, one {outcome.megabytes:.0f} MB"))
    pipe.send(outcome)


@contextmanager
def _silence() -> Iterator[None]:
    """Without what libraries in C say of damaged files."""
    errors = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(errors, 2)
        os.close(nothing)
        os.close(errors)


if __name__ == "__main__":
    sys.exit(main())
