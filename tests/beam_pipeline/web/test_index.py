"""The index of the console: whatever the order of changes, it is what a plain reading gives."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rules
from beam_pipeline.pages.report.gathering import AlertRecord
from beam_pipeline.pages.report.incidents import find_incidents
from beam_pipeline.web.output.following import Follower, RulesFollower
from beam_pipeline.web.output.index import (
    FileState,
    IncidentFilter,
    Index,
    IndexChanges,
    IndexedAlert,
)
from tests.search import search
from transforms.records.times import canonical_time, parse_time
from transforms.storage.marks import Mark, file_name, standing

BEGIN = datetime(2026, 1, 31, tzinfo=timezone.utc)


def alert(
    camera: str, minute: int, *, belongs_to: str | None = None, suppressed: bool = False,
    label: str = "person", severity: str = "alert",
) -> IndexedAlert:  # fmt: skip
    timestamp = canonical_time(BEGIN + timedelta(minutes=minute))
    outcome = (None, "suppressed" if suppressed else "not_sent", "")
    record = AlertRecord(
        "out", rules.alert_id(camera, timestamp, "alert"), camera, timestamp, "UTC", {label: 0.9},
        (outcome,), "", f"out/final/{camera}/{camera}_{minute}.json", belongs_to,
    )  # fmt: skip
    return IndexedAlert(record, severity, ((label, 0.9, (0.1, 0.2, 0.3, 0.4)),))


def named(alerts: Iterable[IndexedAlert]) -> IndexChanges:
    changes = IndexChanges()
    for one in alerts:
        name = f"alerts/{one.record.camera}/{one.record.alert_id}.json"
        changes.alerts[name], changes.states[name] = one, FileState(1, 1.0)
    return changes


def shown(index: Index, chosen: IncidentFilter | None = None) -> list[tuple[str, list[str]]]:
    """The incidents in their order, page by page of three: the lead, and all alerts."""
    found, before = [], None
    while True:
        page = index.incidents(chosen or IncidentFilter(), number=3, before=before)
        found += [
            (one.lead.record.alert_id, [a.record.alert_id for a in one.alerts])
            for one in page.incidents
        ]
        before = page.older
        if before is None:
            return found


def plain(alerts: Iterable[IndexedAlert]) -> list[tuple[str, list[str]]]:
    """The same by the report's grouping of all alerts at once, the newest first."""
    incidents = find_incidents(one.record for one in alerts)
    rows = [
        (
            parse_time(one.alerts[-1].timestamp),
            one.alerts[0].alert_id,
            (one.lead.alert_id, [a.alert_id for a in one.alerts]),
        )
        for one in incidents
    ]
    return [row[2] for row in sorted(rows, key=lambda row: row[:2], reverse=True)]


moments = st.tuples(st.sampled_from(["hall", "gate"]), st.integers(0, 40))
changes_of_index = st.lists(
    st.tuples(
        st.dictionaries(
            moments, st.tuples(st.booleans(), st.none() | st.integers(0, 40)), max_size=4
        ),
        st.sets(moments, max_size=3),
    ),
    max_size=6,
)


@pytest.mark.search
@search(150)
@given(changes_of_index)
def test_incidents_are_those_of_the_report_after_any_changes(tmp_path_factory, batches) -> None:
    index = Index(tmp_path_factory.mktemp("index") / "i.sqlite", "out")
    there: dict[tuple[str, int], IndexedAlert] = {}
    for written, deleted in batches:
        new = {
            (camera, minute): alert(
                camera, minute, suppressed=suppressed,
                belongs_to=None if first is None else alert(camera, first).record.alert_id,
            )
            for (camera, minute), (suppressed, first) in written.items()
        }  # fmt: skip
        gone = [there.pop(key) for key in deleted if key in there]
        there |= new
        changes = named(new.values())
        changes.gone = list(named(gone).alerts)
        if gone and set(changes.gone) & set(changes.alerts):
            index.apply(IndexChanges(gone=changes.gone))
            changes.gone = []
        index.apply(changes)
        assert shown(index) == plain(there.values())
        assert index.numbers()["alerts"] == len(there)
    assert set(index.known()) == set(named(there.values()).alerts)


