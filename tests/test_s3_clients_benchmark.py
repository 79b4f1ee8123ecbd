"""`python -m benchmarks.s3_clients`: what the job's client of S3 does, as another has to."""

from __future__ import annotations

import pytest

from benchmarks import s3_clients


def test_the_jobs_client_keeps_keys_and_credentials_and_minds_signals_and_forks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_clients, "_SIGNAL", 0.1)
    monkeypatch.setattr(s3_clients, "_SLOW", 1.0)
    s3_clients.differences()
    answers = dict(
        line.strip("| ").split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[3:]
    )
    assert answers == {
        "read of the key `a/`": "`GET a/`",
        "read of the key `/a`": "`GET /a`",
        "read of the key `a//b`": "`GET a//b`",
        "read of the key `a/./b`": "`GET a/./b`",
        "read that is answered with a redirection (302)": "OSError",
        "AWS_SESSION_TOKEN, with keys that do not come from the environment": "is not sent",
        "signal while a read waits": "is handled at once",
        "read in a forked process": "its bytes",
    }
