"""SendAlerts: one POST for each image of severity `alert` to each alert service, and its record.

Alerts cross a shuffle (they are small) and are sent several at once from a stage of their own, so
that a service which is slow or dead holds back no picture.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import requests
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Duration, Timestamp

import rules
from transforms import stores
from transforms.counters import count
from transforms.couriers import check_url, retry_after_seconds, target_name
from transforms.read_ahead import ReadAheadDoFn
from transforms.records import JudgedImage
from transforms.text import printable

TOKEN_VARIABLE = "ALERT_TOKEN"
"""Environment variable that holds a bearer token for the alert services."""

DELIVERED = "delivered"
FAILED = "failed"
NOT_SENT = "not_sent"
SUPPRESSED = "suppressed"
WAITING = "waiting"
"""A counter's name for what failed and will be tried again; records say `failed` until then."""


@dataclass(frozen=True)
class Alert:
    """A threat that someone is to be told of, or would be but for an alert before it.

    Attributes:
      alert_id: The same for the same event in every run.
      camera: The camera's id.
      body: The alert as it is sent.
      suppressed_by: The id of the alert in whose cooldown it comes; None: it is to be sent.
      incident_number: Which image of the incident it is, beginning at 1 with the one of the alert
        that was sent.
    """

    alert_id: str
    camera: str
    body: Mapping[str, Any]
    suppressed_by: str | None
    incident_number: int | None


beam.coders.registry.register_coder(Alert, beam.coders.PickleCoder)


def alert_for(judged: JudgedImage, output: str) -> Alert | None:
    """The alert that an image calls for; None where its severity is less than `alert`."""
    image, verdict = judged.image, judged.verdict
    if verdict.severity != "alert":
        return None
    alert_id = rules.alert_id(image.id, image.timestamp, verdict.severity)
    body = {
        "alert_id": alert_id,
        "id": image.id,
        "timestamp": image.timestamp,
        "severity": verdict.severity,
        "threats": verdict.to_json()["threats"],
        "image_uri": image.uri,
        "final_uri": printable(stores.final_uri(output, image.id, image.stem)),
        "rules_version": verdict.rules_version,
        "model_version": image.model.version,
    }
    return Alert(alert_id, image.id, body, verdict.suppressed_by, verdict.incident_number)


@dataclass(frozen=True)
class RetryPolicy:
    """How long a service is waited for.

    Attributes:
      attempts: Tries an alert.
      connect_seconds: Waiting for a connection.
      read_seconds: Waiting for the answer.
      first_pause_seconds: Before the second try; doubled before each further one.
      longest_pause_seconds: A `Retry-After` beyond this one ends the tries.
      give_up_after: Alerts in a row that a service fails before the others are not tried on it.
      try_again_seconds: After that long one alert is tried again.
    """

    attempts: int = 3
    connect_seconds: float = 5
    read_seconds: float = 10
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30
    give_up_after: int = 5
    try_again_seconds: float = 30


