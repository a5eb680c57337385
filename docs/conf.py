# SPDX-License-Identifier: Apache-2.0
"""The documentation site, made by Sphinx of the pages as GitHub shows them: ``make site``.

The sources are the repository itself (``sphinx-build -c docs .``), so that a link between README, docs and model cards
is the same in both places. A link to any other file of the repository leads to GitHub.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

NAVIGATION = {
    "Tasks": (
        "docs/tasks/webcam",
        "docs/tasks/train",
        "docs/tasks/annotate",
        "docs/tasks/count",
        "docs/tasks/robot",
        "docs/examples/README",
        "docs/compared",
    ),
    "Run": ("docs/replay", "docs/streams"),
    "On a robot": ("docs/ros", "docs/spatial", "docs/deploy"),
    "Train": ("docs/labels", "docs/training", "docs/quantisation"),
    "The models": ("models/instance-flow-everyday", "models/instance-flow-worlds"),
    "The paper": ("docs/paper", "docs/ablations"),
    "Measurements": ("docs/trackers", "docs/performance"),
    "The project": ("CONTRIBUTING", "CHANGELOG", "ros2_ws/demo/ATTRIBUTION"),
}
"""Pages by what a reader wants to do. A page that is missing here fails the build."""

_FILES = "https://github.com/instance-flow/instance-flow/blob/main/"
_FOLDERS = ("docs", "models", "ros2_ws")

project = "instance-flow"
author = "the instance-flow authors"
extensions = ["myst_parser"]
root_doc = "README"
# Other folders are not searched: an environment has more files than the rest of the repository.
_OTHERS = [path.name for path in Path(__file__).parents[1].iterdir() if path.is_dir() and path.name not in _FOLDERS]
exclude_patterns = [*_OTHERS, "ros2_ws/[!d]*"]
source_suffix = {".md": "markdown"}

# The anchors that GitHub gives to headings.
myst_heading_anchors = 4

html_theme = "furo"
html_title = "instance-flow"
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
    app.connect("doctree-read", _link_files, priority=100)  # before Sphinx collects what it offers as downloads
    app.connect("build-finished", _make_index)


def _add_navigation(_app: Sphinx, page: str, source: list[str]) -> None:
    """Append the navigation to the README; written there, GitHub would show it as code."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            source[0] += "\n".join(("\n```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```\n"))


def _link_files(app: Sphinx, document: nodes.document) -> None:
    """Let links to files that are no pages lead to GitHub instead of a copy to download."""
    folder = Path(app.env.docname).parent
    for link in list(document.findall(addnodes.download_reference)):
        path = os.path.normpath(folder / link["reftarget"])
        link.replace_self(nodes.reference("", "", *link.children, refuri=_FILES + path, internal=False))


def _make_index(app: Sphinx, error: Exception | None) -> None:
    """Show the README under the site's own address."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))
