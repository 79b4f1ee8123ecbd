"""Changes of the rule file through the console: settings, and versions from before.

    rules/history/<time>_<12 digits of the version>.yaml

A change is made from a page that shows one version of the file, and is refused if the file is
another one by then. Before the file is replaced, the version that stands is written to the history
of the output and an entry to the audit, so whatever fails between them, no version is lost and no
change is without an entry. The comments and the layout of the file stay.

    file = RuleFile("rules.yaml", "output", labels)
    text = file.read()
    path = ("cameras", "hall", "mask", "tree")
    file.change([(path, {...})], expected=text.sha256, by="anna", role="admin", why="drawn")
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from difflib import unified_diff
from typing import Any

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.evaluation.rule_edits import Setting, apply_settings, setting_text
from beam_pipeline.inputs.rule_files import load_rules, read_file, replace_rules
from beam_pipeline.web.output import audit
from transforms.records.text import one_line
from transforms.runtime.live_rules import scores_not_kept
from transforms.storage import stores

CHANGE, RESTORE = "change rules", "restore rules"
"""What the audit calls a change by settings, and that a version from before is put back."""
UNCHANGED = "rules not changed"
"""What it says after one of these entries if the file could not be replaced."""
_NAME = re.compile(r"(\d{8}T\d{12})Z_([0-9a-f]{12})\.yaml")
_MIN_SCORE_KEPT = 0.05
"""The default of the job; `track` needs the detections down to its own `min_score`."""
_changing = threading.Lock()


class ChangeRefusedError(Exception):
    """Why the rule file was not changed, for a person."""


class OutdatedError(ChangeRefusedError):
    """The file is another one than on the page from which it was to be changed."""


class BrokenRulesError(ChangeRefusedError):
    """The file can't be read, or is not right; or it would not be with the change."""


class UnwritableError(ChangeRefusedError):
    """The file can't be replaced from here.

    Attributes:
      diff: What a person can change where the file comes from, as a unified diff.
    """

    def __init__(self, text: str, diff: str) -> None:
        super().__init__(text)
        self.diff = diff


class HistoryError(ChangeRefusedError):
    """The output, in which the version from before is kept, can't be written."""


@dataclass(frozen=True)
class RuleText:
    """A version of the rule file that is right.

    Attributes:
      text: Its content.
      sha256: The hash of its bytes, which a form carries as `expected`.
    """

    text: str
    sha256: str

    @property
    def version(self) -> str:
        """The version of these rules, as in verdicts."""
        return self.sha256[:12]


@dataclass(frozen=True)
class KeptVersion:
    """A version that a change replaced.

    Attributes:
      name: Its file in `rules/history`.
      at: When it was replaced (UTC).
      version: Of its rules.
      changed_to: The version that took its place; None if no audit entry says so.
      by: Who changed it; None likewise.
      what: The change in words; None likewise.
      why: The reason; None likewise.
    """

    name: str
    at: datetime
    version: str
    changed_to: str | None
    by: str | None
    what: str | None
    why: str | None


