"""What `--notifications` may say, and what is wrong with what it says."""

from __future__ import annotations

import pytest

from beam_pipeline import cli
from beam_pipeline.sources.notifications.address import KafkaAddress, PubSubAddress, parse_address

STREAM = ("--streaming", "--runner", "FlinkRunner")
PUBSUB = ("--notifications", "projects/my-project/subscriptions/pictures")
KAFKA = ("--notifications", "kafka://127.0.0.1:9092/events")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("projects/my-project/subscriptions/new.1", PubSubAddress("my-project", "new.1")),
        ("pubsub://projects/example.com:my-project/subscriptions/new", None),
        ("kafka://a:9092/events", KafkaAddress(("a:9092",), "events")),
        (
            "kafka://a:1,b.c-d:2,[::1]:3/e.v_1-",
            KafkaAddress(("a:1", "b.c-d:2", "[::1]:3"), "e.v_1-"),
        ),
        (
            "kafka://a:9092/events?group=the%20cameras",
            KafkaAddress(("a:9092",), "events", "the cameras"),
        ),
    ],
)
def test_an_address_is_read(text: str, address: KafkaAddress | PubSubAddress | None) -> None:
    assert parse_address(text) == (address or PubSubAddress("example.com:my-project", "new"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not an address like projects/PROJECT/subscriptions/SUBSCRIPTION or kafka://"),
        ("projects/my-project/topics/new", "not an address like"),
        ("https://example.com", "not an address like"),
        ("projects/P/subscriptions/new", "'P' is not the id of a Google Cloud project"),
        ("projects/my-project/subscriptions/1", "'1' is not the id of a subscription"),
        ("kafka://", "'' is not HOST:PORT"),
        ("kafka://host/events", "'host' is not HOST:PORT"),
        ("kafka://host:99999/events", "'host:99999' is not HOST:PORT"),
        ("kafka://a:1,/events", "'' is not HOST:PORT"),
        ("kafka://a:1", "'' is not the name of a topic"),
        ("kafka://a:1/e/f", "'e/f' is not the name of a topic"),
        ("kafka://a:1/..", "'..' is not the name of a topic"),
        ("kafka://a:1/e?group=", "?group= names no group"),
        ("kafka://a:1/e?grup=x", "only ?group=GROUP may follow"),
    ],
)
def test_a_malformed_address_is_reported_in_one_line(
    text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, *STREAM, "--input", "s3://bucket-1/in", "--notifications", text)
    assert says in line


def test_a_password_in_an_address_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, *STREAM, "--notifications", "kafka://me:hidden@host:1/events")
    assert "an address of Kafka holds no user or password" in line
    assert "hidden" not in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*PUBSUB, "--input", "gs://bucket-1/in"), "add --streaming"),
        ((*PUBSUB, *STREAM), "give --input gs://BUCKET/FOLDER too"),
        ((*KAFKA, *STREAM), "give --input s3://BUCKET/FOLDER too"),
        ((*PUBSUB, *STREAM, "--input", "s3://bucket-1"), "objects on gs://, and --input is s3://"),
        ((*KAFKA, *STREAM, "--input", "/srv/in"), "objects on s3://, and --input is /srv/in"),
    ],
)
def test_notifications_that_do_not_fit_the_rest_are_reported_in_one_line(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, *arguments)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert len(captured.err.splitlines()) == 1, captured.err
    return captured.err
