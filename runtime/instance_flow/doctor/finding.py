# SPDX-License-Identifier: Apache-2.0
"""What `instance-flow doctor` says: one finding for each thing that it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instance_flow.formats.foreign_text import MESSAGE, shown

OK, WARNING, PROBLEM = "ok", "warning", "problem"

_WORST_FIRST = (PROBLEM, WARNING, OK)


@dataclass(frozen=True)
class Finding:
    """status: OK, WARNING (works, but not as well as it could) or PROBLEM (must be fixed).

    check: what was looked at.   found: what is there.   advice: what to do, one sentence; empty where nothing is. Each
        is one line, whatever name of a node, topic or file stands in it.
    """

    status: str
    check: str
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        for name in ("check", "found", "advice"):
            object.__setattr__(self, name, shown(getattr(self, name), MESSAGE))


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Sort by status; within a status the order stays."""
    return sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.status))


def format_findings(findings: Sequence[Finding]) -> str:
    """Put findings in a table, worst first, with the advice below what was found."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in worst_first(findings):
        lines.append(f"{finding.status:<7}  {finding.check:<{width}}  {finding.found}")
        if finding.advice:
            lines.append(f"{'':<7}  {'':<{width}}  -> {finding.advice}")
    return "\n".join(lines)
