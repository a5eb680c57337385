# SPDX-License-Identifier: Apache-2.0
"""The commands' help is of one style, its examples can be read, and what a shell completes is what the parsers know."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import pytest

from instance_flow.commands.completion import ELSEWHERE, SHELLS, Words, installed_parsers, script, words_of
from instance_flow.declare import declared
from instance_flow.settings import AssemblyConfig

sys.path.insert(0, str(Path(__file__).parent))

from manual import SCRIPTS, check, main_of, parsed


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Of all commands."""
    return installed_parsers(parsed(partial(main_of("instance-flow"), ["info"]))[0])


@cache
def words() -> tuple[Words, ...]:
    return tuple(words_of(parsers()))


def all_parsers() -> Iterator[argparse.ArgumentParser]:
    """And of their commands; that of `instance-flow val` is the training's."""
    waiting = list(parsers().values())
    while waiting:
        parser = waiting.pop()
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += [its for name, its in action.choices.items() if f"{parser.prog} {name}" not in ELSEWHERE]


PARSERS = [pytest.param(parser, id=parser.prog) for parser in all_parsers()]


@pytest.mark.parametrize("parser", PARSERS)
def test_help_says_in_a_line_what_the_command_does(parser: argparse.ArgumentParser) -> None:
    assert re.fullmatch(r"[a-z]+ [^\n`]{20,98}[^.\n]", parser.description or "")


@pytest.mark.parametrize("parser", PARSERS)
def test_examples_of_the_help_are_understood(parser: argparse.ArgumentParser) -> None:
    epilog = parser.epilog or ""
    first, *examples = epilog.splitlines()
    assert first == ("examples:" if len(examples) > 1 else "example:")
    assert 1 <= len(examples) <= 2
    for example in examples:
        assert f"{example} ".startswith(f"  {parser.prog} "), example
        check(example)
    assert epilog in parser.format_help(), "the lines of the examples are joined"


@pytest.mark.parametrize("parser", PARSERS)
def test_arguments_are_in_capitals_and_values_are_explained(parser: argparse.ArgumentParser) -> None:
    """A choice of words needs no name, and neither what is explained by its name alone (GROUND_TRUTH, RESULTS)."""
    actions = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    positional = [action for action in actions if not action.option_strings and action.choices is None]
    assert [one.dest for one in positional if one.metavar is None or str(one.metavar) != str(one.metavar).upper()] == []
    assert [one.option_strings for one in actions if one.option_strings and not one.help] == []


def test_every_command_that_tracks_lists_the_keys_of_set() -> None:
    helps = [action.help or "" for one in all_parsers() for action in one._actions if action.metavar == "KEY=VALUE"]
    assert len(helps) == 4, "run, evaluate-bags, val and validate"
    for key in (spec.name for spec in declared(AssemblyConfig)):
        assert all(key in text for text in helps), key


def test_a_command_is_listed_with_the_words_of_its_own_help() -> None:
    listed = parsers()["instance-flow"].format_help()
    for name, parser in parsers().items():
        if name.startswith("instance-flow "):
            assert (parser.description or "?") in " ".join(listed.split()), name


def test_every_command_is_completed() -> None:
    assert {name.partition(" ")[0] for name in parsers()} == set(SCRIPTS)


def offered(*line: str) -> list[str]:
    """What bash offers for the last word of a command line."""
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    quoted = " ".join(map(shlex.quote, line))
    program = f"{script('bash', words())}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(line) - 1}; _instance_flow; "
    run = subprocess.run(
        ["bash", "-c", program + 'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    return run.stdout.split()


def options_of(*path: str) -> list[str]:
    """Those that the parser of a command knows, by its usage."""
    (one,) = [one for one in words() if one.command == " ".join(path)]
    return [option for names in one.options for option in names if option.startswith("--")]


def test_bash_lists_the_options_of_run() -> None:
    found = offered("instance-flow", "run", "--")
    assert found == options_of("instance-flow", "run")
    assert {"--size", "--imgsz", "--provider", "--serve", "--save"} <= set(found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["instance-flow", "eva"], ["evaluate", "evaluate-bags"]),
        (["/usr/bin/instance-flow", "run", "A.mp4", "--prov"], ["--provider"]),
        (["instance-flow", "run", "A.mp4", "--provider", "cu"], ["cuda"]),
        (["instance-flow", "run", ""], []),  # files
        (["instance-flow", "run", "A.mp4", "--model", ""], []),  # files
        (["instance-flow", "val", "--pag"], ["--page"]),
        (["instance-flow", "run", "val", "--pag"], []),
        (["instance-flow-data", "inspect", "--sh"], ["--sheet"]),
        (["instance-flow-data", "convert", "a", "b", "--pictures", ""], ["copy", "link", "none"]),
        (["instance-flow-train", "--im"], ["--images", "--imgsz"]),
        (["instance-flow", "--completion", ""], list(SHELLS)),
    ],
    ids=" ".join,
)
def test_bash_completes(line: Sequence[str], expected: list[str]) -> None:
    assert offered(*line) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_is_printed_whole(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main_of("instance-flow")(["--completion", shell])
    printed, ended_with = capsys.readouterr().out, ended.value.code
    assert ended_with == 0
    assert printed == script(shell, words())
    assert "@" not in printed.replace("[@]", "")
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=printed, text=True, check=True)


def test_fish_quotes_what_a_help_says() -> None:
    one = Words(
        "x", (), {("-a", "--all"): (r"it's a \ sign", ("b", "c")), ("--out",): ("to", ()), ("--on",): ("", None)}
    )
    assert script("fish", [one]).splitlines() == [
        r"complete -c x -s a -l all -x -a 'b c' -d 'it\'s a \\ sign'",
        "complete -c x -l out -r -d 'to'",
        "complete -c x -l on -d ''",
    ]
