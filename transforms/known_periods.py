"""What a stream knows of the capture times of a camera, by periods of 15 minutes.

A runner spends some 400 bytes on each key that has state and a timer. So all capture times of a
camera in one period share a key, and their entries are appended to one bag: an image reads the
entries of its period and writes one.

Most capture times have one image, and it is valid. Its entry is a :class:`FirstImage` of some 40
bytes: enough to find its verdict in the output, and to tell it from others. If another file claims
the capture time, the first image is read back, and from then on the entry holds all that is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import msgspec
from apache_beam.utils.timestamp import Timestamp

from transforms.count_threats import CountedImage, CountTally, event_time, tally_image
from transforms.records.codecs import VersionedCoder
from transforms.records.images import JudgedImage
from transforms.records.precedence import CAPTURE_TIMES, CaptureTime, Version, key_of
from transforms.repositories import read_final
from transforms.storage import stores

_PERIOD = 900_000_000
"""The length of a period in microseconds. It is part of the keys of a stream's state."""

_SHA256_BYTES = 8
_OFFSET_BYTES = 4
_FIRST, _ALL, _PASSED = b"\x01", b"\x02", b"\x03"
_FEW = 16


@dataclass(frozen=True)
class PassedOn:
    """Says of a capture time that its files are handed on to a later step."""


@dataclass(frozen=True)
class FirstImage:
    """What is kept of the only image of a capture time, if it is valid.

    Attributes:
      sha256: The first 8 bytes of its sha256.
      stem: The name of its JSON files, without the camera and extension; None if it follows from
        the capture time.
      changed: When its file was changed; None if unknown.
      labels: Its threats by label.
      alerts: Whether its severity is `alert`.
      covered_since: That of its verdict.
    """

    sha256: bytes
    stem: str | None = None
    changed: float | None = None
    labels: tuple[tuple[str, int], ...] = ()
    alerts: bool = False
    covered_since: int | None = None

    @classmethod
    def of(cls, judged: JudgedImage) -> FirstImage:
        """Returns what is kept of an image."""
        image = judged.image
        stem = image.stem.removeprefix(f"{image.id}_")
        tally = tally_image(judged)
        return cls(
            bytes.fromhex(image.sha256)[:_SHA256_BYTES],
            None if stem == stores.time_in_name(image.timestamp) else stem,
            image.changed,
            tuple(tally["by_label"].items()),
            bool(tally["alerts"]),
            judged.verdict.covered_since,
        )

    def is_of(self, judged: JudgedImage | None) -> bool:
        """Returns whether an image has the same bytes."""
        return judged is not None and judged.image.sha256.startswith(self.sha256.hex())

    def counted(self, camera: str, timestamp: str) -> CountedImage:
        """Returns what the image has added to the counts.

        Args:
          camera: The camera's id.
          timestamp: The capture time, canonical.
        """
        threats = sum(number for _, number in self.labels)
        tally: CountTally = {
            "images": 1,
            "threat_images": int(threats > 0),
            "threats": threats,
            "alerts": int(self.alerts),
            "by_label": Counter(dict(self.labels)),
            "retracted": 0,
        }
        return CountedImage(camera, timestamp, tally)

    def found_in(self, output: str, camera: str, timestamp: str) -> JudgedImage | None:
        """Reads the image with its verdict from `final/`; None if it is not there.

        Args:
          output: The job's output.
          camera: The camera's id.
          timestamp: The capture time, canonical.

        Raises:
          OSError: The verdict can't be read.
        """
        stem = stores.time_in_name(timestamp) if self.stem is None else self.stem
        stored = read_final(stores.final_uri(output, camera, f"{camera}_{stem}"))
        if stored is None or not self.is_of(stored):
            return None
        image = replace(stored.image, changed=self.changed, is_contested=True)
        return JudgedImage(image, replace(stored.verdict, covered_since=self.covered_since))

    def spare_uri(self, output: str, camera: str, timestamp: str) -> str:
        """Returns the address of the spare copy of its verdict."""
        return stores.spare_verdict_uri(output, camera, timestamp, self.sha256.hex())


def _pack_first(image: FirstImage) -> list[Any]:
    """Returns the values in the order of the fields, up to the last one that is not the default."""
    values = list(astuple(image))
    defaults = [field.default for field in fields(image)]
    while values and values[-1] == defaults[len(values) - 1]:
        values.pop()
    return values


