import hashlib
import itertools
import json
import logging
import threading
import time
from email.utils import formatdate

import apache_beam as beam
import pytest

from rules import alert_id
from tests.transforms.results import judged
from tests.transforms.web_service import status
from transforms import stores
from transforms.counters import counted, counted_here
from transforms.send_alerts import (
    AlertService,
    RetryPolicy,
    SendAlerts,
    _Send,
    _TryAgain,
    _Undelivered,
    alert_for,
    check_url,
    retry_after_seconds,
    target_name,
)

QUICK = RetryPolicy(
    attempts=3,
    connect_seconds=1,
    read_seconds=0.3,
    first_pause_seconds=0.01,
    longest_pause_seconds=5,
    give_up_after=1000,
    try_again_seconds=60,
)


def policy(**changes):
    return RetryPolicy(**{**vars(QUICK), **changes})


def an_alert(second=0, camera="hall"):
    image = judged(camera, f"2026-01-31T10:00:{second:02d}Z", [("person", "alert")])
    return alert_for(image, "/out")


def service_at(web, path="/hook", **changes):
    return AlertService(web.url + path, policy(**changes))


def gaps(web):
    """Seconds between one request and the next."""
    times = [request.at for request in web.requests]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.fixture
def dead(web):
    """An address at which nothing listens any more."""
    web.stop()
    return web


# The alert itself.


@pytest.mark.parametrize(
    ("threats", "called_for"),
    [
        ([], False),
        ([("dog", "detection")], False),
        ([("person", "alert")], True),
        ([("dog", "detection"), ("person", "alert")], True),
    ],
)
def test_an_alert_is_called_for_by_a_threat_of_that_severity(threats, called_for):
    assert (alert_for(judged(threats=threats), "/out") is not None) is called_for


def test_the_body_of_an_alert():
    alert = alert_for(judged(threats=[("person", "alert")]), "/out/")
    expected = hashlib.sha256(b"hall\n2026-01-31T23:59:59Z\nalert").hexdigest()[:32]
    assert (alert.alert_id, alert.camera) == (expected, "hall")
    assert alert.body == {
        "alert_id": expected,
        "id": "hall",
        "timestamp": "2026-01-31T23:59:59Z",
        "severity": "alert",
        "threats": [
            {
                "detection": 0,
                "label": "person",
                "conf": 0.9,
                "severity": "alert",
                "rule": "defaults.objects.person",
                "zone": None,
            }
        ],
        "image_uri": "/in/hall_2026-01-31T23-59-59Z.jpg",
        "final_uri": "/out/final/hall/hall_2026-01-31T23-59-59Z.json",
        "rules_version": "ba9876543210",
        "model_version": "0123456789ab",
    }


# One service.


@pytest.mark.parametrize(
    ("token", "authorization"),
    [
        (None, None),
        ("", None),
        ("t0ken", "Bearer t0ken"),
        ("t0ken\n", "Bearer t0ken"),
        ("“t0ken”", "Bearer “t0ken”"),
    ],
)
def test_an_alert_is_posted_as_json_with_its_id_and_the_token(
    web, monkeypatch, token, authorization
):
    monkeypatch.delenv("ALERT_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("ALERT_TOKEN", token)
    alert = an_alert()
    assert service_at(web, "/hook?a=b").send(alert) == ("delivered", "")
    (request,) = web.requests
    assert (request.method, request.path) == ("POST", "/hook?a=b")
    assert json.loads(request.body) == alert.body
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == alert.alert_id
    received = request.headers.get("Authorization")
    assert (received and received.encode("latin-1").decode()) == authorization


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_delivery(web, code):
    web.answers = [status(code)]
    assert service_at(web).send(an_alert()) == ("delivered", "")


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_longer_pauses(web, code):
    web.answers = [status(code), status(code), status(200)]
    assert service_at(web, first_pause_seconds=0.1).send(an_alert()) == ("delivered", "")
    first, second = gaps(web)
    assert 0.07 < first < 2
    assert 0.14 < second < 3
    assert len({request.headers["Idempotency-Key"] for request in web.requests}) == 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_after_the_last_attempt_the_alert_has_failed(web, attempts):
    web.answers = [status(503)]
    assert service_at(web, attempts=attempts).send(an_alert()) == ("failed", "HTTP status 503")
    assert len(web.requests) == attempts


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 401, 403, 404, 410, 422])
def test_a_refusal_or_redirect_is_final(web, code):
    web.answers = [status(code, location=f"{web.url}/elsewhere")]
    assert service_at(web).send(an_alert()) == ("failed", f"HTTP status {code}")
    assert [request.path for request in web.requests] == ["/hook"]


