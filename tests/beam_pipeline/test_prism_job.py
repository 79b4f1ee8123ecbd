"""A stream on one machine, on a real Prism: it goes on after a crash from what its output shows."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import pytest

from beam_pipeline import bundled
from tests import documented
from tests.prism_program import prism_program
from tests.transforms.web_service import WebService, status
from transforms.storage.archive import ArchiveError, open_archive

_, STREAM = documented.run_by(documented.PRISM)
SAMPLES = sorted((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))


@pytest.fixture(scope="module")
def prism() -> Path:
    return prism_program()


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
      rules: Its rule file; None for those of the bundled samples.
      options: Further options.
    """

    def __init__(
        self, folder: Path, alert_url: str, rules: Path | None = None, *options: str
    ) -> None:
        self.input, self.output = folder / "in", folder / "out"
        self.input.mkdir()
        self._log = folder / "log"
        places = {".venv/bin/python": sys.executable, "MODEL": "bundled"}
        places |= {"/srv/pictures": str(self.input), "/srv/results": str(self.output)}
        places |= {"rules.yaml": str(rules or bundled.BUNDLED_RULES)}
        self._command = [
            *shlex.split(documented.substituted(STREAM.text, places)),
            *("--alert_url", alert_url, "--window_seconds", "60"),
            *("--early_firing_seconds", "1", "--poll_interval_seconds", "1", *options),
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

    def new_path(self, camera: str = "hall") -> Path:
        """The path of a further image; all images are in one window."""
        capture_time = datetime.fromtimestamp(self._taken, timezone.utc)
        self._taken += 1
        return self.input / f"{camera}_{capture_time:%Y%m%dT%H%M%S}Z.jpg"

    def put(self, sample: Path, path: Path | None = None) -> Path:
        """Puts a whole image there."""
        path = path or self.new_path()
        partial = self.input / f".{path.name}"
        shutil.copy(sample, partial)
        partial.rename(path)
        return path

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
        try:
            archive = open_archive(str(self.output))
        except ArchiveError:
            return {}
        return {
            f"{one.image.stem}.json": one.image.sha256
            for camera in archive.ids
            for one in archive.images(camera)
            if one.threat is not None
        }

    def counted(self) -> int:
        lines = [
            json.loads(line)
            for path in (self.output / "counts").glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        return sum(line["images"] for line in lines)

    def has_recorded(self, service: WebService) -> bool:
        """Whether each alert is recorded, as delivered or suppressed, and all messages are in."""
        outcomes = self.outcomes()
        keys = {request.headers["Idempotency-Key"] for request in service.requests}
        return set(outcomes) <= {"delivered", "suppressed"} and len(keys) == outcomes["delivered"]

    def outcomes(self) -> Counter[str]:
        records = [json.loads(path.read_bytes()) for path in self.output.glob("alerts/*/*.json")]
        return Counter(target["outcome"] for record in records for target in record["targets"])


@pytest.fixture
def service() -> Iterator[WebService]:
    with WebService() as web:
        yield web


@contextmanager
def ended(stream: Stream) -> Iterator[Stream]:
    """Ends the job in any case."""
    try:
        yield stream
    finally:
        if stream.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(stream.process.pid, signal.SIGKILL)


@pytest.fixture
def stream(prism: Path, tmp_path: Path, service: WebService) -> Iterator[Stream]:
    with ended(Stream(tmp_path, service.url)) as stream:
        yield stream


def test_after_a_crash_the_same_command_goes_on(stream: Stream, service: WebService) -> None:
    """Nothing is judged or sent twice, and nothing is left out; what is refused is tried again."""
    service.answers = [status(503), status(503), status(200)]
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
    keys = [request.headers["Idempotency-Key"] for request in service.requests[2:]]
    assert len(set(keys)) == len(keys) == stream.outcomes()["delivered"]
    assert len(set(stream.verdicts().values())) == 12
    verdict = json.loads((stream.output / "final" / "hall" / seen_before.name).read_bytes())
    assert verdict["brightness"] == 0.123
    assert stream.end(signal.SIGTERM) == 143
    assert "Traceback" not in stream.log()
    assert "stopped; run the same command to go on" in stream.log()


def test_it_runs_for_longer_than_a_request_may_take_until_prism_ends(
    prism: Path, tmp_path: Path, service: WebService
) -> None:
    """Beam ends a job on Prism after the time that a request may take, 300 s by default."""
    seconds = 10
    options = ("--job_server_timeout", str(seconds))
    with ended(Stream(tmp_path, service.url, None, *options)) as stream:
        stream.start()
        assert stream.process is not None
        stream.wait_for(lambda: "watching" in stream.log())
        time.sleep(seconds + 2)
        stream.put(SAMPLES[0])
        stream.wait_for(lambda: len(stream.verdicts()) == 1)
        os.kill(pid_of(prism, stream.process.pid), signal.SIGKILL)
        assert stream.process.wait(30) == 1
        *_, before, last = stream.log().splitlines()
        assert before.startswith("watching ")
        assert last.startswith("the job failed: the connection to the runner was lost (")
        assert last.endswith("too little memory), and run the same command to go on")


def pid_of(program: Path, group: int) -> int:
    """The process of a group that runs a program."""
    (pid,) = (
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if os.getpgid(int(folder.name)) == group and (folder / "exe").resolve() == program.resolve()
    )
    return pid


CAMERAS = ("hall", "front-door", "garden")
CRASHES = 20 if os.environ.get("SEARCH_EXAMPLES") else 2


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.search
@pytest.mark.parametrize("form", ["packed", "json"] if CRASHES > 2 else ["packed"])
def test_killed_at_any_moment_it_judges_and_counts_each_whole_image(
    form: str, prism: Path, tmp_path: Path, service: WebService
) -> None:
    """Images come whole, or half at first, or are replaced by others."""
    options = ("--repository", form, "--window_seconds", "6", "--input_parts", "3")
    stream = Stream(tmp_path, service.url, None, *options)
    with ended(stream):
        check_crashes(stream, service, form)


def check_crashes(stream: Stream, service: WebService, form: str) -> None:
    chance = random.Random(20260131)
    whole: dict[str, str] = {}

    def upload(way: str, camera: str, first: Path, last: Path, pause: float) -> Path:
        path = stream.new_path(camera)
        whole[f"{path.stem}.json"] = digest(last)
        if way == "whole":
            return stream.put(last, path)
        data = last.read_bytes()

        def finish() -> None:
            time.sleep(pause)
            if way == "half":
                with path.open("ab") as file:
                    file.write(data[len(data) // 2 :])
            else:
                stream.put(last, path)

        if way == "half":
            path.write_bytes(data[: len(data) // 2])
        else:
            stream.put(first, path)
        finishing.append(pool.submit(finish))
        return path

    finishing: list[Future[None]] = []
    with ThreadPoolExecutor(8) as pool:
        for start in range(1, CRASHES + 2):
            stream.start()
            stream.wait_for(lambda start=start: stream.log().count("watching") == start)
            for way in ("whole", "half", "replaced"):
                camera, pause = chance.choice(CAMERAS), chance.uniform(1.5, 4)
                upload(way, camera, *chance.sample(SAMPLES, 2), pause)
                time.sleep(chance.uniform(0, 1))
            if start <= CRASHES:
                time.sleep(chance.uniform(0, 6))
                assert stream.end(signal.SIGKILL) == -signal.SIGKILL
    for future in finishing:
        future.result()
    stream.wait_for(lambda: stream.verdicts() == whole)
    stream.wait_for(lambda: stream.counted() == len(whole))
    stream.wait_for(lambda: not list(stream.output.glob("invalid/*/*.json")))
    stream.wait_for(lambda: stream.has_recorded(service))
    files = {path.name for path in stream.output.glob("final/*/*.json")}
    assert files == (
        whole.keys()
        if form == "json"
        else {
            f"{one.image.stem}.json"
            for camera in CAMERAS
            for one in open_archive(str(stream.output)).images(camera)
            if one.threat["severity"] == "alert"
        }
    )
    sent = Counter(request.headers["Idempotency-Key"] for request in service.requests)
    # A message that was accepted at the moment of a crash is not recorded, and sent once more.
    assert sum(sent.values()) - len(sent) <= CRASHES
    assert stream.end(signal.SIGTERM) == 143
    assert "Traceback" not in stream.log()


def test_shadow_rules_change_nothing_but_their_own_folder(
    prism: Path, tmp_path: Path, service: WebService
) -> None:
    own, tried = tmp_path / "rules.yaml", tmp_path / "shadow.yaml"
    own.write_text("version: 1\ndefaults: {objects: {person: }, cooldown: 0s}\n")
    tried.write_text(
        "version: 1\ndefaults: {objects: {person: }, confirm: {pictures: 2, within: 1h}, "
        "cooldown: 0s}\n"
    )
    outputs, begin = [], int(time.time()) // 60 * 60 - 60
    for name, options in (("plain", ()), ("tried", ("--shadow_rules", str(tried)))):
        (tmp_path / name).mkdir()
        stream = Stream(tmp_path / name, service.url, own, *options)
        stream._taken = begin
        for sample in SAMPLES[:8]:
            stream.put(sample)
        stream.start()
        try:
            stream.wait_for(lambda stream=stream: stream.counted() == 8)
            stream.wait_for(lambda stream=stream: sum(stream.outcomes().values()) == alerts(stream))
            if options:
                stream.wait_for(lambda stream=stream: len(shadow_records(stream)) == alerts(stream))
        finally:
            stream.end(signal.SIGTERM)
        outputs.append(stream)
    plain, beside = (
        {
            str(path.relative_to(stream.output)): path.read_bytes().replace(
                str(stream.output.parent).encode(), b"HERE"
            )
            for path in stream.output.rglob("*")
            if path.is_file() and path.relative_to(stream.output).parts[0] not in ("report",)
        }
        for stream in outputs
    )
    assert not any(name.startswith("shadow/") for name in plain)
    found = {name: beside.pop(name) for name in list(beside) if name.startswith("shadow/")}
    assert beside == plain
    differences = Counter(json.loads(data)["difference"] for data in found.values())
    assert differences["only_rules"] == 1  # The first image of a person is not confirmed yet.
    assert differences["both"] == alerts(outputs[0]) - 1 > 0


def alerts(stream: Stream) -> int:
    """The number of images that have an alert, by their verdicts."""
    records = [json.loads(path.read_bytes()) for path in stream.output.glob("final/*/*.json")]
    return sum(record["threat"]["severity"] == "alert" for record in records)


def shadow_records(stream: Stream) -> list[Path]:
    return list(stream.output.glob("shadow/alerts/*/*.json"))
