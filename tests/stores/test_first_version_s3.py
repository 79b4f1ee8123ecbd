"""Listing on an S3 server that knows ListObjects in its first version only, as Pachyderm's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline.sources.listing import list_images, match_remote
from beam_pipeline.sources.parts import parts_of
from tests.stores.first_version_s3 import FirstVersionS3
from transforms.storage import stores
from transforms.storage.object_stores import object_store

KEYS = [
    *(f"hall/hall_{number:04}.jpg" for number in range(21)),
    *("a b.jpg", "a+b&marker=c.jpg", "50%25.jpg", "garten/für=?.jpg", "<x>.jpg"),
]


@pytest.fixture
def server() -> Iterator[FirstVersionS3]:
    with FirstVersionS3() as started:
        started.objects["pictures"] = {key: key.encode() for key in KEYS}
        FileSystems.set_options(PipelineOptions(started.options))
        yield started
        FileSystems.set_options(PipelineOptions())


def listed(source: str) -> list[str]:
    return [file.uri.removeprefix("s3://pictures/") for file in list_images(source)]


@pytest.mark.parametrize("page", [1, 7, 13, 26, 1000])
def test_every_object_is_listed_once_whatever_the_size_of_a_page(
    server: FirstVersionS3, page: int
) -> None:
    server.page = page
    assert sorted(listed("s3://pictures")) == sorted(KEYS)
    markers = [query["marker"] for query in server.listed if "marker" in query]
    assert markers == sorted(KEYS)[page - 1 : -1 : page]


def test_a_folder_is_listed_over_several_pages(server: FirstVersionS3) -> None:
    server.page = 4
    assert listed("s3://pictures/hall") == KEYS[:21]
    assert listed("s3://pictures/hall/hall_001*") == KEYS[10:20]


@pytest.mark.parametrize("page", [3, 1000])
def test_the_parts_of_a_bucket_are_all_of_it(server: FirstVersionS3, page: int) -> None:
    """The server shows no folders, as it does not know that parameter."""
    server.page = page
    for number in (2, 3):
        parts = [match_remote("s3://pictures", part) for part in parts_of(number)]
        found = [file.path.removeprefix("s3://pictures/") for part in parts for file in part]
        assert sorted(found) == sorted(KEYS)


def test_what_holds_nothing_lists_nothing(server: FirstVersionS3) -> None:
    assert listed("s3://pictures/yard") == []


@pytest.mark.parametrize("page", [3, 1000])
def test_objects_are_listed_from_a_name_on(server: FirstVersionS3, page: int) -> None:
    server.page = page
    store = object_store("s3://pictures/")
    assert store is not None
    found = store.list("s3://pictures/hall/", f"s3://pictures/{KEYS[13]}")
    assert [file.path.removeprefix("s3://pictures/") for file in found] == KEYS[14:21]


def test_objects_are_read(server: FirstVersionS3) -> None:
    for key in KEYS:
        assert stores.read_bytes(f"s3://pictures/{key}") == key.encode()


def test_a_server_that_begins_anew_on_each_page_does_not_hold_a_job_for_ever(
    server: FirstVersionS3,
) -> None:
    server.page, server.heeds_marker = 5, False
    with pytest.raises(OSError, match="s3://pictures"):
        listed("s3://pictures")
    assert len(server.listed) < 10
