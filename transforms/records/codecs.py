"""Versioned codecs for the data of a runner: state, restrictions, and records between steps.

A savepoint outlives the release that wrote it. A pickle names classes and modules, so that moving
one loses the state; these codecs write a version and plain MessagePack in its place:

    >>> coder = VersionedCoder(Position)
    >>> coder.encode(Position(3))
    b'\\x01\\x81\\xa6offset\\x03'

A field that is added with a default needs no new version: older bytes are read with the default.
Any other change takes a new version, and a function that turns the older form into the next one.
The bytes of each release are kept in `tests/golden/`, and a test reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar, cast

import apache_beam as beam
import msgspec

T = TypeVar("T")

_LARGEST_VERSION = 127

_NOT_UNICODE = 1
"""The extension type of a text with lone surrogates, as in a file name that is not UTF-8."""


class UnknownVersionError(ValueError):
    """The bytes were written by a later release, or are no record."""


class VersionedCoder(beam.coders.Coder, Generic[T]):
    """Encodes a record as one byte of version, then MessagePack.

    Args:
      record: The type to decode: a dataclass, or any type that msgspec converts to.
      version: The version of what is written now, from 1 to 127.
      upgrades: For each earlier version that may still lie in a savepoint, a function from its
        plain form (dicts, lists, numbers, strings) to that of the next version.
      pack: Returns the plain form of a record; by default a dict of its fields.
      unpack: Returns the record of a plain form; by default the fields are checked against their
        types.
    """

    def __init__(
        self,
        record: Any,
        *,
        version: int = 1,
        upgrades: Mapping[int, Callable[[Any], Any]] | None = None,
        pack: Callable[[T], Any] | None = None,
        unpack: Callable[[Any], T] | None = None,
    ) -> None:
        if not 1 <= version <= _LARGEST_VERSION:
            raise ValueError(f"version is {version}; it must be from 1 to {_LARGEST_VERSION}")
        missing = set(range(1, version)) - set(upgrades or {})
        if missing:
            raise ValueError(f"no upgrade from version {min(missing)} of {record}")
        self._record = record
        self._version = version
        self._upgrades = dict(upgrades or {})
        self._pack = pack
        self._unpack = unpack

    def encode(self, value: T) -> bytes:
        """Encodes a record; equal records have equal bytes."""
        plain = value if self._pack is None else self._pack(value)
        try:
            encoded = msgspec.msgpack.encode(plain)
        except UnicodeEncodeError:
            encoded = msgspec.msgpack.encode(_without_surrogates(plain))
        return bytes((self._version,)) + encoded

    def decode(self, encoded: bytes) -> T:
        """Decodes a record that this or an earlier release has written.

        Raises:
          UnknownVersionError: A later release has written the bytes.
          msgspec.ValidationError: The bytes are no such record.
        """
        version = encoded[0] if encoded else 0
        if not 1 <= version <= self._version:
            raise UnknownVersionError(
                f"state of version {version} can't be read; this release reads versions 1 to "
                f"{self._version}: use the release that wrote it, or a later one"
            )
        plain = msgspec.msgpack.decode(encoded[1:], ext_hook=_read_extension)
        for older in range(version, self._version):
            plain = self._upgrades[older](plain)
        if self._unpack is not None:
            return self._unpack(plain)
        return cast(T, msgspec.convert(plain, self._record, builtin_types=(bytes,)))

    def is_deterministic(self) -> bool:
        """Returns True: equal records have equal bytes."""
        return True


def keep_plain(plain: Any) -> Any:
    """Returns the plain form as it is: an upgrade to a version that adds fields with defaults."""
    return plain


def pack_fields(record: Any, encoded_names: Mapping[str, str]) -> dict[str, Any]:
    """Returns the plain form of a dataclass some of whose fields were renamed after a release.

    Args:
      record: The record.
      encoded_names: For each renamed field, the name under which it is still encoded.
    """
    return {
        encoded_names.get(field.name, field.name): getattr(record, field.name)
        for field in fields(record)
    }


def unpack_fields(plain: Mapping[str, Any], record: type[T], encoded_names: Mapping[str, str]) -> T:
    """Returns the record of the plain form that :func:`pack_fields` returns.

    Args:
      plain: The plain form.
      record: The type.
      encoded_names: See :func:`pack_fields`.
    """
    names = {encoded: name for name, encoded in encoded_names.items()}
    renamed = {names.get(key, key): value for key, value in plain.items()}
    return msgspec.convert(renamed, record, builtin_types=(bytes,))


def register_record(
    record: type[T],
    *,
    version: int = 1,
    upgrades: Mapping[int, Callable[[Any], Any]] | None = None,
    pack: Callable[[T], Any] | None = None,
    unpack: Callable[[Any], T] | None = None,
) -> VersionedCoder[T]:
    """Registers a versioned coder with Beam for the elements of a type.

    Args:
      record: The type.
      version: See :class:`VersionedCoder`.
      upgrades: See :class:`VersionedCoder`.
      pack: See :class:`VersionedCoder`.
      unpack: See :class:`VersionedCoder`.
    """
    coder = VersionedCoder[T](record, version=version, upgrades=upgrades, pack=pack, unpack=unpack)

    class _Registered(beam.coders.Coder):
        """A factory for the coder, as Beam's registry requires a class."""

        @classmethod
        def from_type_hint(cls, typehint: Any, registry: Any) -> VersionedCoder[T]:
            return coder

    beam.coders.registry.register_coder(record, _Registered)
    return coder


def _without_surrogates(plain: Any) -> Any:
    """Replaces each text that is not Unicode by an extension; keys are Unicode."""
    return _replace_texts(msgspec.to_builtins(plain, builtin_types=(bytes,)))


def _replace_texts(plain: Any) -> Any:
    if isinstance(plain, str):
        try:
            plain.encode()
        except UnicodeEncodeError:
            return msgspec.msgpack.Ext(_NOT_UNICODE, plain.encode("utf-8", "surrogatepass"))
        return plain
    if isinstance(plain, dict):
        return {key: _replace_texts(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple | set | frozenset):
        return [_replace_texts(item) for item in plain]
    return plain


def _read_extension(code: int, data: memoryview) -> str:
    if code != _NOT_UNICODE:
        raise UnknownVersionError(
            f"state with an extension of type {code} can't be read: use the release that wrote it, "
            f"or a later one"
        )
    return bytes(data).decode("utf-8", "surrogatepass")
