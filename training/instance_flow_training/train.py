# SPDX-License-Identifier: Apache-2.0
"""Train, log, validate and save checkpoints; started again, the command resumes from the last checkpoint.

On several GPUs: ``torchrun --nproc-per-node 8 -m instance_flow_training.train CONFIG``, on several machines with
torchrun's own options for them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from instance_flow.commands.values import add_overrides, add_rename, described

if TYPE_CHECKING:
    from instance_flow_training.own_labels import OwnLabels


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    does = "train a model on your labels or by a configuration; run again, it resumes from the last checkpoint"
    examples = (
        "instance-flow-train --data labels.zip --time 20m",
        "instance-flow-train training/configs/worlds.toml --dry-run",
    )
    parser = argparse.ArgumentParser(prog="instance-flow-train", **described(does, *examples))
    parser.add_argument(
        "config", type=Path, nargs="?", metavar="CONFIG", help="TOML file of differences from the paper's settings"
    )
    own = parser.add_argument_group("on labels of your own, without a configuration")
    own.add_argument(
        "--data", type=Path, nargs="+", metavar="SOURCE", help="labels in any form: a folder, zip file or label file"
    )
    own.add_argument("--val", type=Path, metavar="SOURCE", help="labels to validate on (default: a fifth of --data)")
    own.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures, if not beside the labels")
    add_rename(own)
    own.add_argument(
        "--from",
        dest="start",
        default="everyday",
        metavar="WEIGHTS",
        help="everyday (default): the bundled weights; or the folder of a run, a checkpoint.pt or .safetensors file",
    )
    own.add_argument("--time", default="20m", metavar="20m", help="how long to train (default 20m)")
    own.add_argument("--size", "--imgsz", default="640x384", metavar="WIDTHxHEIGHT", help="of the model's input")
    add_overrides(parser, "a setting in place of the configuration's, such as loss.distil=0")
    parser.add_argument(
        "--help-settings", action="store_true", help="print every setting of CONFIG and --set: default, range, meaning"
    )
    parser.add_argument("--out", type=Path, help="folder for checkpoint and logs (default runs/NAME)")
    parser.add_argument(
        "--dry-run", action="store_true", help="open the data, take two steps, say what they need, write nothing"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if not options.help_settings and (options.config is None) == (options.data is None):
        parser.error("give a configuration, or --data with your labels")
    if options.config and options.rename:
        parser.error("--rename goes with --data; write [data.rename] in the configuration")

    # torch takes seconds to load, and neither --help nor a mistyped option needs it.
    from instance_flow.formats.foreign_text import MESSAGE, OneLine, shown
    from instance_flow.structures import InstanceFlowError
    from instance_flow_training.config import ConfigError, describe_settings, load_config
    from instance_flow_training.loop.distributed import from_first_process
    from instance_flow_training.loop.dry_run import dry_run
    from instance_flow_training.loop.training import Stopped, is_first_process, report_of, train
    from instance_flow_training.own_labels import finish, prepared

    if options.help_settings:
        print(describe_settings())
        return 0
    logger, handler = logging.getLogger("instance_flow_training"), logging.StreamHandler()
    handler.setFormatter(OneLine())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if is_first_process() else logging.WARNING)
    try:
        wanted = own_labels(options) if options.data else None
        with (
            prepared(wanted, options.overrides, options.dry_run, from_first_process)
            if wanted
            else nullcontext(load_config(options.config, options.overrides))
        ) as config:
            out = wanted.out if wanted else options.out or Path("runs") / config.name
            report = dry_run(config) if options.dry_run else report_of(train(config, out))
            if wanted and not options.dry_run and is_first_process():
                report = finish(out, wanted.size)
    except (ConfigError, InstanceFlowError, ValueError) as error:
        # A data loader's worker puts its traceback before the sentence.
        sentence = str(error).strip().splitlines()[-1]
        kind = f"{type(error).__module__}.{type(error).__name__}: "
        print(f"instance-flow-train: error: {shown(sentence.removeprefix(kind), MESSAGE)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\ninterrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    finally:
        logger.removeHandler(handler)
    if report:
        print(report)
    return 0


def own_labels(options: argparse.Namespace) -> OwnLabels:
    """What ``--data`` and its companions say. Raises ValueError for a time or size that is none."""
    from instance_flow.commands.values import image_size
    from instance_flow_training.own_labels import OwnLabels, minutes_of

    out = options.out or Path("runs") / options.data[0].stem
    try:
        size = image_size(options.size)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--size: {error}") from error
    return OwnLabels(
        *(tuple(options.data), options.val, options.images, options.start, minutes_of(options.time), size, out),
        rename=dict(options.rename),
    )


if __name__ == "__main__":
    sys.exit(main())
