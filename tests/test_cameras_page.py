"""The commands of docs/cameras.md: from a camera, or what takes its place, to a verdict."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from ftplib import FTP
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from beam_pipeline.bundled import BUNDLED_RULES, BUNDLED_SAMPLES
from tests import documented
from tests.absent import give_up
from tests.beam_pipeline.conftest import read_json
from tests.conftest import Command
from tests.documented import ROOT, substituted
from tests.transforms.mail_service import mail_server

PERSON = BUNDLED_SAMPLES / "hall" / "hall_20260131T173853Z.jpg"
PASSWORD = "planted-word"
PAGE = ROOT / "docs" / "cameras.md"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def command_of(start: str) -> str:
    (command,) = [
        each.text
        for each in documented.run_by("tests/test_cameras_page.py", "docs/cameras.md")
        if each.text.startswith(start)
    ]
    return command


def wait_for(what: str, holds: Callable[[], object], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: str, port: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """A documented server, until the end of the block."""
    environment = {**os.environ, "FTP_PASSWORD": PASSWORD, "RTSP_PASSWORD": PASSWORD}
    command = command.replace(".venv/bin/python", shlex.quote(sys.executable))
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=ROOT, env=environment)
    try:
        if port is not None:
            wait_for("the server listens", lambda: is_open(port) or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def shell(command: str, folder: Path) -> None:
    environment = {**os.environ, "FTP_PASSWORD": PASSWORD}
    subprocess.run(["bash", "-c", command], cwd=folder, env=environment, check=True, timeout=60)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(PERSON, tmp_path / "snapshot.jpg")
    return folder


def judged(command: Command, tmp_path: Path, pictures: Path, *options: str) -> list[Path]:
    """The verdicts of the documented job."""
    text = command_of(".venv/bin/python -m beam_pipeline --runner DirectRunner --input /srv")
    places = {
        "/srv/pictures": str(pictures),
        "/srv/results": str(tmp_path / "results"),
        "rules.yaml": str(BUNDLED_RULES),
    }
    words = shlex.split(substituted(text, places))[3:]
    done = command(*words, "--model", "bundled", *options)
    assert done.code == 0, done.err
    return sorted((tmp_path / "results" / "final").glob("*/*.json"))


def ftp_server(pictures: Path, port: int) -> str:
    return substituted(
        command_of(".venv/bin/python -m pyftpdlib"),
        {"/srv/pictures": str(pictures), "--port 2121": f"--interface 127.0.0.1 --port {port}"},
    )


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            give_up(f"there is no {program} here")


def test_a_picture_that_comes_by_ftp_is_judged(
    pictures: Path, tmp_path: Path, command: Command
) -> None:
    needs("curl")
    port = free_port()
    with running(ftp_server(pictures, port), port):
        shell(substituted(command_of("curl --silent --show-error --upload"), {"2121": str(port)}),
              tmp_path)  # fmt: skip
    (verdict,) = judged(
        command, tmp_path, pictures, "--name_preset", "reolink", "--timezone", "Europe/Berlin"
    )
    assert verdict.name == "Front-Door_20260131T165217Z.json"
    assert read_json(verdict)["threat"]["is_threat"]


def test_six_cameras_upload_slowly_with_pauses_and_reconnects_and_each_whole_image_is_judged_once(
    pictures: Path, tmp_path: Path, command: Command
) -> None:
    """The job runs again and again meanwhile, and judges no half image."""
    port, data = free_port(), PERSON.read_bytes()
    names = [
        [f"cam{camera}_20260131T1752{second:02}Z.jpg" for second in (10, 20)] for camera in range(6)
    ]

    def connected() -> FTP:
        ftp = FTP(timeout=60)
        ftp.connect("127.0.0.1", port)
        ftp.login("camera", PASSWORD)
        ftp.voidcmd("TYPE I")
        return ftp

    def upload(camera: int) -> None:
        for number, name in enumerate(names[camera]):
            half = len(data) // 2
            with connected() as ftp:  # The connection is lost in the middle of each second image.
                with ftp.transfercmd(f"STOR {name}") as channel:
                    for start in range(0, half, 4096):
                        channel.sendall(data[start : min(start + 4096, half)])
                        time.sleep(0.02)
                    time.sleep(1 + camera / 4)
                    if number == 0:
                        channel.sendall(data[half:])
                ftp.voidresp()
            if number:
                with connected() as ftp, ftp.transfercmd(f"STOR {name}", rest=half) as channel:
                    channel.sendall(data[half:])

    done: list[int] = []
    with running(ftp_server(pictures, port), port):
        cameras = [threading.Thread(target=upload, args=(camera,)) for camera in range(6)]
        for camera in cameras:
            camera.start()
        while any(camera.is_alive() for camera in cameras):
            if any(pictures.iterdir()):
                done.append(len(judged(command, tmp_path, pictures)))
            time.sleep(0.2)
    verdicts = judged(command, tmp_path, pictures)
    assert done
    assert [verdict.name for verdict in verdicts] == [
        name.replace(".jpg", ".json") for camera in names for name in camera
    ]
    assert {read_json(verdict)["sha256"] for verdict in verdicts} == {
        read_json(verdicts[0])["sha256"]
    }
    assert not list((tmp_path / "results" / "invalid").rglob("*.jpg"))


def test_a_picture_that_comes_by_mail_is_judged(
    pictures: Path, tmp_path: Path, command: Command
) -> None:
    needs("curl")
    port = free_port()
    server = substituted(
        command_of(".venv/bin/python examples/mail_to_folder.py"),
        {"/srv/pictures": str(pictures), "2525": str(port)},
    )
    send = substituted(command_of('curl --silent --show-error "smtp'), {"2525": str(port)})
    with running(server, port):
        shell(send, tmp_path)
        shell(send, tmp_path)
        with pytest.raises(subprocess.CalledProcessError):
            shell(send.replace("hall@", "../hall@"), tmp_path)
    assert len(list(pictures.iterdir())) == 2
    assert {path.read_bytes() for path in pictures.iterdir()} == {PERSON.read_bytes()}
    verdicts = judged(command, tmp_path, pictures)
    assert len(verdicts) == 2
    assert {verdict.parent.name for verdict in verdicts} == {"hall"}


def test_pictures_of_a_stream_by_rtsp_are_judged(
    pictures: Path, tmp_path: Path, command: Command
) -> None:
    needs("ffmpeg")
    port = free_port()
    address = f"rtsp://127.0.0.1:{port}/stream1"
    receive = substituted(
        command_of("TZ=UTC ffmpeg"),
        {
            '-rtsp_transport tcp -i "rtsp://user:$RTSP_PASSWORD@192.168.1.64:554/stream1"': (
                f"-rtsp_flags listen -rtsp_transport tcp -i {address}"
            ),
            "/srv/pictures": str(pictures),
            "TZ=UTC ffmpeg": "env TZ=UTC ffmpeg",
        },
    )
    send = (
        f"ffmpeg -nostdin -loglevel error -re -loop 1 -framerate 5 -i {PERSON} -t 60 "
        f"-pix_fmt yuv420p -c:v mpeg4 -q:v 2 -f rtsp -rtsp_transport tcp {address}"
    )
    with running(receive, port=None):
        time.sleep(2)
        with running(send, port=None):
            wait_for("three pictures", lambda: len(list(pictures.glob("*.jpg"))) >= 3)
    verdicts = judged(command, tmp_path, pictures)
    assert len(verdicts) >= 3
    assert {verdict.parent.name for verdict in verdicts} == {"hall"}
    assert not list((tmp_path / "results" / "invalid").rglob("*.jpg"))


def test_the_names_that_home_assistant_and_frigate_give_are_read(
    pictures: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copy(PERSON, pictures / "hall_1769878337.jpg")
    (verdict,) = judged(command, tmp_path, pictures)
    assert verdict.name.startswith("hall_")
    assert read_json(verdict)["timestamp"] == "2026-01-31T16:52:17Z"
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(PERSON, clips / "front_door-1769878337.123456-ab12cd.jpg")
    text = command_of(".venv/bin/python -m beam_pipeline --runner DirectRunner --input /media")
    places = {
        "/media/frigate/clips": str(clips),
        "/srv/results": str(tmp_path / "frigate"),
        "rules.yaml": str(BUNDLED_RULES),
    }
    done = command(*shlex.split(substituted(text, places))[3:], "--model", "bundled")
    assert done.code == 0, done.err
    (verdict,) = (tmp_path / "frigate" / "final").glob("*/*.json")
    assert read_json(verdict)["timestamp"] == "2026-01-31T16:52:17.123456Z"


def test_three_commands_and_eight_lines_lead_to_a_mail_with_the_picture(
    pictures: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = re.findall(r"```yaml\n(version: 1.*?)```", PAGE.read_text(), re.DOTALL)
    section = PAGE.read_text().partition("## From pictures to a mail")[2].partition("\n## ")[0]
    check, trial, run = re.findall(
        r"^\.venv/bin/python -m beam_pipeline (.*?)(?: +#.*)?$", section, re.M
    )
    assert len(text.splitlines()) == 8
    monkeypatch.setenv("MAIL_PASSWORD", "pa55%40word")
    shutil.copy(PERSON, pictures / "Front Door_00_20260131175217.jpg")  # Nobody is told of that.
    an_hour_ago = datetime.now(ZoneInfo("Europe/Berlin")) - timedelta(hours=1)
    shutil.copy(PERSON, pictures / f"Front Door_00_{an_hour_ago:%Y%m%d%H%M%S}.jpg")
    with mail_server() as mails:
        address = "mailtos://robot:${MAIL_PASSWORD}@smtp.example.com?to=guard@example.com"
        (tmp_path / "rules.yaml").write_text(substituted(text, {address: mails.url}))
        places = {
            "/srv/pictures": str(pictures),
            "/srv/results": str(tmp_path / "results"),
            "rules.yaml": str(tmp_path / "rules.yaml"),
        }
        check, trial, run = (
            substituted(words, {old: new for old, new in places.items() if old in words})
            for words in (check, trial, run)
        )
        done = command(*shlex.split(check))
        assert (done.code, "--name_preset reolink" in done.out) == (0, True)
        assert "2026-01-31T16:52:17Z" in done.out
        assert command(*shlex.split(trial)).code == 0
        mails.envelopes.clear()
        done = command(*shlex.split(run), "--model", "bundled")
        assert done.code == 0, done.err
        assert len(mails.envelopes) == 1
        mail = mails.parsed()
    assert "person" in str(mail["Subject"])
    shown = mail.get_body(("plain", "html"))
    assert shown is not None
    assert f"{an_hour_ago:%Y-%m-%d %H:%M:%S} (Europe/Berlin, UTC+" in shown.get_content()
    assert [part.get_content_type() for part in mail.walk()].count("image/jpeg") == 1


def test_the_documented_check_of_names_reads_them(pictures: Path, command: Command) -> None:
    shutil.copy(PERSON, pictures / "Front Door_00_20260131175217.jpg")
    check = command_of(".venv/bin/python -m beam_pipeline names check /srv")
    done = command(*shlex.split(substituted(check, {"/srv/pictures": str(pictures)}))[3:])
    assert done.code == 0
    assert "reolink" in done.out
