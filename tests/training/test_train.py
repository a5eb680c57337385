# SPDX-License-Identifier: Apache-2.0
"""The training command: learns, resumes exactly, keeps the best, tells what it does, and says what is wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from instance_flow_training.config import TrainConfig, describe_settings, load_config
from instance_flow_training.datasets import WorldClips, collate
from instance_flow_training.loop.step import forward_losses
from instance_flow_training.loop.training import learning_rate, train
from instance_flow_training.train import main
from instance_flow_training.validate import METRICS
from instance_flow_training.weights.checkpoint import load_checkpoint, save_checkpoint
from instance_flow_training.weights.initialise import build_network
from instance_flow_training.worlds.synthetic import WorldConfig, generate_clip
from instance_flow_training.worlds.world_files import write_ytvis

TINY_PATH = Path(__file__).parents[1] / "tiny.toml"
TINY = TINY_PATH.read_text()


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


class Killed(BaseException):
    """Stands for a kill in the middle of a run."""


RUNS = {
    "one pass a step": [],
    "data in two workers, one pass ahead": ["data.workers=2", "data.prefetch=1"],
    "two passes a step, fused Adam, channels first": [
        *("accumulate=2", "speed.fused_adam=true", "speed.channels_last=false")
    ],
}


@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS)
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    config = load_config(config_file, overrides)
    whole = load_checkpoint(train(config, tmp_path / "whole"))
    steps = 0
    step = torch.optim.Adam.step

    def killed_in_the_fourth(*arguments: object, **options: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Killed
        return step(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", killed_in_the_fourth)
        with pytest.raises(Killed):
            train(config, tmp_path / "killed")
    assert load_checkpoint(tmp_path / "killed" / "checkpoint.pt")["step"] == 2
    resumed = load_checkpoint(train(config, tmp_path / "killed"))
    assert resumed["step"] == whole["step"] == 4
    for name, tensor in whole["network"].items():
        assert torch.equal(tensor, resumed["network"][name]), name


def test_checkpoint_of_an_older_program_goes_on(tmp_path: Path, config_file: Path) -> None:
    checkpoint = train(load_config(config_file, ["stop_at=2"]), tmp_path)
    state = load_checkpoint(checkpoint)
    save_checkpoint(
        checkpoint, {name: state[name] for name in ("step", "network", "optimizer", "config", "class_names")}
    )
    assert load_checkpoint(train(load_config(config_file, []), tmp_path))["step"] == 4


def test_clips_of_one_frame_train_all_but_the_inter_frame_branch(tmp_path: Path, config_file: Path) -> None:
    config = load_config(config_file, ["data.frames_per_clip=1", "steps=1"])
    trained = load_checkpoint(train(config, tmp_path))["network"]
    fresh = dict(build_network(config).named_parameters())
    same = {name.split(".")[0] for name, tensor in fresh.items() if torch.equal(tensor, trained[name])}
    changed = {name.split(".")[0] for name, tensor in fresh.items() if not torch.equal(tensor, trained[name])}
    assert same >= {"inter"}
    assert changed == {name.split(".")[0] for name in fresh} - {"inter"}


VALIDATION = ["validation.every=2", "validation.clips=1", "validation.size=[64,96]"]


def test_best_checkpoint_is_kept_and_remembered(
    tmp_path: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network this young finds nothing, AP 0 each time: the first validation stays the best, across a stop."""
    settings = [part for text in VALIDATION for part in ("--set", text)]
    assert main([str(config_file), "--out", str(tmp_path), *settings, "--set", "stop_at=2"]) == 0
    assert main([str(config_file), "--out", str(tmp_path), *settings]) == 0
    best = {"metric": "AP", "value": 0.0, "step": 2}
    assert load_checkpoint(tmp_path / "checkpoint.pt")["best"] == best
    assert load_checkpoint(tmp_path / "best.pt")["best"] == best
    assert load_checkpoint(tmp_path / "best.pt")["step"] == 2
    printed = capsys.readouterr()
    assert "validation AP=0.000" in printed.err, "the progress bar"
    assert "step 2: AP 0.0, AP50 0.0, IDF1 0.0 (AP the best so far); losses: class maps " in printed.err
    assert "step 4: AP 0.0, AP50 0.0, IDF1 0.0 (AP no better than 0.0); losses: class maps " in printed.err
    last_line = printed.out.splitlines()[-1]
    assert last_line.startswith("trained 4 steps; best AP 0.000 at step 2; export with: instance-flow-export ")
    assert "best.pt" in last_line


def test_a_better_checkpoint_replaces_the_best(tmp_path: Path, config_file: Path) -> None:
    checkpoint = train(load_config(config_file, ["stop_at=2", *VALIDATION]), tmp_path)
    state = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, {**state, "best": {"metric": "AP", "value": -0.5, "step": 1}})
    train(load_config(config_file, VALIDATION), tmp_path)
    assert load_checkpoint(tmp_path / "best.pt")["best"] == {"metric": "AP", "value": 0.0, "step": 4}


