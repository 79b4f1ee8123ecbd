"""What the routes of the console share."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

import rules
from beam_pipeline.pages import parts
from beam_pipeline.pages.report.page import labels_text
from beam_pipeline.web.access.guarding import COOKIE, Guard
from beam_pipeline.web.access.users import ADMIN, OPERATOR, Person
from beam_pipeline.web.output.following import FleetFollower, Follower, RulesFollower
from beam_pipeline.web.output.index import IncidentFilter, Index
from beam_pipeline.web.output.pictures import Pictures
from beam_pipeline.web.output.proposing import ProposalFinder
from beam_pipeline.web.output.rule_changes import RuleFile
from beam_pipeline.web.output.shadow_comparisons import ShadowComparisons
from beam_pipeline.web.output.trials import Trials
from beam_pipeline.web.pages import views

WEB, REPORT = "beam_pipeline.web", "beam_pipeline.pages.report"
_PER_PAGE = 24
_KEPT_LISTS = 64
_ALIVE_SECONDS = 15.0


class Live:
    """Tells all open pages that something has changed, however many there are."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self.clients = 0
        self.of_person = Counter[str]()

    def attach(self) -> None:
        """Takes the loop that serves the clients. Called in it."""
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()

    def publish(self) -> None:
        """Wakes all clients. Called in any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def next_change(self) -> asyncio.Event:
        """What is set by the next change. Who takes it before reading the state misses none."""
        return self._changed

    async def wait(self, change: asyncio.Event) -> None:
        """Waits for a change, or for some seconds."""
        try:
            await asyncio.wait_for(change.wait(), _ALIVE_SECONDS)
        except asyncio.TimeoutError:
            pass


@dataclass(repr=False)
class Console:
    """What the routes share.

    Attributes:
      output: The output.
      labels: The label map of the command line; None for COCO's.
      index: The index of the output.
      follower: What keeps it up to date.
      fleet: What gathers the fleet.
      rules_file: The rules.
      live: What wakes open pages.
      pictures: The images.
    """

    output: str
    labels: str | None
    index: Index
    follower: Follower
    fleet: FleetFollower
    rules_file: RulesFollower
    live: Live
    pictures: Pictures
    guard: Guard | None = None
    marks: int = 0
    lists: OrderedDict[tuple[object, ...], str] = field(default_factory=OrderedDict)
    lists_lock: threading.Lock = field(default_factory=threading.Lock)
    counted: tuple[tuple[int, int], Mapping[str, int]] | None = None
    numbers_lock: threading.Lock = field(default_factory=threading.Lock)
    charts: dict[datetime, bytes] = field(default_factory=dict)
    charts_lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.templates = parts.environment(WEB, REPORT)
        path, labels = self.rules_file.path, frozenset(self.rules_file.labels)
        self.rule_file = None if path is None else RuleFile(path, self.output, labels)
        self.proposals = (
            None
            if self.rule_file is None
            else ProposalFinder(self.output, self.index, self.rule_file)
        )
        # A store that hangs must not keep the other pages waiting.
        self.picture_threads = ThreadPoolExecutor(8, thread_name_prefix="pictures")
        self.mark_threads = ThreadPoolExecutor(4, thread_name_prefix="marks")
        self.trials = Trials(self.output)
        self.shadow = ShadowComparisons()
        self.trial_threads = ThreadPoolExecutor(2, thread_name_prefix="trials")
        self.trials_at_work = 0

    @property
    def guarded(self) -> Guard:
        """The guard in front of the routes."""
        assert self.guard is not None
        return self.guard

    def stale(self) -> str | None:
        """Returns in words since when the pages are out of date; None if they are not."""
        since = self.follower.stale_since()
        if since is None:
            if self.follower.status.last_success is None and self.follower.status.problem:
                return "The store does not answer. The alerts appear here as soon as it does."
            return None
        return (
            f"Out of date since {since:%Y-%m-%d %H:%M:%S} UTC: the store does not answer. The "
            "console tries again by itself, and nothing is lost."
        )

    def reading(self) -> str | None:
        """Returns in words how much is still to be read; None if the index holds the output."""
        status = self.follower.status
        if self.follower.has_read or status.problem is not None:
            return None
        left = f": {status.left:,} files are left" if status.left else ""
        return f"The output is being read{left}. The newest alerts come first."

    def render(
        self, request: Request, template: str, *, here: str = "", status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Returns a page."""
        return HTMLResponse(
            self.templates.get_template(f"templates/{template}.html").render(
                page=self.page(request, here), **values
            ),
            status,
        )

    def page(self, request: Request, here: str) -> dict[str, Any]:
        """Returns what each page shows besides its own values."""
        person: Person | None = request.state.person
        pages = [("Alerts", "/alerts"), ("Fleet", "/fleet"), ("Health", "/health")]
        if person is not None and self.numbers()["shadow"]:
            pages.append(("Shadow", "/shadow"))
        if person is not None and person.may(ADMIN):
            pages.append(("Audit", "/audit"))
        query = request.scope["query_string"].decode("latin-1")
        return {
            "here": here,
            "version": self.follower.status.version,
            "live": person is not None,
            "pages": pages if person is not None else [],
            "person": person,
            "can_mark": person is not None and person.may(OPERATOR),
            "can_leave": request.cookies.get(COOKIE) and self.guarded.access.users is not None,
            "token": self.guarded.token(request),
            "address": request.scope["path"] + (f"?{query}" if query else ""),
            "stale": self.stale(),
            "reading": self.reading() if person is not None else None,
            "rules_problem": self.rules_file.problem if person is not None else None,
        }

    def error(self, request: Request, status: int, title: str, text: str) -> HTMLResponse:
        """Returns a page that says what is wrong."""
        return self.render(request, "error", status=status, title=title, text=text)

    def list_of(self, chosen: IncidentFilter, before: Any, can_mark: bool) -> tuple[str, Any]:
        """Returns the incidents as HTML, made once for all who look at the same ones."""
        key = self.follower.status.version, chosen, before, can_mark
        page = self.index.incidents(chosen, number=_PER_PAGE, before=before)
        with self.lists_lock:
            kept = self.lists.get(key)
        if kept is None:
            template = self.templates.get_template("templates/list.html")
            kept = template.render(
                incidents=page.incidents, can_mark=can_mark, labels_text=labels_text
            )
            with self.lists_lock:
                self.lists[key] = kept
                while len(self.lists) > _KEPT_LISTS:
                    self.lists.popitem(last=False)
        return kept, page

    def numbers(self) -> Mapping[str, int]:
        """Returns the numbers of the index, which are counted once after each change."""
        with self.numbers_lock:
            key = self.follower.status.version, self.index.generation
            if self.counted is None or self.counted[0] != key:
                self.counted = key, self.index.numbers()
            return self.counted[1]


def known_camera(console: Console, request: Request) -> str:
    """Returns the camera of an address.

    Raises:
      HTTPException: There is no such camera.
    """
    camera = str(request.path_params["camera"])
    ruleset = console.rules_file.ruleset
    if not rules.is_camera_id(camera) or not views.is_known(
        console.index, console.fleet.view, camera, ruleset
    ):
        raise HTTPException(404, "There is no such camera")
    return camera
