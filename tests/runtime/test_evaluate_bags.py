# SPDX-License-Identifier: Apache-2.0
"""A folder of bags against ground truth: who belongs to whom, real processes, what is finished, what went wrong."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from red_thing import HEIGHT, INFO, WIDTH, frames, red_network, write_source

from instance_flow.commands.cli import main
from instance_flow.evaluation.evaluate import evaluate
from instance_flow.formats.rle import encode
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth
from instance_flow.replay.bag_evaluation import FINISHED, STOP, make_jobs, merge_and_evaluate, run_job, run_jobs
from instance_flow.replay.bag_matching import find_bags, match_bags, match_categories
from instance_flow.replay.journal import FOLDER, FRAMES_PER_SNAPSHOT
from instance_flow.replay.settings import OutputOptions, Settings
from instance_flow.replay.worker_processes import local_processes
from instance_flow.structures import SourceError

pytest.importorskip("rosbags")

COUNT = 5


def video(video_id: int, name: str, length: int = COUNT) -> Video:
    files = tuple(f"{name}/{k:05}.jpg" if name else f"{k:05}.jpg" for k in range(length))
    return Video(video_id, HEIGHT, WIDTH, length, files)


def truth_of(*videos: Video, categories: Sequence[Category] = (Category(7, "red"),)) -> GroundTruth:
    """The red squares of ``red_thing.frames`` in every video."""
    masks = [encode((image[..., 0] > 200).astype(np.uint8)) for image in frames(COUNT)]
    annotations = [Annotation(v.id, v.id, categories[0].id, masks[: v.length]) for v in videos]
    return GroundTruth(videos, tuple(categories), tuple(annotations), "truth.json")


def touch(folder: Path, *names: str) -> dict[str, Path]:
    for name in names:
        if Path(name).suffix:
            (folder / name).touch()
        else:
            (folder / name).mkdir()
            (folder / name / "metadata.yaml").touch()
    return find_bags(folder)


@pytest.mark.parametrize(
    ("bags", "videos", "mapping", "pairs", "lone_bags", "lone_videos"),
    [
        (["a.mcap", "b.db3", "c"], ["a", "b", "c"], None, {"a": 1, "b": 2, "c": 3}, [], []),
        (["a.mcap", "x.mcap"], ["a", "b"], None, {"a": 1}, ["x"], ["b"]),
        (["x.mcap", "y.mcap"], ["a", "b"], {"x": "b", "y": 1}, {"x": 2, "y": 1}, [], []),
        (["a.mcap", "b.mcap"], ["a", "b"], {"a": "b", "b": "a"}, {"a": 2, "b": 1}, [], []),
        (["a.mcap"], ["deep/in/a"], None, {"a": 1}, [], []),
        (["x.mcap"], [""], {"x": 1}, {"x": 1}, [], []),
        (["a.mcap"], ["a", ""], None, {"a": 1}, [], ["id 2"]),
    ],
    ids=[
        "by name",
        "some without partner",
        "mapped",
        "mapped crosswise",
        "deeper folder",
        "by id",
        "video without name",
    ],
)
def test_matching(
    tmp_path: Path,
    bags: list[str],
    videos: list[str],
    mapping: dict[str, object] | None,
    pairs: dict[str, int],
    lone_bags: list[str],
    lone_videos: list[str],
) -> None:
    found = touch(tmp_path, *bags, "notes.txt")
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    truth = truth_of(*(video(k, name) for k, name in enumerate(videos, start=1)))
    matching = match_bags(found, truth, tmp_path / "map.json" if mapping else None)
    assert {name: video.id for name, (_, video) in matching.pairs.items()} == pairs
    assert {name: path for name, (path, _) in matching.pairs.items()} == {name: found[name] for name in pairs}
    assert (matching.lone_bags, matching.lone_videos) == (lone_bags, lone_videos)


@pytest.mark.parametrize(
    ("bags", "videos", "mapping", "message"),
    [
        (["a.mcap", "a.db3"], ["a"], None, "holds two bags named a"),
        (["notes.txt"], ["a"], None, "holds no bags"),
        (["x.mcap"], ["a", "b"], None, "no bag has the name of a video of truth.json; bags: x; videos: a, b"),
        (["x.mcap"], [""], None, "videos: their file_names are in no folder; map them by a file"),
        (["a.mcap"], ["p/a", "q/a"], None, "two videos have their pictures in a folder named a"),
        (["a.mcap", "b.mcap"], ["a"], {"b": "a"}, "the bags a and b are both of video 1"),
        (["a.mcap"], ["a"], {"b": "a"}, "there is no bag named 'b'; bags: a"),
        (["a.mcap"], ["a"], {"a": 9}, "9 is neither the name nor the id of a video of truth.json"),
        (["a.mcap"], ["a"], ["a"], "expected a JSON object"),
    ],
    ids=["twice", "no bags", "no pair", "nameless", "same folder", "one video", "no bag", "no video", "a list"],
)
def test_what_does_not_match_is_said(
    tmp_path: Path, bags: list[str], videos: list[str], mapping: object, message: str
) -> None:
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    truth = truth_of(*(video(k, name) for k, name in enumerate(videos, start=1)))
    with pytest.raises(SourceError, match=message):
        match_bags(touch(tmp_path, *bags), truth, tmp_path / "map.json" if mapping else None)


def test_categories_are_known_by_their_names() -> None:
    categories = [Category(4, "car"), Category(9, "person")]
    assert match_categories(["person", "tree", "car"], truth_of(categories=categories)) == (9, 10, 4)
    with pytest.raises(SourceError, match=r"none of its categories \(car, person\) is a class of the model \(tree\)"):
        match_categories(["tree"], truth_of(categories=categories))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bags a, b and c in three forms, b one frame short of its video; x without ground truth."""
    bags = tmp_path / "bags"
    bags.mkdir()
    for name, count in (("a.mcap", COUNT), ("b.db3", COUNT - 1), ("c.mcap", COUNT), ("x.mcap", 1)):
        write_source(bags / name, frames(count))
    truth = truth_of(video(1, "c"), video(2, "b"), video(3, "a"), video(4, "d"))
    write_ground_truth(tmp_path / "truth.json", truth)
    return bags


