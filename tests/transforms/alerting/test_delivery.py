"""Retries, the breaker, and who waits for whom."""

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import parse_rules
from tests.transforms.alerting.sending import IMPATIENT, NO_TARGETS, an_alert, policy
from tests.transforms.web_service import status
from transforms.alerting import messages
from transforms.alerting.answers import SendResult
from transforms.alerting.delivery import AlertDispatcher, TargetGate, TargetSender, pause_before
from transforms.alerting.ledger import DELIVERED, FAILED, NOT_SENT, Ledger, Outcome
from transforms.alerting.messages import compose
from transforms.alerting.target_clients import (
    check_url,
    named_urls,
    url_client,
)
from transforms.runtime.live_rules import LiveRules
from transforms.send_alerts import SendAlerts
from transforms.storage import stores

NEVER = threading.Event()


def sender_at(web, path="/hook", **changes):
    how = policy(**changes)
    return TargetSender(url_client("hook", web.url + path, "ALERT_TOKEN", {}, how.limits), how)


def send(sender, second=0):
    alert = an_alert(second)
    if (closed := sender.wait(alert.alert_id, NEVER)) is not None:
        return "closed", closed.detail
    result = sender.send(alert.alert_id, lambda: compose(alert.body, NO_TARGETS, image={}), NEVER)
    return result.outcome, result.detail


def gaps(web):
    """Seconds between one request and the next."""
    times = [request.at for request in web.requests]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.fixture
def dead(web):
    """An address at which nothing listens any more."""
    web.stop()
    return web


# One service.


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_delivery(web, code):
    web.answers = [status(code)]
    assert send(sender_at(web)) == ("delivered", "")


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_transient_errors_are_retried_with_longer_pauses(web, code):
    web.answers = [status(code), status(code), status(200)]
    assert send(sender_at(web, first_pause_seconds=0.1)) == ("delivered", "")
    first, second = gaps(web)
    assert 0.07 < first < 2
    assert 0.14 < second < 3
    assert len({request.headers["Idempotency-Key"] for request in web.requests}) == 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_after_the_last_attempt_the_alert_has_failed(web, attempts):
    web.answers = [status(503)]
    assert send(sender_at(web, attempts=attempts)) == ("unavailable", "HTTP status 503")
    assert len(web.requests) == attempts


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 401, 403, 404, 410, 422])
def test_a_refusal_or_redirect_is_final(web, code):
    web.answers = [status(code, location=f"{web.url}/elsewhere")]
    assert send(sender_at(web)) == ("refused", f"HTTP status {code}")
    assert [request.path for request in web.requests] == ["/hook"]


def test_a_retry_after_in_seconds_is_heeded(web):
    web.answers = [status(429, retry_after="1"), status(200)]
    assert send(sender_at(web)) == ("delivered", "")
    (gap,) = gaps(web)
    assert 1 <= gap < 4


def test_a_retry_after_as_a_date_is_heeded(web):
    due = time.time() + 2

    def busy(handler, request):
        status(503, retry_after=formatdate(due, usegmt=True))(handler, request)

    web.answers = [busy, status(200)]
    assert send(sender_at(web)) == ("delivered", "")
    assert time.time() > int(due)  # The date has whole seconds.
    assert 0.5 < gaps(web)[0] < 5


