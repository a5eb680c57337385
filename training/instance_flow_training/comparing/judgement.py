# SPDX-License-Identifier: Apache-2.0
"""What a model is worth on a labelled set: numbers, confusions, and the worst frames, as text and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from instance_flow.evaluation.average_precision import NOTHING_TO_MEASURE
from instance_flow.evaluation.evaluate import evaluate_data
from instance_flow.evaluation.table import format_table
from instance_flow.formats.foreign_text import shown
from instance_flow.formats.ytvis import Annotation
from instance_flow.pipeline import Pipeline
from instance_flow.report.html import facts, figure, html_page, section, tiles
from instance_flow.report.svg import line_plot
from instance_flow.structures import Image
from instance_flow_training.comparing.frame_scores import FrameScore, FrameScores, score_frames
from instance_flow_training.comparing.scoring import TrackedVideos, track_set
from instance_flow_training.data.label_sheet import drawn_labels
from instance_flow_training.data.set_files import read_frame
from instance_flow_training.data.video_sets import VideoSet

WORST = 12
_COLUMNS = ("AP", "AP50", "AR100")


@dataclass(frozen=True)
class Curve:
    """Values over steps, for the page."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    unit: str = ""


@dataclass(frozen=True)
class Judgement:
    """numbers: of all that is found, as ``evaluate_data`` gives them.   tracking: of what is published, as one class.

    published: the tracks that the default settings let through.   scores: of their single frames.
    """

    numbers: Mapping[str, Any]
    tracking: Mapping[str, float]
    published: TrackedVideos
    scores: FrameScores

    def text(self) -> str:
        """For people at a terminal."""
        tracks, frames, ids = self.tracking, self.published.frames, len(self.published.results)
        switches, ghosts = int(tracks["IDSW"]), self.published.ghosts()
        lines = [
            format_table({name: value for name, value in self.numbers.items() if name != "tracking"}),
            "",
            f"published: {ids} ids in {frames} frames, {switches} id switches ({100 * switches / frames:.2f} in 100 "
            f"frames), {ghosts} of the ids on no labelled object ({20 * ghosts / frames:.2f} in 20 frames)",
            f"as one class: HOTA {tracks['HOTA']:.3f}, DetA {tracks['DetA']:.3f}, AssA {tracks['AssA']:.3f}, IDF1 "
            f"{tracks['IDF1']:.3f}",
            "",
            *_confusions(self.scores),
        ]
        worst = self.scores.worst(WORST // 2)
        if worst:
            lines += ["", "worst pictures, of each video one:", *(f"  {_place(s)}: {_faults(s)}" for s in worst)]
        return "\n".join(lines)

    def page(self, title: str, about: Mapping[str, str], curves: Sequence[Curve] = ()) -> str:
        """For people with a browser: the same numbers, curves, and pictures of the worst frames."""
        numbers = {name: _percent(self.numbers[name]) for name in ("AP", "AP50", "AP75", "AR100")}
        numbers |= {name: _percent(self.tracking[name]) for name in ("HOTA", "IDF1")}
        numbers["id switches"] = f"{int(self.tracking['IDSW']):,}"
        plots = "".join(
            section(c.name, "", line_plot(np.array(c.steps), np.array(c.values), max(c.steps), c.unit, c.name))
            for c in curves
            if c.steps
        )
        videos, frames = len(self.published.truth.videos), self.published.frames
        subtitle = f"{frames:,} labelled pictures" if videos == frames else f"{frames:,} frames of {videos:,} videos"
        body = [
            f'<h1>{escape(title)}</h1><p class="soft">{subtitle}</p>{tiles(numbers)}',
            f'<div class="pair">{plots}</div>' if plots else "",
            section("Classes", "of all that is found, percent", _class_table(self.numbers)),
            section(
                "What is taken for what",
                "objects in frames, at the default settings: a row for each true class, a column for what was found",
                _confusion_table(self.scores),
            ),
            section("Worst pictures", "labels on the left, the model on the right", self._worst()),
            section("What ran", "", facts(about)),
        ]
        return html_page(title, "".join(body))

    def _worst(self) -> str:
        figures = []
        for score in self.scores.worst(WORST):
            caption = f"{escape(_place(score))}: {_faults(score)}"
            figures.append(figure(self._beside(score), caption, caption))
        return f'<div class="pair">{"".join(figures)}</div>' if figures else '<p class="soft">none: all is right</p>'

    def _beside(self, score: FrameScore) -> Image:
        """The frame with its labels beside the frame with what was found."""
        tracked, video, t = self.published, score.video, score.frame
        image = read_frame(tracked.images / video.file_names[t], video.height, video.width)
        names = {category.id: category.name for category in tracked.everything.categories}
        entries = [a for a in tracked.everything.annotations if a.video_id == video.id]
        found = [
            Annotation(number, video.id, entry["category_id"], tuple([None] * t + [mask]))
            for number, (entry, mask) in enumerate(score.found, 1)
        ]
        left, right = (drawn_labels(image, video, labels, t, names) for labels in (entries, found))
        return np.concatenate([left, np.full((len(left), 6, 3), 255, np.uint8), right], 1)


def judge(pipeline: Pipeline, found: VideoSet, limit: int = 0) -> Judgement:
    """What the masks are worth, of all that is found, and what the tracks are that are published.

    Raises SourceError as ``track_set`` does.
    """
    published = pipeline.config
    pipeline.configure(replace(published, min_score=0.0, confirm_frames=1))
    whole = track_set(pipeline, found, limit)
    numbers = evaluate_data(whole.truth, whole.results, size_limits="coco")
    pipeline.configure(published)
    shown_tracks = track_set(pipeline, found, limit)
    tracking = evaluate_data(shown_tracks.truth, shown_tracks.results)["tracking"]["class_agnostic"]
    return Judgement(numbers, tracking, shown_tracks, score_frames(shown_tracks))


def _place(score: FrameScore) -> str:
    name = shown(Path(score.video.file_names[score.frame]).name, 48)
    return name if score.video.length == 1 else f"{name} (frame {score.frame})"


def _faults(score: FrameScore) -> str:
    said = {"missed": score.missed, "of another class": score.confused, "found where nothing is": score.ghosts}
    return ", ".join(f"{count} {what}" for what, count in said.items() if count) or "rough outlines"


def _confusions(scores: FrameScores) -> list[str]:
    """What happens to the objects of each class, most of them first; a line for each class that occurs."""
    names = (*scores.class_names, "nothing")
    lines = []
    for row, name in enumerate(names):
        counts = scores.confusion[row]
        if not counts.sum():
            continue
        order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k] and int(k) != row]
        others = ", ".join(f"{shown(names[k]) if k < len(names) - 1 else 'not found'} {counts[k]}" for k in order)
        first = f"found {counts[row]} of {counts.sum()}" if row < len(names) - 1 else "found where nothing is"
        lines.append(f"{shown(name)}: {first}" + (f"; {others}" if others else ""))
    return lines


