# SPDX-License-Identifier: Apache-2.0
"""Our numbers against those of the official YouTube-VIS code and TrackEval on the reference cases, and on bad files.

data/evaluation holds the cases; the note in each expected.json says what is peculiar about it, and detail.json has
precision and recall by threshold, category and size (all, small, medium, large).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow.assembly.assignment import assign
from instance_flow.commands.cli import main
from instance_flow.evaluation.average_precision import SIZES, STATS
from instance_flow.evaluation.evaluate import evaluate, evaluate_data
from instance_flow.evaluation.table import format_table
from instance_flow.evaluation.tracking_metrics import HEADLINE
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


@pytest.mark.parametrize("case", ["o4_crowd_null_empty", "o5_sizes"])
def test_every_class_at_every_size_equals_the_official_code(case: str) -> None:
    detail = load(case, "detail")
    precision, recall = np.array(detail["precision"]), np.array(detail["recall"])
    result = evaluate(DATA / case / "gt.json", DATA / case / "results.json")
    for k, category_id in enumerate(detail["category_ids"]):
        of_class = result["per_class"][category_id]
        for size, numbers in enumerate([of_class, *(of_class["per_size"][name] for name in SIZES)]):
            expected = {
                **{"AP": precision[:, k, size].mean(), "AP50": precision[0, k, size], "AP75": precision[5, k, size]},
                **{f"AR{limit}": recall[:, k, size, m].mean() for m, limit in enumerate((1, 10, 100))},
            }
            assert not differences(numbers, expected), (category_id, size)
        assert of_class["AP_large"] == of_class["per_size"]["large"]["AP"]
        assert of_class["AR_small"] == of_class["per_size"]["small"]["AR100"]


@pytest.mark.parametrize(
    ("limits", "recalls"),
    [("youtube-vis", (0.0, -1.0, 1.0)), ("coco", (-1.0, 0.0, 1.0)), ((1.0, 2.0), (-1.0, -1.0, 0.5))],
    ids=str,
)
def test_size_limits_say_what_is_small(limits: str | tuple[float, float], recalls: tuple[float, ...]) -> None:
    small, large = (box_entry(video_id, side) for video_id, side in ((1, 50), (2, 260)))
    ground_truth = {
        "videos": [{"id": k, "height": 300, "width": 300, "length": 1} for k in (1, 2)],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [small, large],
    }
    # Only the object of 260 x 260 pixels is found; by low limits that of 50 x 50 is large, too.
    result = evaluate_data(ground_truth, [{**large, "score": 1.0}], size_limits=limits)
    assert tuple(result[f"AR_{size}"] for size in SIZES) == pytest.approx(recalls)


BAD_LIMITS = ["kitti", (5.0, 5.0), (0.0, 4.0), (9.0, 4.0), (np.nan, 4.0), (4.0, np.inf), (1.0, 2.0, 3.0), 5, ("a", "b")]


@pytest.mark.parametrize("limits", BAD_LIMITS, ids=str)
def test_bad_size_limits_are_named(limits: Any) -> None:
    with pytest.raises(ValueError, match="size_limits"):
        evaluate_data(load("q01_perfect", "gt"), [], size_limits=limits)


@pytest.mark.parametrize("case", ["o1_basic", "o4_crowd_null_empty", "q18_no_gt"])
def test_without_tracking_the_rest_is_the_same(case: str) -> None:
    paths = DATA / case / "gt.json", DATA / case / "results.json"
    everything, masks = evaluate(*paths), evaluate(*paths, tracking=False)
    assert not {"HOTA", "IDSW", "tracking"} & masks.keys()
    assert all(masks[name] == everything[name] for name in masks.keys() - {"per_class"})
    for category_id, numbers in masks["per_class"].items():
        assert numbers.items() <= everything["per_class"][category_id].items()


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


def cells(table: str) -> dict[tuple[str, str], str]:
    """What stands in each row under each name."""
    found = {}
    for block in table.split("\n\n")[:-1]:
        head, *rows = (re.split(r"  +", line) for line in block.splitlines())
        found.update({(row[0], name): cell for row in rows for name, cell in zip(head[1:], row[1:], strict=True)})
    return found


def test_the_table_has_every_number_of_every_class() -> None:
    result = evaluate(DATA / "o5_sizes" / "gt.json", DATA / "o5_sizes" / "results.json")
    found = cells(format_table(result))
    for row, numbers in (("all classes", result), *((n["name"], n) for n in result["per_class"].values())):
        for name in (*STATS, *HEADLINE):
            value = numbers[name]
            expected = str(value) if name == "IDSW" else "-" if value == -1 else f"{100 * value:.1f}"
            assert found[row, name] == expected, (row, name)
    assert found["as one class", "IDSW"] == str(result["tracking"]["class_agnostic"]["IDSW"])


def test_tables_of_unusual_results() -> None:
    paths = DATA / "q18_no_gt" / "gt.json", DATA / "q18_no_gt" / "results.json"
    assert cells(format_table(evaluate(*paths)))["all classes", "AP50"] == "-"
    assert ("all classes", "HOTA") not in cells(format_table(evaluate(*paths, tracking=False)))
    assert "small up to 32^2 pixels, medium up to 96^2" in format_table(evaluate(*paths, size_limits="coco"))
    assert "small up to 10 pixels, medium up to 20" in format_table(evaluate(*paths, size_limits=(10, 20)))


def test_classes_of_one_name_keep_their_rows() -> None:
    ground_truth = {"videos": [], "annotations": [], "categories": [{"id": k, "name": "cat"} for k in (4, 9)]}
    assert {row for row, _ in cells(format_table(evaluate_data(ground_truth, [])))} == {
        *("all classes", "cat (4)", "cat (9)", "as one class")
    }


def test_the_command_shows_the_table_and_writes_every_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = DATA / "o5_sizes" / "gt.json", DATA / "o5_sizes" / "results.json"
    assert main(["evaluate", *map(str, paths), "--sizes", "coco", "--json", str(tmp_path / "numbers.json")]) == 0
    expected = evaluate(*paths, size_limits="coco")
    assert capsys.readouterr().out == format_table(expected) + "\n"
    written = json.loads((tmp_path / "numbers.json").read_text())
    assert written == json.loads(json.dumps(expected))
    assert written["size_limits"] == [32**2, 96**2]


def box_entry(number: int, side: int) -> dict[str, Any]:
    """One square object in the only frame of its own video."""
    runs = [0, *[side, 300 - side] * side]
    runs[-1] += 300 * (300 - side)
    return {"id": number, "video_id": number, "category_id": 1, "segmentations": [{"size": [300, 300], "counts": runs}]}


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
    "infinite score": (lambda _, r: r[0].update(score=float("-inf")), "score -inf, but a finite number"),
    "score is text": (lambda _, r: r[0].update(score="0.5"), "score '0.5', but a finite number"),
    "score is true": (lambda _, r: r[0].update(score=True), "score True, but a finite number"),
    "endless score": (lambda _, r: r[0].update(score=10**400), r"score 10*\.\.\.0*, but a finite number"),
    "no score": (lambda _, r: r[0].pop("score"), "score None"),
    "no segmentations": (lambda _, r: r[0].pop("segmentations"), "no list 'segmentations'"),
    "mask is a number": (lambda _, r: r[0].update(segmentations=[None, 5]), "no mask .* in frame 1"),
    "empty polygon list": (lambda g, _: g["annotations"][0].update(segmentations=[None, []]), "empty list of polygons"),
    "entry is a number": (lambda _, r: r.append(3), "result 1 of the list is a number, but a JSON object"),
    "list in a list": (lambda _, r: r.insert(0, []), "result 0 of the list is a list, but a JSON object"),
    "long list": (lambda _, r: r[0]["segmentations"].append(None), "3 segmentations, but video 1 has 2 frames"),
    "video is text": (lambda _, r: r[0].update(video_id="1"), "result 0 .*video_id = '1', but a whole number"),
    "no category": (lambda _, r: r[0].pop("category_id"), "result 0 .*category_id = None"),
    "mask without size": (lambda _, r: r[0]["segmentations"][1].pop("size"), "size None in frame 1"),
    "mask without counts": (lambda _, r: r[0]["segmentations"][1].pop("counts"), "no mask .* in frame 1"),
    "category is text": (lambda _, r: r[0].update(category_id="1"), "category_id = '1'"),
    "damaged mask": (
        lambda _, r: r[0]["segmentations"][1].update(counts="0T"),
        r"results.json: result 0 of the list \(video 1\), frame 1: .*damaged",
    ),
    "second result of the file is damaged": (
        lambda _, r: r.append({**r[0], "segmentations": [None, {"size": [40, 60], "counts": "0T"}]}),
        r"result 1 of the list \(video 1\), frame 1: .*damaged",
    ),
    "mask cut short": (
        lambda _, r: r[0]["segmentations"][1].update(counts=r[0]["segmentations"][1]["counts"][:-1]),
        "frame 1: .*damaged or cut off",
    ),
    "negative run length": (
        lambda _, r: r[0]["segmentations"][0].update(counts=[-5, 2405]),
        "frame 0: run lengths lie between 0 .* one is -5",
    ),
    "text among run lengths": (
        lambda _, r: r[0]["segmentations"][0].update(counts=[2000, "400"]),
        "frame 0: run lengths are a list of whole numbers",
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
    "no categories": (lambda g, _: g.pop("categories"), "gt.json: has no list 'categories'"),
    "empty categories": (lambda g, _: g.update(categories=[]), "gt.json: .* 'categories' is empty"),
    "category id twice": (lambda g, _: g["categories"].append(g["categories"][0]), "category id 1 stands twice"),
    "video id twice": (lambda g, _: g["videos"].append(g["videos"][0]), "video id 1 stands twice"),
    "video of no length": (
        lambda g, _: (g["videos"][0].pop("length"), g["videos"][0].pop("file_names")),
        "video 0 .* length = None",
    ),
    "crowd is text": (
        lambda g, _: g["annotations"][0].update(iscrowd="no"),
        "annotation 0 .* iscrowd = 'no', but 0 or 1",
    ),
    "annotation id twice": (lambda g, _: g["annotations"].append(g["annotations"][0]), "annotation id 1 stands twice"),
    "video without height": (lambda g, _: g["videos"][0].pop("height"), "video 0 .* height = None"),
    "category id of 64 bits": (
        lambda _, r: r[0].update(category_id=2**63),
        "result 0 .*category_id = 9223372036854775808, but a whole number below 2.63 is needed",
    ),
    "category id of 400 digits": (lambda g, _: g["categories"][0].update(id=10**400), "category 0 .* below 2.63"),
    "category id far below 0": (lambda g, _: g["annotations"][0].update(category_id=-(2**63)), "annotation 0 .*whole"),
    "video id of 64 bits": (lambda _, r: r[0].update(video_id=2**64), "result 0 .*video_id = .*below 2.63"),
    "video of all memory": (
        lambda g, _: g["videos"][0].update(height=46340, width=46340),
        r"gt.json: video 0 .* has 46340 x 46340 pixels .*at most 67108864",
    ),
    "video of one endless row": (lambda g, _: g["videos"][0].update(height=1, width=2**62), "at most 67108864"),
    "video of too many frames": (
        lambda g, _: (g["videos"][0].pop("file_names"), g["videos"][0].update(length=10**9)),
        "video 0 .* has the length 1000000000, but at most 1048576 frames",
    ),
    "names of frames are numbers": (
        lambda g, _: g["videos"][0].update(file_names=[1, 2]),
        "has a file name that is no text",
    ),
    "too many categories": (
        lambda g, _: g.update(categories=[{"id": n} for n in range(40_000)]),
        "gt.json: has 40000 categories, but at most 32768",
    ),
    "too many objects": (
        lambda g, r: (
            g.update(annotations=[{**g["annotations"][0], "id": n, "segmentations": [None] * 2} for n in range(6000)]),
            r.extend([{**r[0], "segmentations": [None] * 2}] * 6000),
        ),
        "results.json: has 6001 results for video 1 of 2 frames and 6000 annotations, more than can be compared",
    ),
    "areas are text": (lambda g, _: g["annotations"][0].update(areas=["big", None]), "'areas' that are not"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_entry_is_one_clear_error(
    tmp_path: Path, change: Callable[[Any, Any], Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, data in zip(("gt.json", "results.json"), edited(change), strict=True):
        (tmp_path / name).write_text(json.dumps(data))
    with pytest.raises(SourceError, match=message) as error:
        evaluate(tmp_path / "gt.json", tmp_path / "results.json")
    assert "\n" not in str(error.value)
    assert main(["evaluate", str(tmp_path / "gt.json"), str(tmp_path / "results.json")]) == 2
    assert capsys.readouterr() == ("", f"instance-flow: error: {error.value}\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"", "is empty"),
        (b"[{", "is not JSON, or cut short"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"{}", "results are a JSON list, not an object; is this a ground-truth file"),
        (b"3", "results are a JSON list, not a number$"),
        (b"null", "results are a JSON list, not null$"),
        (b"[" * 100_000, "is not JSON"),
    ],
    ids=["missing", "empty", "half a file", "binary", "an object", "a number", "null", "nested without end"],
)
def test_a_bad_results_file_is_one_clear_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=f"{path.name}: .*{message}"):
        evaluate(DATA / "q01_perfect" / "gt.json", path)


def test_a_results_file_cut_short_anywhere_is_one_clear_error(tmp_path: Path) -> None:
    whole = (DATA / "o1_basic" / "results.json").read_bytes().rstrip()
    for size in np.linspace(1, len(whole) - 1, 50, dtype=int):
        (tmp_path / "results.json").write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r"results.json: is not JSON, or cut short"):
            evaluate(DATA / "o1_basic" / "gt.json", tmp_path / "results.json")


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: Is a directory; give a JSON file"):
        evaluate(DATA / "q01_perfect" / "gt.json", tmp_path)


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
