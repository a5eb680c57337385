# SPDX-License-Identifier: Apache-2.0
"""A place for compiled kernels where neither the package nor the home can be written, as in a hardened service."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import numba

_VARIABLE = "NUMBA_CACHE_DIR"


def prepare() -> None:
    """Point numba to a folder for temporary files if it has no place of its own; otherwise it refuses to import."""
    if os.environ.get(_VARIABLE):
        return
    package = Path(__file__).parent  # where numba would put those of this folder
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    if not any(_can_write(place) for place in (package / "__pycache__", home / "numba")):
        folder = Path(tempfile.gettempdir()) / f"instance-flow-kernels-{os.getuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        os.environ[_VARIABLE] = (
            str(folder) if _is_private(folder) else tempfile.mkdtemp(prefix="instance-flow-kernels-")
        )
        numba.config.reload_config()


def _is_private(folder: Path) -> bool:
    """Whether it is a folder that only this user can read and write, and no link to one.

    Compiled kernels are code: none may come from files that another user has put there, or may put there later.
    """
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077


def _can_write(folder: Path) -> bool:
    """Whether files can be made in a folder that is there or can be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
