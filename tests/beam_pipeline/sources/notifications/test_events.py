"""What messages of the stores say, in the forms in which they come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.sources.notifications.events import (
    CreatedObject,
    ObjectEvents,
    parse_gcs_message,
    parse_s3_message,
)
from tests.beam_pipeline.sources.notifications.messages import (
    S3_RESTORED,
    S3_TEST,
    event_bridge,
    gcs,
    minio,
    s3,
    s3_record,
)

BUCKET = "s3://amzn-s3-demo-bucket"
IGNORED = ObjectEvents(ignored=1)


def created(
    *objects: tuple[str, int], ignored: int = 0, problem: str | None = None
) -> ObjectEvents:
    return ObjectEvents(tuple(CreatedObject(*object) for object in objects), ignored, problem)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (s3(s3_record("HappyFace.jpg")), created((f"{BUCKET}/HappyFace.jpg", 1024))),
        (
            s3(s3_record("in/red flower+1 é.jpg", event="ObjectCreated:CompleteMultipartUpload")),
            created((f"{BUCKET}/in/red flower+1 é.jpg", 1024)),
        ),
        (s3(s3_record("a%20b.jpg")), created((f"{BUCKET}/a%20b.jpg", 1024))),
        (s3(s3_record("/a//b.jpg", size=0)), created((f"{BUCKET}//a//b.jpg", 0))),
        (s3(s3_record("a.jpg", size=None)), created((f"{BUCKET}/a.jpg", 0))),
        (
            s3(s3_record("a.jpg", version="2.9", added={"later": 1})),
            created((f"{BUCKET}/a.jpg", 1024)),
        ),
        (s3(s3_record("folder/")), IGNORED),
        (s3(s3_record("a.jpg", event="ObjectRemoved:Delete")), IGNORED),
        (s3(s3_record("a.jpg", event="ObjectRemoved:DeleteMarkerCreated")), IGNORED),
        (s3(s3_record("a.jpg", event="ObjectTagging:Put", version="2.3")), IGNORED),
        (S3_RESTORED, IGNORED),
        (S3_TEST, IGNORED),
        (s3(), IGNORED),
        (None, IGNORED),
        (
            s3(
                s3_record("a.jpg"),
                s3_record("a.jpg", event="ObjectRemoved:Delete"),
                s3_record("b.jpg", bucket="other-bucket"),
            ),
            created((f"{BUCKET}/a.jpg", 1024), ("s3://other-bucket/b.jpg", 1024), ignored=1),
        ),
        (minio("in/my photo+.jpg"), created(("s3://images/in/my photo+.jpg", 56060))),
        (minio("a.jpg", event="s3:ObjectCreated:Copy"), created(("s3://images/a.jpg", 56060))),
        (minio("a.jpg", event="s3:ObjectRemoved:Delete"), IGNORED),
        (minio("a.jpg", event="s3:ObjectAccessed:Get"), IGNORED),
        (
            event_bridge("in/red flower+1%20.jpg"),
            created(("s3://amzn-s3-demo-bucket1/in/red flower+1%20.jpg", 5)),
        ),
        (event_bridge("a.jpg", kind="Object Deleted"), IGNORED),
    ],
)
def test_a_message_of_s3_lists_created_objects(
    message: bytes | None, expected: ObjectEvents
) -> None:
    assert parse_s3_message(message) == expected


def without(record: dict[str, Any], *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(record))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copy


WHOLE = s3_record("a.jpg")


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"", "it is no JSON"),
        (b"not JSON", "it is no JSON"),
        (b'{"Records": [', "it is no JSON"),
        (b"\xff\xfe\x00", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b'{"size": ' + b"9" * 5000 + b"}", "it is no JSON"),
        (b"[]", "the message is not an object"),
        (b'"Records"', "the message is not an object"),
        (b"{}", "no Records in it"),
        (b'{"Records": {}}', "Records is no list"),
        (b'{"Records": [null]}', "a record is not an object"),
        (s3(without(WHOLE, "eventName")), "no eventName in a record"),
        (s3({**WHOLE, "eventName": 7}), "no eventName in a record"),
        (s3(without(WHOLE, "s3")), "s3 of a record is not an object"),
        (s3(without(WHOLE, "s3", "object")), "s3.object of a record is not an object"),
        (s3(without(WHOLE, "s3", "object", "key")), "no key in s3.object of a record"),
        (s3(s3_record("")), "no key in s3.object of a record"),
        (s3(without(WHOLE, "s3", "bucket")), "s3.bucket of a record is not an object"),
        (s3(without(WHOLE, "s3", "bucket", "name")), "no name in s3.bucket of a record"),
        (s3(s3_record("a", bucket="a/../b")), "'a/../b' is not the name of a bucket"),
        (s3(s3_record("a", key="%FF.jpg")), "a key is not UTF-8"),
        (b'{"detail-type": "Object Created"}', "detail is not an object"),
    ],
)
def test_a_malformed_message_of_s3_says_what_is_wrong_with_it(message: bytes, problem: str) -> None:
    assert parse_s3_message(message) == ObjectEvents(problem=problem)


def test_a_malformed_record_does_not_hide_the_others() -> None:
    message = s3(s3_record("a.jpg"), without(WHOLE, "s3"), s3_record("b.jpg"))
    assert parse_s3_message(message) == created(
        (f"{BUCKET}/a.jpg", 1024),
        (f"{BUCKET}/b.jpg", 1024),
        problem="s3 of a record is not an object",
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            gcs("in/hall_1769880605.jpg"),
            created(("gs://example-pictures/in/hall_1769880605.jpg", 3421)),
        ),
        (gcs("a b+%2F.jpg"), created(("gs://example-pictures/a b+%2F.jpg", 3421))),
        ((gcs("a.jpg")[0], b""), created(("gs://example-pictures/a.jpg", 0))),
        ((gcs("a.jpg")[0], b"\xff"), created(("gs://example-pictures/a.jpg", 0))),
        ((gcs("a.jpg")[0], b"[]"), created(("gs://example-pictures/a.jpg", 0))),
        (gcs("folder/"), IGNORED),
        (gcs("a.jpg", event="OBJECT_DELETE"), IGNORED),
        (gcs("a.jpg", event="OBJECT_ARCHIVE"), IGNORED),
        (gcs("a.jpg", event="OBJECT_METADATA_UPDATE"), IGNORED),
        (({}, b"hello"), ObjectEvents(problem="no eventType in the attributes")),
        (
            (without(gcs("a.jpg")[0], "bucketId"), b""),
            ObjectEvents(problem="no bucketId in the attributes"),
        ),
        (
            (without(gcs("a.jpg")[0], "objectId"), b""),
            ObjectEvents(problem="no objectId in the attributes"),
        ),
        (gcs("a.jpg", bucket="a/b"), ObjectEvents(problem="'a/b' is not the name of a bucket")),
    ],
)
def test_a_message_of_google_cloud_storage_lists_created_objects(
    message: tuple[dict[str, str], bytes], expected: ObjectEvents
) -> None:
    assert parse_gcs_message(*message) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "Records",
                        "eventName",
                        "s3",
                        "object",
                        "bucket",
                        "key",
                        "name",
                        "size",
                        "detail",
                    ]
                ),
                inner | st.just("ObjectCreated:Put"),
                max_size=5,
            )
        ),
        max_leaves=30,
    )
)
def test_no_json_is_more_than_malformed(value: object) -> None:
    events = parse_s3_message(json.dumps({"Records": [value]}).encode())
    assert events.created or events.ignored or events.problem
