"""Real object stores, one of each kind for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from tests.absent import give_up
from tests.stores.bucket import Bucket
from tests.stores.servers import NoServerError, Proxy, Server, gcs, s3proxy


def _serve(make: Callable[[], AbstractContextManager[Server]]) -> Iterator[Server]:
    try:
        with make() as server:
            yield server
    except NoServerError as error:
        give_up(str(error))


@pytest.fixture(scope="session")
def s3proxy_server() -> Iterator[Server]:
    yield from _serve(s3proxy)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Server]:
    yield from _serve(gcs)


@pytest.fixture(params=["moto", "s3proxy", "gcs"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the stores in turn."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def bucket(server: Server, tmp_path: Path) -> Bucket:
    """An empty bucket, in each of the stores in turn."""
    return Bucket.make(server, tmp_path.name)


@pytest.fixture
def moto_bucket(moto_server: Server, tmp_path: Path) -> Bucket:
    """An empty bucket, in one S3."""
    return Bucket.make(moto_server, tmp_path.name)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Server], None]]:
    """Makes this process reach a store, as a job's does by its options and environment."""
    before: Any = FileSystems._pipeline_options

    def reach(server: Server) -> None:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        FileSystems.set_options(PipelineOptions(list(server.options)))

    yield reach
    FileSystems.set_options(before)


@pytest.fixture
def proxy() -> Iterator[Callable[[Server], Proxy]]:
    """Puts a proxy before a store."""
    started: list[Proxy] = []

    def stand_before(server: Server) -> Proxy:
        new_proxy = Proxy(server)
        new_proxy.__enter__()
        started.append(new_proxy)
        return new_proxy

    yield stand_before
    for started_proxy in started:
        started_proxy.__exit__()
