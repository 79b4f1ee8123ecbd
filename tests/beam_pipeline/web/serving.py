"""A real console on the loopback, and outputs that it serves."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

import rules
from beam_pipeline.commands import serve
from beam_pipeline.commands.arguments import parse
from beam_pipeline.web.access.users import add_user
from beam_pipeline.web.server import Prepared, prepare
from tests.beam_pipeline.fleets import SHA256, write_fleet
from tests.transforms.archives import seen
from transforms.judge_threats import judge
from transforms.records.images import DetectedImage
from transforms.storage import stores
from transforms.storage.shadow_alerts import ShadowAlert, compare

RULES = "version: 1\ndefaults:\n  objects: {person: {min_score: 0.5}, car: {min_score: 0.8}}\n"
PASSWORD = "correct horse battery"


def small_images() -> list[DetectedImage]:
    """Three incidents of two cameras, one of two images; the newest image of the hall has no
    alert."""
    return [
        seen("hall", "2026-01-31T10:00:00Z", ("person", 0.9), ("car", 0.7), sha256=SHA256),
        seen("hall", "2026-01-31T10:02:00Z", ("person", 0.93), sha256=SHA256),
        seen("hall", "2026-01-31T12:00:00Z", ("car", 0.85), sha256=SHA256),
        seen("hall", "2026-01-31T12:30:00Z", ("person", 0.3), sha256=SHA256),
        seen("gate", "2026-01-31T11:00:00Z", ("person", 0.95), sha256=SHA256),
    ]


def write_small_output(output: Path, **more: Any) -> None:
    """Writes an output with these images."""
    write_fleet(output, small_images(), rule_text=RULES, **more)


def add_alert(output: Path, camera: str, timestamp: str, label: str = "person") -> str:
    """Adds an alert to an output, as a stream does; returns its id."""
    write_fleet(output, [seen(camera, timestamp, (label, 0.9), sha256=SHA256)], rule_text=RULES)
    return rules.alert_id(camera, timestamp, "alert")


_USERS: dict[str, bytes] = {}


def write_shadow(
    output: Path, rule_text: str, images: Iterable[DetectedImage] | None = None
) -> list[ShadowAlert]:
    """Writes what shadow rules say of images of which neither rule file has a history."""
    by_rules, by_shadow = (rules.parse_rules(text, "rules") for text in (RULES, rule_text))
    found = []
    for image in small_images() if images is None else images:
        alert = compare(judge(image, by_rules), judge(image, by_shadow))
        if alert is not None:
            stores.write_bytes(alert.uri(str(output)), stores.json_bytes(alert.to_json()))
            found.append(alert)
    return found


def users_file(path: Path) -> Path:
    """A file with a user of each role."""
    if not _USERS:  # The hashes take a second.
        for role in ("viewer", "operator", "admin"):
            add_user(str(path), role, role, PASSWORD)
        _USERS["file"] = path.read_bytes()
    path.write_bytes(_USERS["file"])
    path.chmod(0o600)
    return path


@dataclass
class Browser:
    """A client that keeps cookies, and sends forms as a page's would be.

    Attributes:
      url: The console, without a slash at the end.
    """

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, **how: Any) -> requests.Response:
        how.setdefault("timeout", 20)
        how.setdefault("allow_redirects", False)
        return self.session.get(self.url + path, **how)

    def post(self, path: str, form: dict[str, str], **how: Any) -> requests.Response:
        how.setdefault("timeout", 20)
        how.setdefault("allow_redirects", False)
        return self.session.post(self.url + path, form, **how)

    def token(self, path: str = "/alerts") -> str:
        found = re.search(r'name="token" value="(\w+)"', self.get(path).text)
        return "" if found is None else found[1]

    def mark(self, mark: str, camera: str, what: str, **fields: str) -> requests.Response:
        form = {"token": self.token(), "say": f"{mark} {camera} {what}", **fields}
        return self.post("/marks", form)

    def log_in(self, name: str, password: str = PASSWORD) -> requests.Response:
        return self.post("/login", {"name": name, "password": password, "next": "/alerts"})


@dataclass(frozen=True, repr=False)
class Served:
    """A console that is served.

    Attributes:
      prepared: The console.
      url: Where, without a slash at the end.
    """

    prepared: Prepared
    url: str

    def browser(self) -> Browser:
        return Browser(self.url)

    def logged_in(self, name: str) -> Browser:
        browser = self.browser()
        assert browser.log_in(name).status_code == 303
        return browser

    def until(self, fits: Callable[[], bool], seconds: float = 20) -> None:
        """Waits until something holds."""
        deadline = time.monotonic() + seconds
        while not fits():
            assert time.monotonic() < deadline, "it does not come"
            time.sleep(0.02)


@contextmanager
def served(
    output: Path | str, index: Path, *words: object, first_look: bool = True
) -> Iterator[Served]:
    """Serves an output on a free port.

    Args:
      output: The output.
      index: The folder of the index.
      words: Further words of the command line.
      first_look: Whether to wait until the output was read once.
    """
    options = ["--output", output, "--index", index, "--port", 0, "--poll_interval_seconds", 1]
    prepared = prepare(parse(serve.parser(), [str(word) for word in (*options, *words)]))
    thread = threading.Thread(target=prepared.run)
    thread.start()
    try:
        here = Served(prepared, prepared.address.rstrip("/"))
        here.until(lambda: prepared.server.started)
        if first_look:
            here.until(lambda: prepared.console.follower.status.last_success is not None)
            here.until(lambda: prepared.console.fleet.view.at is not None
                       or prepared.console.fleet.view.problem is not None)  # fmt: skip
        yield here
    finally:
        prepared.server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
