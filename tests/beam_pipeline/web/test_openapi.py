"""The description of the console's routes is the truth, and no request that it allows fails.

schemathesis makes up requests for each route, as each role, and holds each answer against the
description. With `CONSOLE_EXAMPLES=300` it makes up as many for each route and role, other ones in
each run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from starlette.routing import Route

import rules
from beam_pipeline.web.access.guarding import FailureLimit, _needed_role
from beam_pipeline.web.access.users import add_token
from beam_pipeline.web.pages.openapi import OPERATIONS, document
from tests.beam_pipeline.web.serving import (
    PASSWORD,
    RULES,
    Served,
    served,
    users_file,
    write_small_output,
)
from transforms.alerting.mark_links import MarkLink, sign

ASKED = int(os.environ.get("CONSOLE_EXAMPLES", "0"))
KEY = "k" * 32
HALL = rules.alert_id("hall", "2026-01-31T10:00:00Z", "alert")
QUIET = "hall_2026-01-31T12-30-00Z"
LINKED = RULES + 'console: {url: "https://console.example.com", key: "${MARK_KEY}"}\n'
ROLES = ("nobody", "viewer", "operator", "admin", "program")
ENDLESS = "GET /live"
"""A stream of events has no end; test_guarding.py tries it."""
checks.load_all_checks()
CHECKS = checks.CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    ]
)


def link(mark: str = "false", until: int = 4_000_000_000) -> str:
    return sign(KEY, MarkLink("hall", HALL, mark, "mail (link)", until))


KNOWN: Mapping[str, tuple[str, ...]] = {
    "camera": ("hall", "gate"),
    "alert_id": (HALL,),
    "stem": (QUIET, "hall_2026-01-31T10-00-00Z"),
    "name": ("console.js", "console.css", "icon.svg"),
    "token": (link(), link("right")),
}
BODIES: Mapping[str, dict[str, Any]] = {
    "POST /marks": {"say": "right", "camera": "hall", "what": HALL, "label": "", "bbox": "",
                    "note": "a coat", "next": "/fleet"},
    "POST /api/marks": {"alert_id": HALL, "mark": "false", "note": "a coat"},
    "POST /login": {"name": "viewer", "password": PASSWORD},
    "POST /cameras/{camera}/zones/try": {"section": "zones", "anchor": "center", "days": "1",
                                         "name": "door", "min_overlap": "0.5", "about": "",
                                         "corners": "0.1,0.1 0.9,0.1 0.9,0.9"},
}  # fmt: skip
"""What the output holds, and what fits it: schemathesis does not guess it."""
DONE = {
    "GET /login": ("nobody", 200),
    "POST /login": ("nobody", 303),
    "POST /marks": ("operator", 200, 303),
    "POST /cameras/{camera}/zones/try": ("operator", 200, 422),
    "POST /m/{token}": ("nobody", 303),
    "POST /api/marks": ("program", 201),
    # A proposal, or a version from before, is none that somebody could guess.
    "POST /cameras/{camera}/proposals": ("admin", 409),
    "POST /rules/restore": ("admin", 409),
    "GET /rules/changes/{name}": ("admin", 404),
    # Nor the token of a form that is no form of this page.
    "POST /cameras/{camera}/zones": ("admin", 400),
    "POST /logout": ("viewer", 403),
    "GET /": ("viewer", 303),
}
"""Who gets which answer at best; an admin and 200 where nothing is said."""


@dataclass
class Console:
    """A console, and who asks.

    Attributes:
      here: The console.
      sessions: The session of each role, and what its forms hold.
      token: The token of the program.
      statuses: How often each status was answered, by role and operation.
    """

    here: Served
    sessions: Mapping[str, tuple[dict[str, str], str]]
    token: str
    statuses: Counter[tuple[str, str, int]] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("openapi")
    write_small_output(folder / "out")
    (folder / "rules.yaml").write_text(LINKED)
    users = users_file(folder / "users.json")
    token = add_token(str(users), "door-bot")
    words = ("--rules", folder / "rules.yaml", "--users", users)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARK_KEY", KEY)
        with served(folder / "out", folder / "index", *words) as here:
            sessions = {}
            for role in ROLES[1:4]:
                browser = here.logged_in(role)
                sessions[role] = (dict(browser.session.cookies), browser.token())
            yield Console(here, sessions, token)


def test_the_description_has_every_route_and_no_other(console: Console) -> None:
    app = console.here.prepared.console.guarded._app
    routes = {
        f"{method} {route.path}"
        for route in app.routes  # type: ignore[attr-defined]
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert set(OPERATIONS) == routes


def test_the_description_names_the_roles_that_the_guard_asks_for() -> None:
    for name, operation in OPERATIONS.items():
        method, path = name.split(" ")
        assert operation.role == _needed_role(method, path), name


def test_the_description_is_served(console: Console) -> None:
    answer = requests.get(f"{console.here.url}/openapi.json", timeout=20)
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == document()
    assert answer.json()["openapi"] == "3.1.0"


@pytest.mark.parametrize("role", ROLES)
def test_no_request_of_a_role_fails_and_each_answer_is_as_described(
    console: Console, role: str
) -> None:
    schema = schemathesis.openapi.from_dict(orjson.loads(document()))
    for result in schema.get_all_operations():
        operation = result.ok()
        name = f"{operation.method.upper()} {operation.path}"
        if name != ENDLESS and (role != "program" or name == "POST /api/marks"):
            try_operation(console, role, name, operation, fits=True, examples=1)
            try_operation(
                console, role, name, operation, fits=False, examples=30 if role == "program" else 3
            )
            best, *statuses = DONE.get(name, ("admin", 200))
            if role == best:
                assert any(console.statuses[role, name, status] for status in statuses), name


def try_operation(
    console: Console, role: str, name: str, operation: Any, *, fits: bool, examples: int
) -> None:
    """Tries a route.

    Args:
      console: The console.
      role: Who asks.
      name: The route.
      operation: The route, for schemathesis.
      fits: Whether to ask for what is in the output, and to send what fits it.
      examples: How many requests.
    """
    guard = console.here.prepared.console.guarded
    guard.failures, guard.token_failures = FailureLimit(), FailureLimit()
    cookies, csrf = console.sessions.get(role, ({}, ""))
    headers = {"Authorization": f"Bearer {console.token}"} if role == "program" else {}
    session = requests.Session()

    @settings(
        max_examples=ASKED or examples, deadline=None, database=None, derandomize=not ASKED,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy(), st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        if fits:
            for part in case.path_parameters or {}:
                case.path_parameters[part] = data.draw(st.sampled_from(KNOWN[part]))
            if name in BODIES:
                case.body = dict(BODIES[name])
            if "image" in name:
                case.query = {}
        if csrf and isinstance(case.body, dict) and name not in ("POST /logout", "POST /api/marks"):
            case.body["token"] = csrf
        case.cookies = {}
        answer = case.call(
            base_url=console.here.url, session=session, cookies=cookies, headers=headers,
            allow_redirects=False, timeout=20,
        )  # fmt: skip
        console.statuses[role, name, answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    with session:
        ask()
