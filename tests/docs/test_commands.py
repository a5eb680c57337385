# SPDX-License-Identifier: Apache-2.0
"""The manual's commands: each is parsed by what it is for, and many are run. An option that does not exist fails."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import textwrap
import zipfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from red_thing import HEIGHT, WIDTH, frames, red_network, write_source

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.commands.values import parse_settings
from instance_flow.formats.rle import encode
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth
from instance_flow.stream import Stream

sys.path.insert(0, str(Path(__file__).parent))

from manual import (
    BLOCKS,
    COMMANDS,
    LANGUAGES,
    PAGES,
    ROOT,
    SCRIPTS,
    Block,
    blocks_of,
    check,
    commands_of,
    main_of,
    parsed,
)

# Options of other programs that the text names.
FOREIGN = {
    "--ipc": "docker",
    "--shm-size": "docker",
    "--health-cmd": "docker",
    "--node": "instance_flow_healthcheck",
    "--show-args": "ros2 launch",
    "--store": "bench/performance.py",
    "--profile": "bench/performance.py",
}
TINY = "--set steps=1 --set batch=1 --set data.sizes=[[64,96]] --set data.workers=0 --set warmup=1 --set threads=1"

# What is run as it stands, in this order, with what keeps it small.
RUN = {
    "a video": [
        ("instance-flow run VIDEO.mp4", ""),
        (
            "instance-flow run VIDEO.mp4 --out DIR --size 640x384 --classes person,car --conf 0.3 --save mot,csv,coco",
            "",
        ),
        ("instance-flow run VIDEO.mp4 --save mot,csv,coco,crops,txt", "--size 96x64"),
    ],
    "a bag": [
        ("instance-flow run BAG --all-topics", "--size 96x64"),
        ("instance-flow run BAG --as-live 8", "--size 96x64"),
    ],
    "results": [("instance-flow evaluate instances.json results.json", "")],
    "a folder of bags": [
        ("instance-flow evaluate-bags instances.json BAGS --out DIR --jobs 4", "--jobs 1 --size 96x64"),
    ],
    "a model": [("instance-flow info", "--json"), ("instance-flow info model.onnx", "--json")],
    "worlds to look at": [
        ("instance-flow-world crossing --situation crossing --clips 4 --ytvis --sheet", "--clips 1 --frames 2"),
        (
            "instance-flow-world scenes --situation depth --clips 2 --size 320x240 --ytvis --bag",
            "--clips 1 --frames 2 --size 96x64",
        ),
    ],
    "worlds to evaluate": [
        ("instance-flow-world fleet --situation all --clips 7 --ytvis --bag", "--frames 2 --size 96x64"),
        (
            "instance-flow evaluate-bags fleet/instances.json fleet --model models/instance-flow-worlds.onnx "
            "--out out/fleet",
            "--size 96x64",
        ),
    ],
    "training": [
        ("instance-flow-train training/configs/worlds.toml --dry-run", TINY),
        ("instance-flow-train training/configs/worlds.toml", TINY),
    ],
    "labels": [
        ("instance-flow-data inspect export.zip --sheet labels.png", ""),
        ("instance-flow-data convert export.zip mine", ""),
        ("instance-flow-data inspect mine", ""),
    ],
    "other trackers": [
        ("instance-flow-validate models/instance-flow-worlds.onnx --clips 40", "--clips 1 --frames 3 --trackers flow"),
        ("instance-flow-validate --oracle --clips 50", "--clips 1 --frames 3 --trackers flow"),
    ],
    "real pictures": [
        ("instance-flow-validate models/instance-flow-everyday.onnx --videos val.json --images images", ""),
    ],
}


@pytest.mark.parametrize("text", [pytest.param(text, id=f"{where} {text[:40]}") for where, text in COMMANDS])
def test_a_command_of_the_manual_is_understood(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("    instance-flow run VIDEO.mp4 --fast\n", "unrecognized arguments: --fast"),
        ("# Title\n    instance-flow run VIDEO.mp4 --jobs 2   # words\n", "unrecognized arguments: --jobs 2"),
        ("1. Item\n\n       deploy/run.sh instance-flow doctor --deep\n", "unrecognized arguments: --deep"),
        ("```bash\ninstance-flow-train \\\n  training/configs/worlds.toml --epochs 3\n```\n", "arguments: --epochs 3"),
        ("```\ninstance-flow-world worlds --clips few\n```\n", "argument --clips: 'few' is not a whole number"),
        ("1. Item\n   ```bash\n\n   instance-flow doctor --deep\n   ```\n", "arguments: --deep"),
        ("```text\ninstance-flow: error: x\ninstance-flow run V.mp4 --fast\n```\n", "arguments: --fast"),
        ("Say `instance-flow-export\nCHECKPOINT model.onnx --int8`.\n", "unrecognized arguments: --int8"),
        ("    instance-flow-validate m.onnx --oracle\n", "argument --oracle: not allowed"),
        ("    instance-flow-validate --oracle --set references=2\n", "--oracle has no network"),
        ("    instance-flow run V.mp4 --set speed=2\n", "setting 'speed=2' is not key=value"),
        ("    instance-flow-train training/configs/worlds.toml --set data.size=3\n", "data.size"),
        ("    torchrun -m instance_flow_training.train training/configs/worlds.toml --gpus 8\n", "--gpus 8"),
        ("    cd x && .venv/bin/instance-flow-evaluate a b\n", "cd x: this command is unknown here"),
        ("    A=1 instance-flow-evaluate a b\n", "there is no command instance-flow-evaluate"),
        ("    python bench/long_streams.py --oracle --orakel\n", "unrecognized arguments: --orakel"),
    ],
)
def test_a_command_that_would_be_refused_is_found(page: str, message: str) -> None:
    (text, *_) = [text for block in blocks_of("page", page) for text in commands_of(block)]
    with pytest.raises(Exception, match=re.escape(message)) as caught:
        check(text)
    assert not isinstance(caught.value, AttributeError | TypeError)


@pytest.mark.parametrize(
    "text",
    [
        "make tset",
        "pip install '.[bag]'",
        "pip install . ./traning",
        "deploy/provider.sh .venv rocm",
        "instance_flow_node --ros-args -p modell:=x",
        "ros2 launch instance_flow_ros instance_flow.launch.py images:=/camera",
    ],
)
def test_a_name_that_is_not_there_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        check(text)


def unfenced(blocks: Iterable[Block]) -> list[str]:
    """Where code stands without a fence, or in one of another language than ours."""
    return [f"{one.page}:{one.number} {one.kind}" for one in blocks if one.kind not in (*LANGUAGES, "inline")]


def test_every_block_has_a_fence_with_its_language() -> None:
    """models/ and the page that `make bench` writes are not pages of this kind yet."""
    others = ("models/", "docs/performance.md")
    assert unfenced(block for block in BLOCKS if not block.page.startswith(others)) == []
    pages = (
        "# Title\n    make test\n",
        "```\nmake test\n```\n",
        "```pyhton\nimport cv2\n```\n",
        "```bash\nmake\n```\n",
    )
    assert [len(unfenced(blocks_of("page", page))) for page in pages] == [1, 1, 1, 0]


@cache
def known_options() -> frozenset[str]:
    """Of all commands of this project, those of their commands included."""
    parsers = [parsed(partial(main_of(name), arguments))[0] for name, arguments in SMALLEST.items()]
    names: set[str] = set()
    while parsers:
        for action in parsers.pop()._actions:
            names.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers.extend(action.choices.values())
    return frozenset(names)


SMALLEST = {
    "instance-flow": ["info"],
    "instance-flow-train": ["c"],
    "instance-flow-data": ["inspect", "s"],
    "instance-flow-world": ["o"],
    "instance-flow-validate": ["m"],
    "instance-flow-ablate": ["c"],
    "instance-flow-export": ["c", "o"],
    "instance-flow-quantise": ["m", "o", "--worlds"],
}
"""The shortest command line of each."""


def test_every_option_that_the_text_names_is_there() -> None:
    assert SMALLEST.keys() == SCRIPTS.keys()
    named = {
        (block.page, block.number, option)
        for block in BLOCKS
        if block.kind == "inline" and block.lines[0].startswith("--")
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", block.lines[0])
    }
    assert len(named) > 20
    assert [one for one in sorted(named) if one[2] not in known_options() and one[2] not in FOREIGN] == []


def test_every_setting_that_the_text_names_is_there() -> None:
    """Of the assembly, or of the training."""
    from instance_flow_training.config import TrainConfig, apply, parse_override

    lines = [block.lines[0] for block in BLOCKS if block.kind == "inline"]
    named = [pair for line in lines for pair in re.findall(r"--set (\S+=\S*)", line)]
    for pair in set(named) - {"a.b=c", "NAME=VALUE"}:
        if hasattr(AssemblyConfig(), pair.partition("=")[0]):
            parse_settings([pair])
        else:
            apply(TrainConfig(), parse_override(pair))


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def test_every_link_leads_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
    lost = []
    for page, target in links:
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        if "://" not in target and not (there.exists() and (not anchor or anchor in headings(there))):
            lost.append((page.name, target))
    assert len(links) > 30
    assert lost == []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the commands to be run name, two frames of each, and the checkout's own folders."""
    for name in ("models", "training"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_source(tmp_path / "VIDEO.mp4", frames(2))
    (tmp_path / "BAG").mkdir()
    (tmp_path / "BAGS").mkdir()
    for name in ("BAG/0.mcap", "BAGS/a.mcap"):
        write_source(tmp_path / name, frames(2))
    (tmp_path / "images").mkdir()
    write_source(tmp_path / "images" / "a", frames(2))
    (tmp_path / "model.onnx").write_bytes(red_network())
    video = Video(1, HEIGHT, WIDTH, 2, ("a/00000.png", "a/00001.png"))
    masks = [encode((image[..., 0] > 200).astype(np.uint8)) for image in frames(2)]
    truth = GroundTruth((video,), (Category(1, "car"),), (Annotation(1, 1, 1, masks),))
    for name in ("instances.json", "val.json"):
        write_ground_truth(tmp_path / name, truth)
    (tmp_path / "results.json").write_text("[]")
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as export:
        for name in ("b", "c"):  # the same video twice
            for file in sorted((tmp_path / "images/a").iterdir()):
                export.write(file, f"{name}/JPEGImages/a/{file.name}")
            export.write(tmp_path / "instances.json", f"{name}/instances.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("commands", RUN.values(), ids=RUN)
def test_the_manual_is_followed(commands: list[tuple[str, str]], place: Path) -> None:
    """Each command ends well, and is in the manual still."""
    for text, small in commands:
        assert text in [known.removeprefix(".venv/bin/") for _, known in COMMANDS]
        name, *arguments = shlex.split(f"{text} {small}")
        assert main_of(name)(arguments) == 0, text
    assert any(place.iterdir())


def message() -> Any:
    """What is read of a TrackedInstanceArray with one object: column by column, outside first."""
    mask = SimpleNamespace(x=1, y=0, width=1, height=2, runs=[0, 2])
    return SimpleNamespace(height=3, width=4, instances=[SimpleNamespace(id=7, has_mask=True, mask=mask)])


def a_stream() -> Stream:
    return Stream(Pipeline.load(size=(64, 96)))


SNIPPETS: dict[str, Callable[[], dict[str, Any]]] = {
    "from instance_flow import AssemblyConfig, Pipeline": dict,
    "from instance_flow.tracking.snapshot import read_snapshot, write_snapshot": lambda: {"stream": a_stream()},
    "from instance_flow_examples.masks import label_map, whole_image, window": lambda: {
        "message": message(),
        "instance": message().instances[0],
    },
}
"""What a block of Python takes for granted, by its first line; others stand alone."""
PYTHON = [block for block in BLOCKS if block.kind == "python"]


@pytest.mark.parametrize("block", [pytest.param(one, id=f"{one.page}:{one.number}") for one in PYTHON])
def test_the_python_of_the_manual_runs(block: Block, place: Path) -> None:
    text = (ROOT / block.page).read_text().splitlines()[block.number - 1 : block.number - 1 + len(block.lines)]
    program = compile(textwrap.dedent("\n".join(text)), f"{block.page}:{block.number}", "exec")
    exec(program, SNIPPETS.get(block.lines[0], dict[str, Any])())
    assert place.is_dir()


def test_the_readme_begins_with_the_install_and_shows_python() -> None:
    """It stays one page to read, and its Python needs nothing but the package and a video."""
    blocks = [block for block in BLOCKS if block.page == "README.md" and block.kind != "inline"]
    assert blocks[0].lines[0].startswith("pip install .")
    (example,) = [block for block in blocks if block.kind == "python"]
    assert example in PYTHON
    assert example.lines[0] not in SNIPPETS
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
