"""The rules in force: those of the start, or, in a stream, the rule file's as it is edited.

Every worker looks at the file for itself, so after an edit some pictures are judged by the old
rules and some by the new for the length of one look; each verdict names the version it was judged
by. A file that can't be read or is wrong changes nothing: the last good rules stay in force.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import rules
from transforms import stores
from transforms.counters import count
from transforms.text import one_line

_LOGGER = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 15.0


class LiveRules:
    """Rules that may change while the job runs.

    Args:
      start: The rules that were found good before the job started.
      source: The rule file to look at, on any filesystem; None: the rules never change.
      labels: Names that the model can give; None: any.
      seconds_between_looks: The least time between two looks at the file.
      clock: Gives seconds that only grow.
    """

    def __init__(
        self,
        start: rules.Rules,
        *,
        source: str | None = None,
        labels: frozenset[str] | None = None,
        seconds_between_looks: float = SECONDS_BETWEEN_LOOKS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._source = source
        self._labels = labels
        self._pause = seconds_between_looks
        self._clock = clock
        self._prepare()

    def _prepare(self) -> None:
        self._now = self._start
        self._text: bytes | None = None
        self._next_look = 0.0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        kept = ("_start", "_source", "_labels", "_pause", "_clock")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @classmethod
    def of(cls, by: rules.Rules | LiveRules) -> LiveRules:
        """Rules that never change, where they aren't live ones already."""
        return by if isinstance(by, LiveRules) else cls(by)

    def takes(self, camera: str) -> bool:
        """Whether pictures of a camera are looked at at all (`strict_ids`)."""
        self.refresh()
        return not self._now.strict_ids or self._now.knows(camera)

    @property
    def now(self) -> rules.Rules:
        """The rules in force."""
        return self._now

    def refresh(self) -> None:
        """Looks at the file, where it is time to. Called in a bundle's own thread."""
        if self._source is None or self._clock() < self._next_look:
            return
        with self._lock:
            self._next_look = self._clock() + self._pause
            try:
                text = stores.read_bytes(self._source)
            except Exception as error:  # Each store's client has its own kinds of error.
                self._refuse(f"{self._source}: can't be read ({one_line(error)})")
                return
            if text == self._text:
                return
            self._text = text
            try:
                found = rules.parse_rules(text, self._source, labels=self._labels)
            except rules.RulesError as error:
                self._refuse(str(error))
                return
            if found.version != self._now.version:
                _LOGGER.warning("rules version %s is in force from now on", found.version)
                count("rules.taken_up")
                self._now = found

    def _refuse(self, why: str) -> None:
        count("rules.refused")
        _LOGGER.error("the rule file is refused, version %s stays: %s", self._now.version, why)