def _unpack_first(plain: list[Any]) -> FirstImage:
    names = (field.name for field in fields(FirstImage))
    return msgspec.convert(
        dict(zip(names, plain, strict=False)), FirstImage, builtin_types=(bytes,)
    )


FIRST_IMAGES: VersionedCoder[FirstImage] = VersionedCoder(
    FirstImage, pack=_pack_first, unpack=_unpack_first
)
"""Encodes what is kept of the only image of a capture time, as a stream's state."""


def period_of(version: Version) -> str:
    """Returns the key of the camera and period that a version belongs to."""
    camera, timestamp = key_of(version).split("\n")
    return f"{camera}\n{event_time(timestamp).micros // _PERIOD}"


def end_of_period(period: str) -> Timestamp:
    """Returns the end of a period.

    Args:
      period: Its key.
    """
    return Timestamp(micros=(int(period.split("\n")[1]) + 1) * _PERIOD)


class KnownPeriod:
    """The entries of one period, in a bag of a runner's state.

    An entry that is written later replaces the one of its capture time. Entries that were replaced
    are dropped from the bag from time to time.

    Args:
      bag: The bag, of bytes.
      keeps_verdicts: Whether the entry of a first image holds all that is known, too.
    """

    def __init__(self, bag: Any, *, keeps_verdicts: bool = False) -> None:
        self._bag = bag
        self._keeps_verdicts = keeps_verdicts
        self._length = 0
        self._entries: dict[bytes, bytes] = {}
        for entry in bag.read():
            self._length += 1
            self._entries[entry[:_OFFSET_BYTES]] = entry

    def get(self, timestamp: str) -> FirstImage | CaptureTime | PassedOn | None:
        """Returns what is known of a capture time; None if it is unknown.

        Args:
          timestamp: The capture time, canonical.
        """
        entry = self._entries.get(_offset(timestamp))
        return None if entry is None else _decode(entry)

    def put(self, timestamp: str, known: CaptureTime) -> None:
        """Writes what is known of a capture time; of a first image, only what finds its verdict.

        Args:
          timestamp: The capture time, canonical.
          known: What is known.
        """
        offset = _offset(timestamp)
        is_small = not self._keeps_verdicts and _is_of_first_image(known)
        self._put(offset, _encode_first(known) if is_small else _encode(known))

    def pass_on(self, timestamp: str) -> None:
        """Writes that the files of a capture time are handed on to a later step.

        Args:
          timestamp: The capture time, canonical.
        """
        self._put(_offset(timestamp), _PASSED)

    def _put(self, offset: bytes, known: bytes) -> None:
        entry = offset + known
        if self._entries.get(offset) == entry:
            return
        self._entries[offset] = entry
        if self._length >= 2 * len(self._entries) + _FEW:
            self._bag.clear()
            self._length = 0
            for kept in self._entries.values():
                self._add(kept)
        else:
            self._add(entry)

    def _add(self, entry: bytes) -> None:
        self._bag.add(entry)
        self._length += 1

    def complete(self) -> Iterator[CaptureTime]:
        """Yields what is known of each capture time whose entry holds all."""
        for entry in list(self._entries.values()):
            known = _decode(entry) if entry[_OFFSET_BYTES:].startswith(_ALL) else None
            if isinstance(known, CaptureTime):
                yield known


def _offset(timestamp: str) -> bytes:
    micros: int = event_time(timestamp).micros
    return (micros % _PERIOD).to_bytes(_OFFSET_BYTES, "big")


def _is_of_first_image(known: CaptureTime) -> bool:
    return (
        known.counted
        and known.winner is not None
        and len(known.versions) == 1
        and not (known.is_kept or known.waiting or known.replaced)
    )


def _encode_first(known: CaptureTime) -> bytes:
    assert known.winner is not None
    return _FIRST + FIRST_IMAGES.encode(FirstImage.of(known.winner))


def _encode(known: CaptureTime) -> bytes:
    return _ALL + CAPTURE_TIMES.encode(known)


def _decode(entry: bytes) -> FirstImage | CaptureTime | PassedOn:
    kind, encoded = entry[_OFFSET_BYTES : _OFFSET_BYTES + 1], entry[_OFFSET_BYTES + 1 :]
    if kind == _PASSED:
        return PassedOn()
    return FIRST_IMAGES.decode(encoded) if kind == _FIRST else CAPTURE_TIMES.decode(encoded)
