"""A search for alerts that are lost, sent twice or forgotten, whatever fails and whenever.

The store fails at any read, write or deletion; targets take alerts, refuse them, fail or ask for
pauses; processes are replaced; bundles that fail are tried again, as a runner does it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rules import parse_rules
from tests.search import search
from tests.transforms.alert_stream import Clock, Stream
from tests.transforms.results import judged
from transforms.alerting import delivery
from transforms.alerting.alerts import Alert, alert_for
from transforms.alerting.answers import SendResult
from transforms.alerting.delivery import STREAM_POLICY, AlertDispatcher, RetryPolicy
from transforms.alerting.ledger import Ledger, Outcome, read_waiting_alert
from transforms.alerting.messages import Message
from transforms.runtime.live_rules import LiveRules
from transforms.storage import stores

RULES = parse_rules(
    """version: 1
targets: {good: {webhook: "https://a.example"}, other: {webhook: "https://b.example"}}
defaults: {objects: {person: }, notify: [good, other]}
""",
    "rules.yaml",
)
TARGETS = ("good", "other")
ALERTS: list[Alert] = []
for _second in range(4):
    _image = judged("hall", f"2026-01-31T10:00:0{_second}Z", [("person", "alert")])
    _alert = alert_for(_image, "/out", RULES)
    assert _alert is not None
    ALERTS.append(replace(_alert, image=None))

HASTY = RetryPolicy(attempts=1, patience_seconds=0)  # Threads don't see the simulated clock.
TRIED_SECONDS = 7200
ANSWERS = {
    "delivered": SendResult("delivered"),
    "refused": SendResult("refused", "HTTP status 404"),
    "unavailable": SendResult("unavailable", "HTTP status 500"),
    "unexplained": SendResult("unavailable", "Apprise failed", is_explained=False),
    "paused": SendResult("paused", "HTTP status 429", 100.0),
}


class Store:
    """An object store of this process, which fails when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.objects: dict[str, bytes] = {}
        self.fails: list[bool] = []  # Whether each of the next requests does.
        monkeypatch.setattr(stores, "read_bytes", self.read)
        monkeypatch.setattr(stores, "write_bytes", self.write)
        monkeypatch.setattr(stores, "delete", self.delete)

    def _ask(self) -> None:
        if self.fails and self.fails.pop(0):
            raise OSError(5, "Input/output error")

    def read(self, uri: str, at_most: int = -1) -> bytes:
        self._ask()
        if uri not in self.objects:
            raise FileNotFoundError(uri)
        return self.objects[uri]

    def write(self, uri: str, data: bytes) -> None:
        self._ask()
        self.objects[uri] = data

    def delete(self, uri: str) -> None:
        self._ask()
        self.objects.pop(uri, None)

    def outcomes(self, alert: Alert) -> list[dict[str, Any]]:
        """What the record of an alert says."""
        record = self.objects.get(alert.uri("/out"))
        return [] if record is None else list(json.loads(record)["targets"])

    def delivered(self, alert: Alert) -> set[str]:
        """The targets that it shows as ones that have the alert."""
        return {
            outcome["target"]
            for outcome in self.outcomes(alert)
            if outcome["outcome"] == "delivered"
        }

    def waiting(self) -> list[str]:
        """What lies in `alerts/_undelivered/`."""
        return [uri for uri in self.objects if "/_undelivered/" in uri]


