"""An image from which there is nothing to remember costs no write of state and no timer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from apache_beam.utils.timestamp import Duration
from hypothesis import given
from hypothesis import strategies as st

import rules
from rules import parse_rules
from tests.search import search
from tests.transforms.failing_runner import Timer
from tests.transforms.results import detected
from transforms.judge_threats import HISTORIES, JudgeInStream, judge
from transforms.records.images import DetectedImage, JudgedImage
from transforms.records.times import canonical_time, parse_time
from transforms.runtime.live_rules import LiveRules

START = parse_time("2026-01-31T10:00:00Z")
LATENESS = 3600
RULES = {
    "default": parse_rules("version: 1\ndefaults: {objects: {person: , car: }}\n", "rules.yaml"),
    "confirm": parse_rules(
        "version: 1\ndefaults: {objects: {person: , car: }, confirm: {pictures: 2, within: 2m}}\n",
        "rules.yaml",
    ),
    "repeats": parse_rules(
        "version: 1\ndefaults: {objects: {person: , car: }, "
        "repeats: {iou: 0.85, occurrences: 2, within: 1h}}\n",
        "rules.yaml",
    ),
    "short": parse_rules(
        "version: 1\ndefaults: {objects: {person: , car: }, cooldown: 5m}\n", "rules.yaml"
    ),
    "long": parse_rules(
        "version: 1\ndefaults: {objects: {person: , car: }, cooldown: 12h}\n", "rules.yaml"
    ),
}


@dataclass
class Counted:
    """A cell of state in a bundle: it hands out one object until the bundle ends, as Beam does."""

    kept: bytes | None = None
    writes: int = 0
    _value: list[Any] = field(default_factory=list)

    def read(self) -> Any:
        if not self._value:
            self._value.append(None if self.kept is None else HISTORIES.decode(self.kept))
        return self._value[0]

    def write(self, value: Any) -> None:
        self.writes += 1
        self.kept = HISTORIES.encode(value)
        self._value[:] = [value]

    def end_bundle(self) -> None:
        self._value.clear()


class Twin:
    """Judges each image by a history that is written for each, and never forgotten."""

    def __init__(self) -> None:
        self.history = rules.History()
        self.due = 0.0
        """Until when the history is needed at least, in Unix seconds."""

    def judge(self, image: DetectedImage, ruleset: rules.Rules) -> JudgedImage:
        if content(self.history) == rules.History():
            self.history.newest = 0  # Images before there was anything to remember need nothing.
        judged = judge(image, ruleset, self.history)
        assert image.stream_time is not None
        newest = max(self.history.newest / 1e6, parse_time(image.stream_time).timestamp())
        horizon = ruleset.for_camera(image.id).horizon.total_seconds()
        self.due = newest + horizon + LATENESS
        return judged


def content(history: rules.History | None) -> rules.History:
    return replace(history or rules.History(), newest=0, kept_until=0)


images = st.lists(
    st.tuples(
        st.integers(-300, 4000),
        st.lists(st.sampled_from(("person", "car")), max_size=2, unique=True),
        st.integers(-4000, 900),
        st.booleans(),
        st.none() | st.sampled_from(sorted(RULES)),
    ),
    max_size=14,
)


@pytest.mark.search
@search(400)
@given(st.sampled_from(sorted(RULES)), images)
def test_verdicts_are_those_of_a_history_that_is_written_for_each_image(
    name: str, some: list[Any]
) -> None:
    """The rules may be edited between two images. Quiet images before an edit, in the time that was
    kept already, may not count if older images follow it."""
    judge_in_stream = JudgeInStream(LiveRules.of(RULES[name]), LATENESS, None)
    state, timer, twin, missing = Counted(), Timer(), Twin(), 0
    for second, labels, behind, ends_bundle, edited in some:
        if edited is not None:
            name, missing = edited, 4600
            judge_in_stream._rules = LiveRules.of(RULES[name])
        time = START + timedelta(seconds=second)
        image = detected("hall", canonical_time(time), sorted(labels))
        # The clock of the stream may be ahead of that of the camera, or behind it.
        told = canonical_time(time - timedelta(seconds=behind))
        image = replace(image, stream_time=told)
        assert list(judge_in_stream.process(("hall", image), state, timer)) == [
            twin.judge(image, RULES[name])
        ]
        if ends_bundle:
            state.end_bundle()
        kept = None if state.kept is None else HISTORIES.decode(state.kept)
        assert content(kept) == content(twin.history)
        if content(kept) != rules.History():
            # It is kept at least as long as if each image prolonged it.
            assert timer.at is not None
            assert timer.at >= twin.due - missing


def run(name: str, labels: list[list[str]], *, bundle: int = 1) -> tuple[Counted, int]:
    """The state after an image a minute, and how often the timer was set."""
    judge_in_stream = JudgeInStream(LiveRules.of(RULES[name]), LATENESS, None)
    state, set_to = Counted(), list[float]()

    class Noting(Timer):
        def set(self, timestamp: Any) -> None:
            set_to.append(float(timestamp))

    for number, shown in enumerate(labels):
        time = canonical_time(START + timedelta(minutes=number))
        image = replace(detected("hall", time, shown), stream_time=time)
        list(judge_in_stream.process(("hall", image), state, Noting()))
        if (number + 1) % bundle == 0:
            state.end_bundle()
    return state, len(set_to)


@pytest.mark.parametrize("name", ["default", "confirm"])
def test_images_of_a_quiet_camera_leave_no_state_and_no_timer(name: str) -> None:
    state, timers = run(name, [[]] * 60)
    assert (state.kept, state.writes, timers) == (None, 0, 0)


@pytest.mark.parametrize("bundle", [1, 7, 100])
def test_after_an_alert_a_quiet_hour_writes_five_times(bundle: int) -> None:
    state, timers = run("default", [["person"], *[[]] * 60], bundle=bundle)
    # Each write prolongs the history by ten minutes more than needed.
    assert (state.writes, timers) == (6, 6)


def test_where_each_image_is_remembered_each_is_written() -> None:
    state, timers = run("repeats", [[]] * 5)
    assert (state.writes, timers) == (5, 5)


def test_the_history_is_kept_ten_minutes_longer_than_needed() -> None:
    judge_in_stream = JudgeInStream(LiveRules.of(RULES["default"]), LATENESS, None)
    state, timer = Counted(), Timer()
    image = detected("hall", canonical_time(START), ["person"])
    list(judge_in_stream.process(("hall", image), state, timer))
    horizon = RULES["default"].for_camera("hall").horizon
    needed = START + horizon + timedelta(seconds=LATENESS)
    assert timer.at == needed.timestamp() + 600
    assert Duration(horizon.total_seconds()) > 0


def test_where_an_edit_looks_back_longer_the_next_quiet_image_prolongs_the_history() -> None:
    judge_in_stream = JudgeInStream(LiveRules.of(RULES["short"]), LATENESS, None)
    state, timer = Counted(), Timer()
    for second, labels in ((0, ["person"]), (540, []), (560, [])):
        if second:
            judge_in_stream._rules = LiveRules.of(RULES["long"])
        time = canonical_time(START + timedelta(seconds=second))
        image = replace(detected("hall", time, labels), stream_time=time)
        list(judge_in_stream.process(("hall", image), state, timer))
        state.end_bundle()
    # 12 hours, the allowed lateness, and ten minutes more.
    assert timer.at == START.timestamp() + 540 + 43_200 + 3600 + 600
    assert state.writes == 2
