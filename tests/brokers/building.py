"""Builds a server that a test needs, once, into the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.absent import give_up


def need(*programs: str, what: str) -> None:
    """Skips a test for which a program is missing; under CI that is a failure."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        give_up(f"no {what} here: no {' and no '.join(missing)} on the PATH")


def built(name: str, recipe: Sequence[Path], command: Sequence[str]) -> Path:
    """The folder into which a recipe was built.

    Args:
      name: Of what is built.
      recipe: The files that are copied to where it is built; they name the result.
      command: Builds it into the folder `built`, from within the copies' folder.
    """
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in recipe)).hexdigest()[:12]
    folder = Path("~/.cache/beam_pipeline").expanduser() / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Tests of several processes may all be the first.
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                for file in recipe:
                    shutil.copy(file, temporary)
                answer = subprocess.run(
                    command, cwd=temporary, capture_output=True, text=True, check=False
                )
                if answer.returncode != 0:
                    give_up(f"no {name} here: {(answer.stderr or answer.stdout)[-500:]}")
                (Path(temporary) / "built").rename(folder)
    return folder
