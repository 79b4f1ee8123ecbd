"""Decides which file of one camera and capture time wins, and what is kept of the others.

If a file is replaced by other bytes, these are a newer version of it, which replaces the older one.
Different files that claim one capture time are all judged: the most severe wins, then one whose
alert is not suppressed by a cooldown, then the one with the highest score, then the one with the
smallest sha256. The others are duplicates. The same bytes again change nothing.

:func:`add_version` is a pure function of what is known and of the new version. The winner is the
same in whatever order the files of a capture time arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transforms.records import reasons
from transforms.records.codecs import (
    VersionedCoder,
    keep_plain,
    pack_fields,
    register_record,
    unpack_fields,
)
from transforms.records.images import InvalidImage, JudgedImage

_MAX_REPLACED = 16
_SEVERITIES = {None: 0, "detection": 1, "alert": 2}


@dataclass(frozen=True)
class Version:
    """The result of one version of the file at one address: one of the two.

    Attributes:
      judged: The image with its verdict, if it is valid.
      invalid: The record, without bytes, if it is not.
    """

    judged: JudgedImage | None = None
    invalid: InvalidImage | None = None

    @property
    def uri(self) -> str:
        """The address."""
        if self.judged is not None:
            return self.judged.image.uri
        assert self.invalid is not None
        return self.invalid.file.uri

    @property
    def name(self) -> str:
        """The name under which it is stored."""
        if self.judged is not None:
            return self.judged.image.stored_name
        assert self.invalid is not None
        return self.invalid.stored_name

    @property
    def sha256(self) -> str | None:
        """The hash of the bytes; None if they were not read."""
        if self.judged is not None:
            return self.judged.image.sha256
        assert self.invalid is not None
        return self.invalid.sha256

    @property
    def changed(self) -> float | None:
        """When the file was changed, by its store; None if that is not known."""
        if self.judged is not None:
            return self.judged.image.changed
        assert self.invalid is not None
        return self.invalid.file.changed

    @property
    def reason(self) -> str | None:
        """Why it is invalid; None for a valid one."""
        return None if self.invalid is None else self.invalid.reason

    @property
    def stream_time(self) -> str | None:
        """The event time of the stream when the file was listed."""
        if self.judged is not None:
            return self.judged.image.stream_time
        assert self.invalid is not None
        return self.invalid.file.stream_time

    @property
    def content(self) -> tuple[str, str | None, str | None]:
        """Equal for versions that are the same image for the same reason."""
        return self.name, self.reason, self.sha256

    @property
    def rank(self) -> tuple[int, bool, float, str]:
        """The key by which the smallest of several valid versions wins.

        Of equally severe images, one whose alert is sent wins over one in a cooldown: it shows a
        label that the alert before it did not name.
        """
        assert self.judged is not None
        verdict = self.judged.verdict
        score = max((threat.conf for threat in verdict.threats), default=0.0)
        is_suppressed = verdict.suppressed_by is not None
        return -_SEVERITIES[verdict.severity], is_suppressed, -score, self.judged.image.sha256


def key_of(version: Version) -> str:
    """Returns the camera and capture time, as one key."""
    if version.judged is not None:
        image = version.judged.image
        return f"{image.id}\n{image.timestamp}"
    assert version.invalid is not None
    return f"{version.invalid.camera}\n{version.invalid.timestamp}"


@dataclass(frozen=True)
class CaptureTime:
    """What is known of one camera and capture time.

    Attributes:
      versions: The newest version at each address.
      winner_uri: The address whose version wins; None if none is valid.
      records: The addresses that have a record in `invalid/`, and its reason.
      counted: Whether the winner is in the counts of its window.
      is_kept: Whether the output has a copy of all this, as the repositories do not show it.
      waiting: Versions that arrived after the state had ended and this was read from the output;
        they are added once it is safe in the state again.
      replaced: The sha256s of versions that newer ones have replaced, the newest last; at most 16.
        If a runner returns to an earlier checkpoint, one of them may win again.
      decisions: How many decisions on it were handed on to the packed repositories of a stream.
      is_recorded: Whether the winner has a record in `alerts/`, as it was decided when it won; None
        if that was not decided.
    """

    versions: Mapping[str, Version] = field(default_factory=dict)
    winner_uri: str | None = None
    records: Mapping[str, str] = field(default_factory=dict)
    counted: bool = False
    is_kept: bool = False
    waiting: tuple[Version, ...] = ()
    replaced: tuple[str, ...] = ()
    decisions: int = 0
    is_recorded: bool | None = None

    @property
    def winner(self) -> JudgedImage | None:
        """The image that wins; None if no version is valid."""
        return None if self.winner_uri is None else self.versions[self.winner_uri].judged

    def addresses_of(self, sha256: str | None) -> tuple[str, ...]:
        """Returns the addresses of the files with these bytes."""
        return tuple(version.uri for version in self.versions.values() if version.sha256 == sha256)


@dataclass(frozen=True)
class Change:
    """What a new version changes in the repositories.

    Attributes:
      before: The winner until now.
      after: The winner from now on.
      retracted: Versions whose record is deleted, each with the reason under which it was kept.
      recorded: Versions that get a record.
    """

    before: JudgedImage | None
    after: JudgedImage | None
    retracted: tuple[tuple[Version, str], ...] = ()
    recorded: tuple[Version, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether the winner is another image than before."""
        return self.after != self.before


