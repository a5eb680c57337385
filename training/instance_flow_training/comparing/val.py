# SPDX-License-Identifier: Apache-2.0
"""``instance-flow val``: a model on labels in any form: AP by class and size, tracking, confusions, worst pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from instance_flow.commands.values import add_set, described, image_size, parse_settings, whole
from instance_flow.formats.atomic import replacing
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.json_files import write_json
from instance_flow.pipeline import Pipeline
from instance_flow.structures import InstanceFlowError, ModelError
from instance_flow_training.comparing.judgement import judge
from instance_flow_training.data.label_sources import open_truth

MODEL = "model.onnx"
"""Of a training run's folder."""


def find_model(path: Path) -> Path:
    """A model file, or that of a training run's folder. Raises ModelError for a folder without one."""
    if path.is_dir() and not (path / MODEL).is_file():
        raise ModelError(f"{path}: holds no {MODEL}; write one with instance-flow-export {path}")
    return path / MODEL if path.is_dir() else path


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    does = "measure a model on labels in any form"
    examples = "instance-flow val model.onnx labels.zip --page val.html", "instance-flow val runs/mine data"
    parser = argparse.ArgumentParser(prog="instance-flow val", **described(does, *examples))
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="an exported .onnx model, or the folder of a training run"
    )
    parser.add_argument(
        "data",
        type=Path,
        metavar="SOURCE",
        help="labels of stills or videos: a folder, zip file or label file of any form",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures, if not beside the labels")
    parser.add_argument("--size", "--imgsz", type=image_size, metavar="WIDTHxHEIGHT", help="of the network's input")
    parser.add_argument("--limit", type=whole, default=0, metavar="N", help="only the first N videos or pictures")
    add_set(parser)
    parser.add_argument("--page", type=Path, metavar="HTML", help="also write a page with pictures of the worst frames")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        pipeline = Pipeline.load(find_model(options.model), "auto", parse_settings(options.set), size=options.size)
        found = open_truth(options.data, options.images)
        judgement = judge(pipeline, found, options.limit)
        if options.page:
            about = {"model": str(options.model), "labels": found.truth.source, "read as": found.form}
            page = judgement.page(f"{options.model.name} on {found.truth.source}", about)
            with replacing(options.page) as path:
                path.write_text(page, encoding="utf-8")
    except (InstanceFlowError, ValueError, OSError) as error:
        print(f"instance-flow val: error: {shown(error, MESSAGE)}", file=sys.stderr)
        return 2
    print(judgement.text())
    if options.json:
        write_json(options.json, judgement.numbers, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
