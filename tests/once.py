"""What is dear to make is made once for all processes of a test run (pytest-xdist's workers)."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

_PLACE = "BEAM_PIPELINE_TESTS_PLACE"


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def begin(config: pytest.Config) -> None:
    """Makes the directory that the processes of a run share; workers inherit its name."""
    if not _is_worker(config):
        os.environ[_PLACE] = tempfile.mkdtemp(prefix="tests-")


def end(config: pytest.Config, **removes: Callable[[Path], object]) -> None:
    """Removes it after the last process, also where that was killed.

    Args:
      config: Of the process.
      removes: What to do first with directories that hold more than files, by how they begin.
    """
    if _is_worker(config):
        return
    root = Path(os.environ.pop(_PLACE))
    for name, remove in removes.items():
        for folder in root.glob(f"{name}*"):
            if folder.is_dir():
                remove(folder)
    shutil.rmtree(root)


def path(name: str) -> Path:
    """Where something is made, or will be."""
    return Path(os.environ[_PLACE], name)


def once(name: str, make: Callable[[Path], None]) -> Path:
    """A directory that was filled in this process, or before in another, which is waited for.

    Args:
      name: Of the directory.
      make: Fills it.

    Raises:
      AssertionError: That failed in another process; it is not tried again.
    """
    made = path(name)
    done, failed = made.with_suffix(".done"), made.with_suffix(".failed")
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not failed.exists(), failed.read_text(encoding="utf-8")
        if not done.exists():
            made.mkdir()
            try:
                make(made)
            except BaseException as error:
                failed.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
                raise
            done.touch()
    return made
