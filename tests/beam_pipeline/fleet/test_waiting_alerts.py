"""What waits to be sent again, and sending it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_pipeline import cli
from tests.transforms.web_service import WebService, status
from transforms.alerting.alerts import Alert
from transforms.alerting.ledger import Ledger, Outcome
from transforms.alerting.target_clients import named_urls

MOMENTS = ("10:00:00.500", "10:00:00", "09:59:59", "10:00:01")


def target_name(url):
    """The name of a target of `--alert_url`, where there is no other at its host."""
    (name,) = named_urls([url])
    return name


@pytest.fixture
def web() -> Iterator[WebService]:
    with WebService() as service:
        yield service


def an_alert(capture_time: str, camera: str = "hall") -> Alert:
    body = {
        "alert_id": (capture_time.replace(":", "").replace(".", "") + camera[0]).ljust(32, "0"),
        "id": camera,
        "timestamp": f"2026-01-31T{capture_time}Z",
        "severity": "alert",
        "threats": [],
        "image_uri": "/in/hall.jpg",
        "final_uri": "/out/final/hall/hall.json",
        "rules_version": "ba9876543210",
        "model_version": "0123456789ab",
    }
    return Alert.from_body(body, "")


def keep(output: Path, target: str, *alerts: Alert) -> None:
    ledger = Ledger(str(output))
    for alert in alerts:
        ledger.record(alert, Outcome(target, "failed", "HTTP status 503", again_after=0))


def run(*arguments: str | Path) -> int:
    return cli.main(["alerts", *map(str, arguments)])


def waiting(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "alerts" / "_undelivered").rglob("*.json"))


def outcomes(output: Path) -> list[str]:
    records = (json.loads(path.read_text()) for path in (output / "alerts").glob("hall/*.json"))
    return [target["outcome"] for record in records for target in record["targets"]]


def test_what_waits_is_sent_in_the_order_of_time_and_reported(
    tmp_path: Path, web: WebService, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{web.url}/hook?key=s3cret"
    keep(tmp_path, target_name(url), *map(an_alert, MOMENTS))
    assert run("list", "--output", tmp_path) == 0
    shown = capsys.readouterr().out
    assert [line[11:19] for line in shown.splitlines()[1:-1]] == [
        *("09:59:59", "10:00:00", "10:00:00", "10:00:01")
    ]
    assert shown.count("HTTP status 503") == 4
    assert run("resend", "--output", tmp_path, "--alert_url", url) == 0
    sent = [json.loads(request.body)["timestamp"][11:-1] for request in web.requests]
    assert sent == sorted(MOMENTS)
    table = capsys.readouterr().out
    assert table.splitlines()[1].split() == [target_name(url), "4", "0", "0"]
    assert "s3cret" not in shown + table
    assert waiting(tmp_path) == []
    assert outcomes(tmp_path) == ["delivered"] * 4
    resend = ("resend", "--alert_url", url)
    for arguments in (("list",), (*resend, "--dry_run"), resend):
        assert run(*arguments, "--output", tmp_path) == 0
        assert capsys.readouterr().out == "nothing waits\n"
    assert len(web.requests) == 4


@pytest.mark.parametrize("command", ["list", "resend"])
def test_an_output_that_does_not_exist_is_not_one_in_which_nothing_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(command, "--output", tmp_path / "outptu") == 2
    assert capsys.readouterr().err.endswith("/outptu: no such directory\n")


def test_what_still_fails_or_is_refused_waits_on_and_the_exit_code_says_so(
    tmp_path: Path,
    web: WebService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("transforms.alerting.delivery.pause_before", lambda *_: 0.01)
    web.answers = [status(200), status(403), status(503)]
    url = f"{web.url}/hook"
    keep(tmp_path, target_name(url), *map(an_alert, ("10:00:00", "10:00:01", "10:00:02")))
    assert run("resend", "--output", tmp_path, "--alert_url", url) == 1
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:4] == [target_name(url), "1", "1", "1"]
    assert "HTTP status 403 (1)" in row
    assert "HTTP status 503 (1)" in row
    assert [name[:16] for name in waiting(tmp_path)] == ["20260131T100001Z", "20260131T100002Z"]


def test_a_target_of_the_rules_is_sent_what_waits_for_it_and_no_other(
    tmp_path: Path, web: WebService, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "version: 1\n"
        f"targets: {{guard: {{webhook: {web.url}/guard}}, mail: {{webhook: {web.url}/mail}}}}\n"
        "defaults: {objects: {person: }, notify: [guard, mail]}\n"
    )
    for name in ("guard", "mail", "gone"):
        keep(tmp_path, name, an_alert("10:00:00"))
    assert run("resend", "--output", tmp_path, "--rules", rules, "--target", "guard") == 0
    assert [request.path for request in web.requests] == ["/guard"]
    assert run("resend", "--output", tmp_path, "--rules", rules) == 1
    assert [request.path for request in web.requests] == ["/guard", "/mail"]
    assert "neither --rules nor --alert_url names this target" in capsys.readouterr().out
    assert len(waiting(tmp_path)) == 1


def test_a_dry_run_sends_nothing(
    tmp_path: Path, web: WebService, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{web.url}/hook"
    keep(tmp_path, target_name(url), an_alert("10:00:00"))
    assert run("resend", "--output", tmp_path, "--alert_url", url, "--dry_run") == 0
    assert "1 waits" in capsys.readouterr().out
    assert web.requests == []
    assert len(waiting(tmp_path)) == 1


def test_what_was_delivered_meanwhile_is_not_sent_again(tmp_path: Path, web: WebService) -> None:
    url, alert = f"{web.url}/hook", an_alert("10:00:00")
    keep(tmp_path, target_name(url), alert)
    (waiting_alert,) = (tmp_path / "alerts" / "_undelivered").rglob("*.json")
    left = waiting_alert.read_bytes()
    Ledger(str(tmp_path)).record(alert, Outcome(target_name(url), "delivered"))
    waiting_alert.write_bytes(left)  # As if the job had died before it took it away.
    assert run("resend", "--output", tmp_path, "--alert_url", url) == 0
    assert web.requests == []
    assert waiting(tmp_path) == []


def test_what_is_too_old_stays_where_it_is(tmp_path: Path, web: WebService) -> None:
    url = f"{web.url}/hook"
    keep(tmp_path, target_name(url), an_alert("10:00:00"))
    old = ("resend", "--output", tmp_path, "--alert_url", url, "--alert_max_age", "1h")
    assert run(*old) == 0
    assert web.requests == []
    assert len(waiting(tmp_path)) == 1


def test_a_file_that_is_no_alert_is_skipped_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "alerts" / "_undelivered" / "guard"
    folder.mkdir(parents=True)
    (folder / "20260131T100000Z_5.json").write_text("{}")
    assert run("list", "--output", tmp_path) == 1
    captured = capsys.readouterr()
    assert captured.out == "nothing waits\n"
    assert "20260131T100000Z_5.json: ValueError: is not a waiting alert" in captured.err


def test_what_waits_is_listed_though_the_marks_can_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, "guard", an_alert("10:00:00"))
    (tmp_path / "marks").symlink_to("marks")
    assert run("list", "--output", tmp_path) == 1
    captured = capsys.readouterr()
    assert "2026-01-31T10:00:00Z" in captured.out
    assert "the marks can't be read: " in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("resend", "--output", ".", "--alert_url", "ftp://s3cret"),
            "--alert_url: not an address like",
        ),
        (("resend", "--output", ".", "--rules", "no.yaml"), "--rules no.yaml: no such file"),
        (("resend", "--alert_max_age", "soon"), "'soon' is not a duration"),
        (("send",), "invalid choice: 'send'"),
        ((), "required: command"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    stderr = capsys.readouterr().err
    assert said in stderr
    assert stderr.count("\n") == 1
    assert "s3cret" not in stderr


def test_a_secret_that_is_not_set_is_named_before_anything_is_sent(
    tmp_path: Path,
    web: WebService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("GUARD_TOKEN", raising=False)
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        f'version: 1\ntargets: {{guard: {{webhook: {web.url}/guard, token: "${{GUARD_TOKEN}}"}}}}\n'
        "defaults: {objects: {person: }, notify: [guard]}\n"
    )
    keep(tmp_path, "guard", an_alert("10:00:00"))
    assert run("resend", "--output", tmp_path, "--rules", rules) == 2
    stderr = capsys.readouterr().err
    assert "'guard'" in stderr
    assert "GUARD_TOKEN" in stderr
    assert web.requests == []


def test_a_key_of_links_that_is_not_set_is_named_before_anything_is_sent(
    tmp_path: Path,
    web: WebService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        f"version: 1\ntargets: {{guard: {{webhook: {web.url}/guard}}}}\n"
        'console: {url: "https://c.example", key: "${MARK_KEY}"}\n'
        "defaults: {objects: {person: }, notify: [guard]}\n"
    )
    keep(tmp_path, "guard", an_alert("10:00:00"))
    monkeypatch.delenv("MARK_KEY", raising=False)
    assert run("resend", "--output", tmp_path, "--rules", rules) == 2
    assert "console of the rules needs the environment variable MARK_KEY" in capsys.readouterr().err
    assert web.requests == []
    monkeypatch.setenv("MARK_KEY", "k" * 32)
    assert run("resend", "--output", tmp_path, "--rules", rules) == 0
    (request,) = web.requests
    assert set(json.loads(request.body)["links"]) == {"console", "right", "false"}
