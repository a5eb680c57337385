# SPDX-License-Identifier: Apache-2.0
"""Kernels find a place for their cache, and where nothing can be written, a private temporary one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import pytest

from instance_flow.kernels import cache as kernel_cache

READ_ONLY, WRITABLE = False, True


@pytest.fixture
def no_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """No folder is set, and temporary files go to tmp_path."""
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


def make_link(usual: Path, elsewhere: Path) -> None:
    elsewhere.mkdir(mode=0o700)
    usual.symlink_to(elsewhere)


def make_foreign(usual: Path, _: Path) -> None:
    usual.mkdir(mode=0o700)
    os.chown(usual, 12345, -1)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(make_link, id="link to a folder"),
        pytest.param(lambda usual, elsewhere: usual.symlink_to(elsewhere), id="link to nothing"),
        pytest.param(lambda usual, _: usual.touch(), id="file"),
        pytest.param(lambda usual, _: (usual.mkdir(), usual.chmod(0o777)), id="others may write"),
        pytest.param(lambda usual, _: (usual.mkdir(), usual.chmod(0o750)), id="others may look"),
        pytest.param(
            make_foreign,
            id="of another user",
            marks=pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away"),
        ),
    ],
)
def test_files_of_another_user_are_not_used(
    no_choice: pytest.MonkeyPatch, tmp_path: Path, prepare: Callable[[Path, Path], object]
) -> None:
    no_choice.setattr(kernel_cache, "_can_write", lambda _: READ_ONLY)
    usual, elsewhere = tmp_path / f"instance-flow-kernels-{os.getuid()}", tmp_path / "elsewhere"
    prepare(usual, elsewhere)
    kernel_cache.prepare()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert (folder.parent, folder.is_symlink(), folder.stat().st_mode & 0o777) == (tmp_path, False, 0o700)
    assert folder not in (usual, elsewhere)


def test_the_folder_of_the_last_time_is_used_again(no_choice: pytest.MonkeyPatch) -> None:
    no_choice.setattr(kernel_cache, "_can_write", lambda _: READ_ONLY)
    places = []
    for _ in range(2):
        no_choice.setenv("NUMBA_CACHE_DIR", "")
        kernel_cache.prepare()
        places.append(os.environ["NUMBA_CACHE_DIR"])
    assert places[0] == places[1]


def test_a_folder_that_is_not_there_yet_counts_by_its_nearest_parent(tmp_path: Path) -> None:
    assert kernel_cache._can_write(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    assert not kernel_cache._can_write(tmp_path / "file")


RUN = """
import ctypes, json, os, sys
if len(sys.argv) == 1:
    # Root may write everywhere, unless PR_CAPBSET_DROP (24) takes CAP_DAC_OVERRIDE (1) from what it may ever have.
    ctypes.CDLL(None).prctl(24, 1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "again"])
import numpy as np
from instance_flow.formats import rle
rle.area(np.array([1, 2, 3], np.uint32))
statistics = rle.area.stats
print(json.dumps([rle.__file__, statistics.cache_path, *(sum(n.values()) for n in statistics[1:])]))
"""


@pytest.mark.parametrize(
    ("home", "place"),
    [
        pytest.param(WRITABLE, "home/.cache", id="in_the_home"),
        pytest.param(READ_ONLY, f"tmp/instance-flow-kernels-{os.getuid()}", id="in_a_temporary_folder"),
    ],
)
def test_installed_read_only_kernels_are_compiled_once(home: bool, place: str, tmp_path: Path) -> None:
    package = tmp_path / "site" / "instance_flow"
    shutil.copytree(Path(kernel_cache.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    read_only = [package, *(folder for folder in package.rglob("*") if folder.is_dir())]
    for folder in [*read_only, *([] if home else [tmp_path / "home"])]:
        folder.chmod(0o555)
    (file, cache, hits, misses), (_, cache_again, hits_again, misses_again) = (run_kernel(tmp_path) for _ in range(2))
    assert Path(file).parents[1] == package
    assert (tmp_path / place) in Path(cache).parents or Path(cache) == tmp_path / place
    assert cache_again == cache
    assert [(hits, misses), (hits_again, misses_again)] == [(0, 1), (1, 0)]
    assert not list(package.rglob("__pycache__"))


def run_kernel(folder: Path) -> Any:
    """Run one kernel in a process of its own: file of the module, folder of its cache, hits and misses there."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    environment = {
        **kept,
        "PYTHONPATH": str(folder / "site"),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
