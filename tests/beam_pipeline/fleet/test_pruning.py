"""The command `prune`: what is older than it needs to be kept goes, and nothing else, whatever
fails."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import rules
from beam_pipeline import cli
from beam_pipeline.console.exceptions import CommandError
from beam_pipeline.fleet.pruning import Pruning
from rules import FOR_GOOD, Retention
from tests.beam_pipeline.conftest import refused, tree
from tests.search import search
from transforms.storage import stores
from transforms.storage.marks import write_mark

NOW = datetime(2026, 6, 30, tzinfo=timezone.utc)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def name_of(taken: datetime) -> str:
    return f"{taken:%Y%m%dT%H%M%S}Z"


def time_of(taken: datetime) -> str:
    return f"{taken:%Y-%m-%dT%H:%M:%S}Z"


def put(output: Path, path: str, content: Any = b"x", written: datetime | None = None) -> None:
    file = output / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    if written is not None:
        os.utime(file, (written.timestamp(), written.timestamp()))


def put_image(output: Path, taken: datetime, *, id: str = "hall", severity: str | None = None,
              written: datetime | None = None) -> None:  # fmt: skip
    """An image with its records, and with an alert if it has the severity `alert`."""
    stem, written = f"{id}_{name_of(taken)}", written or taken
    put(output, f"validated/{id}/{stem}.jpg", b"JPEG", written)
    put(output, f"detections/{id}/{stem}.json", {}, written)
    verdict = {"threat": {"is_threat": severity is not None}}
    put(output, f"final/{id}/{stem}.json", verdict, written)
    if severity == "alert":
        alert_id = rules.alert_id(id, time_of(taken), "alert")
        put(output, f"alerts/{id}/{alert_id}.json", alert_record(id, taken), written)


def alert_record(id: str, taken: datetime) -> dict[str, Any]:
    return {
        "alert_id": rules.alert_id(id, time_of(taken), "alert"),
        "id": id,
        "timestamp": time_of(taken),
        "severity": "alert",
        "threats": [{"label": "person", "bbox": [0.1, 0.2, 0.3, 0.4]}],
        "image_uri": "/in/x.jpg",
        "final_uri": "/out/x.json",
        "targets": [{"target": "guard", "outcome": "delivered", "detail": "at 10:00"}],
    }


def pruned(output: Path, days: int = 30, *, deletes: bool = True, now: datetime = NOW,
           **keep: timedelta) -> Pruning:  # fmt: skip
    retention = Retention(timedelta(days=days), keep)
    pruning = Pruning(str(output), retention, now, deletes=deletes)
    pruning.run()
    return pruning


def stems(output: Path) -> set[str]:
    return {path.name.split(".")[0] for path in (output / "validated").rglob("*.jpg")}


def test_what_is_old_goes_and_what_is_young_stays(tmp_path: Path) -> None:
    put_image(tmp_path, days_ago(31))
    put_image(tmp_path, days_ago(29))
    put_image(tmp_path, days_ago(30))  # Not older.
    pruning = pruned(tmp_path)
    young = {name_of(days_ago(29)), name_of(days_ago(30))}
    assert set(tree(tmp_path)) == {
        f"{folder}/hall/hall_{time}.{ending}"
        for time in young
        for folder, ending in (("validated", "jpg"), ("detections", "json"), ("final", "json"))
    }
    tally = pruning.tallies["validated"]
    assert (tally.files, tally.gone, tally.bytes, tally.kept) == (3, 1, 4, 0)


def test_without_delete_nothing_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for days in (1, 4000):
        put_image(tmp_path, datetime.now(timezone.utc) - timedelta(days=days), severity="alert")
    before = tree(tmp_path)
    command = ["prune", "--output", str(tmp_path), "--older_than", "30d"]
    assert cli.main(command) == 0
    captured = capsys.readouterr()
    # An image of eleven years ago that was written as long ago.
    assert [line.split()[:3] for line in captured.out.splitlines()[1:]] == [
        ["validated", "2", "1"], ["detections", "2", "1"], ["invalid", "0", "0"],
        ["final", "2", "1"], ["alerts", "(shortened)", "2"],
    ]  # fmt: skip
    assert "nothing was deleted; add --delete" in captured.err
    assert tree(tmp_path) == before
    assert cli.main([*command, "--delete"]) == 0
    assert len(stems(tmp_path)) == 1


def test_folders_and_severities_are_kept_longer(tmp_path: Path) -> None:
    kinds = (None, "detection", "alert")
    for number, severity in enumerate(kinds):
        put_image(tmp_path, days_ago(50 + number), severity=severity)

    def left(**keep: timedelta) -> dict[str, int]:
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("copy"))
        pruned(copy, **keep)
        count = {folder: len(list((copy / folder).rglob("*.j*"))) for folder in
                 ("validated", "detections", "final")}  # fmt: skip
        shutil.rmtree(copy)
        return count

    assert left() == {"validated": 0, "detections": 0, "final": 0}
    year = timedelta(days=365)
    assert left(final=year) == {"validated": 0, "detections": 0, "final": 3}
    assert left(alerts=year) == {"validated": 1, "detections": 1, "final": 1}
    assert left(threats=year) == {"validated": 2, "detections": 2, "final": 2}
    assert left(threats=timedelta(days=50)) == {"validated": 0, "detections": 0, "final": 0}
    assert left(validated=year, threats=timedelta(days=50)) == {
        "validated": 3, "detections": 0, "final": 0,
    }  # fmt: skip
    assert left(threats=timedelta(days=51, hours=12)) == {
        "validated": 1, "detections": 1, "final": 1,
    }  # fmt: skip


def test_only_threats_reads_verdicts_each_once(tmp_path: Path) -> None:
    for number, severity in enumerate((None, "detection", "alert")):
        put_image(tmp_path, days_ago(50 + number), severity=severity)
    put_image(tmp_path, days_ago(10))
    read: list[str] = []

    def note(name: str, uri: str) -> None:
        if name == "read_if_there" and "/final/" in uri:
            read.append(uri)

    with trouble(note):
        pruned(tmp_path, deletes=False, alerts=timedelta(days=365))
        assert read == []
        pruned(tmp_path, deletes=False, threats=timedelta(days=365))
    assert len(read) == len(set(read)) == 2


def test_marked_images_are_kept_for_good(tmp_path: Path) -> None:
    for days in (40, 4000):
        put_image(tmp_path, days_ago(days), severity="alert")
    put_image(tmp_path, days_ago(41))
    for days, mark, label in ((40, "false", None), (4000, "right", None)):
        time = time_of(days_ago(days))
        write_mark(str(tmp_path), id="hall", timestamp=time, label=label, by="Anna", mark=mark,
                   alert_id=rules.alert_id("hall", time, "alert"))  # fmt: skip
    marks = tree(tmp_path / "marks")
    pruned(tmp_path, marked=FOR_GOOD)
    assert stems(tmp_path) == {f"hall_{name_of(days_ago(days))}" for days in (40, 4000)}
    assert len(marks) == 2
    pruned(tmp_path)
    assert stems(tmp_path) == set()
    assert tree(tmp_path / "marks") == marks


def test_counts_decisions_digests_and_late_files_stay(tmp_path: Path) -> None:
    long_ago = days_ago(300)
    kept = [
        "counts/20250101T000000Z_20250101T000500Z.jsonl",
        "alerts/_undelivered/guard/20250101T000000Z_0123.json",
        "alerts/_limits/20250101T000000Z_20250101T001000Z/guard.json",
        "alerts/_cooldowns/hall/sent.json",
        "alerts/_digests/20250101T000000Z_20250101T001000Z/0123.json",
        "late/hall/hall_20250101T000000Z.json",
        "late/_known/hall/20250101T000000Z.state",
        "health/hall/0123.json",
        "marks/notes.txt",
        "report/report.html",
        "validated/hall/notes.txt",
        "validated/hall/gate_20250101T000000Z.jpg",
        "validated/hall/deeper/hall_20250101T000000Z.jpg",
        "validated/hall/.hall_20250101T000000Z.jpg.partial",
        "final/hall/notes.json",
        "invalid/other/hall_20250101T000000Z.jpg",
        "hall.parquet",
    ]
    for path in kept:
        put(tmp_path, path, b"x", long_ago)
    before = tree(tmp_path)
    pruning = pruned(tmp_path)
    assert tree(tmp_path) == before
    assert pruning.problems == []


def test_invalid_images_go_by_their_names_or_by_when_they_were_written(tmp_path: Path) -> None:
    old, young = days_ago(31), days_ago(29)
    for taken in (old, young):
        for ending in ("", ".json"):
            put(
                tmp_path,
                f"invalid/duplicate/hall_{name_of(taken)}-0123abcd.jpg{ending}",
                b"x",
                days_ago(2),
            )
    for name, written in (("IMG_1.jpg", old), ("IMG_2.jpg", young)):
        for ending in ("", ".json"):
            put(tmp_path, f"invalid/bad_name/{name}{ending}", b"x", written)
    pruned(tmp_path)
    assert set(tree(tmp_path)) == {
        f"invalid/{name}{ending}"
        for name in (f"duplicate/hall_{name_of(young)}-0123abcd.jpg", "bad_name/IMG_2.jpg")
        for ending in ("", ".json")
    }


def test_a_camera_that_has_lost_its_clock_does_not_lose_its_images(tmp_path: Path) -> None:
    reset = datetime(1970, 1, 1, tzinfo=timezone.utc)
    put_image(tmp_path, reset, written=days_ago(29))
    put_image(tmp_path, reset + timedelta(hours=1), written=days_ago(31))
    put_image(tmp_path, days_ago(3000), written=days_ago(1))  # An archive that was judged now.
    pruned(tmp_path)
    assert stems(tmp_path) == {f"hall_{name_of(reset)}", f"hall_{name_of(days_ago(3000))}"}


def test_capture_times_ahead_of_the_clock_count_from_the_writing(tmp_path: Path) -> None:
    far, near = datetime(2099, 12, 31, tzinfo=timezone.utc), days_ago(29) + timedelta(hours=24)
    for ending in ("", ".json"):
        name = f"invalid/timestamp_in_future/hall_{name_of(far)}.jpg{ending}"
        put(tmp_path, name, b"x", days_ago(31))
        name = f"invalid/timestamp_in_future/gate_{name_of(far)}.jpg{ending}"
        put(tmp_path, name, b"x", days_ago(29))
        name = f"invalid/timestamp_in_future/yard_{name_of(near)}.jpg{ending}"
        put(tmp_path, name, b"x", days_ago(29))
    pruned(tmp_path)
    assert {path.name.split("_")[0] for path in tmp_path.rglob("*.jpg*")} == {"gate", "yard"}
    # A day ahead is no mistake: its age counts from the capture time, which is later.
    pruned(tmp_path, now=NOW + timedelta(days=1, hours=23))
    assert {path.name.split("_")[0] for path in tmp_path.rglob("*.jpg*")} == {"yard"}


def test_what_a_job_has_written_within_a_day_stays(tmp_path: Path) -> None:
    """A batch over old images is at work: verdict and alert follow."""
    taken = days_ago(60)
    stem, hours = f"hall_{name_of(taken)}", NOW - timedelta(hours=23, minutes=59)
    put(tmp_path, f"validated/hall/{stem}.jpg", b"JPEG", hours)
    put(tmp_path, f"detections/hall/{stem}.json", {}, hours)
    put(tmp_path, f"invalid/not_jpeg/{stem}.jpg", b"x", hours)
    before = tree(tmp_path)
    pruning = pruned(tmp_path, alerts=FOR_GOOD)
    assert tree(tmp_path) == before
    assert [pruning.tallies[folder].kept for folder in ("validated", "invalid")] == [1, 1]
    pruned(tmp_path, now=NOW + timedelta(minutes=1))
    assert tree(tmp_path) == {}


def test_a_record_to_which_a_job_has_written_within_a_day_stays(tmp_path: Path) -> None:
    put_image(tmp_path, days_ago(60), severity="alert", written=NOW - timedelta(hours=23))
    before = tree(tmp_path)
    assert pruned(tmp_path).tallies["alerts"].gone == 0
    assert tree(tmp_path) == before
    assert pruned(tmp_path, now=NOW + timedelta(hours=1)).tallies["alerts"].gone == 1


def test_a_folder_that_is_a_link_is_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = datetime(2026, 1, 1, tzinfo=timezone.utc)
    put_image(tmp_path / "archive", taken, severity="alert")
    put_image(tmp_path / "out", taken, id="gate")
    for folder in ("validated", "alerts"):
        (tmp_path / "out" / folder).mkdir(exist_ok=True)
        (tmp_path / "out" / folder / "hall").symlink_to(tmp_path / "archive" / folder / "hall")
    before = tree(tmp_path / "archive")
    command = ["prune", "--output", str(tmp_path / "out"), "--older_than", "30d", "--delete"]
    assert cli.main(command) == 1
    assert tree(tmp_path / "archive") == before
    assert not list((tmp_path / "out").rglob("gate_*"))
    error = capsys.readouterr().err
    for folder in ("validated", "alerts"):
        assert f"out/{folder}/hall: a link to a folder, which prune does not follow" in error


@pytest.mark.parametrize("link", ["marks", "marks/hall", "alerts", "alerts/hall"])
def test_nothing_goes_while_a_link_to_what_must_stay_leads_nowhere(
    tmp_path: Path, link: str
) -> None:
    put_image(tmp_path, days_ago(40))
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "not mounted")
    before = tree(tmp_path)
    with pytest.raises(FileNotFoundError):
        pruned(tmp_path, marked=FOR_GOOD)
    assert tree(tmp_path) == before


def test_a_camera_may_be_named_as_a_reason(tmp_path: Path) -> None:
    put_image(tmp_path, days_ago(40), id="bad_name", severity="alert")
    pruned(tmp_path, alerts=timedelta(days=365))
    assert len(stems(tmp_path)) == 1


def test_the_record_of_an_alert_is_shortened(tmp_path: Path) -> None:
    put_image(tmp_path, days_ago(40), severity="alert")
    put_image(tmp_path, days_ago(20), severity="alert")
    young = alert_record("hall", days_ago(20))
    assert pruned(tmp_path).tallies["alerts"].gone == 1
    records = {
        path.stem: json.loads(path.read_bytes()) for path in (tmp_path / "alerts/hall").iterdir()
    }
    short = {
        **alert_record("hall", days_ago(40)), "threats": [], "image_uri": "", "final_uri": "",
        "targets": [{"target": "guard", "outcome": "delivered", "detail": ""}],
    }  # fmt: skip
    assert records == {record["alert_id"]: record for record in (short, young)}
    assert pruned(tmp_path).tallies["alerts"].gone == 0


def test_an_alert_that_waits_keeps_its_image_and_its_record(tmp_path: Path) -> None:
    for days in (40, 41):
        put_image(tmp_path, days_ago(days), severity="alert")
    alert_id = rules.alert_id("hall", time_of(days_ago(40)), "alert")
    put(tmp_path, f"alerts/_undelivered/guard/{name_of(days_ago(40))}_{alert_id}.json")
    before = tree(tmp_path)
    pruned(tmp_path)
    stem, after = f"hall_{name_of(days_ago(40))}", tree(tmp_path)
    assert stems(tmp_path) == {stem}
    for path in (f"final/hall/{stem}.json", f"alerts/hall/{alert_id}.json"):
        assert after[path] == before[path]


@pytest.mark.parametrize("folder", ["marks/hall", "alerts/_undelivered/guard", "alerts/hall"])
def test_nothing_goes_if_what_must_stay_can_not_be_listed(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_image(tmp_path, days_ago(40))
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    before, really = tree(tmp_path), os.scandir

    def scandir(path: str) -> Any:
        if path == str(tmp_path / folder):
            raise PermissionError(13, "Permission denied", path)
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        pruned(tmp_path)
    monkeypatch.undo()
    assert tree(tmp_path) == before


def test_nothing_goes_while_a_mark_is_damaged(tmp_path: Path) -> None:
    put_image(tmp_path, days_ago(40))
    put(tmp_path, "marks/hall/damaged.json", b"{")
    before = tree(tmp_path)
    with pytest.raises(CommandError, match=r"damaged\.json.*nothing is deleted"):
        pruned(tmp_path)
    assert tree(tmp_path) == before


def test_a_damaged_record_stays_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = datetime(2026, 1, 1, tzinfo=timezone.utc)
    put_image(tmp_path, taken)
    put(tmp_path, f"final/hall/hall_{name_of(taken)}.json", b"{", taken)
    for number in range(25):
        put(tmp_path, f"alerts/hall/{number:032x}.json", b"{", taken)
    command = ["prune", "--output", str(tmp_path), "--older_than", "30d", "--delete"]
    assert cli.main([*command, "--keep", "threats", "9999d"]) == 1
    error = capsys.readouterr().err
    assert "problems with the archive, skipped: 28" in error
    assert len(stems(tmp_path)) == 1


def test_after_too_many_failures_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(200):
        put_image(tmp_path, datetime(2026, 1, 1, 0, 0, number % 60, tzinfo=timezone.utc)
                  + timedelta(minutes=number))  # fmt: skip
    asked: list[str] = []

    def fail(uri: str) -> None:
        asked.append(uri)
        raise ConnectionError(f"{uri}: no answer from the store")

    monkeypatch.setattr(stores, "delete", fail)
    command = ["prune", "--output", str(tmp_path), "--older_than", "30d", "--delete"]
    assert cli.main(command) == 1
    assert "20 files could not be deleted, so it stopped" in capsys.readouterr().err
    assert len(asked) < 60


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing says how long what is kept; give --older_than AGE, such as 30d, or --rules"),
        (["--older_than", "30d", "--rules", "x.yaml"], "--keep are not for use with --rules"),
        (["--older_than", "30"], "'30' is no age; write a whole number and h or d, such as"),
        (["--older_than", "0d"], "'0d' is no age"),
        (["--older_than", "30d", "--keep", "pictures", "3d"], "--keep pictures: not one of valid"),
        (["--older_than", "30d", "--keep", "final", "soon"], "--keep final: 'soon' is no age"),
        (["--older_than", "30d", "--keep", "final", "7d"], "--keep final 7d: shorter than"),
        (["--older_than", "30d", "--keep", "final", "40d", "50d"], "--keep final: takes one age"),
        (["--older_than", "30d", "--output", "nowhere"], "nowhere: no such directory"),
    ],
)
def test_a_wrong_option_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert says in refused(capsys, "prune", *words)


def test_the_rule_file_says_how_long_what_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(timezone.utc)
    for days, severity in ((29, None), (31, None), (32, "alert"), (101, "alert")):
        put_image(tmp_path / "out", now - timedelta(days=days), severity=severity)
    ruleset = tmp_path / "rules.yaml"
    command = ["prune", "--output", tmp_path / "out", "--rules", ruleset]
    ruleset.write_text("version: 1\n")
    assert "rules.yaml: has no section `retention`; add one" in refused(capsys, *command)
    ruleset.write_text("version: 1\nretention: {older_than: 30d, keep: {alerts: 100d}}\n")
    assert cli.main([*map(str, command), "--delete"]) == 0
    assert stems(tmp_path / "out") == {
        f"hall_{name_of(now - timedelta(days=days))}" for days in (29, 32)
    }


# Stores that fail, runs that are stopped, and two at once


class Stopped(BaseException):
    """As if the process were killed."""


@contextmanager
def trouble(fails: Callable[[str, str], None]) -> Iterator[None]:
    """Calls a function before each request to the store."""
    names = ("delete", "write_bytes", "read_bytes", "read_if_there", "list_one_deep")
    really = {name: getattr(stores, name) for name in names}

    def wrapped(name: str) -> Callable[..., Any]:
        def request(uri: str, *rest: Any, **others: Any) -> Any:
            fails(name, uri)
            return really[name](uri, *rest, **others)

        return request

    for name in names:
        setattr(stores, name, wrapped(name))
    try:
        yield
    finally:
        for name in names:
            setattr(stores, name, really[name])


DAYS = (1, 20, 40, 60, 90, 400)


class Pruned(RuleBasedStateMachine):
    """Images come, are marked, and wait; prunes run, fail, are stopped, and run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.output = Path(tempfile.mkdtemp())
        self.now = NOW
        self.images: dict[datetime, dict[str, Any]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.output)

    @initialize()
    def others(self) -> None:
        put(self.output, "counts/20250101T000000Z_20250101T000500Z.jsonl")
        put(self.output, "late/_known/hall/20250101T000000Z.state")
        put(self.output, "alerts/_cooldowns/hall/sent.json")

    @rule(
        days=st.sampled_from(DAYS),
        severity=st.sampled_from((None, "detection", "alert")),
        marked=st.booleans(),
        waits=st.booleans(),
        hours=st.sampled_from((0, 23, None)),
    )
    def image(
        self, days: int, severity: str | None, marked: bool, waits: bool, hours: int | None
    ) -> None:
        taken = self.now - timedelta(days=days, seconds=len(self.images))
        if taken in self.images:
            return
        written = taken if hours is None else self.now - timedelta(hours=hours)
        put_image(self.output, taken, severity=severity, written=written)
        time = time_of(taken)
        alert_id = rules.alert_id("hall", time, "alert")
        waits = waits and severity == "alert"
        if waits:
            put(self.output, f"alerts/_undelivered/guard/{name_of(taken)}_{alert_id}.json")
        if marked:
            write_mark(str(self.output), id="hall", timestamp=time, alert_id=alert_id,
                       mark="unsure", label="person", by="Anna")  # fmt: skip
        self.images[taken] = {
            "severity": severity, "marked": marked, "waits": waits, "written": written,
        }  # fmt: skip

    @rule(days=st.sampled_from((1, 30)))
    def time_passes(self, days: int) -> None:
        self.now += timedelta(days=days)

    @rule(
        older=st.sampled_from((15, 30, 80)),
        keep=st.dictionaries(
            st.sampled_from(("validated", "final", "alerts", "threats", "marked")),
            st.sampled_from((timedelta(days=100), FOR_GOOD)),
        ),
        failing=st.none() | st.integers(0, 60),
        how=st.sampled_from(("once", "often", "stop", "second")),
    )
    def prune(self, older: int, keep: dict[str, timedelta], failing: int | None, how: str) -> None:
        before, asked = tree(self.output), 0

        def again() -> None:
            pruned(self.output, older, now=self.now, **keep)

        def fails(name: str, uri: str) -> None:
            nonlocal asked
            asked += 1
            if failing is None or asked <= failing:
                return
            if how == "stop":
                raise Stopped
            if how == "second" and asked == failing + 1:
                again()  # Another one does all of it now.
            elif how == "often" or (how == "once" and asked == failing + 1):
                raise ConnectionError(f"{uri}: no answer")

        is_whole = True
        with trouble(fails):
            try:
                pruning = pruned(self.output, older, now=self.now, **keep)
                is_whole = not pruning.problems
            except (Stopped, OSError, CommandError):
                is_whole = False
        self._check(before, older, keep, is_whole=is_whole)

    def _is_fresh(self, taken: datetime) -> bool:
        return bool(self.now - self.images[taken]["written"] < timedelta(hours=24))

    def _counted_from(self, taken: datetime) -> datetime:
        written: datetime = self.images[taken]["written"]
        return written if written - taken > timedelta(days=365) else taken

    def _check(
        self, before: dict[str, bytes], older: int, keep: dict[str, timedelta], *, is_whole: bool
    ) -> None:
        after = tree(self.output)
        may_go: set[str] = set()
        for taken, image in self.images.items():
            stem, is_fresh = f"hall_{name_of(taken)}", self._is_fresh(taken)
            age = self.now - self._counted_from(taken)
            # That an image shows a threat is known by its alert, or by its verdict.
            is_judged = f"final/hall/{stem}.json" in before
            kinds = ["threats"] * (
                image["severity"] == "alert" or (image["severity"] is not None and is_judged)
            )
            kinds += ["alerts"] * (image["severity"] == "alert") + ["marked"] * image["marked"]
            for path in (f"validated/hall/{stem}.jpg", f"detections/hall/{stem}.json",
                         f"final/hall/{stem}.json"):  # fmt: skip
                own = [path.split("/")[0], *kinds]
                limits = [timedelta(days=older), *(keep[kind] for kind in own if kind in keep)]
                if age > max(limits) and not image["waits"] and not is_fresh:
                    may_go.add(path)
        gone = before.keys() - after.keys()
        assert gone <= may_go
        assert after.keys() <= before.keys()
        changed = {path for path in after if after[path] != before[path]}
        assert all(path.startswith("alerts/hall/") for path in changed)
        for taken, image in self.images.items():
            if image["severity"] == "alert":
                alert_id = rules.alert_id("hall", time_of(taken), "alert")
                record = json.loads(after[f"alerts/hall/{alert_id}.json"])
                assert record["targets"][0]["outcome"] == "delivered"
                age = self.now - self._counted_from(taken)
                if image["waits"] or age <= timedelta(days=older) or self._is_fresh(taken):
                    assert f"alerts/hall/{alert_id}.json" not in changed
        if is_whole:
            assert not may_go & after.keys()


