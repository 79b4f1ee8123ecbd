"""Limits hold whatever happens: searched for by storms, crashes and replays in another order.

The stream runs both limits on a runner that fails, over a store that fails, with cameras whose
clocks are wrong, and with limits that are edited. Messages are never taken back.
"""

from __future__ import annotations

import functools
import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rules import parse_rules
from tests.search import search
from tests.transforms.failing_runner import Bag, Cell, Store, StoreFailureError, Timer
from tests.transforms.results import judged
from transforms import limit_alerts
from transforms.alerting import decisions
from transforms.alerting.alerts import Alert, alert_for
from transforms.limit_alerts import TargetedAlert
from transforms.records.times import canonical_time, from_unix, parse_time

LENGTH, GRACE = 60, 6
MAX_AGE_SECONDS = 3600
SKEWS = {"hall": 0, "ahead": 5 * 3600, "behind": -50 * 60}
TARGETS = ("guard", "mail")
START = parse_time("2026-01-31T10:00:00Z").timestamp()


@functools.cache
def rules_with(per_id: int | None, fleet: int | None):
    limits = "".join(
        f"  {name}: {{alerts: {most}, within: {LENGTH}s}}\n"
        for name, most in (("per_id", per_id), ("fleet", fleet))
        if most
    )
    return parse_rules(
        "version: 1\ntargets: {guard: {webhook: https://g.example}, mail: "
        f"{{webhook: https://m.example}}}}\nlimits:\n{limits}"
        "defaults: {objects: {person: }, notify: [guard, mail]}\n",
        "rules.yaml",
    )


class EditableRules:
    """Rules that a test edits."""

    def __init__(self, current) -> None:
        self.current = current

    def refresh(self) -> None:
        pass


@dataclass
class KeyState:
    """State and timers of one key."""

    held: Bag = field(default_factory=lambda: Bag(limit_alerts.HELD_ALERTS))
    next_digest: Cell = field(default_factory=lambda: Cell(limit_alerts.NEXT_DIGESTS))
    due: Timer = field(default_factory=Timer)
    end: Timer = field(default_factory=Timer)

    def copy(self) -> KeyState:
        return KeyState(self.held.copy(), self.next_digest.copy(), self.due.copy(), self.end.copy())


