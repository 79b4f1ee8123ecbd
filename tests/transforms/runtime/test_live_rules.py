"""Rules that are edited while a stream runs."""

import logging
import pickle
import time

import pytest

import rules
from tests.transforms import memory_store
from tests.transforms.results import detected
from transforms.judge_threats import JudgeInStream
from transforms.runtime.counters import counted_here
from transforms.runtime.live_rules import LiveRules

FIRST = b"version: 1\ndefaults:\n  objects:\n    person: {severity: alert}\n  cooldown: 0s\n"
SECOND = b"version: 1\ndefaults:\n  objects:\n    person: {severity: ignore}\n  cooldown: 0s\n"
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


def test_an_edited_file_takes_effect_at_the_next_check(tmp_path, live, clock):
    live.refresh()
    edit(tmp_path, SECOND, live, clock, seconds=14)
    assert live.current.version == parsed(FIRST).version
    edit(tmp_path, SECOND, live, clock, seconds=1)
    assert live.current.version == parsed(SECOND).version


def test_a_broken_file_is_refused_and_logged_once_and_the_last_good_rules_stay_in_force(
    tmp_path, live, clock, caplog
):
    edit(tmp_path, SECOND, live, clock)
    before = counted_here()["rules.refused"]
    for _ in range(3):
        edit(tmp_path, BROKEN, live, clock)
    assert live.current.version == parsed(SECOND).version
    assert counted_here()["rules.refused"] == before + 1
    (line,) = (entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR)
    assert f"version {parsed(SECOND).version} remains" in line
    assert "rules.yaml:4: " in line
    edit(tmp_path, FIRST, live, clock)
    assert live.current.version == parsed(FIRST).version


def test_a_file_that_tracks_scores_that_are_not_kept_is_refused(tmp_path, clock, caplog):
    source = tmp_path / "rules.yaml"
    source.write_bytes(FIRST)
    live = LiveRules(parsed(FIRST), source=str(source), min_score_kept=0.2, clock=clock)
    live = pickle.loads(pickle.dumps(live))
    clock = live._clock
    edit(tmp_path, FIRST + b"  track: {min_score: 0.1}\n", live, clock)
    assert live.current.version == parsed(FIRST).version
    (line,) = (entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR)
    assert f"{source}: track.min_score of any other camera is 0.1" in line
    edit(tmp_path, FIRST + b"  track: {min_score: 0.2}\n", live, clock)
    assert live.current.version != parsed(FIRST).version


def test_a_deleted_file_changes_nothing_and_is_logged_once(tmp_path, live, clock, caplog):
    live.refresh()
    for _ in range(2):
        (tmp_path / "rules.yaml").unlink()
        for _ in range(3):
            clock.now += 16
            live.refresh()
        edit(tmp_path, FIRST, live, clock)
    assert live.current.version == parsed(FIRST).version
    assert ["can't be read" in entry.getMessage() for entry in caplog.records] == [True, True]


def wait_until(is_done):
    deadline = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_after_a_stream_the_last_valid_version_is_known(tmp_path):
    """Even if the file is broken by then."""
    file = tmp_path / "rules.yaml"
    file.write_bytes(FIRST)
    live = LiveRules(parsed(FIRST), source=str(file), labels=LABELS, check_seconds=0.01)
    with live.followed():
        file.write_bytes(SECOND)
        wait_until(lambda: live.current.version == parsed(SECOND).version)
        file.write_bytes(BROKEN)
    assert live.current.version == parsed(SECOND).version


def test_the_rules_are_checked_when_a_stream_ends(tmp_path, live):
    """At once, although the next check is due in 15 seconds."""
    live.refresh()
    with live.followed():
        (tmp_path / "rules.yaml").write_bytes(SECOND)
        assert live.current.version == parsed(FIRST).version
    assert live.current.version == parsed(SECOND).version


def test_rules_of_a_batch_are_those_of_its_start(tmp_path, live, clock):
    fixed = LiveRules.of(parsed(FIRST))
    (tmp_path / "rules.yaml").write_bytes(SECOND)
    fixed.refresh()
    assert fixed.current.version == parsed(FIRST).version
    assert LiveRules.of(live) is live


def test_a_store_is_watched_as_a_disk_is(memory, clock):
    memory["memory://bucket/rules.yaml"] = FIRST
    live = LiveRules(parsed(FIRST), source="memory://bucket/rules.yaml", clock=clock)
    memory["memory://bucket/rules.yaml"] = SECOND
    live.refresh()
    assert live.current.version == parsed(SECOND).version
    assert memory_store.OBJECTS


def test_a_worker_checks_the_file_when_it_starts(tmp_path, live):
    edit(tmp_path, SECOND, live, Clock())
    worker = pickle.loads(pickle.dumps(live))
    assert worker.current.version == parsed(FIRST).version
    worker.refresh()
    assert worker.current.version == parsed(SECOND).version


def test_each_verdict_names_the_version_of_its_rules(tmp_path, live, clock):
    judge = JudgeInStream(live, allowed_lateness_seconds=0, output=str(tmp_path))
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


def test_strict_rules_reject_cameras_that_they_do_not_name(tmp_path, live, clock):
    assert live.accepts("hall")
    edit(tmp_path, FIRST + b"strict_ids: true\ncameras: {yard: {}}\n", live, clock)
    assert not live.accepts("hall")
    assert live.accepts("yard")


def test_names_are_read_by_the_rules_in_force(tmp_path, live, clock):
    options = rules.NameSettings(preset="reolink", timezone="Asia/Kolkata")
    assert live.names(options) == rules.Names(options)
    assert live.names(options) is live.names(options)
    assert live.names(rules.NameSettings()) == rules.Names()
    (tmp_path / "rules.yaml").write_bytes(FIRST + b"  names: {timezone: Europe/Berlin}\n")
    clock.now += 16
    edited = rules.NameSettings(preset="reolink", timezone="Europe/Berlin")
    assert live.names(options) == rules.Names(edited)
    again = pickle.loads(pickle.dumps(live))
    assert again.names(options) == rules.Names(edited)
