# SPDX-License-Identifier: Apache-2.0
"""What may be named as a source, and streams as they are: a server of MJPEG or RTSP in a process of its own that is
fast, ends, stalls, or sends what is no video; a video on standard input; Ctrl-C in the midst of it.

No camera of Video4Linux was ever opened here: the machines of this project have neither one nor the kernel module that
plays one (v4l2loopback). What a camera may be refused for is tested; that it gives pictures is not.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from urllib.request import urlopen

import cv2
import pytest
from red_thing import frames, lines_of, write_source
from rtsp_server import rtsp_server, write_h264

from instance_flow.commands.cli import main
from instance_flow.formats.video import open_source
from instance_flow.sources import streams
from instance_flow.sources.live import LiveSource
from instance_flow.sources.naming import find_inputs
from instance_flow.sources.streams import Address, CameraDevice
from instance_flow.structures import SourceError

COMMAND = [sys.executable, "-m", "instance_flow", "run"]
LIVE_FILES = {"tracks.jsonl", "overlay.mp4", "contact_sheet.png", "report.html"}
FILES = {"results.json", *LIVE_FILES}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of ``stream_server.py``, which also serves clip.mp4."""
    folder = tmp_path_factory.mktemp("served")
    write_source(folder / "clip.mp4", frames())
    command = [sys.executable, str(Path(__file__).with_name("stream_server.py")), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["0"], [("video0", None)]),
        (["/dev/video7"], [("video7", None)]),
        (["-"], [("stdin", None)]),
        (["rtsp://user:secret@host:8554/a/b?c=d"], [("host-8554-a-b", None)]),
        (["RTSP://host/a"], [("host-a", None)]),
        (["http://[::1]/"], [("1", None)]),
        (["10"], [("10", "10")]),
        (["videos"], [("a", "videos/a.mp4"), ("b2", "videos/b2.mkv"), ("b10", "videos/b10.mp4")]),
        (["videos/b*.m*"], [("b2", "videos/b2.mkv"), ("b10", "videos/b10.mp4")]),
        (["videos/a.mp4", "more/a.mp4"], [("1-a", "videos/a.mp4"), ("2-a", "more/a.mp4")]),
        (["more/a.mp4", "more/a.mkv"], [("a.mp4", "more/a.mp4"), ("a.mkv", "more/a.mkv")]),
        (["more/a.mp4", "more/a.mp4"], [("a", "more/a.mp4")]),
        (["pictures"], [("pictures", "pictures")]),
        (["pictures/10.png", "pictures/9.png"], [("pictures", "pictures")]),
        (["pictures/*.png"], [("pictures", "pictures")]),
        (["pictures/9.png"], [("9", "pictures/9.png")]),
        (["pictures", "videos/a.mp4"], [("pictures", "pictures"), ("a", "videos/a.mp4")]),
        (["a[1].mp4"], [("a[1]", "a[1].mp4")]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
)
def test_what_names_stand_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], expected: list[tuple[str, str | None]]
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("videos/a.mp4", "videos/b10.mp4", "videos/b2.mkv", "videos/notes.txt", "more/a.mp4", "more/a.mkv"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    for file in ("pictures/9.png", "pictures/10.png", "10", "a[1].mp4"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    found = find_inputs(names)
    assert [(given.name, given.path and str(given.path)) for given in found] == expected
    if len(names) > 1 or "*" in names[0]:
        assert [file.name for file in found[0].pictures] in ([], ["9.png", "10.png"]), "in natural order"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["gone.mp4"], "gone.mp4: no such file or folder"),
        (["*.mp4"], r"\*.mp4: no file matches"),
        (["ftp://host/a"], "ftp is none of the addresses that can be run: rtsp, rtsps, http, https"),
        (["rtsp:///a"], "this address is damaged; expected rtsp://HOST"),
        (["http://host:99999/"], "this address is damaged; expected http://HOST"),
        (["0", "-"], "/dev/video0: a stream is run by itself"),
    ],
)
def test_names_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=said):
        find_inputs(names)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/dev/video987", r"/dev/video987: no such camera; (there are /dev/video|this machine has none)"),
        ("/dev/null", "/dev/null is not a camera, which would be a device such as /dev/video0"),
    ],
)
def test_a_device_that_is_no_camera(path: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", path, "--out", str(tmp_path / "out")]) == 2
    with pytest.raises(SourceError, match=said) as caught:
        CameraDevice(Path(path)).open()
    assert capsys.readouterr().err == f"instance-flow: error: {caught.value}\n"
    assert not (tmp_path / "out").exists()


HOLD = """
import os, sys
os.open(sys.argv[1], os.O_PATH)  # a device without a driver cannot be opened for more
open("/proc/self/comm", "w").write(sys.argv[2])
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("program", "said"), [("guvcview", "guvcview"), ("a\x1b[1m b", r"a\\x1b\[1m b")])
def test_a_busy_camera(program: str, said: str, tmp_path: Path) -> None:
    """Whoever else has the device open is named, by the link to it too; once that program has ended, nobody is."""
    device, link = tmp_path / "video0", tmp_path / "by-id"
    link.symlink_to(device)
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(81, 250))  # a number that no camera has
    except OSError:
        pytest.skip("only root makes devices")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(device), program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        for path in (device, link):
            busy = rf"{path}: the camera is busy: {said} \(process {holder.pid}\) uses it; end that program$"
            with pytest.raises(SourceError, match=busy):
                CameraDevice(path).open()
        holder.communicate()
    with pytest.raises(SourceError, match=f"{device}: cannot be opened as a camera: it is busy, or not a device"):
        CameraDevice(device).open()


def test_a_live_run(server: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, began = tmp_path / "out", time.time_ns()
    options = ["--model", str(model), "--out", str(out), "--duration", "1", "--json"]
    assert main(["run", f"{server}/camera", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    table = lines_of(out / "tracks.jsonl")
    stamps = [line["stamp"] for line in table]
    assert {path.name for path in out.iterdir()} == LIVE_FILES
    assert (report["interrupted"], "lost" in report) == (False, False)
    assert 3 <= report["frames"] + report["dropped"] <= 25, "20 frames per second for one second"
    assert [line["number"] for line in table] == list(range(report["frames"]))
    assert stamps == sorted(stamps)
    assert began < stamps[0] <= stamps[-1] < time.time_ns()
    assert stamps[-1] - stamps[0] <= 1.1e9
    assert table[-1]["tracks"][0]["velocity"]["x"] is not None
    assert "dropped" in (out / "report.html").read_text()


def test_the_newest_frame_wins(server: str) -> None:
    source = LiveSource(Address(f"{server}/camera"))
    stream = source.frames(lambda *_: None)
    first = next(stream)
    while source.dropped < 5:
        time.sleep(0.01)
    now = time.time_ns()
    second = next(stream)
    assert (first.number, second.number) == (0, 1)
    assert first.stamp is not None
    assert second.stamp is not None
    assert second.stamp - first.stamp > 4 * 0.04e9, "those in between were dropped"
    assert now - second.stamp < 0.5e9
    stream.close()  # type: ignore[attr-defined]
    assert source.facts() == {"dropped": source.dropped}


def test_a_lost_stream_is_connected_to_again(server: str, caplog: pytest.LogCaptureFixture) -> None:
    source = LiveSource(Address(f"{server}/short"), reconnects=2)
    read = list(source)
    assert 5 < len(read) + source.dropped <= 15
    assert source.reconnected == 2
    assert source.lost == f"{server}/short: the stream was lost; given up after 2 attempts to connect again"
    assert [record.getMessage() for record in caplog.records] == [
        f"{server}/short: the stream was lost; attempt {k} of 2 to connect again in {wait} s"
        for k, wait in ((1, "0.5"), (2, "1"))
    ]


def test_a_camera_that_is_gone_for_good(
    server: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was seen until then is kept, in whole files."""
    out = tmp_path / "out"
    assert main(["run", f"{server}/once", "--model", str(model), "--out", str(out), "--reconnect", "1", "--json"]) == 2
    said = capsys.readouterr()
    why = f"{server}/once: the server answers 404 Not Found; check the path, the user and the password"
    assert said.err.splitlines()[-1] == f"instance-flow: error: {why}; given up after 1 attempts to connect again"
    assert json.loads(said.out)["frames"] == len(lines_of(out / "tracks.jsonl")) > 0
    assert {path.name for path in out.iterdir()} == LIVE_FILES


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/silent", "the server sent nothing within 1 s; is the camera running?"),
        ("/garbage", "what the server sends as multipart/x-mixed-replace cannot be decoded as a video"),
        ("/broken", "what the server sends as multipart/x-mixed-replace cannot be decoded as a video"),
        ("/page", "what the server sends as text/html cannot be decoded as a video"),
        ("/nothing", "the server answers 404 Not Found; check the path, the user and the password"),
    ],
)
def test_streams_that_are_none(
    server: str,
    path: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "OPEN_SECONDS", 1.0)
    monkeypatch.setattr(streams, "_CHECK_SECONDS", 0.5)
    assert main(["run", f"{server}{path}", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr() == ("", f"instance-flow: error: {server}{path}: {said}\n")
    assert not (tmp_path / "out").exists()


def test_hosts_that_do_not_answer(server: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for url, said in (
            (
                f"rtsp://me:secret@127.0.0.1:{port}/a",
                f"^rtsp://127.0.0.1:{port}/a: .*Connection refused; is the camera",
            ),
            ("http://nobody.invalid/", "there is no host nobody.invalid; check the name and the network"),
            (server.replace("http", "rtsp"), "it does not speak RTSP: it answered"),
        ):
            with pytest.raises(SourceError, match=said):
                LiveSource(Address(url))


def test_a_stream_that_stalls(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "READ_SECONDS", 0.5)
    source = LiveSource(Address(f"{server}/stalls"), reconnects=0)
    assert 0 < len(list(source)) + source.dropped <= 5
    assert source.lost == f"{server}/stalls: the stream was lost"


def test_a_duration_ends_a_stream_that_stalls(server: str) -> None:
    source = LiveSource(Address(f"{server}/stalls"), duration=0.6)
    began = time.monotonic()
    assert len(list(source)) <= 5
    assert time.monotonic() - began < streams.READ_SECONDS + 2
    assert source.lost == ""


def test_a_video_file_over_http_is_read_whole(server: str) -> None:
    source = LiveSource(Address(f"{server}/clip.mp4"))
    assert (source.recorded, source.length) == (True, 6)
    assert [frame.stamp for frame in source] == [k * 10**8 for k in range(6)]
    assert (source.lost, source.facts()) == ("", {})


def test_rtsp(tmp_path: Path) -> None:
    """A server that others wrote, in a process of its own."""
    write_h264(tmp_path / "clip.mp4", frames(10) * 8)
    with rtsp_server(tmp_path) as address:
        source = LiveSource(Address(f"{address}/clip.mp4"), duration=1.0)
        read = list(source)
        with pytest.raises(SourceError, match=r"the server answers 404 .*; check the path"):
            LiveSource(Address(f"{address}/gone.mp4"))
    # A server may send faster than the clip plays, but not all of its 80 frames within a second.
    assert 5 < len(read) + source.dropped < 80
    assert read[0].image.shape == (96, 128, 3)
    assert not source.recorded


def test_the_duration_of_a_recording_is_by_its_own_times(tmp_path: Path, model: Path) -> None:
    """As that of a file is: the clock would end it wherever the machine just is."""
    clip = write_source(tmp_path / "clip.mp4", frames(30)).read_bytes()
    command = [*COMMAND, "-", "--model", str(model), "--out", str(tmp_path / "out"), "--no-video", "--duration", "0.5"]
    done = subprocess.run(command, input=clip, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line["stamp"] for line in lines_of(tmp_path / "out" / "tracks.jsonl")] == [k * 10**8 for k in range(5)]


@pytest.mark.parametrize("container", [True, False], ids=["with times", "without"])
def test_standard_input(tmp_path: Path, model: Path, container: bool) -> None:
    """Every frame counts: who writes into a pipe waits."""
    clip = write_source(tmp_path / "clip.mp4", frames(30)).read_bytes()
    pictures = b"".join(file.read_bytes() for file in sorted(write_jpegs(tmp_path / "jpegs").iterdir()))
    command = [*COMMAND, "-", "--model", str(model), "--out", str(tmp_path / "out"), "--json", "--no-video"]
    done = subprocess.run(command, input=clip if container else pictures, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    report = json.loads(done.stdout)
    assert (report["frames"], report["source"], "dropped" in report) == (30, "stdin", False)
    stamps = [line["stamp"] for line in lines_of(tmp_path / "out" / "tracks.jsonl")]
    assert stamps == [k * 10**8 if container else None for k in range(30)]
    assert ("velocities" in report) is not container


def write_jpegs(folder: Path) -> Path:
    folder.mkdir()
    for number, image in enumerate(frames(30)):
        cv2.imwrite(str(folder / f"{number:03}.jpg"), image[..., ::-1])
    return folder


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "standard input: it ended before the first byte; did the program before it fail?"),
        (
            b"no video" * 1000,
            "standard input: cannot be read as a video; expected Matroska, MPEG-TS, MP4, MJPEG or raw",
        ),
    ],
    ids=["empty", "garbage"],
)
def test_standard_input_that_is_no_video(tmp_path: Path, data: bytes, said: str) -> None:
    done = subprocess.run([*COMMAND, "-"], input=data, capture_output=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert said in done.stderr.decode()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("path", ["/camera", "-"], ids=["camera", "stdin that is silent by now"])
def test_a_stopped_stream_leaves_whole_files(server: str, model: Path, tmp_path: Path, number: int, path: str) -> None:
    out = tmp_path / "out"
    named = path if path == "-" else f"{server}{path}"
    command = [*COMMAND, named, "--model", str(model), "--out", str(out), "--json", "--serve", "0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    watchdog = Timer(60, process.kill)
    watchdog.daemon = True
    watchdog.start()
    assert process.stdin is not None
    assert process.stderr is not None
    if path == "-":
        process.stdin.write(write_h264(tmp_path / "clip.ts", frames(10) * 8).read_bytes())
        process.stdin.flush()
    address = process.stderr.readline().decode().split()[-1]
    with urlopen(f"{address}events", timeout=60) as events:
        next(line for line in events if line.startswith(b"data: {") and json.loads(line[6:])["number"] >= 2)
    process.send_signal(number)
    errors = process.stderr.read()
    said = process.communicate()[0]
    watchdog.cancel()
    assert (process.returncode, errors) == (128 + number, b"")
    report = json.loads(said)
    assert (report["interrupted"], "to_go_on" in report) == (True, False)
    assert len(lines_of(out / "tracks.jsonl")) == report["frames"] > 2
    assert {file.name for file in out.iterdir()} == (FILES if path == "-" else LIVE_FILES)
    assert len(list(open_source(out / "overlay.mp4"))) > 0


def test_a_live_run_writes_over_no_other(
    server: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        options = ["--model", str(model), "--max-frames", "1", "--no-report", "--no-video"]
        assert main(["run", f"{server}/camera", *options]) == 0
    name = f"{server.removeprefix('http://').replace(':', '-')}-camera"
    assert sorted(os.listdir("out")) == [name, f"{name}-2"]


def test_several_sources(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each begins with id 1, and one that is broken does not keep the others from their files."""
    write_source(tmp_path / "a.mp4", frames())
    write_source(tmp_path / "b.mp4", frames(3))
    (tmp_path / "broken.mp4").write_bytes(b"broken")
    out = tmp_path / "out"
    assert main(["run", str(tmp_path), "--model", str(model), "--out", str(out), "--json"]) == 2
    said = capsys.readouterr()
    report = json.loads(said.out)["sources"]
    assert {name: summary["frames"] for name, summary in report.items()} == {"a": 6, "b": 3}
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    for name in ("a", "b"):
        assert {path.name for path in (out / name).iterdir()} == FILES
        assert lines_of(out / name / "tracks.jsonl")[0]["tracks"][0]["id"] == 1
    assert said.err.splitlines()[-1].endswith("error: 1 of 3 sources could not be run; each is named above")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("clip", ["--rate", "10"], (6, 80.0)),
        ("clip", ["--rate", "5"], (6, 40.0)),
        ("clip", [], (6, None)),
        ("clip", ["--rate", "10", "--duration", "0.3"], (3, 80.0)),
        ("clip.mp4", ["--duration", "0.3"], (3, 80.0)),
        ("clip", ["--duration", "0.3"], "has no times, so --duration needs --rate HZ beside it"),
        ("clip.mp4", ["--rate", "10"], "--rate is for pictures and streams without times, but .* has its own"),
    ],
)
def test_rate_and_duration(
    tmp_path: Path,
    model: Path,
    name: str,
    options: list[str],
    expected: tuple[int, float | None] | str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write_source(tmp_path / name, frames())
    out = tmp_path / "out"
    command = ["run", str(source), "--model", str(model), "--out", str(out), "--json", "--no-video", *options]
    code, said = main(command), capsys.readouterr()
    if isinstance(expected, str):
        assert code == 2
        assert not out.exists()
        assert re.search(expected, said.err)
        return
    table, (count, speed) = lines_of(out / "tracks.jsonl"), expected
    velocity = table[-1]["tracks"][0]["velocity"]["x"]
    assert (code, len(table)) == (0, count)
    assert velocity == (None if speed is None else pytest.approx(speed, abs=4))
    assert ("velocities" in json.loads(said.out)) is (speed is None)
