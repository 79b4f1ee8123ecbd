"""VersionedCoder: what one release writes, later ones read."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.codecs import (
    UnknownVersionError,
    VersionedCoder,
    pack_fields,
    register_record,
    unpack_fields,
)


@dataclass(frozen=True)
class Position:
    offset: int
    lately: tuple[tuple[float, bytes], ...] = ()
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartitionOffset:
    partition: int
    offset: int


_POSITIONS = st.builds(
    Position,
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.tuples(st.floats(allow_nan=False), st.binary())).map(tuple),
    st.lists(st.text(st.characters(exclude_categories=()))).map(tuple),
)


@given(_POSITIONS)
def test_any_record_is_read_as_it_was_written(position: Position) -> None:
    coder = VersionedCoder(Position)
    assert coder.decode(coder.encode(position)) == position


@given(_POSITIONS, st.integers(0, 200))
def test_cut_bytes_are_refused_and_never_read_as_another_record(
    position: Position, cut: int
) -> None:
    encoded = VersionedCoder(Position).encode(position)
    if cut < len(encoded):
        with pytest.raises((UnknownVersionError, msgspec.DecodeError)):
            VersionedCoder(Position).decode(encoded[:cut])


def test_the_bytes_begin_with_the_version() -> None:
    assert (
        VersionedCoder(PartitionOffset).encode(PartitionOffset(1, 2))
        == b"\x01\x82\xa9partition\x01\xa6offset\x02"
    )


def test_a_field_that_was_added_with_a_default_is_read_from_older_bytes() -> None:
    assert VersionedCoder(Position).decode(b"\x01\x81\xa6offset\x05") == Position(5)


def test_a_renamed_field_is_encoded_under_its_old_name() -> None:
    names = {"partition": "shard"}
    coder = VersionedCoder[PartitionOffset](
        PartitionOffset,
        pack=lambda record: pack_fields(record, names),
        unpack=lambda plain: unpack_fields(plain, PartitionOffset, names),
    )
    encoded = b"\x01\x82\xa5shard\x01\xa6offset\x02"
    assert coder.encode(PartitionOffset(1, 2)) == encoded
    assert coder.decode(encoded) == PartitionOffset(1, 2)


def test_older_versions_are_upgraded_one_by_one() -> None:
    coder = VersionedCoder(
        PartitionOffset,
        version=3,
        upgrades={
            1: lambda plain: {"offset": plain},  # Version 1 was the bare offset.
            2: lambda plain: {"partition": 7, **plain},
        },
    )
    assert coder.decode(b"\x01\x05") == PartitionOffset(7, 5)
    assert coder.decode(b"\x02\x81\xa6offset\x06") == PartitionOffset(7, 6)
    assert coder.decode(coder.encode(PartitionOffset(8, 9))) == PartitionOffset(8, 9)


def test_bytes_of_a_later_release_are_refused_with_the_remedy() -> None:
    with pytest.raises(UnknownVersionError, match=r"version 2 can't be read.*use the release"):
        VersionedCoder(PartitionOffset).decode(b"\x02\x80")


@pytest.mark.parametrize("version", [0, 128])
def test_versions_are_from_1_to_127(version: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 127"):
        VersionedCoder(PartitionOffset, version=version)


def test_a_version_without_an_upgrade_from_the_previous_one_is_refused() -> None:
    with pytest.raises(ValueError, match="no upgrade from version 2"):
        VersionedCoder(PartitionOffset, version=3, upgrades={1: lambda plain: plain})


def test_a_packed_form_replaces_named_fields() -> None:
    coder = VersionedCoder(
        PartitionOffset,
        pack=lambda first: [first.partition, first.offset],
        unpack=lambda plain: PartitionOffset(*plain),
    )
    assert coder.encode(PartitionOffset(1, 2)) == b"\x01\x92\x01\x02"
    assert coder.decode(b"\x01\x92\x01\x02") == PartitionOffset(1, 2)


@pytest.mark.parametrize("text", ["gate\udce9.jpg", "\ud800", "plain"])
def test_a_text_that_is_not_unicode_is_kept_as_it_is(text: str) -> None:
    coder = VersionedCoder(Position)
    position = Position(1, ((0.5, b"\xff"),), (text, "beside"))
    assert coder.decode(coder.encode(position)) == position


def test_an_extension_of_a_later_release_is_refused_with_the_remedy() -> None:
    with pytest.raises(UnknownVersionError, match=r"an extension of type 9 can't be read.*use the"):
        VersionedCoder(PartitionOffset).decode(b"\x01\xd4\x09\x00")


def test_a_registered_coder_writes_the_elements_of_its_type() -> None:
    coder = register_record(PartitionOffset, version=2, upgrades={1: lambda plain: plain})
    registered = beam.coders.registry.get_coder(PartitionOffset)
    assert registered == coder
    assert registered.encode(PartitionOffset(1, 2))[:1] == b"\x02"
    assert registered.is_deterministic()
