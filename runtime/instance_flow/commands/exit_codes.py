# SPDX-License-Identifier: Apache-2.0
"""How a command ends: its exit code, and one line about what went wrong."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable

from instance_flow.commands.values import SIGNALLED
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.structures import InstanceFlowError

BAD_INPUT = 2
INTERRUPTED, BROKEN_PIPE = SIGNALLED + signal.SIGINT, SIGNALLED + signal.SIGPIPE


def run_to_end(name: str, command: Callable[[], int], reworded: Callable[[str], str] = str) -> int:
    """Run a command; gives its exit code, 2 after one line on stderr for bad input, 130 after Ctrl-C, or 141 where
    the reader of its output is gone.

    name: of the program, for the line.   reworded: what becomes of the line's text.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal has no letters for is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does; what is left must not be complained about at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (InstanceFlowError, ValueError, OSError) as error:
        words = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        sys.stderr.write(f"{name}: error: {shown(reworded(' '.join(words.split())), MESSAGE)}\n")
        return BAD_INPUT
    return code
