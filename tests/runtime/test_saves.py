# SPDX-License-Identifier: Apache-2.0
"""What ``--save`` writes, read back by other tools, or by readers written from the formats' own pages."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from full_disk import files_of_at_most
from label_map_tracks import label_map_tracks
from numpy.typing import NDArray
from red_thing import HEIGHT, WIDTH, frames, lines_of, write_source

from instance_flow.commands.cli import main
from instance_flow.formats.rle import decode
from instance_flow.formats.video import Frame, open_source
from instance_flow.replay import saves
from instance_flow.replay.saves import SAVES, save_output
from instance_flow.replay.session import replay
from instance_flow.replay.settings import OutputOptions, Settings
from instance_flow.structures import NUMBERS, Tracks

QUICK = ["--no-video", "--no-report", "--json"]
NAMES = ("red", "blue")


def run(source: Path, model: Path, out: Path, *options: str) -> int:
    return main(["run", str(source), "--model", str(model), "--out", str(out), *QUICK, *options])


def tracks_of(label_map: NDArray[Any], scores: Sequence[float] = (), frame_index: int = 0) -> Tracks:
    """Tracks of a label map, all of class 1."""
    tracks = label_map_tracks(label_map)
    values = np.array(scores, np.float32) if scores else tracks.scores
    return replace(
        tracks,
        frame_index=frame_index,
        class_ids=np.ones(len(tracks), np.int64),
        scores=values,
        semantic_scores=values,
        center_scores=values,
    )


def frame_of(tracks: Tracks, number: int = 0, name: str = "") -> Frame:
    image = np.full((*tracks.label_map.shape, 3), (10, 20, 30), np.uint8)
    return Frame(image, None, "", name, number=number)


def filled(line: str, height: int, width: int) -> tuple[int, int, NDArray[np.uint8]]:
    """class, id and mask (H, W) of a line of YOLO text, filled as ultralytics fills polygons: corners cut to whole
    pixels, then ``cv2.fillPoly``."""
    first, *fractions, last = line.split()
    points = (np.array(fractions, float).reshape(-1, 2) * (width, height)).astype(np.int32)
    assert len(points) >= 3
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [points], (1,))
    return int(first), int(last), mask


def read_mot(path: Path) -> dict[tuple[int, int], list[float]]:
    """(frame, id) to left, top, width, height and score; ten columns, frames and ids from 1, as the benchmark says."""
    rows = [[float(cell) for cell in line.split(",")] for line in path.read_text().splitlines()]
    assert all(len(row) == 10 and row[7:] == [-1, -1, -1] and min(row[:2]) >= 1 for row in rows)
    found = {(int(row[0]), int(row[1])): row[2:7] for row in rows}
    assert len(found) == len(rows), "an id stands once in a frame"
    return found


def test_every_format_says_what_the_run_says(tmp_path: Path, model: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    images = frames(4)
    images.insert(2, np.full((HEIGHT, WIDTH, 3), 110, np.uint8))  # nobody
    source, out = write_source(tmp_path / "pictures", images), tmp_path / "out"
    assert run(source, model, out, "--save", "mot,csv", "--save", "coco, crops,txt") == 0
    (result,) = json.loads((out / "results.json").read_text())
    masks = [decode(mask) if mask else None for mask in result["segmentations"]]
    lines = lines_of(out / "tracks.jsonl")
    assert [len(line["tracks"]) for line in lines] == [1, 1, 0, 1, 1]

    mot = read_mot(out / SAVES["mot"])
    assert list(mot) == [(1, 1), (2, 1), (4, 1), (5, 1)]
    with (out / SAVES["csv"]).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["number", "frame", "stamp", "name", *NUMBERS]
    with redirect_stdout(StringIO()):
        data = coco.COCO(str(out / SAVES["coco"]))
        again = data.loadRes(data.dataset["annotations"])
    assert [image["file_name"] for image in data.loadImgs(data.getImgIds())] == [f"{k:05}.png" for k in range(5)]
    assert data.loadCats(data.getCatIds()) == [{"id": 1, "name": "red"}]
    assert len(again.anns) == 4
    with_objects = [(line, mask) for line, mask in zip(lines, masks, strict=True) if mask is not None]
    for (line, mask), row, annotation in zip(with_objects, table, data.anns.values(), strict=True):
        (track,) = line["tracks"]
        x, y, width, height = track["box"]
        assert mot[line["number"] + 1, track["id"]] == pytest.approx(
            [x + 1, y + 1, width, height, track["score"]], abs=1e-3
        )
        assert (int(row["number"]), row["name"], int(row["id"]), row["class_name"]) == (
            *(line["number"], line["name"], track["id"], "red"),
        )
        assert [float(row[name]) for name in ("x0", "y0", "x1", "y1")] == [x, y, x + width, y + height]
        assert (float(row["center_x"]), float(row["center_y"])) == pytest.approx(
            (track["center"]["x"], track["center"]["y"]), abs=1e-3
        )
        assert (row["velocity_x"], row["stamp"]) == ("", ""), "pictures have no times"
        np.testing.assert_array_equal(data.annToMask(annotation), mask)
        assert (annotation["image_id"], annotation["track_id"], annotation["bbox"]) == (
            *(line["number"] + 1, track["id"], track["box"]),
        )
        (text,) = (out / SAVES["txt"] / line["name"]).with_suffix(".txt").read_text().splitlines()
        class_id, track_id, polygon = filled(text, HEIGHT, WIDTH)
        assert (class_id, track_id) == (0, track["id"])
        np.testing.assert_array_equal(polygon, mask)
    assert (out / SAVES["txt"] / "00002.txt").read_text() == ""
    crops = sorted((out / SAVES["crops"] / "1").iterdir())
    assert [crop.name[:12] for crop in crops] == ["frame_000001", "frame_000002", "frame_000004", "frame_000005"]
    picture = cv2.imread(str(crops[0]), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    whole = masks[0]
    assert whole is not None
    np.testing.assert_array_equal(picture[..., 3] > 0, whole[32:56, 16:40] > 0)
    assert {tuple(pixel) for pixel in picture.reshape(-1, 4).tolist()} == {(30, 30, 220, 255), (0, 0, 0, 0)}


TRACKED = {
    "as it is": ([[3, 5], [3, 5], [3, 5], [3, 5]], (8, 0, 0, 0)),
    "an id changes": ([[3, 5], [3, 5], [7, 5], [7, 5]], (8, 0, 0, 1)),
    "ids are exchanged": ([[3, 5], [3, 5], [5, 3], [5, 3]], (8, 0, 0, 2)),
    "one is missed": ([[3, 5], [0, 5], [3, 5], [3, 5]], (7, 1, 0, 0)),
    "a frame without objects": ([[3, 5], [0, 0], [3, 5], [3, 5]], (6, 2, 0, 0)),
}
"""Ids of two objects in four frames, 0 = not found; then hits, misses, false alarms and id switches of CLEAR MOT."""


@pytest.mark.parametrize(("ids", "counts"), TRACKED.values(), ids=TRACKED)
def test_trackeval_reads_the_mot_file(tmp_path: Path, ids: list[list[int]], counts: tuple[int, ...]) -> None:
    """The benchmark's own evaluator, given the file under the sequence's name, counts what was written into it."""
    with redirect_stdout(StringIO()):  # it names the data sets whose packages are missing
        trackeval = pytest.importorskip("trackeval")
    truth = tmp_path / "truth/SEQ/gt/gt.txt"
    truth.parent.mkdir(parents=True)
    rows = []
    with save_output("mot", tmp_path / "ours/data", NAMES) as add:
        for number, (first, second) in enumerate(ids):
            label_map = np.zeros((48, 64), np.int32)
            label_map[4:20, 5 + number : 25 + number] = first
            label_map[30:40, 40 - number : 60 - number] = second
            tracks = tracks_of(label_map, frame_index=number)
            add(frame_of(tracks, number), tracks)
            # frame, id, left, top, width, height, counts, pedestrian, visibility; pixels from 1
            rows += [f"{number + 1},1,{6 + number},5,20,16,1,1,1", f"{number + 1},2,{41 - number},31,20,10,1,1,1"]
    truth.write_text("\n".join(rows))
    (tmp_path / "ours/data" / SAVES["mot"]).rename(tmp_path / "ours/data/SEQ.txt")
    folders = {"GT_FOLDER": str(tmp_path / "truth"), "TRACKERS_FOLDER": str(tmp_path), "TRACKERS_TO_EVAL": ["ours"]}
    benchmark = {"SKIP_SPLIT_FOL": True, "SEQ_INFO": {"SEQ": len(ids)}, "PRINT_CONFIG": False}
    with redirect_stdout(StringIO()):
        sequences = trackeval.datasets.MotChallenge2DBox({**folders, **benchmark})
        data = sequences.get_preprocessed_seq_data(sequences.get_raw_seq_data("ours", "SEQ"), "pedestrian")
        found = trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    assert tuple(found[name] for name in ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW")) == counts
    assert found["MOTP"] == 1, "the boxes are the truth's, to the pixel"


def shape(*parts: tuple[slice, slice], hole: tuple[slice, slice] | None = None) -> NDArray[np.int32]:
    label_map = np.zeros((48, 64), np.int32)
    for part in parts:
        label_map[part] = 7
    if hole:
        label_map[hole] = 0
    return label_map


S = slice
EXACT = {
    "one pixel": shape((S(3, 4), S(5, 6))),
    "a corner": shape((S(47, 48), S(63, 64))),
    "a line": shape((S(3, 4), S(5, 60))),
    "a slanted line": np.asarray(np.eye(48, 64) * 7, np.int32),
    "the whole image": shape((S(None), S(None))),
    "a cross": shape((S(10, 40), S(20, 25)), (S(20, 25), S(5, 60))),
    "an ellipse": np.asarray(cv2.ellipse(shape(), (30, 20), (25, 11), 30, 0, 360, (7,), -1), np.int32),
}


@pytest.mark.parametrize("label_map", EXACT.values(), ids=EXACT)
def test_a_polygon_is_its_mask_again(tmp_path: Path, label_map: NDArray[np.int32]) -> None:
    assert polygon_of(tmp_path, label_map).tolist() == (label_map > 0).astype(int).tolist()


def polygon_of(folder: Path, label_map: NDArray[np.int32]) -> NDArray[np.uint8]:
    tracks = tracks_of(label_map)
    with save_output("txt", folder, NAMES) as add:
        add(frame_of(tracks), tracks)
    (line,) = (folder / "labels" / "frame_000001.txt").read_text().splitlines()
    class_id, track_id, mask = filled(line, *label_map.shape)
    assert (class_id, track_id) == (1, 7)
    return mask


def test_parts_are_joined_by_lines_and_holes_filled(tmp_path: Path) -> None:
    ring = shape((S(5, 25), S(5, 25)), hole=(S(10, 15), S(10, 15)))
    np.testing.assert_array_equal(polygon_of(tmp_path / "ring", ring), shape((S(5, 25), S(5, 25))) > 0)
    parts = shape((S(5, 15), S(5, 15)), (S(5, 10), S(30, 40)), (S(40, 45), S(8, 12)), (S(46, 47), S(60, 61)))
    found = polygon_of(tmp_path / "parts", parts)
    assert (found[parts > 0] == 1).all()
    extra = (found == 1) & (parts == 0)
    assert 0 < extra.sum() < 120
    assert not cv2.erode(extra.astype(np.uint8), np.ones((3, 3), np.uint8)).any(), "lines, no area"


def test_the_best_pictures_of_a_track_are_kept_and_of_so_many_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(saves, "CROPPED_TRACKS", 2)
    label_map = np.zeros((20, 30), np.int32)
    label_map[:5, :5], label_map[:5, 10:15], label_map[:5, 20:25] = 4, 6, 9
    with save_output("crops", tmp_path, NAMES) as add:
        for number, score in enumerate((0.5, 0.1, 0.9, 0.3, 0.2, 0.9, 0.8, 0.05)):
            tracks = tracks_of(label_map, [score, 1 - score, 1.0], number)
            add(frame_of(tracks, number), tracks)
    folders = sorted((tmp_path / "crops").glob("*/"))
    found = {folder.name: sorted(int(crop.name[6:12]) for crop in folder.iterdir()) for folder in folders}
    assert found == {"4": [1, 3, 4, 6, 7], "6": [1, 2, 4, 5, 8]}
    assert len([r for r in caplog.records if "pictures of the first 2 tracks" in r.message]) == 1


def test_ids_after_a_reset_are_others(tmp_path: Path) -> None:
    tracks = tracks_of(np.full((4, 5), 3))
    for form in ("mot", "csv", "coco", "txt", "crops"):
        with save_output(form, tmp_path, NAMES) as add:
            for number in range(2):  # both are frame 0 of their stream
                add(frame_of(tracks, number), tracks)
    assert list(read_mot(tmp_path / SAVES["mot"])) == [(1, 3), (2, 6)]
    annotations = json.loads((tmp_path / SAVES["coco"]).read_text())["annotations"]
    assert [(a["image_id"], a["track_id"]) for a in annotations] == [(1, 3), (2, 6)]
    assert (tmp_path / "labels" / "frame_000002.txt").read_text().split()[-1] == "6"
    assert {folder.name for folder in (tmp_path / "crops").glob("*/")} == {"3", "6"}
    assert [row.split(",")[4] for row in (tmp_path / SAVES["csv"]).read_text().splitlines()[1:]] == ["3", "6"]


def test_frames_without_objects_are_whole_files(tmp_path: Path) -> None:
    tracks = tracks_of(np.zeros((4, 5), np.int32))
    for form in SAVES:
        with save_output(form, tmp_path, NAMES) as add:
            add(frame_of(tracks), tracks)
    assert (tmp_path / SAVES["mot"]).read_text() == ""
    assert (tmp_path / SAVES["csv"]).read_text().startswith("number,frame,stamp,name,id,")
    data = json.loads((tmp_path / SAVES["coco"]).read_text())
    assert (len(data["images"]), data["annotations"], len(data["categories"])) == (1, [], 2)
    assert [path.name for path in (tmp_path / "labels").glob("*.txt")] == ["frame_000001.txt"]


def test_pictures_and_pages_keep_their_names_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracks, names = tracks_of(np.full((4, 5), 3)), ("a.png", "a.jpg", "b.tif#0", "b.tif#1", "c#1.png", 'd,"e".png')
    for form in ("txt", "csv"):
        with save_output(form, tmp_path, NAMES) as add:
            for number, name in enumerate(names):
                add(frame_of(tracks, number, name), tracks)
    found = sorted(path.name for path in (tmp_path / "labels").glob("*.txt"))
    assert found == ["a.txt", "a_2.txt", "b_1.txt", "b_2.txt", "c#1.txt", 'd,"e".txt']
    assert "a.jpg; its labels are in labels/a_2.txt" in caplog.text
    with (tmp_path / SAVES["csv"]).open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(names)


@pytest.mark.parametrize("form", SAVES)
def test_memory_does_not_grow_with_the_stream(tmp_path: Path, form: str) -> None:
    label_map = np.kron(np.arange(12).reshape(3, 4), np.ones((4, 4)))
    with save_output(form, tmp_path, NAMES) as add:
        for number in range(20):
            add(frame_of(tracks := tracks_of(label_map, frame_index=number), number), tracks)
        tracemalloc.start()
        for number in range(20, 400):
            add(frame_of(tracks := tracks_of(label_map, frame_index=number), number), tracks)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 200_000


def stop_after(count: int) -> Callable[[], bool]:
    calls = iter(range(1, 100))
    return lambda: next(calls) >= count


def test_a_run_that_is_stopped_leaves_whole_files_and_goes_on(tmp_path: Path, model: Path) -> None:
    path = write_source(tmp_path / "pictures", frames(6))
    settings, wanted = Settings(model, "cpu"), OutputOptions(save=tuple(SAVES), video=False, report=False)
    contents = []
    for out, stops in ((tmp_path / "out", [3, 99]), (tmp_path / "whole", [99])):
        for stop in stops:
            replay(open_source(path), path, out, settings.load(), settings, wanted, stopped=stop_after(stop))
            data = json.loads((out / SAVES["coco"]).read_text())
            count = min(stop, 6)
            assert [image["id"] for image in data["images"]] == list(range(1, count + 1))
            assert len(read_mot(out / SAVES["mot"])) == len(list((out / "labels").glob("*.txt"))) == count
            assert len((out / SAVES["csv"]).read_text().splitlines()) == 1 + count
        names = [*SAVES.values()]
        files = [f for name in names for f in ([out / name] if (out / name).is_file() else (out / name).rglob("*.*"))]
        contents.append({str(f.relative_to(out)): f.read_bytes() for f in files})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("form", SAVES)
@pytest.mark.parametrize("size", [10, 60, 200], ids=str)
def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path, form: str, size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    tracks = tracks_of(np.kron(np.arange(1, 5).reshape(2, 2), np.ones((20, 25))))

    def write(count: int) -> None:
        with save_output(form, tmp_path, NAMES) as add:
            for number in range(count):
                add(Frame(noise, None, "", "", number=number), tracks)

    write(30)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with files_of_at_most(size), pytest.raises(Exception, match=f"{SAVES[form]}: cannot be written .*is the disk full"):
        write(40)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    write(2)


def test_a_folder_that_no_run_wrote_stays(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_source(tmp_path / "pictures", frames(2)), tmp_path / "out"
    own = out / "labels" / "a.txt"
    own.parent.mkdir(parents=True)
    own.write_text("0 0.5 0.5 0.1 0.1\n")
    assert run(source, model, out, "--save", "txt") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"instance-flow: error: {out / 'labels'} was not written by `instance-flow run`, so no run replaces it; name "
        "another --out"
    )
    assert [path.name for path in out.iterdir()] == ["labels"]
    assert run(source, model, out) == 0, "which does not want a folder of that name"
    assert own.read_text() == "0 0.5 0.5 0.1 0.1\n"


def test_files_of_an_earlier_run_go(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_source(tmp_path / "pictures", frames(2)), tmp_path / "out"
    for options in (["--save", ",".join(SAVES)], ["--save", "mot,txt"], []):
        assert run(source, model, out, *options) == 0
        left = {name for name in SAVES.values() if (out / name).exists()}
        assert left == {SAVES[form] for form in ",".join(options[1:]).split(",") if form}
        summary = json.loads(capsys.readouterr().out)
    assert summary["removed"] == [str(out / SAVES[form]) for form in ("mot", "txt")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--save", "foo"], "argument --save: 'foo' is none of mot, csv, coco, crops, txt"),
        (["--save", "mot,"], "argument --save: '' is none of mot"),
        (["--save", ""], "argument --save: '' is none of mot"),
        (["--conf", "3"], "argument --conf: '3' is not a number from 0 to 1"),
        (["--conf", "-0.5"], "argument --conf: '-0.5' is not a number from 0"),
        (["--conf", "nan"], "argument --conf: 'nan' is not a number from 0"),
        (["--classes", "zebra"], "classes names 'zebra'; this model knows red"),
    ],
    ids=" ".join,
)
def test_values_that_cannot_be(
    options: list[str], said: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run(write_source(tmp_path / "pictures", frames(1)), model, tmp_path / "out", *options)
    except SystemExit as exit_:  # argparse
        code = int(str(exit_.code))
    assert code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("conf", "count"), [("0", 1), ("0.9", 1), ("1", 0)])
def test_conf_leaves_out_lower_scores(tmp_path: Path, model: Path, conf: str, count: int) -> None:
    out = tmp_path / "out"
    options = ["--classes", "red", "--conf", conf, "--imgsz", f"{WIDTH}x{HEIGHT}", "--save", "mot"]
    assert run(write_source(tmp_path / "pictures", frames(1)), model, out, *options) == 0
    assert len(read_mot(out / SAVES["mot"])) == count
