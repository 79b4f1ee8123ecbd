"""Pictures on a real S3 server, of which a real Kafka tells, through the stream on a real Flink."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from beam_pipeline.job.preparation import BUNDLED_RULES, BUNDLED_SAMPLES
from tests.beam_pipeline.sources.notifications.messages import S3_TEST, minio, s3, s3_record
from tests.brokers.kafka import KafkaBroker
from tests.flink.stream_job import StreamJob, kill, wait_for
from tests.stores.bucket import Bucket
from tests.stores.servers import KEY_ID, SECRET, Server

WINDOW_SECONDS = 5
PARTITIONS = 13
"""No other stage of the job gets as many records."""
MALFORMED = b'{"Records": [{"eventName": "ObjectCreated:Put"}]}'


def test_a_stream_judges_each_picture_of_which_it_is_told_once(
    stream: Callable[..., StreamJob],
    cluster: Any,
    kafka: KafkaBroker,
    moto_server: Server,
    tmp_path: Path,
) -> None:
    """Also when its workers die right after they were told of pictures.

    The partitions of the topic are spread over the slots.
    """
    samples = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))[:18]
    bucket = Bucket.make(moto_server, "told-of")
    for file in samples:
        bucket.put(f"in/hall 1/{file.name}", file.read_bytes())
    bucket.put("other/hall_20260131T235959Z.jpg", samples[0].read_bytes())
    topic = bucket.name  # A new one for each test, as its messages are counted.
    kafka.create_topic(topic, partitions=PARTITIONS)
    first, second, third = samples[:6], samples[6:12], samples[12:]
    output = tmp_path / "out"

    def tell(files: list[Path], *others: bytes) -> None:
        messages = [s3(s3_record(f"in/hall 1/{path.name}", bucket=bucket.name)) for path in files]
        kafka.send(topic, [*messages, *others])
        kafka.send(topic, messages[:2], partition=1)

    def finals() -> set[str]:
        return {path.stem for path in (output / "final").glob("*/*.json")}

    def invalid() -> dict[str, str]:
        records = map(Path.read_bytes, (output / "invalid").glob("read_failed/*.json"))
        return {record["file"]: record["detail"] for record in map(json.loads, records)}

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
        *("--notifications", f"kafka://{kafka.address}/{topic}?group=the-job"),
        *("--model", "bundled", "--rules", BUNDLED_RULES, "--poll_interval_seconds", "1"),
    )
    wait_for("the first verdicts", lambda: len(finals()) == len(first) and len(invalid()) == 2)
    # Six pictures and six other messages; only what a checkpoint holds is told to the group.
    wait_for("the group's offsets", lambda: kafka.committed(topic, "the-job") == 12)
    wait_for("the others", lambda: kafka.committed(topic, "the-job", partition=1) == 2)
    counters = {"images.repeated": 3, "notifications.ignored": 1, "notifications.elsewhere": 1}
    wait_for(  # Flink's REST shows counters with a delay.
        "the counters", lambda: {name: job.counter(name) for name in counters} == counters
    )
    # The stage that reads partitions has got each of them once, and each slot some of them.
    wait_for(
        "partitions in each slot",
        lambda: [
            read for read in job.received().values() if sum(read) == PARTITIONS and min(read) > 0
        ],
        30,
    )
    tell(second)
    kill(cluster, "workers")
    tell(third, MALFORMED)
    wait_for("all pictures are judged", lambda: len(finals()) == len(samples))

    assert finals() == {path.stem for path in samples}
    name = f"notification-{hashlib.sha256(MALFORMED).hexdigest()[:16]}"
    assert (output / "invalid" / "read_failed" / name).read_bytes() == MALFORMED
    details = invalid()
    assert details.keys() == {name, "hall_20260131T120000Z.jpg"}
    assert details[name] == "malformed notification: s3 of a record is not an object"
    judged = json.loads((output / "final" / "hall" / f"{samples[0].stem}.json").read_bytes())
    assert judged["uri"] == bucket.uri(f"in/hall 1/{samples[0].name}")
    assert len(list((output / "validated").glob("*/*.jpg"))) == len(samples)


class Busy(threading.Thread):
    """Publishes five messages a second until it is stopped, one of them of a new picture.

    Attributes:
      taken: Of how many pictures it told, by the start of their window, in Unix seconds.
    """

    def __init__(self, bucket: Bucket, kafka: KafkaBroker, topic: str, picture: bytes) -> None:
        super().__init__(daemon=True)
        self._bucket, self._kafka, self._topic, self._picture = bucket, kafka, topic, picture
        self._end = threading.Event()
        self.taken: dict[int, int] = {}
        self.began = time.time()

    def run(self) -> None:
        number = 0
        while not self._end.wait(0.2):
            key, partition = f"other/{number}.jpg", number % 2
            if number % 5 == 0:
                at = int(time.time())
                key = f"in/hall_{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}.jpg"
                self._bucket.put(key, self._picture)
                start = at // WINDOW_SECONDS * WINDOW_SECONDS
                self.taken[start] = self.taken.get(start, 0) + 1
            message = s3(s3_record(key, bucket=self._bucket.name))
            self._kafka.send(self._topic, [message], partition=partition)
            number += 1

    def stop(self) -> None:
        self._end.set()
        self.join(timeout=30)


def test_windows_close_while_messages_keep_coming_on_a_topic_that_was_quiet(
    stream: Callable[..., StreamJob],
    kafka: KafkaBroker,
    moto_server: Server,
    tmp_path: Path,
) -> None:
    """At five messages a second, on two partitions, one of which is added while the job runs."""
    bucket, output = Bucket.make(moto_server, "busy"), tmp_path / "out"
    topic = bucket.name
    kafka.create_topic(topic)
    stream(
        *("--input", bucket.uri("in"), "--output", output, *moto_server.options),
        *("--s3_access_key_id", KEY_ID, "--s3_secret_access_key", SECRET),
        *("--notifications", f"kafka://{kafka.address}/{topic}?group=quiet"),
        *("--model", "bundled", "--rules", BUNDLED_RULES, "--poll_interval_seconds", "1"),
        # Counts are written only once a window is closed.
        *("--window_seconds", str(WINDOW_SECONDS), "--early_firing_seconds", "3600"),
    )
    time.sleep(5)  # The first looks find nothing, and no offset is committed.
    kafka.add_partitions(topic, 2)

    def closed() -> dict[int, int]:
        rows = [
            json.loads(line)
            for path in (output / "counts").glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        return {
            int(datetime.fromisoformat(row["window_start"]).timestamp()): row["images"]
            for row in rows
        }

    image = sorted((BUNDLED_SAMPLES / "hall").glob("*.jpg"))[0].read_bytes()
    busy = Busy(bucket, kafka, topic, image)
    busy.start()
    try:
        wait_for("three windows are closed", lambda: len(closed()) >= 3, 240)
        wait_for("it went on for a while", lambda: time.time() - busy.began > 30, 60)
        assert busy.is_alive()
    finally:
        busy.stop()
    assert {start: busy.taken[start] for start in closed()} == closed()
    assert sorted(closed())[0] == min(busy.taken)
