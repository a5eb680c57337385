# SPDX-License-Identifier: Apache-2.0
"""The manual's code blocks and command lines, and whether what a command line is for would take it."""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from instance_flow.commands.values import parse_settings
from instance_flow_training.comparing.cli import parse as parse_validation

ROOT = Path(__file__).parents[2]
NAMES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/tasks/*.md", "docs/examples/*.md", "models/*.md")
PAGES = [path for name in NAMES for path in sorted(ROOT.glob(name))]
PROJECT = (ROOT / "pyproject.toml").read_text()
PROJECTS = "".join((ROOT / name / "pyproject.toml").read_text() for name in (".", "training", "export"))
SCRIPTS: dict[str, tuple[str, str]] = {
    name: (module, function)
    for name, module, function in re.findall(r'^(instance-flow[\w-]*) = "([\w.]+):(\w+)"$', PROJECTS, re.MULTILINE)
}
SHELL = ("bash", "sh", "shell", "console")
LANGUAGES = ("bash", "python", "text")
"""Of the fences of our pages; text is what a command prints, or a drawing."""

# What is neither run nor parsed, by how it begins, and why.
LEFT_OUT = {
    "docker ": "needs Docker",
    "ros2 bag ": "needs a ROS installation",
    "ros2 run ": "needs a ROS installation",
    "ros2 security ": "needs a ROS installation",
    "python ros2_ws/install/": "needs ROS; tests/ros starts it",
    "instance_flow_healthcheck": "needs ROS; tests/ros starts it",
    "COMMAND": "stands for any command",
    "ffmpeg ": "is FFmpeg's own; test_tasks.py runs it where it is installed",
    "mkdir ": "is the shell's",
    "dask ": "is dask's own; tests/runtime/test_evaluate_bags.py starts both",
    "sudo ": "changes the machine",
    "export ": "sets the shell",
    "source ": "sets the shell",
    ". ": "sets the shell",
}
STANDS_FOR = {"P": "cpu", "WxH": "640x384", "N": "4", "RATE": "8"}


@dataclass(frozen=True)
class Block:
    """Lines of code of a page. kind: indented, the language of a fence, or inline.   number: of its first line."""

    page: str
    number: int
    kind: str
    lines: tuple[str, ...]


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """The code of a page: fenced, indented after an empty line or a heading, and between backticks in the text."""
    prose: list[str] = []
    code: list[str] = []
    fence, begun, before = None, 0, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        opening = re.match(r"\s*(?:```|~~~)\s*(\w*)", line)
        indented = fence is None and line.startswith("    ") and (code or not before.strip() or before.startswith("#"))
        if opening is None and (fence is not None or indented):
            begun = begun or number
            code.append(line.strip())
        elif code:
            yield Block(page, begun, "indented" if fence is None else fence, tuple(code))
            code, begun = [], 0
        if opening is not None:
            fence = opening[1] if fence is None else None
        prose.append("" if opening or fence is not None or indented else line)
        before = line
    whole = "\n".join(prose)
    for span in re.finditer(r"(?<!`)`([^`]+)`(?!`)", whole):
        yield Block(page, whole.count("\n", 0, span.start()) + 1, "inline", (" ".join(span[1].split()),))


def commands_of(block: Block) -> Iterator[str]:
    """One by one, without comments, lines joined that a backslash continues, variables of the block filled in."""
    if block.kind == "inline":
        (text,) = block.lines
        if re.match(r"(\.venv/bin/)?instance-flow(-\w+)? |python bench/|deploy/\w+.sh |pip install |make ", text):
            yield text
        return
    if block.kind == "python":
        return
    variables: dict[str, str] = {}
    for line in "\n".join(block.lines).replace("\\\n", "").splitlines():
        if block.kind not in (*SHELL, "indented") and not re.match(r"(\.venv/bin/)?instance-flow(-\w+)? ", line):
            continue
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        if set_here := re.fullmatch(r"([A-Z]+)=(\S+)", line):
            variables[set_here[1]] = set_here[2]
        elif words := shlex.split(line.removeprefix("$ "), comments=True):
            yield from (part.strip() for part in " ".join(map(shlex.quote, words)).split("'&&'"))


BLOCKS = [block for path in PAGES for block in blocks_of(str(path.relative_to(ROOT)), path.read_text())]
COMMANDS = [(f"{block.page}:{block.number}", text) for block in BLOCKS for text in commands_of(block)]


class _Parsed(Exception):
    """The command line could be read; nothing has been done yet."""


def parsed(run: Callable[[], object]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The parser that a command makes, and what it reads. Raises ValueError for what it refuses."""
    found = []
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *arguments: Any) -> None:
        found.append((self, original(self, *arguments)))
        raise _Parsed

    with refusals(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        with pytest.raises(_Parsed):
            run()
    return found[0]


@contextmanager
def refusals() -> Iterator[None]:
    """Parsers raise ValueError in place of ending the process."""

    def error(self: argparse.ArgumentParser, message: str) -> None:
        raise ValueError(f"{self.prog}: {message}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "error", error)
        yield


def main_of(name: str) -> Callable[[Sequence[str]], object]:
    """What the command runs, called as a shell does: the arguments are those of the process."""
    if name not in SCRIPTS:
        raise ValueError(f"there is no command {name}; pyproject.toml has {', '.join(SCRIPTS)}")
    module, function = SCRIPTS[name]
    entry: Callable[[], object] = getattr(importlib.import_module(module), function)

    def main(arguments: Sequence[str]) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [name, *arguments])
            return entry()

    return main


def check_ours(main: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> None:
    """A command of this project: options, the keys of --set, and the files of the checkout that it names."""
    filled = [STANDS_FOR.get(word.strip("[]"), word.strip("[]")) for word in arguments]
    _, options = parsed(partial(main, filled))
    if hasattr(options, "overrides"):
        from instance_flow_training.config import TrainConfig, apply, load_config, parse_override

        if options.config is None:  # --data has none
            for text in options.overrides:
                apply(TrainConfig(), parse_override(text))
        else:
            load_config(ROOT / options.config, options.overrides)
    elif hasattr(options, "set"):
        parse_settings(options.set)
    if hasattr(options, "oracle"):
        with refusals():  # of options that do not go together
            parse_validation(filled)
    for value in vars(options).values():
        if isinstance(value, Path) and value.parts[0] in ("models", "training", "bench"):
            assert (ROOT / value).is_file(), value


def check_bench(script: str, arguments: Sequence[str]) -> None:
    if script.startswith("bench/ros_"):
        pytest.importorskip("instance_flow_msgs", reason="needs ROS")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        patch.syspath_prepend(str(ROOT / "bench"))
        parsed(partial(runpy.run_path, str(ROOT / script), run_name="__main__"))


def check_example(script: str, arguments: Sequence[str]) -> None:
    if "import supervision" in (ROOT / script).read_text():
        pytest.importorskip("supervision", reason="needs the extra compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        parsed(partial(runpy.run_path, str(ROOT / script), run_name="__main__"))


def check_make(arguments: Sequence[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in arguments if "=" not in word} <= set(targets)


def check_pip(arguments: Sequence[str]) -> None:
    """The extras that are asked for, and the folders."""
    for word in arguments:
        if word.startswith("./"):
            assert (ROOT / word / "pyproject.toml").is_file(), word
    known = PROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    for extras in re.findall(r"\[(.*?)\]", " ".join(arguments)):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = ", known, re.MULTILINE), extra


def check_provider(arguments: Sequence[str]) -> None:
    assert f"\n  {arguments[1]}) " in (ROOT / "deploy/provider.sh").read_text()


def check_node(arguments: Sequence[str]) -> None:
    """The parameters that are set; the rest is ROS's own, which tests/ros starts."""
    config = yaml.safe_load((ROOT / "ros2_ws/src/instance_flow_ros/config/instance_flow.yaml").read_text())
    for word in arguments[1:]:
        if arguments[arguments.index(word) - 1] == "-p":
            assert word.partition(":=")[0] in config["/**"]["ros__parameters"]


def check_launch(arguments: Sequence[str]) -> None:
    """The launch file and the names of its arguments, which stand in it and in launching.py."""
    package, file, *given = arguments
    folder = ROOT / "ros2_ws/src" / package
    source = (folder / "launch" / file).read_text() + (folder / package / "launching.py").read_text()
    assert {word.partition(":=")[0] for word in given} <= set(re.findall(r'\("(\w+)", ', source))


def check_torchrun(arguments: Sequence[str]) -> None:
    start = arguments.index("-m")
    check_ours(importlib.import_module(arguments[start + 1]).main, arguments[start + 2 :])


CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "make": check_make,
    "pip": check_pip,
    "deploy/provider.sh": check_provider,
    "instance_flow_node": check_node,
    "torchrun": check_torchrun,
}


def check(text: str) -> None:
    """Read a command as what it is for would. Raises ValueError or AssertionError for one that would be refused."""
    words = shlex.split(text)
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if words[0] == "deploy/run.sh":
        words.pop(0)
    name, arguments = words[0].removeprefix(".venv/bin/").rpartition("instance_flow_ros/")[2], words[1:]
    if any(shlex.join(words).startswith(beginning) for beginning in LEFT_OUT):
        return
    if name.startswith("instance-flow"):
        check_ours(main_of(name), arguments)
    elif name == "python" and arguments[0].startswith("bench/"):
        check_bench(arguments[0], arguments[1:])
    elif name == "python" and arguments[0].startswith("docs/examples/"):
        check_example(arguments[0], arguments[1:])
    elif words[:2] == ["ros2", "launch"]:
        check_launch(words[2:])
    elif name in CHECKS:
        CHECKS[name](arguments)
    else:
        raise ValueError(f"{text}: this command is unknown here; add it to CHECKS or LEFT_OUT, or fence it as text")
