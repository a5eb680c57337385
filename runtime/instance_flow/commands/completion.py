# SPDX-License-Identifier: Apache-2.0
"""``instance-flow --completion SHELL``: a script that completes all commands, made of their parsers.

It is written once and holds every word, since a command that answered at each press of Tab, as argcomplete's do, would
take a second for it.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

ELSEWHERE = {
    "instance-flow val": "instance_flow_training.comparing.val",
    "instance-flow-train": "instance_flow_training.train",
    "instance-flow-data": "instance_flow_training.data.cli",
    "instance-flow-world": "instance_flow_training.worlds.cli",
    "instance-flow-validate": "instance_flow_training.comparing.cli",
    "instance-flow-ablate": "instance_flow_training.ablating.ablations",
    "instance-flow-export": "instance_flow_export.export",
    "instance-flow-quantise": "instance_flow_export.quantise",
}
"""Commands of the packages that stand above this one, and the modules whose ``make_parser`` is theirs."""


@dataclass(frozen=True)
class Words:
    """What may follow a command line that begins with ``command``.

    commands: its commands.   options: each with its help, and the values it may have: () = any, None = it takes none.
    """

    command: str
    commands: tuple[str, ...]
    options: Mapping[tuple[str, ...], tuple[str, tuple[str, ...] | None]]


def installed_parsers(own: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of all commands by their names; those of an extra that is not installed are left out."""
    parsers = {"instance-flow": own}
    for name, module in ELSEWHERE.items():
        try:
            parsers[name] = importlib.import_module(module).make_parser()
        except ModuleNotFoundError:  # noqa: PERF203
            continue
    return parsers


def words_of(parsers: Mapping[str, argparse.ArgumentParser]) -> list[Words]:
    """Of the parsers and of those of their commands."""
    return [words for name, parser in parsers.items() for words in _words(name, parser, parsers)]


def script(shell: str, words: Sequence[Words]) -> str:
    """What the shell has to read, for a shell out of ``SHELLS``."""
    return SHELLS[shell](words)


def _words(
    command: str, parser: argparse.ArgumentParser, others: Mapping[str, argparse.ArgumentParser]
) -> Iterator[Words]:
    options, commands = {}, {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = action.choices
        elif action.option_strings and action.help != argparse.SUPPRESS:
            values = None if action.nargs == 0 else tuple(map(str, action.choices or ()))
            options[tuple(action.option_strings)] = (_help(parser, action), values)
    yield Words(command, tuple(commands), options)
    for name, its in commands.items():
        if f"{command} {name}" not in others:
            yield from _words(f"{command} {name}", its, others)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


_BASH = """_instance_flow() {
    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
    local command="${COMP_WORDS[0]##*/}" offered= word
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$command $word" in
@NESTED
        esac
    done
    case "$command $before" in
@VALUES
    *) case "$current" in
    -*) case "$command" in
@OPTIONS
        esac ;;
    *) case "$command" in
@COMMANDS
        esac ;;
    esac ;;
    esac
    COMPREPLY=($(compgen -W "$offered" -- "$current"))
}
complete -o default -F _instance_flow @NAMES
"""


def _bash(words: Sequence[Words]) -> str:
    """Where nothing is offered, bash names files."""
    filled: dict[str, list[str]] = {"NESTED": [], "VALUES": [], "OPTIONS": [], "COMMANDS": []}
    for one in words:
        filled["OPTIONS"].append(_case(one.command, [option for names in one.options for option in names]))
        if one.commands:
            filled["COMMANDS"].append(_case(one.command, one.commands))
        for name in one.commands:
            nested = quote(f"{one.command} {name}")
            filled["NESTED"].append(f"        {nested}) command={nested} ;;")
        for names, (_, values) in one.options.items():
            filled["VALUES"] += [_case(f"{one.command} {option}", values) for option in names if values]
    text = _BASH.replace("@NAMES", " ".join(dict.fromkeys(one.command.partition(" ")[0] for one in words)))
    for place, lines in filled.items():
        text = text.replace(f"@{place}", "\n".join(lines))
    return text


def _case(where: str, offered: Sequence[str]) -> str:
    return f"        {quote(where)}) offered={quote(' '.join(offered))} ;;"


def _zsh(words: Sequence[Words]) -> str:
    """Zsh's own form of bash's completion, which it comes with."""
    return "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit\n" + _bash(words)


def _fish(words: Sequence[Words]) -> str:
    lines = []
    for one in words:
        name, _, nested = one.command.partition(" ")
        when = f"__fish_seen_subcommand_from {nested}" if nested else ""
        if one.commands:
            when = f"not __fish_seen_subcommand_from {' '.join(one.commands)}"
            lines.append(f"complete -c {name} -n {_single(when)} -f -a {_single(' '.join(one.commands))}")
        condition = f" -n {_single(when)}" if when else ""
        for names, (text, values) in one.options.items():
            flags = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in names)
            takes = "" if values is None else f" -x -a {_single(' '.join(values))}" if values else " -r"
            lines.append(f"complete -c {name}{condition} {flags}{takes} -d {_single(text)}")
    return "\n".join(lines) + "\n"


def _single(text: str) -> str:
    """In fish's single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: dict[str, Callable[[Sequence[Words]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
