"""The images are built while other tests run, and what needs them comes last."""

from __future__ import annotations

import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.absent import give_up
from tests.deploy.images import Images, missing

_BUILT = pytest.StashKey[tuple[Images, "Future[None]"]]()


def _needs_images(item: pytest.Item) -> bool:
    return "images" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_needs_images)


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = any(map(_needs_images, session.items)) and not session.config.option.collectonly
    if wanted and not missing():
        images = Images(Path(tempfile.mkdtemp(prefix="images-")))
        building = ThreadPoolExecutor(1).submit(_build, images)
        session.config.stash[_BUILT] = images, building


def _build(images: Images) -> None:
    images.make_bases()
    # The larger first: Maven is at work while pip is.
    images.build("submit", target="submit")
    images.build("job", target="job")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _BUILT in session.config.stash:
        images, building = session.config.stash[_BUILT]
        building.exception()  # Waits for the end, whatever it is.
        images.remove()


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> Images:
    """The images `job` and `submit`, and what they are made of."""
    lacking = missing()
    if lacking:
        give_up(f"images are built by buildah as root; this machine lacks {', '.join(lacking)}")
    made, building = request.config.stash[_BUILT]
    building.result()
    return made
