"""Cooldowns hold whatever happens: searched for by crashes and replays in another order.

The stream judges on a runner that fails, over a store that fails. An alert that is sent is never
taken back. Where images are judged again in their own order, each verdict is that of a batch.
"""

from __future__ import annotations

import hashlib
import random
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import rules
from rules import alert_id, parse_rules
from tests.search import search
from tests.transforms.failing_runner import Cell, Store, StoreFailureError, Timer
from tests.transforms.results import detected
from transforms.alerting import decisions
from transforms.judge_threats import HISTORIES, JudgeInStream, judge_in_order
from transforms.records.images import DetectedImage, JudgedImage
from transforms.records.precedence import CaptureTime, Version, add_version
from transforms.records.times import canonical_time, parse_time
from transforms.runtime.live_rules import LiveRules

COOLDOWN_SECONDS = 60
START = parse_time("2026-01-31T10:00:00Z")
RULES = parse_rules(
    """version: 1
targets: {guard: {webhook: https://guard.example, severities: [alert, detection]}}
defaults:
  objects: {person: , car: , dog: {severity: detection}, cat: {severity: detection}}
  cooldown: 60s
  notify: [guard]
""",
    "rules.yaml",
)


WITH_GAP = parse_rules(
    """version: 1
targets: {guard: {webhook: https://guard.example, severities: [alert, detection]}}
defaults:
  objects: {person: , car: , dog: {severity: detection}, cat: {severity: detection}}
  cooldown: 60s
  incident_gap: 20s
  notify: [guard]
""",
    "rules.yaml",
)


class Cooldowns(RuleBasedStateMachine):
    """Any order of images, checkpoints, crashes and failures of the store; one camera."""

    ruleset = RULES

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.patch = patch.object(decisions, "stores", self.store)
        self.patch.start()
        self.workers = [JudgeInStream(LiveRules.of(self.ruleset), 3600, "/out") for _ in range(2)]
        self.crashes = 0
        self.state = Cell(HISTORIES)
        self.log: list[DetectedImage] = []
        self.queue: list[DetectedImage] = []
        self.judged: list[JudgedImage] = []
        self.kept: tuple = (0, None, [])
        self.sent: dict[str, JudgedImage] = {}

    @initialize()
    def begin(self) -> None:
        """A day ahead, the clock of the camera was wrong for an image."""
        self.images_come([86_400], [["person", "dog"]])

    @rule(
        seconds=st.lists(st.integers(0, 150), min_size=1, max_size=4),
        shown=st.lists(
            st.lists(st.sampled_from(["person", "car", "dog", "cat"]), min_size=1, max_size=2),
            min_size=4,
            max_size=4,
        ),
    )
    def images_come(self, seconds, shown) -> None:
        for second, labels in zip(seconds, shown, strict=False):
            time = canonical_time(START + timedelta(seconds=second))
            if all(image.timestamp != time for image in self.log):
                image = detected("hall", time, sorted(set(labels)))
                self.log.append(image)
                self.queue.append(image)

    @rule(size=st.integers(1, 8), order=st.randoms(use_true_random=False))
    def images_are_judged(self, size, order) -> None:
        worker = self.workers[self.crashes % 2]
        try:
            for image in self.queue[:size]:
                self.judged += worker.process(("hall", image), self.state, Timer())
        except StoreFailureError:
            self.crash(order)
        else:
            del self.queue[:size]

    @rule(size=st.integers(1, 8))
    def alerts_go_out(self, size) -> None:
        for image in self.judged[:size]:
            severity = image.verdict.severity
            if severity is not None and image.verdict.suppressed_by is None:
                self.sent[alert_id("hall", image.image.timestamp, severity)] = image
        del self.judged[:size]

    @rule(order=st.randoms(use_true_random=False))
    def a_checkpoint_is_made(self, order) -> None:
        while self.queue:
            self.images_are_judged(1000, order)
        self.kept = len(self.log), self.state.kept, list(self.judged)

    @rule(order=st.randoms(use_true_random=False))
    def crash(self, order: random.Random) -> None:
        self.crashes += 1
        done, state, judged = self.kept
        self.state, self.judged = Cell(HISTORIES, state), list(judged)
        again = self.log[done:]
        order.shuffle(again)
        self.log[done:] = again
        self.queue = list(again)

    @rule(after=st.integers(0, 3))
    def the_store_will_fail(self, after) -> None:
        self.store.fails_after = after

    @rule()
    def the_camera_is_forgotten(self) -> None:
        self.state.clear()

    @invariant()
    def no_label_is_alerted_twice_in_a_cooldown(self) -> None:
        """There are two labels of each severity, so that no three alerts are within a cooldown."""
        for severity in ("alert", "detection"):
            sent = [
                (parse_time(image.image.timestamp), self._labels(image))
                for image in self.sent.values()
                if image.verdict.severity == severity
            ]
            for (first, labels), (other, others) in combinations(sent, 2):
                is_near = abs((first - other).total_seconds()) < COOLDOWN_SECONDS
                assert not (is_near and labels == others), f"two alerts of {labels}"
            for some in combinations(sorted(time for time, _ in sent), 3):
                assert (some[-1] - some[0]).total_seconds() >= COOLDOWN_SECONDS

    def _sent_at(self, timestamp: str, severity: str | None) -> bool:
        return alert_id("hall", timestamp, str(severity)) in self.sent

    @staticmethod
    def _labels(judged: JudgedImage) -> frozenset[str]:
        verdict = judged.verdict
        return frozenset(
            threat.label for threat in verdict.threats if threat.severity == verdict.severity
        )

    def teardown(self) -> None:
        """Each image has an alert that was sent, or one that was sent covers it. What an alert
        follows was sent."""
        self.store.fails_after = None
        self.images_are_judged(1000, random.Random(0))
        verdicts = list(self.judged)
        self.alerts_go_out(1000)
        self.patch.stop()
        self.no_label_is_alerted_twice_in_a_cooldown()
        for verdict in verdicts:
            covered_by = verdict.verdict.suppressed_by
            assert covered_by is None or covered_by in self.sent
        for image in self.sent.values():
            follow_up = image.verdict.follow_up
            if follow_up is not None:
                assert follow_up.incident in self.sent
                assert follow_up.began <= follow_up.last_alert < image.image.timestamp
                assert self._sent_at(follow_up.last_alert, image.verdict.severity)


