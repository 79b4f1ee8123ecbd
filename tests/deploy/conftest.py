"""The images are built while other tests run; those that need them come last (tests/lanes.py)."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.absent import give_up
from tests.deploy.images import Images, missing
from tests.once import once

_BUILT = pytest.StashKey[Future[Path]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    here = Path(__file__).parent
    wanted = any(
        item.path.parent == here and "images" in getattr(item, "fixturenames", ())
        for item in session.items
    )
    if wanted and not session.config.option.collectonly and not missing():
        # Of several workers the first builds, and the others wait for it, in this thread.
        building = ThreadPoolExecutor(1).submit(once, "images", _build)
        session.config.stash[_BUILT] = building


def _build(folder: Path) -> None:
    # Tests whose time is measured run beside it; on Linux this is the priority of a thread.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
    images = Images(folder)
    images.make_bases()
    # The larger first: Maven is at work while pip is.
    images.build("submit", target="submit")
    images.build("job", target="job")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _BUILT in session.config.stash:
        session.config.stash[_BUILT].exception()  # Waits for the end, whatever it is.


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> Images:
    """The images `job` and `submit`, and what they are made of."""
    lacking = missing()
    if lacking:
        give_up(f"images are built by buildah as root; this machine lacks {', '.join(lacking)}")
    return Images(request.config.stash[_BUILT].result())
