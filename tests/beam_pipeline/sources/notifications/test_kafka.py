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
from beam_pipeline.notifications.address import KafkaAddress
from beam_pipeline.notifications.channel import ChannelError, Position, Taken
from beam_pipeline.notifications.kafka import CONFIG_VARIABLE, KafkaChannel, read_settings
from tests.beam_pipeline.notifications.messages import s3, s3_record
from tests.brokers.kafka import PASSWORD, USER, KafkaBroker

_numbers = itertools.count()


@pytest.fixture
def topic(kafka: KafkaBroker) -> str:
    name = f"events-{next(_numbers)}"
    kafka.create_topic(name)
    return name


def event(number: int) -> bytes:
    return s3(s3_record(f"{number}.jpg"))


def channel(kafka: KafkaBroker, topic: str, group: str | None = None) -> KafkaChannel:
    return KafkaChannel(KafkaAddress((kafka.address,), topic, group), {})


def numbers(taken: Taken) -> list[int]:
    made = [one.uri for message in taken.messages for one in message.told.created]
    return [int(uri.rsplit("/", 1)[1].removesuffix(".jpg")) for uri in made]


def look_until(
    done: Callable[[list[int], Taken], bool], source: KafkaChannel, position: Position = ()
) -> tuple[list[int], Taken]:
    """Looks again and again; the numbers that came, and what was taken last."""
    found: list[int] = []
    deadline = time.monotonic() + 20
    while True:
        taken = source.take(position, 1000)
        position = taken.position
        found += numbers(taken)
        if done(found, taken):
            return found, taken
        assert time.monotonic() < deadline, found


def is_caught_up(found: list[int], taken: Taken) -> bool:
    return taken.is_caught_up


def test_all_that_was_ever_told_comes_and_then_what_is_new(kafka: KafkaBroker, topic: str) -> None:
    kafka.send(topic, map(event, range(5)))
    source = channel(kafka, topic)
    found, taken = look_until(is_caught_up, source)
    assert found == [0, 1, 2, 3, 4]
    assert taken.position == ((0, 5),)
    kafka.send(topic, [event(5), None])
    found, taken = look_until(lambda found, _: bool(found), source, taken.position)
    assert found == [5]
    found, taken = look_until(is_caught_up, source, taken.position)
    assert taken.position == ((0, 7),)
    assert taken.receipt is None  # Nobody is told of offsets without a group.


def test_a_source_that_goes_back_to_a_checkpoint_takes_again_what_came_since(
    kafka: KafkaBroker, topic: str
) -> None:
    kafka.send(topic, map(event, range(6)))
    source = channel(kafka, topic)
    assert look_until(is_caught_up, source)[0] == [0, 1, 2, 3, 4, 5]
    assert look_until(is_caught_up, source, ((0, 4),))[0] == [4, 5]
    assert look_until(is_caught_up, channel(kafka, topic), ((0, 3),))[0] == [3, 4, 5]
    assert look_until(is_caught_up, source)[0] == [0, 1, 2, 3, 4, 5]


def test_an_offset_that_is_not_kept_any_more_hides_nothing_that_is(
    kafka: KafkaBroker, topic: str
) -> None:
    kafka.send(topic, map(event, range(6)))
    kafka.delete_records(topic, 4)
    assert look_until(is_caught_up, channel(kafka, topic), ((0, 2),))[0] == [4, 5]


