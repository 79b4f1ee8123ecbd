"""Pictures on a real S3 server, of which a real Kafka tells, through the stream on a real Flink."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beam_pipeline.job import BUNDLED_RULES, BUNDLED_SAMPLES
from tests.beam_pipeline.notifications.messages import S3_TEST, minio, s3, s3_record
from tests.brokers.kafka import KafkaBroker
from tests.flink.stream_job import StreamJob, kill, wait_for
from tests.stores.s3_server import S3Server

BUCKET = "camera-pictures"
TOPIC = "picture-events"
MALFORMED = b'{"Records": [{"eventName": "ObjectCreated:Put"}]}'


def test_a_stream_judges_each_picture_of_which_it_is_told_once(
    stream: Callable[..., StreamJob],
    cluster: Any,
    kafka: KafkaBroker,
    s3_server: S3Server,
    tmp_path: Path,
) -> None:
    """Also when its workers die right after they were told of pictures."""
    samples = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))[:18]
    s3_server.client.create_bucket(Bucket=BUCKET)
    for file in samples:
        s3_server.client.upload_file(str(file), BUCKET, f"in/hall 1/{file.name}")
    s3_server.client.upload_file(str(samples[0]), BUCKET, "other/hall_20260131T235959Z.jpg")
    kafka.create_topic(TOPIC, partitions=2)
    first, second, third = samples[:6], samples[6:12], samples[12:]
    output = tmp_path / "out"

    def tell(files: list[Path], *others: bytes) -> None:
        told = [s3(s3_record(f"in/hall 1/{one.name}", bucket=BUCKET)) for one in files]
        kafka.send(TOPIC, [*told, *others])
        kafka.send(TOPIC, told[:2], partition=1)

    def finals() -> set[str]:
        return {path.stem for path in (output / "final").glob("*/*.json")}

    def invalid() -> dict[str, str]:
        records = map(Path.read_bytes, (output / "invalid").glob("read_failed/*.json"))
        return {one["file"]: one["detail"] for one in map(json.loads, records)}

    tell(
        first,
        *(S3_TEST, MALFORMED, MALFORMED),
        minio(f"in/hall 1/{first[0].name}", bucket=BUCKET),
        s3(s3_record("other/hall_20260131T235959Z.jpg", bucket=BUCKET)),
        s3(s3_record("in/hall_20260131T120000Z.jpg", bucket=BUCKET)),  # Gone when it is read.
    )
    job = stream(
        *("--input", f"s3://{BUCKET}/in", "--output", output, *s3_server.beam_options),
        *("--notifications", f"kafka://{kafka.address}/{TOPIC}?group=the-job"),
        *("--model", "bundled", "--rules", BUNDLED_RULES, "--poll_interval_seconds", "1"),
    )
    wait_for("the first verdicts", lambda: len(finals()) == len(first) and len(invalid()) == 2)
    # Six pictures and six other messages; only what a checkpoint holds is told to the group.
    wait_for("the group's offsets", lambda: kafka.committed(TOPIC, "the-job") == 12, 40)
    assert kafka.committed(TOPIC, "the-job", partition=1) == 2
    counters = {"images.repeated": 3, "notifications.ignored": 1, "notifications.elsewhere": 1}
    wait_for(  # Flink's REST shows counters with a delay.
        "the counters", lambda: {name: job.counter(name) for name in counters} == counters, 40
    )
    tell(second)
    kill(cluster, "workers")
    tell(third, MALFORMED)
    wait_for("all pictures are judged", lambda: len(finals()) == len(samples))

    assert finals() == {one.stem for one in samples}
    name = f"notification-{hashlib.sha256(MALFORMED).hexdigest()[:16]}"
    assert (output / "invalid" / "read_failed" / name).read_bytes() == MALFORMED
    details = invalid()
    assert details.keys() == {name, "hall_20260131T120000Z.jpg"}
    assert details[name] == "malformed notification: s3 of a record is no object"
    judged = json.loads((output / "final" / "hall" / f"{samples[0].stem}.json").read_bytes())
    assert judged["uri"] == f"s3://{BUCKET}/in/hall 1/{samples[0].name}"
    assert len(list((output / "validated").glob("*/*.jpg"))) == len(samples)
