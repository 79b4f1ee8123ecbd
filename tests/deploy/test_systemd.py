"""The units for systemd: they are well-formed, and their commands are commands of this program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from beam_pipeline.commands import report, run, serve
from tests.absent import give_up

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
PROGRAM = "/opt/beam-threats/bin/beam-threats"


def commands(unit: str) -> list[list[str]]:
    """The command lines that a unit starts."""
    text = (UNITS / unit).read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)]


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        give_up("no systemd-analyze here")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace(PROGRAM, "/bin/true")  # It is not installed here.
        (tmp_path / unit.name).write_text(text.replace("User=beam-threats", "User=daemon"))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "beam-threats-console.service",
        "beam-threats-report.service",
        "beam-threats-report.timer",
        "beam-threats.service",
    ]
    finished = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in finished.stderr.splitlines() if "beam-threats" in line]
    assert (finished.returncode, ours) == (0, [])


def test_the_unit_of_the_stream_runs_what_the_page_says() -> None:
    ((program, *words),) = commands("beam-threats.service")
    assert program == PROGRAM
    parsed, beam_words = run.parser().parse_known_args(words)
    assert (parsed.input, parsed.output) == ("/srv/cameras", "/srv/results")
    assert (parsed.rules, parsed.model) == (
        "/etc/beam-threats/rules.yaml",
        "/opt/beam-threats/model",
    )
    assert parsed.resume
    assert set(beam_words[::2]) | set(beam_words[1::2]) >= {"--runner", "FlinkRunner", "[local]"}
    assert parsed.streaming
    assert parsed.poll_interval_seconds == 1


def test_the_unit_of_the_report_runs_a_command() -> None:
    ((program, command, *words),) = commands("beam-threats-report.service")
    assert (program, command) == (PROGRAM, "report")
    assert report.parser().parse_args(words).outputs == ["/srv/results"]


def test_the_unit_of_the_console_serves_this_machine_with_users() -> None:
    ((program, command, *words),) = commands("beam-threats-console.service")
    assert (program, command) == (PROGRAM, "serve")
    parsed = serve.parser().parse_args(words)
    assert (parsed.output, parsed.bind) == ("/srv/results", "127.0.0.1")
    assert parsed.users == "/etc/beam-threats/users.json"
    assert parsed.index.startswith("/var/cache/beam-threats/")


@pytest.mark.parametrize(
    "unit",
    ["beam-threats.service", "beam-threats-report.service", "beam-threats-console.service"],
)
def test_each_service_may_write_where_it_writes_and_nowhere_else(unit: str) -> None:
    lines = (UNITS / unit).read_text().splitlines()
    assert "ProtectSystem=strict" in lines
    assert "ReadWritePaths=/srv/results" in lines
    assert "CacheDirectory=beam-threats" in lines
    (variables,) = (line.partition("=")[2] for line in lines if line.startswith("Environment="))
    for variable in variables.split():
        assert variable.split("=")[1].startswith("/var/cache/beam-threats/")
