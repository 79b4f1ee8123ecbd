"""The ledger: the outcome of each alert for each target, and the alerts that wait for a resend.

An alert has one record, which lists its targets. The thread of each target adds its own outcome: it
reads, merges and writes under a lock of the process. No lock between processes is needed: an alert
is one element of the job, so one process at a time sends it. Outcomes of a concurrent `alerts
resend` are merged too, unless both write within the same milliseconds; then a target gets the alert
again, with the same id.
"""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from transforms.alerting.alerts import Alert
from transforms.storage import stores

DELIVERED = "delivered"
FAILED = "failed"
NOT_SENT = "not_sent"
SUPPRESSED = "suppressed"
WAITING = "waiting"
"""The alert will be sent again, and is not recorded yet; never in a record."""


_FORMER_WAITING = re.compile(r"/undelivered/[^/]+/[^/]+\.json\Z")
"""A file that is one level higher is an alert of a camera called `undelivered`."""


class OutcomeJson(TypedDict):
    """An entry of `targets` in an alert's record; see `Outcome`."""

    target: str | None
    outcome: str
    detail: str


_LOCKS = [threading.Lock() for _ in range(64)]
"""Of the process, not of a ledger: after a bundle has failed, a second ledger records while threads
of the first one may still be at work."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of an alert for one target.

    Attributes:
      target: The target's name; None if the outcome applies to all targets.
      outcome: `delivered`, `failed`, `suppressed` or `not_sent`; `waiting` if it is not recorded
        yet.
      detail: Why the alert was not delivered, for a person; never a secret.
      again_after: The seconds until a further attempt may deliver the alert; None if there is no
        further attempt. It is not recorded.
      is_earlier: Whether the alert was delivered before this attempt. It is not recorded.
    """

    target: str | None
    outcome: str
    detail: str = ""
    again_after: float | None = field(default=None, compare=False)
    is_earlier: bool = field(default=False, compare=False)

    def to_json(self) -> OutcomeJson:
        """Makes an entry of `targets`."""
        return {"target": self.target, "outcome": self.outcome, "detail": self.detail}


@dataclass(frozen=True)
class WaitingAlert:
    """An alert that waits to be sent again to one target.

    Attributes:
      uri: The address of the file.
      target: The target's name.
      detail: Why the alert was not delivered.
      alert: The alert, for that target.
    """

    uri: str
    target: str
    detail: str
    alert: Alert

    @property
    def order(self) -> str:
        """A sort key by the time of the alert."""
        return self.uri.rsplit("/", 1)[-1].replace("Z_", " ", 1)


def _record(alert: Alert, body: Mapping[str, Any], targets: Mapping[str | None, Outcome]) -> bytes:
    record = dict(body)
    if None in targets and alert.suppressed_by is not None:
        record["suppressed_by"] = alert.suppressed_by
        record["incident_number"] = alert.incident_number
    entries = [targets[name].to_json() for name in sorted(targets, key=lambda name: name or "")]
    return stores.json_bytes({**record, "targets": entries})


