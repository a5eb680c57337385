# SPDX-License-Identifier: Apache-2.0
"""What the measurements of the live node share: the helpers of its tests, a ROS domain of its own, and a table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / "ros"), str(REPOSITORY / "ros2_ws" / "demo")]

if TYPE_CHECKING:
    from probe import Probe

Row = Mapping[str, str | float]


@contextmanager
def bench_domain() -> Iterator[Path]:
    """A ROS domain of our own, and a new folder that it gives."""
    from own_domain import own_domain

    with tempfile.TemporaryDirectory() as folder, own_domain(Path(folder)):
        yield Path(folder)


@contextmanager
def probed_node(folder: Path, **parameters: Any) -> Iterator[Probe]:
    """A real node in a process of its own, just started, and what talks to it."""
    from node_process import NodeProcess
    from probe import Probe

    probe = Probe(NodeProcess(folder / "node.log", parameters, {"__ns": "/bench"}), "/bench")
    try:
        yield probe
    finally:
        probe.close()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Give a parser that knows --json."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print the rows as JSON")
    return made


def add_settings(options: argparse.ArgumentParser) -> None:
    """Have the parser take parameters of the node; see ``settings``."""
    options.add_argument("--model", default="", help="model file (default: the bundled one)")
    options.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the node, such as threads=1"
    )


def settings(chosen: argparse.Namespace) -> dict[str, str]:
    """The parameters that were chosen, as ``probed_node`` takes them."""
    given = dict(setting.split("=", 1) for setting in chosen.set)
    return {**({"model": chosen.model} if chosen.model else {}), **given}


def resident_mib(pid: int) -> float:
    """MiB of a process that are in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def show(rows: Sequence[Row], as_json: bool) -> None:
    """Print rows of the same columns as a table or as JSON."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    texts = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _text(value: str | float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
