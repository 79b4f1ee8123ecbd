"""The commands of docs/console.md, as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import requests

from tests import documented
from tests.beam_pipeline.web.serving import PASSWORD, RULES, write_small_output
from tests.stores.servers import free_port


def test_the_commands_of_the_page_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented.make_checkout(tmp_path)
    write_small_output(tmp_path / "output")
    (tmp_path / "rules.yaml").write_text(RULES)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = str(documented.ROOT)
    commands = documented.run_by("tests/beam_pipeline/web/test_documented_console.py")
    assert len(commands) == 6
    listed = ""
    for command in commands:
        port = free_port()
        text = re.sub(r"--port \d+", f"--port {port}", command.text)
        process = subprocess.Popen(
            ["bash", "-c", f"exec {text}"], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            if "serve users" in text or "serve tokens" in text:
                out, error = process.communicate(f"{PASSWORD}\n", timeout=60)
                assert (process.returncode, error) == (0, "")
                listed = out if "list" in text else listed
                continue
            assert process.stdout is not None
            assert "serving " in process.stdout.readline()
            page = requests.get(f"http://127.0.0.1:{port}/", timeout=30).text
            assert ("Log in" in page) == ("--users" in text)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
            process.communicate()
    assert listed == "anna  admin\nben  operator\n"
    assert list((tmp_path / "cache" / "beam_pipeline" / "console").glob("*.sqlite"))