class Ledger:
    """The records in `alerts/` of an output. Thread-safe.

    Args:
      output: The job's output.
      former: The current names of targets, by their names in records of earlier releases.
    """

    def __init__(self, output: str, former: Mapping[str, str] | None = None) -> None:
        self._output = output
        self._former = dict(former or {})

    def outcomes(self, alert: Alert) -> list[Outcome]:
        """Returns the outcomes in an alert's record; none if there is no valid record.

        Raises:
          OSError: The record can't be read, so its content is unknown.
        """
        return list(self._outcomes_in(self._record_of(alert)).values())

    def current_name(self, target: str) -> str:
        """Returns the current name of a target whose name an earlier release may have written."""
        return self._former.get(target, target)

    def _outcomes_in(self, record: bytes | None) -> dict[str | None, Outcome]:
        """Returns the outcomes in a record by target; none if there is no valid record.

        The alert is then sent again, and the target recognizes its id.
        """
        outcomes: dict[str | None, Outcome] = {}
        try:
            for entry in [] if record is None else json.loads(record)["targets"]:
                name, *texts = entry["target"], entry["outcome"], entry["detail"]
                if not (name is None or isinstance(name, str)) or not all(
                    isinstance(text, str) for text in texts
                ):
                    return {}
                outcome = Outcome(name and self.current_name(name), *texts)
                name = outcome.target
                if name not in outcomes or outcome.outcome == DELIVERED:
                    outcomes[name] = outcome
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return outcomes

    def _record_of(self, alert: Alert) -> bytes | None:
        record = stores.read_if_there(alert.uri(self._output))
        if record is None and alert.is_digest:
            record = stores.read_if_there(alert.uri(self._output, former=True))
        return record

    def record(self, alert: Alert, outcome: Outcome) -> list[Outcome]:
        """Adds an outcome to an alert's record, and returns all outcomes of the record.

        A delivery is final, and an outcome for a named target replaces one without a target. The
        record of a delivered digest keeps the content that was sent. A failed alert waits in
        `alerts/_undelivered/` until it is delivered. Nothing is written if the record holds the
        outcome already. `alerts resend` removes files that a crash leaves in `_undelivered`; it
        sends nothing that is delivered.

        Raises:
          OSError: The record can't be read, and stays as it is; or it can't be written.
        """
        with _LOCKS[zlib.crc32(alert.alert_id.encode()) % len(_LOCKS)]:
            old_record = self._record_of(alert)
            earlier_outcomes = self._outcomes_in(old_record)
            earlier_outcome = earlier_outcomes.get(outcome.target)
            if earlier_outcome is not None and earlier_outcome.outcome == DELIVERED:
                outcome = earlier_outcome
            targets = {**earlier_outcomes, outcome.target: outcome}
            if len(targets) > 1:
                targets.pop(None, None)
            body = alert.body
            if old_record is not None and alert.is_digest and outcome is earlier_outcome:
                body = json.loads(old_record)
            record = _record(alert, body, targets)
            if record == old_record:
                return list(targets.values())
            # The waiting alert is written before the record says so, and removed before the record
            # says otherwise: after a crash in between, the next attempt finds the old record.
            if outcome.outcome == FAILED:
                self._add_waiting(alert, outcome)
            elif (
                outcome.outcome == DELIVERED
                and earlier_outcome is not None
                and earlier_outcome.outcome == FAILED
            ):
                self.remove_waiting(alert, earlier_outcome.target or "")
            stores.write_bytes(alert.uri(self._output), record)
        return list(targets.values())

    def _waiting_uri(self, alert: Alert, target: str, *, former: bool = False) -> str:
        timestamp = alert.body["timestamp"]
        return stores.undelivered_uri(
            self._output, target, timestamp, alert.alert_id, former=former
        )

    def _add_waiting(self, alert: Alert, outcome: Outcome) -> None:
        content = {"target": outcome.target, "detail": outcome.detail, "alert": alert.body}
        stores.write_bytes(
            self._waiting_uri(alert, outcome.target or ""), stores.json_bytes(content)
        )

    def remove_waiting(self, alert: Alert, target: str) -> None:
        """Removes the waiting alert of a target that got the alert."""
        names = [target, *(old for old, name in self._former.items() if name == target)]
        for name in names:
            for former in (False, True):
                stores.delete(self._waiting_uri(alert, name, former=former))

    def waiting_uris(self) -> Iterator[str]:
        """Lists the addresses of all waiting alerts.

        Raises:
          OSError: The store can't be listed.
        """
        folder, former_folder = stores.undelivered_folders(self._output)
        for file in stores.list_beneath(folder):
            if file.path.endswith(".json"):
                yield file.path
        for file in stores.list_beneath(former_folder):
            if file.path.endswith(".json") and _FORMER_WAITING.search(file.path):
                yield file.path


def read_waiting_alert(uri: str) -> WaitingAlert:
    """Reads a waiting alert.

    Raises:
      OSError: The file can't be read.
      ValueError: The file holds no waiting alert.
    """
    try:
        value = json.loads(stores.read_bytes(uri))
        alert = Alert.from_body(value["alert"], value["target"])
        return WaitingAlert(uri, value["target"], value["detail"], alert)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"is not a waiting alert ({error!r})") from None
