"""Who may do what in the console, and what a browser may do with its pages."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from argon2 import PasswordHasher
from starlette.routing import Route

import rules
from beam_pipeline import cli
from beam_pipeline.web.access.guarding import FailureLimit, Sessions
from beam_pipeline.web.access.users import Users, add_user, remove_user
from tests.beam_pipeline.conftest import refused
from tests.beam_pipeline.web.serving import (
    PASSWORD,
    RULES,
    Browser,
    Served,
    served,
    users_file,
    write_small_output,
)
from transforms.storage.marks import read_marks

HALL = rules.alert_id("hall", "2026-01-31T10:00:00Z", "alert")
QUIET = "hall_2026-01-31T12-30-00Z"
AREA = {
    "section": "zones", "name": "bay", "is_new": "1", "anchor": "center", "days": "7",
    "corners": "0,0 1,0 1,1",
}  # fmt: skip
FORM = {"say": f"unsure hall {HALL}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The console of a small output, with a user of each role."""
    folder = tmp_path_factory.mktemp("guarded")
    write_small_output(folder / "out")
    users = users_file(folder / "users.json")
    (folder / "rules.yaml").write_text(RULES)
    options = ("--users", users, "--rules", folder / "rules.yaml")
    with served(folder / "out", folder / "index", *options) as here:
        yield here


# Every route as each role

TABLE = {
    # The status for nobody, a viewer, an operator and an admin.
    "GET /": (303, 303, 303, 303),
    "GET /alerts": (303, 200, 200, 200),
    "GET /alerts/list": (401, 200, 200, 200),
    f"GET /alerts/{HALL}": (303, 200, 200, 200),
    "GET /cameras/hall": (303, 200, 200, 200),
    "GET /cameras/hall/images": (303, 200, 200, 200),
    f"GET /cameras/hall/images/{QUIET}": (303, 200, 200, 200),
    "GET /cameras/hall/zones": (303, 200, 200, 200),
    "POST /cameras/hall/zones/try": (401, 403, 200, 200),
    "POST /cameras/hall/zones": (401, 403, 403, 409),
    f"GET /images/hall/{QUIET}": (401, 200, 200, 200),
    "GET /cameras/hall/proposals": (303, 200, 200, 200),
    "POST /cameras/hall/proposals": (401, 403, 403, 409),
    "GET /rules/changes": (303, 403, 403, 200),
    "GET /rules/changes/console.js": (303, 403, 403, 404),
    "POST /rules/restore": (401, 403, 403, 409),
    "GET /fleet": (303, 200, 200, 200),
    "GET /fleet/chart.svg": (401, 200, 200, 200),
    "GET /health": (303, 200, 200, 200),
    "GET /shadow": (303, 200, 200, 200),
    "GET /audit": (303, 403, 403, 200),
    "POST /marks": (401, 403, 303, 303),
    "POST /api/marks": (401, 401, 401, 401),  # A cookie never authorises it.
    "GET /m/no-link": (404, 404, 404, 404),
    "POST /m/no-link": (404, 404, 404, 404),
    "GET /live": (401, 200, 200, 200),
    "GET /login": (200, 303, 303, 303),
    "POST /login": (303, 303, 303, 303),
    "POST /logout": (401, 303, 303, 303),
    "GET /healthz": (200, 200, 200, 200),
    "GET /readyz": (200, 200, 200, 200),
    "GET /metrics": (200, 200, 200, 200),
    "GET /openapi.json": (200, 200, 200, 200),
    "GET /static/console.js": (200, 200, 200, 200),
    "GET /no-such-page": (401, 404, 404, 404),
    "GET /marks": (401, 405, 405, 405),
    "DELETE /alerts": (401, 405, 405, 405),
    "OPTIONS /alerts": (401, 405, 405, 405),
}
ROLES = ("nobody", "viewer", "operator", "admin")


def asked(browser: Browser, request: str) -> requests.Response:
    method, path = request.split(" ")
    if method == "POST":
        form = {
            "POST /marks": FORM,
            "POST /login": {"name": "viewer", "password": PASSWORD},
            "POST /cameras/hall/zones": AREA,
            "POST /cameras/hall/zones/try": AREA,
        }
        return browser.post(path, {"token": browser.token(), **form.get(request, {})})
    with browser.session.request(
        method, browser.url + path, timeout=20, allow_redirects=False, stream=True
    ) as answer:
        if path != "/live":
            assert answer.content is not None
        return answer