class Delivery(RuleBasedStateMachine):
    """One output, and the processes that deliver alerts for it."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self.clock = Clock(self._patch)
        self.store = Store(self._patch)
        self.answers: dict[str, list[str]] = {name: [] for name in TARGETS}
        self.shown: dict[str, set[str]] = {alert.alert_id: set() for alert in ALERTS}
        self.taken: set[tuple[str, str]] = set()
        self.refused: set[tuple[str, str]] = set()
        self.fed: dict[int, float] = {}  # When, by the clock.
        self.wrong: list[str] = []
        machine = self

        class Client:
            def __init__(self, target: Any) -> None:
                self.name = target.name

            def send(self, message: Message) -> SendResult:
                return machine.answer(self.name, message.alert_id)

        self._patch.setattr(delivery, "client_for", lambda target, *_: Client(target))
        self.stream = self.started()

    def started(self) -> Stream:
        return Stream(
            *("/out", RULES),
            policy=STREAM_POLICY,
            keep_trying_seconds=TRIED_SECONDS,
            max_concurrent=1,
        )

    def answer(self, target: str, alert_id: str) -> SendResult:
        """What a target answers, in a thread of the dispatcher."""
        if target in self.shown[alert_id]:
            self.wrong.append(f"{alert_id} was sent to {target}, whose record says delivered")
        answers = self.answers[target]
        said = answers.pop(0) if answers else "delivered"
        if said == "delivered":
            self.taken.add((alert_id, target))
        elif said == "refused":
            self.refused.add((alert_id, target))
        return ANSWERS[said]

    def look(self) -> None:
        """Waits for the threads, and takes note of what is recorded."""
        self.stream.settle_threads()
        for alert in ALERTS:
            self.shown[alert.alert_id] |= self.store.delivered(alert)

    @rule(number=st.integers(0, len(ALERTS) - 1))
    def an_alert_comes(self, number: int) -> None:
        with suppress(OSError):
            self.stream.feed(ALERTS[number])
            self.fed[number] = self.clock.now
        self.look()

    @rule(seconds=st.sampled_from([0.5, 2.0, 31.0, 70.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        for alert_id, due in self.stream.timers.items():
            if due <= self.clock.now:
                with suppress(OSError):  # The runner tries the bundle again, with its timer.
                    self.stream.fire(alert_id)
                self.look()

    @rule(
        name=st.sampled_from(TARGETS),
        answers=st.lists(st.sampled_from(sorted(ANSWERS)), max_size=6),
    )
    def a_target_will_answer(self, name: str, answers: list[str]) -> None:
        self.answers[name] = list(answers)

    @rule(name=st.sampled_from(TARGETS), said=st.sampled_from(["unavailable", "paused"]))
    def a_target_goes_away(self, name: str, said: str) -> None:
        self.answers[name] = [said] * 20

    @rule(fails=st.lists(st.booleans(), max_size=8))
    def the_store_will_fail(self, fails: list[bool]) -> None:
        self.store.fails = list(fails)

    @rule()
    def the_process_is_replaced(self) -> None:
        self.stream.start()

    @rule(number=st.integers(0, len(ALERTS) - 1))
    def a_batch_deals_with_an_alert_too(self, number: int) -> None:
        """As a second job, or a bundle that is tried again: nothing of the first is in memory."""
        if number not in self.fed:
            return
        dispatcher = AlertDispatcher("/out", LiveRules.of(RULES), (), HASTY, max_concurrent=1)
        for target in TARGETS:
            with suppress(OSError):
                dispatcher.dispatch(ALERTS[number], target).result()
            self.look()

    @rule()
    def what_waits_is_sent_again(self) -> None:
        self.resend()

    def resend(self) -> None:
        """As the command `alerts resend` does."""
        dispatcher = AlertDispatcher("/out", LiveRules.of(RULES), (), HASTY, max_concurrent=1)
        for uri in self.store.waiting():
            with suppress(OSError):
                waits = read_waiting_alert(uri)
                (outcome,) = dispatcher.dispatch(waits.alert, waits.target).result()
                if outcome.outcome == "delivered":
                    dispatcher.ledger.remove_waiting(waits.alert, waits.target)
            self.look()

    @invariant()
    def what_is_delivered_stays_so_and_is_not_sent_again(self) -> None:
        assert self.wrong == []
        for alert in ALERTS:
            assert self.shown[alert.alert_id] <= self.store.delivered(alert)
            assert {(alert.alert_id, name) for name in self.shown[alert.alert_id]} <= self.taken

    @invariant()
    def a_stream_gives_up_nothing_that_may_still_be_delivered(self) -> None:
        for number, fed_at in self.fed.items():
            alert_id = ALERTS[number].alert_id
            for name in set(TARGETS) - self.shown[alert_id]:
                if (alert_id, name) not in self.refused and self.clock.now < fed_at + TRIED_SECONDS:
                    assert name in self.stream.pending(alert_id)

    @invariant()
    def a_record_has_one_outcome_for_each_target(self) -> None:
        for alert in ALERTS:
            names = [outcome["target"] for outcome in self.store.outcomes(alert)]
            assert len(names) == len(set(names))
            assert set(names) <= set(TARGETS)

    @invariant()
    def what_has_failed_can_be_sent_again(self) -> None:
        ledger = Ledger("/out")
        for alert in ALERTS:
            for outcome in self.store.outcomes(alert):
                if outcome["outcome"] == "failed":
                    assert ledger._waiting_uri(alert, outcome["target"]) in self.store.objects

    def teardown(self) -> None:
        """Nothing fails any more: every alert ends with one outcome for each target."""
        try:
            self.store.fails = []
            for _ in range(200):
                if not self.stream.timers:
                    break
                self.time_passes(300.0)
            assert self.stream.timers == {}
            for number in self.fed:
                found = {
                    outcome["target"]: outcome["outcome"]
                    for outcome in self.store.outcomes(ALERTS[number])
                }
                assert set(found) == set(TARGETS)
                assert set(found.values()) <= {"delivered", "failed"}
            self.answers = {name: [] for name in TARGETS}
            self.resend()
            assert self.store.waiting() == []
            for number in self.fed:
                assert self.store.delivered(ALERTS[number]) == set(TARGETS)
            assert self.wrong == []
        finally:
            self._patch.undo()


TestDelivery = pytest.mark.search(Delivery.TestCase)
TestDelivery.settings = search(200, stateful_step_count=40)


def test_a_crash_between_the_record_and_the_waiting_alert_is_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each request of a failure, and then of a delivery, fails in its turn."""
    for failing in range(8):
        with monkeypatch.context() as patch:
            store = Store(patch)
            ledger, alert = Ledger("/out"), ALERTS[0]
            ledger.record(alert, Outcome("other", "delivered"))
            store.fails = [number == failing for number in range(8)]
            for outcome in ("failed", "delivered"):
                for _ in range(2):
                    with suppress(OSError):
                        ledger.record(alert, Outcome("good", outcome, "HTTP status 500"))
            assert store.delivered(alert) == {"good", "other"}
            assert store.waiting() == []


def test_an_alert_that_a_limit_admits_after_all_is_sent_to_the_target_that_it_was_held_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another target still waits for it, so that it is known."""
    store = Store(monkeypatch)
    Clock(monkeypatch)

    class Client:
        def __init__(self, target: Any) -> None:
            self.name = target.name

        def send(self, message: Message) -> SendResult:
            return ANSWERS["delivered" if self.name == "good" else "unavailable"]

    monkeypatch.setattr(delivery, "client_for", lambda target, *_: Client(target))
    stream = Stream("/out", RULES, policy=HASTY)
    alert = ALERTS[0]
    for part in (
        replace(alert, targets=("other",)),
        replace(alert, targets=("good",), held={"good": "a digest"}),
        replace(alert, targets=("good",)),
    ):
        stream.feed(part)
        stream.settle_threads()
        stream.wake(until=lambda: stream.pending(alert.alert_id) == {"other"})
    assert store.delivered(alert) == {"good"}
