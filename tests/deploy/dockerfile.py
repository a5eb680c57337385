# SPDX-License-Identifier: Apache-2.0
"""Reads a Dockerfile far enough to say what would fail or be unwise, where there is no engine to build it."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_APT = "apt-get install -y --no-install-recommends "


@dataclass
class Stage:
    """From one FROM to the next. name: "" if it has none.   arguments: defaults of its ARGs and values of its ENVs."""

    base: str
    name: str
    arguments: dict[str, str]
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def filled(self, text: str) -> str:
        """Put defaults in place of variables; KeyError for one that nothing gives."""
        return _VARIABLE.sub(lambda match: self.arguments[match[1] or match[2]], text)

    def last(self, keyword: str) -> str:
        """What follows the last such instruction, "" if there is none."""
        return next((text for word, text in reversed(self.instructions) if word == keyword), "")


def parse(text: str) -> list[Stage]:
    """Give the stages of a Dockerfile."""
    stages: list[Stage] = []
    before: dict[str, str] = {}
    for keyword, rest in _instructions(text):
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(_VARIABLE.sub(lambda match: before[match[1] or match[2]], base), name, {}))
            continue
        if keyword == "ARG":
            name, _, value = rest.partition("=")
            (stages[-1].arguments if stages else before)[name] = value.strip('"')
        if keyword == "ENV":
            stages[-1].arguments.update(dict(pair.split("=", 1) for pair in rest.split()))
        if stages:
            stages[-1].instructions.append((keyword, rest))
    return stages


def build_arguments(text: str) -> set[str]:
    """Names that --build-arg may give."""
    return {rest.partition("=")[0] for keyword, rest in _instructions(text) if keyword == "ARG"}


def complaints(text: str, root: Path) -> list[str]:
    """Say what is wrong with a Dockerfile whose context is the folder root; empty = nothing found."""
    stages = parse(text)
    found = [complaint for stage in stages for complaint in _about_stage(stage, stages, root)]
    last = stages[-1]
    user = last.last("USER")
    if not user or last.filled(user).split(":")[0] in ("0", "root"):
        found.append(f"it ends as user {user or 'root'}")
    if not last.last("HEALTHCHECK"):
        found.append("it has no health check")
    home = next((last.filled(rest) for keyword, rest in reversed(last.instructions) if keyword == "COPY"), "").split()
    for keyword in ("HEALTHCHECK", "ENTRYPOINT", "CMD"):
        found += _about_command(keyword, last.last(keyword), home[-1] if home else "", root)
    return found


def ignored(path: str, root: Path) -> bool:
    """Whether .dockerignore keeps a file or folder, named relative to root, out of the context."""
    lines = (root / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = Path(path).parts
    inner = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(
        any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        if pattern.startswith("**/")
        else any(fnmatch.fnmatch(name, pattern) for name in inner)
        for pattern in patterns
    )


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, rest = instruction.strip().partition(" ")
        yield keyword.upper(), " ".join(rest.split())


def _about_stage(stage: Stage, stages: list[Stage], root: Path) -> Iterator[str]:
    names = [other.name for other in stages if other.name]
    image, _, digest = stage.base.partition("@")
    tag = image.rpartition("/")[2].partition(":")[2]
    if image not in names and not digest and tag in ("", "latest"):
        yield f"base {stage.base} is not pinned"
    for keyword, rest in stage.instructions:
        try:
            filled = stage.filled(rest)
        except KeyError as error:
            yield f"{keyword} uses {error.args[0]}, which nothing gives in this stage"
            continue
        if keyword == "RUN":
            yield from _about_run(filled)
        if keyword == "COPY":
            yield from _about_copy(filled, names, root)


def _about_run(command: str) -> Iterator[str]:
    shell = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
    if shell.returncode:
        yield f"the shell cannot read {command!r}: {shell.stderr.strip()}"
    if "apt-get install" not in command:
        return
    before, install, after = command.partition(_APT)
    listed, _, cleaned = after.partition(" && ")
    if not install or before != "apt-get update && " or cleaned != "rm -rf /var/lib/apt/lists/*":
        yield f"{command!r} is not: apt-get update && {_APT}... && rm -rf /var/lib/apt/lists/*"
    packages = listed.split()
    if packages != sorted(set(packages)) or not all(_PACKAGE.fullmatch(package) for package in packages):
        yield f"apt packages {' '.join(packages)}: expected well-formed names, sorted"


def _about_copy(arguments: str, stages: list[str], root: Path) -> Iterator[str]:
    *sources, target = arguments.split()
    if sources[0].startswith("--from="):
        if sources[0].removeprefix("--from=") not in stages:
            yield f"COPY {arguments}: there is no such stage"
        return
    for source in sources:
        if not (root / source).exists() or (source != "." and ignored(source, root)):
            yield f"COPY {source} {target}: {source} is not in the context"


def _about_command(keyword: str, text: str, home: str, root: Path) -> Iterator[str]:
    """What starts in the image must be in exec form, so that signals reach it, and an executable of the context."""
    start = text.find("[")
    if start < 0:
        if text:
            yield f"{keyword} {text} is not in exec form"
        return
    program = json.loads(text[start:])[0]
    file = root / program.removeprefix(f"{home}/")
    if program.startswith("/") and not (file.is_file() and file.stat().st_mode & 0o111):
        yield f"{keyword}: {program} is not an executable file of the context"
