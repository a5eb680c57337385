# SPDX-License-Identifier: Apache-2.0
"""Our numbers against those of the official YouTube-VIS code and TrackEval on the reference cases, and on bad files.

data/evaluation holds the cases; the note in each expected.json says what is peculiar about it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow.assignment import assign
from instance_flow.evaluation import evaluate, evaluate_data, format_table
from instance_flow.structures import SourceError

DATA = Path(__file__).parent / "data" / "evaluation"
TOLERANCE = 1e-9
REFUSED = {"q03_size_mismatch": "mask of size", "q04_short_prediction": "1 segmentations, but video 1 has 3 frames"}
CASES = sorted(folder.name for folder in DATA.iterdir() if folder.name not in REFUSED)
ID_ZERO = "q02_gt_id_zero"


def load(case: str, name: str) -> Any:
    return json.loads((DATA / case / f"{name}.json").read_text())


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[float, float]]:
    pairs = {name: (found[name], value) for name, value in expected.items()}
    return {name: pair for name, pair in pairs.items() if abs(pair[0] - pair[1]) > TOLERANCE}


@pytest.mark.parametrize("case", CASES)
def test_ap_and_ar_equal_the_official_code(case: str) -> None:
    # The official code takes the annotation id 0 for "unmatched"; ours finds the same as with any other id.
    expected = load("q01_perfect" if case == ID_ZERO else case, "expected")["stats"]
    assert not differences(evaluate(DATA / case / "gt.json", DATA / case / "results.json"), expected)


@pytest.mark.parametrize(("part", "threshold"), [("all_predictions", None), ("score_ge_0.5", 0.5)])
@pytest.mark.parametrize("case", CASES)
def test_tracking_numbers_equal_trackeval(case: str, part: str, threshold: float | None) -> None:
    expected = load(case, "expected")["tracking"][part]
    result = evaluate(DATA / case / "gt.json", DATA / case / "results.json", score_threshold=threshold)
    for average in ("class_averaged", "detection_averaged", "class_agnostic"):
        assert not differences(result["tracking"][average], expected[average]), average
    for category_id, numbers in expected["per_class"].items():
        assert not differences(result["per_class"][int(category_id)], numbers), category_id
    headline = {name: result[name] for name in ("HOTA", "DetA", "AssA", "IDF1", "IDSW")}
    assert headline.items() <= result["tracking"]["class_averaged"].items()


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_official_code_reads_wrongly_is_refused(case: str) -> None:
    with pytest.raises(SourceError, match=REFUSED[case]):
        evaluate(DATA / case / "gt.json", DATA / case / "results.json")


@pytest.mark.parametrize("case", ["o1_basic", "o4_crowd_null_empty", "q17_empty_results", "q18_no_gt"])
def test_data_in_memory_give_what_files_give(case: str) -> None:
    from_files = evaluate(DATA / case / "gt.json", DATA / case / "results.json")
    assert evaluate_data(load(case, "gt"), load(case, "results")) == from_files
    json.dumps(from_files, allow_nan=False)


def test_the_ground_truth_itself_scores_one() -> None:
    ground_truth = load("o1_basic", "gt")
    results = [{**annotation, "score": 1.0} for annotation in ground_truth["annotations"]]
    result = evaluate_data(ground_truth, results)
    assert {name: result[name] for name in ("AP", "AR100", "HOTA", "IDF1", "IDSW")} == pytest.approx(
        {"AP": 1.0, "AR100": 1.0, "HOTA": 1.0, "IDF1": 1.0, "IDSW": 0}
    )


def test_a_missing_iscrowd_means_not_a_crowd_and_missing_areas_are_counted() -> None:
    ground_truth = load("o5_sizes", "gt")
    for annotation in ground_truth["annotations"]:
        del annotation["iscrowd"], annotation["areas"]
    assert not differences(
        evaluate_data(ground_truth, load("o5_sizes", "results")), load("o5_sizes", "expected")["stats"]
    )


def test_polygons_in_the_ground_truth() -> None:
    video = {"id": 1, "height": 20, "width": 30, "length": 1}
    square = [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]]
    entry = {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [square], "score": 1.0}
    runs = {"size": [20, 30], "counts": [105, 10, *[10, 10] * 9, 305]}
    ground_truth = {"videos": [video], "categories": [{"id": 1, "name": "box"}], "annotations": [entry]}
    assert evaluate_data(ground_truth, [{**entry, "segmentations": [runs]}])["AP"] == pytest.approx(1.0)


def test_unlisted_categories_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    evaluate_data(load("q11_categories", "gt"), load("q11_categories", "results"))
    assert "1 of 3 entries are left out" in caplog.text
    assert "[99]" in caplog.text


def test_table() -> None:
    table = format_table(evaluate(DATA / "o5_sizes" / "gt.json", DATA / "o5_sizes" / "results.json"))
    rows = {line.split("  ")[0]: line.split()[1:] for line in table.splitlines() if line}
    assert rows["all"][0] == "38.3"
    assert rows["large"] == ["50.0", "50.0"]
    assert rows["giant_panda"][-1] == "3"
    empty = format_table(evaluate(DATA / "q18_no_gt" / "gt.json", DATA / "q18_no_gt" / "results.json"))
    assert empty.splitlines()[1].split()[:3] == ["all", "-", "-"]


def edited(change: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """The ground truth and results of a sound case, changed in one place."""
    ground_truth, results = load("q01_perfect", "gt"), load("q01_perfect", "results")
    change(ground_truth, results)
    return ground_truth, results


BAD = {
    "unknown video": (lambda _, r: r[0].update(video_id=42), "results.json: result 0 .*video_id 42"),
    "unknown video of an annotation": (
        lambda g, _: g["annotations"][0].update(video_id=42),
        r"gt.json: annotation 0 of the list \(id 1\) has the video_id 42",
    ),
    "other mask size": (
        lambda _, r: r[0]["segmentations"][1].update(size=[9, 9]),
        r"size \[9, 9\] in frame 1.*\[40, 60\]",
    ),
    "short list": (lambda _, r: r[0]["segmentations"].pop(), "1 segmentations, but video 1 has 2 frames"),
    "NaN score": (lambda _, r: r[0].update(score=float("nan")), "score nan, but a finite number"),
    "no score": (lambda _, r: r[0].pop("score"), "score None"),
    "no segmentations": (lambda _, r: r[0].pop("segmentations"), "no list 'segmentations'"),
    "mask is a number": (lambda _, r: r[0].update(segmentations=[None, 5]), "no mask .* in frame 1"),
    "empty polygon list": (lambda g, _: g["annotations"][0].update(segmentations=[None, []]), "empty list of polygons"),
    "entry is a number": (lambda _, r: r.append(3), "result 1 of the list is a int"),
    "category is text": (lambda _, r: r[0].update(category_id="1"), "category_id = '1'"),
    "damaged mask": (
        lambda _, r: r[0]["segmentations"][1].update(counts="0T"),
        "results.json: result 0 of video 1, frame 1: .*damaged",
    ),
    "mask of another sum": (
        lambda g, _: g["annotations"][0]["segmentations"][0].update(counts=[7, 8]),
        r"gt.json: annotation 1 \(video 1\), frame 0: the run lengths sum to 15",
    ),
    "fractions in a mask": (
        lambda g, _: g["annotations"][0]["segmentations"][0].update(counts=[0.5, 2399.5]),
        "frame 0: run lengths are a list of whole numbers",
    ),
    "foreign letter in a mask": (lambda _, r: r[0]["segmentations"][0].update(counts="é"), "frame 0: .*ASCII"),
    "polygon of two points": (
        lambda g, _: g["annotations"][0].update(segmentations=[None, [[1, 2, 3, 4]]]),
        "frame 1: a polygon is .* 3 points",
    ),
    "no annotations": (lambda g, _: g.pop("annotations"), "gt.json: has no list 'annotations'"),
    "annotation id twice": (lambda g, _: g["annotations"].append(g["annotations"][0]), "annotation id 1 stands twice"),
    "video without height": (lambda g, _: g["videos"][0].pop("height"), "video 0 .* height = None"),
    "areas are text": (lambda g, _: g["annotations"][0].update(areas=["big", None]), "'areas' that are not"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_entry_is_one_clear_error(tmp_path: Path, change: Callable[[Any, Any], Any], message: str) -> None:
    for name, data in zip(("gt.json", "results.json"), edited(change), strict=True):
        (tmp_path / name).write_text(json.dumps(data))
    with pytest.raises(SourceError, match=message) as error:
        evaluate(tmp_path / "gt.json", tmp_path / "results.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"{}", "is this a ground-truth file"),
        (b"3", "results are a JSON list, not a int"),
    ],
    ids=["missing", "half a file", "binary", "an object", "a number"],
)
def test_a_bad_results_file_is_one_clear_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=f"{path.name}: .*{message}"):
        evaluate(DATA / "q01_perfect" / "gt.json", path)


def test_files_given_the_wrong_way_round() -> None:
    with pytest.raises(SourceError, match="is this a results file"):
        evaluate(DATA / "o1_basic" / "results.json", DATA / "o1_basic" / "gt.json")


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2), (0, 3), (3, 0)], ids=str)
def test_assignment_is_the_cheapest_of_all(shape: tuple[int, int]) -> None:
    for seed in range(30):
        cost = np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)
        rows, columns = shape
        columns_of_rows = itertools.permutations([*range(columns), *[-1] * max(rows - columns, 0)], rows)
        least = min(sum(cost[r, c] for r, c in enumerate(choice) if c >= 0) for choice in columns_of_rows)
        found = assign(cost)
        used = found[found >= 0]
        assert len(set(used.tolist())) == len(used) == min(shape)
        assert cost[found >= 0, used].sum() == least


def test_assignment_of_equal_costs_is_the_identity() -> None:
    assert assign(np.zeros((3, 5))).tolist() == [0, 1, 2]
    assert assign(np.zeros((4, 2))).tolist() == [0, 1, -1, -1]
