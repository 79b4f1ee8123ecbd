"""Follows a submitted job through the REST interface of the Flink cluster.

Beam's job server reports nothing between the start and the end of a job, however often Flink
restarts its tasks.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import requests

from beam_pipeline.console import failure_messages

_SECONDS_BETWEEN_LOOKS = 1.0
_TIMEOUT = 5
_ENDED = ("FINISHED", "FAILED", "CANCELED")
_UUID = re.compile(r"[_-][0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What Beam's job server appends to a job's name."""
_SHOWN = ".threats_images_"  # Flink writes a dot as an underscore.
_INVALID = "invalid_"


class FlinkJob:
    """Watches a job while its block runs: its progress, and whether its set-up was found wrong.

    Args:
      rest: The address of the JobManager's REST interface.
      name: The id that Beam's job server gave the job: its name and a UUID.
      progress: Whether to count images.

    Attributes:
      setup_error: A worker's message about a wrong set-up, after which the job was cancelled.
    """

    def __init__(self, rest: str, name: str, *, progress: bool) -> None:
        self.setup_error: str | None = None
        self._rest = rest.rstrip("/")
        self._name = name
        self._progress = progress
        self._id: str | None = None
        self._counts: Counter[str] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="flink", daemon=True)

    def __enter__(self) -> FlinkJob:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def counts(self) -> Counter[str]:
        """Returns what the job has counted of images up to the last request."""
        return Counter(self._counts)

    def cancel(self) -> None:
        """Ends the job; a cluster that does not answer is left as it is."""
        if self._id is None:
            return
        with suppress(requests.RequestException):
            requests.patch(f"{self._rest}/jobs/{self._id}?mode=cancel", timeout=_TIMEOUT)

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            with suppress(requests.RequestException, ValueError, KeyError, TypeError):
                self._look()
            if self.setup_error is not None:
                self.cancel()
                return

    def _look(self) -> None:
        self._find()
        if self._id is None:
            return
        exceptions = self._get(f"/jobs/{self._id}/exceptions")["exceptionHistory"]["entries"]
        for exception in exceptions:
            if message := failure_messages.setup_error(exception["stacktrace"]):
                self.setup_error = message
                return
        if self._progress:
            self._count()

    def _find(self) -> None:
        """Finds the job: of several with its name, the newest one that has not ended.

        An earlier job of that name may be all that the cluster shows at first.
        """
        jobs = [
            job
            for job in self._get("/jobs/overview")["jobs"]
            if self._name.startswith(job["name"])
            and _UUID.fullmatch(self._name.removeprefix(job["name"]))
            and job["state"] not in _ENDED
        ]
        if jobs:
            self._id = max(jobs, key=lambda job: int(job["start-time"]))["jid"]

    def _count(self) -> None:
        counts: Counter[str] = Counter()
        for vertex in self._get(f"/jobs/{self._id}")["vertices"]:
            path = f"/jobs/{self._id}/vertices/{vertex['id']}/subtasks/metrics"
            names = [metric["id"] for metric in self._get(path) if _SHOWN in metric["id"]]
            if not names:
                continue
            for metric in self._get(f"{path}?get={quote(','.join(names))}"):
                counts[_counter(metric["id"])] += int(metric["sum"])
        # A task that has ended is not shown any more.
        self._counts |= counts

    def _get(self, path: str) -> Any:
        answer = requests.get(f"{self._rest}{path}", timeout=_TIMEOUT)
        answer.raise_for_status()
        return answer.json()


def _counter(metric: str) -> str:
    """Returns the job's own name of a counter, for example `images.invalid.bad_name`."""
    name = metric.rpartition(_SHOWN)[2]
    if name.startswith(_INVALID):
        return f"images.invalid.{name.removeprefix(_INVALID)}"
    return f"images.{name}"
