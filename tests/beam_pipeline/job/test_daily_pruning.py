"""A stream prunes its output once a day, if its rules say so."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import cli
from beam_pipeline.job.daily_pruning import pruned_daily
from beam_pipeline.runners import launching
from rules import parse_rules
from tests.beam_pipeline.conftest import jpeg
from tests.beam_pipeline.played import RUNNER, EventTime, PlayedRunner
from transforms.runtime.live_rules import LiveRules
from transforms.storage import stores

RULES = "version: 1\ndefaults: {objects: {person: }}\n"
RETENTION = f"{RULES}retention: {{older_than: 30d}}\n"


def put_image(output: Path, days: int) -> Path:
    taken = datetime.now(timezone.utc) - timedelta(days=days)
    path = output / "validated" / "hall" / f"hall_{taken:%Y%m%dT%H%M%SZ}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (taken.timestamp(), taken.timestamp()))
    return path


def live(text: str) -> LiveRules:
    return LiveRules.of(parse_rules(text, "rules.yaml"))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_prunes_at_once_and_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, young = put_image(tmp_path, 31), put_image(tmp_path, 29)
    with pruned_daily(str(tmp_path), live(RETENTION), 0.05):
        until(lambda: not old.exists())
        until(lambda: "pruned: 1 files deleted, 0 alerts shortened" in caplog.text)
        another = put_image(tmp_path, 40)
        until(lambda: not another.exists())
    assert young.exists()


def test_after_its_end_it_prunes_no_more(tmp_path: Path) -> None:
    old = put_image(tmp_path, 31)
    with pruned_daily(str(tmp_path), live(RETENTION)):
        until(lambda: not old.exists())
        another = put_image(tmp_path, 40)
        time.sleep(0.2)
    assert another.exists()
    assert not any(thread.name == "pruning" for thread in threading.enumerate())


def test_a_store_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, really, asked = put_image(tmp_path, 31), stores.list_one_deep, 0

    def list_one_deep(folder: str) -> Any:
        nonlocal asked
        asked += 1
        if asked <= 3:
            raise ConnectionError(f"{folder}: no answer from the store")
        return really(folder)

    monkeypatch.setattr(stores, "list_one_deep", list_one_deep)
    with pruned_daily(str(tmp_path), live(RETENTION), 0.05):
        until(lambda: not old.exists())
    assert "the output is not pruned, which is tried again later: ConnectionError" in caplog.text


def test_rules_without_the_section_delete_nothing(tmp_path: Path) -> None:
    old = put_image(tmp_path, 4000)
    with pruned_daily(str(tmp_path), live(RULES), 0.01):
        time.sleep(0.1)
    assert old.exists()


@pytest.mark.parametrize(("text", "stays"), [(RULES, True), (RETENTION, False)])
def test_a_stream_prunes_its_output_as_its_rules_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, stays: bool
) -> None:
    images, output = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    (images / "hall_20260131T120000Z.jpg").write_bytes(jpeg())
    old, young = put_image(output, 31), put_image(output, 29)
    (tmp_path / "rules.yaml").write_text(text)
    monkeypatch.setattr(PlayedRunner, "script", [EventTime(1_769_860_800)])
    words = ["--streaming", "--runner", RUNNER, "--model", "bundled", "--input", str(images)]
    words += ["--output", str(output), "--rules", str(tmp_path / "rules.yaml")]
    really = launching.wait

    def wait_for_a_stream_that_goes_on(*arguments: Any) -> Any:
        """What is played has ended by now, which no stream does by itself."""
        if stays:
            time.sleep(0.3)
        else:
            until(lambda: not old.exists())
        return really(*arguments)

    monkeypatch.setattr(launching, "wait", wait_for_a_stream_that_goes_on)
    assert cli.main(words) == 0
    assert (old.exists(), young.exists()) == (stays, True)
