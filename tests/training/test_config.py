# SPDX-License-Identifier: Apache-2.0
"""Configuration files: what they may hold, what is said of the rest, and the recipes that come with the project."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from instance_flow.declare import declared
from instance_flow_training.config import ConfigError, TrainConfig, describe_settings, load_config
from instance_flow_training.worlds.depth_scenes import DepthSceneConfig
from instance_flow_training.worlds.synthetic import WorldConfig

REPOSITORY = Path(__file__).parents[2]
TINY = REPOSITORY / "tests" / "tiny.toml"
RECIPES = sorted((REPOSITORY / "training" / "configs").glob("*.toml"))

BAD_CONFIGS = {
    "unknown key": ("stepz = 3", [], "unknown key 'stepz'; valid keys here are name, seed, steps"),
    "unknown key in a table": (
        "[model]\nbackbon = 'x'",
        [],
        "unknown key 'model.backbon'; valid keys here",
    ),
    "wrong type": ("steps = 'many'", [], "steps is 'many'; it must be of type int"),
    "value for a table": ("model = 3", [], "must be a table"),
    "not TOML": ("steps = = 3", [], "not valid TOML"),
    "override without a value": ("", ["steps"], "not of the form section.key=value"),
    "precision that does not exist": ("precision = '8'", [], "precision is '8'; it must be one of 32, bf16-mixed"),
    "no passes at all": ("accumulate = 0", [], "accumulate is 0; it must be a whole number from 1 to 1000000"),
    "list of plain numbers for sizes": ("[data]\nsizes = [192, 320]", [], "data.sizes is 192; it must be of type list"),
    "best by a number that grows with errors": ("", ["validation.keep=IDSW"], "validation.keep is 'IDSW'"),
    "backbone that does not exist": (
        "[model]\nbackbone = 'resnet101'",
        [],
        "model.backbone is 'resnet101'; it must be one of resnet50, mobilenet_v2",
    ),
    "output stride that does not exist": (
        "",
        ["model.output_stride=8"],
        "model.output_stride is 8; it must be one of 16, 32",
    ),
    "crowds that are something else": ("", ["data.crowds=maybe"], "data.crowds is 'maybe'; it must be one of auto"),
    "fusion that does not exist": ("[model]\nfusion = 'sum'", [], "model.fusion is 'sum'"),
    "size that the network does not take": (
        "",
        ["data.sizes=[[60,96]]"],
        "data.sizes is [[60, 96]]; it must be a list of",
    ),
    "half a size": ("", ["data.sizes=[[64]]"], "data.sizes is [[64]]; it must be a list of one or more [height"),
    "no size at all": ("", ["data.sizes=[]"], "data.sizes is []"),
    "size that cannot be validated": ("", ["validation.size=[100,320]"], "validation.size is [100, 320]; it must be"),
    "nothing to validate on": ("", ["validation.clips=0"], "validation.clips is 0; it must be a whole number from 1"),
    "stop after the end": ("", ["steps=4", "stop_at=9"], "stop_at is 9"),
    "learning backwards": ("", ["learning_rate=-1"], "learning_rate is -1.0; it must be a number above 0"),
    "learning without end": (
        "learning_rate = inf",
        [],
        "learning_rate is inf; it must be a number above 0 and at most 10",
    ),
    "a number of 400 digits": (f"minutes = {10**399}", [], "; it must be a number from 0 to 1000000"),
    "no fall at all, and less": ("", ["poly_power=-1"], "poly_power is -1.0; it must be a number from 0"),
    "gradients of nothing": ("", ["clip_gradient=0"], "clip_gradient is 0.0; it must be a number above 0"),
    "pictures before the beginning": (
        "",
        ["pictures_every=-5"],
        "pictures_every is -5; it must be a whole number from 0",
    ),
    "fewer than no threads": ("", ["threads=-2"], "threads is -2; it must be a whole number from 0 to 1024"),
    "seed below 0": ("", ["seed=-1"], "seed is -1; it must be a whole number from 0"),
    "saved before the beginning": ("save_minutes = nan", [], "save_minutes is nan; it must be a number from 0"),
    "parts that are numbers": ("", ["frozen=[1]"], "frozen is [1]; it must be a list of texts"),
    "a part that stands still": (
        "",
        ["rates.backbone=0"],
        "rates.backbone is 0; it must be a number above 0 and at most 100; or name it in frozen",
    ),
    "a part's rate in words": ("", ["rates.backbone=slow"], "rates.backbone is 'slow'; it must be a number above 0"),
    "weight below 0": ("", ["loss.intra=-0.01"], "loss.intra is -0.01; it must be a number from 0"),
    "weight that is no number": ("[loss]\nsemantic = nan", [], "loss.semantic is nan; it must be a number from 0"),
    "no scale for the teacher": (
        "",
        ["loss.teacher_scales=[]"],
        "loss.teacher_scales is []; it must be a list of one or more numbers from 0.25 to 4",
    ),
    "no hard pixels": (
        "",
        ["loss.hard_pixels=0"],
        "loss.hard_pixels is 0.0; it must be a number above 0 and at most 1",
    ),
    "every third pixel": ("", ["loss.semantic_stride=3"], "loss.semantic_stride is 3; it must be one of 1, 2, 4"),
    "background of what is none": (
        "",
        ['loss.background=["semantic"]'],
        "loss.background is ['semantic']; it must be a list of texts out of center, intra, inter",
    ),
    "a network without channels": (
        "",
        ["model.skip_channels=0"],
        "model.skip_channels is 0; it must be a whole number from 1 to 65536",
    ),
    "a stride between two levels": (
        "",
        ["model.token_stride=12"],
        "model.token_stride is 12; it must be one of 1, 2, 4, 8",
    ),
    "tokens below 0": ("", ["model.object_tokens=-1"], "model.object_tokens is -1; it must be a whole number from 0"),
    "tokens that carry directions": (
        "",
        ["model.object_tokens=8", "model.flow=affinity"],
        "so set model.object_tokens = 0",
    ),
    "dilation in words": (
        "",
        ['model.aspp_rates=["wide"]'],
        "model.aspp_rates is ['wide']; it must be a list of whole numbers",
    ),
    "scale of no colour": (
        "",
        ["model.pixel_scale=[1,1,0]"],
        "model.pixel_scale is [1.0, 1.0, 0.0]; it must be [red, green, blue], numbers above 0",
    ),
    "two colours": ("", ["model.pixel_mean=[1,1]"], "model.pixel_mean is [1.0, 1.0]; it must be [red, green, blue]"),
    "worlds before the first": ("", ["data.first_seed=-1"], "data.first_seed is -1; it must be a whole number from 0"),
    "annotations that are numbers": (
        "[data]\nsource = 'auto'\nannotations = [1]",
        [],
        "data.annotations is [1]; it must be of type str",
    ),
    "a new name that is none": (
        "[data]\nsource = 'auto'\nrename.Car = 3",
        [],
        "data.rename.Car is 3; it must be a text",
    ),
    "a new name of blanks": ("[data]\nsource = 'auto'\nrename.Car = ' '", [], "data.rename gives the name ' '"),
    "confirmed before it is seen": (
        "",
        ["defaults.confirm_frames=0"],
        "defaults.confirm_frames is 0; it must be a whole number from 1",
    ),
    "a constant of the matching out of its range": (
        "",
        ["defaults.match_costs.max_cost=60"],
        "defaults.match_costs.max_cost is 60.0; it must be a number from 0.0 to 50.0",
    ),
    "fewer than no workers": ("", ["data.workers=-1"], "data.workers is -1; it must be a whole number from 0"),
    "nothing made ahead": ("", ["data.prefetch=0"], "data.prefetch is 0; it must be a whole number from 1"),
    "fused Adam beside a loss scale": (
        "",
        ["precision=16-mixed", "speed.fused_adam=true"],
        "speed.fused_adam is true, but with precision = '16-mixed'",
    ),
    "a number for a switch": ("", ["speed.tf32=1"], "speed.tf32 is 1; it must be of type bool, like false"),
    "speed that does not exist": ("", ["speed.compile=true"], "unknown key 'speed.compile'; valid keys here are chan"),
    "override of an unknown key": ("", ["loss.centre=3"], "unknown key 'loss.centre'"),
}


@pytest.mark.parametrize(("text", "overrides", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configuration(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.teacher=", "loss.distil=0"],
        ["loss.distil=0", "loss.teacher="],
        ["loss.distil=1", "loss.teacher=", "loss.distil=0"],
    ],
    ids=["one order", "the other", "the last one counts"],
)
def test_settings_that_belong_together_are_changed_together(overrides: list[str]) -> None:
    config = load_config(REPOSITORY / "training" / "configs" / "everyday.toml", overrides)
    assert (config.loss.distil, config.loss.teacher) == (0, "")
    assert config.loss.focal_center, "the file's other settings stay"


def test_overrides_reach_nested_settings() -> None:
    config = load_config(TINY, ["data.sizes=[[32,64]]", "learning_rate=1", "model.backbone=resnet50"])
    assert (config.data.sizes, config.learning_rate, config.model.backbone) == (((32, 64),), 1.0, "resnet50")


def test_stop_at_the_end_is_no_error() -> None:
    assert load_config(TINY, ["steps=4", "stop_at=4"]).stop_at == 4


def test_a_model_is_for_the_size_that_it_was_trained_or_validated_at() -> None:
    assert load_config(TINY, []).input_size == (64, 96)
    real = load_config(REPOSITORY / "training" / "configs" / "youtube_vis_2019.toml", [])
    assert real.input_size == real.validation.size == (384, 640)


def test_a_number_may_stand_for_a_word() -> None:
    assert load_config(TINY, ["precision=32", "name=2024"]).name == "2024"


def tables(config: Any) -> list[Any]:
    """A configuration and those within it."""
    inner = [getattr(config, field.name) for field in fields(config)]
    return [config, *(table for value in inner if is_dataclass(value) for table in tables(value))]


ALL_TABLES = [*tables(TrainConfig()), WorldConfig(), DepthSceneConfig()]


@pytest.mark.parametrize("config", ALL_TABLES, ids=lambda config: type(config).__name__)
def test_every_setting_is_declared_with_its_words_and_bounds(config: Any) -> None:
    for field in fields(config):
        if is_dataclass(getattr(config, field.name)):
            continue
        assert field in declared(config), field.name
        rules = field.metadata
        assert rules["description"], field.name
        if rules["of"] in (int, float) and "choices" not in rules:
            low, high = rules["range"]
            assert high is not None, field.name
            assert low is not None or rules["above"] is not None, field.name


def test_every_setting_is_described() -> None:
    said = describe_settings().splitlines()
    assert "data.crop = [640, 640]    [height, width], multiples of 32 from 32 to 16384" in said
    assert "rates = {}    a table; each is a number above 0 and at most 100" in said
    keys = [line.partition(" = ")[0] for line in said if not line.startswith(" ")]
    assert len(keys) == len(set(keys)) == sum(len(declared(table)) for table in tables(TrainConfig()))
    assert max(map(len, said)) < 200


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_valid_and_named_after_its_file(path: Path) -> None:
    assert load_config(path, []).name == path.stem


PAPER: dict[str, Any] = {
    "batch": 32,
    "learning_rate": 1e-3,
    "poly_power": 0.9,
    "warmup": 1,
    "clip_gradient": 1e9,
    "model.backbone": "resnet50",
    "model.fusion_context": False,
    "model.unit_keys": False,
    "model.attended_offset": False,
    "model.object_tokens": 0,
    "loss.center": 100.0,
    "loss.intra": 0.01,
    "loss.inter": 0.01,
    "loss.shape": 0.01,
    "loss.association": 0.0,
    "data.crop": (640, 640),
    "data.scales": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "data.flip": True,
    "data.colour": 0.0,
}
"""Section IV-A."""
VIDEO = {**PAPER, "steps": 90_000, "init.inter_from_intra": True, "data.reference_frames": "before_or_after"}
RECIPE_SETTINGS: dict[str, dict[str, Any]] = {
    "coco_pretrain": {**PAPER, "steps": 180_000, "data.source": "coco", "data.frames_per_clip": 1},
    "youtube_vis_2019": VIDEO,
    "youtube_vis_2021": VIDEO,
    "ovis": VIDEO,
}


@pytest.mark.parametrize(("recipe", "settings"), RECIPE_SETTINGS.items(), ids=RECIPE_SETTINGS)
def test_recipe_is_the_papers(recipe: str, settings: dict[str, Any]) -> None:
    config: Any = load_config(REPOSITORY / "training" / "configs" / f"{recipe}.toml", [])
    found = {}
    for key in settings:
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    assert found == settings


def test_video_recipes_start_where_pre_training_ends() -> None:
    folder = REPOSITORY / "training" / "configs"
    pretraining = load_config(folder / "coco_pretrain.toml", [])
    assert pretraining.data.classes == "youtube_vis_2019"
    for recipe in ("youtube_vis_2019", "youtube_vis_2021", "ovis"):
        config = load_config(folder / f"{recipe}.toml", [])
        assert config.init.checkpoint == f"runs/{pretraining.name}/checkpoint.pt"
        assert config.model == pretraining.model


FILES: dict[str, tuple[bytes, str]] = {
    "UTF-16": ('name = "a"'.encode("utf-16"), "is not UTF-8"),
    "Latin-1": ('name = "Köln"'.encode("latin-1"), "is not UTF-8"),
    "nested too deep": (b"a = " + b"[" * 100_000, "not valid TOML"),
    "a number of 5,000 digits": (b"steps = " + b"9" * 5000, "not valid TOML"),
    "no TOML": (b"steps 4", "not valid TOML"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_files_that_are_no_config(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path / "config.toml", [])
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b'\xef\xbb\xbfname = "mine"')
    assert load_config(tmp_path / "config.toml", []).name == "mine"
