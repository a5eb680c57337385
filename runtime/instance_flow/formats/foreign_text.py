# SPDX-License-Identifier: Apache-2.0
"""Text that others wrote, as encodings, topics, class names and file names, made fit for logs and terminals."""

from __future__ import annotations

import logging

NAME = 100
"""Most characters of a name or a value in a message."""
MESSAGE = 2000
"""Most characters of a whole message: whatever gets into it, it stays one line of a log."""


def shown(text: object, most: int = NAME) -> str:
    """One line of at most ``most`` printable characters: others, as line ends and control characters, become backslash
    escapes, and what is too long is cut and its length stated. Shown again, it stays the same.

    Foreign text is shown where it enters a message, and each message once more, with ``MESSAGE``, where it leaves for a
    log, a topic or the terminal, so that none is forgotten.
    """
    text = str(text)
    # The cut comes first: the cost must not depend on how much was sent.
    line = text[: most + 1]
    if not line.isprintable():
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    if len(line) <= most:
        return line
    note = f"... ({len(text)} characters)"
    return line[: most - len(note)] + note


class OneLine(logging.Formatter):
    """For handlers of logs: every message is one line of printable characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        return shown(super().format(record), MESSAGE)