def test_a_partition_that_is_added_is_taken_from_its_first(
    kafka: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.send(topic, [event(0)])
    source = channel(kafka, topic)
    found, taken = look_until(is_caught_up, source)
    kafka.add_partitions(topic, 2)
    kafka.send(topic, [event(1)], partition=1)
    monkeypatch.setattr("beam_pipeline.notifications.kafka._PARTITIONS_EVERY_SECONDS", 0.0)
    found, taken = look_until(lambda found, _: bool(found), source, taken.position)
    assert found == [1]
    assert taken.position == ((0, 1), (1, 1))


def test_a_full_look_says_that_there_is_more(kafka: KafkaBroker, topic: str) -> None:
    kafka.send(topic, map(event, range(20)))
    source = channel(kafka, topic)
    look_until(is_caught_up, source)
    first = source.take((), 8)
    while not first.messages:  # The broker is asked in the background.
        first = source.take(first.position, 8)
    assert numbers(first) == list(range(8))
    assert first.is_full
    assert not first.is_caught_up
    second = source.take(first.position, 100)
    assert numbers(second) == list(range(8, 20))
    assert not second.is_full


def kept(source: KafkaChannel, receipt: Any) -> None:
    """The runner keeps a bundle, and calls back."""
    call = source.once_kept(receipt)
    assert call is not None
    call()


def test_a_group_is_told_of_offsets_only_at_the_second_word_of_the_runner(
    kafka: KafkaBroker, topic: str
) -> None:
    kafka.send(topic, map(event, range(3)))
    source = channel(kafka, topic, group=topic)
    _, taken = look_until(lambda found, _: len(found) == 3, source)
    assert source.once_kept(None) is None  # No word has come that a second could follow.
    kept(source, taken.receipt)
    time.sleep(0.5)
    assert kafka.committed(topic, topic) < 0
    kept(source, None)
    deadline = time.monotonic() + 10
    while kafka.committed(topic, topic) != 3:
        assert time.monotonic() < deadline
    assert source.once_kept(None) is None  # Nothing is left to be told.
    kafka.send(topic, [event(3)])
    assert look_until(is_caught_up, channel(kafka, topic, group=topic))[0] == [3]
    assert look_until(is_caught_up, channel(kafka, topic, group=topic), ((0, 1),))[0] == [1, 2, 3]


def test_receipts_of_before_a_failure_are_forgotten(kafka: KafkaBroker, topic: str) -> None:
    kafka.send(topic, map(event, range(3)))
    source = channel(kafka, topic, group=topic)
    _, taken = look_until(lambda found, _: len(found) == 3, source)
    kept(source, taken.receipt)
    source.take(((0, 1),), 1000)
    assert source.once_kept(None) is None


def refused(capsys: pytest.CaptureFixture[str], address: str) -> str:
    started = time.monotonic()
    code = cli.main(
        [
            *("--streaming", "--runner", "FlinkRunner", "--flink_master", "[local]"),
            *("--input", "s3://pictures/in", "--notifications", address),
        ]
    )
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert len(told.err.splitlines()) == 1, told.err
    assert time.monotonic() - started < 15
    return told.err


def test_a_broker_that_is_not_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"kafka://127.0.0.1:{free.getsockname()[1]}/events"
    line = refused(capsys, address)
    assert f"--notifications {address}: " in line
    assert "Connect" in line
    assert "Connection refused" in line


def test_a_topic_that_is_not_there_is_told_in_one_line_and_not_made(
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
    assert look_until(lambda found, _: bool(found), source)[0] == [7]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["security.protocol"], ":1: not name=value"),
        (["", "# a", "=secret"], ":3: not name=value"),
        (["group.id=x"], ":1: group.id is set by the job; leave it out"),
        (["enable.auto.commit=true"], ":1: enable.auto.commit is set by the job"),
    ],
)
def test_a_wrong_line_of_settings_is_told_without_what_it_says(
    lines: list[str], says: str, tmp_path: Path
) -> None:
    file = settings_file(tmp_path, *lines)
    with pytest.raises(ChannelError) as told:
        read_settings({CONFIG_VARIABLE: str(file)})
    assert says in str(told.value)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sasl.jaas.config=hidden;", "KAFKA_CONFIG"),
        ("no.such.setting=hidden", 'No such configuration property: "no.such.setting"'),
        ("security.protocol=hidden", "security.protocol"),
    ],
)
def test_a_setting_that_librdkafka_does_not_know_is_told_in_one_line(
    line: str, says: str, tmp_path: Path
) -> None:
    file = settings_file(tmp_path, line)
    source = KafkaChannel(KafkaAddress(("127.0.0.1:1",), "e"), {CONFIG_VARIABLE: str(file)})
    with pytest.raises(ChannelError) as told:
        source.check()
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_of_settings_that_is_missing_is_told() -> None:
    with pytest.raises(ChannelError, match=r"KAFKA_CONFIG /no/such: can't be read \(No such file"):
        read_settings({CONFIG_VARIABLE: "/no/such"})
    assert read_settings({}) == {}
