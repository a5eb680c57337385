# SPDX-License-Identifier: Apache-2.0
"""The largest difference of our numbers to those of the official code on reference cases.

    python bench/reference_cases.py ../shared/evaluation

A case is a folder with gt.json, results.json and expected.json, anywhere below the one given; its numbers are AP and AR
(overall, per category, per size and threshold-averaged) and every number of TrackEval, with all predictions and with
those of score 0.5 and more.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from instance_flow.evaluation.average_precision import SIZES
from instance_flow.evaluation.evaluate import evaluate
from instance_flow.structures import SourceError

ID_ZERO = "q02_gt_id_zero"
"""The official code takes the annotation id 0 for "unmatched": expected is what any other id gives."""
SAME_WITHOUT_ZERO = "q01_perfect"


def differences(folder: Path) -> Iterator[float]:
    """Give the difference of every number of a case."""
    expected = json.loads((folder / "expected.json").read_text())
    official = folder.parent / SAME_WITHOUT_ZERO if folder.name == ID_ZERO else folder
    masks = json.loads((official / "expected.json").read_text())
    for part, threshold in (("all_predictions", None), ("score_ge_0.5", 0.5)):
        found = evaluate(folder / "gt.json", folder / "results.json", score_threshold=threshold)
        tracks = expected["tracking"]["results"][part]
        for kind in ("class_averaged", "detection_averaged", "class_agnostic"):
            yield from track_differences(found["tracking"][kind], tracks[kind])
        for category, numbers in tracks["per_class"].items():
            yield from track_differences(found["per_class"][int(category)], numbers)
    yield from (abs(found[name] - value) for name, value in masks["stats"].items())
    if masks["official_detail"]:
        yield from detail_differences(found, masks["official_detail"])


def track_differences(found: dict[str, Any], expected: dict[str, float]) -> Iterator[float]:
    """Compare what both have: not TrackEval's own average precision, nor its curves over thresholds."""
    return (abs(found[name] - expected[name]) for name in found.keys() & expected.keys() - {"name"})


def detail_differences(found: dict[str, Any], detail: dict[str, Any]) -> Iterator[float]:
    """Compare each category at each size with what the official code has of it, by threshold, category and size."""
    precision = np.array(detail["ap_maxdet100_iou_x_category_x_area"])
    recall = np.array(detail["recall_iou_x_category_x_area_x_maxdet"])
    for k, category in enumerate(detail["category_ids"]):
        of_all = found["per_class"][category]
        for size, numbers in enumerate([of_all, *(of_all["per_size"][name] for name in SIZES)]):
            yield abs(numbers["AP"] - precision[:, k, size].mean())
            yield abs(numbers["AP50"] - precision[0, k, size])
            yield abs(numbers["AP75"] - precision[5, k, size])
            for m, limit in enumerate(detail["max_dets"]):
                yield abs(numbers[f"AR{limit}"] - recall[:, k, size, m].mean())


def measure(folder: Path) -> tuple[float, str]:
    """Give the largest difference of a case, and a line that says it."""
    try:
        each = list(differences(folder))
    except SourceError as error:
        return 0.0, f"{folder.name:24} refused: {str(error).removeprefix(f'{folder}/')}"
    return max(each), f"{folder.name:24} {len(each):5} numbers, largest difference {max(each):.1e}"


def main() -> None:
    """Print a line per case and the largest difference of all."""
    parser = argparse.ArgumentParser(description="Our numbers against the official ones on reference cases.")
    parser.add_argument("folder", type=Path)
    logging.disable()
    cases = [measure(path.parent) for path in sorted(parser.parse_args().folder.rglob("expected.json"))]
    print("\n".join(line for _, line in cases))
    print(f"{'all ' + str(len(cases)):24} largest difference {max(difference for difference, _ in cases):.1e}")


if __name__ == "__main__":
    main()
