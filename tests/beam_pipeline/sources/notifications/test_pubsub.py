"""Google Cloud Storage's messages from a Pub/Sub server: none is lost, and faults are reported."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_pipeline import cli
from beam_pipeline.sources.notifications import pubsub as module
from beam_pipeline.sources.notifications.address import PubSubAddress
from beam_pipeline.sources.notifications.channel import (
    ChannelError,
    PartitionPosition,
    PulledBatch,
)
from beam_pipeline.sources.notifications.pubsub import PubSubChannel
from tests.beam_pipeline.sources.notifications.messages import gcs
from tests.brokers.pubsub import PROJECT, PubSubServer

_numbers = itertools.count()
START = PartitionPosition()


@pytest.fixture
def name(pubsub: PubSubServer) -> str:
    name = f"pictures-{next(_numbers)}"
    pubsub.create(name)
    return name


def send(pubsub: PubSubServer, name: str, *numbers: int) -> None:
    for number in numbers:
        attributes, data = gcs(f"{number}.jpg")
        pubsub.send(name, data, attributes)


def numbers(batch: PulledBatch) -> list[int]:
    made = [created.uri for message in batch.messages for created in message.events.created]
    return [int(uri.rsplit("/", 1)[1].removesuffix(".jpg")) for uri in made]


class Pulls:
    """Pulls one after the other, as the runner lets the source do it."""

    def __init__(self, name: str, position: PartitionPosition = START) -> None:
        self.channel = PubSubChannel(PubSubAddress(PROJECT, name))
        self.position = position
        self.receipts: list[Any] = []

    def poll(self) -> list[int]:
        batch = self.channel.pull(0, self.position, 1000)
        self.position = batch.position
        if batch.receipt is not None:
            self.receipts.append(batch.receipt)
        self.batch = batch
        return sorted(numbers(batch))

    def until(self, done: Callable[[list[int]], bool]) -> list[int]:
        numbers_pulled: list[int] = []
        deadline = time.monotonic() + 20
        while not done(numbers_pulled):
            numbers_pulled += self.poll()
            assert time.monotonic() < deadline, numbers_pulled
            time.sleep(0.05)
        return sorted(numbers_pulled)

    def nothing_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.poll() == []
            time.sleep(0.05)

    def kept(self, receipt: Any) -> None:
        """The runner keeps a bundle, and calls back."""
        call = self.channel.finalizer_for(0, receipt)
        assert call is not None
        call()

    def close(self) -> None:
        assert self.channel._stream is not None
        self.channel._stream.close()


@pytest.fixture
def pulls(name: str) -> Any:
    source = Pulls(name)
    yield source
    source.close()


def test_messages_come_once_while_they_are_held(
    pubsub: PubSubServer, name: str, pulls: Pulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(pubsub, name, 1, 2)
    first = pulls.poll()  # What has arrived by now: none, one or both.
    assert not pulls.batch.is_at_end  # It has hardly asked.
    monkeypatch.setattr(module, "_SETTLED_AFTER_SECONDS", 0.1)
    others = pulls.until(lambda pulled: len(first + pulled) == 2)
    assert sorted(first + others) == [1, 2]
    pulls.nothing_for(1)
    assert pulls.batch.is_at_end
    assert pubsub.pull(name) == []


def test_a_runner_that_goes_back_to_a_checkpoint_gets_again_what_was_not_acknowledged(
    pubsub: PubSubServer, name: str, pulls: Pulls
) -> None:
    send(pubsub, name, 1)
    pulls.until(lambda pulled: pulled == [1])
    checkpoint = pulls.position
    pulls.kept(pulls.receipts[0])  # The first callback: it may be of a checkpoint before.
    send(pubsub, name, 2)
    pulls.until(lambda pulled: pulled == [2])
    pulls.position = checkpoint
    assert pulls.until(lambda pulled: len(pulled) == 2) == [1, 2]


def test_a_message_is_acknowledged_at_the_second_callback_of_the_runner(
    pubsub: PubSubServer, name: str, pulls: Pulls
) -> None:
    send(pubsub, name, 1)
    pulls.until(lambda pulled: pulled == [1])
    pulls.kept(pulls.receipts[0])
    send(pubsub, name, 2)
    pulls.until(lambda pulled: pulled == [2])
    pulls.kept(pulls.receipts[1])  # A bundle that began after the first callback.
    time.sleep(1)  # Google's client acknowledges in the background.
    pulls.position = START
    assert pulls.until(lambda pulled: len(pulled) == 1) == [2]
    pulls.nothing_for(1)


def test_a_source_that_is_not_looked_at_any_more_gives_its_messages_back(
    pubsub: PubSubServer, name: str, pulls: Pulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(pubsub, name, 1)
    pulls.until(lambda pulled: pulled == [1])
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.5)
    time.sleep(1)
    send(pubsub, name, 2)
    time.sleep(1)
    other = Pulls(name)
    assert other.until(lambda pulled: len(pulled) == 2) == [1, 2]
    with pytest.raises(ChannelError, match="the stream was closed"):
        pulls.poll()
    other.close()
    assert pulls.until(lambda pulled: len(pulled) == 2) == [1, 2]


def test_a_full_look_says_that_there_is_more(pubsub: PubSubServer, name: str, pulls: Pulls) -> None:
    send(pubsub, name, *range(5))
    pulled: list[int] = []
    deadline = time.monotonic() + 20
    while len(pulled) < 5:
        batch = pulls.channel.pull(0, pulls.position, 1)
        pulls.position = batch.position
        pulled += numbers(batch)
        assert batch.is_full == bool(batch.messages)
        assert time.monotonic() < deadline
    assert sorted(pulled) == [0, 1, 2, 3, 4]


def test_a_malformed_message_is_kept_with_its_attributes(
    pubsub: PubSubServer, name: str, pulls: Pulls
) -> None:
    pubsub.send(name, b"hello \xff", {"z": "1", "a": "2"})
    deadline = time.monotonic() + 20
    while not (batch := pulls.channel.pull(0, pulls.position, 1000)).messages:
        pulls.position = batch.position
        assert time.monotonic() < deadline
    (message,) = batch.messages
    assert message.events.problem == "no eventType in the attributes"
    assert json.loads(message.content) == {
        "attributes": {"a": "2", "z": "1"},
        "data": "aGVsbG8g/w==",
    }


def refused(capsys: pytest.CaptureFixture[str], subscription: str) -> str:
    started = time.monotonic()
    code = cli.main(
        [
            *("--streaming", "--runner", "FlinkRunner", "--flink_master", "[local]"),
            *("--input", "gs://pictures-1/in", "--notifications", subscription),
        ]
    )
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert len(captured.err.splitlines()) == 1, captured.err
    assert time.monotonic() - started < 15
    return captured.err


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("missing", "there is no such subscription"),
        ("push", "pushes its messages; create one for pulling"),
        ("topic gone", "its topic was deleted; create another one"),
    ],
)
def test_a_subscription_that_can_give_nothing_is_reported_in_one_line(
    wrong: str, expected: str, pubsub: PubSubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"wrong-{next(_numbers)}"
    path = f"projects/{PROJECT}/subscriptions/{name}"
    if wrong == "push":
        pubsub.create(name, push_config={"push_endpoint": "https://example.com/push"})
    elif wrong == "topic gone":
        pubsub.create(name)
        pubsub.delete_topic(name)
    assert f"--notifications pubsub://{path}: {expected}" in refused(capsys, path)


def test_a_right_subscription_is_found_right(pubsub: PubSubServer, name: str) -> None:
    send(pubsub, name, 1)
    PubSubChannel(PubSubAddress(PROJECT, name)).check()
    assert len(pubsub.pull(name)) == 1  # It was not batch.


def test_a_server_that_does_not_answer_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{free.getsockname()[1]}")
    assert "refused" in refused(capsys, "projects/my-project/subscriptions/new")


def test_missing_credentials_are_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("PUBSUB_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    line = refused(capsys, "projects/my-project/subscriptions/new")
    assert "no credentials for Google Cloud; run `gcloud auth application-default login`" in line
