"""Rules that are edited while a stream runs."""

import logging
import pickle

import pytest

import rules
from tests.transforms import memory_store
from tests.transforms.results import detected
from transforms.counters import counted_here
from transforms.judge_threats import _JudgeAsTheyCome
from transforms.live_rules import LiveRules

FIRST = b"version: 1\ndefaults:\n  objects:\n    person: {severity: alert}\n"
SECOND = b"version: 1\ndefaults:\n  objects:\n    person: {severity: ignore}\n"
BROKEN = b"version: 1\ndefaults:\n  objects:\n    persom: {severity: alert}\n"
LABELS = frozenset({"person", "car"})


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def parsed(text):
    return rules.parse_rules(text, "rules.yaml", labels=LABELS)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def live(tmp_path, clock):
    (tmp_path / "rules.yaml").write_bytes(FIRST)
    source = str(tmp_path / "rules.yaml")
    return LiveRules(parsed(FIRST), source=source, labels=LABELS, clock=clock)


def edit(tmp_path, text, live, clock, seconds=16):
    (tmp_path / "rules.yaml").write_bytes(text)
    clock.now += seconds
    live.refresh()


def test_an_edited_file_is_taken_up_at_the_next_look(tmp_path, live, clock):
    live.refresh()
    edit(tmp_path, SECOND, live, clock, seconds=14)
    assert live.now.version == parsed(FIRST).version
    edit(tmp_path, SECOND, live, clock, seconds=1)
    assert live.now.version == parsed(SECOND).version


def test_a_broken_file_is_refused_and_told_once_and_the_last_good_rules_stay(
    tmp_path, live, clock, caplog
):
    edit(tmp_path, SECOND, live, clock)
    before = counted_here()["rules.refused"]
    for _ in range(3):
        edit(tmp_path, BROKEN, live, clock)
    assert live.now.version == parsed(SECOND).version
    assert counted_here()["rules.refused"] == before + 1
    (line,) = (one.getMessage() for one in caplog.records if one.levelno == logging.ERROR)
    assert f"version {parsed(SECOND).version} stays" in line
    assert "rules.yaml:4: " in line
    edit(tmp_path, FIRST, live, clock)
    assert live.now.version == parsed(FIRST).version


def test_a_file_that_goes_changes_nothing(tmp_path, live, clock):
    live.refresh()
    (tmp_path / "rules.yaml").unlink()
    clock.now += 16
    live.refresh()
    assert live.now.version == parsed(FIRST).version


def test_rules_of_a_batch_are_those_of_its_start(tmp_path, live, clock):
    fixed = LiveRules.of(parsed(FIRST))
    (tmp_path / "rules.yaml").write_bytes(SECOND)
    fixed.refresh()
    assert fixed.now.version == parsed(FIRST).version
    assert LiveRules.of(live) is live


def test_a_store_is_watched_as_a_disk_is(memory, clock):
    memory["memory://bucket/rules.yaml"] = FIRST
    live = LiveRules(parsed(FIRST), source="memory://bucket/rules.yaml", clock=clock)
    memory["memory://bucket/rules.yaml"] = SECOND
    live.refresh()
    assert live.now.version == parsed(SECOND).version
    assert memory_store.OBJECTS


def test_a_worker_that_starts_looks_at_the_file_at_once(tmp_path, live):
    edit(tmp_path, SECOND, live, Clock())
    worker = pickle.loads(pickle.dumps(live))
    assert worker.now.version == parsed(FIRST).version
    worker.refresh()
    assert worker.now.version == parsed(SECOND).version


def test_each_verdict_names_the_rules_that_it_was_judged_by(tmp_path, live, clock):
    judge = _JudgeAsTheyCome(live, allowed_lateness_seconds=0)
    element = "hall", detected("hall", labels=["person"])
    (first,) = judge.process(element, None, None)  # Rules that don't look back need no state.
    (tmp_path / "rules.yaml").write_bytes(SECOND)
    clock.now += 16
    (second,) = judge.process(element, None, None)
    assert (first.verdict.rules_version, first.verdict.is_threat) == (parsed(FIRST).version, True)
    assert (second.verdict.rules_version, second.verdict.is_threat) == (
        parsed(SECOND).version,
        False,
    )


def test_cameras_that_strict_rules_do_not_name_are_not_taken(tmp_path, live, clock):
    assert live.takes("hall")
    edit(tmp_path, FIRST + b"strict_ids: true\ncameras: {yard: {}}\n", live, clock)
    assert not live.takes("hall")
    assert live.takes("yard")