@pytest.mark.parametrize("role", ROLES)
def test_each_role_reaches_what_it_may_and_nothing_else(guarded: Served, role: str) -> None:
    browser = guarded.browser() if role == "nobody" else guarded.logged_in(role)
    if role == "viewer":  # Its pages have no such form.
        assert 'action="/marks"' not in browser.get(f"/alerts/{HALL}").text
    for request, statuses in TABLE.items():
        if request in ("POST /login", "POST /logout"):
            is_nobody = role == "nobody"
            answer = asked(guarded.browser() if is_nobody else guarded.logged_in(role), request)
        else:
            answer = asked(browser, request)
        assert answer.status_code == statuses[ROLES.index(role)], request
        if role == "nobody" and answer.status_code == 303 and request != "POST /login":
            assert answer.headers["location"].startswith("/login?next=%2F"), request


def test_the_table_has_every_route(guarded: Served) -> None:
    app = guarded.prepared.console.guarded._app
    routes = {
        f"{method} {route.path}"
        for route in app.routes  # type: ignore[attr-defined]
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    tried = {
        request.replace(HALL, "{alert_id}").replace("hall", "{camera}", 1)
        .replace("{camera}_", "hall_").replace(QUIET, "{stem}").replace("console.js", "{name}")
        .replace("no-link", "{token}")
        for request in TABLE
    }  # fmt: skip
    assert routes - tried == set()


def test_a_write_needs_the_token_of_the_same_session(guarded: Served) -> None:
    browser, other = guarded.logged_in("operator"), guarded.logged_in("operator")
    for token in (None, "", "0" * 64, other.token(), "\u00e9"):
        form = FORM if token is None else {**FORM, "token": token}
        assert browser.post("/marks", form).status_code == 403
    token = browser.token()
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = browser.post("/marks", {**FORM, "token": token}, headers=headers)
        assert answer.status_code == 403, headers
    for headers in ({"Origin": browser.url}, {"Sec-Fetch-Site": "same-origin"}):
        answer = browser.post("/marks", {**FORM, "token": token}, headers=headers)
        assert answer.status_code == 303, headers
    json_form = browser.session.post(
        f"{browser.url}/marks", json={**FORM, "token": token}, timeout=20
    )
    assert json_form.status_code == 415


def test_every_answer_has_the_headers(guarded: Served) -> None:
    browser = guarded.logged_in("admin")
    for request in TABLE:
        if request.startswith("GET"):
            headers = asked(browser, request).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            if request != "GET /fleet/chart.svg":
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "same-origin"
            assert "server" not in headers
            kept = headers["cache-control"]
            may_be_kept = "/static/" in request or "/images/hall/hall" in request
            assert kept != "no-store" if may_be_kept and "cameras" not in request else True
            if not may_be_kept:
                assert kept == "no-store", request


def test_no_page_holds_a_script_or_a_style_of_its_own(guarded: Served) -> None:
    browser = guarded.logged_in("admin")
    for request in TABLE:
        if request.startswith("GET") and "." not in request:
            text = asked(browser, request).text if "live" not in request else ""
            assert not re.search(r"<script(?! src=)|<style| style=| on\w+=|javascript:", text)


# Log-in


def test_a_log_in_leads_back_to_the_page_and_its_cookie_is_safe(guarded: Served) -> None:
    browser = guarded.browser()
    to = browser.get("/fleet?x=1").headers["location"]
    assert to == "/login?next=%2Ffleet%3Fx%3D1"
    page = browser.get(to)
    assert 'name="next" value="/fleet?x=1"' in page.text
    form = {"name": "viewer", "password": PASSWORD, "next": "/fleet?x=1"}
    answer = browser.post("/login", form)
    assert answer.headers["location"] == "/fleet?x=1"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert browser.get("/fleet").status_code == 200
    for hostile in ("//evil.example", "https://evil.example", "/\\evil.example", "/\nx", "x"):
        assert guarded.browser().post("/login", {**form, "next": hostile}).headers["location"] == (
            "/alerts"
        )


def test_a_log_out_ends_the_session_for_good(guarded: Served) -> None:
    browser = guarded.logged_in("viewer")
    cookies = browser.session.cookies.copy()
    assert browser.post("/logout", {"token": "0" * 64}).status_code == 403
    assert browser.get("/alerts").status_code == 200
    assert browser.post("/logout", {"token": browser.token("/alerts")}).status_code == 303
    browser.session.cookies = cookies  # A copy of the cookie is of no use.
    assert browser.get("/alerts").status_code == 303


def test_wrong_passwords_are_limited_by_name_and_address(tmp_path: Path) -> None:
    write_small_output(tmp_path / "out")
    users = users_file(tmp_path / "users.json")
    with served(tmp_path / "out", tmp_path / "index", "--users", users) as here:
        browser = here.browser()
        for password in ("", "wrong", PASSWORD + "x", PASSWORD.upper(), "x" * 900):
            answer = browser.log_in("viewer", password)
            assert answer.status_code == 403
            assert "The name or the password is wrong." in answer.text
        limited = browser.log_in("viewer", PASSWORD)
        assert limited.status_code == 429
        assert 800 < int(limited.headers["retry-after"]) <= 901
        assert "Try again in 15 minutes." in limited.text
        assert browser.log_in("operator", PASSWORD).status_code == 303
        # A page of another site can't log somebody in under its own name.
        form = {"name": "operator", "password": PASSWORD}
        headers = {"Origin": "https://evil.example"}
        assert here.browser().post("/login", form, headers=headers).status_code == 403


def test_failures_are_forgotten_after_a_while_and_bounded() -> None:
    now = [1000.0]
    limit = FailureLimit(lambda: now[0])
    for _ in range(5):
        assert limit.wait_seconds("a", "anna") == 0
        limit.note_failure("a", "anna")
        now[0] += 60
    assert limit.wait_seconds("a", "anna") == 601
    assert limit.wait_seconds("b", "anna") == 0
    assert limit.wait_seconds("a", "ben") == 0
    now[0] += 601
    assert limit.wait_seconds("a", "anna") == 0
    for number in range(100):  # Many people behind one address who log in.
        limit.note_failure("c", f"name {number}")
        limit.note_success("c", f"name {number}")
    assert limit.wait_seconds("c", "another") == 0
    for number in range(30):
        limit.note_failure("c", f"name {number}")
    assert limit.wait_seconds("c", "another") > 0
    for number in range(22_000):
        limit.note_failure(f"address {number}", "x")
        now[0] += 1
    assert len(limit._failures) < 21_000


def test_a_session_ends_after_half_a_day_and_old_ones_go() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.begin("anna", "p")
    now[0] = 12 * 3600 - 1
    assert sessions.find(first) == ("anna", "p")
    now[0] += 2
    assert sessions.find(first) is None
    several = [sessions.begin("anna", "p") for _ in range(25)]
    assert [sessions.find(one) for one in several] == [None] * 5 + [("anna", "p")] * 20
    assert first not in str(vars(sessions))
    assert several[-1] not in str(vars(sessions))


# Users


def test_a_user_who_is_removed_or_changed_is_out_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_output(tmp_path / "out")
    users = users_file(tmp_path / "users.json")
    with served(tmp_path / "out", tmp_path / "index", "--users", users) as here:
        operator, admin = here.logged_in("operator"), here.logged_in("admin")
        add_user(str(users), "operator", "viewer", PASSWORD)
        assert operator.get("/alerts").status_code == 303
        assert operator.log_in("operator").status_code == 303
        assert operator.get("/alerts").status_code == 200
        assert operator.post("/marks", {**FORM, "token": operator.token()}).status_code == 403
        assert cli.main(["serve", "users", "remove", "admin", "--users", str(users)]) == 0
        assert admin.get("/alerts").status_code == 303
        # Somebody else of the same name does not take over the session.
        add_user(str(users), "admin", "admin", "another password")
        assert admin.get("/alerts").status_code == 303
        # A password that was stolen is changed: its session ends, and that of nobody else.
        admin.log_in("admin", "another password")
        add_user(str(users), "operator", "viewer", "a second password")
        assert operator.get("/alerts").status_code == 303
        assert admin.get("/alerts").status_code == 200
        operator.log_in("operator", "a second password")
        assert operator.get("/alerts").status_code == 200
        users.unlink()
        assert operator.get("/alerts").status_code == 303


def test_users_are_added_listed_and_removed_and_no_password_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    file = tmp_path / "users.json"
    for name, role in (("anna", "admin"), ("ben", "viewer"), ("anna", "operator")):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
        words = ["serve", "users", "add", name, "--role", role, "--users", str(file)]
        assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"added anna, admin, in {file}",
        f"added ben, viewer, in {file}",
        f"changed anna, operator, in {file}",
    ]
    text = file.read_text()
    assert PASSWORD not in text
    assert json.loads(text)["users"]["anna"]["password"].startswith("$argon2id$")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert cli.main(["serve", "users", "list", "--users", str(file)]) == 0
    assert capsys.readouterr().out == "anna  operator\nben  viewer\n"
    users = Users(str(file))
    assert users.check("anna", PASSWORD)
    assert not users.check("anna", PASSWORD[:-1])
    assert not users.check("nobody", PASSWORD)
    assert not users.check("nobody", "nobody has this password")
    assert cli.main(["serve", "users", "remove", "ben", "--users", str(file)]) == 0
    assert users.names() == {"anna": "operator"}