class RuleFile:
    """A rule file that the console may change. Thread-safe.

    Args:
      path: The file, on any of Beam's filesystems.
      output: The job's output, which keeps the versions from before.
      labels: The labels that the model can give.
    """

    def __init__(self, path: str, output: str, labels: frozenset[str]) -> None:
        self.path = path
        self._output = output
        self._labels = labels

    def read(self) -> RuleText:
        """Returns what the file says now.

        Raises:
          BrokenRulesError: It can't be read, or is not right; a line for each mistake.
        """
        try:
            data = read_file(self.path, "--rules")
            load_rules(data, self.path, self._labels)
        except SetupError as error:
            raise BrokenRulesError(str(error)) from None
        return RuleText(data.decode(), _sha256(data))

    def with_settings(self, text: str, settings: Sequence[Setting]) -> str:
        """Returns a version of the file with other settings, after the checks of `rules check`.

        Args:
          text: The version, which is right.
          settings: What is to change, see `rule_edits.apply_settings`.

        Raises:
          BrokenRulesError: It would not be right.
        """
        try:
            changed = apply_settings(text, settings)
        except (AttributeError, TypeError) as error:
            raise BrokenRulesError(
                f"{self.path}: is written in a way in which this can't be set here "
                f"({one_line(error)}); edit the file by hand"
            ) from None
        self._check(changed, text)
        return changed

    def difference(self, text: str, changed: str) -> str:
        """Returns what another version changes, as a unified diff."""
        name = self.path.rpartition("/")[2]
        lines = unified_diff(
            text.splitlines(),
            changed.splitlines(),
            name,
            name,
            lineterm="",
        )
        return "".join(f"{line}\n" for line in lines)

    def change(
        self,
        settings: Sequence[Setting],
        *,
        expected: str,
        by: str,
        role: str,
        why: str,
        now: datetime | None = None,
    ) -> RuleText:
        """Changes settings of the file; returns its new version.

        Args:
          settings: What is to change, see `rule_edits.apply_settings`.
          expected: The hash of the version that the person has seen, see `RuleText.sha256`.
          by: Who changes it.
          role: What the person may do.
          why: The reason, for the audit.
          now: The present time (UTC); None for that of this machine's clock.

        Raises:
          ChangeRefusedError: The file was not changed.
        """
        what = "; ".join(map(setting_text, settings))
        about = {"what": what, "why": why}
        with _alone(self.path):
            text = self._expected(expected)
            changed = self.with_settings(text.text, settings)
            return self._replace(text, changed, CHANGE, by, role, about, now)

    def restore(
        self, name: str, *, expected: str, by: str, role: str, now: datetime | None = None
    ) -> RuleText:
        """Puts a version from before back; returns it. The one that stands is kept in turn.

        Args:
          name: The version's file in `rules/history`.
          expected: As for `change`.
          by: As for `change`.
          role: As for `change`.
          now: As for `change`.

        Raises:
          ChangeRefusedError: The file was not changed.
        """
        with _alone(self.path):
            text = self._expected(expected)
            changed = self.kept_text(name)
            self._check(changed, text.text)
            version = name.partition("_")[2].removesuffix(".yaml")
            about = {"what": f"the version {version} is put back"}
            return self._replace(text, changed, RESTORE, by, role, about, now)

    def undoable(self, text: RuleText, kept: Sequence[KeptVersion]) -> KeptVersion | None:
        """Returns the version before the last change; None if the file is not as that left it.

        Args:
          text: The version that stands.
          kept: What `versions` returns.
        """
        fitting = (
            one for one in kept if one.changed_to == text.version and one.version != text.version
        )
        return next(fitting, None)

    def versions(self, number: int) -> list[KeptVersion]:
        """Returns the versions that changes replaced, the newest first.

        Args:
          number: How many at most.

        Raises:
          OSError: The store can't be listed.
        """
        kept = self._kept()
        times = {name: kept[name] for name in sorted(kept, reverse=True)[:number]}
        entries = audit.entries_at(self._output, set(times.values()), (CHANGE, RESTORE))
        return [_kept_version(name, at, entries.get(at, {})) for name, at in times.items()]

    def kept_text(self, name: str) -> str:
        """Returns a version from the history.

        Args:
          name: Its file in `rules/history`.

        Raises:
          BrokenRulesError: There is no such version, or it is damaged.
          HistoryError: The store can't be read.
        """
        match = _NAME.fullmatch(name)
        try:
            data = None if match is None else stores.read_if_there(self._history(name))
            text = None if data is None else data.decode()
        except OSError as error:
            raise HistoryError(f"rules/history can't be read ({one_line(error)})") from None
        except UnicodeDecodeError:
            text = None
        if text is None or match is None or _sha256(text.encode())[:12] != match[2]:
            raise BrokenRulesError(f"rules/history/{name}: there is no such version")
        return text

    def _expected(self, sha256: str) -> RuleText:
        text = self.read()
        self._check_same(sha256, text.text.encode())
        return text

    def _check_same(self, sha256: str, data: bytes | None = None) -> None:
        """Checks that the file is the one that a person has seen.

        Args:
          sha256: The hash of its bytes.
          data: Its bytes; None to read them.

        Raises:
          OutdatedError: It is another one.
          BrokenRulesError: It can't be read.
        """
        try:
            data = read_file(self.path, "--rules") if data is None else data
        except SetupError as error:
            raise BrokenRulesError(str(error)) from None
        if _sha256(data) != sha256:
            raise OutdatedError(
                f"{self.path} was changed since the page was made, by another person or by hand. "
                "Nothing was written. Load the page again, look at what the rules say now, and "
                "decide anew."
            )

    def _check(self, changed: str, text: str) -> None:
        """Makes the checks of `rules check`.

        Raises:
          BrokenRulesError: The file would not be right.
        """
        try:
            ruleset = load_rules(changed.encode(), self.path, self._labels)
        except SetupError as error:
            raise BrokenRulesError(str(error)) from None
        problem = scores_not_kept(ruleset, _MIN_SCORE_KEPT)
        # The job may keep lower scores than by default, which the file that stands then shows.
        if problem is not None and problem != scores_not_kept(
            rules.parse_rules(text.encode(), self.path), _MIN_SCORE_KEPT
        ):
            raise BrokenRulesError(f"{self.path}: {problem}")

    def _replace(
        self,
        text: RuleText,
        changed: str,
        action: str,
        by: str,
        role: str,
        about: Mapping[str, str],
        now: datetime | None,
    ) -> RuleText:
        new = RuleText(changed, _sha256(changed.encode()))
        if new == text:
            raise ChangeRefusedError(f"{self.path} says this already.")

        kept: dict[str, datetime] = {}

        def write_entry(of: str, at: datetime) -> None:
            versions = {"from": text.version, "to": new.version}
            audit.write_entry(
                self._output, by=by, role=role, action=of, about={**about, **versions}, now=at
            )

        def keep() -> None:
            try:
                at = self._next_time(now or datetime.now(timezone.utc))
                name = f"{at:%Y%m%dT%H%M%S}{at.microsecond:06d}Z_{text.version}.yaml"
                stores.write_bytes(self._history(name), text.text.encode())
                write_entry(action, at)
                kept[self._history(name)] = at
            except OSError as error:
                raise HistoryError(
                    f"{self.path} was not changed, as the version from before can't be kept in the "
                    f"output ({one_line(error)}). Try again."
                ) from None
            self._check_same(text.sha256)  # The store may have taken long.

        try:
            replace_rules(self.path, changed.encode(), keep)
        except OSError as error:
            with suppress(OSError, ChangeRefusedError):
                self._check_same(text.sha256)  # A store may have written it and not have said so.
                for uri, at in kept.items():
                    write_entry(UNCHANGED, at + timedelta(microseconds=1))
                    stores.delete(uri)
            raise UnwritableError(
                f"{self.path} can't be written from here ({error.strerror or one_line(error)}). "
                "Make this change where the file comes from:",
                self.difference(text.text, changed),
            ) from None
        return new

    def _next_time(self, now: datetime) -> datetime:
        """Returns the time of a change: now, or later if a clock was ahead before."""
        last = max(self._kept().values(), default=None)
        return now if last is None else max(now, last + timedelta(microseconds=1))

    def _kept(self) -> dict[str, datetime]:
        """Returns the names of the versions in the history, with their times."""
        names = stores.names_with_prefix(self._history(), [""])
        times = {name: time_of(name) for name in names}
        return {name: at for name, at in times.items() if at is not None}

    def _history(self, *name: str) -> str:
        return stores.join(self._output, "rules", "history", *name)


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Lets one console at a time change a file: of this machine, or of a store of this process."""
    path = path.removeprefix("file://")
    with _changing:
        if not stores.is_local(path):
            yield
            return
        try:
            folder = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY)
        except OSError as error:
            raise BrokenRulesError(f"{path}: can't be read ({error.strerror})") from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def time_of(name: str) -> datetime | None:
    """Returns when a version was replaced (UTC), by its name; None if it is no such name."""
    match = _NAME.fullmatch(name)
    try:
        at = None if match is None else datetime.strptime(match[1], "%Y%m%dT%H%M%S%f")
    except ValueError:
        return None
    return None if at is None else at.replace(tzinfo=timezone.utc)


def _kept_version(name: str, at: datetime, entry: Mapping[str, Any]) -> KeptVersion:
    about = entry.get("about", {})
    return KeptVersion(
        name=name,
        at=at,
        version=name.partition("_")[2].removesuffix(".yaml"),
        changed_to=about.get("to"),
        by=entry.get("by"),
        what=about.get("what"),
        why=about.get("why"),
    )