class AlertService:
    """One `--alert_url`: sends alerts to it from any number of threads.

    Args:
      url: Where to POST; http or https.
      policy: How long it is waited for.
    """

    def __init__(self, url: str, policy: RetryPolicy) -> None:
        self.url = url
        self.name = target_name(url)
        self.policy = policy
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._closed_until = 0.0
        self._sessions = threading.local()

    def send(self, alert: Alert) -> tuple[str, str]:
        """Delivers an alert; the outcome and, where it failed, why."""
        if self._is_given_up():
            return FAILED, "not tried: the service has failed several alerts in a row"
        detail = ""
        for attempt in range(self.policy.attempts):
            detail, pause = self._post(alert, attempt)
            if not detail:
                self._note(delivered=True)
                return DELIVERED, ""
            if pause is None:
                self._note(delivered=True)  # It answers: this alert is refused, others may not be.
                return FAILED, detail
            if attempt + 1 == self.policy.attempts or pause > self.policy.longest_pause_seconds:
                break
            time.sleep(pause)
        self._note(delivered=False)
        return FAILED, detail

    def _post(self, alert: Alert, attempt: int) -> tuple[str, float | None]:
        """One try: what went wrong, or nothing, and the pause before the next; None for none."""
        headers: dict[str, str | bytes] = {"Idempotency-Key": alert.alert_id}
        if token := os.environ.get(TOKEN_VARIABLE):
            # Bytes, so that no letter is refused; mounted secrets often end in a line feed.
            headers["Authorization"] = b"Bearer " + os.fsencode(token.strip())
        pause = self.policy.first_pause_seconds * 2**attempt * random.uniform(0.75, 1.25)
        try:
            with self._session().post(
                self.url,
                json=alert.body,
                headers=headers,
                timeout=(self.policy.connect_seconds, self.policy.read_seconds),
                allow_redirects=False,
                stream=True,  # The status is the answer; a body that drips is not waited for.
            ) as response:
                status = response.status_code
                asked = retry_after_seconds(response.headers.get("Retry-After"))
        except requests.Timeout:
            return "no answer in time", pause
        except requests.RequestException as error:
            # The message of an error may repeat the address, and with it a secret.
            return f"no connection ({type(error).__name__})", pause
        if 200 <= status < 300:
            return "", None
        if status in (408, 425, 429) or status >= 500:
            return f"HTTP status {status}", pause if asked is None else asked
        return f"HTTP status {status}", None

    def _session(self) -> requests.Session:
        if not hasattr(self._sessions, "session"):
            self._sessions.session = requests.Session()
        session: requests.Session = self._sessions.session
        return session

    def _is_given_up(self) -> bool:
        with self._lock:
            if self._failed_in_a_row < self.policy.give_up_after:
                return False
            if time.monotonic() < self._closed_until:
                return True
            self._closed_until = time.monotonic() + self.policy.try_again_seconds
            return False

    def _note(self, *, delivered: bool) -> None:
        with self._lock:
            self._failed_in_a_row = 0 if delivered else self._failed_in_a_row + 1
            self._closed_until = time.monotonic() + self.policy.try_again_seconds


def delivered_before(uri: str) -> dict[str, dict[str, Any]]:
    """What an alert's record says of the services that have it already, by their names."""
    try:
        record = json.loads(stores.read_bytes(uri))
        return {one["target"]: one for one in record["targets"] if one["outcome"] == DELIVERED}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # No record, or none that says so: the service knows the alert's id.


def _target(name: str | None, outcome: str, detail: str) -> dict[str, Any]:
    return {"target": name, "outcome": outcome, "detail": detail}


class _Sender:
    """Delivers alerts to all services, and keeps the record of each."""

    def __init__(self, output: str, urls: Sequence[str], policy: RetryPolicy) -> None:
        self._output = output
        self._services = [AlertService(url, policy) for url in urls]

    def deliver(self, alert: Alert) -> list[str]:
        """Sends an alert to whoever has not got it yet; the outcome for each service.

        One that another suppresses is not sent; where it was delivered by other rules, its record
        stays.
        """
        uri = stores.alert_uri(self._output, alert.camera, alert.alert_id)
        targets = delivered_before(uri)
        record = dict(alert.body)
        if alert.suppressed_by is None:
            for service in self._services:
                if service.name not in targets:
                    outcome, detail = service.send(alert)
                    targets[service.name] = _target(service.name, outcome, detail)
            if not targets:
                targets[""] = _target(None, NOT_SENT, "no --alert_url was given")
        elif not targets:
            covered = f"in the cooldown of alert {alert.suppressed_by}"
            targets[""] = _target(None, SUPPRESSED, covered)
            record["suppressed_by"] = alert.suppressed_by
            record["incident_number"] = alert.incident_number
        in_order = [targets[name] for name in sorted(targets)]
        stores.write_bytes(uri, stores.json_bytes({**record, "targets": in_order}))
        return [one["outcome"] for one in in_order]


class _Send(ReadAheadDoFn):
    """Sends each alert; hands on those that are to be tried again, where any are."""

    def __init__(
        self,
        output: str,
        urls: Sequence[str],
        policy: RetryPolicy,
        at_once: int,
        keep_trying: bool,
    ) -> None:
        super().__init__(threads=at_once, max_waiting=8 * at_once)
        self._output = output
        self._urls = tuple(urls)
        self._policy = policy
        self._keep_trying = keep_trying

    def setup(self) -> None:
        super().setup()
        self._sender = _Sender(self._output, self._urls, self._policy)

    def work(self, element: Alert) -> tuple[Alert, list[str]]:
        return element, self._sender.deliver(element)

    def outputs(self, result: tuple[Alert, list[str]]) -> Iterable[tuple[str, Alert]]:
        alert, outcomes = result
        waits = self._keep_trying and FAILED in outcomes
        for outcome in outcomes:
            count(f"alerts.{WAITING if waits and outcome == FAILED else outcome}")
        if waits:
            yield alert.alert_id, alert