Cooldowns.TestCase.settings = search(1000, stateful_step_count=25)
TestCooldowns = pytest.mark.search(Cooldowns.TestCase)


class CooldownsOfStoredImages(Cooldowns):
    """The same where a camera sends what it had stored, and the job reads all images again."""

    @rule()
    def the_camera_sends_what_it_had_stored(self) -> None:
        """Nine images of nine earlier days."""
        self.images_come([-86_400 * day for day in range(9, 0, -1)], [["person", "dog"]] * 9)

    @rule(order=st.randoms(use_true_random=False))
    def the_job_begins_anew(self, order) -> None:
        """It has no state, and reads all images again."""
        self.kept = (0, None, [])
        self.crash(order)


CooldownsOfStoredImages.TestCase.settings = search(100, stateful_step_count=15)
TestCooldownsOfStoredImages = pytest.mark.search(CooldownsOfStoredImages.TestCase)


class CooldownsThatGapsEnd(Cooldowns):
    """The same where a gap without threats ends a cooldown: nothing is covered by no alert."""

    ruleset = WITH_GAP

    def no_label_is_alerted_twice_in_a_cooldown(self) -> None:
        """It is, in two incidents."""


CooldownsThatGapsEnd.TestCase.settings = search(200, stateful_step_count=20)
TestCooldownsThatGapsEnd = pytest.mark.search(CooldownsThatGapsEnd.TestCase)