def _confusion_table(scores: FrameScores) -> str:
    seen = scores.confusion.sum(0) + scores.confusion.sum(1) > 0
    rows = [k for k in range(len(seen)) if seen[k]]
    names = (*scores.class_names, "nothing")
    head = "".join(f"<th>{escape(names[k]) if k < len(names) - 1 else 'not found'}</th>" for k in rows)
    body = []
    for row in rows:
        total = max(1, int(scores.confusion[row].sum()))
        cells = "".join(
            f'<td style="background:rgba(55,98,200,{0.6 * scores.confusion[row, k] / total:.2f})">'
            f"{scores.confusion[row, k] or ''}</td>"
            for k in rows
        )
        body.append(f'<tr><td class="text">{escape(names[row])}</td>{cells}</tr>')
    return f'<table><thead><tr><th class="text">true</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def _class_table(numbers: Mapping[str, Any]) -> str:
    rows = {"all classes": numbers, **{values["name"]: values for values in numbers["per_class"].values()}}
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    body = "".join(
        f'<tr><td class="text">{escape(name)}</td>' + "".join(f"<td>{_percent(v[c])}</td>" for c in _COLUMNS) + "</tr>"
        for name, v in rows.items()
    )
    return f'<table><thead><tr><th class="text"></th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _percent(value: float) -> str:
    return "–" if value == NOTHING_TO_MEASURE else f"{100 * value:.1f}"