def test_a_retry_after_in_seconds_is_heeded(web):
    web.answers = [status(429, retry_after="1"), status(200)]
    assert service_at(web).send(an_alert()) == ("delivered", "")
    (gap,) = gaps(web)
    assert 1 <= gap < 4


def test_a_retry_after_as_a_date_is_heeded(web):
    due = time.time() + 2

    def busy(handler, request):
        status(503, retry_after=formatdate(due, usegmt=True))(handler, request)

    web.answers = [busy, status(200)]
    assert service_at(web).send(an_alert()) == ("delivered", "")
    assert time.time() > int(due)  # The date has whole seconds.
    assert 0.5 < gaps(web)[0] < 5


@pytest.mark.parametrize("asked", ["6", "100000", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_beyond_the_longest_pause_ends_it(web, asked):
    web.answers = [status(429, retry_after=asked), status(200)]
    assert service_at(web).send(an_alert()) == ("failed", "HTTP status 429")
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("7", 7),
        ("-7", 0),
        ("9" * 400, float("inf")),
        ("9" * 5000, None),
        ("soon", None),
        ("1.5", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0),
    ],
)
def test_what_a_retry_after_header_asks_for(header, seconds):
    assert retry_after_seconds(header) == seconds


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_a_retry_after_date_is_in_gmt_wherever_the_machine_is(monkeypatch, zone, form):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        header = time.strftime(form, time.gmtime(time.time() + 100))
        assert retry_after_seconds(header) == pytest.approx(100, abs=3)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_service_that_hangs_is_not_waited_for(web):
    web.answers = [lambda handler, request: web.ended.wait(20)]
    started = time.monotonic()
    assert service_at(web).send(an_alert()) == ("failed", "no answer in time")
    assert time.monotonic() - started < 5
    assert len(web.requests) == 3


def test_a_body_that_drips_is_not_waited_for(web):
    def drip(handler, request):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not web.ended.wait(0.1):
            handler.wfile.write(b".")

    web.answers = [drip]
    started = time.monotonic()
    assert service_at(web).send(an_alert()) == ("delivered", "")
    assert time.monotonic() - started < 2


def test_a_connection_that_closes_is_tried_again(web):
    def close(handler, request):
        handler.close_connection = True

    web.answers = [close, status(200)]
    assert service_at(web).send(an_alert()) == ("delivered", "")
    web.answers = [close]
    outcome, detail = service_at(web).send(an_alert())
    assert outcome == "failed"
    assert detail.startswith("no connection (")


def test_a_refused_connection_has_failed_after_the_attempts(dead):
    assert service_at(dead).send(an_alert()) == ("failed", "no connection (ConnectionError)")


# A service that is dead.


def test_a_dead_service_is_given_up_and_costs_nothing_more(web):
    web.answers = [status(503)]
    service = service_at(web, give_up_after=3, attempts=2)
    outcomes = [service.send(an_alert(second)) for second in range(10)]
    assert outcomes[:3] == [("failed", "HTTP status 503")] * 3
    assert (
        outcomes[3:]
        == [("failed", "not tried: the service has failed several alerts in a row")] * 7
    )
    assert len(web.requests) == 3 * 2