class Stream:
    """Both limits of a stream, and what the targets got.

    Attributes:
      sent: Messages that a target took: alerts and digests.
      records: What the ledger says of each alert and target.
    """

    def __init__(self, per_id: int | None, fleet: int | None) -> None:
        self.store, self.now = Store(), START + 5
        self.live = EditableRules(rules_with(per_id, fleet))
        self.log: list[Alert] = []
        self.sent: list[tuple[str, str, dict]] = []
        self.records: dict[tuple[str, str], str] = {}
        self.states: dict[tuple[bool, str], KeyState] = {}
        self.queues: dict[object, list[TargetedAlert]] = {True: [], False: [], "sink": []}
        self.kept: tuple = (0, {}, [])
        self.crashes = 0
        self.workers = [
            {
                per_id: limit_alerts._LimitInStream(
                    "/out",
                    self.live,
                    per_id=per_id,
                    max_age_seconds=MAX_AGE_SECONDS,
                    clock=lambda: self.now,
                )
                for per_id in (True, False)
            }
            for _ in range(2)
        ]

    @property
    def steps(self) -> dict[bool, limit_alerts._LimitInStream]:
        """Those of the worker that has the work: after each crash another one, which may have had
        it before."""
        return self.workers[self.crashes % 2]

    def feed(self, alert: Alert) -> None:
        self.log.append(alert)
        self._queue(alert)

    def _queue(self, alert: Alert) -> None:
        for name in alert.targets:
            part = Alert(alert.alert_id, alert.camera, alert.body, (name,))
            self.queues[True].append(TargetedAlert(part))

    def bundle(self, per_id: bool, size: int) -> None:
        """Some of what waits at a step, as one bundle."""
        queue = self.queues[per_id]
        elements = queue[:size]
        del queue[:size]
        step = self.steps[per_id]
        step.start_bundle()
        out: list[TargetedAlert] = []
        for element in elements:
            limit = limit_alerts._limit(self.live.current, per_id)
            window = None
            key = element.alert.alert_id
            if limit is not None and not element.is_settled:
                window = limit_alerts.Window.of(element.alert, limit, per_id=per_id)
                key = window.key
            state = self.states.setdefault((per_id, key), KeyState())
            out += step.process(
                (key, (window, element)), state.held, state.next_digest, state.due, state.end
            )
        self.queues[False if per_id else "sink"] += out

    def timers(self, *, drained: bool = False) -> None:
        """Fires the timers that are due, each key as a bundle of its own."""
        for (per_id, _), state in list(self.states.items()):
            step = self.steps[per_id]
            step.start_bundle()
            out: list[TargetedAlert] = []
            if state.due.at is not None and state.due.at <= self.now:
                state.due.clear()
                out += step.send_digest(state.held, state.next_digest, state.end)
            if drained and state.end.at is not None:
                state.end.clear()
                out += step.send_last_digest(state.held, state.next_digest, state.due)
            self.queues[False if per_id else "sink"] += out

    def deliver(self, size: int) -> None:
        """Deals with some of what has come past the limits: messages are out for good."""
        for queue in self.queues["sink"][:size]:
            alert, (target,) = queue.alert, queue.alert.targets
            key = alert.alert_id, target
            if self.records.get(key) == "delivered":
                continue
            if alert.held:
                self.records[key] = alert.held[target]
            elif limit_alerts.is_too_old(alert, MAX_AGE_SECONDS, from_unix(self.now)):
                self.records[key] = "too old"
            else:
                self.records[key] = "delivered"
                self.sent.append((target, alert.alert_id, dict(alert.body)))
        del self.queues["sink"][:size]

    def run(self) -> None:
        """All that waits, to the end."""
        while any(self.queues.values()):
            for per_id in (True, False):
                self.bundle(per_id, 1000)
            self.deliver(1000)

    def checkpoint(self) -> None:
        """What is under way goes before the barrier; what is still to be sent is state."""
        for per_id in (True, False):
            while self.queues[per_id]:
                self.bundle(per_id, 1000)
        states = {key: state.copy() for key, state in self.states.items()}
        self.kept = len(self.log), states, list(self.queues["sink"])

    def crash(self, order: random.Random) -> None:
        """Goes on from the last checkpoint, and gets again what came since, in another order."""
        self.crashes += 1
        done, states, sink = self.kept
        self.states = {key: state.copy() for key, state in states.items()}
        self.queues = {True: [], False: [], "sink": list(sink)}
        again = self.log[done:]
        order.shuffle(again)
        self.log[done:] = again
        for alert in again:
            self._queue(alert)
        order.shuffle(self.queues[True])

    def digest_records(self) -> list[dict]:
        return [
            {"target": record["target"], **digest}
            for record in map(json.loads, self.store.files.values())
            for digest in record["digests"]
        ]


