# SPDX-License-Identifier: Apache-2.0
"""The documentation site is refused where a page has a dead link, an unknown anchor, or is not in the navigation."""

import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site's tools are not installed (extra dev)")
ROOT = Path(__file__).parents[2]
PAGES = [page for pages in runpy.run_path(str(ROOT / "docs/conf.py"))["NAVIGATION"].values() for page in pages]


def built(folder: Path, texts: Mapping[str, str]) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Build a repository of small pages, some with these texts; give the run and the folder of the site."""
    for page in ["README", *PAGES]:
        path = folder / "pages" / f"{page}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# A page\n## On a GPU\n")
    (folder / "pages/code.py").touch()
    for name, text in texts.items():
        (folder / "pages" / name).write_text(f"# This page\n{text}\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs")]
    site = folder / "site"
    return subprocess.run([*command, folder / "pages", site], capture_output=True, text=True), site


def test_links_lead_where_they_do_on_github(tmp_path: Path) -> None:
    run, site = built(tmp_path, {"docs/ros.md": "[gpu](deploy.md#on-a-gpu) [home](../README.md) [code](../code.py)"})
    assert (run.returncode, run.stderr) == (0, "")
    page = (site / "docs/ros.html").read_text()
    for address in ("deploy.html#on-a-gpu", "../README.html", "instance-flow/blob/main/code.py"):
        assert f'{address}"' in page
    assert (site / "index.html").read_text() == (site / "README.html").read_text()


MISTAKES = {
    "[a](gone.md)": "'gone.md'",
    "[a](../runtime/gone.py)": "'../runtime/gone.py'",
    "![a](gone.png)": "docs/gone.png",
    "[a](deploy.md#gone)": "'gone'",
    "[a](#missing)": "'missing'",
}
"""A dead link to a page, to a file, to a picture, an anchor of another page, one of the same; and what is named."""


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What is wrong with a page that has each mistake on a line of its own, and with one outside the navigation."""
    run, _ = built(tmp_path_factory.mktemp("site"), {"docs/ros.md": "\n\n".join(MISTAKES), "docs/new.md": ""})
    assert run.returncode == 1
    return run.stderr.splitlines()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_dead_links_are_errors(complaints: list[str], mistake: str) -> None:
    assert any("docs/ros.md:" in line and MISTAKES[mistake] in line for line in complaints), complaints


def test_page_outside_the_navigation_is_an_error(complaints: list[str]) -> None:
    assert any("docs/new.md: WARNING: document isn't included in any toctree" in line for line in complaints)
