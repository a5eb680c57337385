# SPDX-License-Identifier: Apache-2.0
"""Text that others wrote cannot forge, flood or colour a log: every edge where it enters a message makes one line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instance_flow.commands.cli import main
from instance_flow.doctor.finding import Finding, format_findings
from instance_flow.evaluation.table import format_table
from instance_flow.formats.foreign_text import MESSAGE, NAME, OneLine, shown
from instance_flow.formats.image_encodings import decode_compressed, decode_raw
from instance_flow.formats.ytvis import parse_ground_truth
from instance_flow.network.gpu.session import unreadable
from instance_flow.tracking.snapshot import check_origin, pack_origin

FORGED = "rgb9\n[ERROR] \x1b[31mthe robot is on fire\x1b[0m\r"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("rgb8; jpeg compressed bgr8", "rgb8; jpeg compressed bgr8", id="plain"),
        pytest.param("Größe 猫 é", "Größe 猫 é", id="letters of other languages"),
        pytest.param("a\nb\tc\r", r"a\nb\tc\r", id="ends of lines"),
        pytest.param("\x1b[31m\x00\x9b", r"\x1b[31m\x00\x9b", id="what moves the cursor or colours"),
        pytest.param("a\u202eb\u2028", r"a\u202eb\u2028", id="what turns the reading direction, or ends a line"),
        pytest.param("caf\udce9", r"caf\udce9", id="file name that is not UTF-8"),
        pytest.param("x" * 3_000_000, "x" * (NAME - 24) + "... (3000000 characters)", id="3 MB"),
    ],
)
def test_what_is_shown(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(shown(text)) == expected


def test_escapes_count_as_they_are_shown() -> None:
    line = shown("\x00" * NAME)
    assert (len(line), line.endswith(f"... ({NAME} characters)")) == (NAME, True)


def message_of(function: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(Exception, match=r".") as caught:
        function(*arguments)
    return str(caught.value)


def table_row(name: str) -> str:
    numbers = dict.fromkeys(
        (
            "AP",
            "AP50",
            "AP75",
            "AR1",
            "AR10",
            "AR100",
            *(f"A{k}_{s}" for k in "PR" for s in ("small", "medium", "large")),
        ),
        0.5,
    )
    classes = {1: {"name": name, **numbers}, 2: {"name": "other", **numbers}}
    table = format_table({**numbers, "size_limits": (1.0, 4.0), "per_class": classes})
    return next(line for line in table.splitlines() if line.startswith(name[:4]))


EDGES: dict[str, Callable[[str], str]] = {
    "encoding of an image": lambda text: message_of(decode_raw, b"", 1, 1, 3, text),
    "format of what is no picture": lambda text: message_of(decode_compressed, b"", text),
    "format of a depth image": lambda text: message_of(decode_compressed, b"", "compressedDepth" + text),
    "id of an annotation": lambda text: message_of(
        parse_ground_truth,
        {
            "videos": [{"id": 1, "height": 2, "width": 2, "length": 1}],
            "categories": [{"id": 1}],
            "annotations": [{"id": text, "video_id": 1}],
        },
    ),
    "category of a table": table_row,
    "origin of a snapshot": lambda text: message_of(check_origin, pack_origin({"model": text}), {"model": "own"}),
    "name of a node": lambda text: format_findings([Finding("ok", "/diagnostics", f"{text}: tracking")]),
    "what ONNX Runtime says": lambda text: str(unreadable(Path("model.onnx"), ValueError(f"Node {text}"))),
}


@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)
@pytest.mark.parametrize("text", [FORGED, FORGED[:5] + "x" * 3_000_000], ids=["forged", "3 MB"])
def test_every_edge_makes_one_short_line(edge: Callable[[str], str], text: str) -> None:
    message = edge(text)
    assert message.isprintable()
    assert "rgb9" in message or "Node" in message
    assert len(message) <= MESSAGE + NAME


@pytest.mark.parametrize("name", ["a\x1b[31mb.json", "a\nb.json"], ids=["escape", "end of line"])
def test_a_file_name_reaches_the_terminal_escaped(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / name), "results.json"]) == 2
    said = capsys.readouterr().err
    assert said.removesuffix("\n").isprintable()
    assert "there is no such file" in said


def test_a_log_record_is_one_line() -> None:
    record = logging.LogRecord("instance_flow", logging.WARNING, "", 0, "%s: breaks off", (FORGED,), None)
    line = OneLine("instance-flow: %(levelname)s: %(message)s").format(record)
    assert line == rf"instance-flow: WARNING: {shown(FORGED)}: breaks off"
