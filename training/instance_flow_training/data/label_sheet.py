# SPDX-License-Identifier: Apache-2.0
"""A sheet of labels over their pictures, to look at before training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.ytvis import Annotation, Video, decode_segmentation
from instance_flow.pictures.draw import class_colours, contact_sheet
from instance_flow.structures import Image, SourceError
from instance_flow_training.data.annotated_clips import box_polygon
from instance_flow_training.data.merging import by_video, class_names
from instance_flow_training.data.set_files import read_frame
from instance_flow_training.data.video_sets import VideoSet

_SHEET, _THUMBNAIL = 24, (240, 320)


def label_sheet(found: VideoSet, most: int = _SHEET) -> Image:
    """Labels over up to ``most`` pictures, (H, W, 3) uint8 RGB: those that show rare classes first, then evenly spread.

    Masks are filled in the colour of their class, boxes without a mask are white, regions to ignore are hatched.
    A picture that cannot be read in the size of its labels is grey.
    """
    names = class_names(found)
    frames = [(video, entries, frame) for video, entries in by_video(found) for frame in range(video.length)]
    tiles, captions = [], []
    for video, entries, frame in (frames[index] for index in _chosen(frames, most)):
        try:
            image = read_frame(found.images / video.file_names[frame], video.height, video.width)
        except SourceError:  # It is among the problems of the set; its labels may still be worth a look.
            image = np.full((video.height, video.width, 3), 60, np.uint8)
        tiles.append(_letterbox(drawn_labels(image, video, entries, frame, names)))
        captions.append(shown(video.file_names[frame].rpartition("/")[2], 32))
    return contact_sheet(tiles, captions, width=_THUMBNAIL[1])


def _chosen(frames: Sequence[tuple[Video, list[Annotation], int]], most: int) -> list[int]:
    """Places of the frames to show, in the order of the set."""
    showing: defaultdict[int, list[int]] = defaultdict(list)
    for index, (_, entries, frame) in enumerate(frames):
        for entry in entries:
            if entry.segmentations[frame] is not None or (entry.boxes and entry.boxes[frame] is not None):
                showing[entry.category_id].append(index)
    chosen: dict[int, None] = {}
    rare_first = sorted(showing.values(), key=len)
    for places in rare_first:
        spread = np.linspace(0, len(places) - 1, min(len(places), max(1, most // (2 * len(rare_first))))).astype(int)
        chosen.update(dict.fromkeys(places[k] for k in spread.tolist()))
    labelled = sorted(set().union(*showing.values())) or list(range(len(frames)))
    for k in np.linspace(0, len(labelled) - 1, min(len(labelled), most)).astype(int).tolist():
        chosen.setdefault(labelled[k])
    return sorted(list(chosen)[:most])


def drawn_labels(
    image: Image, video: Video, entries: Sequence[Annotation], frame: int, names: Mapping[int, str]
) -> NDArray[np.uint8]:
    """A picture with its labels, larger objects below, twice as large as a thumbnail."""
    factor = min(2 * _THUMBNAIL[1] / video.width, 2 * _THUMBNAIL[0] / video.height)
    size = max(1, round(video.width * factor)), max(1, round(video.height * factor))
    canvas = np.asarray(
        cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST), np.uint8
    )
    order = {category_id: row for row, category_id in enumerate(sorted(names))}
    tags = []
    layers = []
    for entry in entries:
        mask, box = entry.segmentations[frame], entry.boxes[frame] if entry.boxes else None
        if mask is not None:
            try:
                pixels = decode_segmentation(mask, video.height, video.width)
            except ValueError:
                continue
            scaled = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
            layers.append((int(pixels.sum()), entry, scaled))
        elif (outline := box_polygon(box, video.height, video.width)) is not None and not entry.is_crowd:
            corners = np.rint(np.asarray(outline[0]).reshape(-1, 2) * factor).astype(int)
            for tint, thickness in (((20, 20, 20), 3), ((255, 255, 255), 1)):
                cv2.rectangle(canvas, corners[0].tolist(), corners[2].tolist(), tint, thickness)
            tags.append((corners[0], f"box {names.get(entry.category_id, '')}", (255, 255, 255)))
    for _, entry, pixels in sorted(layers, key=lambda layer: -layer[0]):
        tint = (150, 150, 150) if entry.is_crowd else _tint(order.get(entry.category_id, 0))
        if entry.is_crowd:
            y, x = np.nonzero(pixels)
            hatched = (x + y) % 8 < 3
            canvas[y[hatched], x[hatched]] = tint
        else:
            canvas[pixels > 0] = np.rint(canvas[pixels > 0] * 0.5 + np.array(tint) * 0.5)
        outlines, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outlines, -1, tint, 2)
        if len(outlines):
            corner = np.concatenate(outlines).reshape(-1, 2).min(0)
            tags.append((corner, "ignored" if entry.is_crowd else names.get(entry.category_id, ""), tint))
    for corner, text, tint in tags:
        _tag(canvas, shown(text, 24), corner, tint)
    return canvas


def _tint(row: int) -> tuple[int, int, int]:
    red, green, blue = class_colours([row])[0].tolist()
    return red, green, blue


def _tag(canvas: NDArray[np.uint8], text: str, corner: NDArray[np.int64], tint: tuple[int, int, int]) -> None:
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
    x = int(np.clip(corner[0], 0, max(0, canvas.shape[1] - width - 4)))
    y = int(np.clip(corner[1], height + below, canvas.shape[0]))
    cv2.rectangle(canvas, (x, y - height - below), (x + width + 4, y), tint, -1)
    ink = (20, 20, 20) if sum(tint) > 380 else (255, 255, 255)
    cv2.putText(canvas, text, (x + 2, y - below // 2 - 1), cv2.FONT_HERSHEY_SIMPLEX, 0.6, ink, 1, cv2.LINE_AA)


def _letterbox(image: NDArray[np.uint8]) -> Image:
    """The picture in the middle of a dark one of the thumbnails' proportions."""
    height, width = image.shape[:2]
    scale = max(height / _THUMBNAIL[0], width / _THUMBNAIL[1])
    size = max(height, round(_THUMBNAIL[0] * scale)), max(width, round(_THUMBNAIL[1] * scale))
    full = np.full((*size, 3), 32, np.uint8)
    top, left = (full.shape[0] - height) // 2, (full.shape[1] - width) // 2
    full[top : top + height, left : left + width] = image
    return full
