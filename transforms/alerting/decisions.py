"""Records of what a stream has decided on alerts, written before a decision takes effect.

After a crash, a runner repeats some of its work, possibly in another order: its state is older than
the messages that were sent. No target may ever get more messages than the rules allow. Decisions
are therefore written to the output before an alert is admitted:

- `alerts/_limits/<window>/…json`: the alerts of a window that a target gets one by one, and those
  that are in a digest (a :class:`WindowRecord`, by :mod:`transforms.limit_alerts`);
- `alerts/_cooldowns/<id>/sent.json`: the alerts of a camera whose cooldown covers others (a
  :class:`CameraRecord`, by :mod:`transforms.judge_threats`).

Each file has one writer at a time: the worker that owns the key.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import msgspec

import rules
from transforms.records.times import parse_time
from transforms.storage import stores

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)

FORMAT = 1
"""The format of the records that this release reads and writes."""

_PERMANENT_ERRORS = (PermissionError, IsADirectoryError)


class UnusableRecordError(Exception):
    """A record can't be read, now or later, and must not be overwritten."""


@dataclass(frozen=True)
class _Format:
    format: int = FORMAT


class DigestCounts(TypedDict):
    """The counts of a digest."""

    window_start: str
    window_end: str
    alerts: int
    first: str
    last: str
    by_id: dict[str, int]
    by_label: dict[str, int]


class DigestBody(TypedDict):
    """A digest as it is sent and recorded."""

    alert_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    id: str | None
    timestamp: str
    severity: Literal["alert", "detection"]
    digest: DigestCounts


@dataclass(frozen=True)
class DigestRecord:
    """A digest that was sent, or will be sent.

    Attributes:
      alert_ids: The alerts that it reports, in the order of capture time.
      body: The body as it is sent; its `alert_id` is the digest's id.
      number: The number of earlier digests of the window; 0 in records of earlier releases.

    Raises:
      msgspec.ValidationError: The body is not that of a digest.
      ValueError: A time in it is invalid.
    """

    alert_ids: tuple[str, ...]
    body: Mapping[str, Any]
    number: int = 0

    def __post_init__(self) -> None:
        body = msgspec.convert(self.body, DigestBody)
        digest = body["digest"]
        for time in (digest["window_start"], digest["window_end"], digest["first"], digest["last"]):
            parse_time(time)
        parse_time(body["timestamp"])

    @property
    def digest_id(self) -> str:
        """The digest's id."""
        digest_id: str = self.body["alert_id"]
        return digest_id


@dataclass(frozen=True)
class WindowRecord:
    """The decisions on the alerts of one window, for one target and one camera or the fleet.

    Attributes:
      target: The target's name.
      id: The camera's id; None for all cameras together.
      admitted: The ids of the alerts that are sent one by one, in order of arrival.
      digests: The digests that report the other alerts, in the order in which they were sent.
      format: The format of the record.
    """

    target: str
    id: str | None
    admitted: tuple[str, ...] = ()
    digests: tuple[DigestRecord, ...] = ()
    format: int = FORMAT

    def digest_for_alert(self, alert_id: str) -> DigestRecord | None:
        """Returns the digest that reports an alert; None if there is none."""
        return self._digests_by_alert.get(alert_id)

    @functools.cached_property
    def _digests_by_alert(self) -> dict[str, DigestRecord]:
        return {
            alert_id: digest for digest in reversed(self.digests) for alert_id in digest.alert_ids
        }

    def digest_by_id(self, digest_id: str) -> DigestRecord | None:
        """Returns the digest with an id; None if there is none."""
        return next((digest for digest in self.digests if digest.digest_id == digest_id), None)

    @property
    def next_number(self) -> int:
        """The number of the next digest.

        It may exceed the number of digests here: a record that was lost and restarted lacks some.
        """
        return max([len(self.digests), *(digest.number + 1 for digest in self.digests)])

    def admit(self, alert_id: str) -> WindowRecord:
        """Returns a record with one more alert that is sent."""
        return replace(self, admitted=(*self.admitted, alert_id))

    def add_digest(self, digest: DigestRecord) -> WindowRecord:
        """Returns a record with one more digest."""
        return replace(self, digests=(*self.digests, digest))


