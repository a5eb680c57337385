# SPDX-License-Identifier: Apache-2.0
"""Train, log, validate and save checkpoints; started again, the command resumes from the last checkpoint.

On several GPUs: ``torchrun --nproc-per-node 8 -m instance_flow_training.train CONFIG``, on several machines with
torchrun's own options for them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="instance-flow-train", description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path, help="TOML file of differences from the paper's settings")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for checkpoint and logs (default runs/NAME)")
    parser.add_argument(
        "--dry-run", action="store_true", help="open the data, take two steps, say what they need, write nothing"
    )
    options = parser.parse_args(arguments)

    # torch takes seconds to load, and neither --help nor a mistyped option needs it.
    from instance_flow.formats.foreign_text import MESSAGE, OneLine, shown
    from instance_flow.structures import InstanceFlowError
    from instance_flow_training.config import ConfigError, load_config
    from instance_flow_training.loop.dry_run import dry_run
    from instance_flow_training.loop.training import Stopped, is_first_process, report_of, train

    logger, handler = logging.getLogger("instance_flow_training"), logging.StreamHandler()
    handler.setFormatter(OneLine())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if is_first_process() else logging.WARNING)
    try:
        config = load_config(options.config, options.overrides)
        out = options.out or Path("runs") / config.name
        report = dry_run(config) if options.dry_run else report_of(train(config, out))
    except (ConfigError, InstanceFlowError) as error:
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


if __name__ == "__main__":
    sys.exit(main())
