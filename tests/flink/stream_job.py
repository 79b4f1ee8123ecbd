"""Stream jobs on a real cluster, submitted, watched and ended as a user does it."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

_CLUSTER_PY = Path(__file__).resolve().parents[2] / "deploy" / "flink" / "cluster.py"


def _load_cluster_module() -> Any:
    spec = importlib.util.spec_from_file_location("flink_cluster", _CLUSTER_PY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


flink_cluster = _load_cluster_module()
"""The program that starts and stops Flink, as a module."""


def wait_for(what: str, happened: Callable[[], Any], seconds: float = 120) -> Any:
    """Waits until a function returns something true, and gives that."""
    deadline = time.monotonic() + seconds
    while True:
        found = happened()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.25)


def kill(cluster: Any, name: str) -> None:
    """Ends a process of the cluster, and those of its session, as a machine that dies does."""
    os.killpg(cluster.pids()[name], signal.SIGKILL)
    time.sleep(3)
    flink_cluster.restart(Path(cluster.run_dir), name)


def scraped(cluster: Any) -> dict[str, list[float]]:
    """What Prometheus gets from the cluster's Java processes: numbers by metric."""
    found: dict[str, list[float]] = {}
    for name in ("jobmanager", "taskmanager-1"):
        log = cluster.path("log", f"{name}.log").read_text(errors="replace")
        # The last one: a process that was started again has another.
        ports = re.findall(r"PrometheusReporter HTTP server on port (\d+)", log)
        assert ports, f"{name} serves nothing to Prometheus"
        page = requests.get(f"http://127.0.0.1:{ports[-1]}/metrics", timeout=10)
        page.raise_for_status()
        for metric, number in re.findall(r"^(\w+)(?:{.*})? (\S+)$", page.text, re.MULTILINE):
            found.setdefault(metric, []).append(float(number))
    return found


class FlinkJob:
    """A job on the cluster, by what Flink's REST interface says of it.

    Args:
      cluster: Where it runs.
      id: Flink's id of it.
    """

    def __init__(self, cluster: Any, id: str) -> None:
        self._cluster = cluster
        self.id = id

    def counter(self, name: str) -> float:
        """The sum of one of the job's own counters, as Flink's REST shows it."""
        total = 0.0
        shown = f".threats_{name.replace('.', '_')}"  # Flink writes a dot as an underscore.
        for vertex in self._cluster.get(f"/jobs/{self.id}")["vertices"]:
            path = f"/jobs/{self.id}/vertices/{vertex['id']}/subtasks/metrics"
            for metric in self._cluster.get(path):
                if metric["id"].endswith(shown):
                    (found,) = self._cluster.get(f"{path}?get={quote(metric['id'])}")
                    total += found["sum"]
        return total

    def received(self) -> dict[str, list[int]]:
        """Returns how many records each slot has received, by the names of the job's stages."""
        return self._records("read-records")

    def emitted(self) -> dict[str, list[int]]:
        """Returns how many records each slot has passed on, by the names of the job's stages."""
        return self._records("write-records")

    def _records(self, metric: str) -> dict[str, list[int]]:
        found = {}
        for vertex in self._cluster.get(f"/jobs/{self.id}")["vertices"]:
            subtasks = self._cluster.get(f"/jobs/{self.id}/vertices/{vertex['id']}")["subtasks"]
            found[vertex["name"]] = [subtask["metrics"][metric] for subtask in subtasks]
        return found

    def checkpoints(self) -> dict[str, Any]:
        """What Flink says of the job's checkpoints."""
        found: dict[str, Any] = self._cluster.get(f"/jobs/{self.id}/checkpoints")
        return found

    def cancel(self) -> None:
        """Ends the job."""
        requests.patch(f"{self._cluster.rest}/jobs/{self.id}?mode=cancel", timeout=10)
        wait_for(
            "the job ends",
            lambda: self._jobs().get(self.id) in (None, "CANCELED", "FINISHED", "FAILED"),
        )

    def _jobs(self) -> dict[str, str]:
        return {job["id"]: job["status"] for job in self._cluster.get("/jobs")["jobs"]}


class StreamJob(FlinkJob):
    """A stream on the cluster, submitted as a user submits it.

    Args:
      cluster: Where it runs.
      log: What the submitting program says.
      arguments: Its command line, but for the runner's options.
      interpreter: What runs it.
    """

    def __init__(
        self,
        cluster: Any,
        log: Path,
        *arguments: str | os.PathLike[str],
        interpreter: str | os.PathLike[str] = sys.executable,
    ) -> None:
        self._cluster = cluster
        self._log = log
        before = set(self._jobs())
        with log.open("ab") as out:
            self._client = subprocess.Popen(
                [
                    *(interpreter, "-m", "beam_pipeline", "--runner", "FlinkRunner"),
                    *(*cluster.pipeline_options(), "--streaming", "--checkpointing_interval=3000"),
                    *map(os.fspath, arguments),
                ],
                stdout=out,
                stderr=out,
            )
        super().__init__(cluster, wait_for("the job runs", lambda: self._new_job(before)))

    def _new_job(self, before: set[str]) -> str | None:
        assert self._client.poll() is None, self._log.read_text()
        running = [id_ for id_, status in self._jobs().items() if status == "RUNNING"]
        return next((id_ for id_ in running if id_ not in before), None)

    def printed(self) -> str:
        """Returns what the submitting program has printed so far."""
        return self._log.read_text()

    def savepoint(self, folder: Path) -> Path:
        """Takes a savepoint while the job runs on; where it is."""
        location = self._savepoint("savepoints", {"target-directory": folder.as_uri()})
        return Path(location.removeprefix("file:"))

    def stop_with_savepoint(self, folder: Path) -> str:
        """Stops the job as `flink stop` does; where its savepoint is."""
        asked = {"drain": False, "targetDirectory": folder.as_uri()}
        location = self._savepoint("stop", asked)
        self._client.wait(timeout=60)
        return location

    def _savepoint(self, how: str, asked: dict[str, Any]) -> str:
        answer = requests.post(f"{self._cluster.rest}/jobs/{self.id}/{how}", json=asked, timeout=10)
        answer.raise_for_status()
        path = f"/jobs/{self.id}/savepoints/{answer.json()['request-id']}"

        def done() -> str | None:
            found = self._cluster.get(path)
            if found["status"]["id"] != "COMPLETED":
                return None
            failure = found["operation"].get("failure-cause", {}).get("stack-trace", "")
            causes = [line for line in failure.splitlines() if not line.startswith("\t")]
            assert "location" in found["operation"], "\n".join(causes)
            location: str = found["operation"]["location"]
            return location

        found: str = wait_for("the savepoint", done)
        return found

    def cancel(self) -> None:
        """Ends the job, and the program that submitted it."""
        super().cancel()
        try:
            self._client.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._client.kill()
