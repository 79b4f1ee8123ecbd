"""A stream on one machine, on a real Prism: it goes on after a crash from what its output shows."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import pytest

from beam_pipeline import bundled
from beam_pipeline.runners.prism import built_program
from tests import documented
from tests.absent import give_up
from tests.transforms.web_service import WebService

MAKE, STREAM = documented.run_by(documented.PRISM)
SAMPLES = sorted((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))


@pytest.fixture(scope="module")
def prism() -> Path:
    """Prism's program, which `make prism` builds once on a machine."""
    if not built_program().exists():
        if shutil.which("go") is None:
            give_up("no Go is here: it builds Prism")
        environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
        subprocess.run(shlex.split(MAKE.text), cwd=documented.ROOT, env=environment, check=True)
    return built_program()


def is_group_running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class Stream:
    """A stream on Prism, and what it is given.

    Args:
      folder: Where all of it is.
      alert_url: Where its alerts go.
    """

    def __init__(self, folder: Path, alert_url: str) -> None:
        self.input, self.output = folder / "in", folder / "out"
        self.input.mkdir()
        self._log = folder / "log"
        places = {".venv/bin/python": sys.executable, "MODEL": "bundled"}
        places |= {"/srv/pictures": str(self.input), "/srv/results": str(self.output)}
        places |= {"rules.yaml": str(bundled.BUNDLED_RULES)}
        self._command = [
            *shlex.split(documented.substituted(STREAM.text, places)),
            *("--alert_url", alert_url, "--window_seconds", "60"),
            *("--early_firing_seconds", "1", "--poll_interval_seconds", "1"),
        ]
        self._taken = int(time.time()) // 60 * 60 - 60  # All images are in one window.
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True
            )

    def end(self, number: int) -> int:
        """Sends a signal to the job; returns its exit code once all of its processes have ended."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        deadline = time.monotonic() + 30
        while is_group_running(self.process.pid):
            assert time.monotonic() < deadline, "Prism is left behind"
            time.sleep(0.1)
        return code

    def put(self, sample: Path) -> None:
        capture_time = datetime.fromtimestamp(self._taken, timezone.utc)
        self._taken += 1
        partial = self.input / ".partial"
        shutil.copy(sample, partial)
        partial.rename(self.input / f"hall_{capture_time:%Y%m%dT%H%M%S}Z.jpg")

    def wait_for(self, happened: Callable[[], object]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 120
        while not happened():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def log(self) -> str:
        return self._log.read_text()

    def verdicts(self) -> dict[str, str]:
        return {
            path.name: json.loads(path.read_bytes())["sha256"]
            for path in (self.output / "final" / "hall").glob("*.json")
        }

    def counted(self) -> int:
        lines = [
            json.loads(line)
            for path in (self.output / "counts").glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        return sum(line["images"] for line in lines)

    def has_recorded(self, service: WebService) -> bool:
        """Whether each alert is recorded as delivered, and no message is under way."""
        outcomes = self.outcomes()
        return set(outcomes) == {"delivered"} and len(service.requests) == outcomes.total()

    def outcomes(self) -> Counter[str]:
        records = [json.loads(path.read_bytes()) for path in self.output.glob("alerts/hall/*.json")]
        return Counter(target["outcome"] for record in records for target in record["targets"])


@pytest.fixture
def service() -> Iterator[WebService]:
    with WebService() as web:
        yield web


@pytest.fixture
def stream(prism: Path, tmp_path: Path, service: WebService) -> Iterator[Stream]:
    stream = Stream(tmp_path, service.url)
    yield stream
    if stream.process is not None:
        with suppress(ProcessLookupError):
            os.killpg(stream.process.pid, signal.SIGKILL)


def test_after_a_crash_the_same_command_goes_on(stream: Stream, service: WebService) -> None:
    """Nothing is judged or sent twice, and nothing is left out."""
    stream.start()
    for sample in SAMPLES[:6]:
        stream.put(sample)
    stream.wait_for(lambda: stream.counted() == 6)
    stream.wait_for(lambda: stream.outcomes()["delivered"] and stream.has_recorded(service))
    seen_before = stream.output / "detections" / "hall" / min(stream.verdicts())
    marked = json.loads(seen_before.read_bytes()) | {"brightness": 0.123}
    assert stream.end(signal.SIGKILL) == -signal.SIGKILL
    seen_before.write_text(json.dumps(marked))  # By this, one can tell that no model runs again.
    for sample in SAMPLES[6:9]:
        stream.put(sample)
    stream.start()
    stream.wait_for(lambda: len(stream.verdicts()) == 9)
    stream.wait_for(lambda: stream.counted() == 9)
    for sample in SAMPLES[9:12]:
        stream.put(sample)
    stream.wait_for(lambda: stream.counted() == 12)
    stream.wait_for(lambda: stream.has_recorded(service))
    keys = [request.headers["Idempotency-Key"] for request in service.requests]
    assert len(set(keys)) == len(keys) == stream.outcomes()["delivered"]
    assert len(set(stream.verdicts().values())) == 12
    verdict = json.loads((stream.output / "final" / "hall" / seen_before.name).read_bytes())
    assert verdict["brightness"] == 0.123
    assert stream.end(signal.SIGTERM) == 143
    assert "Traceback" not in stream.log()
    assert "stopped; run the same command" in stream.log()
