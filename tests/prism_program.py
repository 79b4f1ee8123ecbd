"""The program of Prism, which `make prism` builds once on a machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from beam_pipeline.runners.prism import built_program
from tests import documented
from tests.absent import give_up
from tests.once import once


def prism_program() -> Path:
    """Returns its path; gives the test up where it can't be built."""
    if not built_program().exists() and shutil.which("go") is None:
        give_up("no Go is here: it builds Prism")
    once("prism", _build)  # Processes that build it at the same time compile everything twice.
    return built_program()


def _build(_folder: Path) -> None:
    if not built_program().exists():
        make, _ = documented.run_by(documented.PRISM)
        environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
        subprocess.run(shlex.split(make.text), cwd=documented.ROOT, env=environment, check=True)
