"""Finds what would silence the false alerts of a camera, beside the pages, and keeps it a while.

To judge the images of a camera by each proposal can take minutes, so a page waits only some seconds
for it, and shows it at the next look. What was found is kept until the rules, the marks or the
alerts of the camera change.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import rules
from beam_pipeline.evaluation.mark_facts import facts_of
from beam_pipeline.evaluation.proposing import Findings, Proposal, propose
from beam_pipeline.web.output.index import Index
from beam_pipeline.web.output.rule_changes import BrokenRulesError, RuleFile, RuleText
from transforms.backtest import look_back
from transforms.records.images import DetectedImage
from transforms.records.times import from_unix, parse_time
from transforms.storage.archive import ArchiveError, open_archive
from transforms.storage.marks import Mark

DAYS = 30
"""So many days before the last mark or alert of the camera count."""
MOST_IMAGES = 10_000
"""Of more, the newest count."""
_KEPT = 32
_KEPT_SECONDS = 300.0
_MOST_AT_WORK = 8


class BusyError(Exception):
    """Proposals for too many cameras are being looked for."""


@dataclass(frozen=True)
class State:
    """What proposals for a camera depend on.

    Attributes:
      camera: The camera.
      text: The rule file.
      marks: The marks of the camera, the oldest first.
      last_alert: The Unix time of its last alert; None if there is none.
    """

    camera: str
    text: RuleText
    marks: tuple[Mark, ...]
    last_alert: float | None

    @property
    def key(self) -> tuple[object, ...]:
        """What differs wherever something else may be found."""
        said = hashlib.sha256(repr(self.marks).encode("utf-8", "replace")).digest()
        return self.camera, self.text.sha256, said, self.last_alert


@dataclass(frozen=True)
class Found:
    """What was found for a camera.

    Attributes:
      state: For which rules and marks.
      findings: The proposals, or why there is none.
      diffs: What each proposal changes in the rule file, as a unified diff.
      stems: The names of the images that the proposals name by their capture times.
      since: From which time (UTC) images count; None if no image was judged.
      images: How many count.
      unread: How many could not be read.
    """

    state: State
    findings: Findings
    diffs: tuple[str, ...] = ()
    stems: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    images: int = 0
    unread: int = 0

    def proposal(self, digest: str) -> Proposal | None:
        """Returns the proposal with a digest, see `digest_of`; None if there is none."""
        return next((one for one in self.findings.proposals if digest_of(one) == digest), None)


def digest_of(proposal: Proposal) -> str:
    """Returns what a form names a proposal by."""
    return hashlib.sha256(repr(proposal.changes).encode()).hexdigest()[:16]


class ProposalFinder:
    """Finds proposals in threads of its own. Thread-safe.

    Args:
      output: The output.
      index: Its index.
      rule_file: The rules.
    """

    def __init__(self, output: str, index: Index, rule_file: RuleFile) -> None:
        self._output = output
        self._index = index
        self._rule_file = rule_file
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="proposals")
        self._kept: OrderedDict[tuple[object, ...], tuple[float, Found]] = OrderedDict()
        self._at_work: dict[tuple[object, ...], Future[Found]] = {}
        self._lock = threading.Lock()

    def state(self, camera: str) -> State:
        """Returns what the proposals for a camera depend on now.

        Raises:
          BrokenRulesError: The rule file can't be used.
        """
        return State(
            camera,
            self._rule_file.read(),
            tuple(self._index.marks_of_camera(camera)),
            self._index.last_alert(camera),
        )

    def begin(self, state: State) -> Future[Found]:
        """Looks for proposals, unless they are known or looked for already.

        Raises:
          BusyError: Too much is being looked for.
        """
        key, now = state.key, time.monotonic()
        with self._lock:
            known = self._kept.get(key)
            if known is not None and now - known[0] < _KEPT_SECONDS:
                done: Future[Found] = Future()
                done.set_result(known[1])
                return done
            if key not in self._at_work:
                if len(self._at_work) >= _MOST_AT_WORK:
                    raise BusyError
                self._at_work[key] = self._threads.submit(self._find_and_keep, key, state)
            return self._at_work[key]

    def _find_and_keep(self, key: tuple[object, ...], state: State) -> Found:
        try:
            found = self._find(state)
        finally:
            with self._lock:
                del self._at_work[key]
        with self._lock:
            self._kept[key] = time.monotonic(), found
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _find(self, state: State) -> Found:
        """Looks for proposals.

        Raises:
          OSError: The store can't be read.
        """
        camera, text = state.camera, state.text.text
        facts = facts_of(state.marks)
        times = [parse_time(mark.timestamp) for mark in state.marks]
        if not times:
            return Found(state, propose([], facts, text, self._rule_file.path, camera))
        if state.last_alert is not None:
            times.append(from_unix(state.last_alert))
        since = _earlier(max(times), timedelta(days=DAYS))
        ruleset = rules.parse_rules(text.encode(), self._rule_file.path)
        looks_back = look_back(ruleset, camera)
        try:
            archive = open_archive(self._output)
        except ArchiveError as error:
            raise OSError(str(error)) from None
        images: deque[DetectedImage] = deque()
        for one in archive.images(camera, _earlier(since, looks_back)):
            images.append(one.image)
            if len(images) > MOST_IMAGES + 1:
                images.popleft()
        if len(images) > MOST_IMAGES:
            images.popleft()
            since = max(since, parse_time(images[0].timestamp) + looks_back)
        findings = propose(images, facts, text, self._rule_file.path, camera, since=since)
        named = {
            time
            for one in findings.proposals
            for times in (
                *(one.effect.false_gone, one.effect.right_lost, one.effect.others_lost),
                one.effect.gained,
            )
            for time in times
        }
        return Found(
            state,
            findings,
            tuple(self._diff(text, one) for one in findings.proposals),
            {image.timestamp: image.stem for image in images if image.timestamp in named},
            since,
            sum(parse_time(image.timestamp) >= since for image in images),
            len(archive.problems),
        )

    def _diff(self, text: str, proposal: Proposal) -> str:
        try:
            changed = self._rule_file.with_settings(text, proposal.changes)
        except BrokenRulesError as error:
            return str(error)
        return self._rule_file.difference(text, changed)


def _earlier(time: datetime, by: timedelta) -> datetime:
    return time - min(by, time - datetime.min.replace(tzinfo=timezone.utc))
