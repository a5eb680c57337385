# SPDX-License-Identifier: Apache-2.0
"""Big JSON files of masks: read in little memory with errors that name the file, written whole or not at all."""

from __future__ import annotations

import gc
import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from instance_flow.formats.atomic import replacing
from instance_flow.formats.foreign_text import shown
from instance_flow.structures import SourceError


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause Python's search for reference cycles: a big file makes millions of objects, and no cycle."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_json(path: str | Path) -> Any:
    """Give what a JSON file holds, lists under the key "counts" as arrays where they are whole numbers from 0 up.

    Raises SourceError, naming the file, where it cannot be read or is not JSON.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        return json.loads(text, object_hook=_pack_counts)
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; give a JSON file") from None
    except json.JSONDecodeError as error:
        found = f"is not JSON, or cut short ({error})" if text.strip() else "is empty"
        raise SourceError(f"{path}: {found}; write the file again") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: is not JSON ({shown(error)}); write the file again") from None


def write_json(path: str | Path, data: Any, indent: int | None = None) -> None:
    """Write a JSON file; it appears whole or not at all. Raises ValueError for a number that is not finite.

    indent: spaces per level, for people; None = as small as can be.
    """
    with replacing(Path(path)) as whole, whole.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=indent, separators=(",", ":") if indent is None else None, allow_nan=False)


def _pack_counts(entry: dict[str, Any]) -> dict[str, Any]:
    """Keep run lengths in 4 bytes each: in a list of Python's numbers one takes up to 40."""
    counts = entry.get("counts")
    if type(counts) is list:
        # Anything else than whole numbers from 0 up stays as it is, for the check that says what is wrong.
        with suppress(TypeError, OverflowError):
            entry["counts"] = array("I", counts)
    return entry