@pytest.mark.search
@search(100)
@given(st.lists(
    st.tuples(
        st.sampled_from(["Anna", "Ben"]), st.sampled_from(["right", "false", "unsure"]),
        st.sampled_from([None, "person", "car"]), st.integers(0, 3),
    ), max_size=8,
), st.randoms(use_true_random=False))  # fmt: skip
def test_the_marks_that_stand_are_those_of_a_plain_reading_in_any_order(
    tmp_path_factory, said, shuffle: random.Random
) -> None:
    index = Index(tmp_path_factory.mktemp("index") / "i.sqlite", "out")
    record = alert("hall", 0).record
    marks = [
        Mark("hall", record.timestamp, record.alert_id, mark, label, (), "", by,
             canonical_time(BEGIN + timedelta(seconds=at)))
        for by, mark, label, at in said
    ]  # fmt: skip
    files = {file_name(mark): mark for mark in marks}
    index.apply(named([alert("hall", 0)]))
    names = list(files)
    shuffle.shuffle(names)
    for name in names:
        index.apply(IndexChanges(marks={f"marks/hall/{name}": files[name]}))
    in_order = sorted(files, key=lambda name: (parse_time(files[name].at), name))
    expected = standing([files[name] for name in in_order])
    assert index.marks_of(record.alert_id) == expected
    for mark in ("right", "false", "unsure", "unmarked"):
        fits = mark in {one.mark for one in expected} or (mark == "unmarked" and not expected)
        assert bool(shown(index, IncidentFilter(mark=mark))) == fits


def test_a_filter_shows_the_incidents_that_fit(tmp_path: Path) -> None:
    index = Index(tmp_path / "i.sqlite", "out")
    alerts = [
        alert("hall", 0), alert("hall", 3, label="car"), alert("hall", 30, severity="detection"),
        alert("gate", 10, label="dog"),
    ]  # fmt: skip
    index.apply(named(alerts))
    first, second, third, fourth = (one.record.alert_id for one in alerts)

    def leads(**chosen: object) -> list[str]:
        return [lead for lead, _ in shown(index, IncidentFilter(**chosen))]  # type: ignore[arg-type]

    assert leads() == [third, fourth, first]
    assert leads(camera="hall") == [third, first]
    assert leads(label="car") == [first]
    assert leads(label="dog", camera="hall") == []
    assert leads(severity="detection") == [third]
    begin = BEGIN.timestamp()
    assert leads(since=begin + 600) == [third, fourth]
    assert leads(since=begin + 601) == [third]
    assert leads(until=begin + 600) == [first]
    assert leads(since=begin + 120, until=begin + 180) == [first]
    assert index.labels() == ["car", "dog", "person"]
    assert index.cameras() == ["gate", "hall"]
    assert index.incident_of(second) is not None
    assert index.incident_of("0" * 32) is None


@pytest.mark.parametrize("how", ["version", "output", "damaged", "not ours"])
def test_an_index_of_another_version_or_output_or_a_damaged_one_is_made_anew(
    tmp_path: Path, how: str
) -> None:
    file = tmp_path / "i.sqlite"
    index = Index(file, "out")
    index.apply(named([alert("hall", 0)]))
    index._close()
    assert len(shown(Index(file, "out"))) == 1
    output = "out"
    if how == "version":
        with sqlite3.connect(file) as database:
            database.execute("UPDATE facts SET value = '0' WHERE name = 'version'")
    elif how == "output":
        output = "other"
    elif how == "damaged":
        for ending in ("-wal", "-shm"):
            Path(f"{file}{ending}").unlink(missing_ok=True)
        file.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    else:
        file.unlink()
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE other (x)")
    again = Index(file, output)
    assert shown(again) == []
    again.apply(named([alert("hall", 0)]))
    assert len(shown(again)) == 1


