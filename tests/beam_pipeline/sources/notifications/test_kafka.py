"""S3's events from a real Kafka broker: where the source goes on, and what it says of faults."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import cli
from beam_pipeline.sources.notifications.address import KafkaAddress
from beam_pipeline.sources.notifications.channel import (
    ChannelError,
    PartitionPosition,
    PulledBatch,
)
from beam_pipeline.sources.notifications.kafka import CONFIG_VARIABLE, KafkaChannel, read_settings
from tests.beam_pipeline.sources.notifications.messages import s3, s3_record
from tests.brokers.kafka import PASSWORD, USER, KafkaBroker
from transforms.runtime.counters import counted_here

_numbers = itertools.count()
START = PartitionPosition()


@pytest.fixture
def topic(kafka: KafkaBroker) -> str:
    name = f"events-{next(_numbers)}"
    kafka.create_topic(name)
    return name


def event(number: int) -> bytes:
    return s3(s3_record(f"{number}.jpg"))


def channel(kafka: KafkaBroker, topic: str, group: str | None = None) -> KafkaChannel:
    return KafkaChannel(KafkaAddress((kafka.address,), topic, group), {})


def numbers(batch: PulledBatch) -> list[int]:
    made = [created.uri for message in batch.messages for created in message.events.created]
    return [int(uri.rsplit("/", 1)[1].removesuffix(".jpg")) for uri in made]


def pull_until(
    done: Callable[[list[int], PulledBatch], bool],
    source: KafkaChannel,
    position: PartitionPosition = START,
) -> tuple[list[int], PulledBatch]:
    """Pulls again and again; the numbers that came, and what was taken last."""
    numbers_pulled: list[int] = []
    deadline = time.monotonic() + 20
    while True:
        batch = source.pull(0, position, 1000)
        position = batch.position
        numbers_pulled += numbers(batch)
        if done(numbers_pulled, batch):
            return numbers_pulled, batch
        assert time.monotonic() < deadline, numbers_pulled


def is_at_end(numbers_pulled: list[int], batch: PulledBatch) -> bool:
    return batch.is_at_end


def test_all_old_messages_are_pulled_and_then_new_ones(kafka: KafkaBroker, topic: str) -> None:
    kafka.send(topic, map(event, range(5)))
    source = channel(kafka, topic)
    numbers_pulled, batch = pull_until(is_at_end, source)
    assert numbers_pulled == [0, 1, 2, 3, 4]
    assert batch.position.offset == 5
    kafka.send(topic, [event(5), None])
    numbers_pulled, batch = pull_until(
        lambda numbers_pulled, _: bool(numbers_pulled), source, batch.position
    )
    assert numbers_pulled == [5]
    numbers_pulled, batch = pull_until(is_at_end, source, batch.position)
    assert batch.position.offset == 7
    assert batch.receipt is None  # Without a group no offset is committed.


def test_a_source_that_goes_back_to_a_checkpoint_takes_again_what_came_since(
    kafka: KafkaBroker, topic: str
) -> None:
    kafka.send(topic, map(event, range(6)))
    source = channel(kafka, topic)
    assert pull_until(is_at_end, source)[0] == [0, 1, 2, 3, 4, 5]
    assert pull_until(is_at_end, source, PartitionPosition(4))[0] == [4, 5]
    assert pull_until(is_at_end, channel(kafka, topic), PartitionPosition(3))[0] == [3, 4, 5]
    assert pull_until(is_at_end, source)[0] == [0, 1, 2, 3, 4, 5]


def test_an_offset_that_is_not_kept_any_more_hides_nothing_that_is(
    kafka: KafkaBroker, topic: str
) -> None:
    kafka.send(topic, map(event, range(6)))
    kafka.delete_records(topic, 4)
    assert pull_until(is_at_end, channel(kafka, topic), PartitionPosition(2))[0] == [4, 5]


def test_a_partition_that_is_added_is_found_and_taken_from_its_first(
    kafka: KafkaBroker, topic: str
) -> None:
    kafka.send(topic, [event(0)])
    source = channel(kafka, topic, group=topic)
    assert source.partitions() == [0]
    kafka.add_partitions(topic, 2)
    kafka.send(topic, [event(1)], partition=1)
    deadline = time.monotonic() + 20
    while source.partitions() != [0, 1]:
        assert time.monotonic() < deadline
    assert numbers(source.pull(1, START, 1000)) == [1]


def test_a_quiet_topic_without_committed_offsets_keeps_time_and_gives_what_comes_later(
    kafka: KafkaBroker, topic: str
) -> None:
    source = channel(kafka, topic, group=topic)
    before = time.time()
    batch = source.pull(0, START, 1000)
    assert (batch.position.offset, batch.is_at_end, batch.receipt) == (0, True, None)
    assert batch.until is not None
    assert before <= batch.until <= time.time()
    kafka.send(topic, [event(0)])
    numbers_pulled, batch = pull_until(
        lambda numbers_pulled, _: bool(numbers_pulled), source, batch.position
    )
    assert (numbers_pulled, batch.position.offset) == ([0], 1)


def test_a_busy_partition_keeps_the_time_of_the_broker(kafka: KafkaBroker, topic: str) -> None:
    """Until its end is reached, what was published up to the last message is what is known."""
    times = [1_770_000_000.0 + number for number in range(20)]
    kafka.send(topic, map(event, range(20)), times=times)
    source = channel(kafka, topic)
    first = source.pull(0, START, 8)
    assert numbers(first) == list(range(8))
    assert (first.until, first.is_full, first.is_at_end) == (times[7], True, False)
    before = time.time()
    last = source.pull(0, first.position, 1000)
    assert numbers(last) == list(range(8, 20))
    assert last.until is not None
    assert last.until >= before


def test_the_time_of_a_producer_that_is_ahead_is_not_taken(kafka: KafkaBroker, topic: str) -> None:
    kafka.send(topic, map(event, range(2)), times=[time.time() + 86400] * 2)
    batch = channel(kafka, topic).pull(0, START, 1)
    assert batch.until is not None
    assert batch.until <= time.time()


def test_offsets_without_a_message_do_not_hide_the_end(kafka: KafkaBroker, topic: str) -> None:
    """A transaction ends in a marker, which has an offset."""
    with kafka.open_transaction(topic, [event(0)]):
        pass
    source = channel(kafka, topic)
    numbers_pulled, batch = pull_until(lambda _, batch: batch.position.offset == 2, source)
    assert (numbers_pulled, batch.is_at_end) == ([0], True)
    kafka.send(topic, [event(1)])
    assert pull_until(is_at_end, channel(kafka, topic), batch.position)[0] == [1]


def test_a_transaction_that_is_open_holds_nothing_back(kafka: KafkaBroker, topic: str) -> None:
    """Its messages have the time at which they were written, and event time would pass it."""
    with kafka.open_transaction(topic, [event(0)]):
        assert pull_until(is_at_end, channel(kafka, topic))[0] == [0]


def test_a_topic_that_was_made_anew_is_taken_from_its_first(
    kafka: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.send(topic, [event(0)])
    batch = channel(kafka, topic).pull(0, PartitionPosition(7), 1000)
    assert (numbers(batch), batch.position.offset, batch.is_at_end) == ([0], 1, True)
    assert "ends at offset 1, but was already read up to 7" in caplog.text


def test_what_the_broker_has_deleted_before_it_was_pulled_is_logged(
    kafka: KafkaBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.send(topic, map(event, range(6)))
    kafka.delete_records(topic, 4)
    before = counted_here()
    assert numbers(channel(kafka, topic).pull(0, PartitionPosition(2), 1000)) == [4, 5]
    assert dict(counted_here() - before) == {"notifications.expired": 2}
    (line,) = caplog.messages
    assert "not read yet, offsets 2 to 3; keep the topic's messages for longer" in line


def test_a_full_look_says_that_there_is_more(kafka: KafkaBroker, topic: str) -> None:
    kafka.send(topic, map(event, range(20)))
    source = channel(kafka, topic)
    pull_until(is_at_end, source)
    first = source.pull(0, START, 8)
    while not first.messages:  # The broker is asked in the background.
        first = source.pull(0, first.position, 8)
    assert numbers(first) == list(range(8))
    assert first.is_full
    assert not first.is_at_end
    second = source.pull(0, first.position, 100)
    assert numbers(second) == list(range(8, 20))
    assert not second.is_full


def kept(source: KafkaChannel, receipt: Any) -> None:
    """The runner keeps a bundle, and calls back."""
    call = source.finalizer_for(0, receipt)
    assert call is not None
    call()


def test_offsets_of_a_group_are_committed_only_at_the_second_callback_of_the_runner(
    kafka: KafkaBroker, topic: str
) -> None:
    kafka.send(topic, map(event, range(3)))
    source = channel(kafka, topic, group=topic)
    _, batch = pull_until(lambda numbers_pulled, _: len(numbers_pulled) == 3, source)
    assert source.finalizer_for(0, None) is None  # No callback has come that a second could follow.
    kept(source, batch.receipt)
    time.sleep(0.5)
    assert kafka.committed(topic, topic) < 0
    kept(source, None)
    deadline = time.monotonic() + 10
    while kafka.committed(topic, topic) != 3:
        assert time.monotonic() < deadline
    assert source.finalizer_for(0, None) is None  # Nothing is left to be told.
    kafka.send(topic, [event(3)])
    assert pull_until(is_at_end, channel(kafka, topic, group=topic))[0] == [3]
    assert pull_until(is_at_end, channel(kafka, topic, group=topic), PartitionPosition(1))[0] == [
        1,
        2,
        3,
    ]


def test_receipts_of_before_a_failure_are_forgotten(kafka: KafkaBroker, topic: str) -> None:
    kafka.send(topic, map(event, range(3)))
    source = channel(kafka, topic, group=topic)
    _, batch = pull_until(lambda numbers_pulled, _: len(numbers_pulled) == 3, source)
    kept(source, batch.receipt)
    source.pull(0, PartitionPosition(1), 1000)
    assert source.finalizer_for(0, None) is None


def refused(capsys: pytest.CaptureFixture[str], address: str) -> str:
    started = time.monotonic()
    code = cli.main(
        [
            *("--streaming", "--runner", "FlinkRunner", "--flink_master", "[local]"),
            *("--input", "s3://pictures/in", "--notifications", address),
        ]
    )
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert len(captured.err.splitlines()) == 1, captured.err
    assert time.monotonic() - started < 15
    return captured.err


def test_a_broker_that_is_not_there_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"kafka://127.0.0.1:{free.getsockname()[1]}/events"
    line = refused(capsys, address)
    assert f"--notifications {address}: " in line
    assert "Connect" in line
    assert "Connection refused" in line


def test_a_topic_that_is_not_there_is_reported_in_one_line_and_not_made(
    kafka: KafkaBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert "there is no topic none" in refused(capsys, f"kafka://{kafka.address}/none")


def test_a_topic_that_can_be_read_is_found_right(kafka: KafkaBroker, topic: str) -> None:
    channel(kafka, topic).check()  # Empty.
    kafka.send(topic, [event(0)])
    channel(kafka, topic, "a-group").check()
    assert kafka.committed(topic, "a-group") < 0


def settings_file(folder: Path, *lines: str) -> Path:
    file = folder / "kafka.properties"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_credentials_come_from_the_file_that_the_environment_names(
    kafka: KafkaBroker,
    topic: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = KafkaAddress((kafka.sasl_address,), topic, "the-group")
    plain = ["# How to log in", "security.protocol = SASL_PLAINTEXT", "sasl.mechanism=PLAIN"]
    wrong = settings_file(tmp_path, *plain, f"sasl.username={USER}", "sasl.password=a=guess")
    monkeypatch.setenv(CONFIG_VARIABLE, str(wrong))
    line = refused(capsys, f"{address.uri}?group=the-group")
    assert "uthentication" in line
    assert "a=guess" not in line
    settings_file(tmp_path, *plain, "", f"sasl.username={USER}", f"sasl.password={PASSWORD}")
    line = refused(capsys, f"{address.uri}?group=the-group")
    assert "authorization failed" in line.lower()
    kafka.allow("TOPIC", topic, "DESCRIBE")
    kafka.allow("GROUP", "the-group", "READ")
    line = refused(capsys, f"{address.uri}?group=the-group")
    assert "authorization failed" in line.lower()
    kafka.allow("TOPIC", topic, "READ")
    source = KafkaChannel(address)
    source.check()
    kafka.send(topic, [event(7)])
    assert pull_until(lambda numbers_pulled, _: bool(numbers_pulled), source)[0] == [7]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["security.protocol"], ":1: not name=value"),
        (["", "# a", "=secret"], ":3: not name=value"),
        (["group.id=x"], ":1: group.id is set by the job; leave it out"),
        (["enable.auto.commit=true"], ":1: enable.auto.commit is set by the job"),
    ],
)
def test_a_wrong_line_of_settings_is_reported_without_its_content(
    lines: list[str], expected: str, tmp_path: Path
) -> None:
    file = settings_file(tmp_path, *lines)
    with pytest.raises(ChannelError) as raised:
        read_settings({CONFIG_VARIABLE: str(file)})
    assert expected in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sasl.jaas.config=hidden;", "KAFKA_CONFIG"),
        ("no.such.setting=hidden", 'No such configuration property: "no.such.setting"'),
        ("security.protocol=hidden", "security.protocol"),
    ],
)
def test_a_setting_that_librdkafka_does_not_know_is_reported_in_one_line(
    line: str, expected: str, tmp_path: Path
) -> None:
    file = settings_file(tmp_path, line)
    source = KafkaChannel(KafkaAddress(("127.0.0.1:1",), "e"), {CONFIG_VARIABLE: str(file)})
    with pytest.raises(ChannelError) as raised:
        source.check()
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_of_settings_has_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers, who have the same variable, have another working directory."""
    file = settings_file(tmp_path, "client.id=me")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ChannelError, match=f"KAFKA_CONFIG {file.name}: each worker .* absolute"):
        read_settings({CONFIG_VARIABLE: file.name})
    assert read_settings({CONFIG_VARIABLE: str(file)}) == {"client.id": "me"}


def test_a_file_of_settings_that_is_missing_is_reported() -> None:
    with pytest.raises(ChannelError, match=r"KAFKA_CONFIG /no/such: can't be read \(No such file"):
        read_settings({CONFIG_VARIABLE: "/no/such"})
    assert read_settings({}) == {}
