# SPDX-License-Identifier: Apache-2.0
"""How exact are positions and velocities in metres? The tracks of a run against the truth of a synthetic scene."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.json_files import read_json
from instance_flow.structures import SourceError

Array = NDArray[np.float64]

NUMBERS = ("position_median", "position_p90", "velocity_median", "velocity_p90")


def evaluate_in_metres(pairs: Iterable[tuple[Path, Path]]) -> dict[str, Any]:
    """Measure runs against their scenes.

    An object of the truth belongs to the track whose box holds the middle of what is seen of it, the one with the
    nearest center first; so errors along the ray do not affect the pairing.

    pairs: of each run, NAME.json of the scene (docs/spatial.md) and its tracks.jsonl.

    Returns ``objects``: seen, in the frames that were run; ``placed``: those with a position; ``position_median``,
    ``position_p90`` in metres from the middle of the surface that is seen; ``velocity_median``, ``velocity_p90`` in m/s
    of those of the ``velocities`` that are known. None where there is nothing to measure.

    Raises SourceError, naming the file, for a file that is missing, damaged, or of another form or frame.
    """
    objects, places, speeds = 0, list[float](), list[float]()
    for truth_path, tracks_path in pairs:
        truth = _Truth(truth_path)
        for where, line in _lines(tracks_path):
            try:
                seen, errors = truth.compare(line)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise SourceError(
                    f"{where} is not as a run with --depth writes it ({shown(error)}); run again"
                ) from None
            except _OtherFrameError as error:
                raise SourceError(f"{where}: {error}") from None
            objects += seen
            places += [place for place, _ in errors]
            speeds += [speed for _, speed in errors if np.isfinite(speed)]
    return {
        "objects": objects,
        "placed": len(places),
        "velocities": len(speeds),
        **_summary("position", places),
        **_summary("velocity", speeds),
    }


def check_truth(path: Path) -> None:
    """Raises SourceError for a file that is no truth in metres."""
    _Truth(path)


class _OtherFrameError(Exception):
    pass


class _Truth:
    """The frames of a scene by their stamp: where the middle of what is seen of each object is, in pixels (N, 2) and in
    the camera's frame and the world's (N, 3), and its velocity in both."""

    def __init__(self, path: Path) -> None:
        data = read_json(path)
        try:
            self._names: dict[str, str] = {data["frame_ids"][name]: name for name in ("camera", "world")}
            camera = data["camera"]
            lens = np.array(camera["matrix"], np.float64).reshape(3, 3), np.array(camera["distortion"], np.float64)
            self._frames = {int(frame["stamp"]): _true_objects(frame, *lens) for frame in data["frames"]}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, cv2.error) as error:
            raise SourceError(
                f"{path}: is not the truth of a scene with depth ({shown(error)} is missing or wrong); give NAME.json "
                "of instance-flow-world --situation depth"
            ) from None

    def compare(self, line: Mapping[str, Any]) -> tuple[int, list[tuple[float, float]]]:
        """How many objects a frame shows, and of those that are placed the errors of position and velocity."""
        if "spatial_frame" not in line:
            raise _OtherFrameError("it was written without --depth, so it has nothing in metres; run again with it")
        name = self._names.get(line["spatial_frame"])
        if name is None:
            raise _OtherFrameError(
                f"the tracks are in the frame {shown(repr(line['spatial_frame']))}, the truth in "
                f"{shown(' and '.join(map(repr, self._names)))}; choose one of these by --target-frame"
            )
        true = self._frames.get(line["stamp"])
        if true is None or not len(true["pixels"]):
            return 0, []
        tracks = [track for track in line["tracks"] if track["position"] is not None]
        errors = []
        for k, track in _matched(true["pixels"], tracks):
            place = np.array(track["position"], np.float64) - true[name][k]
            speed = np.array(track["spatial_velocity"] or [np.nan] * 3, np.float64) - true[f"{name}_velocity"][k]
            errors.append((float(np.linalg.norm(place)), float(np.linalg.norm(speed))))
        return len(true["pixels"]), errors


def _true_objects(frame: Mapping[str, Any], matrix: Array, distortion: Array) -> dict[str, Array]:
    rows = [row for row in frame["objects"] if row["surface"] is not None]
    pose = np.array(frame["pose"], np.float64).reshape(4, 4)

    def vectors(values: list[Any]) -> Array:
        return np.array(values, np.float64).reshape(len(rows), 3)

    surfaces = vectors([row["surface"] for row in rows])
    pixels: NDArray[Any] = np.zeros((0, 2))
    if rows:
        pixels = cv2.projectPoints(surfaces, np.zeros(3), np.zeros(3), matrix, distortion)[0].reshape(-1, 2)
    return {
        "pixels": np.asarray(pixels, np.float64),
        "camera": surfaces,
        "world": surfaces @ pose[:3, :3].T + pose[:3, 3],
        **{f"{name}_velocity": vectors([row[name]["velocity"] for row in rows]) for name in ("camera", "world")},
    }


def _matched(pixels: Array, tracks: list[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Pairs of a true object and a track, nearest first, each once."""
    near: list[tuple[float, int, int]] = []
    for j, track in enumerate(tracks):
        left, top, width, height = track["box"]
        for k, (x, y) in enumerate(pixels.tolist()):
            if left <= x <= left + width and top <= y <= top + height:
                near.append((float(np.hypot(track["center"]["x"] - x, track["center"]["y"] - y)), k, j))
    taken: set[tuple[str, int]] = set()
    for _, k, j in sorted(near):
        if not taken & {("true", k), ("track", j)}:
            taken |= {("true", k), ("track", j)}
            yield k, tracks[j]


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each line stands, and what it holds."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                yield f"{path}: line {number}", json.loads(text)
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such file; expected the tracks of a run beside its results") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read as lines of JSON ({shown(error)}); run again") from None


def _summary(name: str, errors: list[float]) -> dict[str, float | None]:
    if not errors:
        return {f"{name}_median": None, f"{name}_p90": None}
    return {f"{name}_median": float(np.median(errors)), f"{name}_p90": float(np.quantile(errors, 0.9))}
