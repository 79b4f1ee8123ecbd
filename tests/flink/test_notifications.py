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
from tests.stores.bucket import Bucket
from tests.stores.servers import KEY_ID, SECRET, Server

TOPIC = "picture-events"
MALFORMED = b'{"Records": [{"eventName": "ObjectCreated:Put"}]}'


def test_a_stream_judges_each_picture_of_which_it_is_told_once(
    stream: Callable[..., StreamJob],
    cluster: Any,
    kafka: KafkaBroker,
    moto_server: Server,
    tmp_path: Path,
) -> None:
    """Also when its workers die right after they were told of pictures."""
    samples = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))[:18]
    bucket = Bucket.make(moto_server, "told-of")
    for file in samples:
        bucket.put(f"in/hall 1/{file.name}", file.read_bytes())
    bucket.put("other/hall_20260131T235959Z.jpg", samples[0].read_bytes())
    kafka.create_topic(TOPIC, partitions=2)
    first, second, third = samples[:6], samples[6:12], samples[12:]
    output = tmp_path / "out"

    def tell(files: list[Path], *others: bytes) -> None:
        told = [s3(s3_record(f"in/hall 1/{one.name}", bucket=bucket.name)) for one in files]
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
        minio(f"in/hall 1/{first[0].name}", bucket=bucket.name),
        s3(s3_record("other/hall_20260131T235959Z.jpg", bucket=bucket.name)),
        s3(s3_record("in/hall_20260131T120000Z.jpg", bucket=bucket.name)),  # Gone when it is read.
    )
    job = stream(
        *("--input", bucket.uri("in"), "--output", output, *moto_server.options),
        # The workers of the cluster were started before the store, without its keys.
        *("--s3_access_key_id", KEY_ID, "--s3_secret_access_key", SECRET),
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
    assert judged["uri"] == bucket.uri(f"in/hall 1/{samples[0].name}")
    assert len(list((output / "validated").glob("*/*.jpg"))) == len(samples)
