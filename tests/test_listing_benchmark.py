"""`python -m benchmarks.listing`, with a small folder and no bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.listing import main


def test_a_backlog_is_emitted_and_then_nothing_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--files", "3000", "--objects", "0", "--parts", "2", "--folder", str(tmp_path)])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [name for name, _ in lines] == [
        "backlog of 3,000 files in one folder, files/s",
        "listing in which nothing has come, once a minute, ms",
        "look in which nothing has come, ms",
        "memory for all of this, MiB",
        "memory of the process before, MiB",
        "state after the backlog, MiB",
        "look at 30 folders in which nothing has come, ms",
        "look at 30 folders in which nothing has come, 2 parts in a process each, ms",
        "look at 30 folders in which nothing has come, 2 parts in threads of one process, ms",
        "look in which an image has come into each twelfth, ms",
        "look in which an image has come into each twelfth, 2 parts in a process each, ms",
        "look in which an image has come into each twelfth, 2 parts in threads of one process, ms",
    ]
    assert list(tmp_path.iterdir()) == []