def test_clips_of_one_frame_have_pictures_too(tmp_path: Path, config_file: Path) -> None:
    train(load_config(config_file, ["data.frames_per_clip=1", "pictures_every=1", "steps=1"]), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [image.step for image in events.Images("maps")] == [1]


def test_tensorboard_has_losses_speed_scores_and_pictures(tmp_path: Path, config_file: Path) -> None:
    train(load_config(config_file, [*VALIDATION, "pictures_every=4"]), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    speed = {"clips_per_second", "seconds_per_step", "seconds_waiting_per_step", "waiting_for_data"}
    assert {"loss/total", "learning_rate", *speed} <= set(tags["scalars"])
    assert {f"validation/{name}" for name in METRICS} <= set(tags["scalars"])
    assert [scalar.step for scalar in events.Scalars("loss/total")] == [1, 2, 3, 4]
    # The first step is left out: its wait is that for the workers to start.
    assert [scalar.step for scalar in events.Scalars("waiting_for_data")] == [2, 3, 4]
    assert all(0 < scalar.value < 1 for scalar in events.Scalars("waiting_for_data"))
    assert [image.step for image in events.Images("maps")] == [4]


def test_dry_run_tells_and_writes_nothing(
    tmp_path: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(config_file), "--dry-run", "--out", str(tmp_path / "out"), "--set", "accumulate=2"]) == 0
    assert not (tmp_path / "out").exists()
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line[:1].isalpha())
    parameters = sum(p.numel() for p in build_network(load_config(config_file, [])).parameters())
    assert told["processes"].endswith("2 pass(es) of 1 clips per process and step")
    assert told["batch"].startswith("images (2, 64, 96, 3)")
    assert "reference_offset (1, 2, 16, 24)" in told["maps"]
    assert told["network"].startswith(f"{parameters / 1e6:.2f} M parameters")
    assert "s per clip on one core: data.workers=1 keep up with a process" in told["data"]
    assert "with the 0 of the configuration it waits for data" in told["data"]


def test_the_command_ends_with_its_speed(tmp_path: Path, config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(config_file), "--out", str(tmp_path)]) == 0
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("3 steps at ")
    assert " waiting for data; " in last_line


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """Two synthetic clips in YouTube-VIS's layout."""
    world = WorldConfig(size=(64, 96), frames=6)
    write_ytvis([generate_clip(seed, "mixed", world) for seed in (3, 4)], tmp_path / "set")
    return tmp_path / "set"


def settings_for(data_set: Path) -> list[str]:
    settings = ["data.source=youtube_vis", f"data.annotations={data_set}", "data.crop=[64,96]", "data.workers=1"]
    return [part for text in settings for part in ("--set", text)]


def test_a_data_set_on_disk_is_trained_on_and_scored(tmp_path: Path, config_file: Path, data_set: Path) -> None:
    scored = [
        "--set",
        "validation.every=4",
        "--set",
        f"validation.annotations={data_set}",
        "--set",
        "validation.limit=1",
    ]
    scored += ["--set", "validation.size=[64,96]"]
    assert main([str(config_file), "--out", str(tmp_path / "out"), *settings_for(data_set), *scored]) == 0
    assert load_checkpoint(tmp_path / "out" / "best.pt")["best"]["step"] == 4