def add_version(known: CaptureTime, version: Version) -> tuple[CaptureTime, Change | None]:
    """Returns what is known with a further version, and what that changes; None if nothing.

    A file that can't be read is no newer version: it may have been deleted once it was judged.

    Args:
      known: What is known so far.
      version: The result of one file.
    """
    older = known.versions.get(version.uri)
    if older is not None:
        if older.content == version.content or version.reason == reasons.READ_FAILED:
            return known, None  # Other rules may be in force by now: the first verdict stays.
        if older.sha256 == version.sha256 and older.reason not in reasons.OF_THE_ATTEMPT:
            return known, None
        if None not in (older.changed, version.changed) and version.changed < older.changed:  # type: ignore[operator]
            return known, None
    versions = {**known.versions, version.uri: version}
    after = settle(versions.values(), known)
    if older is not None and older.sha256 is not None and older.sha256 != version.sha256:
        others = tuple(sha256 for sha256 in known.replaced if sha256 != older.sha256)
        after = replace(after, replaced=(*others, older.sha256)[-_MAX_REPLACED:])
    retracted = tuple(
        (known.versions[uri], reason)
        for uri, reason in known.records.items()
        if after.records.get(uri) != reason
    )
    recorded = tuple(
        versions[uri]
        for uri, reason in after.records.items()
        if known.records.get(uri) != reason or uri == version.uri
    )
    return after, Change(known.winner, after.winner, retracted, recorded)


def settle(versions: Iterable[Version], before: CaptureTime | None = None) -> CaptureTime:
    """Returns which version wins, and which have a record.

    The same bytes at several addresses are one image. It keeps its address, or gets the first one
    in order.

    Args:
      versions: The newest version at each address.
      before: What is known so far.
    """
    before = before or CaptureTime()
    by_uri = {version.uri: version for version in sorted(versions, key=_uri)}
    winner: str | None = None
    records: dict[str, str] = {}
    valid = [version for version in by_uri.values() if version.judged is not None]
    if valid:
        best = min(version.rank for version in valid)[-1]
        same = [version for version in valid if version.sha256 == best]
        winner = _kept(same, [before.winner_uri]).uri
        for sha256 in {version.sha256: None for version in valid if version.sha256 != best}:
            same = [version for version in valid if version.sha256 == sha256]
            records[_kept(same, before.records).uri] = reasons.DUPLICATE
    invalid = [version for version in by_uri.values() if version.judged is None]
    for content in {version.content: None for version in invalid}:
        same = [version for version in invalid if version.content == content]
        if content[-1] is None:  # Nothing is known of the bytes: each is an image of its own.
            records |= {version.uri: version.reason or "" for version in same}
        else:
            records[_kept(same, before.records).uri] = content[1] or ""
    return replace(before, versions=by_uri, winner_uri=winner, records=records)


def _kept(same: list[Version], kept: Iterable[str | None]) -> Version:
    """Returns the version that is kept already, of those with the same bytes, or else the first."""
    uris = set(kept)
    return next((version for version in same if version.uri in uris), same[0])


def _uri(version: Version) -> str:
    return version.uri


def record_of(version: Version) -> InvalidImage:
    """Returns the record of a version. A valid one is a duplicate, with its detections."""
    if version.invalid is not None:
        return version.invalid
    assert version.judged is not None
    image = version.judged.image
    return InvalidImage(
        image.as_file(),
        reasons.DUPLICATE,
        reasons.duplicate_detail(image.id, image.timestamp),
        width=image.width,
        height=image.height,
        sha256=image.sha256,
        camera=image.id,
        timestamp=image.timestamp,
        detections=image.detections,
    )


_ENCODED_NAMES = {"winner_uri": "stands"}


def pack_capture_time(known: CaptureTime) -> dict[str, Any]:
    """Returns the plain form of what is known of a capture time."""
    return pack_fields(known, _ENCODED_NAMES)


def unpack_capture_time(plain: Mapping[str, Any]) -> CaptureTime:
    """Returns what is known of a capture time, from its plain form."""
    return unpack_fields(plain, CaptureTime, _ENCODED_NAMES)


register_record(Version, version=3, upgrades={1: keep_plain, 2: keep_plain})
CAPTURE_TIMES: VersionedCoder[CaptureTime] = VersionedCoder(
    CaptureTime,
    version=7,
    upgrades=dict.fromkeys(range(1, 7), keep_plain),
    pack=pack_capture_time,
    unpack=unpack_capture_time,
)
"""Encodes what is known of a capture time, as a stream's state."""
