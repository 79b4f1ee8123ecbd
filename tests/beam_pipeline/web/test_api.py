"""Marks by HTTP: a token marks, and nothing else does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import rules
from beam_pipeline import cli
from beam_pipeline.web.access.users import Users, add_token, add_user, remove_token
from tests.beam_pipeline.conftest import refused
from tests.beam_pipeline.web.serving import (
    PASSWORD,
    Served,
    served,
    users_file,
    write_small_output,
)
from transforms.storage.marks import read_marks

HALL = rules.alert_id("hall", "2026-01-31T10:00:00Z", "alert")
QUIET = "hall_2026-01-31T12-30-00Z.jpg"


class Robot:
    """A program with a token."""

    def __init__(self, here: Served, token: str | None) -> None:
        self.url = f"{here.url}/api/marks"
        self.session = requests.Session()
        if token is not None:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def mark(self, **value: Any) -> requests.Response:
        return self.session.post(self.url, json=value, timeout=20)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return users_file(tmp_path / "users.json")


@pytest.fixture
def here(tmp_path: Path, users: Path) -> Iterator[Served]:
    write_small_output(tmp_path / "out")
    with served(tmp_path / "out", tmp_path / "index", "--users", users) as here:
        yield here


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """A program that marks nothing in the end."""
    folder = tmp_path_factory.mktemp("api")
    write_small_output(folder / "out")
    words = ("--users", users_file(folder / "users.json"))
    with served(folder / "out", folder / "index", *words) as here:
        yield Robot(here, add_token(str(folder / "users.json"), "door-bot"))
    assert read_marks(str(folder / "out"))[0] == []


def output(here: Served) -> Path:
    return Path(here.prepared.console.output)


def test_a_token_marks_with_an_audit_entry(here: Served, users: Path) -> None:
    robot = Robot(here, add_token(str(users), "door-bot"))
    answer = robot.mark(alert_id=HALL, mark="false", label="person", note="a coat")
    assert answer.status_code == 201
    (mark,) = read_marks(str(output(here)))[0]
    assert answer.json() == mark.to_json()
    assert (mark.id, mark.mark, mark.label, mark.note, mark.by) == (
        "hall", "false", "person", "a coat", "door-bot",
    )  # fmt: skip
    (file,) = output(here).glob("audit/*/*.json")
    entry = json.loads(file.read_bytes())
    assert (entry["by"], entry["role"], entry["action"]) == ("door-bot", "operator", "mark")
    missed = robot.mark(
        image=QUIET, id="hall", mark="missed", label="person", bboxes=[[0.1, 0.2, 0.05, 0.33333]]
    )
    assert missed.status_code == 201
    assert missed.json()["bboxes"] == [[0.1, 0.2, 0.05, 0.3333]]
    page = here.logged_in("viewer").get(f"/alerts/{HALL}").text
    assert "<bdi>door-bot</bdi>" in page


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "either alert_id, or image"),
        ({"mark": "false"}, "either alert_id, or image"),
        ({"alert_id": HALL, "image": QUIET, "mark": "false"}, "either alert_id, or image"),
        ({"alert_id": HALL}, "Give mark: one of right, false, unsure, missed."),
        ({"alert_id": HALL, "mark": "wrong"}, "mark: this can't be its value."),
        ({"alert_id": HALL, "mark": ["false"]}, "mark: this can't be its value."),
        ({"alert_id": 7, "mark": "false"}, "alert_id: this can't be its value."),
        ({"alert_id": HALL, "mark": "false", "by": "anna"}, "by: no such key; there are alert_id"),
        ({"alert_id": HALL, "mark": "false", "label": "dog"}, "the alert does not name it"),
        ({"alert_id": "0" * 32, "mark": "false"}, "no such alert"),
        ({"alert_id": HALL, "id": "../hall", "mark": "false"}, "no id of a camera"),
        ({"image": "../secret.jpg", "mark": "false"}, "not the name of a stored image"),
        ({"image": QUIET, "mark": "missed"}, "a missed threat needs its label"),
        ({"image": QUIET, "mark": "missed", "label": "person", "bboxes": [[2, 0, 1, 1]]}, "bboxes"),
        ({"image": QUIET, "mark": "missed", "label": "person", "bboxes": [["x"]]}, "bboxes"),
        ({"image": QUIET, "mark": "missed", "label": "person", "bboxes": 7}, "bboxes"),
        ({"alert_id": HALL, "mark": "false", "note": "x" * 1001}, "note has 1,001 characters"),
        ({"alert_id": HALL, "mark": "false", "note": "\ud800"}, "no JSON"),
    ],
)
def test_what_is_no_mark_is_refused_with_one_line(
    robot: Robot, value: dict[str, Any], says: str
) -> None:
    answer = robot.mark(**value)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_a_body_that_is_no_json_is_refused(robot: Robot) -> None:
    kind = {"Content-Type": "application/json"}
    for data in (b"{", b"\xff", b"[]", b"7", b"[" * 60_000):
        answer = robot.session.post(robot.url, data, headers=kind, timeout=20)
        assert answer.status_code == 400
    answer = robot.session.post(robot.url, b"x" * 70_000, headers=kind, timeout=20)
    assert answer.status_code == 413
    answer = robot.session.post(robot.url, {"alert_id": HALL, "mark": "false"}, timeout=20)
    assert answer.status_code == 415


def test_neither_a_cookie_nor_a_header_of_a_proxy_authorises_a_mark(
    tmp_path: Path, users: Path
) -> None:
    write_small_output(tmp_path / "out")
    words = ("--users", users, "--trusted_header", "X-User")
    with served(tmp_path / "out", tmp_path / "index", *words) as here:
        browser, value = here.logged_in("admin"), {"alert_id": HALL, "mark": "false"}
        for headers in ({}, {"X-User": "admin"}, {"Origin": here.url}, {"Authorization": "Bearer"},
                        {"Authorization": "Basic YWRtaW46eA=="}):  # fmt: skip
            answer = browser.session.post(
                f"{here.url}/api/marks", json=value, headers=headers, timeout=20
            )
            assert answer.status_code == 401, headers
            assert answer.headers["www-authenticate"].startswith("Bearer")
    write_small_output(tmp_path / "other")
    with served(tmp_path / "other", tmp_path / "index") as here:  # Without a log-in at all.
        assert Robot(here, None).mark(**value).status_code == 401
        assert Robot(here, "x" * 43).mark(**value).status_code == 401
    assert read_marks(str(tmp_path / "out"))[0] == read_marks(str(tmp_path / "other"))[0] == []


def test_a_token_opens_no_page(here: Served, users: Path) -> None:
    token = add_token(str(users), "door-bot")
    for path in ("/alerts", "/audit", f"/images/hall/{QUIET[:-4]}"):
        answer = requests.get(
            here.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=20,
            allow_redirects=False,
        )  # fmt: skip
        assert answer.status_code in (303, 401)


def test_a_token_that_is_removed_is_refused_at_once(here: Served, users: Path) -> None:
    robot = Robot(here, add_token(str(users), "door-bot"))
    other = Robot(here, add_token(str(users), "gate-bot"))
    assert robot.mark(alert_id=HALL, mark="false").status_code == 201
    remove_token(str(users), "door-bot")
    assert robot.mark(alert_id=HALL, mark="false").status_code == 401
    assert other.mark(alert_id=HALL, mark="false").status_code == 201


def test_wrong_tokens_are_limited_by_address_and_stop_no_log_in(
    here: Served, users: Path, caplog: pytest.LogCaptureFixture
) -> None:
    robot = Robot(here, add_token(str(users), "door-bot"))
    for number in range(5):
        assert Robot(here, f"guess {number}").mark(alert_id=HALL, mark="false").status_code == 401
    answer = robot.mark(alert_id=HALL, mark="false")
    assert answer.status_code == 429
    assert 800 < int(answer.headers["retry-after"]) <= 901
    assert here.browser().log_in("operator").status_code == 303
    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == ["a wrong token came from 127.0.0.1"] * 5
    assert "guess" not in caplog.text


def test_a_token_is_printed_once_and_kept_as_a_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "users.json"
    words = ["--users", str(file)]
    assert cli.main(["serve", "tokens", "add", "door-bot", *words]) == 0
    token = capsys.readouterr().out.strip()
    assert len(token) == 43
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert Users(str(file)).name_of_token(token) == "door-bot"
    assert Users(str(file)).name_of_token(token[:-1]) is None
    add_user(str(file), "anna", "admin", PASSWORD)  # Neither loses the other.
    assert cli.main(["serve", "tokens", "add", "gate-bot", *words]) == 0
    capsys.readouterr()
    assert cli.main(["serve", "tokens", "list", *words]) == 0
    assert capsys.readouterr().out == "door-bot\ngate-bot\n"
    assert Users(str(file)).names() == {"anna": "admin"}
    assert cli.main(["serve", "tokens", "remove", "door-bot", *words]) == 0
    assert capsys.readouterr().out == f"removed door-bot from {file}\n"
    assert Users(str(file)).name_of_token(token) is None
    assert Users(str(file)).token_names() == ["gate-bot"]


def test_no_token_has_the_name_of_a_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As its marks would replace the user's."""
    file = str(tmp_path / "users.json")
    add_user(file, "anna", "admin", PASSWORD)
    add_token(file, "bot")
    for words, says in (
        (("add", "anna"), "'anna': a user has this name"),
        (("add", "bot"), "'bot': a token has this name"),
        (("add", " x"), "no name of a token"),
        (("remove", "anna"), "'anna': no such token"),
    ):
        assert says in refused(capsys, "serve", "tokens", *words, "--users", file)
    from beam_pipeline.console.exceptions import SetupError

    with pytest.raises(SetupError, match="'bot': a token has this name"):
        add_user(file, "bot", "viewer", PASSWORD)


@pytest.mark.parametrize("tokens", ["[]", '{"x": 7}', '{"x": {}}', '{"x": {"sha256": "abc"}}'])
def test_a_file_with_damaged_tokens_is_no_file_of_users(tmp_path: Path, tokens: str) -> None:
    from beam_pipeline.console.exceptions import SetupError

    file = tmp_path / "users.json"
    file.write_text(f'{{"format_version": "1.0", "users": {{}}, "tokens": {tokens}}}')
    with pytest.raises(SetupError, match="no file of users"):
        Users(str(file))
