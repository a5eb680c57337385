# SPDX-License-Identifier: Apache-2.0
"""The report as a browser gets it: well-formed, whole, harmless, and small whatever the run was like."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.pictures.draw import colours
from instance_flow.report.page import MOST_TRACKS, report_page
from instance_flow.report.run_statistics import Statistics
from instance_flow.structures import NEW, Tracks

ABOUT: dict[str, dict[str, Any]] = {
    "Source": {"name": "my clip", "path": "/data/my clip.mp4"},
    "Model": {"name": "test model", "hash of the weights": "0123abcd", "provider": "cpu"},
    "Settings": {"max instances": 100},
    "Versions": {"numpy": np.__version__},
}
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Texts, attributes, and whether every element is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def every(self, tag: str, of_class: str | None = None) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag and of_class in (None, found.get("class"))]

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def statistics_of(frames: list[list[int]], reference: int | None = None) -> Statistics:
    """A run whose frames show these ids; class id % 2; kept by frame ``reference``, else by the one before."""
    statistics, known = Statistics(), set[int]()
    for frame, ids in enumerate(frames):
        count = len(ids)
        kept = [NEW if k not in known else (frame - 1 if reference is None else reference) for k in ids]
        known.update(ids)
        tracks = Tracks(
            frame_index=frame,
            label_map=np.zeros((360, 640), np.int32),
            ids=np.array(ids, np.int64),
            class_ids=np.array(ids, np.int64) % 2,
            scores=np.full(count, 0.25, np.float32),
            semantic_scores=np.full(count, 0.5, np.float32),
            center_scores=np.full(count, 0.5, np.float32),
            centers=np.full((count, 2), 3.0 * frame, np.float32),
            boxes=np.ones((count, 4), np.float32),
            areas=np.ones(count, np.int64),
            velocities=np.zeros((count, 2), np.float32),
            states=np.ones(count, np.int64),
            ages=np.full(count, frame, np.int64),
            age_seconds=np.full(count, frame / 10),
            reference_frames=np.array(kept, np.int64),
            distances=np.where(np.array(kept) == NEW, np.nan, 7.5).astype(np.float32),
        )
        statistics.add(tracks, 0.01 + 0.001 * (frame % 7))
    statistics.elapsed = 0.1 * len(frames)
    return statistics


def noise(seed: int, height: int = 270, width: int = 480) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_everything_that_ran_is_on_the_page() -> None:
    page = Page(report_page(ABOUT, statistics_of([[1, 2], [2, 17], [17]]), ("ball", "box"), [(0, noise(0))]))
    for facts in ABOUT.values():
        for name, value in facts.items():
            assert name in page.text
            assert str(value) in page.text
    for said in ("my clip", "640 x 360 pixels", "5 objects in all frames", "latency p99", "10.0", "ball", "box"):
        assert said in page.text
    labels = [text for text in page.texts if re.fullmatch(r"\d+ (ball|box)", text)]
    assert labels == ["1 box", "2 ball", "17 box"]
    for track_id in (1, 2, 17):
        assert f"#{bytes(colours([track_id])[0]).hex()}" in {found.get("fill") for found in page.every("path")}


def test_nothing_is_fetched_and_nothing_runs() -> None:
    html = report_page(ABOUT, statistics_of([[1], [1]]), ("ball", "box"), [(0, noise(0)), (1, noise(1))])
    page = Page(html)
    assert "://" not in html
    assert not page.every("script")
    assert not page.every("link")
    assert all(not name.startswith("on") for _, found in page.tags for name in found)
    sources = [found["src"] or "" for found in page.every("img")]
    assert len(sources) == 2
    for source in sources:
        data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"), validate=True)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.shape == (270, 480, 3)
    policy = next(found["content"] for found in page.every("meta") if found.get("http-equiv"))
    assert policy == "default-src 'none';img-src data:;style-src 'unsafe-inline'"


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;</style></title>"


def test_hostile_names_are_only_text() -> None:
    about = {HOSTILE: {HOSTILE: HOSTILE}}
    page = Page(report_page(about, statistics_of([[1, 2], [], [1, 2]]), (HOSTILE, HOSTILE), []))
    assert page.text.count(HOSTILE) >= 6
    assert not page.every("script")
    assert not page.every("img")


def test_gaps_are_visible_and_explained() -> None:
    """Frames 0 and 1, not 2 to 4, then 5: two bars, one diamond, and why the id was kept."""
    html = report_page(ABOUT, statistics_of([[3], [3], [], [], [], [3]], reference=1), ("ball", "box"), [])
    page = Page(html)
    (bars,) = (found["d"] or "" for found in page.every("path", "seen"))
    starts = [float(x) for x in re.findall(r"M([\d.]+) ", bars)]
    widths = [float(x) for x in re.findall(r"h([\d.]+)v", bars)]
    assert len(starts) == len(widths) == 2
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert starts[1] - starts[0] == pytest.approx(5 * widths[1], abs=0.5)
    assert len(page.every("path", "back")) == 1
    assert "id 3 found again in frame 5 after 3 frames" in page.text
    assert "kept by frame 1: the flow led to 7.5 px from its center there" in page.text
    assert "frames 0 to 5, seen in 3, longest gap 3" in page.text


@pytest.mark.parametrize("frames", [[[]], [[], [], []], [[1]]], ids=["one empty frame", "no objects", "one object"])
def test_runs_with_little_to_show(frames: list[list[int]]) -> None:
    page = Page(report_page(ABOUT, statistics_of(frames), ("ball", "box"), [(0, noise(0))]))
    assert ("No object was found in any frame." in page.text) == (not any(frames))
    assert "nan" not in page.text.lower()
    assert not [found for _, found in page.tags if "nan" in (found.get("d") or "") + (found.get("y") or "")]


def test_a_run_without_a_single_frame() -> None:
    page = Page(report_page(ABOUT, Statistics(), (), []))
    assert "nan" not in page.text.lower()


@pytest.mark.parametrize("interrupted", [True, False])
def test_an_interrupted_run_says_so(interrupted: bool) -> None:
    statistics = statistics_of([[1], [1]])
    statistics.interrupted = interrupted
    page = Page(report_page(ABOUT, statistics, ("ball", "box"), []))
    assert ("The run was interrupted" in page.text) == interrupted


def test_a_class_without_a_name() -> None:
    assert "class 1" in Page(report_page(ABOUT, statistics_of([[1], [2]]), ("ball",), [])).text


def test_a_long_run_with_many_tracks_stays_small() -> None:
    """5,000 frames, some 1,700 ids that blink, noise in the samples: the worst for its size."""
    frames = [[k + 1 for k in range(frame // 3, frame // 3 + 40) if (k + frame) % 3] for frame in range(5000)]
    statistics = statistics_of(frames)
    html = report_page(ABOUT, statistics, ("ball", "a name of some length"), [(k, noise(k)) for k in range(12)])
    assert len(html.encode()) < 3_000_000
    page = Page(html)
    rows = page.every("path", "seen")
    assert len(rows) == MOST_TRACKS
    assert f"{len(statistics.ids) - MOST_TRACKS:,} more" in page.text
    assert "mean and largest of every 8 frames" in page.text
