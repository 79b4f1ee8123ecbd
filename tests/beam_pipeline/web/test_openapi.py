"""The description of the console's routes is the truth, and no request that it allows fails.

schemathesis makes up requests for each route, as each role, and holds each answer against the
description. `make search ARGS="-k test_openapi" EXAMPLES=1000` tries more of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

import rules
from beam_pipeline.web.guarding import FailureLimit, _needed_role
from beam_pipeline.web.openapi import OPERATIONS, document
from beam_pipeline.web.users import add_token
from tests.beam_pipeline.web.serving import RULES, Served, served, users_file, write_small_output
from tests.search import search
from transforms.alerting.mark_links import MarkLink, sign

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import checks  # noqa: E402

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
    "token": (link(), link("right"), link(until=5)),
    "say": ("false", f"right hall {HALL}", f"missed hall {QUIET}.jpg"),
    "what": (HALL, f"{QUIET}.jpg"),
    "image": (f"{QUIET}.jpg",),
    "label": ("person", "car"),
    "bbox": ("0.1,0.2,0.05,0.3",),
    "mark": ("false", "missed"),
    "size": ("full",),
    "from": ("2026-01-31T12:00",),
    "since": ("2026-01-31T12:00",),
    "next": ("/fleet",),
}
"""What the output holds: schemathesis does not guess it."""


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


def mixed(values: Any, draw: Callable[[Any], Any]) -> Any:
    """Puts what is in the output in place of some of the values."""
    if not isinstance(values, Mapping):
        return values
    return {
        name: draw(st.sampled_from(KNOWN[name])) if name in KNOWN and draw(st.booleans()) else value
        for name, value in values.items()
    }


@pytest.mark.search
@pytest.mark.parametrize("role", ROLES)
def test_no_request_of_a_role_fails_and_each_answer_is_as_described(
    console: Console, role: str
) -> None:
    schema = schemathesis.openapi.from_dict(orjson.loads(document()))
    for result in schema.get_all_operations():
        operation = result.ok()
        name = f"{operation.method.upper()} {operation.path}"
        if name != ENDLESS and (role != "program" or name == "POST /api/marks"):
            try_operation(console, role, name, operation)


def try_operation(console: Console, role: str, name: str, operation: Any) -> None:
    guard = console.here.prepared.console.guarded
    guard.failures, guard.token_failures = FailureLimit(), FailureLimit()
    cookies, csrf = console.sessions.get(role, ({}, ""))
    headers = {"Authorization": f"Bearer {console.token}"} if role == "program" else {}
    session = requests.Session()

    @search(60 if role == "program" else 6)
    @given(operation.as_strategy(), st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        case.path_parameters = mixed(case.path_parameters, data.draw)
        case.query = mixed(case.query, data.draw)
        case.body = mixed(case.body, data.draw)
        if csrf and isinstance(case.body, dict) and name != "POST /logout":
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