class CooldownsOfTies(Cooldowns):
    """The same where several images have one capture time: one of them wins, and has the alert."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, CaptureTime] = {}
        self.kept = (0, None, [], {})

    @initialize()
    def begin(self) -> None:
        pass

    @rule(
        seconds=st.lists(st.sampled_from([0, 1, 59, 200, 201, 259]), min_size=1, max_size=4),
        shown=st.lists(
            st.lists(st.sampled_from(["person", "car"]), min_size=1, max_size=2),
            min_size=4,
            max_size=4,
        ),
        scores=st.lists(st.sampled_from([0.6, 0.7, 0.9]), min_size=4, max_size=4),
    )
    def images_come(self, seconds, shown, scores) -> None:
        for second, labels, score in zip(seconds, shown, scores, strict=False):
            time = canonical_time(START + timedelta(seconds=second))
            number = str(len(self.log))
            sha256 = hashlib.sha256(number.encode()).hexdigest()
            image = detected("hall", time, sorted(set(labels)), file=number, sha256=sha256)
            detections = tuple(replace(one, conf=score) for one in image.detections)
            image = replace(image, detections=detections)
            self.log.append(image)
            self.queue.append(image)

    @rule(size=st.integers(1, 8))
    def alerts_go_out(self, size) -> None:
        """An alert that was sent is not sent again if another image wins."""
        for image in self.judged[:size]:
            before = self.known.get(image.image.timestamp, CaptureTime())
            known, change = add_version(before, Version(judged=image))
            self.known[image.image.timestamp] = known
            winner = known.winner
            is_new = change is not None and change.is_new
            if is_new and winner is not None and winner.verdict.suppressed_by is None:
                key = alert_id("hall", winner.image.timestamp, "alert")
                self.sent.setdefault(key, winner)
        del self.judged[:size]

    @rule(order=st.randoms(use_true_random=False))
    def a_checkpoint_is_made(self, order) -> None:
        while self.queue:
            self.images_are_judged(1000, order)
        self.kept = len(self.log), self.state.kept, list(self.judged), dict(self.known)

    @rule(order=st.randoms(use_true_random=False))
    def crash(self, order: random.Random) -> None:
        *self.kept, known = kept = self.kept
        super().crash(order)
        self.kept, self.known = kept, dict(known)

    def no_label_is_alerted_twice_in_a_cooldown(self) -> None:
        """It may be: an alert covers only the labels that all images of its time show."""

    def teardown(self) -> None:
        """Whatever the winner of a capture time shows was reported, by it or shortly before."""
        self.store.fails_after = None
        self.images_are_judged(1000, random.Random(0))
        self.alerts_go_out(1000)
        self.patch.stop()
        for timestamp, known in self.known.items():
            winner = known.winner
            assert winner is not None
            covered_by = winner.verdict.suppressed_by
            assert (covered_by or alert_id("hall", timestamp, "alert")) in self.sent
            reported: set[str] = set()
            for sent in self.sent.values():
                distance = parse_time(sent.image.timestamp) - parse_time(timestamp)
                if abs(distance.total_seconds()) < 2 * COOLDOWN_SECONDS:
                    reported |= self._labels(sent)
            assert covered_by is None or self._labels(winner) <= reported


CooldownsOfTies.TestCase.settings = search(200, stateful_step_count=20)
TestCooldownsOfTies = pytest.mark.search(CooldownsOfTies.TestCase)


class Replay:
    """A stream over images in the order of time, of which bundles fail, and which is restarted."""

    def __init__(self, ruleset: rules.Rules, images: list[DetectedImage]) -> None:
        self.ruleset = ruleset
        self.images = images
        self.state = Cell(HISTORIES)
        self.done = 0
        self.kept: tuple[int, bytes | None] = (0, None)
        self.judged: list[tuple[int, JudgedImage]] = []

    def judge(self, size: int, state: Cell) -> None:
        worker = JudgeInStream(LiveRules.of(self.ruleset), 3600, "/out")
        for number in range(self.done, min(self.done + size, len(self.images))):
            (one,) = worker.process(("hall", self.images[number]), state, Timer())
            self.judged.append((number, one))

    def goes_on(self, size: int) -> None:
        self.judge(size, self.state)
        self.done += size

    def fails(self, size: int) -> None:
        """The state of the bundle is lost after its records were written."""
        self.judge(size, self.state.copy())

    def fails_with_the_store(self, size: int, store: Store) -> None:
        store.fails_after = size - 1
        with suppress(StoreFailureError):
            self.fails(4)
        store.fails_after = None

    def makes_a_checkpoint(self) -> None:
        self.kept = self.done, self.state.kept

    def goes_back(self) -> None:
        self.done, state = self.kept
        self.state = Cell(HISTORIES, state)

    def begins_anew(self) -> None:
        """It has no state, and reads all images again."""
        self.kept = (0, None)
        self.goes_back()


@pytest.mark.search
@search(600)
@given(
    st.sampled_from([WITH_GAP, WITH_GAP, RULES]),
    st.lists(
        st.tuples(
            st.sampled_from([1, 10, 15, 19, 20, 21, 40, 59, 60, 61]),
            st.sampled_from(
                ["person", "car", "car person", "car person", "person person", "dog", "car dog", ""]
            ),
        ),
        min_size=5,
        max_size=20,
    ),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["goes_on", "goes_on", "fails", "store", "checkpoint", "goes_back", "begins_anew"]
            ),
            st.integers(1, 6),
        ),
        min_size=3,
        max_size=20,
    ),
)
def test_what_is_judged_again_in_order_has_the_verdict_of_a_batch(ruleset, shown, events) -> None:
    time, images = START, []
    for number, (pause, labels) in enumerate(shown):
        time += timedelta(seconds=pause)
        sha256 = hashlib.sha256(str(number).encode()).hexdigest()
        images.append(detected("hall", canonical_time(time), labels.split(), sha256=sha256))
    replay, store = Replay(ruleset, images), Store()
    with patch.object(decisions, "stores", store):
        for event, size in events:
            if event == "goes_on":
                replay.goes_on(size)
            elif event == "fails":
                replay.fails(size)
            elif event == "store":
                replay.fails_with_the_store(size, store)
            elif event == "checkpoint":
                replay.makes_a_checkpoint()
            elif event == "goes_back":
                replay.goes_back()
            else:
                replay.begins_anew()
        replay.goes_on(len(images))
    expected = list(judge_in_order(images, ruleset))
    for number, judged in replay.judged:
        assert judged == expected[number]


def test_after_a_restart_a_label_that_was_away_for_longer_than_the_gap_is_told_of_again() -> None:
    """The car stays, the person comes back after the gap."""
    shown = [(0, "car person"), (15, "car"), (30, "car"), (45, "car"), (50, "car person")]
    images = [
        detected("hall", canonical_time(START + timedelta(seconds=second)), labels.split())
        for second, labels in shown
    ]
    verdicts = []
    with patch.object(decisions, "stores", Store()):
        for restart_at in (1, 5):
            worker, state = JudgeInStream(LiveRules.of(WITH_GAP), 3600, "/out"), Cell(HISTORIES)
            for image in images[:restart_at]:
                list(worker.process(("hall", image), state, Timer()))
            state = Cell(HISTORIES)
            for image in images:
                verdicts += worker.process(("hall", image), state, Timer())
    told = [judged.verdict.alerts for judged in verdicts]
    assert told == [True, False, False, False, True] * 2
