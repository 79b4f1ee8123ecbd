"""A running stream judges by a proposal that was applied in the console, and not after an undo."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import rules
from beam_pipeline import bundled
from tests.beam_pipeline.web.serving import Browser, served
from tests.prism_program import prism_program
from tests.transforms.web_service import WebService

RULES = """\
version: 1
defaults: {cooldown: 0s}
cameras:
  # The lift is to the left.
  hall: {objects: {person: {min_score: 0.50}}}   # as delivered
"""
HALL = bundled.BUNDLED_SAMPLES / "hall"
FALSE, RIGHT = HALL / "hall_20260131T175653Z.jpg", HALL / "hall_20260131T173853Z.jpg"
"""A person of a score of 0.57, and two of 0.87 and 0.80."""
PAGE = "/cameras/hall/proposals"


class Stream:
    """A stream on Prism with a rule file."""

    def __init__(self, folder: Path, alert_url: str) -> None:
        self.folder, self.input, self.output = folder, folder / "in", folder / "out"
        self.input.mkdir()
        self.rules = folder / "rules.yaml"
        self.rules.write_text(RULES)
        self._taken = int(time.time()) // 60 * 60 - 60
        command = [sys.executable, "-m", "beam_pipeline", "--streaming"]
        for option, value in {
            "input": self.input,
            "output": self.output,
            "rules": self.rules,
            "model": "bundled",
            "alert_url": alert_url,
            "poll_interval_seconds": 1,
        }.items():
            command += [f"--{option}", str(value)]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def wait_for(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not happened():
            log = (self.folder / "log").read_text()
            assert self.process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.1)

    def judge(self, sample: Path) -> dict[str, Any]:
        """Gives it a further image, taken a second later; returns the verdict."""
        capture_time = datetime.fromtimestamp(self._taken, timezone.utc)
        self._taken += 1
        name = f"hall_{capture_time:%Y%m%dT%H%M%S}Z.jpg"
        shutil.copy(sample, self.input / f".{name}")
        (self.input / f".{name}").rename(self.input / name)

        def verdict() -> dict[str, Any] | None:
            for path in self.output.glob("final/hall/*.json"):
                found = json.loads(path.read_bytes())
                if found["file"] == name:
                    return found  # type: ignore[no-any-return]
            return None

        self.wait_for(verdict)
        return verdict() or {}

    def judge_by(self, sample: Path, version: str) -> dict[str, Any]:
        """Gives it images until one is judged by this version of the rules; its verdict."""
        begin = time.monotonic()
        while True:
            verdict = self.judge(sample)
            if verdict["threat"]["rules_version"] == version:
                return verdict
            assert time.monotonic() - begin < 40, "the stream does not take the rules over"
            time.sleep(1)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def service() -> Iterator[WebService]:
    with WebService() as web:
        yield web


@pytest.fixture
def stream(tmp_path: Path, service: WebService) -> Iterator[Stream]:
    prism_program()
    stream = Stream(tmp_path, service.url)
    yield stream
    stream.end()


def alert_of(verdict: dict[str, Any]) -> str:
    return rules.alert_id(verdict["id"], verdict["timestamp"], "alert")


def version_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def form(browser: Browser, path: str, action: str) -> dict[str, str]:
    """The first form of a page with this action, and its button."""
    found = re.search(rf'<form method="post" action="{action}".*?</form>', browser.get(path).text,
                      re.DOTALL)  # fmt: skip
    assert found is not None
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', found[0]))


def test_the_next_image_is_judged_by_the_proposal_that_was_applied_and_not_after_undo(
    stream: Stream, service: WebService, tmp_path: Path
) -> None:
    def has_arrived(alert_id: str) -> bool:
        return any(one.headers["Idempotency-Key"] == alert_id for one in service.requests)

    false, right = stream.judge(FALSE), stream.judge(RIGHT)
    for verdict in (false, right):  # Alerts arrive, and somebody looks at them.
        stream.wait_for(lambda verdict=verdict: has_arrived(alert_of(verdict)))
    options = ("--rules", stream.rules)
    with served(stream.output, tmp_path / "index", *options) as here:
        browser = here.browser()
        for verdict, mark in ((false, "false"), (right, "right")):
            path = f"/alerts/{alert_of(verdict)}"
            here.until(lambda path=path: browser.get(path).status_code == 200)
            assert browser.mark(mark, "hall", alert_of(verdict)).status_code == 303
        page = html.unescape(browser.get(PAGE).text)
        assert page.index("Alert for person only from a score of 0.57") < page.index("Apply")
        applied = browser.post(PAGE, form(browser, PAGE, PAGE))
        assert applied.status_code == 303
        assert stream.rules.read_text() == RULES.replace("0.50}}}   #", "0.57}}}   #")

        silenced = stream.judge_by(FALSE, version_of(stream.rules))
        assert silenced["threat"]["is_threat"] is False
        kept = stream.judge(RIGHT)
        stream.wait_for(lambda: has_arrived(alert_of(kept)))
        assert not has_arrived(alert_of(silenced))
        assert not (stream.output / "alerts" / "hall" / f"{alert_of(silenced)}.json").exists()

        undone = browser.post("/rules/restore", form(browser, PAGE, "/rules/restore"))
        assert undone.status_code == 303
        assert stream.rules.read_text() == RULES
        again = stream.judge_by(FALSE, version_of(stream.rules))
        assert again["threat"]["is_threat"] is True
        stream.wait_for(lambda: has_arrived(alert_of(again)))
        assert not has_arrived(alert_of(silenced))
