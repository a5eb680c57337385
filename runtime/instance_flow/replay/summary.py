# SPDX-License-Identifier: Apache-2.0
"""The summary at the end of a run: for the terminal, as JSON, and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from instance_flow.formats.video import SourceCamera
from instance_flow.network.installation import versions
from instance_flow.pipeline import Pipeline
from instance_flow.replay.settings import Settings
from instance_flow.report.run_statistics import Statistics


def summarise_run(name: str, pipeline: Pipeline, interrupted: bool, taken_over: int) -> dict[str, Any]:
    """What all cameras of a run have in common. taken_over: frames that a run before had worked on, if any."""
    return {
        "source": name,
        "model": pipeline.info.name,
        "provider": pipeline.provider,
        "interrupted": interrupted,
        **({"frames_taken_over": taken_over} if taken_over else {}),
    }


def summarise_camera(statistics: Statistics, files: Sequence[str], removed: Sequence[str]) -> dict[str, Any]:
    """One camera's figures and files; what went wrong only where something did."""
    troubles = {
        "refused": statistics.refused,
        "refusals": statistics.refusals,
        "breaks": statistics.breaks,
        "stamps_that_ran_back_a_little": statistics.jitter,
    }
    return {
        "frames": statistics.frames,
        "objects": statistics.objects,
        "ids": len(statistics.ids),
        **{f"latency_p{part}_ms": round(statistics.latency_ms(part), 2) for part in (50, 95) if statistics.frames},
        **{name: value for name, value in troubles.items() if value},
        "files": list(files),
        **({"removed": list(removed)} if removed else {}),
    }


def summarise_as_live(rate: float, seen: int, dropped: int, cost: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How many frames a machine of that rate dropped, and what that cost (``as_live.Comparison.cost``), rounded."""
    facts: dict[str, Any] = {"rate": rate, "frames": seen, "dropped": dropped}
    return {**facts, **{name: _rounded(numbers) for name, numbers in cost.items()}}


def describe_as_live(summary: Mapping[str, Any]) -> dict[str, str]:
    """The facts of ``summarise_as_live`` in words, for the report."""
    described: dict[str, str] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping) and all(isinstance(part, Mapping) for part in value.values()):
            described |= {f"{name}, {part}": text for part, text in describe_as_live(value).items()}
        elif isinstance(value, Mapping):
            described[name] = ", ".join(f"{number} {amount:g}" for number, amount in value.items())
        else:
            described[name] = f"{value:g}"
    return {name.replace("_", " "): text for name, text in described.items()}


def about_run(
    source: Mapping[str, Any], camera: SourceCamera, pipeline: Pipeline, settings: Settings
) -> dict[str, dict[str, Any]]:
    """What ran, for the report: facts by their name, under headings. source: its own, with its ``name``."""
    info = pipeline.info
    own = {**asdict(info), "references": info.max_references}
    chosen = {
        key: value or (f"{own[key]:g}, as the model says" if key in own else value)
        for key, value in asdict(pipeline.config).items()
    }
    in_space: dict[str, Any] = {}
    if settings.depth is not None:
        own = {key: value for key, value in asdict(settings.depth).items() if value != ""}
        in_space = own | own.pop("spatial")
    scales = " ".join(f"{scale:g}" for scale in settings.scales) or "1"
    return {
        "Source": {**source, **({"topic": camera.topic} if camera.topic else {})},
        "Model": {
            "name": info.name,
            "file": settings.model.name,
            "hash of the weights": info.weights_sha256 or "not stated",
            "provider": pipeline.provider,
            "input": f"{info.input_size[1]} x {info.input_size[0]} pixels, scale {scales}",
            "classes": ", ".join(info.class_names),
            "training": info.training or "not stated",
            "licence": info.licence or "not stated",
        },
        "Settings": {
            key.replace("_", " "): value for key, value in {**chosen, "max_gap": settings.max_gap, **in_space}.items()
        },
        "Versions": {key: value for key, value in versions().items() if value != "not installed"},
    }


def _rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _rounded(value) if isinstance(value, Mapping) else round(value, 4) for name, value in numbers.items()}