TestPruned = Pruned.TestCase
TestPruned.settings = search(40, stateful_step_count=10)
TestPruned = pytest.mark.search(TestPruned)


def test_records_of_shadow_rules_are_kept_for_as_long_as_alerts(tmp_path: Path) -> None:
    def put_record(days: int, id: str = "hall") -> str:
        name = f"shadow/alerts/{id}/{name_of(days_ago(days))}_0123456789ab.json"
        put(tmp_path, name, {}, days_ago(days))
        return name

    young, old, older = put_record(20), put_record(40), put_record(400)
    marked = put_record(401)
    time = time_of(days_ago(401))
    write_mark(str(tmp_path), id="hall", timestamp=time, label=None, by="Anna", mark="false",
               alert_id=rules.alert_id("hall", time, "alert"))  # fmt: skip
    others = ["shadow/alerts/hall/notes.txt", "shadow/alerts/hall/20200101T000000Z_x.json"]
    for name in others:
        put(tmp_path, name, b"not written by the job", days_ago(500))
    dry = pruned(tmp_path, 30, deletes=False)
    assert (dry.tallies["shadow"].files, dry.tallies["shadow"].gone) == (4, 3)
    pruned(tmp_path, 30, alerts=timedelta(days=365), marked=FOR_GOOD)
    left = {name for name in tree(tmp_path) if name.startswith("shadow/")}
    assert left == {young, old, marked, *others}
    assert older not in left
    pruned(tmp_path, 30)
    assert {name for name in tree(tmp_path) if name.startswith("shadow/")} == {young, *others}
