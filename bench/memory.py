# SPDX-License-Identifier: Apache-2.0
"""Does memory grow with the frames, and how much does a robot's process take? Two processes, each measured from inside.

    python bench/memory.py                                   # 20,000 frames of the assembly, 2,000 of the bundled model
    python bench/memory.py --picture out/memory.svg          # and draw the first one
    python bench/memory.py --frames 1000 --model MODEL.onnx

The assembly: the pipeline and the messages, with a network that costs next to nothing and gives 0 to 100 objects. Every
300 frames nothing is to be seen for longer than any identity is remembered, so that all that come after it are new. Its
features are so large that a reference that is not released shows. The model: the bundled one on pictures of 640x480.
The node's memory, with its middleware, is measured by ros_memory.py. Linux only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from evaluator import in_new_process
from pictures import standalone
from ros_setup import Row, show
from tqdm import tqdm

from instance_flow import AssemblyConfig, InstanceFlowError, Pipeline
from instance_flow.benchmark.costs import HEADER, MESSAGE_TYPES, PERIOD
from instance_flow.benchmark.machine import memory_mib
from instance_flow.benchmark.scenes import POSES, ExactNetwork, Scene
from instance_flow.benchmark.suite import CAMERA, SHOWN
from instance_flow.formats.atomic import replacing
from instance_flow.formats.json_files import write_json
from instance_flow.formats.messages import to_instance_array
from instance_flow.network.installation import bundled_model_path
from instance_flow.network.protocol import Network
from instance_flow.report.run_statistics import Curve
from instance_flow.report.svg import curve_plot
from instance_flow.structures import Image, Prediction

ASSEMBLY_FRAMES, MODEL_FRAMES = 20_000, 2_000
AT = (0, 100, 1_000, 2_000, 5_000, 20_000)

_MOST = 100
_SIZE = (192, 320)
_SHOW, _PAUSE = 240, 60
_LOOK_EVERY = 50


@dataclass(frozen=True)
class Memory:
    """rows: what was held after some numbers of frames.   curve: resident MiB over the frames."""

    rows: list[Row]
    curve: Curve


class HeavyFeatures(Network):
    """A network whose features are those of another one and an unused mebibyte."""

    def __init__(self, network: ExactNetwork):
        self.info = network.info
        self._network = network

    def predict(self, image: Image, references: Sequence[tuple[int, Any]]) -> Prediction:
        """See ``Network``."""
        prediction = self._network.predict(image, [number for number, _ in references])
        return replace(prediction, features=(prediction.features, np.ones(2**18, np.float32)))


def assembly_memory(frames: int) -> Memory:
    """Everything but a network, with numbers of objects that change from frame to frame."""
    rng = np.random.default_rng(0)
    scene = Scene(_SIZE, [0, _MOST, *rng.integers(0, _MOST + 1, 14).tolist()])
    poses = rng.integers(0, len(scene.poses), frames + 1)
    poses[np.arange(frames + 1) % (_SHOW + _PAUSE) >= _SHOW] = 0
    pipeline = Pipeline(HeavyFeatures(ExactNetwork(scene)), AssemblyConfig(max_instances=_MOST))
    return _watch(pipeline, lambda t: scene.images[poses[t]], frames)


def model_memory(model: Path, frames: int) -> Memory:
    """A robot's process, without drawing: the model on pictures of a camera."""
    images = Scene(CAMERA, [SHOWN] * POSES).images
    return _watch(Pipeline.load(model), lambda t: images[t % len(images)], frames)


def _watch(pipeline: Pipeline, image: Callable[[int], Image], frames: int) -> Memory:
    rows: list[Row] = []
    curve, given, most = Curve(), 0, 0
    pipeline.warmup(image(0).shape)
    now = memory_mib()
    for t in tqdm(range(frames + 1), unit="frame", disable=None, dynamic_ncols=True):
        if t in AT or t == frames:
            now = memory_mib()
            rows.append(
                {
                    "frames": t,
                    "resident MiB": now["resident_mib"],
                    "peak MiB": now["peak_mib"],
                    "most objects": most,
                    "ids given": given,
                    "ids held": len(pipeline._tracker),
                    "references held": len(pipeline._memory.references),
                }
            )
        elif t % _LOOK_EVERY == 0:
            now = memory_mib()
        curve.add(now["resident_mib"])
        tracks = pipeline.step(image(t), t * PERIOD)
        to_instance_array(MESSAGE_TYPES, tracks, HEADER, pipeline.info.class_names)
        given, most = max(given, int(tracks.ids.max(initial=0))), max(most, len(tracks))
    return Memory(rows, curve)


def picture(memory: Memory, frames: int) -> str:
    """SVG of resident memory over the frames."""
    return standalone(curve_plot(memory.curve, frames, "MiB", "Resident memory"))


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=ASSEMBLY_FRAMES, help="of the assembly (default: %(default)s)")
    parser.add_argument("--model-frames", type=int, default=MODEL_FRAMES, help="of the model (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="ONNX model (default: the bundled one)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write an SVG of the assembly's memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file")
    options = parser.parse_args()
    if min(options.frames, options.model_frames) < 1:
        parser.error("at least 1 frame is needed of each")
    try:
        assembly = in_new_process(assembly_memory, options.frames)
        model = in_new_process(model_memory, options.model or bundled_model_path(), options.model_frames)
        if options.picture:
            with replacing(options.picture) as whole:
                whole.write_text(picture(assembly, options.frames), encoding="utf-8")
        if options.json:
            write_json(options.json, {"assembly": assembly.rows, "model": model.rows}, indent=2)
    except (InstanceFlowError, OSError) as error:
        print(f"memory.py: error: {error}", file=sys.stderr)
        return 2
    for title, memory in (("the assembly, 0 to 100 objects", assembly), ("the model", model)):
        print(f"\n{title}")
        show(memory.rows, False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