@dataclass(frozen=True)
class CameraRecord:
    """The alerts of one camera that may cover others.

    Attributes:
      alerts: The alerts, in the order in which they were decided.
      made_by: The name of the camera's rules that decided; empty in records of earlier releases.
      format: The format of the record.
    """

    alerts: tuple[rules.PastAlert, ...] = ()
    made_by: str = ""
    format: int = FORMAT

    def alerts_by(self, camera_rules: str) -> tuple[rules.PastAlert, ...]:
        """Returns the alerts if these rules decided on them, or else no alerts.

        Decisions of other rules belong to another run, or precede an edit of the rules.
        """
        return self.alerts if self.made_by in ("", camera_rules) else ()


class DecodedRecords:
    """The records that were decoded last, with the bytes that they were decoded from.

    A digest of a large fleet has a record of some megabytes, which a stream reads in each bundle.
    It is decoded again only if its bytes have changed.
    """

    _MOST = 4
    _SMALL = 65_536

    def __init__(self) -> None:
        self._records: dict[str, tuple[bytes, Any]] = {}

    def find(self, uri: str, data: bytes) -> Any:
        """Returns the record that was decoded from the same bytes; None if there is none."""
        before, record = self._records.get(uri, (None, None))
        return record if before == data else None

    def keep(self, uri: str, data: bytes, record: Any) -> None:
        """Keeps a record, unless it is small, and forgets older ones."""
        self._records.pop(uri, None)
        if len(data) > self._SMALL:
            self._records[uri] = data, record
            if len(self._records) > self._MOST:
                del self._records[next(iter(self._records))]


def read_record(uri: str, kind: type[T], decoded: DecodedRecords | None = None) -> T | None:
    """Reads a record; returns None if there is none, or if the content is no record.

    Args:
      uri: The address of the record.
      kind: :class:`WindowRecord` or :class:`CameraRecord`.
      decoded: Records of this kind that were decoded before; large ones are added.

    Raises:
      UnusableRecordError: The record can't be read for a permanent reason: access is denied, the
        address is a folder, or a newer release has written it. This is logged once per process.
      Exception: The record can't be read, so its content is unknown.
    """
    try:
        data = stores.read_if_there(uri)
    except _PERMANENT_ERRORS as error:
        _log_unusable(uri, f"can't be read: {error}; give the job access to it, or remove it")
        raise UnusableRecordError(uri) from error
    if data is None:
        return None
    if decoded is not None and (record := decoded.find(uri, data)) is not None:
        found: T = record
        return found
    try:
        number = msgspec.json.decode(data, type=_Format).format
        if number > FORMAT:
            _log_unusable(
                uri, f"has format {number}, and this release reads {FORMAT}; use the newer release"
            )
            raise UnusableRecordError(uri)
        found = msgspec.json.decode(data, type=kind)
        if decoded is not None:
            decoded.keep(uri, data, found)
        return found
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _LOGGER.error("%s is skipped, as it is no record of decisions: %s", uri, error)
        return None


@functools.lru_cache(maxsize=1000)
def _log_unusable(uri: str, reason: str) -> None:
    _LOGGER.error("%s %s. Until then the job continues without this record.", uri, reason)


def is_written(uri: str) -> bool:
    """Whether there is a record of any kind.

    Raises:
      OSError: The store can't be read.
    """
    return stores.read_if_there(uri) is not None


def write_record(uri: str, record: WindowRecord | CameraRecord) -> None:
    """Writes a record, and replaces what was there.

    Raises:
      OSError: The record can't be written.
    """
    stores.write_bytes(uri, msgspec.json.encode(record) + b"\n")
