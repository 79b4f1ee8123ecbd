"""Reads from a store's message which objects were created.

The forms are the stores' own:

- Amazon S3's event message, versions 2.x
  (https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
  Keys are encoded as in a form: a space is a plus sign. Minio's is the same with `s3:` before the
  name of an event, and tombstones where a topic is compacted
  (https://min.io/docs/minio/linux/administration/monitoring/bucket-notifications.html).
- Amazon EventBridge's event of S3, whose keys are as they are
  (https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html).
- Google Cloud Storage's message, whose attributes tell all
  (https://cloud.google.com/storage/docs/pubsub-notifications).

Fields that are not needed are ignored, as every form may get new ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus


@dataclass(frozen=True)
class CreatedObject:
    """An object that was made or overwritten.

    Attributes:
      uri: Where it is.
      size_bytes: Its size; 0 where the message does not say it.
    """

    uri: str
    size_bytes: int


@dataclass(frozen=True)
class ObjectEvents:
    """What a message says.

    Attributes:
      created: The objects that were made.
      ignored: How many events are of another kind.
      problem: What is wrong with the message, or with a part of it; None where nothing is.
    """

    created: tuple[CreatedObject, ...] = ()
    ignored: int = 0
    problem: str | None = None


_IGNORED = ObjectEvents(ignored=1)
_SIZE = re.compile(r"[0-9]{1,18}")


class _MalformedError(ValueError):
    """What a message lacks."""


def parse_s3_message(message: bytes | None) -> ObjectEvents:
    """Returns what a message of S3, Minio or EventBridge says.

    Args:
      message: Its bytes; None for a tombstone.
    """
    if message is None:
        return _IGNORED
    try:
        event = _object(json.loads(message), "the message")
        if event.get("Event") == "s3:TestEvent":
            return _IGNORED
        if "detail-type" in event:
            return _event_bridge(event)
        if "Records" not in event:
            raise _MalformedError("no Records in it")
        records = event["Records"]
        if not isinstance(records, list):
            raise _MalformedError("Records is no list")
    except _MalformedError as error:
        return ObjectEvents(problem=str(error))
    except (ValueError, RecursionError):
        return ObjectEvents(problem="it is no JSON")
    events = ObjectEvents()
    for record in records:
        try:
            events_of_record = _record(record)
        except _MalformedError as error:
            events_of_record = ObjectEvents(problem=str(error))
        events = ObjectEvents(
            events.created + events_of_record.created,
            events.ignored + events_of_record.ignored,
            events.problem or events_of_record.problem,
        )
    return events if records else _IGNORED


def _record(record: Any) -> ObjectEvents:
    record = _object(record, "a record")
    name = _text(record, "eventName", "a record")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return _IGNORED
    entity = _object(record.get("s3"), "s3 of a record")
    object_ = _object(entity.get("object"), "s3.object of a record")
    try:
        key = unquote_plus(_text(object_, "key", "s3.object of a record"), errors="strict")
    except UnicodeDecodeError:
        raise _MalformedError("a key is not UTF-8") from None
    bucket = _object(entity.get("bucket"), "s3.bucket of a record")
    return _created("s3", _text(bucket, "name", "s3.bucket of a record"), key, object_.get("size"))


def _event_bridge(event: dict[str, Any]) -> ObjectEvents:
    if event["detail-type"] != "Object Created":
        return _IGNORED
    detail = _object(event.get("detail"), "detail")
    bucket = _object(detail.get("bucket"), "detail.bucket")
    object_ = _object(detail.get("object"), "detail.object")
    return _created(
        "s3",
        _text(bucket, "name", "detail.bucket"),
        _text(object_, "key", "detail.object"),
        object_.get("size"),
    )


def parse_gcs_message(attributes: Mapping[str, str], data: bytes) -> ObjectEvents:
    """Returns what a message of Google Cloud Storage says.

    Args:
      attributes: Its attributes.
      data: Its payload, which gives only the object's size: there may be none.
    """
    try:
        if _text(attributes, "eventType", "the attributes") != "OBJECT_FINALIZE":
            return _IGNORED
        bucket = _text(attributes, "bucketId", "the attributes")
        name = _text(attributes, "objectId", "the attributes")
        try:
            payload = json.loads(data)
        except (ValueError, RecursionError):
            payload = None
        return _created(
            "gs", bucket, name, payload.get("size") if isinstance(payload, dict) else None
        )
    except _MalformedError as error:
        return ObjectEvents(problem=str(error))


def _created(scheme: str, bucket: str, key: str, size: object) -> ObjectEvents:
    if "/" in bucket:
        raise _MalformedError(f"{bucket!r} is not the name of a bucket")
    if key.endswith("/"):  # Some clients make empty keys that stand for folders.
        return _IGNORED
    digits = _SIZE.fullmatch(str(size))  # S3 says a number, Google Cloud Storage a string.
    return ObjectEvents(
        (CreatedObject(f"{scheme}://{bucket}/{key}", int(digits[0]) if digits else 0),)
    )


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _MalformedError(f"{what} is not an object")
    return value


def _text(values: Mapping[str, Any], name: str, where: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise _MalformedError(f"no {name} in {where}")
    return value