def test_a_changed_file_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    add_user(str(file), "anna", "admin", PASSWORD)
    owner = 12345 if os.getuid() == 0 else os.getuid()
    os.chown(file, owner, -1)
    file.chmod(0o640)
    add_user(str(file), "ben", "viewer", PASSWORD)
    status = file.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (owner, 0o640)
    assert set(Users(str(file)).names()) == {"anna", "ben"}
    assert [path.name for path in tmp_path.iterdir()] == ["users.json"]


def test_a_file_that_is_left_over_gives_others_no_access(tmp_path: Path) -> None:
    left = tmp_path / "users.json.partial"
    left.touch(0o644)
    left.chmod(0o644)
    add_user(str(tmp_path / "users.json"), "anna", "admin", PASSWORD)
    assert stat.S_IMODE((tmp_path / "users.json").stat().st_mode) == 0o600


def test_a_link_to_the_users_stays_one(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    link = tmp_path / "users.json"
    link.symlink_to("kept/users.json")
    for name in ("anna", "ben"):
        add_user(str(link), name, "admin", PASSWORD)
    assert link.is_symlink()
    assert set(Users(str(tmp_path / "kept" / "users.json")).names()) == {"anna", "ben"}
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["users.json"]


def test_users_who_are_added_and_removed_at_once_are_all_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "users.json")
    fast = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("beam_pipeline.web.access.users._HASHER", fast)
    add_user(file, "gone", "viewer", PASSWORD)

    def change(number: int) -> None:
        if number == 7:
            remove_user(file, "gone")
        else:
            add_user(file, f"user {number}", "viewer", PASSWORD)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(40)))
    assert set(Users(file).names()) == {f"user {number}" for number in range(40) if number != 7}


