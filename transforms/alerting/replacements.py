"""Alerts that are sent instead of one that was too old.

After an outage, the alert of an incident may be older than `--alert_max_age` and is not sent, while
the incident goes on. The images that follow are in its cooldown, and would not be told of either.
So the first of them that is recent enough is sent in its place.

Which one that is depends on the clock, and is no part of the verdict: it is written to the output
before it takes effect, so that it stays the same after a crash. The decision counts, and not the
time at which the alert is sent: in between, an alert can become older than the limit.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from transforms.alerting.alerts import Alert, is_too_old
from transforms.alerting.ledger import NOT_SENT, SUPPRESSED
from transforms.records.clocks import is_misdated
from transforms.records.times import EPOCH, parse_time
from transforms.storage import stores

TOO_OLD_DETAIL = "older than --alert_max_age"
_MOST_REPLACEMENTS = 100
"""After so many alerts, each sent instead of the one before and too old again, no more follow."""
_KNOWN = 10_000


class Replacements:
    """Decides whether a suppressed alert is sent instead of the one that suppresses it.

    Args:
      output: The job's output.
      max_age_seconds: Older alerts are not sent; None for no limit.
      clock: Returns the current time (UTC).
    """

    def __init__(
        self,
        output: str,
        max_age_seconds: float | None,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._output = output
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._sent: OrderedDict[str, None] = OrderedDict()
        """Alerts that were sent; a cache."""

    def apply(self, alert: Alert, covered_since: int | None) -> Alert:
        """Returns the alert, without `suppressed_by` if it is to be sent instead of another one.

        An alert that is young enough is due from now on. If it may become too old before its record
        is written, the output says that it is sent, so that none is sent instead of it.

        Without a limit of age nothing is read or written, and neither is for an alert that is
        younger than half of it, unless it is suppressed by one that is too old by now. That an
        alert was due stays so after a crash.

        Args:
          alert: The alert.
          covered_since: The capture time of the image of the alert that suppresses it, in
            microseconds since 1970; None if unknown.

        Raises:
          OSError: The output can't be read or written.
        """
        if self._max_age_seconds is None or not alert.targets:
            return alert
        now = self._clock()
        if is_too_old(alert, self._max_age_seconds, now):
            written = self._written_for(alert.camera, alert.alert_id)
            was_due = written is not None and written[0] == alert.alert_id
            return replace(alert, suppressed_by=None, is_due=True) if was_due else alert
        if alert.suppressed_by is None:
            return self._due(alert, now)
        if covered_since is None:
            return alert
        covering, taken = alert.suppressed_by, EPOCH + timedelta(microseconds=covered_since)
        if is_misdated(taken, alert.arrived):
            return alert
        for _ in range(_MOST_REPLACEMENTS):
            age = (now - taken).total_seconds()
            if age <= self._max_age_seconds or self._was_sent(alert.camera, covering):
                return alert
            chosen, taken = self._instead_of(covering, alert)
            if chosen == covering:
                return alert  # It is being sent, and has no record yet.
            if chosen == alert.alert_id:
                return self._due(alert, now)
            covering = chosen
        return alert

    def _due(self, alert: Alert, now: datetime) -> Alert:
        """Returns an alert that is sent; suppressed, if another is sent instead already."""
        taken = parse_time(alert.body["timestamp"])
        may_age = (
            alert.suppressed_by is not None
            or (now - taken).total_seconds() > (self._max_age_seconds or 0) / 2
        )
        if may_age and not is_misdated(taken, alert.arrived):
            chosen, _ = self._instead_of(alert.alert_id, alert)
            if chosen != alert.alert_id:
                return replace(alert, suppressed_by=chosen)
        return replace(alert, suppressed_by=None, is_due=True)

    def _was_sent(self, camera: str, alert_id: str) -> bool:
        """Returns whether an alert that is too old by now was sent, or is tried further."""
        if alert_id in self._sent:
            return True
        record = stores.read_if_there(stores.alert_uri(self._output, camera, alert_id))
        try:
            entries = [] if record is None else json.loads(record)["targets"]
            unsent = all(
                (entry["outcome"], entry["detail"]) == (NOT_SENT, TOO_OLD_DETAIL)
                or (entry["outcome"] == SUPPRESSED and entry["target"] is None)
                for entry in entries
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            unsent = True  # The record is damaged, so nothing shows that it was sent.
        if not unsent:
            self._sent[alert_id] = None
            if len(self._sent) > _KNOWN:
                self._sent.popitem(last=False)
        return not unsent

    def _instead_of(self, alert_id: str, alert: Alert) -> tuple[str, datetime]:
        """Returns the id and the time of the alert that is sent instead of another one: that which
        is written, or else this one. An alert that is sent itself is written as its own.
        """
        uri = stores.replacement_uri(self._output, alert.camera, alert_id)
        own = {"alert_id": alert.alert_id, "timestamp": alert.body["timestamp"]}
        while not stores.write_if_new(uri, stores.json_bytes(own)):
            written = self._written_for(alert.camera, alert_id)
            if written is not None:
                return written
        return alert.alert_id, parse_time(alert.body["timestamp"])

    def _written_for(self, camera: str, alert_id: str) -> tuple[str, datetime] | None:
        """Returns the id and the time of the alert that is written as sent instead of another one;
        None for none. What is damaged is deleted.
        """
        uri = stores.replacement_uri(self._output, camera, alert_id)
        written = stores.read_if_there(uri)
        try:
            value = None if written is None else json.loads(written)
            return None if value is None else (value["alert_id"], parse_time(value["timestamp"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            stores.delete(uri)
        return None
