"""How pytest-xdist shares the tests out to its workers: which stay together, and which come first.

Tests that stay together start a server once. The tests of Flink are too long for one lane, and
share two. What takes longest comes first, so that no worker is left with it at the end; but the
tests of the images come last, as the images are built meanwhile.
"""

from __future__ import annotations

from typing import Any

import pytest

# Folders and files, in the order in which they begin; all others come after these.
_FIRST = (
    "tests/soak/test_soak.py",
    "tests/flink/test_stream.py",
    "tests/flink/",
    "tests/stores/",
    "tests/beam_pipeline/fleet/test_waiting_alerts_job.py",
    "tests/beam_pipeline/test_resume_job.py",
    "tests/beam_pipeline/test_samples_job.py",
    "tests/deploy/test_pachyderm.py",
    "tests/test_installed.py",
)
_LAST = "tests/deploy/test_image.py"


def lane(nodeid: str) -> str:
    """What a test stays together with: a folder, its file, or nothing but itself."""
    if nodeid.startswith(_LAST):
        return nodeid
    file = nodeid.split("::")[0]
    return next((prefix for prefix in _FIRST if file.startswith(prefix)), file)


def turn(nodeid: str) -> int:
    """When a test comes: those with the same number as they were collected."""
    if nodeid.startswith(_LAST):
        return len(_FIRST) + 1
    return next((at for at, prefix in enumerate(_FIRST) if nodeid.startswith(prefix)), len(_FIRST))


def scheduler(config: pytest.Config, log: Any) -> Any:
    """The scheduler that keeps to this, where `--dist loadscope` is asked for."""
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return lane(nodeid)

    if config.option.dist != "loadscope":
        return None
    config.option.loadscopereorder = False
    return Lanes(config, log)