def test_an_open_page_learns_nothing_after_its_person_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_pipeline.web.pages.console._ALIVE_SECONDS", 0.2)
    monkeypatch.setattr("beam_pipeline.web.app._STREAMS_OF_ONE", 2)
    write_small_output(tmp_path / "out")
    users = users_file(tmp_path / "users.json")
    with served(tmp_path / "out", tmp_path / "index", "--users", users) as here:
        live = here.prepared.console.live
        viewer, operator = here.logged_in("viewer"), here.logged_in("operator")
        streams = [viewer.get("/live", stream=True) for _ in range(2)]
        here.until(lambda: live.of_person["viewer"] == 2)
        # One person can't keep all connections.
        assert viewer.get("/live", stream=True).status_code == 429
        other = operator.get("/live", stream=True)
        assert other.status_code == 200
        remove_user(str(users), "viewer")
        for stream in streams:
            assert stream.text.count("event: state") >= 1  # It has an end.
        here.until(lambda: dict(live.of_person) == {"operator": 1})
        assert operator.post("/logout", {"token": operator.token()}).status_code == 303
        assert other.text.endswith("\n\n")
        here.until(lambda: live.clients == 0 and not live.of_person)


def test_a_wrong_password_is_logged_without_what_was_typed(
    guarded: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("viewer", "pass\nword of anna"):
        assert guarded.browser().log_in(name, "wrong horse").status_code == 403
    assert [record.message for record in caplog.records] == [
        "a wrong password for the user viewer came from 127.0.0.1",
        "a wrong password for a name of no user came from 127.0.0.1",
    ]


def test_a_proxy_that_is_not_trusted_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_small_output(tmp_path / "out")
    words = ("--users", users_file(tmp_path / "users.json"), "--trusted_proxy", "10.0.0.0/8")
    with served(tmp_path / "out", tmp_path / "index", *words) as here:
        for _ in range(2):
            form = {"name": "viewer", "password": PASSWORD}
            headers = {"X-Forwarded-For": "203.0.113.7"}
            here.browser().post("/login", form, headers=headers)
    (warning,) = (record.message for record in caplog.records)
    assert "a request from 127.0.0.1 has the header X-Forwarded-For" in warning
    assert "--trusted_proxy" in warning


@pytest.mark.parametrize(
    ("words", "password", "says"),
    [
        (("add", "anna", "--role", "viewer"), "short", "the password has 5 characters; give 10"),
        (("add", "anna", "--role", "viewer"), "x", "the password has 1 character; give 10"),
        (("add", "anna", "--role", "viewer"), "x" * 1001, "1,000 at most"),
        (("add", " anna", "--role", "viewer"), PASSWORD, "no name of a user"),
        (("add", "a\nb", "--role", "viewer"), PASSWORD, "no name of a user"),
        (("add", "x" * 101, "--role", "viewer"), PASSWORD, "no name of a user"),
        (("add", "anna", "--role", "owner"), PASSWORD, "invalid choice: 'owner'"),
        (("add", "anna"), PASSWORD, "--role"),
        (("remove", "anna"), "", "no such user"),
        (("list",), "", "serve users add NAME"),
        ((), "", "required: command"),
    ],
)
def test_a_wrong_user_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], password: str, says: str,
) -> None:  # fmt: skip
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(password))
    file = ("--users", tmp_path / "users.json") if words else ()
    assert says in refused(capsys, "serve", "users", *words, *file)
    assert not (tmp_path / "users.json").exists()


