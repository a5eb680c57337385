# SPDX-License-Identifier: Apache-2.0
"""What is put together from one frame's maps: objects in cells (section III-C-1), tracks in pixels of the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.appearance import appearance_vectors
from instance_flow.assembly.grouping import all_finite, class_means, find_centers, group_pixels, remove_stray_pixels
from instance_flow.assembly.matching import flows_with_std
from instance_flow.assembly.preprocess import Fit, cells_inside, restore_labels, to_image, vectors_to_image
from instance_flow.declare import chosen
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import (
    MAPS,
    FloatArray,
    Identities,
    Image,
    Instances,
    IntArray,
    ModelError,
    ModelInfo,
    Prediction,
    Tracks,
)


class Assembly:
    """The settings of a model, converted to cells, and the steps that use them. It holds no state of a frame.

    Attributes:
        max_distance: the paper's epsilon, in cells.
        costs: weights of the matching by evidence.   min_score, confirm_frames: as in ``AssemblyConfig``.
        flow_error: what flow misses by even where the pixels of an object agree on it, in cells.
    """

    def __init__(self, info: ModelInfo, config: AssemblyConfig) -> None:
        cells = float(np.sqrt(info.input_size[0] * info.input_size[1])) / info.output_stride
        self._stride, self._config = info.output_stride, config
        self._threshold = chosen(config, "center_threshold", info.center_threshold)
        self._kernel = _odd_window(chosen(config, "center_window", info.center_window) * cells)
        self._max_stray = chosen(config, "max_stray", info.max_stray)
        self.max_distance = chosen(config, "max_distance", info.max_distance) * cells
        self.costs = config.match_costs(info)
        self.flow_error = self.costs.flow_error * cells
        self.min_score = chosen(config, "min_score", info.min_score)
        self.confirm_frames = chosen(config, "confirm_frames", info.confirm_frames)
        self._names = dict(enumerate(info.class_names))
        self._is_published_class = np.isin(np.arange(len(info.class_names)), config.class_ids(info))

    def inside(self, prediction: Prediction, fitted: Fit) -> Prediction:
        """The maps of the picture's cells, without those of the padding. Raises ModelError for one that is not finite:
        a single such value would stay in a track's votes for good."""
        rows, columns = cells_inside(fitted, self._stride)
        maps = {}
        for name in MAPS:
            values = getattr(prediction, name)
            if not all_finite(values):
                raise ModelError(
                    f"the network gave values in {name!r} that are not finite; if it runs in half precision, try "
                    "another provider or a model in single precision"
                )
            maps[name] = np.ascontiguousarray(values[..., :rows, :columns])
        return Prediction(**maps, features=prediction.features)

    def group(self, maps: Prediction, margin: FloatArray, image: Image) -> Instances:
        """Section III-C-1 and Eq. 3; margin (h, w) is above 0 on foreground, image is the network's input."""
        foreground = margin > 0
        centers, scores = find_centers(
            maps.center, foreground, self._kernel, self._threshold, self._config.max_instances
        )
        labels = group_pixels(maps.offset, foreground, centers)
        count = len(centers)
        if self._max_stray > 0:
            remove_stray_pixels(maps.offset, labels, centers, self._max_stray)
        class_scores = class_means(maps.semantic, labels, count)
        flows, flow_std = flows_with_std(maps.offset, maps.reference_offset, labels, count)
        appearance = appearance_vectors(image, labels, count, self._stride)
        return Instances(labels, centers, scores, class_scores, flows, flow_std, appearance)

    def tracks(
        self,
        frame_index: int,
        instances: Instances,
        identities: Identities,
        margin: FloatArray,
        fitted: Fit,
        published: NDArray[np.bool_],
    ) -> Tracks:
        """Rows in the order of ids, in pixels of the camera's image; objects without a pixel there are left out.

        margin: as for ``group``.   published: (M,) the others are left out, too.
        """
        stride = self._stride
        label_map, areas, boxes = restore_labels(
            margin, instances.labels, len(instances), fitted, stride, np.where(published, identities.ids, 0)
        )
        order = np.argsort(identities.ids)
        keep = order[(areas > 0)[order] & published[order]]
        semantic_scores, center_scores, scores = self.scores(instances, identities)
        pixels = stride / np.array(fitted.scale)
        pixels_per_cell = stride / float(np.sqrt(fitted.scale[0] * fitted.scale[1]))
        return Tracks(
            frame_index=frame_index,
            label_map=label_map,
            ids=identities.ids[keep],
            class_ids=identities.class_ids[keep],
            scores=scores[keep],
            semantic_scores=semantic_scores[keep],
            center_scores=center_scores[keep],
            centers=to_image(instances.centers[keep], fitted, stride),
            boxes=boxes[keep],
            areas=areas[keep],
            velocities=vectors_to_image(identities.velocities[keep].astype(np.float32), fitted, stride),
            states=identities.states[keep],
            ages=identities.ages[keep],
            age_seconds=identities.age_seconds[keep],
            reference_frames=identities.reference_frames[keep],
            distances=identities.distances[keep] * np.float32(pixels_per_cell),
            names=self._names,
            velocity_covariances=(identities.velocity_covariances[keep] * np.outer(pixels, pixels)).astype(np.float32),
        )

    def scores(self, instances: Instances, identities: Identities) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Of each object (M,): the probability of its class, the heat of its center, and its score (Eq. 6)."""
        semantic = instances.class_scores[np.arange(len(instances)), identities.class_ids]
        center = np.clip(instances.center_scores, 0.0, 1.0)
        return (
            semantic,
            center,
            {"product": semantic * center, "semantic": semantic, "center": center}[self._config.score],
        )

    def is_published_class(self, class_ids: IntArray) -> NDArray[np.bool_]:
        """Whether a class is one of those that are published."""
        return self._is_published_class[class_ids]


def _odd_window(cells: float) -> int:
    """The nearest odd window of at least 3 cells; 0 cells = 1, which suppresses nothing."""
    return max(3, 2 * round((cells - 1) / 2) + 1) if cells > 0 else 1
