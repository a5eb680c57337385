# SPDX-License-Identifier: Apache-2.0
"""Kernels find a place for their cache, and where nothing can be written, a private temporary one."""

from __future__ import annotations

from pathlib import Path

import numba
import pytest

from instance_flow import kernel_cache

READ_ONLY, WRITABLE = False, True


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return monkeypatch


def test_numbas_own_place_is_left_alone_where_it_can_be_written(config: pytest.MonkeyPatch) -> None:
    config.setattr(kernel_cache, "_can_write", lambda _: WRITABLE)
    kernel_cache.prepare()
    assert numba.config.CACHE_DIR == ""


def test_a_choice_of_the_user_stands(config: pytest.MonkeyPatch) -> None:
    config.setattr(numba.config, "CACHE_DIR", "/chosen")
    config.setattr(kernel_cache, "_can_write", lambda _: READ_ONLY)
    kernel_cache.prepare()
    assert numba.config.CACHE_DIR == "/chosen"


def test_a_private_temporary_folder_where_nothing_can_be_written(config: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config.setattr(kernel_cache, "_can_write", lambda _: READ_ONLY)
    kernel_cache.prepare()
    folder = Path(numba.config.CACHE_DIR)
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_not_there_yet_counts_by_its_nearest_parent(tmp_path: Path) -> None:
    assert kernel_cache._can_write(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    assert not kernel_cache._can_write(tmp_path / "file")
