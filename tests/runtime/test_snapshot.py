# SPDX-License-Identifier: Apache-2.0
"""A stream that stops and is resumed elsewhere: its results must be those of a stream without the stop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_clips import FRAMES, SITUATIONS, DrawnClip, TrueNetwork

from instance_flow import AssemblyConfig, InstanceFlowError, Pipeline, Tracks
from instance_flow.network.protocol import Network
from instance_flow.stream import Stream
from instance_flow.structures import LAST_ID, Image, ModelInfo, Prediction
from instance_flow.tracking.snapshot import Snapshot, read_snapshot, write_snapshot

STOP, END = 10, FRAMES
PERIOD = 100_000_000
GO_ON = """
import sys
import numpy as np
from instance_flow import Pipeline
from instance_flow.tracking.snapshot import read_snapshot
from instance_flow.stream import Stream
model, state, images, out = sys.argv[1:]
stream = Stream(Pipeline.load(model, "cpu"))
stream.restore(read_snapshot(state))
rest = np.load(images)
tracks = [stream.step(image, stamp, "rgb8") for image, stamp in zip(rest["images"], rest["stamps"].tolist())]
rows = [(t, *pair) for t, frame in enumerate(tracks) for pair in vars(frame).items() if pair[0] != "names"]
np.savez(out, **{f"{t} {name}": value for t, name, value in rows})
"""


@pytest.fixture(scope="module")
def clip() -> DrawnClip:
    return SITUATIONS["the first frame's only object is away, a look-alike is not"]


def run(stream: Stream, clip: DrawnClip, frames: range) -> list[Tracks]:
    return [stream.step(clip.images[t], t * PERIOD, "rgb8") for t in frames]


def assert_same(one: Sequence[Tracks], other: Sequence[Tracks]) -> None:
    for a, b in zip(one, other, strict=True):
        for part in fields(Tracks):
            x, y = np.asarray(getattr(a, part.name)), np.asarray(getattr(b, part.name))
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=f"frame {a.frame_index}: {part.name}")


def test_a_new_process_goes_on_to_the_last_bit(bundled_model: Path, clip: DrawnClip, tmp_path: Path) -> None:
    whole = run(Stream(Pipeline.load(bundled_model, "cpu")), clip, range(END))
    first = Stream(Pipeline.load(bundled_model, "cpu"))
    assert_same(run(first, clip, range(STOP)), whole[:STOP])
    write_snapshot(tmp_path / "state.npz", first.snapshot())
    stamps = np.arange(STOP, END) * PERIOD
    np.savez(tmp_path / "images.npz", images=clip.images[STOP:], stamps=stamps)
    paths = [str(tmp_path / name) for name in ("state.npz", "images.npz", "out.npz")]
    subprocess.run([sys.executable, "-c", GO_ON, str(bundled_model), *paths], check=True)
    out = np.load(tmp_path / "out.npz")
    for t, frame in enumerate(whole[STOP:]):
        assert len(frame) > 0
        for name, value in vars(frame).items():
            if name == "names":
                continue
            assert out[f"{t} {name}"].dtype == np.asarray(value).dtype
            np.testing.assert_array_equal(out[f"{t} {name}"], value, err_msg=f"frame {frame.frame_index}: {name}")


@pytest.mark.parametrize("anchor_frames", [0, 2], ids=["anchor for good", "anchor released"])
def test_every_frame_is_one_to_stop_at(clip: DrawnClip, anchor_frames: int) -> None:
    """The network counts its frames itself, so it goes along; all else comes from the snapshot."""
    network, config = TrueNetwork(clip), AssemblyConfig(anchor_frames=anchor_frames)
    pipeline = Pipeline(network, config)
    whole = run(Stream(pipeline), clip, range(END))
    assert (pipeline._memory.references[0].frame_index == 0) == (anchor_frames == 0)
    stream, tracks = Stream(Pipeline(network, config)), []
    for t in range(END):
        tracks += run(stream, clip, range(t, t + 1))
        state = stream.snapshot()
        stream = Stream(Pipeline(network, config))
        stream.restore(state)
    assert_same(tracks, whole)


def test_a_snapshot_is_a_copy(clip: DrawnClip) -> None:
    pipeline = Pipeline(TrueNetwork(clip))
    stream = Stream(pipeline)
    run(stream, clip, range(STOP))
    state = stream.snapshot()
    before = {name: array.copy() for name, array in state.items()}
    other = Stream(pipeline)
    other.restore(state)
    run(other, clip, range(STOP, END))
    assert state.keys() == before.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_several_scales_keep_the_features_of_each(bundled_model: Path, clip: DrawnClip) -> None:
    def stream() -> Stream:
        return Stream(Pipeline.load(bundled_model, "cpu", scales=(0.5, 1.0)))

    first, second = stream(), stream()
    run(first, clip, range(4))
    second.restore(first.snapshot())
    assert_same(run(second, clip, range(4, 6)), run(first, clip, range(4, 6)))
    with pytest.raises(InstanceFlowError, match="scaled sizes"):
        Stream(Pipeline.load(bundled_model, "cpu")).restore(first.snapshot())


def test_a_stream_knows_what_its_next_image_must_follow(clip: DrawnClip) -> None:
    breaks: list[str] = []
    first, second = Stream(Pipeline(TrueNetwork(clip))), Stream(Pipeline(TrueNetwork(clip)), on_break=breaks.append)
    run(first, clip, range(STOP))
    second.restore(first.snapshot())
    run(second, clip, range(3))
    assert len(breaks) == 1
    assert "ran back by 0.900 s" in breaks[0]


def test_a_fresh_stream_has_a_snapshot_too(clip: DrawnClip) -> None:
    used = Stream(Pipeline(TrueNetwork(clip)))
    whole = run(used, clip, range(3))
    used.restore(Stream(Pipeline(TrueNetwork(clip))).snapshot())
    assert_same(run(used, clip, range(3)), whole)


class Still(Network):
    """A network of one object that never moves."""

    def __init__(self, **changes: object) -> None:
        self.info = replace(ModelInfo(name="still", class_names=("thing",), input_size=(32, 64)), **changes)  # type: ignore[arg-type]
        self.features: object = np.zeros(3, np.float32)

    def predict(self, image: Image, references: Sequence[object]) -> Prediction:
        h, w = image.shape[0] // 4, image.shape[1] // 4
        semantic = np.zeros((len(self.info.class_names) + 1, h, w), np.float32)
        semantic[1] = 1
        center = np.zeros((h, w), np.float32)
        center[4, 8] = 1
        towards = np.zeros((len(references), 2, h, w), np.float32)
        return Prediction(semantic, center, np.zeros((2, h, w), np.float32), towards, self.features)


def stepped(config: AssemblyConfig | None = None, **changes: object) -> Pipeline:
    pipeline = Pipeline(Still(**changes), config)
    pipeline.step(np.zeros((32, 64, 3), np.uint8), 0)
    return pipeline


OTHERS: dict[str, tuple[Callable[[], Pipeline], str]] = {
    "weights": (lambda: stepped(weights_sha256="ab12"), r"its weights is '', here it is 'ab12'"),
    "input size": (lambda: stepped(input_size=(64, 64)), r"its input size is \[32, 64\], here it is \[64, 64\]"),
    "classes": (lambda: stepped(class_names=("thing", "other")), r"its classes is \['thing'\]"),
    "references": (lambda: stepped(AssemblyConfig(references=2)), "its references is 4, here it is 2"),
    "policy": (lambda: stepped(AssemblyConfig(reference_policy="recent")), "its reference policy"),
    "resize": (lambda: stepped(AssemblyConfig(resize="stretch")), "its resize is 'letterbox'"),
}


@pytest.mark.parametrize(("make", "message"), OTHERS.values(), ids=OTHERS)
def test_a_snapshot_of_another_pipeline_is_refused(make: Callable[[], Pipeline], message: str) -> None:
    pipeline = make()
    with pytest.raises(InstanceFlowError, match=message):
        pipeline.restore(stepped().snapshot())
    assert pipeline.step(np.zeros((32, 64, 3), np.uint8), 1).ages.tolist() == [1], "it goes on as it was"


def without(name: str) -> Snapshot:
    return {key: array for key, array in stepped().snapshot().items() if not key.startswith(name)}


BROKEN: dict[str, tuple[Callable[[], Snapshot], str]] = {
    "nothing": (dict, "no snapshot of a stream"),
    "newer": (
        lambda: {**stepped().snapshot(), "origin.format": np.array(99)},
        "format 99, this program reads format 3",
    ),
    "no frame": (lambda: without("pipeline."), "incomplete"),
    "no features": (lambda: without("memory.0.features"), "incomplete"),
    "no votes": (lambda: without("tracker.votes"), "incomplete"),
    "short votes": (lambda: {**stepped().snapshot(), "tracker.votes": np.zeros((0, 1))}, "tracker.votes' has shape"),
}


@pytest.mark.parametrize(("make", "message"), BROKEN.values(), ids=BROKEN)
def test_a_snapshot_that_lacks_something_is_refused(make: Callable[[], Snapshot], message: str) -> None:
    pipeline = stepped()
    with pytest.raises(InstanceFlowError, match=message):
        pipeline.restore(make())
    tracks = pipeline.step(np.zeros((32, 64, 3), np.uint8), 1)
    assert (tracks.frame_index, tracks.ids.tolist(), tracks.ages.tolist()) == (1, [1], [1]), "it goes on as it was"


CHANGES: dict[str, Callable[[Any], Any]] = {
    "gone": lambda _: None,
    "text": lambda array: np.full(array.shape, "x"),
    "numbers of another kind": lambda array: (
        array.astype(np.float64) if np.issubdtype(array.dtype, np.integer) else np.zeros(array.shape, np.int64)
    ),
    "an axis more": lambda array: array[None],
    "a row more": lambda array: np.concatenate([array, array[:1]]) if array.ndim and len(array) else None,
    "no rows": lambda array: array[:0] if array.ndim else None,
    "a column less": lambda array: array[..., :-1] if array.ndim > 1 else None,
    "below zero": lambda array: -1 - np.abs(array) if np.issubdtype(array.dtype, np.integer) else None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_damaged_snapshot_is_refused_or_does_no_harm(change: Callable[[Any], Any], bundled_model: Path) -> None:
    """Whatever was changed, either nothing is restored, or the stream continues."""
    clip = SITUATIONS["the first frame's only object is away, a look-alike is not"]
    stream = Stream(Pipeline.load(bundled_model, "cpu", AssemblyConfig(confirm_frames=1)))
    for t, image in enumerate(clip.images[:5]):
        stream.step(image, t + 1)
    sound, refused = stream.snapshot(), 0
    assert len(sound["tracker.ids"])
    for name in sound:
        changed = {key: array for key, array in sound.items() if key != name}
        array = change(sound[name])
        if array is not None:
            changed[name] = array
        before = stream.snapshot()
        try:
            stream.restore(changed)
        except InstanceFlowError:
            refused += 1
            for key, value in stream.snapshot().items():
                np.testing.assert_array_equal(value, before[key])
        else:
            stream.step(clip.images[5], 6)
            stream.restore(sound)
    assert refused > 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("tracker.next_id", LAST_ID + 2, id="ids beyond 32 bits"),
        pytest.param("tracker.next_id", 2**62, id="ids of 63 bits"),
        pytest.param("tracker.next_id", 0, id="no id"),
        pytest.param("pipeline.frame_index", 2**63 - 1, id="no further frame"),
        pytest.param("pipeline.frame_index", -5, id="frame below 0"),
    ],
)
def test_numbers_that_no_stream_reaches_are_refused(clip: DrawnClip, name: str, value: int) -> None:
    stream = Stream(Pipeline(TrueNetwork(clip)))
    stream.step(clip.images[0], 1)
    with pytest.raises(InstanceFlowError, match="the snapshot is damaged"):
        stream.restore({**stream.snapshot(), name: np.array(value)})


def test_a_pipelines_snapshot_is_not_a_streams() -> None:
    with pytest.raises(InstanceFlowError, match="not of a stream"):
        Stream(stepped()).restore(stepped().snapshot())


def test_features_that_are_no_arrays_are_named() -> None:
    pipeline = stepped()
    pipeline.network.features = object()  # type: ignore[attr-defined]
    pipeline.step(np.zeros((32, 64, 3), np.uint8), 1)
    with pytest.raises(InstanceFlowError, match="of type object"):
        pipeline.snapshot()


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04 cut off"], ids=str)
def test_a_file_that_is_no_snapshot_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InstanceFlowError, match=r"state\.npz"):
        read_snapshot(path)


def test_a_snapshot_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    write_snapshot(path, stepped().snapshot())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(InstanceFlowError, match=r"state\.npz"):
            read_snapshot(path)


def test_a_snapshot_file_that_asks_for_another_zip_is_named(tmp_path: Path) -> None:
    """Bits of a zip's header that Python does not know are a NotImplementedError."""
    write_snapshot(tmp_path / "state.npz", {"a.b": np.zeros(3)})
    data = bytearray((tmp_path / "state.npz").read_bytes())
    for header in (b"PK\x03\x04", b"PK\x01\x02"):
        data[data.index(header) + (6 if header[2] == 3 else 8)] |= 1 << 5
    (tmp_path / "state.npz").write_bytes(data)
    with pytest.raises(InstanceFlowError, match=r"state.npz: not a readable snapshot \(compressed patched data"):
        read_snapshot(tmp_path / "state.npz")
