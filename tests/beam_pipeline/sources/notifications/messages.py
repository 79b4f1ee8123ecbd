"""Messages in the forms in which the stores send them, as their documentation shows them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus


def s3_record(
    key: str,
    /,
    *,
    bucket: str = "amzn-s3-demo-bucket",
    event: str = "ObjectCreated:Put",
    version: str = "2.1",
    **thing: Any,
) -> dict[str, Any]:
    """A record of Amazon S3; its key is encoded as S3 does it."""
    size = {} if event.startswith("ObjectRemoved") else {"size": 1024}
    return {
        "eventVersion": version,
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": "1970-01-01T00:00:00.000Z",
        "eventName": event,
        "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {
            "x-amz-request-id": "C3D13FE58DE4C810",
            "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "testConfigRule",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": {
                "key": quote_plus(key, safe="/"),
                **size,
                "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                "sequencer": "0055AED6DCD90281E5",
                **thing,
            },
        },
    }


def s3(*records: dict[str, Any]) -> bytes:
    """A message of Amazon S3."""
    return json.dumps({"Records": records}).encode()


S3_TEST = json.dumps(
    {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": "2014-10-13T15:57:02.089Z",
        "Bucket": "amzn-s3-demo-bucket",
        "RequestId": "5582815E1AEA5ADF",
        "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
    }
).encode()

S3_RESTORED = s3(
    {
        **s3_record("HappyFace.jpg", event="ObjectRestore:Completed", version="2.2"),
        "glacierEventData": {
            "restoreEventData": {
                "lifecycleRestorationExpiryTime": "1970-01-01T00:00:00.000Z",
                "lifecycleRestoreStorageClass": "STANDARD",
            }
        },
    }
)


def minio(key: str, *, bucket: str = "images", event: str = "s3:ObjectCreated:Put") -> bytes:
    """A message of Minio, as it comes by Kafka; its key is encoded with its slashes."""
    return json.dumps(
        {
            "EventName": event,
            "Key": f"{bucket}/{key}",
            "Records": [
                {
                    "eventVersion": "2.0",
                    "eventSource": "minio:s3",
                    "awsRegion": "",
                    "eventTime": "2026-01-31T18:20:00.123Z",
                    "eventName": event,
                    "userIdentity": {"principalId": "minio"},
                    "requestParameters": {
                        "principalId": "minio",
                        "region": "",
                        "sourceIPAddress": "127.0.0.1",
                    },
                    "responseElements": {
                        "x-amz-id-2": "dd9025bab4ad464b049177c95eb6ebf374d3b3fd1af92511",
                        "x-amz-request-id": "183B1A5E4C8B5A6F",
                        "x-minio-deployment-id": "5a1b3c2d-0000-4000-8000-000000000000",
                        "x-minio-origin-endpoint": "http://127.0.0.1:9000",
                    },
                    "s3": {
                        "s3SchemaVersion": "1.0",
                        "configurationId": "Config",
                        "bucket": {
                            "name": bucket,
                            "ownerIdentity": {"principalId": "minio"},
                            "arn": f"arn:aws:s3:::{bucket}",
                        },
                        "object": {
                            "key": quote_plus(key),
                            "size": 56060,
                            "eTag": "1d97bf45ecb37f7a7b699418070df08f",
                            "contentType": "image/jpeg",
                            "userMetadata": {"content-type": "image/jpeg"},
                            "sequencer": "147CE57C70B31931",
                        },
                    },
                    "source": {
                        "host": "127.0.0.1",
                        "port": "",
                        "userAgent": "MinIO (linux; amd64)",
                    },
                }
            ],
        }
    ).encode()


def event_bridge(key: str, *, kind: str = "Object Created") -> bytes:
    """An event of Amazon EventBridge; its key is as it is."""
    return json.dumps(
        {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": kind,
            "source": "aws.s3",
            "account": "111122223333",
            "time": "2021-11-12T00:00:00Z",
            "region": "ca-central-1",
            "resources": ["arn:aws:s3:::amzn-s3-demo-bucket1"],
            "detail": {
                "version": "0",
                "bucket": {"name": "amzn-s3-demo-bucket1"},
                "object": {
                    "key": key,
                    "size": 5,
                    "etag": "b1946ac92492d2347c6235b4d2611184",
                    "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
                    "sequencer": "617f08299329d189",
                },
                "request-id": "N4N7GDK58NMKJ12R",
                "requester": "123456789012",
                "source-ip-address": "1.2.3.4",
                "reason": "PutObject",
            },
        }
    ).encode()


def gcs(
    name: str, *, bucket: str = "example-pictures", event: str = "OBJECT_FINALIZE", size: int = 3421
) -> tuple[dict[str, str], bytes]:
    """Attributes and payload of a message of Google Cloud Storage."""
    attributes = {
        "notificationConfig": f"projects/_/buckets/{bucket}/notificationConfigs/1",
        "eventType": event,
        "payloadFormat": "JSON_API_V1",
        "bucketId": bucket,
        "objectId": name,
        "objectGeneration": "1618848161894414",
        "eventTime": "2021-04-19T16:02:41.919922Z",
        "overwroteGeneration": "1618605912794149",
    }
    payload = {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/1618848161894414",
        "selfLink": f"https://www.googleapis.com/storage/v1/b/{bucket}/o/{quote_plus(name)}",
        "name": name,
        "bucket": bucket,
        "generation": "1618848161894414",
        "metageneration": "1",
        "contentType": "image/jpeg",
        "timeCreated": "2021-04-19T16:02:41.917Z",
        "updated": "2021-04-19T16:02:41.917Z",
        "storageClass": "STANDARD",
        "size": str(size),
        "md5Hash": "sQqNsWTgdUEFt6mb5y4/5Q==",
        "crc32c": "/N6HsQ==",
        "etag": "CK6M8Z2Aie8CEAE=",
    }
    return attributes, json.dumps(payload, indent=2).encode()
