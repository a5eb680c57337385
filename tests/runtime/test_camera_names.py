# SPDX-License-Identifier: Apache-2.0
"""Names that cameras get from their topics."""

from __future__ import annotations

import pytest

from instance_flow.formats.camera_names import camera_names


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        ([], []),
        (["/front/image_raw"], ["front"]),
        (["/front/image_raw", "/rear/image_raw/compressed"], ["front", "rear"]),
        (["/robot/front/image_rect_color", "/robot/rear/image"], ["front", "rear"]),
        (["/a/camera/image_raw", "/b/camera/image_raw"], ["a_camera", "b_camera"]),
        (["/camera/image_raw", "/camera/image_rect"], ["camera_image_raw", "camera_image_rect"]),
        (["/camera/image_raw", "/camera/image_raw/compressed"], ["camera_image_raw", "camera_image_raw_compressed"]),
        (["/image", "/left"], ["image", "left"]),
        (["/0/image", "/1/image"], ["camera_0", "camera_1"]),
        (["/a_b/c", "/a/b_c", "/c"], ["a_b_c_1", "a_b_c_2", "c_3"]),
        (["/../image", "/.../x y"], ["camera", "x_y"]),
    ],
    ids=[
        "none",
        "one",
        "raw and compressed",
        "under a common name",
        "the same last part",
        "two of one camera",
        "both transports of one camera",
        "nothing but image",
        "numbers",
        "alike in any case",
        "hostile",
    ],
)
def test_names(topics: list[str], names: list[str]) -> None:
    assert camera_names(topics) == names
