# SPDX-License-Identifier: Apache-2.0
"""Parts of an HTML page that opens from disk: the document with its style, sections, pictures. Nothing is fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.report.svg import hex_colour
from instance_flow.structures import Image

_JPEG_QUALITY = 82
_STYLE = """
:root{color-scheme:light;--ink:#1d2129;--soft:#667085;--rule:#e4e7ec;--ground:#f6f7f9;--accent:#3762c8}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1180px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:26px;line-height:1.25;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:16px;margin:0 0 4px}
p{margin:0}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(124px,1fr));gap:12px;margin:24px 0 0}
.tiles div,section{background:#fff;border:1px solid var(--rule);border-radius:10px}
.tiles div{padding:12px 16px}
.tiles b{display:block;font-size:21px;white-space:nowrap;font-weight:600;line-height:1.3}
section{padding:20px 22px;margin-top:16px;overflow-x:auto}
section>p.soft{margin-bottom:14px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px;margin-top:16px}
.pair section{min-width:0;margin-top:0}section .pair{margin-top:0}
.note{margin-top:16px;padding:10px 16px;border-radius:10px;background:#fff6e0;border:1px solid #f3dfae}
svg{display:block;width:100%;height:auto}
.scroll{max-height:640px;overflow:auto}.scroll svg{min-width:820px}
.grid{stroke:var(--rule)}.axis{stroke:#c3c9d4}.tick{fill:var(--soft);font-size:11px}
.row{fill:transparent}g:hover>.row{fill:#eef2fb}.seen{stroke:#000;stroke-opacity:.22;stroke-width:.7}
.label{fill:var(--ink);font-size:12px}
.gap{stroke-width:1.5;opacity:.45}.back{fill:#fff;stroke-width:1.8}.new{stroke-width:2.4}
.line{fill:none;stroke:var(--accent);stroke-width:1.6;stroke-linejoin:round}.dot,.bar{fill:var(--accent)}
.largest{fill:none;stroke:#a9bdea;stroke-width:1}.bar{opacity:.85}
.frames{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:12px}
figure{margin:0}figure img{display:block;width:100%;border-radius:6px}figcaption{color:var(--soft);font-size:12px}
table{border-collapse:collapse;width:100%}
th{color:var(--soft);font-weight:500;font-size:12px}
th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--rule);white-space:nowrap}
td.text,th.text{text-align:left}tr:last-child td{border-bottom:0}
thead th{position:sticky;top:0;background:#fff}
.dotted{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.share{position:relative;min-width:120px;width:45%}
.share i{position:absolute;left:10px;top:9px;height:11px;border-radius:3px;background:#b9c9ee}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
h3{font-size:13px;margin:14px 0 6px}h3:first-of-type{margin-top:10px}
@media print{body{background:#fff}.scroll{max-height:none}section{break-inside:avoid}}
"""


def html_page(title: str, body: str) -> str:
    """A whole document, in UTF-8; the title is escaped, the body is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Nothing is to be fetched, even if a browser or a hostile name tried.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';img-src data:;'
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)} – instance-flow</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def section(title: str, subtitle: str, content: str) -> str:
    """A box with a heading; title and subtitle are escaped, the content is HTML."""
    note = f'<p class="soft">{escape(subtitle)}</p>' if subtitle else ""
    return f"<section><h2>{escape(title)}</h2>{note}{content}</section>"


def tiles(numbers: Mapping[str, str]) -> str:
    """Numbers by their name, side by side; both are HTML."""
    boxes = "".join(f"<div><b>{value}</b><span class=soft>{name}</span></div>" for name, value in numbers.items())
    return f'<div class="tiles">{boxes}</div>'


def facts(known: Mapping[str, Any]) -> str:
    """A list of what is known by its name; both are escaped."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in known.items())
    return f"<dl>{rows}</dl>"


def figure(image: Image, shows: str, caption: str) -> str:
    """A picture (H, W, 3) uint8 RGB above its caption. shows: what is read where it cannot be seen; both are HTML."""
    return f'<figure><img src="{data_uri(image)}" alt="{shows}"><figcaption>{caption}</figcaption></figure>'


def dot(colour: NDArray[np.uint8]) -> str:
    """A mark in a colour (3,)."""
    return f'<span class="dotted" style="background:{hex_colour(colour)}"></span>'


def data_uri(image: Image) -> str:
    """A picture (H, W, 3) uint8 RGB as the address of itself."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
