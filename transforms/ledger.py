"""The ledger: what became of each alert for each target, and what waits to be sent again.

An alert has one record, which lists its targets. The threads that send to them each add their own
outcome: they read, merge and write under a lock of the process. No lock reaches beyond it, nor is
one needed: an alert is one element of the job, and so is sent by one process at a time. What
`alerts resend` sends meanwhile is merged too, as long as it is not within the same milliseconds;
then a target gets an alert once more, under the same id.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from transforms import stores
from transforms.alerts import Alert

DELIVERED = "delivered"
FAILED = "failed"
NOT_SENT = "not_sent"
SUPPRESSED = "suppressed"


@dataclass(frozen=True)
class Outcome:
    """What became of an alert for one target.

    Attributes:
      target: Its name; None: for all that there are, or could be.
      outcome: `delivered`, `failed`, `suppressed` or `not_sent`.
      detail: Why it was not delivered, for a person; never a secret.
      again_after: A later try may deliver it, not before so many seconds; None: none will. Not
        recorded.
    """

    target: str | None
    outcome: str
    detail: str = ""
    again_after: float | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """One entry of `targets`."""
        return {"target": self.target, "outcome": self.outcome, "detail": self.detail}


@dataclass(frozen=True)
class Letter:
    """An alert that waits to be sent again to one target.

    Attributes:
      uri: Where it lies.
      target: The target's name.
      detail: Why it was not delivered.
      alert: The alert, for that target.
    """

    uri: str
    target: str
    detail: str
    alert: Alert

    @property
    def order(self) -> str:
        """By it letters sort in the order of the alerts' times."""
        return self.uri.rsplit("/", 1)[-1].replace("Z_", " ", 1)


class Ledger:
    """The records in `alerts/` of an output. Used from any number of threads.

    Args:
      output: The job's output.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._locks = [threading.Lock() for _ in range(64)]

    def outcomes(self, alert: Alert) -> list[Outcome]:
        """What an alert's record says; nothing where there is none, or none that can be read."""
        try:
            record = json.loads(stores.read_bytes(alert.uri(self._output)))
            return [
                Outcome(one["target"], one["outcome"], one["detail"]) for one in record["targets"]
            ]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # The target knows the alert's id.

    def note(self, alert: Alert, outcome: Outcome) -> list[Outcome]:
        """Adds what became of an alert to its record; all that the record then says.

        What was delivered stays so, and a target by its name counts for more than one without.
        What has failed waits in `alerts/undelivered/` from now on, until it is delivered.

        Raises:
          OSError: It can't be written.
        """
        with self._locks[zlib.crc32(alert.alert_id.encode()) % len(self._locks)]:
            earlier = {one.target: one for one in self.outcomes(alert)}
            known = earlier.get(outcome.target)
            if known is not None and known.outcome == DELIVERED:
                outcome = known
            targets = {**earlier, outcome.target: outcome}
            if len(targets) > 1:
                targets.pop(None, None)
            if outcome.outcome == FAILED:
                self._keep(alert, outcome)
            self._write(alert, targets)
            if outcome.outcome == DELIVERED and known is not None and known.outcome == FAILED:
                self.forget(alert, known.target or "")
        return list(targets.values())

    def _write(self, alert: Alert, targets: dict[str | None, Outcome]) -> None:
        record = dict(alert.body)
        if None in targets and alert.suppressed_by is not None:
            record["suppressed_by"] = alert.suppressed_by
            record["incident_number"] = alert.incident_number
        in_order = [targets[name].to_json() for name in sorted(targets, key=lambda one: one or "")]
        stores.write_bytes(
            alert.uri(self._output), stores.json_bytes({**record, "targets": in_order})
        )

    def _letter_uri(self, alert: Alert, target: str) -> str:
        return stores.undelivered_uri(self._output, target, alert.body["timestamp"], alert.alert_id)

    def _keep(self, alert: Alert, outcome: Outcome) -> None:
        letter = {"target": outcome.target, "detail": outcome.detail, "alert": alert.body}
        stores.write_bytes(self._letter_uri(alert, outcome.target or ""), stores.json_bytes(letter))

    def forget(self, alert: Alert, target: str) -> None:
        """Takes away what waits for a target that has the alert."""
        stores.delete(self._letter_uri(alert, target))

    def waiting(self) -> Iterator[str]:
        """The addresses of all that waits.

        Raises:
          OSError: The store can't be listed.
        """
        folder = stores.undelivered_folder(self._output)
        return (one.path for one in stores.list_beneath(folder) if one.path.endswith(".json"))


def read_letter(uri: str) -> Letter:
    """What waits at an address.

    Raises:
      OSError: It can't be read.
      ValueError: It is no alert that waits.
    """
    try:
        value = json.loads(stores.read_bytes(uri))
        alert = Alert.from_body(value["alert"], value["target"])
        return Letter(uri, value["target"], value["detail"], alert)
    except (KeyError, TypeError) as error:
        raise ValueError(f"is no alert that waits ({error!r})") from None
