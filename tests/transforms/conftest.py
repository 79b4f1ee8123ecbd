"""What the tests of the steps share."""

from collections.abc import Iterator

import pytest

from tests.transforms import memory_store
from tests.transforms.web_service import WebService


@pytest.fixture
def memory() -> Iterator[dict[str, bytes]]:
    """The objects of an empty object store under `memory://`."""
    yield memory_store.OBJECTS
    memory_store.OBJECTS.clear()
    memory_store.UNREADABLE.clear()


@pytest.fixture
def web() -> Iterator[WebService]:
    """A web server of this machine, on a free port, for one test."""
    with WebService() as service:
        yield service
