"""Google Cloud Storage's messages from a Pub/Sub server: none is lost, and faults are told."""

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
from beam_pipeline.notifications import pubsub as module
from beam_pipeline.notifications.address import PubSubAddress
from beam_pipeline.notifications.channel import ChannelError, Position, Taken
from beam_pipeline.notifications.pubsub import PubSubChannel
from tests.beam_pipeline.notifications.messages import gcs
from tests.brokers.pubsub import PROJECT, PubSubServer

_numbers = itertools.count()


@pytest.fixture
def name(pubsub: PubSubServer) -> str:
    name = f"pictures-{next(_numbers)}"
    pubsub.create(name)
    return name


def send(pubsub: PubSubServer, name: str, *numbers: int) -> None:
    for number in numbers:
        attributes, data = gcs(f"{number}.jpg")
        pubsub.send(name, data, attributes)


def numbers(taken: Taken) -> list[int]:
    made = [one.uri for message in taken.messages for one in message.told.created]
    return [int(uri.rsplit("/", 1)[1].removesuffix(".jpg")) for uri in made]


class Looks:
    """Looks one after the other, as the runner lets the source do it."""

    def __init__(self, name: str, position: Position = ()) -> None:
        self.channel = PubSubChannel(PubSubAddress(PROJECT, name))
        self.position = position
        self.receipts: list[Any] = []

    def look(self) -> list[int]:
        taken = self.channel.take(self.position, 1000)
        self.position = taken.position
        if taken.receipt is not None:
            self.receipts.append(taken.receipt)
        self.is_caught_up = taken.is_caught_up
        return sorted(numbers(taken))

    def until(self, done: Callable[[list[int]], bool]) -> list[int]:
        found: list[int] = []
        deadline = time.monotonic() + 20
        while not done(found):
            found += self.look()
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return sorted(found)

    def nothing_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.look() == []
            time.sleep(0.05)

    def kept(self, receipt: Any) -> None:
        """The runner keeps a bundle, and calls back."""
        call = self.channel.once_kept(receipt)
        assert call is not None
        call()

    def close(self) -> None:
        assert self.channel._stream is not None
        self.channel._stream.close()


@pytest.fixture
def looks(name: str) -> Any:
    source = Looks(name)
    yield source
    source.close()


def test_messages_come_once_while_they_are_held(
    pubsub: PubSubServer, name: str, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONNECTED_AFTER_SECONDS", 1.0)
    send(pubsub, name, 1, 2)
    assert looks.look() == []
    assert not looks.is_caught_up  # It has hardly asked.
    assert looks.until(lambda found: len(found) == 2) == [1, 2]
    looks.nothing_for(1)
    assert looks.is_caught_up
    assert pubsub.pull(name) == []


def test_a_runner_that_goes_back_to_a_checkpoint_gets_again_what_was_not_acknowledged(
    pubsub: PubSubServer, name: str, looks: Looks
) -> None:
    send(pubsub, name, 1)
    looks.until(lambda found: found == [1])
    checkpoint = looks.position
    looks.kept(looks.receipts[0])  # The first word: it may be of a checkpoint before.
    send(pubsub, name, 2)
    looks.until(lambda found: found == [2])
    looks.position = checkpoint
    assert looks.until(lambda found: len(found) == 2) == [1, 2]


def test_a_message_is_acknowledged_at_the_second_word_of_the_runner(
    pubsub: PubSubServer, name: str, looks: Looks
) -> None:
    send(pubsub, name, 1)
    looks.until(lambda found: found == [1])
    looks.kept(looks.receipts[0])
    send(pubsub, name, 2)
    looks.until(lambda found: found == [2])
    looks.kept(looks.receipts[1])  # A bundle that began after the first word.
    time.sleep(1)  # Google's client acknowledges in the background.
    looks.position = ()
    assert looks.until(lambda found: len(found) == 1) == [2]
    looks.nothing_for(1)


def test_a_source_that_is_not_looked_at_any_more_gives_its_messages_back(
    pubsub: PubSubServer, name: str, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(pubsub, name, 1)
    looks.until(lambda found: found == [1])
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.5)
    time.sleep(1)
    send(pubsub, name, 2)
    time.sleep(1)
    other = Looks(name)
    assert other.until(lambda found: len(found) == 2) == [1, 2]
    with pytest.raises(ChannelError, match="the stream was closed"):
        looks.look()
    other.close()
    assert looks.until(lambda found: len(found) == 2) == [1, 2]


def test_a_full_look_says_that_there_is_more(pubsub: PubSubServer, name: str, looks: Looks) -> None:
    send(pubsub, name, *range(5))
    found: list[int] = []
    deadline = time.monotonic() + 20
    while len(found) < 5:
        taken = looks.channel.take(looks.position, 1)
        looks.position = taken.position
        found += numbers(taken)
        assert taken.is_full == bool(taken.messages)
        assert time.monotonic() < deadline
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_a_malformed_message_is_kept_with_its_attributes(
    pubsub: PubSubServer, name: str, looks: Looks
) -> None:
    pubsub.send(name, b"hello \xff", {"z": "1", "a": "2"})
    deadline = time.monotonic() + 20
    while not (taken := looks.channel.take(looks.position, 1000)).messages:
        looks.position = taken.position
        assert time.monotonic() < deadline
    (message,) = taken.messages
    assert message.told.problem == "no eventType in the attributes"
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
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert len(told.err.splitlines()) == 1, told.err
    assert time.monotonic() - started < 15
    return told.err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("missing", "there is no such subscription"),
        ("push", "pushes its messages; create one for pulling"),
        ("topic gone", "its topic is gone; create another one"),
    ],
)
def test_a_subscription_that_can_give_nothing_is_told_in_one_line(
    wrong: str, says: str, pubsub: PubSubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"wrong-{next(_numbers)}"
    path = f"projects/{PROJECT}/subscriptions/{name}"
    if wrong == "push":
        pubsub.create(name, push_config={"push_endpoint": "https://example.com/push"})
    elif wrong == "topic gone":
        pubsub.create(name)
        pubsub.delete_topic(name)
    assert f"--notifications pubsub://{path}: {says}" in refused(capsys, path)


def test_a_right_subscription_is_found_right(pubsub: PubSubServer, name: str) -> None:
    send(pubsub, name, 1)
    PubSubChannel(PubSubAddress(PROJECT, name)).check()
    assert len(pubsub.pull(name)) == 1  # It was not taken.


def test_a_server_that_does_not_answer_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{free.getsockname()[1]}")
    assert "refused" in refused(capsys, "projects/my-project/subscriptions/new")


def test_missing_credentials_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("PUBSUB_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    line = refused(capsys, "projects/my-project/subscriptions/new")
    assert "no credentials for Google Cloud; run `gcloud auth application-default login`" in line
