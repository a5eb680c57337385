# SPDX-License-Identifier: Apache-2.0
"""Output files that appear under their name only when they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same name; what is written there takes the place of ``path`` at the end.

    After an exception, ``path`` is as it was before. Folders that are missing on the way to it are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder, since a temporary file would keep its private permissions under the new name.
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        yield whole
        if whole.exists():
            whole.replace(path)