@pytest.mark.parametrize("asked", ["6", "100000", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_beyond_the_patience_ends_the_tries(web, asked):
    web.answers = [status(429, retry_after=asked), status(200)]
    sender = sender_at(web)
    assert send(sender) == ("paused", "HTTP status 429: the target asks for a pause")
    assert send(sender, 1) == ("closed", "not tried: the target asks for a pause")
    assert len(web.requests) == 1


def test_pauses_without_a_delivery_in_between_end_the_attempts(web):
    web.answers = [status(503, retry_after="0.4")]
    sender = sender_at(web, patience_seconds=1, first_pause_seconds=0.3)
    assert send(sender)[0] == "paused"
    assert len(web.requests) == 3  # After 0.4 and 0.4 s; the third pause would be beyond 1 s.
    assert send(sender, 1)[0] == "closed"


def test_a_target_that_requests_a_pause_of_zero_is_not_flooded(web):
    web.answers = [status(503, retry_after="0")]
    sender = sender_at(web, patience_seconds=2, first_pause_seconds=0.2)
    send(sender)
    assert len(web.requests) <= 6  # Pauses of 0, 0.2, 0.4, 0.8, 1.6 s.


@pytest.mark.parametrize("code", [429, 503])
def test_a_pause_is_no_failure_and_holds_for_all_alerts(web, code):
    """One attempt, and one failure in a row allowed: a pause counts as neither."""
    web.answers = [status(code, retry_after="1"), status(200)]
    sender = sender_at(web, attempts=1, give_up_after=1)
    assert send(sender) == ("delivered", "")
    web.answers = [status(code, retry_after="1"), status(200)]
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda second: send(sender, second), range(1, 9)))
    assert outcomes == [("delivered", "")] * 8
    paused = web.requests[2].at
    assert all(request.at >= paused + 0.9 for request in web.requests[10:])


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30))
def test_only_one_alert_at_a_time_probes_a_target_that_is_given_up(asking):
    """The alert that is let through may ask again; once it has left, another one may probe."""
    gate = TargetGate(policy(give_up_after=1, try_again_seconds=0))
    gate.record_result(SendResult("unavailable"))
    let_through = [alert for alert in asking if gate.enter(alert) is None]
    assert let_through == [alert for alert in asking if alert == asking[0]]
    gate.release_probe("another")
    assert gate.enter("another") is not None
    gate.release_probe(asking[0])
    assert gate.enter("another") is None


def test_a_pause_opens_no_breaker():
    """One failure is allowed; after many pauses the target is still let through."""
    gate = TargetGate(policy(give_up_after=1, first_pause_seconds=0))
    for number in range(10):
        assert gate.enter(str(number)) is None
        gate.record_result(SendResult("paused", retry_after=0))
    assert gate.enter("a") is gate.enter("b") is None
    gate.record_result(SendResult("unavailable"))
    assert gate.enter("a") is not None


@pytest.mark.parametrize("code", [408, 425, 500, 502, 504])
def test_no_other_status_requests_a_pause(web, code):
    web.answers = [status(code, retry_after="1000"), status(200)]
    assert send(sender_at(web)) == ("delivered", "")


def test_a_service_that_hangs_is_not_waited_for(web):
    web.answers = [lambda handler, request: web.ended.wait(20)]
    started = time.monotonic()
    assert send(sender_at(web, limits=IMPATIENT)) == ("unavailable", "no answer in time")
    assert time.monotonic() - started < 5
    assert len(web.requests) == 3


def test_a_connection_that_closes_is_tried_again(web):
    def close(handler, request):
        handler.close_connection = True

    web.answers = [close, status(200)]
    assert send(sender_at(web)) == ("delivered", "")
    web.answers = [close]
    outcome, detail = send(sender_at(web))
    assert outcome == "unavailable"
    assert detail.startswith("no connection (")


def test_a_refused_connection_has_failed_after_the_attempts(dead):
    assert send(sender_at(dead)) == ("unavailable", "no connection (ConnectionError)")


# A service that is dead.


def test_a_dead_service_is_given_up_and_costs_nothing_more(web):
    web.answers = [status(503)]
    service = sender_at(web, give_up_after=3, attempts=2)
    outcomes = [send(service, second) for second in range(10)]
    assert outcomes[:3] == [("unavailable", "HTTP status 503")] * 3
    assert (
        outcomes[3:] == [("closed", "not tried: the target has failed several alerts in a row")] * 7
    )
    assert len(web.requests) == 3 * 2


def until_open(sender):
    while (closed := sender.gate.enter("")) is not None:
        time.sleep(closed.seconds)
    sender.gate.release_probe("")


