"""The rules in force: those of the start, or, in a stream, the rule file's as it is edited.

Each worker checks the file on its own. For one check interval after an edit, some images are
therefore judged by the old rules and others by the new rules. Each verdict names the version that
it was judged by. A file that can't be read or is invalid changes nothing: the last valid rules stay
in force.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rules
from transforms.records.text import one_line
from transforms.runtime.counters import count
from transforms.storage import stores

_LOGGER = logging.getLogger(__name__)

CHECK_SECONDS = 15.0
RULES, SHADOW_RULES = "rules", "shadow rules"
"""What the rules that decide, and those that are judged beside them, are called."""


def scores_not_kept(ruleset: rules.Rules, min_score_kept: float) -> str | None:
    """Returns which camera's `track` needs detections that are dropped before they are judged.

    Args:
      ruleset: The rules.
      min_score_kept: Detections below this score are dropped.

    Returns:
      What is wrong and what to do; None if the rules need no such detection.
    """
    others = {} if ruleset.strict_ids else {"any other camera": ruleset.defaults}
    cameras = {**others, **ruleset.by_camera}
    for camera, settings in cameras.items():
        track = settings.track
        if track is not None and track.min_score < min_score_kept and _tracks_a_label(settings):
            return (
                f"track.min_score of {camera} is {track.min_score:g}, but --min_score_kept drops "
                f"detections below {min_score_kept:g}; give --min_score_kept {track.min_score:g}, "
                f"or raise track.min_score to {min_score_kept:g}"
            )
    return None


def _tracks_a_label(camera: rules.CameraRules) -> bool:
    return any(rule.track and rule.severity != "ignore" for _, rule in camera.all_rules())


class LiveRules:
    """Rules that may change while the job runs.

    Args:
      start: The rules that were validated before the job started.
      source: The rule file to check, on any filesystem; None if the rules never change.
      labels: Labels that the model can give; None for any.
      min_score_kept: Detections below this score are dropped before they are judged.
      check_seconds: The least time between two checks of the file.
      clock: Returns monotonic seconds.
      name: What these rules are called in the log and, as the first part, in the names of counters.
    """

    def __init__(
        self,
        start: rules.Rules,
        *,
        source: str | None = None,
        labels: frozenset[str] | None = None,
        min_score_kept: float = 0.0,
        check_seconds: float = CHECK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        name: str = RULES,
    ) -> None:
        self._start = start
        self._source = source
        self._labels = labels
        self._min_score_kept = min_score_kept
        self._check_seconds = check_seconds
        self._clock = clock
        self._name = name
        self._prepare()

    def _prepare(self) -> None:
        self._current = self._start
        self._names: tuple[rules.Rules, rules.NameSettings, rules.Names] | None = None
        self._text: bytes | None = None
        self._rejection = ""
        self._next_check = 0.0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        pickled = (
            *("_start", "_source", "_labels", "_min_score_kept"),
            *("_check_seconds", "_clock", "_name"),
        )
        return {name: self.__dict__[name] for name in pickled}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @classmethod
    def of(cls, ruleset: rules.Rules | LiveRules) -> LiveRules:
        """Wraps rules that never change; returns live rules as they are."""
        return ruleset if isinstance(ruleset, LiveRules) else cls(ruleset)

    def accepts(self, camera: str) -> bool:
        """Whether images of a camera are processed (`strict_ids`)."""
        self.refresh()
        return not self._current.strict_ids or self._current.has_camera(camera)

    @property
    def current(self) -> rules.Rules:
        """The rules in force."""
        return self._current

    def refresh(self, *, immediately: bool = False) -> None:
        """Checks the file if a check is due. Called in the bundle's own thread.

        Args:
          immediately: Check it in any case.
        """
        if self._source is None or (self._clock() < self._next_check and not immediately):
            return
        with self._lock:
            self._next_check = self._clock() + self._check_seconds
            try:
                text = stores.read_bytes(self._source)
            except OSError as error:
                self._reject(f"{self._source}: can't be read ({one_line(error)})")
                return
            if text == self._text:
                self._rejection = ""
                return
            self._text, self._rejection = text, ""
            try:
                parsed = rules.parse_rules(text, self._source, labels=self._labels)
            except rules.RulesError as error:
                self._reject(str(error))
                return
            problem = scores_not_kept(parsed, self._min_score_kept)
            if problem is not None:
                self._reject(f"{self._source}: {problem}")
                return
            if parsed.version != self._current.version:
                _LOGGER.warning("%s version %s is now in force", self._name, parsed.version)
                count(f"{self._counter}.taken_up")
                self._current = parsed

    def names(self, default: rules.NameSettings) -> rules.Names:
        """Returns how names are read by the rules in force; see :meth:`rules.Rules.names`."""
        self.refresh()
        known = self._names
        if known is None or known[0] is not self._current or known[1] != default:
            known = self._current, default, self._current.names(default)
            self._names = known
        return known[2]

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Checks the file repeatedly during this block, and at its end.

        This is for the program that has started a stream, which has no bundles. The file alone does
        not say which rules were in force at the end: it may be invalid by then.
        """
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(self._check_seconds):
                self.refresh(immediately=True)

        if self._source is not None:
            threading.Thread(target=follow, name="rules", daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            self.refresh(immediately=True)

    @property
    def _counter(self) -> str:
        return self._name.replace(" ", "_")

    def _reject(self, reason: str) -> None:
        if reason == self._rejection:
            return
        self._rejection = reason
        count(f"{self._counter}.refused")
        _LOGGER.error(
            "%s is rejected, version %s remains in force: %s",
            "the rule file" if self._name == RULES else f"the file of the {self._name}",
            self._current.version,
            reason,
        )
