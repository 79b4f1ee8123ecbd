"""Test messages: what targets receive, what is printed, and the exit code."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from beam_pipeline import cli
from tests.transforms.alerting.broker import Watcher, running_broker
from tests.transforms.mail_service import Mails, mail_server
from tests.transforms.web_service import WebService, status

NOTE = (
    "This is a test message of the command alerts test. The picture is a sample: no camera has "
    "seen anything.\n\n"
)


@pytest.fixture
def web() -> Iterator[WebService]:
    with WebService() as service:
        yield service


@pytest.fixture
def mails() -> Iterator[Mails]:
    with mail_server() as kept:
        yield kept


def run(*arguments: str | Path) -> int:
    return cli.main(["alerts", "test", *map(str, arguments)])


def rule_file(folder: Path, **targets: str) -> Path:
    file = folder / "rules.yaml"
    listed = "".join(f"  {name}: {target}\n" for name, target in targets.items())
    file.write_text(f"version: 1\ntargets:\n{listed}defaults: {{objects: {{person: }}}}\n")
    return file


@pytest.mark.parametrize(
    ("answer", "printed", "code"),
    [
        (200, "guard: accepted (HTTP status 200)\n", 0),
        (202, "guard: accepted (HTTP status 202)\n", 0),
        (401, "guard: not accepted: HTTP status 401\n", 1),
        (307, "guard: not accepted: HTTP status 307\n", 1),
        (500, "guard: not accepted: HTTP status 500\n", 1),
        (429, "guard: not accepted: HTTP status 429\n", 1),
    ],
)
def test_the_answer_of_a_webhook_is_printed(
    tmp_path: Path,
    web: WebService,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: int,
    printed: str,
    code: int,
) -> None:
    monkeypatch.setenv("GUARD_TOKEN", "t0ken")
    monkeypatch.setenv("GUARD_PATH", "s3cret")
    web.answers = [status(answer, b"s3cret")]
    file = rule_file(
        tmp_path, guard=f'{{webhook: "{web.url}/${{GUARD_PATH}}", token: "${{GUARD_TOKEN}}"}}'
    )
    assert run("--rules", file, "--target", "guard") == code
    captured = capsys.readouterr()
    assert captured.out == printed
    assert "s3cret" not in captured.err
    assert "t0ken" not in captured.err
    (request,) = web.requests
    assert request.path == "/s3cret"
    assert request.headers["Authorization"] == "Bearer t0ken"


def test_a_webhook_can_tell_a_test_from_an_alert(tmp_path: Path, web: WebService) -> None:
    file = rule_file(tmp_path, guard=f"{{webhook: {web.url}}}")
    for _ in range(2):
        assert run("--rules", file, "--target", "guard") == 0
    first, second = (json.loads(request.body) for request in web.requests)
    assert first["test"] is True
    assert (first["id"], first["severity"]) == ("test-camera", "alert")
    assert first["alert_id"] != second["alert_id"]
    keys = [request.headers["Idempotency-Key"] for request in web.requests]
    assert keys == [first["alert_id"], second["alert_id"]]
    assert first["subject"].startswith("Test: person at test-camera, ")
    assert first["text"].startswith(f"{NOTE}person at test-camera\n")


def test_a_mail_has_the_sample_picture(
    tmp_path: Path,
    mails: Mails,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "pa55%40word")
    file = rule_file(tmp_path, mail=f'{{apprise: "{mails.url}"}}')
    assert run("--rules", file, "--target", "mail") == 0
    assert capsys.readouterr().out == "mail: accepted (SMTP status 250)\n"
    mail = mails.parsed()
    assert mail["Subject"].startswith("Test: person at test-camera, ")
    (picture,) = [part for part in mail.walk() if part.get_content_type() == "image/jpeg"]
    assert Image.open(io.BytesIO(picture.get_content())).size == (480, 360)


def test_a_mail_server_s_refusal_is_printed_without_the_password(
    tmp_path: Path,
    mails: Mails,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2")
    file = rule_file(tmp_path, mail=f'{{apprise: "{mails.url}"}}')
    assert run("--rules", file, "--target", "mail") == 1
    captured = capsys.readouterr()
    printed = "mail: not accepted: Apprise could not deliver it by E-Mail: SMTP status 535\n"
    assert captured.out == printed
    assert "hunter2" not in captured.err


def test_each_target_is_tested_and_one_that_does_not_accept_decides(
    tmp_path: Path,
    web: WebService,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALERT_TOKEN", "t0ken")
    web.answers = [status(200), status(410), status(204)]
    file = rule_file(tmp_path, a=f"{{webhook: {web.url}/a}}", b=f"{{webhook: {web.url}/b}}")
    url = ("--alert_url", f"{web.url}/c")
    assert run("--rules", file, "--target", "a", "--target", "b", "--target", "a", *url) == 1
    assert capsys.readouterr().out == (
        "a: accepted (HTTP status 200)\n"
        "b: not accepted: HTTP status 410\n"
        f"{web.url}: accepted (HTTP status 204)\n"
    )
    assert [request.path for request in web.requests] == ["/a", "/b", "/c"]
    assert web.requests[2].headers["Authorization"] == "Bearer t0ken"


def test_an_alert_url_needs_no_rules(web: WebService, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--alert_url", f"{web.url}/hook") == 0
    assert capsys.readouterr().out == f"{web.url}: accepted (HTTP status 200)\n"
    web.stop()
    assert run("--alert_url", f"{web.url}/hook") == 1
    printed = f"{web.url}: not accepted: no connection (ConnectionError)\n"
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "alerts test: give --target NAME with --rules FILE, or --alert_url URL"),
        (("--target", "guard"), "--target: give the rule file that has the target too"),
        (("--rules", "RULES", "--target", "gard"), "did you mean 'guard'?"),
        (("--rules", "RULES", "--target", "guard"), "environment variable GUARD_TOKEN"),
        (("--rules", "EMPTY", "--target", "guard"), "it names no targets"),
        (("--alert_url", "https://"), "--alert_url: not an address like https://alerts.example"),
        (("--alert_url", "https://a.example/${HOOK}"), "needs the environment variable HOOK"),
        (
            ("--rules", "LINKED", "--alert_url", "https://a.example/"),
            "console of the rules needs the environment variable GUARD_TOKEN",
        ),
        (
            ("--alert_url", "me@gmail.com"),
            "--alert_url: not an address like https://alerts.example.com/hook; write it as a "
            "target of the rule file: targets: {t: {apprise: "
            "'mailtos://me:${MAIL_PASSWORD}@gmail.com?smtp=smtp.gmail.com'}}",
        ),
    ],
)
def test_a_wrong_set_up_is_one_line_and_nothing_is_sent(
    tmp_path: Path,
    web: WebService,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    for name in ("GUARD_TOKEN", "HOOK"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path / "empty.yaml"
    empty.write_text("version: 1\n")
    guard = f'{{webhook: {web.url}, token: "${{GUARD_TOKEN}}"}}'
    linked = tmp_path / "linked.yaml"
    linked.write_text('version: 1\nconsole: {url: "https://c.example", key: "${GUARD_TOKEN}"}\n')
    files = {"RULES": rule_file(tmp_path, guard=guard), "EMPTY": empty, "LINKED": linked}
    assert run(*(files.get(argument, argument) for argument in arguments)) == 2
    stderr = capsys.readouterr().err
    assert said in stderr
    assert stderr.count("\n") == 1
    assert web.requests == []


def test_a_broker_gets_the_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "pa55%40word")
    with running_broker(tmp_path) as broker:
        watcher = Watcher(broker)
        file = rule_file(tmp_path, home=f'{{mqtt: "{broker.url()}"}}')
        assert run("--rules", file, "--target", "home") == 0
        assert capsys.readouterr().out == "home: accepted (acknowledged by the broker)\n"
        received = watcher.wait_for(4)
        watcher.close()
    topic, payload, _ = received[3]
    assert topic == "beam-threats/test-camera/alert"
    event = json.loads(payload)
    assert (event["event_type"], event["test"]) == ("test", True)
    assert received[2][1].startswith(b"\xff\xd8")