def test_a_service_given_up_is_tried_again_later(web):
    web.answers = [status(503)]
    service = sender_at(web, give_up_after=2, attempts=1, try_again_seconds=0.4)
    for second in range(4):
        send(service, second)
    assert len(web.requests) == 2
    until_open(service)
    for second in range(4):  # One is tried; it fails, and the others wait again.
        send(service, second)
    assert len(web.requests) == 3
    until_open(service)
    web.answers = [status(200)]
    assert [send(service, second)[0] for second in range(4)] == ["delivered"] * 4
    assert len(web.requests) == 7


@pytest.mark.parametrize("answer", [200, 400])
def test_a_service_that_answers_in_between_is_not_given_up(web, answer):
    service = sender_at(web, give_up_after=2, attempts=1)
    for second in range(8):
        web.answers = [status(503 if second % 2 else answer)]
        send(service, second)
    assert len(web.requests) == 8


def test_one_service_is_sent_alerts_from_many_threads(web):
    service = sender_at(web)
    outcomes = []
    threads = [
        threading.Thread(target=lambda at=second: outcomes.append(send(service, at)))
        for second in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [("delivered", "")] * 20
    assert len({json.loads(request.body)["alert_id"] for request in web.requests}) == 20


# Addresses.


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://alerts.example.com", "https://alerts.example.com"),
        ("HTTPS://Alerts.example.com/Hook", "https://alerts.example.com"),
        ("https://user:s3cret@alerts.example.com/t0ken?key=s3cret", "https://alerts.example.com"),
        ("http://127.0.0.1:8080/s3cret", "http://127.0.0.1:8080"),
        ("http://[::1]:8080?s3cret", "http://[::1]:8080"),
        ("https://${USER}:${PASSWORD}@a.example:8443/${HOOK}", "https://a.example:8443"),
        ("https://${HOST}:${PORT}/s3cret", "https://${HOST}:${PORT}"),
        ("${ALERT_URL}", "${ALERT_URL}"),
        ("${BASE}/s3cret", "${BASE}"),
    ],
)
def test_a_service_s_name_holds_no_secret(url, name):
    check_url(url)
    assert named_urls([url]) == {name: url}


HOSTS = st.sampled_from(["a.example", "b.example:8443", "${HOST}"])
SECRETS = st.text("abc123", min_size=6, max_size=8)


@given(st.lists(st.tuples(HOSTS, SECRETS, SECRETS), max_size=6))
def test_names_distinguish_addresses_and_disclose_no_secret(parts):
    urls = [f"https://u:{password}@{host}/{path}" for host, password, path in parts]
    named = named_urls(urls)
    assert list(named.values()) == list(dict.fromkeys(urls))
    # Other secrets have the same names, and a further address leaves those before it as they are.
    others = [f"https://u:{number}@{host}" for number, (host, _, _) in enumerate(parts)]
    if len(set(urls)) == len(urls):
        assert list(named_urls(others)) == list(named)
    assert list(named_urls([*urls, "https://a.example/one/more"]))[: len(named)] == list(named)


@pytest.mark.parametrize(
    "url",
    ["", "alerts.example.com", "ftp://a.example/s3cret", "https://", "http://:80/s3cret",
     "http://a.example:port/s3cret", "http://a.example:99999/s3cret", "http://[::1/s3cret",
     "http://a.example:0/s3cret", "file:///s3cret",
     "ftp://${HOST}/s3cret", "s3cret${URL}"],
)  # fmt: skip
def test_an_invalid_address_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="not an address") as refused:
        check_url(url)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ValueError, match="not an address"):
        SendAlerts("/out", NO_TARGETS, urls=[url])


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "https://u:p@a.example:8443/x?y#z",
        "http://[::1]:80/",
        "${URL}",
        "https://${HOST}:${PORT}/${PATH}",
    ],
)
def test_an_address_is_accepted(url):
    check_url(url)


