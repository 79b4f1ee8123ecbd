"""Alerts, and how patiently they are sent, for the tests of several modules."""

from rules import parse_rules
from tests.transforms.results import judged
from transforms.alerting.alerts import alert_for
from transforms.alerting.delivery import RetryPolicy
from transforms.alerting.ledger import Ledger, read_waiting_alert
from transforms.alerting.target_clients import (
    TimeLimits,
)

NO_TARGETS = parse_rules("version: 1\ndefaults: {objects: {person: }}\n", "rules.yaml")


QUICK = RetryPolicy(
    attempts=3,
    first_pause_seconds=0.01,
    longest_pause_seconds=5,
    give_up_after=1000,
    try_again_seconds=60,
    patience_seconds=5,
    limits=TimeLimits(),
)


IMPATIENT = TimeLimits(connect_seconds=1, read_seconds=0.3, exchange_seconds=2, apprise_seconds=2)


def policy(**changes):
    return RetryPolicy(**{**vars(QUICK), **changes})


def an_alert(second=0, camera="hall"):
    image = judged(camera, f"2026-01-31T10:00:{second:02d}Z", [("person", "alert")])
    return alert_for(image, "/out", NO_TARGETS)


def records(output):
    """What is kept of each alert, by its place."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted((output / "alerts").rglob("*"))
        if path.is_file() and "_undelivered" not in path.parts
    }


def waiting_in(output):
    """What waits, in the order of time."""
    alerts = [read_waiting_alert(uri) for uri in Ledger(str(output)).waiting_uris()]
    return sorted(alerts, key=lambda alert: (alert.order, alert.target))
