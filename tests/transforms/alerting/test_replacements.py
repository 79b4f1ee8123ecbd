"""Alerts that are sent instead of one that was too old."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import search
from transforms.alerting.alerts import Alert
from transforms.alerting.ledger import Ledger, Outcome
from transforms.alerting.replacements import Replacements
from transforms.records.times import EPOCH, canonical_time
from transforms.storage import stores

START = datetime(2026, 1, 31, 10, 50, tzinfo=timezone.utc)
FIRST = "0" * 32


def alert_at(minute: int, **other: Any) -> Alert:
    """The alert of an image so many minutes after that of `FIRST`, in its cooldown."""
    taken = canonical_time(START + timedelta(minutes=minute))
    alert_id = f"{minute:032d}"
    body = {"alert_id": alert_id, "id": "hall", "timestamp": taken}
    covered = {"suppressed_by": FIRST if minute else None, "targets": ("guard",), **other}
    return Alert(alert_id, "hall", body, **covered)


class Sending:
    """An output, and a clock; alerts of more than 60 minutes are not sent."""

    def __init__(self, output: str) -> None:
        self.output, self.minute = output, 0
        self.sent: list[str] = []
        self.ledger = Ledger(output)
        self.restart()

    def restart(self) -> None:
        """A new process has no memory."""
        self.replacements = Replacements(self.output, 3600, lambda: self.now)

    @property
    def now(self) -> datetime:
        return START + timedelta(minutes=self.minute)

    def decide(self, alert: Alert, since: datetime | None = START) -> Alert:
        micros = None if since is None else (since - EPOCH) // timedelta(microseconds=1)
        return self.replacements.apply(alert, micros)

    def record(self, alert: Alert) -> str:
        """What is recorded of an alert by now."""
        taken = START + timedelta(minutes=int(alert.alert_id))
        if alert.suppressed_by is not None:
            outcome = Outcome(None, "suppressed", f"in the cooldown of alert {FIRST}")
        elif self.now - taken > timedelta(hours=1) and not alert.is_due:
            outcome = Outcome("guard", "not_sent", "older than --alert_max_age")
        else:
            outcome = Outcome("guard", "delivered")
            self.sent.append(alert.alert_id)
        self.ledger.record(alert, outcome)
        return outcome.outcome

    def come(self, minute: int) -> str:
        return self.record(self.decide(alert_at(minute)))


@pytest.fixture
def sending(tmp_path: Path) -> Sending:
    return Sending(str(tmp_path))


def test_after_an_outage_the_first_alert_that_is_recent_is_sent(sending: Sending) -> None:
    """As docs/alerts.md says: the stream reads at 12:05 what came since 10:50."""
    sending.minute = 75
    outcomes = [sending.come(minute) for minute in range(30)]
    assert outcomes == ["not_sent", *["suppressed"] * 14, "delivered", *["suppressed"] * 14]
    record = json.loads(Path(stores.alert_uri(sending.output, "hall", f"{15:032d}")).read_bytes())
    assert "suppressed_by" not in record
    assert record["targets"] == [{"target": "guard", "outcome": "delivered", "detail": ""}]


@pytest.mark.parametrize("record", ["", "?", '{"targets": 7}', '{"targets": [{}]}'])
def test_without_a_sound_record_an_alert_that_is_too_old_was_not_sent(
    sending: Sending, record: str
) -> None:
    sending.minute = 61
    if record:
        stores.write_bytes(stores.alert_uri(sending.output, "hall", FIRST), record.encode())
    assert sending.come(10) == "delivered"


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("guard", "delivered"),
        Outcome("guard", "failed", "HTTP 503"),
        Outcome("guard", "suppressed", "reported in digest 1"),
    ],
)
def test_an_alert_that_was_sent_or_will_be_is_not_replaced(
    sending: Sending, outcome: Outcome
) -> None:
    sending.ledger.record(alert_at(0), Outcome("guard", "not_sent", "older than --alert_max_age"))
    sending.ledger.record(alert_at(0), outcome)
    sending.minute = 70
    assert sending.come(20) == "suppressed"


def test_nothing_is_read_or_written_for_an_alert_that_is_recent_enough(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.alerting.replacements.stores", None)
    for minute, (alert, since) in (
        (60, (alert_at(20), START)),
        (70, (alert_at(20), None)),
        (70, (alert_at(20, targets=()), START)),
        (70, (alert_at(20), datetime(2000, 1, 1, tzinfo=timezone.utc))),
    ):
        sending.minute = minute
        assert sending.decide(alert, since) is alert
    sending.minute = 30
    assert sending.decide(alert_at(0)) == alert_at(0, is_due=True)
    unlimited = Replacements(sending.output, None)
    since = (START - EPOCH) // timedelta(microseconds=1)
    assert unlimited.apply(alert_at(20), since) == alert_at(20)


def test_an_alert_that_was_sent_is_read_once(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending.ledger.record(alert_at(0), Outcome("guard", "delivered"))
    sending.minute = 70
    assert sending.come(20) == "suppressed"
    monkeypatch.setattr("transforms.alerting.replacements.stores", None)
    assert sending.decide(alert_at(21)).suppressed_by == FIRST


def test_the_decision_stays_after_a_crash(sending: Sending) -> None:
    sending.minute = 70
    assert sending.decide(alert_at(11)).suppressed_by is None
    sending.restart()
    assert sending.come(12) == "suppressed"
    assert sending.decide(alert_at(11)).suppressed_by is None
    sending.minute = 72
    sending.restart()
    assert sending.come(13) == "suppressed"
    assert sending.come(11) == "delivered"
    assert sending.come(14) == "suppressed"


def test_an_alert_that_becomes_too_old_before_it_is_sent_is_sent(sending: Sending) -> None:
    """In a batch, images are judged before alerts are sent."""
    sending.minute = 59
    decided = [sending.decide(alert_at(minute)) for minute in (0, 10, 20)]
    sending.minute = 62
    assert [sending.record(alert) for alert in decided] == ["delivered", "suppressed", "suppressed"]


def test_an_alert_that_is_being_sent_is_not_replaced_before_it_has_a_record(
    sending: Sending,
) -> None:
    sending.minute = 59
    first = sending.decide(alert_at(0))
    sending.restart()
    sending.minute = 61
    assert sending.come(20) == "suppressed"
    assert sending.record(first) == "delivered"
    sending.minute = 70
    sending.restart()
    assert sending.come(21) == "suppressed"


def test_an_alert_that_another_process_has_replaced_is_not_sent(sending: Sending) -> None:
    """Its clock was ahead."""
    sending.minute = 61
    assert sending.come(20) == "delivered"
    sending.minute = 59
    decided = sending.decide(alert_at(0))
    assert decided.suppressed_by == f"{20:032d}"
    assert not decided.is_due


def test_a_damaged_decision_is_made_again(sending: Sending) -> None:
    sending.minute = 70
    uri = stores.replacement_uri(sending.output, "hall", FIRST)
    stores.write_bytes(uri, b"?")
    assert sending.come(15) == "delivered"
    assert json.loads(Path(uri).read_bytes())["alert_id"] == f"{15:032d}"


@pytest.mark.search
@search(150)
@given(
    st.permutations(range(8)),
    st.lists(st.integers(0, 40), min_size=8, max_size=8),
    st.lists(st.sampled_from(["sent", "sent later", "crash"]), min_size=8, max_size=8),
    st.integers(0, 60),
)
def test_of_an_incident_one_alert_is_sent_if_any_is_recent(order, pauses, fates, start):
    """Images of each five minutes come in any order while time goes on. Some alerts are sent long
    after the decision; some processes end in between, and decide again at the end."""
    with TemporaryDirectory() as output:
        sending = Sending(output)
        sending.minute = 35 + start
        again, later, is_due = [], [], False
        for number, pause, fate in zip(order, pauses, fates, strict=True):
            minute = 5 * number
            decided = sending.decide(alert_at(minute))
            if fate == "crash":
                sending.restart()
                again.append(minute)
            elif fate == "sent later":
                later.append(decided)
            else:
                sending.record(decided)
            is_recent = sending.minute - minute <= 60
            is_due = is_due or (is_recent and (minute == 0 or sending.minute > 60))
            sending.minute += pause
        for alert in later:
            sending.record(alert)
        for minute in again:
            sending.come(minute)
        assert len(sending.sent) == is_due
