"""The stream on a real cluster: what is lost when things die in mid-stream? Nothing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline.bundled import BUNDLED_RULES
from rules import alert_id
from tests.flink import recount
from tests.flink.feeder import AHEAD, AHEAD_SECONDS, Fed, Feeder
from tests.flink.stream_job import StreamJob, kill, wait_for
from tests.transforms.web_service import WebService, status
from transforms.records.times import parse_time
from transforms.storage.archive import ArchiveError, open_archive

WINDOW_SECONDS = 60


class Scene:
    """A stream that is fed, and the alert service that it calls."""

    def __init__(self, tmp_path: Path, submit: Callable[..., StreamJob]) -> None:
        self.input, self.output = tmp_path / "in", tmp_path / "out"
        self.input.mkdir()
        self.alerts = WebService()
        self.alerts.__enter__()
        self._submit = submit
        self.fed: list[Fed] = []

    def start(self, *arguments: str | Path) -> StreamJob:
        """Starts the job; one that is new is fed a picture, and waited for: its time has begun."""
        job = self._submit(
            *("--input", self.input, "--output", self.output, "--model", "bundled"),
            *("--rules", BUNDLED_RULES, "--alert_url", f"{self.alerts.url}/hook"),
            *("--alert_max_age", "off"),  # The pictures are of January.
            *("--poll_interval_seconds", "1", "--early_firing_seconds", "3"),
            *("--window_seconds", str(WINDOW_SECONDS), *arguments),
        )
        if not self.fed:
            self.feed(1, seconds=0).join()
            wait_for("the first verdict", self.finals)
        return job

    def feed(self, pictures: int, seconds: float) -> Feeder:
        feeder = Feeder(
            self.input, pictures=pictures, seconds=seconds, beginning=600 * len(self.fed)
        )
        self.fed.append(feeder.fed)
        feeder.start()
        return feeder

    def _all(self, kind: str) -> set[str]:
        return {name for fed in self.fed for name in getattr(fed, kind)}

    def finals(self) -> dict[str, dict[str, Any]]:
        try:
            archive = open_archive(str(self.output))
        except ArchiveError:
            return {}
        return {
            f"{one.image.stem}.jpg": {**one.image.to_json(), "threat": one.threat}
            for id in archive.ids
            for one in archive.images(id)
            if one.threat is not None
        }

    def received(self) -> dict[str, set[tuple[str, str]]]:
        """Events by the alert id under which they came, of requests that were answered well."""
        events: dict[str, set[tuple[str, str]]] = {}
        for request in list(self.alerts.requests):
            body = json.loads(request.body)
            assert request.headers["Idempotency-Key"] == body["alert_id"]
            events.setdefault(body["alert_id"], set()).add((body["id"], body["timestamp"]))
        return events

    def is_complete(self) -> bool:
        folder = self.output / "invalid" / "corrupt_jpeg"
        alerts = Counter(
            json.loads(path.read_text())["targets"][0]["outcome"]
            for path in (self.output / "alerts").glob("*/*.json")
        )
        finals = self.finals()
        due = Counter(
            "suppressed" if final["threat"]["suppressed_by"] else "delivered"
            for final in finals.values()
            if final["threat"]["severity"] == "alert"
        )
        wanted = recount.by_names(self._all("on_time"), WINDOW_SECONDS)
        return (
            len(finals) == len(self._all("on_time") | self._all("too_late"))
            and len(list(folder.glob("*.jpg"))) == len(self._all("invalid"))
            and recount.by_count_files(self.output) == wanted
            and alerts == due
        )

    def check(self, seconds: float = 120) -> None:
        """Everything that was fed has become what it should, once and for all."""
        try:
            wait_for("all that was fed is judged, counted and told", self.is_complete, seconds)
        finally:
            finals = self.finals()
            on_time, too_late = self._all("on_time"), self._all("too_late")
            assert set(finals) == on_time | too_late
            invalid = {path.name for path in (self.output / "invalid").rglob("*.jpg")}
            assert invalid == self._all("invalid")
            assert recount.by_count_files(self.output) == recount.by_names(on_time, WINDOW_SECONDS)
            assert recount.by_late_files(self.output) == recount.by_names(too_late, WINDOW_SECONDS)
            validated = {path.name for path in (self.output / "validated").glob("*/*.jpg")}
            assert validated == set(finals)
            due = {
                (final["id"], final["timestamp"])
                for final in finals.values()
                if final["threat"]["severity"] == "alert" and not final["threat"]["suppressed_by"]
            }
            assert due, "no picture called for an alert: nothing was tested"
            # Windows of the camera whose clock is ahead have not ended: their counts came early.
            starts = [start for id, start in recount.by_count_files(self.output) if id == AHEAD]
            assert starts
            assert min(starts) > time.time() + AHEAD_SECONDS / 2
            received = self.received()
            assert all(len(events) == 1 for events in received.values())
            assert {event for events in received.values() for event in events} == due
            assert len(received) == len(due)
            partial = [path for path in self.output.rglob(".*") if path.is_file()]
            assert partial == []


@pytest.fixture
def scene(tmp_path: Path, stream: Callable[..., StreamJob]) -> Any:
    with_service = Scene(tmp_path, stream)
    yield with_service
    with_service.alerts.stop()


@pytest.mark.parametrize(("dies", "repository"), [("taskmanager-1", "packed"), ("workers", "json")])
def test_a_process_that_dies_in_mid_stream_loses_nothing(
    scene: Scene, cluster: Any, dies: str, repository: str
) -> None:
    scene.start("--repository", repository)
    feeder = scene.feed(300, seconds=60)
    wait_for("the first verdicts", lambda: len(scene.finals()) > 40)
    time.sleep(8)
    kill(cluster, dies)
    feeder.join()
    scene.check()


def test_a_stream_goes_on_from_its_savepoint(scene: Scene, tmp_path: Path) -> None:
    """What was fed while it was down is judged too, by the rules that it was started again with,
    and what a camera has shown before is not forgotten: its alerts cover further pictures."""
    text = BUNDLED_RULES.read_bytes().replace(b"\ndefaults:\n", b"\ndefaults:\n  cooldown: 1h\n")
    rules = tmp_path / "rules.yaml"
    rules.write_bytes(text)
    job = scene.start("--rules", rules)
    scene.feed(150, seconds=30).join()
    savepoint = job.stop_with_savepoint(tmp_path / "savepoints")
    rules.write_bytes(text + b"# Another version.\n")
    scene.feed(60, seconds=6).join()
    scene.start("--savepoint_path", savepoint, "--rules", rules)
    scene.feed(90, seconds=24).join()
    scene.check()
    finals = scene.finals()
    fed = [
        {name for name in (*burst.on_time, *burst.too_late) if name in finals}
        for burst in scene.fed[1:]
    ]
    versions = [{finals[name]["threat"]["rules_version"] for name in names} for names in fed]
    (new,) = versions[1] | versions[2]
    assert versions[0] - {new}, "the pictures before the savepoint were judged by the old rules"
    sent = {
        alert_id(final["id"], final["timestamp"], "alert"): name
        for name, final in finals.items()
        if final["threat"]["severity"] == "alert" and not final["threat"]["suppressed_by"]
    }
    covers = [
        (sent[final["threat"]["suppressed_by"]], name)
        for name, final in finals.items()
        if final["threat"]["suppressed_by"]
    ]
    for alert, covered in covers:
        first, second = finals[alert], finals[covered]
        assert first["id"] == second["id"]
        # Either may be the earlier one: an image that comes late shows the same incident.
        time_apart = abs(parse_time(second["timestamp"]) - parse_time(first["timestamp"]))
        assert timedelta(0) < time_apart < timedelta(hours=1)
    assert any(alert in fed[0] and covered in fed[1] | fed[2] for alert, covered in covers)


def test_alerts_wait_for_a_service_that_is_down_and_hold_nothing_up(scene: Scene) -> None:
    job = scene.start()
    scene.alerts.answers = [status(503)]
    refused_until = time.monotonic() + 20
    feeder = scene.feed(300, seconds=60)
    wait_for("verdicts while no alert is taken", lambda: len(scene.finals()) > 60, 20)
    time.sleep(max(0.0, refused_until - time.monotonic()))
    # Flink's REST shows counters with a delay.
    wait_for("alerts that wait are counted", lambda: job.counter("alerts.waiting"), 40)
    assert job.counter("alerts.delivered") == 0
    scene.alerts.answers = [status(200)]
    feeder.join()
    scene.check(seconds=150)


def test_an_output_that_cannot_be_written_for_a_while_holds_the_job_up_and_loses_nothing(
    scene: Scene,
) -> None:
    scene.start()
    feeder = scene.feed(300, seconds=60)
    wait_for("the first verdicts", lambda: len(scene.finals()) > 40)
    final, away = scene.output / "final", scene.output / "final.away"
    final.rename(away)
    final.write_text("in the way of the directory")
    time.sleep(10)
    final.unlink()
    away.rename(final)
    feeder.join()
    scene.check(seconds=180)
