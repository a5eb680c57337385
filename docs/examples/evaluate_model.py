# SPDX-License-Identifier: Apache-2.0
"""Track the videos of a labelled set and measure it: AP, HOTA, IDF1, id switches.

python docs/examples/evaluate_model.py instances.json JPEGImages

LABELS is in YouTube-VIS's form, which `instance-flow-data convert` writes of any other; IMAGES holds its pictures.
`instance-flow val` does the same with a page of pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from instance_flow import Pipeline
from instance_flow.evaluation.evaluate import evaluate_data
from instance_flow.evaluation.table import format_table
from instance_flow.formats.ytvis import ResultsCollector, load_ground_truth


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("labels", type=Path, metavar="LABELS")
    parser.add_argument("images", type=Path, metavar="IMAGES")
    parser.add_argument("--model", type=Path, help="the bundled one unless given")
    options = parser.parse_args()

    pipeline = Pipeline.load(options.model)
    truth = load_ground_truth(options.labels)
    categories = {category.name: category.id for category in truth.categories}
    both = {k: name for k, name in enumerate(pipeline.info.class_names) if name in categories}
    if not both:
        raise SystemExit(f"{options.labels}: has none of the model's classes, {', '.join(pipeline.info.class_names)}")
    results = []
    for video in truth.videos:
        pipeline.reset()  # ids begin again
        collector = ResultsCollector(video.length, {k: categories[name] for k, name in both.items()})
        for name in video.file_names:
            picture = cv2.imread(str(options.images / name))
            if picture is None:
                raise SystemExit(f"{options.images / name}: cannot be read as a picture; {options.labels} names it")
            tracks = pipeline.step(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            collector.add(tracks.filter(classes=list(both)))
        results += collector.results(video.id)
    print(format_table(evaluate_data(truth, results)))


if __name__ == "__main__":
    main()
