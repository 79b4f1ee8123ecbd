"""Changes of the rule file through the console: no version and no edit by hand is lost."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from beam_pipeline.web.output import audit
from beam_pipeline.web.output.rule_changes import (
    BrokenRulesError,
    ChangeRefusedError,
    HistoryError,
    OutdatedError,
    RuleFile,
    UnwritableError,
)
from tests.search import search
from tests.transforms.memory_store import OBJECTS
from transforms.storage import stores

RULES = """\
# Our cameras
version: 1
cameras:
  hall:
    objects: {person: {min_score: 0.50}}   # as measured
"""
LABELS = frozenset({"person", "car"})
SCORE = ("cameras", "hall", "objects", "person", "min_score")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def rule_file(folder: Path, text: str = RULES) -> RuleFile:
    (folder / "rules.yaml").write_text(text)
    return RuleFile(str(folder / "rules.yaml"), str(folder / "out"), LABELS)


def change(file: RuleFile, value: str, expected: str, by: str = "anna", **how: datetime) -> None:
    file.change([(SCORE, value)], expected=expected, by=by, role="admin", why="marks", **how)


def kept_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out" / "rules" / "history").glob("*"))


def test_a_change_keeps_comments_and_the_version_before_and_is_undone(tmp_path: Path) -> None:
    file = rule_file(tmp_path)
    path = tmp_path / "rules.yaml"
    path.chmod(0o640)
    now = datetime(2026, 1, 31, 18, 2, 3, 4, tzinfo=timezone.utc)
    change(file, "0.56", sha256(RULES), now=now)
    changed = RULES.replace("{min_score: 0.50}}   #", "{min_score: 0.56}}   #")
    assert path.read_text() == changed
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    name = f"20260131T180203000004Z_{sha256(RULES)[:12]}.yaml"
    assert kept_files(tmp_path) == [name]
    assert file.kept_text(name) == RULES
    (entry,) = audit.read_entries(str(tmp_path / "out"), 9, now)
    assert (entry["by"], entry["role"], entry["action"]) == ("anna", "admin", "change rules")
    assert entry["about"] == {
        "what": "cameras.hall.objects.person.min_score: 0.56",
        "why": "marks",
        "from": sha256(RULES)[:12],
        "to": sha256(changed)[:12],
    }
    (kept,) = file.versions(9)
    assert (kept.by, kept.why, kept.version) == ("anna", "marks", sha256(RULES)[:12])
    assert file.undoable(file.read(), [kept]) == kept
    file.restore(name, expected=sha256(changed), by="ben", role="admin", now=now)
    assert path.read_text() == RULES
    again, _ = file.versions(9)
    assert (again.by, again.version) == ("ben", sha256(changed)[:12])
    assert again.at > now  # Later, though the clock stood still.
    assert file.undoable(file.read(), file.versions(9)) == again


def test_the_second_of_two_admins_gets_a_message_and_overwrites_nothing(tmp_path: Path) -> None:
    file = rule_file(tmp_path)
    change(file, "0.56", sha256(RULES))
    stands = (tmp_path / "rules.yaml").read_text()
    with pytest.raises(OutdatedError, match="was changed since the page was made"):
        change(file, "0.70", sha256(RULES), by="ben")
    assert (tmp_path / "rules.yaml").read_text() == stands
    assert len(kept_files(tmp_path)) == 1


def test_of_many_admins_at_once_one_changes_the_file(tmp_path: Path) -> None:
    file = rule_file(tmp_path)
    begin, outcomes = threading.Barrier(8), []

    def one(number: int) -> None:
        begin.wait()
        try:
            change(file, f"0.6{number}", sha256(RULES))
            outcomes.append(number)
        except OutdatedError:
            outcomes.append(None)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (done,) = [outcome for outcome in outcomes if outcome is not None]
    assert f"min_score: 0.6{done}" in (tmp_path / "rules.yaml").read_text()
    assert len(kept_files(tmp_path)) == 1
    assert len(outcomes) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RULES + "  gate: {objects: {person: {min_scor: 0.5}}}\n", "rules.yaml:6"),
        (RULES + "  - nonsense", "rules.yaml:"),
        ("version: 1\n\xff", "rules.yaml"),
    ],
)
def test_a_file_that_is_broken_by_hand_is_named_by_its_line_and_stays(
    tmp_path: Path, text: str, message: str
) -> None:
    file = rule_file(tmp_path)
    (tmp_path / "rules.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(BrokenRulesError, match=message):
        change(file, "0.56", sha256(RULES))
    assert (tmp_path / "rules.yaml").read_bytes() == text.encode("latin-1")
    assert kept_files(tmp_path) == []


def test_what_would_not_pass_rules_check_is_refused(tmp_path: Path) -> None:
    file = rule_file(tmp_path)
    for path, value, message in (
        (SCORE, "1.5", "min_score"),
        (("cameras", "hall", "objects", "unicorn", "min_score"), "0.5", "unicorn"),
        (("cameras", "hall", "track"), {"min_score": "0.02"}, "--min_score_kept 0.02"),
        (("version", "x"), "1", "written in a way"),
    ):
        with pytest.raises(BrokenRulesError, match=message):
            file.change(
                [(path, value)], expected=sha256(RULES), by="anna", role="admin", why="drawn"
            )
    with pytest.raises(ChangeRefusedError, match="says this already"):
        change(file, "0.50", sha256(RULES))
    assert (tmp_path / "rules.yaml").read_text() == RULES
    assert kept_files(tmp_path) == []


def test_low_scores_that_the_job_keeps_already_hinder_no_change(tmp_path: Path) -> None:
    text = RULES + "    track: {min_score: 0.02}\n"
    file = rule_file(tmp_path, text)
    change(file, "0.56", sha256(text))
    assert "0.56" in (tmp_path / "rules.yaml").read_text()


@contextmanager
def unwritable(target: Path, code: int) -> Iterator[None]:
    """Makes the disk refuse to replace a file, as a mount of a ConfigMap or of one file does."""
    replace, mkstemp = os.replace, tempfile.mkstemp

    def refuse(source: str, to: str) -> None:
        if Path(to) == target:
            raise OSError(code, os.strerror(code), to)
        replace(source, to)

    def no_file(**how: str) -> tuple[int, str]:
        if Path(how["dir"]) == target.parent:
            raise OSError(code, os.strerror(code), how["dir"])
        return mkstemp(**how)

    is_whole = code == 30  # A read-only file system has no place for the new file either.
    make = no_file if is_whole else mkstemp
    with mock.patch("os.replace", refuse), mock.patch("tempfile.mkstemp", make):
        yield


@pytest.mark.parametrize(
    ("code", "actions"), [(30, []), (16, ["rules not changed", "change rules"])]
)
def test_where_the_file_cannot_be_written_a_diff_is_offered(
    tmp_path: Path, code: int, actions: list[str]
) -> None:
    """Of a read-only file system nothing is noted; a mount of one file shows it only at the end."""
    file = rule_file(tmp_path)
    with unwritable(tmp_path / "rules.yaml", code), pytest.raises(UnwritableError) as raised:
        change(file, "0.56", sha256(RULES))
    assert "can't be written from here" in str(raised.value)
    assert raised.value.diff.splitlines() == [
        "--- rules.yaml",
        "+++ rules.yaml",
        "@@ -2,4 +2,4 @@",
        " version: 1",
        " cameras:",
        "   hall:",
        "-    objects: {person: {min_score: 0.50}}   # as measured",
        "+    objects: {person: {min_score: 0.56}}   # as measured",
    ]
    assert (tmp_path / "rules.yaml").read_text() == RULES
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "out") == ["rules.yaml"]
    assert [one["action"] for one in audit.read_entries(str(tmp_path / "out"), 9)] == actions
    assert kept_files(tmp_path) == []  # What stands has not been replaced.


@pytest.fixture
def _memory() -> Iterator[None]:
    """An empty store in memory."""
    OBJECTS.clear()
    yield
    OBJECTS.clear()


@pytest.mark.usefixtures("_memory")
def test_a_store_holds_the_file_and_its_history() -> None:
    stores.write_bytes("memory://box/rules.yaml", RULES.encode())
    file = RuleFile("memory://box/rules.yaml", "memory://box/out", LABELS)
    change(file, "0.56", sha256(RULES))
    (kept,) = file.versions(9)
    assert stores.read_bytes("memory://box/rules.yaml") == RULES.replace("0.50", "0.56").encode()
    assert file.kept_text(kept.name) == RULES
    assert kept.by == "anna"


@pytest.mark.parametrize(
    "name",
    ["", "../../rules.yaml", "20260131T180203000004Z_000000000000.yaml", "x/y", "..", "a\0b"],
)
def test_only_versions_of_the_history_are_restored(tmp_path: Path, name: str) -> None:
    file = rule_file(tmp_path)
    with pytest.raises(BrokenRulesError, match="there is no such version"):
        file.restore(name, expected=sha256(RULES), by="anna", role="admin")


def test_other_files_in_the_history_and_damaged_versions_are_left_out(tmp_path: Path) -> None:
    file = rule_file(tmp_path)
    change(file, "0.56", sha256(RULES))
    (name,) = kept_files(tmp_path)
    history = tmp_path / "out" / "rules" / "history"
    for other in ("README", f"99999999T999999999999Z_{'0' * 12}.yaml"):
        (history / other).write_text("x")
    assert [kept.name for kept in file.versions(9)] == [name]
    (history / name).write_text(RULES + "# damaged\n")
    with pytest.raises(BrokenRulesError, match="there is no such version"):
        file.kept_text(name)


# A search


class CrashError(BaseException):
    """The process ends."""


STEPS = ("before the version is kept", "before the entry", "before the file", "after the file")
# An edit by hand right before the file is replaced, after the last look at it, is not searched for.
EDITS = [(at, "edit") for at in STEPS[:2]]
FAILURES = [(at, "failure") for at in STEPS[:2]]
CRASHES = [(at, "crash") for at in STEPS]


class Changes(RuleBasedStateMachine):
    """Two admins, whose pages may be old, and a person with an editor; processes end between any
    two steps, and the store fails. Against a list of what stood and who replaced it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.path = self.root / "rules.yaml"
        self.output = self.root / "out"
        self.file = rule_file(self.root)
        self.pages = {name: sha256(RULES) for name in ("anna", "ben")}
        self.stands = RULES
        self.replaced: list[tuple[str, str, str]] = []
        self.number = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @contextmanager
    def interrupted(self, at: str | None, what: Callable[[], None]) -> Iterator[None]:
        """Lets something happen between two steps of a change."""
        write, replace = stores.write_bytes, os.replace

        def step(name: str) -> None:
            if name == at:
                what()

        def write_bytes(uri: str, data: bytes) -> None:
            step(STEPS[0] if "/history/" in uri else STEPS[1])
            write(uri, data)

        def os_replace(source: str, to: str) -> None:
            is_rules = os.path.realpath(to) == os.path.realpath(self.path)
            if is_rules:
                step(STEPS[2])
            replace(source, to)
            if is_rules:
                step(STEPS[3])

        write_patch = mock.patch.object(stores, "write_bytes", write_bytes)
        with write_patch, mock.patch("os.replace", os_replace):
            yield

    def attempt(self, by: str, act: Callable[[], None]) -> None:
        """Changes the file, and notes what it replaced."""
        before, edits = self.path.read_text(), self.number
        was_seen = self.pages[by] == sha256(before)
        error: BaseException | None = None
        try:
            act()
        except (ChangeRefusedError, CrashError) as raised:
            error = raised
        assert was_seen or isinstance(error, OutdatedError | BrokenRulesError)
        after = self.path.read_text()
        if self.number > edits:
            assert after == self.stands  # The edit by hand.
        elif after != before:
            assert was_seen
            self.replaced.append((before, after, by))
            self.stands = after

    @rule(by=st.sampled_from(["anna", "ben"]))
    def load(self, by: str) -> None:
        self.pages[by] = sha256(self.path.read_text())

    @rule(
        by=st.sampled_from(["anna", "ben"]),
        loads=st.booleans(),
        value=st.integers(51, 60),
        between=st.sampled_from([(None, ""), *EDITS, *FAILURES, *CRASHES]),
    )
    def change(self, by: str, loads: bool, value: int, between: tuple[str | None, str]) -> None:
        at, what = between

        def happen() -> None:
            if what == "edit":
                self.edit(is_right=value % 2 == 0)
            elif what == "failure":
                raise OSError(5, "Input/output error")
            else:
                raise CrashError

        if loads:
            self.load(by=by)
        with self.interrupted(at, happen):
            self.attempt(by, lambda: change(self.file, f"0.{value}", self.pages[by], by))

    @rule(by=st.sampled_from(["anna", "ben"]), at=st.sampled_from([None, *STEPS]))
    def undo(self, by: str, at: str | None) -> None:
        def crash() -> None:
            raise CrashError

        try:
            text = self.file.read()
        except BrokenRulesError:
            return
        kept = self.file.undoable(text, self.file.versions(99))
        if kept is None:
            return
        before = [old for old, new, _ in self.replaced if new == text.text]
        assert self.file.kept_text(kept.name) in before
        with self.interrupted(at, crash):
            self.attempt(
                by,
                lambda: self.file.restore(  # type: ignore[func-returns-value]
                    kept.name, expected=self.pages[by], by=by, role="admin"
                ),
            )

    @rule(is_right=st.booleans())
    def edit(self, is_right: bool) -> None:
        self.number += 1
        note = f"# {self.number}\n" if is_right else f"{self.number}: nonsense\n"
        self.stands = RULES + note
        self.path.write_text(self.stands)

    @invariant()
    def what_stands_is_the_last_thing_that_somebody_wrote(self) -> None:
        assert self.path.read_text() == self.stands

    @invariant()
    def each_version_that_was_replaced_is_kept_and_has_its_entry(self) -> None:
        history = self.output / "rules" / "history"
        kept = {path.read_text() for path in history.glob("*")}
        entries = audit.read_entries(str(self.output), 999)
        noted = [(one["about"]["from"], one["about"]["to"], one["by"]) for one in entries]
        for old, new, by in self.replaced:
            assert old in kept
            made = (sha256(old)[:12], sha256(new)[:12], by)
            assert noted.count(made) >= self.replaced.count((old, new, by))

    @invariant()
    def nothing_else_is_left_beside_the_file(self) -> None:
        assert {path.name for path in self.root.iterdir()} <= {"rules.yaml", "out"}


TestChanges = pytest.mark.search(Changes.TestCase)
TestChanges.settings = search(40, stateful_step_count=15)


def test_a_store_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = rule_file(tmp_path)
    (tmp_path / "out").write_text("in the way of the folder")
    with pytest.raises(HistoryError, match="was not changed"):
        change(file, "0.56", sha256(RULES))
    assert (tmp_path / "rules.yaml").read_text() == RULES
