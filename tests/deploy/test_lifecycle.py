"""The lifecycle rules of buckets delete what `prune` may delete, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from google.cloud.storage.bucket import LifecycleRuleDelete

from tests.stores.bucket import s3_client
from tests.stores.servers import Server

LIFECYCLE = Path(__file__).parents[2] / "deploy" / "lifecycle"
DAYS = {"results/validated/": 30, "results/invalid/": 30, "results/detections/": 90,
        "results/final/": 90}  # fmt: skip


def test_s3_takes_its_rules(moto_server: Server) -> None:
    client, bucket = s3_client(moto_server), "lifecycle-rules"
    client.create_bucket(Bucket=bucket)
    document = json.loads((LIFECYCLE / "s3.json").read_text())
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=document)
    rules = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert {
        rule["Filter"]["Prefix"]: rule["Expiration"]["Days"]
        for rule in rules
        if "Expiration" in rule
    } == DAYS
    (others,) = (rule for rule in rules if "Expiration" not in rule)
    assert others["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_gcs_has_the_same_rules() -> None:
    rules = json.loads((LIFECYCLE / "gcs.json").read_text())["rule"]
    deletions = [
        LifecycleRuleDelete.from_api_repr(rule)
        for rule in rules
        if rule["action"]["type"] == "Delete"
    ]
    assert {
        prefix: rule["condition"]["age"]
        for rule in deletions
        for prefix in rule["condition"]["matchesPrefix"]
    } == DAYS
    assert {name for rule in rules for name in rule["condition"]} == {"age", "matchesPrefix"}