def test_a_service_given_up_is_tried_again_later(web):
    web.answers = [status(503)]
    service = service_at(web, give_up_after=2, attempts=1, try_again_seconds=0.4)
    for second in range(4):
        service.send(an_alert(second))
    assert len(web.requests) == 2
    time.sleep(0.5)
    for second in range(4):  # One is tried; it fails, and the others wait again.
        service.send(an_alert(second))
    assert len(web.requests) == 3
    time.sleep(0.5)
    web.answers = [status(200)]
    assert [service.send(an_alert(second))[0] for second in range(4)] == ["delivered"] * 4
    assert len(web.requests) == 7


@pytest.mark.parametrize("answer", [200, 400])
def test_a_service_that_answers_in_between_is_not_given_up(web, answer):
    service = service_at(web, give_up_after=2, attempts=1)
    for second in range(8):
        web.answers = [status(503 if second % 2 else answer)]
        service.send(an_alert(second))
    assert len(web.requests) == 8


def test_one_service_is_sent_alerts_from_many_threads(web):
    service = service_at(web)
    outcomes = []
    threads = [
        threading.Thread(target=lambda at=second: outcomes.append(service.send(an_alert(at))))
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
    ("url", "shown"),
    [
        ("https://alerts.example.com", "https://alerts.example.com"),
        ("https://user:s3cret@alerts.example.com/t0ken?key=s3cret", "https://alerts.example.com"),
        ("http://127.0.0.1:8080/s3cret", "http://127.0.0.1:8080"),
    ],
)
def test_a_service_s_name_holds_no_secret(url, shown):
    assert target_name(url) == f"{shown}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def test_two_addresses_at_one_host_have_two_names():
    assert target_name("https://a.example/one") != target_name("https://a.example/two")


@pytest.mark.parametrize(
    "url",
    ["", "alerts.example.com", "ftp://a.example/s3cret", "https://", "http://:80/s3cret",
     "http://a.example:port/s3cret", "http://a.example:99999/s3cret", "http://[::1/s3cret",
     "http://a.example:0/s3cret", "file:///s3cret"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="not an address") as refused:
        check_url(url)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ValueError, match="not an address"):
        SendAlerts("/out", urls=[url])


@pytest.mark.parametrize(
    "url", ["http://a.example", "https://u:p@a.example:8443/x?y#z", "http://[::1]:80/"]
)
def test_an_address_is_taken(url):
    check_url(url)


# The step.

IMAGES = [
    judged("hall", "2026-01-31T10:00:00Z", [("person", "alert")]),
    judged("hall", "2026-01-31T10:00:01Z", [("dog", "detection")]),
    judged("yard", "2026-01-31T10:00:00Z", [("person", "alert"), ("person", "alert")]),
    judged("yard", "2026-01-31T10:00:01Z", []),
]


def send(run_pipeline, output, *urls, images=IMAGES, **changes):
    def build(pipeline):
        sent = (
            pipeline
            | beam.Create(images)
            | SendAlerts(str(output), urls=urls, policy=policy(**changes))
        )
        return {"sent": sent}

    result, _ = run_pipeline(build)
    return counted(result)