@dataclass(frozen=True)
class _Undelivered:
    alert: Alert
    since: float
    tries: int = 1


class _TryAgain(beam.DoFn):
    """Holds alerts that a service did not take, and sends them again until it does."""

    _HELD = ReadModifyWriteStateSpec("held", beam.coders.PickleCoder())
    _TRY = TimerSpec("try", TimeDomain.REAL_TIME)

    def __init__(
        self,
        output: str,
        urls: Sequence[str],
        policy: RetryPolicy,
        keep_trying_seconds: float,
        longest_pause_seconds: float,
    ) -> None:
        self._output = output
        self._urls = tuple(urls)
        self._policy = policy
        self._keep_trying_seconds = keep_trying_seconds
        self._longest_pause_seconds = longest_pause_seconds

    def setup(self) -> None:
        self._sender = _Sender(self._output, self._urls, self._policy)

    def process(
        self,
        element: tuple[str, Alert],
        held: Any = beam.DoFn.StateParam(_HELD),
        again: Any = beam.DoFn.TimerParam(_TRY),
    ) -> None:
        self._hold(_Undelivered(element[1], time.time()), held, again)

    @on_timer(_TRY)
    def try_again(
        self,
        held: Any = beam.DoFn.StateParam(_HELD),
        again: Any = beam.DoFn.TimerParam(_TRY),
    ) -> None:
        """Sends one alert again."""
        waits: _Undelivered | None = held.read()
        if waits is None:
            return
        outcomes = self._sender.deliver(waits.alert)
        if FAILED not in outcomes:
            count(f"alerts.{DELIVERED}")
        elif time.time() - waits.since >= self._keep_trying_seconds:
            count(f"alerts.{FAILED}")
        else:
            self._hold(replace(waits, tries=waits.tries + 1), held, again)
            return
        held.clear()

    def _hold(self, waits: _Undelivered, held: Any, again: Any) -> None:
        held.write(waits)
        pause = min(2.0 ** min(waits.tries, 16), self._longest_pause_seconds)
        again.set(Timestamp.now() + Duration(pause * random.uniform(0.75, 1.25)))


STREAM_POLICY = RetryPolicy(
    attempts=1, connect_seconds=3, read_seconds=5, give_up_after=2, try_again_seconds=5
)
"""For streams: an alert that fails once is held, and sent again by a timer."""


class SendAlerts(beam.PTransform):
    """Sends an alert for each image of severity `alert`, and records what became of it.

    Input: `PCollection[JudgedImage]`. What a record shows as delivered is not sent again; what
    comes in the cooldown of another alert is recorded as suppressed, and not sent. A token for the
    services is taken from the environment variable `ALERT_TOKEN` of the machine that sends.

    Args:
      output: The job's output, where `alerts/` is.
      urls: The services; none: alerts are recorded as not sent.
      policy: How long a service is waited for; None: as suits a batch or a stream.
      at_once: Alerts sent at once.
      keep_trying: Whether an alert that fails is held and sent again, as a stream can.
      keep_trying_seconds: For how long.
      longest_pause_seconds: Between two tries of one alert; the first pauses are 2, 4, 8 s.
    """

    def __init__(
        self,
        output: str,
        *,
        urls: Sequence[str] = (),
        policy: RetryPolicy | None = None,
        at_once: int = 16,
        keep_trying: bool = False,
        keep_trying_seconds: float = 86400,
        longest_pause_seconds: float = 60,
    ) -> None:
        super().__init__()
        for url in urls:
            check_url(url)
        self._output = output
        policy = policy or (STREAM_POLICY if keep_trying else RetryPolicy())
        self._send = _Send(output, urls, policy, at_once, keep_trying)
        self._again = (
            _TryAgain(output, urls, policy, keep_trying_seconds, longest_pause_seconds)
            if keep_trying
            else None
        )

    def expand(self, judged: beam.PCollection[JudgedImage]) -> beam.PCollection[Any]:
        output = self._output

        def alerts(one: JudgedImage) -> Iterator[Alert]:
            alert = alert_for(one, output)
            if alert is not None:
                yield alert

        failed = (
            judged
            | "ChooseAlerts" >> beam.FlatMap(alerts).with_output_types(Alert)
            | "ApartFromImages" >> beam.Reshuffle()
            | "Post" >> beam.ParDo(self._send).with_output_types(tuple[str, Alert])
        )
        return failed if self._again is None else failed | "PostAgain" >> beam.ParDo(self._again)
