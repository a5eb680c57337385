# SPDX-License-Identifier: Apache-2.0
"""Output files that appear under their name only when they are whole."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replacing(path: Path, optional: bool = False) -> Iterator[Path]:
    """Yield a temporary path of the same name; the file or folder written there takes the place of ``path`` at the end.

    After an exception, ``path`` is as it was before. Folders that are missing on the way to it are made.
    optional: that nothing was written there means that there is nothing to write.
    Raises OSError where nothing was written, unless it is optional; for a file where there is a folder, and the other
    way round.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder, since a temporary file would keep its private permissions under the new name.
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        yield whole
        if not whole.exists():
            if optional:
                return
            raise FileNotFoundError(f"{path} was not written: its temporary file {whole} is gone")
        if path.is_dir() and whole.is_dir():  # It can only be moved aside, to go with the temporary folder.
            path.replace(Path(folder) / "old")
        whole.replace(path)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed in ``replacing`` left behind. No other process may be writing the file."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}-*"):
        shutil.rmtree(folder, ignore_errors=True)