def command(folder: Path, model: Path, *options: str) -> list[str]:
    truth, out = folder.parent / "truth.json", folder.parent / "out"
    return ["evaluate-bags", str(truth), str(folder), "--model", str(model), "--out", str(out), *options]


def test_a_folder_of_bags_in_processes(
    folder: Path, model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Run, fix the bag that was wrong, run again: only that one is worked on; then nothing is."""
    out = tmp_path / "out"
    assert main(command(folder, model, "--jobs", "2")) == 2
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1:4]] == ["a", "b", "c"]
    assert said[1].split() == ["a", "5", "1", "0", "run"]
    assert said[2].endswith(f"{folder / 'b.db3'} has 4 images, but its video has 5 frames")
    assert said[4:6] == ["without ground truth, not run: x", "without a bag, not measured: d"]
    assert {entry["video_id"] for entry in json.loads((out / "results.json").read_text())} == {1, 3}
    first = json.loads((out / "evaluation.json").read_text())
    assert (first["AP50"], first["IDSW"], first["IDF1"]) == (1, 0, 1)

    write_source(folder / "b.db3", frames(COUNT))
    states = {}
    for attempt in ("fixed", "again"):
        assert main(command(folder, model)) == 0
        states[attempt] = [line.split(maxsplit=4)[4] for line in capsys.readouterr().out.splitlines()[1:4]]
    assert states == {"fixed": ["finished before", "run", "finished before"], "again": ["finished before"] * 3}
    assert main(command(folder, model, "--set", "max_instances=5")) == 0
    assert [line.split(maxsplit=4)[4] for line in capsys.readouterr().out.splitlines()[1:4]] == ["run"] * 3
    results = json.loads((out / "results.json").read_text())
    assert [entry["video_id"] for entry in results] == [1, 2, 3]
    assert {entry["category_id"] for entry in results} == {7}
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c", "evaluation.json", "results.json"]
    files = {"results.json", "tracks.jsonl", "contact_sheet.png", "tracks.mcap", "finished.json"}
    assert {path.name for path in (out / "a").iterdir()} == files


def test_a_bag_of_tracks_that_is_missing_is_made(folder: Path, model: Path, tmp_path: Path) -> None:
    """Bags that are finished without one are run again, others are not."""
    matching = match_bags({"a": folder / "a.mcap"}, truth_of(video(3, "a")))
    before = []
    for form in ("none", "mcap", "none"):
        output_options = OutputOptions(video=False, report=False, bag=form, category_ids=(7,))
        before.append(run_job(make_jobs(matching, tmp_path / "out", Settings(model), output_options)["a"]).before)
    assert before == [False, False, True]
    assert (tmp_path / "out" / "a" / "tracks.mcap").is_file()


def test_the_numbers_are_those_of_the_joined_file(folder: Path, model: Path, tmp_path: Path) -> None:
    truth = truth_of(video(1, "c"), video(3, "a"))
    matching = match_bags(find_bags(folder), truth)
    jobs = make_jobs(matching, tmp_path / "out", Settings(model), OutputOptions(category_ids=(7,)))
    with ThreadPoolExecutor(2) as executor:  # any executor will do
        outcomes = dict(run_jobs(jobs, executor))
    assert {name: outcome.problem for name, outcome in outcomes.items()} == {"a": "", "c": ""}
    numbers = merge_and_evaluate(truth, jobs, tmp_path / "out", "coco")
    write_ground_truth(tmp_path / "two.json", truth)
    alone = evaluate(tmp_path / "two.json", tmp_path / "out" / "results.json", size_limits="coco")
    assert numbers == alone


class _Dying(Executor):
    """An engine that loses every job."""

    def submit(self, *_: object, **__: object):  # type: ignore[no-untyped-def]
        from concurrent.futures import Future

        future: Future[object] = Future()
        future.set_exception(RuntimeError("the machine is gone"))
        return future


def test_a_worker_that_dies_is_told(folder: Path, model: Path, tmp_path: Path) -> None:
    matching = match_bags(find_bags(folder), truth_of(video(3, "a")))
    jobs = make_jobs(matching, tmp_path / "out", Settings(model), OutputOptions())
    ((name, outcome),) = run_jobs(jobs, _Dying())
    assert (name, outcome.problem) == ("a", "its worker failed: the machine is gone")


def test_jobs_that_are_told_to_stop_go_on_later(folder: Path, model: Path, tmp_path: Path) -> None:
    """The stop file is there from the first frame on, so the job is stopped in its midst."""
    truth = truth_of(video(1, "c"), video(3, "a"))
    jobs = make_jobs(match_bags(find_bags(folder), truth), tmp_path / "out", Settings(model), OutputOptions())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".stop").touch()
    first = run_job(jobs["a"]).summary
    with local_processes(1) as executor:
        later = dict(run_jobs({"a": jobs["a"]}, executor))
    assert not (tmp_path / "out" / ".stop").exists(), "what a command left that was killed does not stop the next one"
    second = later["a"].summary
    assert first is not None
    assert (first["interrupted"], first["frames"]) == (True, 1)
    assert second is not None
    assert (second["interrupted"], second["frames"], second["frames_taken_over"]) == (False, COUNT, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["Ctrl-C", "SIGTERM", "killed"])
def test_a_command_that_is_ended_takes_its_processes_along(
    folder: Path, model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The command waits for a bag whose file is a FIFO; Ctrl-C goes to all processes, as a terminal sends it."""
    start = "import sys; from instance_flow.commands.cli import main; sys.exit(main())"
    (folder / "a.mcap").unlink()
    (folder / "a").mkdir()
    os.mkfifo(folder / "a" / "part.mcap")
    process = subprocess.Popen(
        [sys.executable, "-c", start, *command(folder, model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with (folder / "a" / "part.mcap").open("wb"):  # opens when a worker has come to read it
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    # It comes back when the last process that holds the pipes has ended.
    said, errors = process.communicate(timeout=120)
    if number == signal.SIGKILL:
        assert process.returncode == -number
        return
    assert process.returncode == 128 + number, (said, errors)
    assert "stopped; run the same command again to resume" in errors
    assert not (tmp_path / "out" / ".stop").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: ["--scheduler", "tcp://127.0.0.1:9"], "tcp://127.0.0.1:9: no dask scheduler answers there"),
        (lambda _: ["--scheduler", "carrier://pigeon"], "unknown address scheme 'carrier'"),
        (lambda _: ["--scheduler", "tcp://127.0.0.1:9", "--jobs", "2"], "--jobs is for this machine alone"),
        (lambda folder: ["--videos", str(folder / "gone.json")], "gone.json: there is no such file"),
        (lambda folder: ["--out", str(folder / "a.mcap")], "is a file, but --out needs a folder"),
        (lambda folder: ["--out", str(folder)], "holds the bags themselves; name another folder for --out"),
    ],
    ids=["no scheduler", "no address", "cluster and jobs", "no mapping", "out is a file", "out is the folder of bags"],
)
def test_bad_input(folder: Path, model: Path, change: object, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = change(folder)  # type: ignore[operator]
    pytest.importorskip("distributed.client")  # brings its part of the configuration
    with pytest.importorskip("dask").config.set({"distributed.comm.timeouts.connect": "500ms"}):
        assert main(command(folder, model, *options)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_cluster_without_dask_is_said(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(command(folder, model, "--scheduler", "tcp://host:8786")) == 2
    assert "install it with: pip install 'instance-flow[cluster]'" in capsys.readouterr().err


LONG = 10 * FRAMES_PER_SNAPSHOT


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Bags a, which takes a while, and b, c, d; their truth is ``truth.json`` beside the folder."""
    bags = tmp_path / "bags"
    bags.mkdir()
    images = frames(COUNT)
    write_source(bags / "a.mcap", [images[k % COUNT] for k in range(LONG)])
    for name in "bcd":
        write_source(bags / f"{name}.mcap", images)
    truth = truth_of(*(video(k, name) for k, name in enumerate("bcd", start=1)))
    write_ground_truth(tmp_path / "truth.json", replace(truth, videos=(*truth.videos, video(4, "a", LONG))))
    return bags


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler, as a process; workers are added."""
    pytest.importorskip("distributed")
    with ExitStack() as stack:
        yield Cluster(tmp_path / "cluster", stack)


class Cluster:
    """Processes of dask that were started in a folder of their own, as on other machines."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir()
        self._folder, self._stack = folder, stack
        file = folder / "scheduler.json"
        at = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        self.scheduler = self._start("scheduler", *at, "--scheduler-file", str(file))
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        self.address: str = json.loads(file.read_text())["address"]

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "dask", *arguments]
            process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


def has_open(process: subprocess.Popen[bytes], path: Path) -> bool:
    files = Path(f"/proc/{process.pid}/fd")
    return any(os.path.realpath(file) == str(path) for file in files.iterdir())


def files_of(out: Path) -> dict[str, bytes]:
    """All files but those that say how long it took."""
    paths = [path for path in out.rglob("*") if path.is_file() and path.name != FINISHED]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def begin(folder: Path, model: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    """The command as users start it: paths as seen from where they are, its errors on a terminal, which is given."""
    relative = os.path.relpath(model, folder.parent)
    arguments = ["evaluate-bags", "truth.json", folder.name, "--model", relative, *options]
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    start = "import sys; from instance_flow.commands.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", start, *arguments], cwd=folder.parent, stdout=subprocess.PIPE, stderr=its_end, text=True
    )
    os.close(its_end)
    return process, terminal


def told_on(terminal: int) -> str:
    said = b""
    try:
        while more := os.read(terminal, 4096):
            said += more
    except OSError:  # how Linux reports that the other end is closed
        pass
    os.close(terminal)
    return said.decode()


def test_a_worker_of_a_cluster_is_killed(fleet: Path, model: Path, cluster: Cluster) -> None:
    """Another one resumes its bag from the journal, and the files are those of --jobs."""
    parent = fleet.parent
    process, terminal = begin(fleet, model, "--out", "over", "--scheduler", cluster.address)
    workers = [cluster.add_worker() for _ in range(2)]
    journal = parent / "over" / "a" / FOLDER
    wait_for((journal / "snapshot.npz").exists)
    (busy,) = (worker for worker in workers if has_open(worker, journal / "answers"))
    busy.kill()
    said, told = process.communicate(timeout=60)[0], told_on(terminal)
    assert process.returncode == 0, told
    rows = [line.split() for line in said.splitlines()[1:5]]
    assert rows == [["a", str(LONG), "1", "0", "run"], *([name, str(COUNT), "1", "0", "run"] for name in "bcd")]
    assert "bags: 100%" in told
    assert "4/4" in told
    taken_over = json.loads((parent / "over" / "a" / FINISHED).read_text())["summary"]["frames_taken_over"]
    assert FRAMES_PER_SNAPSHOT <= taken_over < LONG
    assert main(command(fleet, model, "--jobs", "2")) == 0
    assert files_of(parent / "over") == files_of(parent / "out")


def test_a_scheduler_that_ends_is_told(fleet: Path, model: Path, cluster: Cluster) -> None:
    """No worker has come by then; a sentence for every bag, no traceback, and nothing waits for ever."""
    process, terminal = begin(fleet, model, "--out", "over", "--scheduler", cluster.address)
    told = os.read(terminal, 4096).decode()
    assert "has no worker yet, and the bags wait for one: dask worker tcp://127.0.0.1:" in told
    cluster.scheduler.kill()
    said, told = process.communicate(timeout=60)[0], told_on(terminal)
    assert process.returncode == 2
    assert said.count("given up by the scheduler, which has ended or was restarted") == 4
    assert "Traceback" not in told
    assert told.rstrip().endswith("bags: not one bag could be run to its end")


def test_a_cluster_is_stopped(fleet: Path, model: Path, cluster: Cluster) -> None:
    """The worker's bag ends in its midst, those behind it do not begin, and the same command resumes."""
    cluster.add_worker()
    over = fleet.parent / "over"
    process, terminal = begin(fleet, model, "--out", "over", "--scheduler", cluster.address)
    wait_for((over / "a" / FOLDER / "snapshot.npz").exists)
    process.send_signal(signal.SIGINT)
    said, told = process.communicate(timeout=60)[0], told_on(terminal)
    assert process.returncode == 130
    assert told.rstrip().endswith("stopped; run the same command again to resume")
    rows = {line.split()[0]: line.split(maxsplit=4)[1:] for line in said.splitlines()[1:5]}
    assert rows.pop("a")[3] == "stopped"
    assert {row[3] for row in rows.values()} == {"not begun"}
    assert not (over / STOP).exists()
    process, terminal = begin(fleet, model, "--out", "over", "--scheduler", cluster.address)
    process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in told_on(terminal)) == (0, False)
    summary = json.loads((over / "a" / FINISHED).read_text())["summary"]
    assert (summary["frames"], summary["frames_taken_over"] >= FRAMES_PER_SNAPSHOT) == (LONG, True)


def test_a_worker_that_lives_on_sees_that_the_model_is_another(folder: Path, model: Path, tmp_path: Path) -> None:
    """Two runs in one process; the second model has the first one's name and finds nothing, as its limit is higher."""
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    jobs = make_jobs(
        match_bags(find_bags(folder), truth_of(video(3, "a"))), tmp_path / "out", Settings(copy), OutputOptions()
    )
    first = run_job(jobs["a"]).summary
    copy.write_bytes(red_network(replace(INFO, min_score=1.0)))
    second = run_job(jobs["a"]).summary
    assert first is not None
    assert second is not None
    assert (first["ids"], second["ids"]) == (1, 0)


def test_the_model_of_these_tests_is_of_the_class_of_their_truth() -> None:
    assert match_categories(INFO.class_names, truth_of()) == (7,)