def records(output):
    """What is kept of each alert, by its place."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted((output / "alerts").rglob("*"))
        if path.is_file()
    }


def targets(output):
    """The outcomes by the targets, for each alert."""
    return [
        {one["target"]: (one["outcome"], one["detail"]) for one in json.loads(data)["targets"]}
        for data in records(output).values()
    ]


def test_each_alert_is_delivered_and_recorded(run_pipeline, tmp_path, web):
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook")
    kept = records(tmp_path)
    expected = [alert_for(image, str(tmp_path)) for image in (IMAGES[0], IMAGES[2])]
    assert list(kept) == [f"alerts/{one.camera}/{one.alert_id}.json" for one in expected]
    name = target_name(f"{web.url}/hook")
    delivered = [{"target": name, "outcome": "delivered", "detail": ""}]
    for alert, data in zip(expected, kept.values(), strict=True):
        assert data == stores.json_bytes({**alert.body, "targets": delivered})
    assert {request.headers["Idempotency-Key"] for request in web.requests} == {
        one.alert_id for one in expected
    }
    assert len(web.requests) == 2
    assert counts == {"alerts.delivered": 2}


def test_without_a_service_alerts_are_recorded_as_not_sent(run_pipeline, tmp_path):
    assert send(run_pipeline, tmp_path) == {"alerts.not_sent": 2}
    assert targets(tmp_path) == [{None: ("not_sent", "no --alert_url was given")}] * 2


def test_two_services_have_their_own_fates(run_pipeline, tmp_path, web):
    def answer(handler, request):
        status(200 if request.path == "/good" else 400)(handler, request)

    web.answers = [answer]
    good, bad = f"{web.url}/good", f"{web.url}/bad"
    counts = send(run_pipeline, tmp_path, good, bad)
    assert counts == {"alerts.delivered": 2, "alerts.failed": 2}
    fates = {target_name(good): ("delivered", ""), target_name(bad): ("failed", "HTTP status 400")}
    assert targets(tmp_path) == [fates] * 2


def test_what_was_delivered_is_not_sent_again(run_pipeline, tmp_path, web):
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    before = records(tmp_path)
    assert send(run_pipeline, tmp_path, f"{web.url}/hook") == {"alerts.delivered": 2}
    assert len(web.requests) == 2
    assert records(tmp_path) == before


SENT = judged("hall", "2026-01-31T10:00:00Z", [("person", "alert")], incident_number=1)
COVERED = judged(
    *("hall", "2026-01-31T10:00:05Z", [("person", "alert")]),
    suppressed_by=alert_id("hall", "2026-01-31T10:00:00Z", "alert"),
    incident_number=2,
)


@pytest.mark.parametrize("services", [0, 1, 2])
def test_what_another_alert_covers_is_recorded_as_suppressed_and_sent_to_nobody(
    run_pipeline, tmp_path, web, services
):
    urls = [f"{web.url}/{number}" for number in range(services)]
    counts = send(run_pipeline, tmp_path, *urls, images=[SENT, COVERED])
    fate = {"alerts.delivered": services} if services else {"alerts.not_sent": 1}
    assert counts == {"alerts.suppressed": 1, **fate}
    sent, covered = (alert_for(one, str(tmp_path)) for one in (SENT, COVERED))
    asked = [request.headers["Idempotency-Key"] for request in web.requests]
    assert asked == [sent.alert_id] * services
    detail = f"in the cooldown of alert {sent.alert_id}"
    assert json.loads(records(tmp_path)[f"alerts/hall/{covered.alert_id}.json"]) == {
        **covered.body,
        "suppressed_by": sent.alert_id,
        "incident_number": 2,
        "targets": [{"target": None, "outcome": "suppressed", "detail": detail}],
    }
    assert "suppressed_by" not in json.loads(records(tmp_path)[f"alerts/hall/{sent.alert_id}.json"])


def test_what_was_delivered_by_other_rules_stays_so(run_pipeline, tmp_path, web):
    url = f"{web.url}/hook"
    without = judged("hall", "2026-01-31T10:00:05Z", [("person", "alert")], incident_number=1)
    send(run_pipeline, tmp_path, url, images=[without])
    before = records(tmp_path)
    assert send(run_pipeline, tmp_path, url, images=[COVERED]) == {"alerts.delivered": 1}
    assert records(tmp_path) == before
    assert len(web.requests) == 1


def test_what_was_suppressed_is_sent_once_other_rules_ask_for_it(run_pipeline, tmp_path, web):
    send(run_pipeline, tmp_path, images=[COVERED])
    without = judged("hall", "2026-01-31T10:00:05Z", [("person", "alert")], incident_number=1)
    counts = send(run_pipeline, tmp_path, f"{web.url}/hook", images=[without])
    assert counts == {"alerts.delivered": 1}
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}]


def test_what_has_failed_is_sent_again_by_the_next_run(run_pipeline, tmp_path, web):
    web.answers = [status(400)]
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    web.answers = [status(200)]
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}] * 2


@pytest.mark.parametrize("again", [["other"], ["hook", "other"], []])
def test_a_run_with_other_services_keeps_what_the_first_has_delivered(
    run_pipeline, tmp_path, web, again
):
    send(run_pipeline, tmp_path, f"{web.url}/hook")
    send(run_pipeline, tmp_path, *(f"{web.url}/{path}" for path in again))
    paths = [request.path for request in web.requests]
    assert paths.count("/hook") == 2
    assert paths.count("/other") == 2 * ("other" in again)
    names = [target_name(f"{web.url}/{path}") for path in {"hook", *again}]
    assert targets(tmp_path) == [dict.fromkeys(names, ("delivered", ""))] * 2


@pytest.mark.parametrize(
    "record", [b"", b"no JSON", b"[]", b"{}", b'{"targets": 7}', b'{"targets": [{}]}', b"\xff"]
)
def test_a_record_that_cannot_be_read_stops_nothing(run_pipeline, tmp_path, web, record):
    alert = alert_for(IMAGES[0], str(tmp_path))
    uri = stores.alert_uri(str(tmp_path), "hall", alert.alert_id)
    stores.write_bytes(uri, record)
    send(run_pipeline, tmp_path, f"{web.url}/hook", images=IMAGES[:1])
    assert targets(tmp_path) == [{target_name(f"{web.url}/hook"): ("delivered", "")}]


@pytest.mark.parametrize("code", [200, 503])
def test_two_runs_over_the_same_images_leave_the_same_bytes(run_pipeline, tmp_path, web, code):
    web.answers = [status(code)]
    kept = []
    for order in (IMAGES, IMAGES[::-1]):
        output = tmp_path / "output"
        send(run_pipeline, output, f"{web.url}/b", f"{web.url}/a", images=order)
        kept.append(records(output))
        output.rename(tmp_path / f"run {len(kept)}")
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


SECRETS = ("s3cret", "t0ken", "us3r", "qu3ry")


@pytest.mark.parametrize("fate", ["delivered", "refused", "busy", "hanging", "closed", "dead"])
def test_no_secret_is_in_a_record_or_a_log(run_pipeline, tmp_path, web, monkeypatch, caplog, fate):
    monkeypatch.setenv("ALERT_TOKEN", "t0ken")
    caplog.set_level(logging.INFO)
    web.answers = [
        {
            "delivered": status(200),
            "refused": status(403, location="/s3cret"),
            "busy": status(503, b"s3cret"),
            "hanging": lambda handler, request: web.ended.wait(20),
            "closed": lambda handler, request: setattr(handler, "close_connection", True),
            "dead": status(200),
        }[fate]
    ]
    host = web.url.removeprefix("http://")
    if fate == "dead":
        web.stop()
    send(run_pipeline, tmp_path, f"http://us3r:s3cret@{host}/s3cret?key=qu3ry", attempts=2)
    kept = records(tmp_path)
    assert len(kept) == 2
    for text in (*(data.decode() for data in kept.values()), caplog.text):
        assert not [secret for secret in SECRETS if secret in text]
    assert {one["outcome"] for data in kept.values() for one in json.loads(data)["targets"]} == {
        "delivered" if fate == "delivered" else "failed"
    }


@pytest.mark.parametrize("token", ["a\nb", "a\rX-Injected: b"])
def test_a_token_that_is_no_header_fails_the_alerts_alone(
    run_pipeline, tmp_path, web, monkeypatch, token
):
    monkeypatch.setenv("ALERT_TOKEN", token)
    assert send(run_pipeline, tmp_path, f"{web.url}/hook") == {"alerts.failed": 2}
    assert web.requests == []
    assert token not in str(targets(tmp_path))


def test_a_slow_service_holds_back_no_other_alert(tmp_path, web):
    """Several are sent at once: eight that take 0.2 s each take much less than eight times that."""
    web.answers = [lambda handler, request: (time.sleep(0.2), status(200)(handler, request))]
    step = _Send(str(tmp_path), [f"{web.url}/hook"], policy(read_seconds=5), 8, keep_trying=False)
    step.setup()
    step.start_bundle()
    started = time.monotonic()
    for second in range(8):
        list(step.process(an_alert(second), timestamp=0, window=None))
    list(step.finish_bundle())
    step.teardown()
    assert len(web.requests) == 8
    assert time.monotonic() - started < 1.2


class Held:
    """State of one alert."""

    value = None

    def read(self):
        return self.value

    def write(self, value):
        self.value = value

    def clear(self):
        self.value = None


class Timer:
    """When an alert is to be tried again."""

    at = None

    def set(self, moment):
        self.at = float(moment)


def again(tmp_path, web, keep_trying_seconds=3600):
    step = _TryAgain(
        str(tmp_path), [f"{web.url}/hook"], policy(attempts=1), keep_trying_seconds, 60
    )
    step.setup()
    return step


def record_of(tmp_path, alert):
    (target,) = json.loads(
        (tmp_path / "alerts" / alert.camera / f"{alert.alert_id}.json").read_text()
    )["targets"]
    return target["outcome"]


def test_an_alert_that_fails_in_a_stream_is_held_and_sent_until_it_is_taken(tmp_path, web):
    web.answers = [status(503), status(503), status(200)]
    alert, held, timer = an_alert(1), Held(), Timer()
    step = again(tmp_path, web)
    step.process((alert.alert_id, alert), held, timer)
    assert web.requests == []
    pauses = []
    while held.value is not None:
        pauses.append(timer.at - time.time())
        step.try_again(held, timer)
    assert [round(pause / 2**at) in (1, 2, 3) for at, pause in enumerate(pauses)] == [True] * 3
    assert len(web.requests) == 3
    assert {request.headers["Idempotency-Key"] for request in web.requests} == {alert.alert_id}
    assert record_of(tmp_path, alert) == "delivered"
    step.try_again(held, timer)
    assert len(web.requests) == 3


def test_an_alert_that_nobody_takes_is_given_up_in_the_end_and_its_record_says_so(tmp_path, web):
    web.answers = [status(503)]
    alert, held, timer = an_alert(1), Held(), Timer()
    step = again(tmp_path, web, keep_trying_seconds=0)
    step.process((alert.alert_id, alert), held, timer)
    step.try_again(held, timer)
    assert held.value is None
    assert record_of(tmp_path, alert) == "failed"


def test_the_pauses_between_tries_have_an_end(tmp_path, web):
    step = again(tmp_path, web)
    held, timer = Held(), Timer()
    step._hold(_Undelivered(an_alert(1), time.time(), tries=5000), held, timer)
    assert 40 < timer.at - time.time() < 80


def test_only_what_failed_in_a_stream_is_handed_on_to_be_tried_again(tmp_path, web):
    web.answers = [status(503), status(200)]
    before = counted_here()
    step = _Send(str(tmp_path), [f"{web.url}/hook"], policy(attempts=1), 1, keep_trying=True)
    step.setup()
    step.start_bundle()
    out = []
    for second in (1, 2):
        out += step.process(an_alert(second), timestamp=0, window=None)
    out += step.finish_bundle()
    step.teardown()
    assert [one.value[0] for one in out] == [an_alert(1).alert_id]
    counted = counted_here()
    counted.subtract(before)
    assert {name: number for name, number in counted.items() if number} == {
        "alerts.waiting": 1,
        "alerts.delivered": 1,
    }
