"""The stream, by the commands of README.md and docs/flink.md as they stand there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from beam_pipeline.bundled import BUNDLED_RULES, BUNDLED_SAMPLES
from tests import documented
from tests.documented import ROOT, STREAM, Command
from tests.flink.stream_job import wait_for
from tests.transforms.web_service import WebService

SAVEPOINT = "file:///srv/savepoints/savepoint-…"


class Shell:
    """Runs commands of the pages one after the other, with this machine's places in them."""

    def __init__(self, folder: Path, cluster: Any, service: WebService) -> None:
        self.folder, self._cluster = folder, cluster
        self.places = {
            "make -s flink-args": f"make -s flink-args ARGS='--run_dir {cluster.run_dir}'",
            "http://127.0.0.1:8081": cluster.rest,
            "/srv/": f"{folder}/srv/",
            "--model MODEL": "--model bundled",
            "https://alerts.example.com": service.url,
        }
        self._clients: list[subprocess.Popen[bytes]] = []
        self._pictures = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))
        documented.make_checkout(folder)
        for name in ("pictures", "savepoints"):
            (folder / "srv" / name).mkdir(parents=True)
        shutil.copy(BUNDLED_RULES, folder / "rules.yaml")

    def words(self, command: Command) -> str:
        """A command with the places that it names changed to those that are here."""
        here = {written: place for written, place in self.places.items() if written in command.text}
        return documented.substituted(command.text, here)

    def start(self, text: str) -> None:
        """Starts a command that keeps running, and waits until the cluster runs its job."""
        with (self.folder / "printed").open("ab") as printed:
            client = subprocess.Popen(
                ["bash", "-uc", f"exec {text}"],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=printed,
                stderr=printed,
            )
        self._clients.append(client)

        def runs() -> bool:
            assert client.poll() is None, self.printed
            return bool(self.jobs())

        wait_for("the job runs", runs)

    def jobs(self) -> list[str]:
        """The jobs that the cluster runs."""
        jobs = self._cluster.get("/jobs")["jobs"]
        return [job["id"] for job in jobs if job["status"] == "RUNNING"]

    @property
    def printed(self) -> str:
        """What the running commands have printed."""
        return (self.folder / "printed").read_text()

    def judge(self) -> None:
        """Brings a picture of the present, and waits for its verdict."""
        name = f"hall_{int(time.time() * 1000)}"
        shutil.copy(self._pictures.pop(), self.folder / "srv" / "pictures" / f"{name}.jpg")
        verdict = self.folder / "srv" / "results" / "final" / "hall" / f"{name}.json"
        wait_for("a verdict", verdict.exists)

    def end(self) -> None:
        """Ends the jobs and what watches them."""
        for job in self.jobs():
            requests.patch(f"{self._cluster.rest}/jobs/{job}?mode=cancel", timeout=10)
        wait_for("the jobs end", lambda: not self.jobs())
        for client in self._clients:
            try:
                client.wait(timeout=60)
            except subprocess.TimeoutExpired:
                client.send_signal(signal.SIGKILL)


@pytest.fixture
def shell(cluster: Any, tmp_path: Path) -> Iterator[Shell]:
    with WebService() as service:
        made = Shell(tmp_path, cluster, service)
        yield made
        made.end()


def test_the_stream_of_the_readme_runs(shell: Shell) -> None:
    (command,) = documented.run_by(STREAM, "README.md")
    shell.start(shell.words(command))
    shell.judge()
    assert f"watching {shell.folder}/srv/pictures" in shell.printed


def test_a_stream_is_stopped_and_goes_on_by_the_commands_of_the_page(shell: Shell) -> None:
    first, *stop, resume = documented.run_by(STREAM, "docs/flink.md")
    shell.start(shell.words(first))
    shell.judge()
    (job,) = shell.jobs()
    done = documented.shell("\n".join(map(shell.words, stop)), shell.folder, dict(os.environ))
    assert done.returncode == 0, done.stderr
    savepoint = done.stdout.splitlines()[-1]
    assert savepoint.startswith(f"{shell.folder}/srv/savepoints/savepoint-{job[:6]}")
    assert shell.jobs() == []
    arguments = shell.words(first).split("--streaming", 1)[1]
    make = "make -s flink-args"
    places = {" …": arguments, SAVEPOINT: f"file://{savepoint}", make: shell.places[make]}
    shell.start(documented.substituted(resume.text, places))
    shell.judge()
    (again,) = shell.jobs()
    restored = shell._cluster.get(f"/jobs/{again}/checkpoints")["latest"]["restored"]
    assert restored["external_path"] == f"file:{savepoint}"
