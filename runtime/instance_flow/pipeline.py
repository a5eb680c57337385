# SPDX-License-Identifier: Apache-2.0
"""One stream of frames: fit, network, group, match, restore."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.assembly import Assembly
from instance_flow.assembly.grouping import foreground_margin
from instance_flow.assembly.matching import (
    Matches,
    match_by_evidence,
    match_instances,
)
from instance_flow.assembly.preprocess import Fit, fit
from instance_flow.declare import chosen
from instance_flow.network.execution import ExecutionConfig
from instance_flow.network.installation import bundled_model_path
from instance_flow.network.multiscale import open_network
from instance_flow.network.protocol import Launched, Network, Predictor, as_network
from instance_flow.network.stages import Stopwatch
from instance_flow.settings import EVIDENCE, AssemblyConfig
from instance_flow.spatial import cloud, registration
from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.measure import MEASURED, SpatialConfig, compile_kernels, depth_problem, measure
from instance_flow.structures import (
    STATES,
    FloatArray,
    Identities,
    Image,
    InstanceFlowError,
    Instances,
    IntArray,
    ModelInfo,
    Prediction,
    Tracks,
)
from instance_flow.tracking.memory import Reference, ReferenceMemory
from instance_flow.tracking.snapshot import Snapshot, check_origin, pack_origin, take_counts
from instance_flow.tracking.tracker import Tracker


@dataclass(frozen=True)
class MatchInput:
    """The input of a matcher.

    prediction: maps of the picture's cells, padding cut off.   references: those that ``instances.flows`` lead to.
    max_distance: the paper's epsilon, in cells.
    """

    prediction: Prediction
    instances: Instances
    references: Sequence[Reference]
    max_distance: float


Matcher = Callable[[MatchInput], Matches]
"""Which identity each object of a frame keeps."""


@dataclass(frozen=True)
class Observation:
    """Everything that led to one frame's tracks, for drawing and for debugging.

    prediction: maps of the picture's cells, padding cut off.   references: those that the frame was matched with.
    ids: (M,) int64 track id of every row of ``instances``; those without a pixel in the image are not in ``tracks``.
    """

    fitted: Fit
    prediction: Prediction
    instances: Instances
    references: list[Reference]
    ids: IntArray
    tracks: Tracks


@dataclass(frozen=True, eq=False)
class Perceived:
    """The network's result for a frame, before grouping.

    references: features of the references that it was given.
    launched: its maps; still on its device if it can leave them there.
    features: passed to the network again when the frame is a reference; they depend on its image alone.
    """

    fitted: Fit
    references: Sequence[Any]
    launched: Launched
    features: Any
    watch: Stopwatch


class Pipeline:
    """Masks, classes, ids and motion of every object, one call per frame.

    ``step`` is ``perceive``, which runs the network and changes no state, then ``track``. ``overlap`` runs ``perceive``
    of the next frame beside ``track`` of this one.

    Args:
        network: a ``network.protocol.Network``, or any object with its ``info`` and ``predict``; several pipelines may
            share it.
        config: settings; those left at 0 come from ``network.info``.
        matcher: a function that decides which identities are kept, for comparison; None = as ``config.matching`` says.

    Attributes:
        observer: called with an ``Observation`` at the end of every step, if set.
        spatial: parameters of the depth sensor and of the objects' motion in metres (docs/spatial.md).
        spatial_problem: why the latest frame has no positions in metres, in one sentence; empty without depth or fault.
        seconds, cpu_seconds: time of each of ``stages.STAGES`` in the latest frame, in seconds: wall time, and CPU time
            of all threads of the process.
    """

    def __init__(
        self, network: Network | Predictor, config: AssemblyConfig | None = None, matcher: Matcher | None = None
    ):
        self.network = as_network(network)
        self.observer: Callable[[Observation], None] | None = None
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.spatial = SpatialConfig()
        self.spatial_problem = ""
        self._matcher: Matcher = matcher or self._match
        self._memory = ReferenceMemory(1)
        self._tracker = Tracker()
        self._frame_index = 0
        self.configure(config or AssemblyConfig())

    def configure(self, config: AssemblyConfig) -> None:
        """Replace the settings, from the next frame on; no id is lost.

        Raises:
            ValueError: for settings that this model cannot have; everything stays as it was then.
        """
        info = self.network.info
        config.check(info)
        self.config = config
        self._assembly = Assembly(info, config)
        self._memory = self._memory.resized(
            chosen(config, "references", info.max_references),
            config.reference_policy == "first+recent",
            config.anchor_frames,
        )
        self._tracker.lost_frames = config.lost_frames if config.matching == EVIDENCE else 0

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        provider: str = "auto",
        config: AssemblyConfig | None = None,
        scales: Sequence[float] = (),
        execution: ExecutionConfig | None = None,
        size: tuple[int, int] | None = None,
    ) -> Pipeline:
        """Open a model file.

        Args:
            model: None = the bundled one.
            provider: auto | cpu | cuda | tensorrt; what is asked for runs, or a ModelError says why. Only ``auto`` may
                fall back to the CPU, and it logs a warning when a GPU provider was there but did not start.
            scales: factors of the input size for multi-scale inference; none = the input size alone.
            execution: threads, CUDA graphs and the like.
            size: (height, width) of the network's input, multiples of 32, in place of the model's own. Windows and
                distances scale with it.
        """
        return cls(open_network(model or bundled_model_path(), provider, execution, size, scales), config)

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself."""
        return self.network.info

    @property
    def provider(self) -> str:
        """Where the network runs: cpu, cuda, tensorrt, or the class of a network that is not an ONNX file."""
        return self.network.provider

    def step(
        self,
        image: Image,
        stamp: int | None = None,
        *,
        depth: NDArray[Any] | None = None,
        camera: CameraModel | None = None,
    ) -> Tracks:
        """Track the objects of the next frame.

        Args:
            image: (H, W, 3) uint8 RGB of any size.
            stamp: time of the frame in nanoseconds; without it velocities are NaN.
            depth: (H, W) of the same size, registered to the image, uint16 in millimetres or float32 in metres; 0,
                65535, NaN and negative values are unknown.
            camera: of depth and image. Nothing that is wrong with depth or camera ends the stream: positions are
                unknown then, and ``spatial_problem`` says why.

        Raises:
            ValueError: for an image of another type or shape.
            ModelError: when the network fails, or its maps are not finite.

        After an error the stream is as it was.
        """
        return self.track(self.perceive(image, self.reference_features()), stamp, depth=depth, camera=camera)

    @property
    def memory(self) -> ReferenceMemory:
        """The references of the next frame; replaced as a whole, never changed, so any thread may read it."""
        return self._memory

    def reference_features(self) -> list[Any]:
        """Features of the references that the next frame will be matched with."""
        return [reference.features for reference in self._memory.references]

    def perceive(self, image: Image, references: Sequence[Any]) -> Perceived:
        """Run the network on a frame with the features of its references. Image and errors as of ``step``."""
        watch = Stopwatch()
        fitted = fit(image, self.info.input_size, self.config.resize)
        watch.lap("fit")
        launched = self.network.launch(fitted.image, references, watch)
        return Perceived(fitted, references, launched, launched.features, watch)

    def track(
        self,
        perceived: Perceived,
        stamp: int | None = None,
        *,
        depth: NDArray[Any] | None = None,
        camera: CameraModel | None = None,
    ) -> Tracks:
        """Group, match and track the objects of a frame that was perceived with ``reference_features()``.

        Arguments and errors as of ``step``.
        """
        fitted, watch, references = perceived.fitted, perceived.watch, self._memory.references
        watch.skip()
        prediction = perceived.launched.download()
        watch.lap("download")
        maps = self._assembly.inside(prediction, fitted)
        margin = foreground_margin(maps.semantic)
        instances = self._assembly.group(maps, margin, fitted.image)
        watch.lap("grouping")
        matches = self._matcher(MatchInput(maps, instances, references, self._assembly.max_distance))
        flow_error = self._assembly.flow_error
        identities = self._tracker.update(instances, matches, references, self._frame_index, stamp, flow_error)
        watch.lap("matching")
        tracks = self._placed(self._tracks(instances, identities, margin, fitted), stamp, depth, camera)
        watch.lap("masks")
        if self.observer is not None:
            self.observer(Observation(fitted, maps, instances, references, identities.ids, tracks))
        self._remember(Reference(self._frame_index, stamp, perceived.features, instances.centers, identities.ids))
        self.seconds, self.cpu_seconds = watch.seconds, watch.cpu_seconds
        return tracks

    @property
    def network_seconds(self) -> float:
        """How long the latest frame's network took, copies to and from its device included."""
        return sum(self.seconds.get(stage, 0.0) for stage in ("upload", "network", "download"))

    def _tracks(
        self,
        instances: Instances,
        identities: Identities,
        margin: FloatArray,
        fitted: Fit,
    ) -> Tracks:
        published, first = self._published(instances, identities)
        # For the caller an id is new in the frame that first publishes it.
        identities = replace(identities, states=np.where(first, STATES.index("new"), identities.states))
        return self._assembly.tracks(self._frame_index, instances, identities, margin, fitted, published)

    def _placed(
        self, tracks: Tracks, stamp: int | None, depth: NDArray[Any] | None, camera: CameraModel | None
    ) -> Tracks:
        size = (tracks.label_map.shape[0], tracks.label_map.shape[1])
        state, self.spatial_problem = depth_problem(depth, camera, size)
        if state != MEASURED or depth is None or camera is None:
            return replace(tracks, spatial_states=np.full(len(tracks), state, np.int64))
        places = measure(depth, tracks.label_map, tracks.ids, tracks.boxes, camera, self.spatial)
        motion, covariances = self._tracker.place(tracks, places, camera, stamp, self.spatial)
        return replace(
            tracks,
            spatial_states=places.states,
            points=places.points,
            positions=motion[:, :3].astype(np.float32),
            spatial_velocities=motion[:, 3:].astype(np.float32),
            spatial_covariances=covariances.astype(np.float32),
            box_centers=places.box_centers.astype(np.float32),
            extents=places.extents.astype(np.float32),
            rotations=places.rotations.astype(np.float32),
        )

    def _remember(self, reference: Reference) -> None:
        # Replaced as a whole, see ``memory``.
        memory = copy.copy(self._memory)
        memory.add(reference)
        self._memory = memory
        self._tracker.forget(memory.references, self._frame_index)
        self._frame_index += 1

    def _published(self, instances: Instances, identities: Identities) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        assembly = self._assembly
        *_, scores = assembly.scores(instances, identities)
        class_published = assembly.is_published_class(identities.class_ids)
        return self._tracker.publish(identities, scores, class_published, assembly.min_score, assembly.confirm_frames)

    def reset(self) -> None:
        """Forget all objects; the next frame is frame 0 and the next id is 1."""
        self.forget_references()
        self._tracker.clear()
        self._frame_index = 0

    def forget_references(self) -> None:
        """Forget the references, as after an interruption, but no id: objects may be re-identified by appearance."""
        self._memory = self._memory.cleared()

    def snapshot(self) -> Snapshot:
        """The state of the stream, without the settings: copies as plain arrays, for ``np.savez``.

        Raises:
            InstanceFlowError: when the network's features are no arrays.
        """
        return {
            **pack_origin(self._origin()),
            "pipeline.frame_index": np.array(self._frame_index),
            **self._memory.snapshot(),
            **self._tracker.snapshot(),
        }

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a snapshot of this or another process; all state of this pipeline is replaced.

        Raises:
            InstanceFlowError: for a snapshot of another model, of other references, or with a part that is missing or
                damaged; the stream stays as it was then.
        """
        self._memory, self._tracker, self._frame_index = self._unpacked(snapshot)

    def check(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Raises InstanceFlowError where ``restore`` would; changes nothing."""
        self._unpacked(snapshot)

    def _unpacked(self, snapshot: Mapping[str, NDArray[Any]]) -> tuple[ReferenceMemory, Tracker, int]:
        check_origin(snapshot, self._origin())
        memory = self._memory.restored(snapshot)
        frame_index = int(take_counts(snapshot, "pipeline.frame_index"))
        tracker = self._tracker.restored(snapshot, len(self.info.class_names), frame_index)
        for reference in memory.references:
            if not tracker.ids.issuperset(reference.ids.tolist()):
                raise InstanceFlowError(
                    "the snapshot is damaged: a reference shows an id that is not among the tracks; start the "
                    "stream anew"
                )
            self.network.check_features(reference.features)
        return memory, tracker, frame_index

    def _origin(self) -> dict[str, Any]:
        """What a snapshot's features, cells and class votes belong to."""
        info, config = self.info, self.config
        return {
            "model": info.name,
            "weights": info.weights_sha256,
            "classes": info.class_names,
            "input size": info.input_size,
            "scaled sizes": list(self.network.scaled_sizes),
            "output stride": info.output_stride,
            "resize": config.resize,
            "references": self._memory.capacity,
            "reference policy": config.reference_policy,
        }

    def warmup(
        self, image_shape: tuple[int, ...], progress: Callable[[str], None] = lambda _: None, *, depth: bool = False
    ) -> None:
        """Compile the kernels and warm the network up for images of (height, width): later frames take equally long.

        The stream is reset, and the observer not called.

        Args:
            progress: called with what is about to be done; what it raises ends the warm-up.
            depth: whether frames come with depth, which has kernels of its own.
        """
        rng = np.random.default_rng(0)
        image = rng.integers(0, 255, (*image_shape[:2], 3), dtype=np.uint8)
        fitted = fit(image, self.info.input_size, self.config.resize)
        capacity = self._memory.capacity
        frames = self.network.warmup_frames(capacity)
        features: list[Any] = []
        for frame in range(frames):
            progress(f"running the network, {len(features)} of {capacity} references ({frame + 1} of {frames})")
            features.append(self.network.predict(fitted.image, features).features)
            del features[1 : 1 + max(0, len(features) - capacity)]
        features.clear()
        progress("compiling the kernels, which takes seconds the first time")
        observer, self.observer = self.observer, None
        try:
            self.step(image, 0)
        finally:
            self.observer = observer
            self.reset()
        if depth:
            progress("compiling the kernels for depth, which takes seconds the first time")
            compile_kernels()
            registration.compile_kernels()
            cloud.compile_kernels()

    def _match(self, match_input: MatchInput) -> Matches:
        instances, config = match_input.instances, self.config
        reference_centers = [r.centers for r in match_input.references]
        reference_ids = [r.ids for r in match_input.references]
        if config.matching != EVIDENCE:
            return match_instances(
                instances.centers,
                instances.flows,
                reference_centers,
                reference_ids,
                match_input.max_distance,
                config.matching,
            )
        return match_by_evidence(
            instances.centers,
            instances.flows,
            instances.flow_std,
            instances.appearance,
            reference_centers,
            reference_ids,
            self._tracker.known(self._frame_index),
            self._assembly.flow_error,
            self._assembly.costs,
            instances.class_scores,
        )
