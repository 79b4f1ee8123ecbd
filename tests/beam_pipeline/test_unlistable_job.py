"""Folders that can't be listed, and links, through the whole batch job."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from beam_pipeline import bundled
from tests.beam_pipeline.conftest import jpeg
from tests.conftest import Command

_PR_CAPBSET_DROP = 24


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Case 2 of those that failed: one folder that may be read, one that may not, and a link."""
    source, outside = tmp_path / "in", tmp_path / "outside"
    for folder, camera in (
        (source / "ok", "hall"),
        (source / "locked", "attic"),
        (outside, "yard"),
    ):
        folder.mkdir(parents=True)
        (folder / f"{camera}_20260131T120000Z.jpg").write_bytes(jpeg())
    (source / "gate").symlink_to(outside)
    return source


def _may_not_do_all() -> None:
    """Takes from root what lets it read any folder (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability)


def run_as_a_user(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The job as a user for whom permissions hold."""
    return subprocess.run(
        [sys.executable, "-m", "beam_pipeline", *map(os.fspath, arguments)],
        cwd=folder,
        preexec_fn=_may_not_do_all if os.getuid() == 0 else None,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_an_unlistable_folder_is_logged_and_counted_and_fails_the_job_after_the_rest(
    tmp_path: Path, images: Path
) -> None:
    locked = images / "locked"
    locked.chmod(0o000)
    finished = run_as_a_user(
        tmp_path, "--input", images, "--output", tmp_path / "out", "--model", "bundled"
    )
    locked.chmod(0o700)
    assert finished.returncode == 1
    assert f"{locked} can't be listed: Permission denied" in finished.stderr
    assert f"{images / 'gate'} is a link to a folder, or leads out of --input" in finished.stderr
    assert finished.stderr.splitlines()[-1] == (
        f"some folders in --input {images} can't be listed, and what is in them "
        "was not judged; let this user read and enter them, and run the same command with --resume"
    )
    summary = dict(line.split("  ", 1) for line in finished.stdout.splitlines())
    assert summary["not listed"].strip() == (
        f"1 (folders in {images} that can't be listed; the log names them)"
    )
    assert summary["links"].strip() == "1 skipped; --follow_links follows them"
    assert [path.name for path in (tmp_path / "out" / "final").iterdir()] == ["hall"]
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("locked", ["in", "in/ok"])
def test_an_input_that_may_not_be_read_is_a_wrong_set_up_that_names_the_permission(
    tmp_path: Path, locked: str
) -> None:
    source = tmp_path / "in" / "ok"
    source.mkdir(parents=True)
    (source / "hall_20260131T120000Z.jpg").write_bytes(jpeg())
    (tmp_path / locked).chmod(0o000)
    finished = run_as_a_user(
        tmp_path, "--input", source, "--output", tmp_path / "out", "--model", "bundled"
    )
    (tmp_path / locked).chmod(0o700)
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[-1] == (
        f"beam_pipeline: --input {source}: can't be listed (Permission denied); let this user read "
        "and enter it, or run the job as a user with these permissions"
    )


def test_links_are_followed_on_request(command: Command, images: Path, tmp_path: Path) -> None:
    (images / "ok" / "round").symlink_to(images)
    finished = command(
        *("--input", images, "--follow_links", "--model", str(bundled.BUNDLED_MODEL)),
        *("--output", tmp_path / "out"),
    )
    assert finished.code == 0, finished.err
    assert {path.name for path in (tmp_path / "out" / "final").iterdir()} == {
        *("attic", "hall", "yard")
    }
    assert "skipped" not in finished.out


def test_a_folder_of_links_alone_says_which_option_follows_them(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "gate").symlink_to(tmp_path)
    finished = command("--input", tmp_path / "in", "--model", str(bundled.BUNDLED_MODEL))
    assert finished.code == 2
    assert "contains no files, only 1 links, which --follow_links follows" in finished.err
