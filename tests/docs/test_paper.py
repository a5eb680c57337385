# SPDX-License-Identifier: Apache-2.0
"""docs/paper.md: what it names is in the code, and nothing of the paper is left out."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from instance_flow import AssemblyConfig

sys.path.insert(0, str(Path(__file__).parent))

from manual import ROOT

PAGE = (ROOT / "docs/paper.md").read_text()
PARTS = [
    *(f"Eq. {number}" for number in range(1, 7)),
    *(f"Table {number}" for number in ("I", "II", "III", "IV", "V", "VI", "VII")),
    *(
        "I",
        "II",
        "III-A",
        "III-B",
        "III-B-1",
        "III-B-2",
        "III-B-3",
        "III-C",
        "III-C-1",
        "III-C-2",
        "III-C-3",
        "III-C-4",
    ),
    *("IV", "IV-A", "IV-B", "IV-C", "V"),
]
"""Equations, tables and sections of the paper."""


def names_of(source: str) -> set[str]:
    """Functions, classes and values of a module, and with the class before them methods and fields."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    collect(ast.parse(source).body, "")
    return found


def lost_names(page: str) -> list[str]:
    """Of the links [`name`](file.py) of a page in docs/: those whose file, or name in it, is not there."""
    lost = []
    for name, target in re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", page):
        path = ROOT / "docs" / target
        if not path.is_file() or name not in names_of(path.read_text()):
            lost.append(f"{name} in {target}")
    return lost


def test_every_file_and_function_is_there() -> None:
    assert len(re.findall(r"\[`", PAGE)) > 80
    assert lost_names(PAGE) == []


@pytest.mark.parametrize(
    ("link", "lost"),
    [
        ("[`group_pixels`](../runtime/instance_flow/assembly/grouping.py)", False),
        ("[`Tracker.update`](../runtime/instance_flow/tracking/tracker.py)", False),
        ("[`ModelConfig.fusion`](../training/instance_flow_training/network/model.py)", False),
        ("[`IGNORE`](../training/instance_flow_training/targets.py)", False),
        ("[`group_pixel`](../runtime/instance_flow/assembly/grouping.py)", True),
        ("[`update`](../runtime/instance_flow/tracking/tracker.py)", True),
        ("[`Tracker.group_pixels`](../runtime/instance_flow/tracking/tracker.py)", True),
        ("[`group_pixels`](../runtime/instance_flow/assembly)", True),
        ("[`group_pixels`](../runtime/instance_flow/gruoping.py)", True),
        ("[`find_centers`](../runtime/instance_flow/pipeline.py)", True),
    ],
)
def test_a_name_that_is_not_there_is_found(link: str, lost: bool) -> None:
    assert bool(lost_names(f"| Eq. 4 | {link} |")) is lost


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_paper_has_its_row(part: str) -> None:
    first_cells = re.findall(r"^\| ([^|]+) \|", PAGE, re.MULTILINE)
    assert part in [name for cell in first_cells for name in re.split(r", ", cell)]


def test_every_setting_is_there() -> None:
    """What stands as code and is no link is a setting, or a command or option, which test_commands.py checks."""
    from instance_flow_training.config import TrainConfig

    prose = re.sub(r"```.*?```|\[`[^`]+`\]\([^)]+\)", "", PAGE, flags=re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    settings = [span for span in spans if not span.startswith(("--", "instance-flow "))]
    assert len(settings) > 40
    known = {field.name for field in fields(AssemblyConfig)} | set(keys_of(TrainConfig()))
    assert [span for span in settings if span.partition("=")[0] not in known] == []


def keys_of(config: Any, prefix: str = "") -> list[str]:
    """Of a configuration, those of its tables with a dot."""
    found = []
    for field in fields(config):
        value = getattr(config, field.name)
        found += keys_of(value, f"{field.name}.") if is_dataclass(value) else [prefix + field.name]
    return found
