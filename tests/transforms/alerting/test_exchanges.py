"""No exchange with a service lasts longer than it may, and none leaves a thread behind."""

import subprocess
import sys
import threading
import time

import pytest
import requests

import rules
from tests.transforms.web_service import status
from transforms.alerting.answers import SendResult
from transforms.alerting.exchanges import Exchanges, NoAnswerError, TooManyExchangesError
from transforms.alerting.messages import Message
from transforms.alerting.target_clients import TimeLimits, client_for

MESSAGE = Message(
    *("5f" * 16, "hall", "2026-01-31T23:59:59Z", "alert"),
    subject="person at hall",
    text="person at hall",
    body={},
)
NO_ANSWER = SendResult("unavailable", "no answer in time")


def exchanging():
    return [thread for thread in threading.enumerate() if thread.name == "exchange"]


def comes_true(condition, seconds=10.0):
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(autouse=True)
def _none_from_before():
    assert comes_true(lambda: not exchanging())


def dripping(web, start):
    """An answer that comes a letter at a time after its start, until the client has gone."""

    def drip(handler, request):
        handler.wfile.write(start)
        while not web.ended.wait(0.05):
            handler.wfile.write(b".")
        handler.close_connection = True

    return drip


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 100 Continue\r\nX: "]
)
@pytest.mark.parametrize("kind", ["webhook", "apprise", "mail"])
def test_a_service_that_drips_holds_neither_a_try_nor_its_thread(web, kind, start):
    web.answers = [dripping(web, start)]
    url = web.url
    if kind == "apprise":
        url = url.replace("http", "json")
    if kind == "mail":  # A web server waits for the client to speak first, as this client does.
        url = url.replace("http", "mailto") + "?from=cameras@example.com&to=guard@example.com"
    target = rules.Target("guard", "webhook" if kind == "webhook" else "apprise", url)
    limits = TimeLimits(read_seconds=60, exchange_seconds=0.4, apprise_seconds=0.4)
    started = time.monotonic()
    assert client_for(target, {}, limits).send(MESSAGE) == NO_ANSWER
    assert time.monotonic() - started < 5
    assert comes_true(lambda: not exchanging())


def test_an_exchange_that_is_over_opens_no_further_connection(web):
    over, tried = threading.Event(), []

    def work(_):
        over.wait(10)
        try:
            requests.get(web.url, timeout=5)
        except requests.ConnectionError as error:
            tried.append(error)

    with pytest.raises(NoAnswerError):
        Exchanges(0.1).run(work)
    over.set()
    assert comes_true(lambda: not exchanging())
    assert len(tried) == 1
    assert web.requests == []


def test_a_connection_outside_an_exchange_is_left_alone(web):
    with pytest.raises(NoAnswerError):
        Exchanges(0.05).run(lambda _: time.sleep(0.2))
    assert requests.get(web.url, timeout=5).status_code == 200


def test_exchanges_that_do_not_end_are_not_heaped_up():
    """As of a name server that hangs, which nothing can wake from."""
    awake = threading.Event()
    exchanges = Exchanges(0.1, max_concurrent=2)
    for _ in range(2):
        with pytest.raises(NoAnswerError):
            exchanges.run(lambda _: awake.wait(20))
    with pytest.raises(TooManyExchangesError):
        exchanges.run(lambda _: None)
    awake.set()
    assert comes_true(lambda: not exchanging())
    assert exchanges.run(lambda _: 7) == 7


def test_an_exception_of_the_work_is_raised():
    with pytest.raises(ZeroDivisionError):
        Exchanges(5).run(lambda _: 1 / 0)


def test_the_answers_of_an_exchange_are_noted(web):
    web.answers = [status(404), status(429, retry_after="3")]

    def work(exchange):
        for _ in range(2):
            requests.get(web.url, timeout=5)
        web.stop()
        with pytest.raises(requests.ConnectionError):
            requests.get(web.url, timeout=5)
        return exchange

    exchange = Exchanges(20).run(work)
    results = [
        (answer.protocol, answer.status, answer.headers.get("retry-after"))
        for answer in exchange.answers
    ]
    assert results == [("HTTP", 404, None), ("HTTP", 429, "3")]
    assert (exchange.connections, exchange.unanswered) == (3, 1)


PROGRAM = """
import sys, threading
import rules
from transforms.alerting.messages import Message
from transforms.alerting.target_clients import TimeLimits, client_for
target = rules.Target("guard", "webhook", sys.argv[1])
client = client_for(target, {}, TimeLimits(read_seconds=600, exchange_seconds=600))
message = Message("5f", "hall", "", "alert", subject="person", text="person", body={})
threading.Thread(target=client.send, args=(message,), daemon=True).start()
sys.stdin.read()
"""


def test_a_process_ends_while_a_service_drips(web):
    web.answers = [web.drip]
    command = [sys.executable, "-c", PROGRAM, web.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as program:
        assert comes_true(lambda: web.requests, 60)
        assert program.stdin is not None
        program.stdin.close()
        assert program.wait(30) == 0


def test_exchanges_without_a_thread_use_up_no_slot(monkeypatch):
    exchanges = Exchanges(10, max_concurrent=2)

    def no_thread(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as short_of_threads:
        short_of_threads.setattr(threading.Thread, "start", no_thread)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                exchanges.run(lambda exchange: None)
    assert exchanges.run(lambda exchange: "answered") == "answered"
