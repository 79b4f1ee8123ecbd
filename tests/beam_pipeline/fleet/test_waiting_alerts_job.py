"""Alerts of a whole job, against a real HTTP server."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import bundled
from tests.beam_pipeline.conftest import read_json
from tests.conftest import Command, Run
from tests.transforms.web_service import Request, WebService, status


class Service(ThreadingHTTPServer):
    """An alert service that accepts alerts, and can be made to fail or to hang."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[tuple[str, str, dict[str, Any]]] = []
        self.asked = 0
        self.status = 200
        self.hang = threading.Event()
        self.first_asked = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?key=planted-secret"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        self.server.first_asked = self.server.first_asked or time.time()
        if self.server.hang.is_set():
            time.sleep(120)
            return
        if self.server.status == 200:
            key, token = self.headers["Idempotency-Key"], self.headers["Authorization"]
            self.server.taken.append((key, token, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    rules = tmp_path / "rules.yaml"
    text = bundled.BUNDLED_RULES.read_text()
    rules.write_text(text.replace("\ndefaults:\n", "\ndefaults:\n  cooldown: 0s\n"))
    return [
        *("--input", str(bundled.BUNDLED_SAMPLES / "hall"), "--model", "bundled"),
        *("--rules", str(rules), "--output", str(tmp_path / "out")),
    ]


def outcomes(output: Path) -> list[str]:
    records = [read_json(path) for path in sorted((output / "alerts").glob("hall/*.json"))]
    return [target["outcome"] for record in records for target in record["targets"]]


def test_alerts_are_delivered_once_and_no_secret_is_kept(
    service: Service, arguments: list[str], run_job: Run, tmp_path: Path
) -> None:
    url = ("--alert_url", service.url)
    first = run_job(*arguments, *url, ALERT_TOKEN="planted-token")
    assert first.returncode == 0, first.stderr
    assert set(outcomes(tmp_path / "out")) == {"delivered"}
    assert len(service.taken) == len(outcomes(tmp_path / "out")) > 0
    for key, token, body in service.taken:
        assert key == body["alert_id"]
        assert token == "Bearer planted-token"
        assert set(body) == {
            *("alert_id", "id", "timestamp", "local_time", "timezone", "severity", "threats"),
            *("image_uri", "final_uri", "rules_version", "model_version"),
            *("subject", "text", "links", "picture"),
        }
    again = run_job(*arguments, *url, ALERT_TOKEN="planted-token")
    assert again.returncode == 0, again.stderr
    assert len({key for key, _, _ in service.taken}) == len(service.taken)
    for text in (first.stdout, first.stderr, again.stdout, again.stderr):
        assert "planted" not in text
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"planted" not in path.read_bytes(), path


ALL_KINDS = """version: 1
targets:
  guard:
    webhook: "{url}/planted-path?key=${{KEY}}"
    token: "${{GUARD_TOKEN}}"
    secret: "${{GUARD_SECRET}}"
  chat: {{apprise: "json://robot:${{PASSWORD}}@{host}/${{PATH_OF_CHAT}}"}}
  mail: {{apprise: "mailto://robot:${{PASSWORD}}@127.0.0.1:9?to=a@example.com&from=b@example.com"}}
defaults: {{objects: {{person: }}, notify: [guard, chat, mail], cooldown: 0s}}
"""


def test_targets_of_all_kinds_have_their_alerts_and_no_secret_is_kept_or_logged(
    run_job: Run, tmp_path: Path
) -> None:
    images, output, rules = (tmp_path / name for name in ("in", "out", "rules.yaml"))
    images.mkdir()
    for sample in sorted((bundled.BUNDLED_SAMPLES / "hall").rglob("*.jpg"))[:12]:
        (images / sample.name).write_bytes(sample.read_bytes())

    def answer(handler: BaseHTTPRequestHandler, request: Request) -> None:
        status(503 if request.path.startswith("/planted-url") else 200)(handler, request)

    with WebService() as web:
        web.answers = [answer]
        host = web.url.removeprefix("http://")
        rules.write_text(ALL_KINDS.format(url=web.url, host=host))
        process = run_job(
            *("--input", images, "--model", "bundled", "--rules", rules, "--output", output),
            *("--alert_url", f"http://me:planted-word@{host}/planted-url?key=planted-query"),
            ALERT_TOKEN="planted-token",
            **{name: f"planted-{name}" for name in ("KEY", "GUARD_TOKEN", "GUARD_SECRET")},
            **{name: f"planted-{name}" for name in ("PASSWORD", "PATH_OF_CHAT")},
        )
    assert process.returncode == 0, process.stderr
    alerts = len(list((output / "alerts").glob("hall/*.json")))
    assert alerts > 1
    records = [read_json(path) for path in (output / "alerts").glob("hall/*.json")]
    fates = [
        {target["target"]: target["outcome"] for target in record["targets"]} for record in records
    ]
    (url,) = fates[0].keys() - {"guard", "chat", "mail"}
    wanted = {"guard": "delivered", "chat": "delivered", "mail": "failed", url: "failed"}
    assert fates == [wanted] * alerts
    paths = {request.path.split("?")[0] for request in web.requests}
    assert paths == {"/planted-path", "/planted-PATH_OF_CHAT", "/planted-url"}
    waiting = list((output / "alerts" / "_undelivered").rglob("*.json"))
    assert len(waiting) == 2 * alerts
    assert [text for text in (process.stdout, process.stderr) if "planted" in text] == []
    assert [
        path
        for path in output.rglob("*")
        if "planted" in path.name or (path.is_file() and b"planted" in path.read_bytes())
    ] == []


def test_what_a_failing_service_refused_is_delivered_by_the_next_run(
    service: Service, arguments: list[str], command: Command, tmp_path: Path
) -> None:
    service.status = 400
    failed = command(*arguments, "--alert_url", service.url)
    assert failed.code == 0, failed.err
    assert set(outcomes(tmp_path / "out")) == {"failed"}
    assert f"{len(outcomes(tmp_path / 'out'))} not delivered" in failed.out
    service.status = 200
    recovered = command(*arguments, "--alert_url", service.url, "--resume")
    assert recovered.code == 0, recovered.err
    assert set(outcomes(tmp_path / "out")) == {"delivered"}
    number = len(outcomes(tmp_path / "out"))
    assert re.search(rf"^alerts +{number} \(delivered {number}\)$", recovered.out, re.M)
    again = command(*arguments, "--alert_url", service.url, "--resume")
    assert re.search(rf"^alerts +0; {number} more delivered before$", again.out, re.M)


def test_a_hanging_service_holds_back_no_verdict_and_no_count(
    service: Service, arguments: list[str], command: Command, tmp_path: Path
) -> None:
    service.hang.set()
    finished = command(*arguments, "--alert_url", service.url)
    assert finished.code == 0, finished.err
    output = tmp_path / "out"
    assert set(outcomes(output)) == {"failed"}
    written = [*(output / "final").rglob("*.json"), *(output / "counts").glob("*.jsonl")]
    assert any(path.parent.name == "counts" for path in written)
    late = [path.name for path in written if path.stat().st_mtime > service.first_asked + 5]
    assert late == []