def ruin(file: Path, how: str) -> None:
    """Deletes or damages the file of an index, as people, disks and power cuts do."""
    if how == "deleted":
        file.unlink()
    elif how == "all deleted":
        for ending in ("", "-wal", "-shm"):
            Path(f"{file}{ending}").unlink(missing_ok=True)
    elif how == "folder deleted":
        shutil.rmtree(file.parent)
    elif how == "replaced":
        (file.parent / "x").write_bytes(b"nothing of ours")
        os.replace(file.parent / "x", file)
    elif how == "a table is gone":
        with closing(sqlite3.connect(file)) as database:
            database.execute("DROP TABLE incidents")
    else:  # Pages are overwritten; the first says where the others are.
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = file.stat().st_size
        with open(file, "r+b") as opened:
            opened.seek(4096 if how == "pages" else 0)
            opened.write(b"\xa5" * (size - opened.tell()))


RUINED = ["deleted", "all deleted", "folder deleted", "replaced", "a table is gone", "pages", "all"]


@pytest.mark.parametrize("how", RUINED)
def test_an_index_that_is_ruined_while_it_is_used_begins_anew_in_all_threads(
    tmp_path: Path, how: str
) -> None:
    file = tmp_path / "index" / "i.sqlite"
    index = Index(file, "out")
    changes = named(alert("hall", 7 * minute) for minute in range(200))
    index.apply(changes)
    with ThreadPoolExecutor(1) as another:
        assert another.submit(index.numbers).result()["incidents"] == len(shown(index))
        generation = index.generation
        ruin(file, how)
        for _ in range(2):
            assert another.submit(shown, index).result() == []
        assert shown(index) == []
        assert index.generation > generation
        index.apply(changes)
        assert (
            another.submit(shown, index).result() == shown(index) == plain(changes.alerts.values())
        )
        another.submit(index._close).result()
    assert index.numbers()["alerts"] == 200
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shown(Index(file, "out")) == shown(index)


@pytest.mark.parametrize("how", ["pages", "all", "a table is gone"])
def test_an_index_that_was_ruined_before_the_start_begins_anew(tmp_path: Path, how: str) -> None:
    file = tmp_path / "i.sqlite"
    index = Index(file, "out")
    changes = named(alert("hall", 7 * minute) for minute in range(200))
    index.apply(changes)
    index._close()
    ruin(file, how)
    again = Index(file, "out")
    assert shown(again) == []
    again.apply(changes)
    assert shown(again) == plain(changes.alerts.values())


def test_two_that_share_an_index_do_not_take_it_from_each_other(tmp_path: Path) -> None:
    one, other = (Index(tmp_path / "i.sqlite", "out") for _ in range(2))
    ruin(tmp_path / "i.sqlite", "all deleted")
    one.apply(named([alert("hall", 0)]))
    assert len(shown(other)) == 1
    other.apply(named([alert("hall", 60)]))
    assert len(shown(one)) == len(shown(other)) == 2


def test_an_index_that_is_locked_is_not_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_pipeline.web.output.index._WAIT_SECONDS", 0.1)
    index = Index(tmp_path / "i.sqlite", "out")
    index.apply(named([alert("hall", 0)]))
    with closing(sqlite3.connect(tmp_path / "i.sqlite")) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            index.apply(named([alert("hall", 60)]))
        database.rollback()
    assert len(shown(index)) == 1


def test_others_on_this_machine_can_not_read_the_index(tmp_path: Path) -> None:
    """It holds the notes of marks."""
    file = tmp_path / "i.sqlite"
    index = Index(file, "out")
    index.apply(named([alert("hall", 0)]))
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    index._close()
    file.chmod(0o644)  # As an earlier version made it.
    assert len(shown(Index(file, "out"))) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# Following


def follower_of(folder: Path) -> Follower:
    return Follower(Index(folder / "i.sqlite", str(folder / "out")), 1, RulesFollower(None, None))


WRITES = st.lists(
    st.tuples(st.sampled_from(["hall", "gate", "yard"]), st.integers(0, 5), st.booleans()),
    max_size=5,
)


