# SPDX-License-Identifier: Apache-2.0
"""Kernels find a place for their cache, and where nothing can be written, a private temporary one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest

from instance_flow import kernel_cache

READ_ONLY, WRITABLE = False, True


@pytest.fixture
def no_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Nobody has chosen a folder, and files for the moment go to tmp_path."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield monkeypatch
    monkeypatch.undo()
    numba.config.reload_config()


def test_numbas_own_place_is_left_alone_where_it_can_be_written(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setattr(kernel_cache, "_can_write", lambda _: WRITABLE)
    kernel_cache.prepare()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_choice_of_the_user_stands(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setenv("NUMBA_CACHE_DIR", "/chosen")
    no_choice.setattr(kernel_cache, "_can_write", lambda _: READ_ONLY)
    kernel_cache.prepare()
    assert os.environ["NUMBA_CACHE_DIR"] == "/chosen"


def test_a_private_temporary_folder_where_nothing_can_be_written(no_choice: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_choice.setenv("NUMBA_CACHE_DIR", "")
    no_choice.setattr(kernel_cache, "_can_write", lambda _: READ_ONLY)
    kernel_cache.prepare()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_not_there_yet_counts_by_its_nearest_parent(tmp_path: Path) -> None:
    assert kernel_cache._can_write(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    assert not kernel_cache._can_write(tmp_path / "file")
