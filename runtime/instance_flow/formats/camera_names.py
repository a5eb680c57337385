# SPDX-License-Identifier: Apache-2.0
"""Short names of cameras, made of their topics: for folders, and for the topics of what is found in their images."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SAYS_NOTHING = re.compile(r"image(_[a-z0-9]+)*|compressed(_[a-z0-9]+)*|theora|ffmpeg", re.IGNORECASE)


def camera_names(topics: Sequence[str]) -> list[str]:
    """Give one name per topic, all distinct and fit for a topic and a folder: ``/front/image_raw`` gives ``front``.

    The last part of a topic that is not just "image" or the like; where two agree, all such parts, else all parts.
    """
    parts = [[part for part in topic.split("/") if part] for topic in topics]
    telling = [[part for part in own if not _SAYS_NOTHING.fullmatch(part)] or own for own in parts]
    for candidates in ([own[-1:] for own in telling], telling, parts):
        names = [_topic_name("_".join(own)) for own in candidates]
        if len(set(names)) == len(names):
            return names
    return [f"{name}_{number}" for number, name in enumerate(names, start=1)]


def _topic_name(text: str) -> str:
    name = re.sub(r"\W|__+", "_", text, flags=re.ASCII).strip("_") or "camera"
    return f"camera_{name}" if name[0].isdigit() else name
