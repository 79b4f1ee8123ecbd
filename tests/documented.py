"""The shell commands that README.md and pages of docs/ show, as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/running.md",
    "docs/output.md",
    "docs/models.md",
    "docs/rules.md",
    "docs/shadow.md",
    "docs/names.md",
    "docs/cameras.md",
    "docs/report.md",
    "docs/health.md",
    "docs/backtest.md",
    "docs/evaluate.md",
    "docs/marks.md",
    "docs/console.md",
    "docs/retention.md",
    "docs/benchmarks.md",
    "docs/scale.md",
    "docs/flink.md",
)
PYTHON = ".venv/bin/python -m beam_pipeline"

SAMPLES = "tests/beam_pipeline/test_documented_commands.py"
NAMES = "tests/beam_pipeline/test_names_job.py"
CAMERAS = "tests/test_cameras_page.py"
CONSOLE = "tests/beam_pipeline/web/test_documented_console.py"
COST = "tests/test_cost_benchmark.py"
PRISM = "tests/beam_pipeline/test_prism_job.py"
BATCH = "tests/flink/test_batch.py"
STREAM = "tests/flink/test_documented_stream.py"

WHERE: dict[str, dict[str, str]] = {
    "README.md": {
        "make run": SAMPLES,
        "make test": "not here: it is what runs this",
        f"{PYTHON} rules check": SAMPLES,
        f"{PYTHON} --runner DirectRunner --input /srv/pictures": SAMPLES,
        f"{PYTHON} counts": SAMPLES,
        f"{PYTHON} health": SAMPLES,
        f"{PYTHON} backtest": SAMPLES,
        f"{PYTHON} alerts resend": SAMPLES,
        "make flink-up": "not here: the session's cluster is started by the same program",
        f"{PYTHON} $(make -s flink-args) --streaming": STREAM,
        "make flink-down": "not here: the session's cluster is stopped by the same program",
    },
    "docs/running.md": {
        f"{PYTHON} --runner DirectRunner --input /srv/pictures": SAMPLES,
        "make prism": PRISM,
        f"{PYTHON} --streaming": PRISM,
    },
    "docs/output.md": {
        f"{PYTHON} --streaming": "not here: test_prism_job.py runs such streams",
        f"{PYTHON} --input /srv/pictures": SAMPLES,
        f"{PYTHON} pack": SAMPLES,
        f"{PYTHON} counts": SAMPLES,
        f"{PYTHON} chart": SAMPLES,
    },
    "docs/models.md": {
        f"{PYTHON} --runner DirectRunner --input /srv/pictures": SAMPLES,
        f"{PYTHON} backtest": SAMPLES,
    },
    "docs/rules.md": {f"{PYTHON} rules": SAMPLES},
    "docs/shadow.md": {
        f"{PYTHON} --input /srv/pictures": SAMPLES,
        f"{PYTHON} rules shadow": SAMPLES,
    },
    "docs/names.md": {f"{PYTHON} names": NAMES, f"{PYTHON} --runner": NAMES},
    "docs/cameras.md": {
        f"{PYTHON} names check": CAMERAS,
        f"{PYTHON} alerts test": CAMERAS,
        f"{PYTHON} --input": CAMERAS,
        f"{PYTHON} --runner DirectRunner": CAMERAS,
        ".venv/bin/uv pip install": "not here: what it installs is there",
        ".venv/bin/python -m pyftpdlib": CAMERAS,
        ".venv/bin/python examples/mail_to_folder.py": CAMERAS,
        "curl": CAMERAS,
        "TZ=UTC ffmpeg": CAMERAS,
    },
    "docs/report.md": {f"{PYTHON} report": SAMPLES},
    "docs/health.md": {f"{PYTHON} health": SAMPLES},
    "docs/backtest.md": {
        f"{PYTHON} pack": SAMPLES,
        f"{PYTHON} backtest": SAMPLES,
        f"{PYTHON} export": SAMPLES,
    },
    "docs/evaluate.md": {
        f"{PYTHON} evaluate": SAMPLES,
        f"{PYTHON} tune": SAMPLES,
        ".venv/bin/python -m benchmarks.real_cameras": "not here: "
        "test_real_cameras_benchmark.py runs it on a few images",
    },
    "docs/marks.md": {
        f"{PYTHON} alerts mark": SAMPLES,
        f"{PYTHON} marks": SAMPLES,
        f"{PYTHON} rules propose": SAMPLES,
        f"{PYTHON} evaluate": SAMPLES,
        f"{PYTHON} tune": SAMPLES,
    },
    "docs/console.md": {f"{PYTHON} serve": CONSOLE},
    "docs/retention.md": {f"{PYTHON} prune": SAMPLES},
    "docs/benchmarks.md": {
        "make bench": "not here: it measures for minutes, alone on the machine",
        "make bench-stream": "not here: it measures for minutes, alone on the machine",
        "make bench-backtest": "not here: it measures for minutes, alone on the machine",
        "make bench-listing": "not here: test_listing_benchmark.py lists fewer files",
        ".venv/bin/uv pip install": "not here: tests need no obstore",
        ".venv/bin/python -m benchmarks.s3_clients": "not here: "
        "test_s3_clients_benchmark.py runs the part that needs no quiet machine",
        ".venv/bin/python -m tests.rules.drawn_day": "not here: test_drawn_day.py does fewer days",
    },
    "docs/scale.md": {
        ".venv/bin/python -m benchmarks.cost": COST,
        "make bench-scale": "not here: test_scale.py measures a small fleet",
    },
    "docs/flink.md": {
        "make flink-up": "not here: the session's cluster is started by the same program",
        f"{PYTHON} $(make -s flink-args) --output": BATCH,
        "make flink-down": "not here: the session's cluster is stopped by the same program",
        f"{PYTHON} --runner FlinkRunner --flink_master '[local]'": BATCH,
        f"{PYTHON} $(make -s flink-args) --streaming --input": STREAM,
        "JOB=": STREAM,
        "curl": STREAM,
        "until": STREAM,
        "ls": STREAM,
        f"{PYTHON} $(make -s flink-args) --streaming …": STREAM,
    },
}
"""Which file of tests runs a command, by how it begins; or why none does."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      page: Where it stands, from the checkout on.
      text: The command with its lines joined, without the comment behind it.
    """

    page: str
    text: str

    @property
    def where(self) -> str | None:
        """Which file of tests runs it, or why none does; None where nobody has said."""
        begins = [start for start in WHERE[self.page] if self.text.startswith(start)]
        return WHERE[self.page][max(begins, key=len)] if begins else None


def commands(page: str) -> list[Command]:
    """The commands of a page, in their order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    lines = [
        re.sub(r"(^|\s+)#\s.*", "", line)
        for block in blocks
        for line in re.sub(r"\\\n\s*", "", block).splitlines()
    ]
    return [Command(page, re.sub(r" +", " ", line)) for line in lines if line]


def run_by(file: str, *pages: str) -> list[Command]:
    """The commands that a file of tests runs."""
    return [
        command for page in pages or PAGES for command in commands(page) if command.where == file
    ]


def substituted(text: str, replacements: Mapping[str, str]) -> str:
    """A command with other places in it: each must be there."""
    for written, here in replacements.items():
        assert written in text, (written, text)
        text = text.replace(written, here)
    return text


def make_checkout(folder: Path, interpreter: Path = Path(sys.executable)) -> None:
    """What commands need of a checkout, so that they can write into it.

    Args:
      folder: Where to make it.
      interpreter: What its `.venv/bin/python` calls.
    """
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    environment = folder / ".venv"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(str(interpreter))} "$@"\n')
    python.chmod(0o755)
    (environment / ".ready").touch()  # Newer than what it is made from, by `make`.


def shell(
    text: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a command as a person's shell does."""
    return subprocess.run(
        ["bash", "-uo", "pipefail", "-c", text],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