def test_a_person_at_a_terminal_gives_the_password_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    words = ["serve", "users", "add", "anna", "--role", "admin", "--users"]
    given = [PASSWORD, PASSWORD + "x", PASSWORD, PASSWORD]
    monkeypatch.setattr("getpass.getpass", lambda _: given.pop(0))
    assert "the passwords differ" in refused(capsys, *words, tmp_path / "users.json")
    assert cli.main([*words, str(tmp_path / "users.json")]) == 0
    assert given == []


# Behind a proxy


def test_a_proxy_names_the_person_and_no_other_address_can(tmp_path: Path) -> None:
    write_small_output(tmp_path / "out")
    users = users_file(tmp_path / "users.json")
    words = ("--trusted_header", "X-User", "--users", users)
    with served(tmp_path / "out", tmp_path / "index", *words) as here:
        browser = here.browser()
        assert browser.get("/alerts").status_code == 303  # The users can still log in.
        stranger = browser.get("/alerts", headers={"X-User": "stranger"})
        assert stranger.status_code == 200
        assert "<bdi>stranger</bdi>" in stranger.text
        assert 'id="marking"' not in stranger.text
        known = browser.get("/audit", headers={"X-User": "admin", "X-Forwarded-Proto": "https"})
        assert known.status_code == 200
        assert "strict-transport-security" in known.headers
        browser.session.headers["X-User"] = "operator"
        assert browser.mark("right", "hall", HALL).status_code == 303
        assert read_marks(str(tmp_path / "out"))[0][0].by == "operator"
        # Behind HTTPS the cookie is sent by HTTPS only.
        del browser.session.headers["X-User"]
        form = {"name": "viewer", "password": PASSWORD}
        answer = browser.post("/login", form, headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in answer.headers["set-cookie"]
    words = ("--trusted_header", "X-User", "--trusted_proxy", "10.0.0.0/8")
    with served(tmp_path / "out", tmp_path / "index", *words) as here:
        headers = {"X-User": "admin"}
        assert here.browser().get("/alerts", headers=headers).status_code == 401
        assert here.browser().get("/healthz").status_code == 200


def test_the_limit_counts_the_address_that_the_proxy_has_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the client sends before it, in one header or in several, as HAProxy leaves them."""
    import http.client

    monkeypatch.setattr(Users, "check", lambda *_: None)  # It takes long, and is not at issue.
    write_small_output(tmp_path / "out")
    users = users_file(tmp_path / "users.json")

    def log_in(place: str, *addresses: str) -> int:
        connection = http.client.HTTPConnection(place, timeout=20)
        form = b"name=viewer&password=wrong"
        connection.putrequest("POST", "/login")
        connection.putheader("Content-Type", "application/x-www-form-urlencoded")
        connection.putheader("Content-Length", str(len(form)))
        for address in addresses:
            connection.putheader("X-Forwarded-For", address)
        connection.endheaders(form)
        status = connection.getresponse().status
        connection.close()
        return status

    with served(tmp_path / "out", tmp_path / "index", "--users", users) as here:
        place = here.url.removeprefix("http://")
        ways = (
            lambda number: (f"1.2.3.{number}", "203.0.113.7"),
            lambda number: (f"1.2.3.{number}, 203.0.113.8",),
            lambda number: (f"203.0.113.9:{1000 + number}",),
            lambda number: (f"2001:db8::{number}",),  # One client has all these addresses.
            lambda number: (f"[2001:db8:1::{number}]:44{number}",),
            lambda number: (("::ffff:203.0.113.10", "203.0.113.10")[number % 2],),
            lambda number: (f"nonsense {number}",),
            lambda number: (f"1.2.3.{number}", ""),
        )  # fmt: skip
        for way in ways[:-1]:
            assert [log_in(place, *way(number)) for number in range(6)] == [403] * 5 + [429]
        # Without an address that can be read, all count as the proxy.
        assert log_in(place, *ways[-1](1)) == 429
        assert log_in(place, "2001:db8:0:1::1") == 403


def test_the_host_and_the_protocol_are_those_that_the_proxy_has_added(guarded: Served) -> None:
    form = {"name": "viewer", "password": PASSWORD}
    for forwarded, status in (("evil.example, console.example", 303), ("evil.example", 403)):
        headers = {"X-Forwarded-Host": forwarded, "Origin": "https://console.example"}
        assert guarded.browser().post("/login", form, headers=headers).status_code == status
    for forwarded, is_secure in (("http, https", True), ("https, http", False)):
        headers = {"X-Forwarded-Proto": forwarded}
        answer = guarded.browser().post("/login", form, headers=headers)
        assert ("Secure" in answer.headers["set-cookie"]) == is_secure


@pytest.mark.parametrize("request_", ["POST /login", "GET /login", "GET /alerts", "POST /marks"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://["},
        {"Origin": "http://[x]/"},
        {"Host": "["},
        {"Host": "x y:["},
        {"X-Forwarded-Host": "["},
        {"X-Forwarded-For": "[:99"},
    ],
)
def test_no_header_makes_the_console_fail(
    guarded: Served, request_: str, headers: dict[str, str]
) -> None:
    method, path = request_.split(" ")
    answer = guarded.browser().session.request(
        method, guarded.url + path, data={"name": "x"}, headers=headers, timeout=20,
        allow_redirects=False,
    )  # fmt: skip
    assert answer.status_code in (200, 303, 400, 401, 403, 429)
    if "Origin" in headers and request_ == "POST /login":
        assert answer.status_code == 403


def test_an_address_that_others_reach_is_served_with_users(tmp_path: Path) -> None:
    write_small_output(tmp_path / "out")
    users = users_file(tmp_path / "users.json")
    words = ("--bind", "0.0.0.0", "--users", users)
    with served(tmp_path / "out", tmp_path / "index", *words) as here:
        assert here.url.startswith("http://0.0.0.0:")
        browser = Browser(here.url.replace("0.0.0.0", "127.0.0.1"))
        assert browser.get("/alerts").status_code == 303
        # Any name may lead here; who has no session sees nothing.
        answer = browser.get("/alerts", headers={"Host": "console.example"})
        assert answer.status_code == 303