def test_pauses_double_up_to_the_longest_and_differ_by_a_quarter():
    """What failed together does not come back together."""
    for attempt, middle in ((1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (2_000, 30.0)):
        pauses = {pause_before(attempt, 0.5, 30.0) for _ in range(200)}
        assert len(pauses) > 100
        assert 0.75 * middle <= min(pauses) < 0.85 * middle
        assert 1.15 * middle < max(pauses) <= 1.25 * middle


# Messages that can't be written.


def raising(error):
    def raise_error(*_, **__):
        raise error

    return raise_error


def test_a_message_that_can_not_be_written_lets_another_alert_be_the_probe(web):
    web.answers = [status(503), status(200)]
    sender = sender_at(web, attempts=1, give_up_after=1, try_again_seconds=0)
    assert send(sender)[0] == "unavailable"
    unwritable = an_alert(1).alert_id
    assert sender.wait(unwritable, NEVER) is None
    assert sender.send(unwritable, raising(KeyError("id")), NEVER) == SendResult(
        "unavailable", "the message can't be written (KeyError)"
    )
    assert send(sender, 2) == ("delivered", "")
    assert len(web.requests) == 2


def dispatched(web, output, alert=None, **options):
    """What comes of an alert for a target at a service."""
    ruleset = parse_rules(
        f"version: 1\ntargets: {{hook: {{webhook: '{web.url}'}}}}\n", "rules.yaml"
    )
    dispatcher = AlertDispatcher(
        str(output), LiveRules.of(ruleset), [], policy(), max_concurrent=1, **options
    )
    return dispatcher.dispatch(alert or an_alert(), "hook").result(timeout=30)


@pytest.mark.parametrize(("is_due", "outcome"), [(True, "delivered"), (False, "not_sent")])
def test_an_alert_that_was_due_is_sent_however_old_it_is(web, tmp_path, is_due, outcome):
    """It was decided in time, and waited for other alerts to be sent."""
    web.answers = [status(200)]
    alert = replace(an_alert(), is_due=is_due)
    (sent,) = dispatched(web, tmp_path, alert, max_age_seconds=60)
    assert sent.outcome == outcome


def test_an_alert_whose_picture_raises_an_unexpected_error_is_delivered_without_it(
    web, tmp_path, monkeypatch
):
    web.answers = [status(200)]
    monkeypatch.setattr(messages, "read_with_boxes", raising(RuntimeError("of a store's client")))
    assert dispatched(web, tmp_path) == [Outcome("hook", DELIVERED)]
    assert len(web.requests) == 1


def test_an_alert_that_can_not_be_written_has_failed_and_is_tried_again(web, tmp_path, monkeypatch):
    monkeypatch.setattr(AlertDispatcher, "_message", raising(KeyError("id")))
    (outcome,) = dispatched(web, tmp_path)
    assert outcome == Outcome("hook", FAILED, "the message can't be written (KeyError)")
    assert outcome.again_after == 0
    assert web.requests == []


def test_two_ledgers_of_a_process_lose_no_outcome(tmp_path, monkeypatch):
    """As after a bundle that has failed: threads of the first one may still be at work."""
    alert, written, goes_on = an_alert(), stores.write_bytes, threading.Event()
    is_writing = threading.Event()

    def slowly(uri, data):
        is_writing.set()
        assert goes_on.wait(10)
        written(uri, data)

    monkeypatch.setattr(stores, "write_bytes", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Ledger(str(tmp_path)).record, alert, Outcome("guard", NOT_SENT))
        assert is_writing.wait(10)
        second = pool.submit(Ledger(str(tmp_path)).record, alert, Outcome("hook", NOT_SENT))
        time.sleep(0.2)
        goes_on.set()
        first.result()
        second.result()
    outcomes = Ledger(str(tmp_path)).outcomes(alert)
    assert [outcome.target for outcome in outcomes] == ["guard", "hook"]