@pytest.mark.search
@search(40)
@given(st.lists(WRITES, max_size=4), st.integers(0, 3))
def test_what_is_followed_is_what_a_new_start_reads(tmp_path_factory, batches, age: int) -> None:
    """Also where a folder says the same date before and after a change, as it does for a moment."""
    folder = tmp_path_factory.mktemp("followed")
    (folder / "out").mkdir()
    following = follower_of(folder)
    for number, writes in enumerate(batches):
        for camera, minute, deleted in writes:
            one = alert(camera, 10 * minute)
            place = folder / "out" / "alerts" / camera
            place.mkdir(parents=True, exist_ok=True)
            file = place / f"{one.record.alert_id}.json"
            if deleted and len(list(folder.glob("out/alerts/*/*"))) > 1:
                file.unlink(missing_ok=True)
            else:
                (place / ".x").write_text(json.dumps(record_of(one, f"{number} {minute}")))
                os.replace(place / ".x", file)
            # Now, in whole seconds, so that it is the same twice; or some seconds ago.
            then = time.time() - 2 * age if age > 2 else int(time.time())
            os.utime(place, (then, then))
        following.look()
        following.look()
        assert following.status.problem is None
        (folder / f"fresh {number}").mkdir()
        fresh = Follower(
            Index(folder / f"fresh {number}" / "i.sqlite", str(folder / "out")), 1,
            RulesFollower(None, None),
        )  # fmt: skip
        fresh.look()
        assert following._index.known() == fresh._index.known()
        both = [one._index.incidents(IncidentFilter(), number=100) for one in (following, fresh)]
        assert both[0] == both[1]


def record_of(one: IndexedAlert, detail: str) -> dict[str, object]:
    record = one.record
    return {
        "alert_id": record.alert_id, "id": record.camera, "timestamp": record.timestamp,
        "timezone": "UTC", "severity": "alert", "image_uri": "", "final_uri": record.final_uri,
        "threats": [{"label": "person", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]}],
        "targets": [{"target": "guard", "outcome": "failed", "detail": detail}],
    }  # fmt: skip


def test_folders_that_have_not_changed_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for camera in ("hall", "gate"):
        place = tmp_path / "out" / "alerts" / camera
        place.mkdir(parents=True)
        one = alert(camera, 0)
        (place / f"{one.record.alert_id}.json").write_text(json.dumps(record_of(one, "")))
        os.utime(place, (1e9, 1e9))
    following = follower_of(tmp_path)
    following.look()
    listed: list[str] = []
    plainly = os.scandir

    def noted(path: str) -> object:
        listed.append(Path(path).name)
        return plainly(path)

    monkeypatch.setattr(os, "scandir", noted)
    following.look()
    assert listed == ["alerts"]
    os.utime(tmp_path / "out" / "alerts" / "gate", (1e9 + 5, 1e9 + 5))
    listed.clear()
    following.look()
    assert listed == ["alerts", "alerts", "gate"]


def test_no_error_ends_the_thread_that_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    following = follower_of(tmp_path)
    following.look()
    assert following.stale_since() is None

    def broken() -> None:
        raise RuntimeError("nobody has thought of this")

    for name in ("_rules_file.look", "_take_over"):
        with monkeypatch.context() as patch:
            target, _, method = name.rpartition(".")
            patch.setattr(getattr(following, target) if target else following, method, broken)
            following.look()
            assert following.status.problem == "RuntimeError: nobody has thought of this"
            assert following.stale_since() == following.status.last_success
        following.look()
        assert following.stale_since() is None
    assert (following.status.looks, following.status.failures) == (5, 2)


@pytest.mark.parametrize("how", RUINED)
def test_an_index_that_is_ruined_is_filled_again(tmp_path: Path, how: str) -> None:
    place = tmp_path / "out" / "alerts" / "hall"
    place.mkdir(parents=True)
    for minute in range(200):
        one = alert("hall", 7 * minute)
        (place / f"{one.record.alert_id}.json").write_text(json.dumps(record_of(one, "")))
    os.utime(place, (1e9, 1e9))
    index = Index(tmp_path / "index" / "i.sqlite", str(tmp_path / "out"))
    following = Follower(index, 1, RulesFollower(None, None))
    following.look()
    assert following.has_read
    expected = shown(index)
    ruin(tmp_path / "index" / "i.sqlite", how)
    if how == "a table is gone":  # Only who needs it notices.
        assert shown(index) == []
        assert not following.has_read
    following.look()
    if not following.has_read:
        following.look()
    assert following.has_read
    assert shown(index) == expected
    version = following.status.version
    following.look()
    assert following.status.version == version
