# SPDX-License-Identifier: Apache-2.0
"""Files and folders that take the place of others whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from instance_flow.formats.atomic import replacing


def make(path: Path, kind: str, content: str) -> None:
    if kind == "folder":
        path.mkdir()
        (path / "part").write_text(content)
    elif kind == "file":
        path.write_text(content)


def content_of(path: Path) -> str:
    return (path / "part" if path.is_dir() else path).read_text()


@pytest.mark.parametrize(
    ("old", "new"), [("nothing", "file"), ("nothing", "folder"), ("file", "file"), ("folder", "folder")]
)
def test_what_is_whole_takes_the_place_of_its_like(tmp_path: Path, old: str, new: str) -> None:
    make(tmp_path / "it", old, "old")
    with replacing(tmp_path / "it") as whole:
        make(whole, new, "new")
    assert content_of(tmp_path / "it") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["it"], "nothing else is left behind"


@pytest.mark.parametrize(("old", "new"), [("file", "folder"), ("folder", "file")])
def test_a_file_is_no_folder(tmp_path: Path, old: str, new: str) -> None:
    """A folder that someone names by mistake may hold anything."""
    make(tmp_path / "it", old, "old")
    with pytest.raises(OSError, match="directory"), replacing(tmp_path / "it") as whole:
        make(whole, new, "new")
    assert content_of(tmp_path / "it") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def write_half(path: Path) -> None:
    with replacing(path) as whole:
        make(whole, "file", "new")
        raise ValueError("half way")


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    make(tmp_path / "it", "file", "old")
    with pytest.raises(ValueError, match="half way"):
        write_half(tmp_path / "it")
    assert content_of(tmp_path / "it") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