def test_a_picture_that_breaks_while_training_is_named_in_one_line(
    tmp_path: Path, config_file: Path, data_set: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures = sorted(data_set.glob("JPEGImages/*/*.png"))
    for picture in pictures:
        picture.write_bytes(b"no picture")
    assert main([str(config_file), "--out", str(tmp_path / "out"), *settings_for(data_set)]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("instance-flow-train: error: /")
    assert "cannot be read as a picture" in error


def test_a_checkpoint_of_another_network_or_other_classes_is_refused(
    tmp_path: Path, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = train(load_config(config_file, ["stop_at=2"]), tmp_path)
    assert main([str(config_file), "--out", str(tmp_path), "--set", "model.semantic_channels=8"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "holds a network of another shape than this [model]: size mismatch for" in error
    assert f"begin a new run from it with --set init.checkpoint={checkpoint}" in error
    state = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, {**state, "class_names": ["cat", "dog"]})
    assert main([str(config_file), "--out", str(tmp_path)]) == 2
    assert "was trained with 2 classes (cat, dog, ...), the data here have 6" in capsys.readouterr().err


@pytest.mark.parametrize(("log_every", "step"), [(1, 1), (100, 2)], ids=["when it is logged", "before it is saved"])
def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, config_file: Path, capsys: pytest.CaptureFixture[str], log_every: int, step: int
) -> None:
    settings = ["--set", "model.pixel_scale=[1e-44, 1e-44, 1e-44]", "--set", f"log_every={log_every}"]
    assert main([str(config_file), "--out", str(tmp_path), *settings]) == 2
    assert f" at step {step}; resume from the last checkpoint with a lower" in capsys.readouterr().err
    assert not (tmp_path / "checkpoint.pt").exists()


def test_loss_falls_on_one_repeated_batch(config_file: Path) -> None:
    config = load_config(config_file, [])
    network = build_network(config)
    data = WorldClips(5, 2, ((64, 96),), frames=2, batch=2)
    images, targets = collate([data[0], data[1]])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        total = forward_losses(network, images, targets, config)["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.5 * totals[0]


def test_learning_rate_follows_the_paper() -> None:
    config = TrainConfig(steps=1000, warmup=10)
    assert learning_rate(config, 0) == pytest.approx(1e-4, rel=1e-3)
    assert learning_rate(config, 500) == pytest.approx(1e-3 * 0.5**0.9)
    assert learning_rate(config, 999) == pytest.approx(1e-3 * 0.001**0.9)


def test_learning_rate_falls_with_the_clock_where_that_is_nearer_its_end() -> None:
    config = TrainConfig(steps=1000, warmup=10, minutes=2.0)
    assert learning_rate(config, 500, 30.0) == pytest.approx(1e-3 * 0.5**0.9)
    assert learning_rate(config, 500, 90.0) == pytest.approx(1e-3 * 0.25**0.9)
    assert learning_rate(config, 500, 999.0) == 0.0


def test_a_run_ends_when_its_time_is_up_and_stays_so(tmp_path: Path, config_file: Path) -> None:
    config = load_config(config_file, ["steps=100000", "minutes=0.02", "validation.every=0"])
    ended = load_checkpoint(train(config, tmp_path))
    assert 1 <= ended["step"] < 1000
    assert ended["seconds"] >= 1.2
    assert load_checkpoint(train(config, tmp_path))["step"] == ended["step"]


def test_a_run_ends_when_validations_are_no_better(
    tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.2, 0.2, 0.1, 0.3, 0.9])
    monkeypatch.setattr(
        "instance_flow_training.loop.training.validate", lambda *_: dict.fromkeys(METRICS, 0.0) | {"AP": next(scores)}
    )
    config = load_config(config_file, ["steps=50", "save_every=50", "validation.every=1", "validation.patience=2"])
    state = load_checkpoint(train(config, tmp_path))
    assert (state["step"], state["best"]["step"], state["best"]["value"]) == (4, 2, 0.2)


COMMAND_ERRORS = {
    "no such config": (["nowhere.toml"], "nowhere.toml"),
    "no such weights": (["{config}", "--set", "model.backbone_weights=none.safetensors"], "no file none.safetensors"),
    "batch that does not divide": (["{config}", "--set", "accumulate=3"], "batch is 2, which 1 process(es) times"),
    "no such device": (["{config}", "--set", "device=cuda:99"], "device is 'cuda:99', but torch"),
    "no such checkpoint to begin from": (
        ["{config}", "--set", "init.checkpoint=none.pt"],
        "none.pt: no such checkpoint",
    ),
    "data set without a file": (["{config}", "--set", "data.source=coco"], "data.annotations must name"),
    "frozen part that is none": (
        ["{config}", "--set", 'frozen=["backbone.features.99"]'],
        "frozen names 'backbone.features.99', which this network has not; its parts are backbone, ",
    ),
    "rate of a part that is none": (["{config}", "--set", "rates.semantics=0.1"], "rates names 'semantics'"),
    "rate below 0": (["{config}", "--set", "rates.backbone=-1"], "rates.backbone is -1; it must be a number above 0"),
    "no data to score": (
        ["{config}", "--set", "validation.every=1", "--set", "validation.annotations=none.json"],
        "none.json",
    ),
    "out is a file": (["{config}", "--out", "{config}/out"], "cannot be written (Not a directory)"),
}


@pytest.mark.parametrize(("arguments", "message"), COMMAND_ERRORS.values(), ids=COMMAND_ERRORS)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, config_file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [a.format(config=config_file) for a in arguments]
    assert main(["--out", str(tmp_path / "out"), *filled]) == 2
    error = capsys.readouterr().err
    assert error.startswith("instance-flow-train: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("options", "code"), [(["--help"], 0), (["--no-such-option"], 2)], ids=["help", "mistyped"])
def test_help_and_mistakes_do_not_wait_for_torch(options: list[str], code: int) -> None:
    program = "import sys; sys.modules['torch'] = None; from instance_flow_training.train import main; main()"
    result = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    assert "usage: instance-flow-train" in result.stdout + result.stderr


def test_the_command_prints_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help-settings"]) == 0
    assert capsys.readouterr().out == describe_settings() + "\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_that_is_told_to_end_saves_what_it_has(tmp_path: Path, number: int) -> None:
    changes = ["steps=100000", "save_every=50000", "log_every=1", "data.workers=1"]
    options = [part for change in changes for part in ("--set", change)]
    command = [sys.executable, "-m", "instance_flow_training.train", str(TINY_PATH), "--out", str(tmp_path), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = ""
        while "total=" not in seen:
            seen += process.stderr.read(1)
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 130
    step = load_checkpoint(tmp_path / "checkpoint.pt")["step"]
    assert f"stopped at step {step}; saved {tmp_path / 'checkpoint.pt'}" in rest
    assert step > 0
    assert "Traceback" not in rest