class Storms(RuleBasedStateMachine):
    """Any order of storms, checkpoints, crashes and failures of the store."""

    def __init__(self) -> None:
        super().__init__()
        self.stream: Stream | None = None

    @initialize(
        limits=st.sampled_from([(1, None), (2, None), (None, 1), (None, 3), (1, 2), (2, 3), (3, 2)])
    )
    def begin(self, limits) -> None:
        self.stream = Stream(*limits)
        self.most = {"per_id": limits[0], "fleet": limits[1]}
        self.patch = patch.object(decisions, "stores", self.stream.store)
        self.patch.start()

    def _attempt(self, work, order: random.Random) -> None:
        try:
            work()
        except StoreFailureError:
            self.stream.crash(order)

    @rule(
        camera=st.sampled_from(sorted(SKEWS)),
        ages=st.lists(st.integers(0, 90), min_size=1, max_size=6),
        notified=st.sampled_from([("guard",), TARGETS]),
    )
    def alerts_come(self, camera, ages, notified) -> None:
        for age in ages:
            capture = canonical_time(from_unix(int(self.stream.now) + SKEWS[camera] - age))
            alert = alert_for(
                judged(camera, capture, [("person", "alert")]), "/out", self.stream.live.current
            )
            if all(alert.alert_id != other.alert_id for other in self.stream.log):
                self.stream.feed(Alert(alert.alert_id, camera, alert.body, notified))

    @rule(data=st.data())
    def an_image_is_replaced(self, data) -> None:
        if self.stream.log:
            self.stream.feed(data.draw(st.sampled_from(self.stream.log)))

    @rule(per_id=st.booleans(), size=st.integers(1, 8), order=st.randoms(use_true_random=False))
    def a_step_works(self, per_id, size, order) -> None:
        self._attempt(lambda: self.stream.bundle(per_id, size), order)

    @rule(size=st.integers(1, 8))
    def messages_go_out(self, size) -> None:
        self.stream.deliver(size)

    @rule(order=st.randoms(use_true_random=False))
    def all_is_worked_off(self, order) -> None:
        self._attempt(self.stream.run, order)

    @rule(
        seconds=st.sampled_from([1, 10, 30, 60, 70, 2 * 3600]),
        order=st.randoms(use_true_random=False),
    )
    def time_passes(self, seconds, order) -> None:
        self.stream.now += seconds
        self._attempt(self.stream.timers, order)

    @rule(order=st.randoms(use_true_random=False))
    def a_checkpoint_is_made(self, order) -> None:
        self._attempt(self.stream.checkpoint, order)

    @rule(order=st.randoms(use_true_random=False))
    def the_job_crashes(self, order) -> None:
        self.stream.crash(order)

    @rule(after=st.integers(0, 4))
    def the_store_will_fail(self, after) -> None:
        self.stream.store.fails_after = after

    @rule(per_id=st.integers(1, 4), fleet=st.integers(1, 4))
    def limits_are_edited(self, per_id, fleet) -> None:
        edited = {
            name: most and {"per_id": per_id, "fleet": fleet}[name]
            for name, most in self.most.items()
        }
        self.stream.live.current = rules_with(edited["per_id"], edited["fleet"])
        self.most = {name: most and max(most, edited[name]) for name, most in self.most.items()}

    @invariant()
    def no_target_gets_more_than_its_limit(self) -> None:
        if self.stream is None:
            return
        of_camera: Counter[tuple] = Counter()
        of_fleet: Counter[tuple] = Counter()
        for target, _, body in self.stream.sent:
            if "digest" not in body:
                start = parse_time(body["timestamp"]).timestamp() // LENGTH
                of_camera[target, body["id"], start] += 1
                of_fleet[target, start] += 1
        for most, numbers in ((self.most["per_id"], of_camera), (self.most["fleet"], of_fleet)):
            assert most is None or max(numbers.values(), default=0) <= most

    def teardown(self) -> None:
        if self.stream is None:
            return
        try:
            self.check_the_end()
        finally:
            self.patch.stop()

    def check_the_end(self) -> None:
        """The clock of the machine alone brings the digests, whatever those of the cameras say."""
        stream = self.stream
        stream.store.fails_after = None
        stream.run()
        stream.now += LENGTH + GRACE
        stream.timers()
        stream.run()
        self.no_target_gets_more_than_its_limit()
        assert not any(state.held.kept or state.due.at for state in stream.states.values())
        assert not any(state.end.at for state in stream.states.values())
        messages = Counter((target, key) for target, key, _ in stream.sent)
        assert max(messages.values(), default=1) == 1, "a message was sent twice"
        bodies = {(target, key): body for target, key, body in stream.sent}
        digests: dict[tuple[str, str], list[str]] = defaultdict(list)
        for digest in stream.digest_records():
            where = digest["target"], digest["body"]["alert_id"]
            assert digest["body"] == bodies[where], "a digest was not sent, or another one was"
            assert digest["body"]["digest"]["alerts"] == len(set(digest["alert_ids"]))
            for key in digest["alert_ids"]:
                digests[digest["target"], key].append(where[1])
        for alert in stream.log:
            for target in alert.targets:
                record = stream.records[alert.alert_id, target]
                digest = digests[target, alert.alert_id]
                expected = [] if record in ("delivered", "too old") else [record]
                assert digest == expected, f"{record}, but in the digests {digest}"


Storms.TestCase.settings = search(1000, stateful_step_count=30)
TestStorms = pytest.mark.search(Storms.TestCase)
